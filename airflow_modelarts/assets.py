"""Places in OBS as URIs, for whoever compares what the API writes in three ways, and Airflow's assets at them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.models import ProcessorDataSource, ProcessorTask, ProcessorTaskVersion

log = logging.getLogger(__name__)

#: The scheme of a place in OBS; the API also writes ``s3://bucket/key`` and ``/bucket/key``, Hadoop ``s3a://bucket/key``.
SCHEME = "obs"

# A bucket is written in lower-case letters, digits, hyphens and periods, so this also refuses user info and ports.
_PLACE = re.compile(
    r"(?i:(?P<scheme>obs|s3[an]?):/)?/(?P<bucket>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?:/(?P<key>.*))?", re.DOTALL
)
# What RFC 3986 allows in a path as it is, beside letters and digits.
_SAFE_IN_KEYS = "/!$&'()*+,;=:@~"
# Any field of an answer may be missing, and what looks like a place in OBS is no dataset's id.
_KINDS_OF_PLACES = ("OBS", None)


def obs_uri(place: str | None, *, is_in_obs: bool = False) -> str | None:
    """
    Return ``obs://bucket/key`` for a place in OBS, however the API wrote it; None for anything else.

    A place has one URI: percent-encoded, without a query (that of a signed link is a credential) and, as Airflow writes
    its assets, without slashes at the end. A key with ``.`` or ``..`` between slashes has none, since programs disagree
    about where it is.

    :param place: ``obs://bucket/key``, the same with ``s3``, ``s3a`` or ``s3n`` (which may be percent-encoded), or
        ``/bucket/key`` (as it is).
    :param is_in_obs: whether it is known to be a place in OBS; then ``bucket/key`` is one too, as some write it.
    """
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
    except UnicodeEncodeError:  # half a character
        return None
    return f"{SCHEME}://{found['bucket']}/{path}".rstrip("/")


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Check and normalize the URI of an asset, as Airflow asks for the scheme ``obs``; see :func:`obs_uri`.

    :raises ValueError: it has no bucket, or has user info, a port, a query, or a key that points elsewhere.
    """
    if uri.query:
        raise ValueError("URI format obs:// must not contain a query: that of a signed link is a credential")
    place = obs_uri(f"{SCHEME}://{uri.netloc}{uri.path}")
    if place is None:
        raise ValueError(
            "URI format obs:// must contain a bucket name, without user and port, and a key without '.' and '..' "
            "between slashes"
        )
    return urlsplit(place)


def output_uri(task: ProcessorTask | ProcessorTaskVersion) -> str | None:
    """
    Return where a task writes; None when that is a dataset, which is no place in OBS, or when the task does not say.

    That is the path of a ``work_path`` of type ``OBS``. Its ``output_path``, such as ``/datasets/demo``, counts only
    with a scheme, as in ``obs://``: the reference does not tell whether it begins with a bucket.
    """
    work_path = task.work_path
    if not work_path:
        return None
    if "://" in (work_path.output_path or "") and (uri := obs_uri(work_path.output_path)):
        return uri
    return typed_uri(work_path.type, work_path.path)


def typed_uri(kind: str | None, place: str | None) -> str | None:
    """Return the URI of a place beside which the API says what kind it is; None for a kind that is not in OBS."""
    return obs_uri(place, is_in_obs=kind == "OBS") if kind in _KINDS_OF_PLACES else None


def input_uris(task: ProcessorTask | ProcessorTaskVersion) -> list[str]:
    """Return the places in OBS that a task reads; datasets and other tasks' outputs are none."""
    uris = (typed_uri(source.type, source.source) for source in data_sources(task))
    return list(dict.fromkeys(uri for uri in uris if uri))


def data_sources(task: ProcessorTask | ProcessorTaskVersion) -> list[ProcessorDataSource]:
    """Return a task's inputs; where the service fills ``inputs`` and ``data_source``, they say the same."""
    single = getattr(task, "data_source", None)  # which versions lack
    return task.inputs or ([single] if single else [])


def emit(
    context: Context, outlets: Iterable[Any], task: ProcessorTask, version: ProcessorTaskVersion | None = None
) -> None:
    """
    Say with the events of an operator's outlets what the task left, and where.

    The extra is ``task_id``, ``task_version_id``, ``status``, ``status_name`` and ``uri``, the output's place in OBS.
    An ``AssetAlias`` gets it with an asset at that place, by whatever name that is declared. An ``Asset`` gets it when
    it is that place, above it or below it, and also when it is none in OBS, since it then stands for whatever the task
    left.

    :param outlets: the operator's.
    :param version: the run whose output it is, for a task that has versions.
    """
    from airflow.providers.common.compat.sdk import Asset, AssetAlias

    uri = (output_uri(version) if version else None) or output_uri(task)
    extra = _extra(task, version, uri)
    assets: Any = (Asset, *_references())
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            if uri:
                _add(context["outlet_events"][outlet], uri, extra)
        elif isinstance(outlet, assets) and _stands_for(outlet, uri):
            context["outlet_events"][outlet].extra.update(extra)


def _extra(task: ProcessorTask, version: ProcessorTaskVersion | None, uri: str | None) -> dict[str, Any]:
    from airflow_modelarts.api.statuses import status_name

    status = version.status if version and version.status is not None else task.status
    return {
        "task_id": task.task_id,
        "task_version_id": version.task_version_id if version else None,
        "status": status,
        "status_name": status_name(status),
        "uri": uri,
    }


def _add(events: Any, uri: str, extra: dict[str, Any]) -> None:
    """Add an event of the asset that is declared with this URI; of an asset named like its URI, if there is none."""
    from airflow.providers.common.compat.sdk import Asset

    try:
        asset = Asset(uri=uri)
    except ValueError as error:  # longer than Airflow's column; the task has ended well all the same
        log.warning("There is no asset event for %s: %s.", uri, error)
        return
    if _references():
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

        try:
            events.add(Asset.ref(uri=asset.uri), extra=extra)
            return
        except ImportError:  # no supervisor to ask, as in a test
            pass
        except AirflowRuntimeError as error:
            if error.error.error is not ErrorType.ASSET_NOT_FOUND:  # the task has ended well all the same
                log.warning("Cannot ask for the asset at %s, the event is of one that is named so: %s", uri, error)
    events.add(asset, extra=extra)


def _references() -> tuple[type, ...]:
    """Return what Airflow 3 takes for an asset that is declared elsewhere: ``Asset.ref(name=…)``."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    if not AIRFLOW_V_3_0_PLUS:
        return ()
    from airflow.sdk.definitions.asset import AssetRef

    return (AssetRef,)


def _stands_for(outlet: Any, uri: str | None) -> bool:
    place = obs_uri(getattr(outlet, "uri", None))
    if place is None:
        return True
    return uri is not None and (f"{uri}/".startswith(f"{place}/") or place.startswith(f"{uri}/"))
