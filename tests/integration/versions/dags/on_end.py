"""A DAG that is started by the end of a processing task (Airflow 3).

It has a file of its own: Airflow 3.0 treats all DAGs of a file as deleted while it reports a lost task of one of them.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

if AIRFLOW_V_3_0_PLUS:
    from airflow.sdk import AssetWatcher

    from airflow_modelarts.triggers import ProcessorTaskEventTrigger

    watched = Asset(
        "watched",
        watchers=[
            AssetWatcher(name="watched", trigger=ProcessorTaskEventTrigger(name_prefix="watched-", poll_interval=1))
        ],
    )
    with DAG("on_end", schedule=[watched]):

        @task
        def receive(triggering_asset_events: Any) -> list[str]:
            return [event.extra["payload"]["name"] for event in triggering_asset_events[watched]]

        receive()
