"""One task for each case of the fault matrix; the environment variable FAULT_CASES tells which."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_modelarts import operators
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

#: Seconds. The sensor's own, so that a wait that hangs ends before the test gives up on it.
TIMEOUT = 540


def common(case: dict[str, Any]) -> dict[str, Any]:
    return {
        "task_id": case["task_id"],
        "modelarts_conn_id": case["conn_id"],
        "retries": case["retries"],
        "retry_delay": timedelta(seconds=1),
    }


def wait(case: dict[str, Any], **mode: Any) -> BaseOperator:
    return ModelArtsProcessorTaskSensor(
        processor_task_id=case["processor_task_id"],
        timeout=TIMEOUT,
        **common(case),
        **{"poke_interval": 1, **mode},
    )


def create(case: dict[str, Any], **mode: Any) -> BaseOperator:
    return operators.ModelArtsCreateProcessorTaskOperator(
        name="created",
        template={"id": "sys_data_validation"},
        inputs=[{"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}],
        work_path={"type": "OBS", "path": "obs://bucket/work/"},
        poll_interval=1,
        execution_timeout=timedelta(seconds=TIMEOUT),
        **common(case),
        **mode,
    )


#: By mode: what makes the task, and with which options. Those that wait without a worker go first when they need one.
MODES: dict[str, tuple[Callable[..., BaseOperator], dict[str, Any]]] = {
    "poke": (wait, {"mode": "poke", "deferrable": False}),
    # Airflow takes a task that is back within a second or two for a lost one, and fails it.
    "reschedule": (wait, {"mode": "reschedule", "deferrable": False, "poke_interval": 5, "priority_weight": 2}),
    "deferrable": (wait, {"deferrable": True, "priority_weight": 3}),
    "trigger only": (wait, {"start_from_trigger": True, "end_from_trigger": True, "priority_weight": 4}),
    "create": (create, {"deferrable": False}),
    "create deferrable": (create, {"deferrable": True, "priority_weight": 3}),
}

with DAG("faults", schedule=None, max_active_tasks=64):
    for case in json.loads(os.environ.get("FAULT_CASES", "[]")):
        make, options = MODES[case["mode"]]
        make(case, **options)
