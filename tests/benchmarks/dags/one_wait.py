"""One wait a DAG, in each mode."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "deferrable": False},
    "reschedule": {"mode": "reschedule", "deferrable": False},
    "deferrable": {"deferrable": True},
    "from_the_triggerer": {"start_from_trigger": True, "end_from_trigger": True},
}

for name, options in MODES.items():
    with DAG(name, schedule=None, params={"id": Param("", type="string")}):
        ModelArtsProcessorTaskSensor(
            task_id="wait", processor_task_id="{{ params.id }}", poke_interval=5, timeout=600, **options
        )
