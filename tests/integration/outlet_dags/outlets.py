"""A wait in a sensor that has the outlets, and the DAG that their event starts."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetAlias, dag, task

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator, ModelArtsDescribeProcessorTaskOperator
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

images = Asset("obs://outlets/images")

with DAG("produce", schedule=None):
    create = ModelArtsCreateProcessorTaskOperator(
        task_id="create",
        name="images",
        template={"id": "sys_data_analyse"},
        inputs=[{"type": "OBS", "source": "obs://outlets/raw/"}],
        work_path={"type": "OBS", "path": "obs://outlets/images/"},
        wait_for_completion=False,
        outlets=[AssetAlias("created")],
    )
    # The processing task runs while it is read.
    ModelArtsDescribeProcessorTaskOperator(
        task_id="look",
        processor_task_id=create.output["processor_task_id"],
        outlets=[Asset("looked_at"), AssetAlias("looked_at_output")],
    )
    ModelArtsProcessorTaskSensor(
        task_id="wait",
        processor_task_id=create.output["processor_task_id"],
        poke_interval=1,
        deferrable=True,
        outlets=[images],
    )


@dag(schedule=[images])
def on_images() -> None:
    @task
    def receive(triggering_asset_events: Any) -> list[dict[str, Any]]:
        return [event.extra for event in triggering_asset_events[images]]

    receive()


on_images()
