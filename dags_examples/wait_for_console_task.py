"""
Wait for a processing task that somebody started in the console, and read it.

Trigger it with the task's id: ``airflow dags trigger wait_for_console_task --conf '{"processor_task_id": "…"}'``

Run it with no cloud account: ``airflow-modelarts run dags_examples/wait_for_console_task.py --seed 5 --conf …``, with
an id that this prints.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_modelarts.operators import ModelArtsDescribeProcessorTaskOperator
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

with DAG(
    "wait_for_console_task",
    schedule=None,
    tags=["modelarts"],
    params={"processor_task_id": Param(type="string", minLength=1, description="id of the processing task")},
):
    wait = ModelArtsProcessorTaskSensor(
        task_id="wait",
        processor_task_id="{{ params.processor_task_id }}",
        failed_statuses=(),  # any end will do: the next task tells which it was
        mode="reschedule",
        poke_interval=30,
        timeout=24 * 60 * 60,
    )
    describe = ModelArtsDescribeProcessorTaskOperator(
        task_id="describe", processor_task_id="{{ params.processor_task_id }}"
    )
    wait >> describe
