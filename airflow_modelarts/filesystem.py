"""The file system of the scheme ``obs``, which Airflow loads, and places in OBS as paths of Airflow.

It imports no s3fs: Airflow loads this module wherever a path of any store is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

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

    :param place: ``obs://bucket/key``, the same with ``s3``, ``s3a`` or ``s3n`` (may be percent-encoded), or
        ``/bucket/key`` (taken literally). With a scheme it can name the connection: ``obs://conn_id@bucket/key``.
    :param conn_id: the Airflow connection of type ``modelarts`` whose credentials open it; default that of the place,
        else ``modelarts_default``.
    :raises ArgumentError: it is no place in OBS.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    scheme, mark, rest = place.partition("://")
    user, at, netloc = rest.partition("/")[0].rpartition("@") if mark else ("", "", "")
    uri = obs_uri(f"{scheme}://{netloc}{rest[len(user + at + netloc) :]}" if at else place)
    if uri is None:
        from airflow_modelarts.api.redaction import printable, without_signed_links

        shown = repr(printable(without_signed_links(place)))
        raise ArgumentError(f"place is {shown}, which is not in OBS: give obs://bucket/key or /bucket/key")
    # A path of Airflow is literal, and a URI is percent-encoded.
    bucket, slash, key = unquote(uri.removeprefix(f"{SCHEME}://")).partition("/")
    return ObjectStoragePath(f"{SCHEME}://{conn_id or user or DEFAULT_CONN_ID}@{bucket}{slash}{key}")


def path_with_connection(path: ObjectStoragePath) -> str:
    """Return a path as text that opens it again, with its connection. Airflow's own text loses the connection."""
    conn_id = path.conn_id if hasattr(path, "conn_id") else path.storage_options.get("conn_id")
    if path.protocol in ("", "file", "local"):
        return str(path)
    user = f"{conn_id}@" if conn_id else ""
    return f"{path.protocol}://{user}{path.path.lstrip('/')}"


def console_page(path: ObjectStoragePath) -> str:
    """To be replaced."""
    return quote(str(path))
