"""A deferred Airflow task with an execution timeout shorter than its processing task."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator

with DAG("timed_out", schedule=None):
    ModelArtsCreateProcessorTaskOperator(
        task_id="run",
        name="timed-out",
        template={"id": "sys_data_cleaning"},
        inputs=[{"type": "OBS", "source": "/versions/in/"}],
        work_path={"type": "OBS", "path": "/versions/out/"},
        poll_interval=1,
        deferrable=True,
        # A slow machine needs time to create the task that is to be stopped.
        execution_timeout=timedelta(seconds=30),
    )
