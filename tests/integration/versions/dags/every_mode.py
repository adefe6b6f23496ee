"""Every mode of the sensor, and a create that waits on a worker or deferred."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "deferrable": False},
    # Airflow takes a task that is back within a second or two for a lost one, and fails it.
    "reschedule": {"mode": "reschedule", "deferrable": False, "poke_interval": 5},
    "deferrable": {"deferrable": True},
    "triggerer": {"start_from_trigger": True, "end_from_trigger": True},
}
WAYS: dict[str, dict[str, Any]] = {"worker": {"deferrable": False}, "deferred": {"deferrable": True}}

with DAG("waits", schedule=None, params={name: Param("", type="string") for name in ("failed", "deleted", *MODES)}):
    for mode, options in MODES.items():
        for name, of_task in (("good", mode), ("bad", "failed")):
            ModelArtsProcessorTaskSensor(
                task_id=f"{mode}_{name}",
                processor_task_id=f"{{{{ params.{of_task} }}}}",
                **{"poke_interval": 1, "timeout": 600, **options},
            )

    # Tries that a retry cannot mend.
    policies: dict[str, dict[str, Any]] = {"fail_fast": {"fail_fast": True}}
    if AIRFLOW_V_3_3_PLUS:
        from airflow_modelarts.retry_policy import ModelArtsRetryPolicy

        policies["retry_policy"] = {"retry_policy": ModelArtsRetryPolicy()}
    for policy, arguments in policies.items():
        for mode in ("poke", "deferrable"):
            ModelArtsProcessorTaskSensor(
                task_id=f"{mode}_{policy}",
                # The deferred wait ends by an error of the trigger.
                processor_task_id="{{ params.failed }}" if mode == "poke" else "{{ params.deleted }}",
                retries=1,
                retry_delay=timedelta(seconds=1),
                poke_interval=1,
                **MODES[mode],
                **arguments,
            )

for way, options in WAYS.items():
    with DAG(f"create_{way}", schedule=None):
        create = ModelArtsCreateProcessorTaskOperator(
            task_id="run",
            name=f"create-{way}",
            template={"id": "sys_data_cleaning"},
            inputs=[{"type": "OBS", "source": "/versions/in/"}],
            work_path={"type": "OBS", "path": "/versions/out/"},
            poll_interval=1,
            **options,
        )

        @task
        def use(work_path: Any) -> Any:
            return work_path

        use(create.output["work_path"])
