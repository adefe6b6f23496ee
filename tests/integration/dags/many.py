"""Many waits at once, which a test interrupts. On Airflow 3.3 they start in the triggerer within seconds."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

WAITS = 200 if AIRFLOW_V_3_3_PLUS else 6
#: Seconds, of the waits that are to time out.
TIMEOUT = 90 if AIRFLOW_V_3_3_PLUS else 120


def wait(task_id: str, processor_task_id: str, **arguments: Any) -> None:
    ModelArtsProcessorTaskSensor(
        task_id=task_id,
        processor_task_id=processor_task_id,
        poke_interval=2,
        deferrable=True,
        start_from_trigger=AIRFLOW_V_3_3_PLUS,
        **arguments,
    )


with DAG("many", schedule=None, params={"ids": Param([], type="array"), "endless": Param("", type="string")}):
    for number in range(WAITS):
        wait(
            f"wait_{number}",
            f"{{{{ params.ids[{number}] }}}}",
            timeout=600,
            end_from_trigger=AIRFLOW_V_3_3_PLUS and number % 10 > 0,
        )
    for number in range(3):
        # On SQLite an Airflow 2 runs one task at a time: these must not be queued for long.
        wait(f"time_out_{number}", "{{ params.endless }}", timeout=TIMEOUT, priority_weight=2)

with DAG("one_timeout", schedule=None, params={"endless": Param("", type="string")}):
    wait("time_out", "{{ params.endless }}", timeout=TIMEOUT)
