"""The file system of the scheme ``obs``, which Airflow loads, and places in OBS as paths of Airflow.

It imports no s3fs: Airflow loads this module wherever a path of any store is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow_modelarts.api.arguments import ArgumentError
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.api.places import SCHEME, obs_uri

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath
    from s3fs import S3FileSystem

#: What Airflow asks :func:`get_fs` for. The schemes s3 and s3a belong to the provider of Amazon.
schemes = [SCHEME]

DEFAULT_CONN_ID = "modelarts_default"


def get_fs(conn_id: str | None = None, storage_options: Mapping[str, Any] | None = None) -> S3FileSystem:
    """Return the file system of OBS for an Airflow connection. Airflow calls this for ``obs://conn_id@bucket/key``.

    The connection is read when the file system is first used.

    :param conn_id: an Airflow connection of type ``modelarts``; default ``modelarts_default``.
    :param storage_options: arguments of ``s3fs.S3FileSystem`` without those of endpoint and credentials, which the
        connection gives.
    :raises ModelArtsConfigurationError: s3fs is not installed.
    """
    if find_spec("s3fs") is None:
        raise ModelArtsConfigurationError(
            "Paths that begin with obs:// need the package s3fs: install it with pip install 'airflow-modelarts[obs]'"
        )
    from airflow_modelarts.obs.filesystem import ObsFileSystem

    options = {name: value for name, value in (storage_options or {}).items() if name != "conn_id"}
    return ObsFileSystem(conn_id or DEFAULT_CONN_ID, **options)


def object_storage_path(place: str, conn_id: str | None = None) -> ObjectStoragePath:
    """Return a place in OBS as a path of Airflow, in whatever form ModelArts or Hadoop writes it.

    :param place: ``obs://bucket/key``, the same with ``s3``, ``s3a`` or ``s3n`` (may be percent-encoded),
        ``/bucket/key``, or the text of a path with its connection, ``obs://conn_id@bucket/key`` (both taken literally).
    :param conn_id: the Airflow connection of type ``modelarts`` whose credentials open it; default that of the place,
        else ``modelarts_default``.
    :raises ArgumentError: it is no place in OBS, or a path of Airflow would open another object.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    # Before Airflow 3.2 nothing else loads it; without it a path cannot hold // in a key.
    import airflow_modelarts.obs.path  # noqa: F401
    from airflow_modelarts.api.redaction import printable, without_signed_links

    if not isinstance(place, str):
        raise ArgumentError(
            f"place is {printable(without_signed_links(repr(place)))[:200]}: give a text such as obs://bucket/key"
        )
    scheme, mark, rest = place.partition("://")
    user, at, _ = rest.partition("/")[0].rpartition("@") if mark else ("", "", "")
    # With a connection it is the text of a path, which is literal. Before Airflow 3.2 that can be obs://conn_id@/bucket.
    text = rest.removeprefix(user + at).lstrip("/").replace("%", "%25")
    uri = obs_uri(f"{scheme}://{text}" if at else place)
    shown = repr(printable(without_signed_links(place)))[:300]
    if uri is None:
        raise ArgumentError(f"place is {shown}, which is not in OBS: give obs://bucket/key or /bucket/key")
    # A path of Airflow is literal, and a URI is percent-encoded.
    literal = unquote(uri.removeprefix(f"{SCHEME}://"))
    conn_id = conn_id or user or DEFAULT_CONN_ID
    path = ObjectStoragePath(f"{SCHEME}://{conn_id}@{literal}")
    if path.path.strip("/") != literal.strip("/"):
        raise ArgumentError(
            f"place is {shown}, but a path of Airflow cannot hold this key: open it with get_fs({conn_id!r}), "
            f"as {literal!r}"
        )
    return path


def path_of_output(output: Any, conn_id: str | None = None) -> ObjectStoragePath:
    """Return the place to which a processing task writes as a path of Airflow, for a task that reads its files.

    :param output: what an operator pushes: ``create.output`` (the processing task), ``create.output["work_path"]`` or
        ``create.output["version"]``; also a model of the hook, or a place as text. Of a ``work_path`` the path counts,
        or its ``output_path`` if that begins with a scheme such as ``obs://``.
    :param conn_id: the Airflow connection of type ``modelarts`` whose credentials open it; default
        ``modelarts_default``.
    :raises ArgumentError: it has no place in OBS, since the task has no work path, or its work path is a dataset.
    """
    from airflow_modelarts.api.models import ProcessorTask, WorkPath
    from airflow_modelarts.api.places import output_uri
    from airflow_modelarts.api.redaction import printable, without_signed_links

    if isinstance(output, str):
        return object_storage_path(output, conn_id)
    given = output.to_json() if hasattr(output, "to_json") else {} if output is None else output
    if isinstance(given, Sequence) and not isinstance(given, bytes):
        raise ArgumentError(
            f"output is a list of {len(given)}: give one of them, as a mapped Airflow task pushes an output for each "
            "of its instances"
        )
    if not isinstance(given, Mapping):
        shown = printable(without_signed_links(repr(given)))[:200]
        raise ArgumentError(f"output is {shown}: give what an operator pushes, such as create.output")
    # A work path has a path; a task or a version has a work path, or none.
    is_work_path = "work_path" not in given and not {"path", "output_path"}.isdisjoint(given)
    work_path = given if is_work_path else given.get("work_path")
    uri = output_uri(ProcessorTask(task_id="", work_path=WorkPath.model_validate(work_path or {})))
    if uri is not None:
        return object_storage_path(uri, conn_id)
    subject = f"processing task '{given['task_id']}'" if "task_id" in given else "output"
    if not work_path:
        raise ArgumentError(
            f"{subject} has no work_path: give the task one when you create it, and read its files there"
        )
    shown = printable(repr(without_signed_links(work_path)))[:300]
    raise ArgumentError(
        f"{subject} has the work_path {shown}, which is no place in OBS: read the dataset in ModelArts, or give the "
        "task a work_path of type OBS"
    )


def path_with_connection(path: ObjectStoragePath) -> str:
    """Return a path as text; one in OBS with its connection, which Airflow's own text can lose."""
    if path.protocol != SCHEME:
        return str(path)
    conn_id = path.conn_id if hasattr(path, "conn_id") else path.storage_options.get("conn_id")
    return f"{SCHEME}://{conn_id or DEFAULT_CONN_ID}@{path.path.lstrip('/')}"
