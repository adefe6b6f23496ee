"""Airflow assets at places in OBS: their URIs, and the events that an operator's outlets emit."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from airflow_modelarts.api.places import SCHEME, is_within, obs_uri, output_uri
from airflow_modelarts.api.statuses import status_name

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion

log = logging.getLogger(__name__)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Check and normalize the URI of an asset; Airflow calls this for the scheme ``obs``.

    :raises ValueError: it has no bucket, or has user info, a port, a query, or a key with ``.`` or ``..`` segments.
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


def emit(
    context: Context, outlets: Iterable[Any], task: ProcessorTask, version: ProcessorTaskVersion | None = None
) -> None:
    """
    Describe a task's output in the events of an operator's outlets.

    The extra is ``task_id``, ``task_version_id``, ``status``, ``status_name`` and ``uri``, the output's place in OBS.
    An ``AssetAlias`` emits it for the asset at that place, under whatever name that asset is declared. An ``Asset``
    gets it if it is that place, above it or below it. An ``Asset`` outside OBS always gets it.

    :param outlets: the operator's.
    :param version: the version that wrote the output, for a task that has versions.
    """
    from airflow.providers.common.compat.sdk import Asset, AssetAlias

    uri = (output_uri(version) if version else None) or output_uri(task)
    status = version.status if version and version.status is not None else task.status
    extra = {
        "task_id": task.task_id,
        "task_version_id": version.task_version_id if version else None,
        "status": status,
        "status_name": status_name(status),
        "uri": uri,
    }
    assets: Any = (Asset, *_reference_types())
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            if uri:
                _add_event(context["outlet_events"][outlet], uri, extra)
        elif isinstance(outlet, assets) and _matches(outlet, uri):
            context["outlet_events"][outlet].extra.update(extra)


def _add_event(events: Any, uri: str, extra: dict[str, Any]) -> None:
    """Add an event of the asset that is declared with this URI; without one, of an asset named like its URI."""
    from airflow.providers.common.compat.sdk import Asset

    # The processing task has succeeded, so a failure here must not fail the Airflow task.
    try:
        asset = Asset(uri=uri)
    except ValueError as error:  # longer than Airflow's database column
        log.warning("There is no asset event for %s: %s.", uri, error)
        return
    if _reference_types():
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

        try:
            events.add(Asset.ref(uri=asset.uri), extra=extra)
            return
        except ImportError:  # there is no supervisor, as in a test
            pass
        except AirflowRuntimeError as error:
            if error.error.error is not ErrorType.ASSET_NOT_FOUND:
                log.warning("Cannot look up the asset at %s; its event uses the URI as the name: %s", uri, error)
    events.add(asset, extra=extra)


def _reference_types() -> tuple[type, ...]:
    """Return the type of ``Asset.ref(name=…)``, which came with Airflow 3."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    if not AIRFLOW_V_3_0_PLUS:
        return ()
    from airflow.sdk.definitions.asset import AssetRef

    return (AssetRef,)


def _matches(outlet: Any, uri: str | None) -> bool:
    """Return whether an asset is outside OBS, or is the place, above it or below it."""
    place = obs_uri(getattr(outlet, "uri", None))
    if place is None:
        return True
    return uri is not None and (is_within(uri, place) or is_within(place, uri))
