"""A DAG that starts when a processing task ends."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_modelarts.triggers import ProcessorTaskEventTrigger

ends = Asset(
    "ends",
    watchers=[AssetWatcher(name="ends", trigger=ProcessorTaskEventTrigger(name_prefix="watched", poll_interval=1))],
)
# Airflow makes one trigger of equal watchers, here of two assets.
ends_too = Asset(
    "ends_too",
    watchers=[AssetWatcher(name="ends", trigger=ProcessorTaskEventTrigger(name_prefix="watched", poll_interval=1))],
)
failures = Asset(
    "failures",
    watchers=[
        AssetWatcher(
            name="failures", trigger=ProcessorTaskEventTrigger(name_prefix="watched", statuses=[3], poll_interval=1)
        )
    ],
)


def react_to(asset: Asset, dag_id: str) -> None:
    @dag(dag_id=dag_id, schedule=[asset])
    def pipeline() -> None:
        @task
        def react(triggering_asset_events: Any) -> list[str]:
            return [event.extra["payload"]["name"] for event in triggering_asset_events[asset]]

        react()

    pipeline()


react_to(ends, "on_end")
react_to(ends_too, "on_end_too")
react_to(failures, "on_failure")
