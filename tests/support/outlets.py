"""What Airflow collects of the outlets of a task while it runs."""

from __future__ import annotations

from typing import Any

import airflow

ON_AIRFLOW_2 = airflow.__version__.startswith("2.")


def outlet_events() -> Any:
    if ON_AIRFLOW_2:
        from airflow.utils.context import OutletEventAccessors
    else:
        from airflow.sdk.execution_time.context import OutletEventAccessors
    return OutletEventAccessors()


def alias_events(events: Any, alias: Any) -> list[tuple[str, dict[str, Any]]]:
    if ON_AIRFLOW_2:
        return [(event["dest_dataset_uri"], event["extra"]) for event in events[alias].dataset_alias_events]
    return [(event.dest_asset_key.uri, event.extra) for event in events[alias].asset_alias_events]
