"""Airflow assets at places in OBS: their URIs, and the events that an operator's outlets emit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from airflow_modelarts.api.arguments import ArgumentError
from airflow_modelarts.api.places import SCHEME, is_within, obs_uri

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Check and normalize the URI of an asset; Airflow calls this for the scheme ``obs``.

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


def create_asset(*, bucket: str, key: str, extra: dict[str, Any] | None = None) -> Any:
    """Return the asset of a place; Airflow calls this for the scheme ``obs`` when a hook reports its lineage.

    :param bucket: the bucket's name.
    :param key: the object's key, or the beginning of keys.
    :param extra: of the asset.
    :raises ValueError: that is no place, for example since the key has ``..`` between slashes.
    """
    from airflow.providers.common.compat.sdk import Asset

    return Asset(uri=obs_uri(f"/{bucket}/{key}") or f"{SCHEME}://{bucket}/{key}", extra=extra)


def emit(context: Context, outlets: Iterable[Any], extra: Mapping[str, Any]) -> None:
    """Describe a task's output in the events of an operator's outlets.

    An ``AssetAlias`` emits the extra for the asset at the place of the output, under whatever name that asset is
    declared. An ``Asset`` gets it if it is that place, above it or below it. An ``Asset`` outside OBS always gets it.

    :param outlets: the operator's.
    :param extra: what :func:`airflow_modelarts.api.ends.identify_end` returns.
    """
    from airflow.providers.common.compat.sdk import AssetAlias

    uri = extra["uri"]
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            if uri:
                _add_event(context["outlet_events"][outlet], uri, dict(extra))
        elif _is_asset(outlet) and _matches(outlet, uri):
            context["outlet_events"][outlet].extra.update(extra)


def check_outlets(outlets: Any, wait_for_completion: bool) -> None:
    """Check the outlets of an operator that may not wait.

    :param outlets: one outlet, a list of them, or None.
    :raises ArgumentError: it does not wait, and Airflow would emit the event of an asset before there is any data.
    """
    if wait_for_completion or not outlets:
        return
    given = outlets if isinstance(outlets, list | tuple | set | frozenset) else [outlets]
    if found := ", ".join(str(outlet) for outlet in given if _is_asset(outlet)):
        raise ArgumentError(
            f"outlets has {found}, with wait_for_completion=False: Airflow would emit the event before the processing "
            "task has ended. Give the outlets to the ModelArtsProcessorTaskSensor that waits for it, or leave "
            "wait_for_completion out"
        )


def _is_asset(outlet: Any) -> bool:
    """Return whether an outlet is an ``Asset`` or a reference to one, whose event Airflow emits by itself."""
    from airflow.providers.common.compat.sdk import Asset

    return isinstance(outlet, (Asset, *_reference_types()))


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
