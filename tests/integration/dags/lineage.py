"""Operators with outlets and aliases, for asset events, links to the console and lineage."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias, Param, task

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator, ModelArtsDescribeProcessorTaskOperator

WAYS: dict[str, dict[str, Any]] = {"worker": {"deferrable": False}, "triggerer": {"deferrable": True}}


def create(way: str, name: str, **arguments: Any) -> ModelArtsCreateProcessorTaskOperator:
    return ModelArtsCreateProcessorTaskOperator(
        task_id=f"{name}_{way}",
        name=f"{name}_{way}",
        template={"id": "sys_data_cleaning"},
        inputs=[{"type": "OBS", "source": "/lineage/in/"}, {"type": "DATASET", "source": "images", "version_id": "v7"}],
        work_path={"type": "OBS", "path": f"s3://lineage/{name}/{way}/"},
        poll_interval=1,
        **WAYS[way],
        **arguments,
    )


with DAG("lineage", schedule=None, params={"id": Param("", type="string")}):
    ModelArtsDescribeProcessorTaskOperator(
        task_id="describe",
        processor_task_id="{{ params.id }}",
        outlets=[
            AssetAlias("described"),
            Asset(uri="obs://lineage/described"),
            Asset(uri="obs://lineage/elsewhere"),
            Asset("training-images"),
        ],
    )
    for way in WAYS:
        create(way, "created", outlets=[AssetAlias(f"created_{way}")])
        create(way, "failing")

# In Airflow 3 the slash at the end gives it another name than the asset that an alias creates.
with DAG("lineage_consumer", schedule=[Asset(uri="obs://lineage/created/worker/")], start_date=datetime(2024, 1, 1)):

    @task
    def receive(**context: Any) -> list[Any]:
        """Return the extras of the events that started this run."""
        events = context.get("triggering_asset_events") or context["triggering_dataset_events"]
        return [event.extra for of_asset in events.values() for event in of_asset]

    receive()
