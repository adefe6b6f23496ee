"""DAGs with one task each, which the tests mark, clear or let time out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_modelarts.operators import (
    ModelArtsCreateProcessorTaskOperator,
    ModelArtsCreateProcessorTaskVersionOperator,
)

#: Seconds, longer than any test: a version that is stopped was stopped before the next poll.
POLL_INTERVAL = 3600
BODY: dict[str, Any] = {
    "inputs": [{"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}],
    "work_path": {"type": "OBS", "path": "obs://bucket/work/"},
}


def create(dag_id: str, template: str = "sys_data_validation", **arguments: Any) -> None:
    with DAG(dag_id, schedule=None):
        name = dag_id.replace("_", "-")
        ModelArtsCreateProcessorTaskOperator(task_id="run", name=name, template={"id": template}, **BODY, **arguments)


for path, deferrable in (("synchronous", False), ("deferrable", True)):
    create(f"happy_{path}", deferrable=deferrable, poll_interval=1)
    create(f"killed_{path}", deferrable=deferrable, poll_interval=POLL_INTERVAL)
    create(f"timed_out_{path}", deferrable=deferrable, poll_interval=1, execution_timeout=timedelta(seconds=30))
    create(f"goes_on_{path}", deferrable=deferrable, poll_interval=1, cancel_on_kill=False)
create("reused", deferrable=True, poll_interval=1, random_name_suffix=False, reuse_existing=True)
create("cleared_deferrable", deferrable=True, poll_interval=1)
create("analysis", "sys_data_analyse", deferrable=True, poll_interval=1)

with DAG("mapped", schedule=None):
    ModelArtsCreateProcessorTaskOperator.partial(
        task_id="run", template={"id": "sys_data_validation"}, **BODY, deferrable=True, poll_interval=1
    ).expand(name=["mapped-a", "mapped-b", "mapped-c"])

with DAG("version", schedule=None, params={"id": Param("", type="string")}):
    ModelArtsCreateProcessorTaskVersionOperator(
        task_id="run", processor_task_id="{{ params.id }}", deferrable=True, poll_interval=1
    )
