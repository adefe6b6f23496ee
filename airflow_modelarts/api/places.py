"""Places in OBS, which the API writes in several ways, as URIs; and where a task reads and writes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from airflow_modelarts.api.arguments import ArgumentError

if TYPE_CHECKING:
    from airflow_modelarts.api.listed_tasks import Listed
    from airflow_modelarts.api.models import ProcessorDataSource, ProcessorTask, ProcessorTaskVersion

#: The scheme of the URIs; the API also writes ``s3://bucket/key`` and ``/bucket/key``, Hadoop ``s3a://bucket/key``.
SCHEME = "obs"

# A bucket name has lower-case letters, digits, hyphens and periods only, so this also rejects user info and ports.
# It is compiled when it is first used, since DAG files import this module.
_PLACE = r"(?i:(?P<scheme>obs|s3[an]?):/)?/(?P<bucket>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?:/(?P<key>(?s:.*)))?"
# The characters, beside letters and digits, that RFC 3986 allows in a path.
_SAFE_IN_KEYS = "/!$&'()*+,;=:@~"
# The API may omit the type. A dataset's id never matches _PLACE.
_OBS_TYPES = ("OBS", None)


def obs_uri(place: str | None, *, is_in_obs: bool = False) -> str | None:
    """Return ``obs://bucket/key`` for a place in OBS, in whatever form the API wrote it; None for anything else.

    Each place has exactly one URI: percent-encoded and, like Airflow's assets, without trailing slashes. A question
    mark is part of the key, unless what follows signs a link: then it is dropped, since it is a credential. A key with
    ``.`` or ``..`` as a segment has no URI, since programs disagree about where it points.

    :param place: ``obs://bucket/key``, the same with ``s3``, ``s3a`` or ``s3n`` (may be percent-encoded), or
        ``/bucket/key`` (taken literally).
    :param is_in_obs: the place is known to be in OBS; then ``bucket/key`` is accepted as well, as some write it.
    """
    # It compiles large patterns, and DAG files import this module.
    from airflow_modelarts.api.redaction import has_signature

    place = place or ""
    found = re.fullmatch(_PLACE, place) or (re.fullmatch(_PLACE, f"/{place}") if is_in_obs and "/" in place else None)
    if not found:
        return None
    key = found["key"] or ""
    if has_signature(f"/{key}"):
        key = key.partition("?")[0]
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


def output_uri(task: Listed | ProcessorTaskVersion) -> str | None:
    """Return where a task writes; None for a dataset, which is no place in OBS, and for a task without an output.

    That is the path of a ``work_path`` of type ``OBS``. Its ``output_path``, such as ``/datasets/demo``, counts only
    with a scheme, as in ``obs://``: the API reference does not say whether it begins with a bucket.
    """
    work_path = task.work_path
    if not work_path:
        return None
    if "://" in (work_path.output_path or "") and (uri := obs_uri(work_path.output_path)):
        return uri
    return typed_uri(work_path.type, work_path.path)


def is_within(uri: str, folder: str) -> bool:
    """Return whether a URI is that of a folder or of something below it; both as :func:`obs_uri` returns them."""
    return f"{uri}/".startswith(f"{folder}/")


class PlaceFilter:
    """Selects inputs or outputs by where they are: in a folder in OBS, or in what an id names, such as a dataset.

    :param name: the name of the argument, for the error.
    :param given: places in OBS in any form, and ids. A place selects itself and what is below it; an id only itself.
    :raises ArgumentError: one is neither.
    """

    def __init__(self, name: str, given: Iterable[str]) -> None:
        self._folders: set[str] = set()
        self._ids: set[str] = set()
        for one in given:
            if uri := obs_uri(one, is_in_obs=True):
                self._folders.add(uri)
            elif "/" in one:
                raise ArgumentError(_explain_no_place(name, one))
            else:
                self._ids.add(one)

    @property
    def items(self) -> list[str]:
        """The places as URIs, and the ids, in alphabetical order."""
        return sorted(self._folders | self._ids)

    def selects(self, uri: str | None, identifier: str | None) -> bool:
        """Return whether it selects an input or an output.

        :param uri: of the place in OBS; None if it is elsewhere.
        :param identifier: for example the dataset's id.
        """
        return identifier in self._ids or (uri is not None and any(is_within(uri, folder) for folder in self._folders))


def _explain_no_place(name: str, given: str) -> str:
    from airflow_modelarts.api.redaction import printable, without_signed_links

    shown = repr(printable(without_signed_links(given)))
    return f"an item of {name} is {shown}: give a place in OBS as obs://bucket/folder/, or an id"


def data_sources(task: ProcessorTask | ProcessorTaskVersion) -> list[ProcessorDataSource]:
    """Return a task's inputs. The service may fill both ``inputs`` and ``data_source``, with the same content."""
    single = getattr(task, "data_source", None)  # a version has no such field
    return task.inputs or ([single] if single else [])
