"""Many waits at once, to be interrupted. On Airflow 3.3 they start in the triggerer: two hundred take seconds."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, Param
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

WAITS = 200 if AIRFLOW_V_3_3_PLUS else 6
#: Seconds; of the waits that are to end by it.
TIMEOUT = 90 if AIRFLOW_V_3_3_PLUS else 120

with DAG("many", schedule=None, params={"ids": Param([], type="array"), "endless": Param("", type="string")}):
    for number in range(WAITS):
        ModelArtsProcessorTaskSensor(
            task_id=f"wait_{number}",
            processor_task_id=f"{{{{ params.ids[{number}] }}}}",
            poke_interval=2,
            timeout=600,
            deferrable=True,
            start_from_trigger=AIRFLOW_V_3_3_PLUS,
            end_from_trigger=AIRFLOW_V_3_3_PLUS and number % 10 > 0,
        )
    for number in range(3):
        ModelArtsProcessorTaskSensor(
            task_id=f"time_out_{number}",
            processor_task_id="{{ params.endless }}",
            poke_interval=2,
            timeout=TIMEOUT,
            priority_weight=2,  # on SQLite an Airflow 2 runs one task at a time: their ends must not queue for long
            deferrable=True,
            start_from_trigger=AIRFLOW_V_3_3_PLUS,
        )
