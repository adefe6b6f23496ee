"""Mapped tasks that create processing tasks, and some that only defer and return. The conf has their number."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseOperator, Param, TaskGroup, task
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator

#: By fault: the project whose calls it throttles, one for each way.
FAULTS = ("plain_429", "429_with_retry_after", "503_html")
WAYS = ("worker", "deferred")
BODY: dict[str, Any] = {
    "template": {"id": "sys_data_validation"},
    "inputs": [{"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}],
    "work_path": {"type": "OBS", "path": "obs://bucket/work/"},
}


class DeferAndReturn(BaseOperator):
    """Defers until now, and returns its number."""

    def __init__(self, *, number: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context: Any) -> None:
        self.defer(trigger=TimeDeltaTrigger(timedelta()), method_name="resume")

    def resume(self, context: Any, event: Any) -> str:
        return self.number


@task
def names(prefix: str, params: dict[str, Any]) -> list[str]:
    return [f"{prefix}-{number}" for number in range(params["count"])]


def fan_out(dag_id: str) -> DAG:
    return DAG(dag_id, schedule=None, max_active_tasks=1000, params={"count": Param(1, type="integer")})


with fan_out("only_defer"):
    DeferAndReturn.partial(task_id="run").expand(number=names("number"))

with fan_out("creates"), TaskGroup("group"):
    ModelArtsCreateProcessorTaskOperator.partial(task_id="run", **BODY, deferrable=True, poll_interval=2).expand(
        name=names("create")
    )

with fan_out("throttled"):
    for number, (fault, way) in enumerate((fault, way) for fault in FAULTS for way in WAYS):
        ModelArtsCreateProcessorTaskOperator.partial(
            task_id=f"{way}_{fault}",
            **BODY,
            project_id=f"{number:032x}",
            deferrable=way == "deferred",
            poll_interval=5,
        ).expand(name=names.override(task_id=f"names_{way}_{fault}")(f"{way}-{fault}"))
