"""Start a pipeline whenever a feature analysis of the project completes, no matter who started it (Airflow 3).

The watcher polls in the triggerer, with one poll for all assets that watch the same connection. To try it, unpause this
DAG in your own Airflow and complete an analysis, for example in ``airflow-modelarts emulator``.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Asset, dag, task
from airflow.sdk import AssetWatcher

from airflow_modelarts.triggers import ProcessorTaskEventTrigger

analyses = Asset(
    "modelarts_feature_analyses",
    watchers=[
        AssetWatcher(
            name="feature_analyses",
            trigger=ProcessorTaskEventTrigger(template_ids=["sys_data_analyse"], statuses=[2], poll_interval=30),
        )
    ],
)


@dag(schedule=[analyses], tags=["modelarts"])
def downstream_on_completion() -> None:
    @task
    def react(triggering_asset_events: Any) -> list[str]:
        """Print and return the analyses that started this run."""
        ended = [event.extra["payload"] for event in triggering_asset_events[analyses]]
        for processor_task in ended:
            print(f"{processor_task['name']}: {processor_task['status_name']}")
        return [processor_task["task_id"] for processor_task in ended]

    react()


downstream_on_completion()
