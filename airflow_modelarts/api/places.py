"""Places in OBS, which the API writes in several ways, as URIs; and where a task reads and writes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorDataSource, ProcessorTask, ProcessorTaskVersion

#: The scheme of the URIs; the API also writes ``s3://bucket/key`` and ``/bucket/key``, Hadoop ``s3a://bucket/key``.
SCHEME = "obs"

# A bucket name has lower-case letters, digits, hyphens and periods only, so this also rejects user info and ports.
_PLACE = re.compile(
    r"(?i:(?P<scheme>obs|s3[an]?):/)?/(?P<bucket>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?:/(?P<key>.*))?", re.DOTALL
)
# The characters, beside letters and digits, that RFC 3986 allows in a path.
_SAFE_IN_KEYS = "/!$&'()*+,;=:@~"
# The API may omit the type. A dataset's id never matches _PLACE.
_OBS_TYPES = ("OBS", None)


def obs_uri(place: str | None, *, is_in_obs: bool = False) -> str | None:
    """
    Return ``obs://bucket/key`` for a place in OBS, in whatever form the API wrote it; None for anything else.

    Each place has exactly one URI: percent-encoded and, like Airflow's assets, without trailing slashes. The query is
    dropped, since that of a signed link is a credential. A key with ``.`` or ``..`` as a segment has no URI, since
    programs disagree about where it points.

    :param place: ``obs://bucket/key``, the same with ``s3``, ``s3a`` or ``s3n`` (may be percent-encoded), or
        ``/bucket/key`` (taken literally).
    :param is_in_obs: the place is known to be in OBS; then ``bucket/key`` is accepted as well, as some write it.
    """
    # It compiles large patterns, and DAG files import this module.
    from airflow_modelarts.api.redaction import has_signature

    place = place or ""
    found = _PLACE.fullmatch(place) or (_PLACE.fullmatch(f"/{place}") if is_in_obs and "/" in place else None)
    if not found:
        return None
    key = (found["key"] or "").partition("?")[0]
    if found["scheme"]:
        key = unquote(key, errors="surrogateescape")
    key = key.rstrip("/")
    if has_signature(f"/{key}") or not {".", ".."}.isdisjoint(key.split("/")):
        return None
    try:
        path = quote(key, safe=_SAFE_IN_KEYS, errors="surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate
        return None
    return f"{SCHEME}://{found['bucket']}/{path}".rstrip("/")


def typed_uri(kind: str | None, place: str | None) -> str | None:
    """Return the URI of a place whose type the API gives; None for a type that is not in OBS."""
    return obs_uri(place, is_in_obs=kind == "OBS") if kind in _OBS_TYPES else None


def output_uri(task: ProcessorTask | ProcessorTaskVersion) -> str | None:
    """
    Return where a task writes; None for a dataset, which is no place in OBS, and for a task without an output.

    That is the path of a ``work_path`` of type ``OBS``. Its ``output_path``, such as ``/datasets/demo``, counts only
    with a scheme, as in ``obs://``: the API reference does not say whether it begins with a bucket.
    """
    work_path = task.work_path
    if not work_path:
        return None
    if "://" in (work_path.output_path or "") and (uri := obs_uri(work_path.output_path)):
        return uri
    return typed_uri(work_path.type, work_path.path)


def data_sources(task: ProcessorTask | ProcessorTaskVersion) -> list[ProcessorDataSource]:
    """Return a task's inputs. The service may fill both ``inputs`` and ``data_source``, with the same content."""
    single = getattr(task, "data_source", None)  # a version has no such field
    return task.inputs or ([single] if single else [])
