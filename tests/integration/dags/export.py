"""An export of sample results, and mapped operators for many processing tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_modelarts.operators.export import ModelArtsExportProcessorTaskResultsOperator
from airflow_modelarts.operators.tasks import (
    ModelArtsDeleteProcessorTaskOperator,
    ModelArtsListProcessorTasksOperator,
    ModelArtsStopProcessorTaskOperator,
)
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor


def text(*names: str) -> dict[str, Any]:
    return {name: Param("", type="string") for name in names}


with DAG("export", schedule=None, params=text("id", "path")):
    ModelArtsExportProcessorTaskResultsOperator(
        task_id="export",
        processor_task_id="{{ params.id }}",
        path="{{ params.path }}",
        retries=1,
        retry_delay=timedelta(seconds=1),
    )

with DAG("tidy_up", schedule=None, params=text("status", "prefix", "folder", "since")):
    found = ModelArtsListProcessorTasksOperator(
        task_id="found",
        status="{{ params.status }}",
        task_name="{{ params.prefix }}",
        created_after="{{ params.since }}",
        order="asc",
    )
    ids = found.output.map(lambda task: task["task_id"])
    stop = ModelArtsStopProcessorTaskOperator.partial(task_id="stop").expand(processor_task_id=ids)
    wait = ModelArtsProcessorTaskSensor.partial(
        task_id="wait", poke_interval=1, timeout=300, failed_statuses=(), deferrable=False
    ).expand(processor_task_id=ids)
    export = ModelArtsExportProcessorTaskResultsOperator.partial(
        task_id="export", path="{{ params.folder }}/{{ ti.map_index }}.jsonl.gz"
    ).expand(processor_task_id=ids)
    delete = ModelArtsDeleteProcessorTaskOperator.partial(task_id="delete").expand(processor_task_id=ids)
    stop >> wait >> export >> delete
