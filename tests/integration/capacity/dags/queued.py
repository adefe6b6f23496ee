"""DAGs with one task each, which waits for capacity while the tests mark, clear or time out its run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_modelarts.operators import (
    ModelArtsCreateProcessorTaskOperator,
    ModelArtsCreateProcessorTaskVersionOperator,
)

BODY: dict[str, Any] = {
    "template": {"id": "sys_data_validation"},
    "inputs": [{"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}],
    "work_path": {"type": "OBS", "path": "obs://bucket/work/"},
}
PARAMS = {"project": Param(type="string"), "id": Param("", type="string")}
ARGUMENTS: dict[str, Any] = {
    "task_id": "run",
    "project_id": "{{ params.project }}",
    "deferrable": True,
    "poll_interval": 1,
}
#: Seconds. A slow machine needs time to queue the task before that.
TIMEOUT = timedelta(seconds=30)


def create(dag_id: str, **arguments: Any) -> None:
    with DAG(dag_id, schedule=None, params=PARAMS):
        ModelArtsCreateProcessorTaskOperator(name=dag_id.replace("_", "-"), **BODY, **{**ARGUMENTS, **arguments})


for path, deferrable in (("synchronous", False), ("deferrable", True)):
    create(f"marked_{path}", deferrable=deferrable)
    create(f"timed_out_{path}", deferrable=deferrable, execution_timeout=TIMEOUT)
    create(f"impatient_{path}", deferrable=deferrable, wait_for_capacity=False)
create("run_marked")
create("cleared")
create("last")
create("detached", wait_for_completion=False)

with DAG("version", schedule=None, params=PARAMS):
    ModelArtsCreateProcessorTaskVersionOperator(processor_task_id="{{ params.id }}", **ARGUMENTS)
