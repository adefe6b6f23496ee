"""Wait for a processing task that was started in the console, and read it.

Trigger it with the task's id: ``airflow dags trigger wait_for_console_task --conf '{"processor_task_id": "…"}'``

Run it without a cloud account: ``airflow-modelarts run dags_examples/wait_for_console_task.py --seed 5 --conf …``, with
one of the printed ids.
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
        failed_statuses=(),  # succeed at any end; the next task returns the status
        mode="reschedule",
        poke_interval=30,
        timeout=24 * 60 * 60,
    )
    describe = ModelArtsDescribeProcessorTaskOperator(
        task_id="describe", processor_task_id="{{ params.processor_task_id }}"
    )
    wait >> describe
