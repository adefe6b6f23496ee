"""Mapped creates of which the service admits a few at once."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator

#: On SQLite an Airflow 2 runs one task at a time.
TASKS = 8 if AIRFLOW_V_3_0_PLUS else 4

with DAG("fan_out", schedule=None):

    @task
    def names() -> list[str]:
        return [f"fan-out-{number}" for number in range(TASKS)]

    ModelArtsCreateProcessorTaskOperator.partial(
        task_id="run",
        template={"id": "sys_data_validation"},
        inputs=[{"type": "OBS", "source": "/versions/in/"}],
        work_path={"type": "OBS", "path": "/versions/out/"},
        poll_interval=1,
        deferrable=True,
    ).expand(name=names())
