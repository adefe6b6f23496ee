"""Two DAGs that create a processing task and wait for it, one in a triggerer, one on the worker."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator

#: By DAG. The service limits how many tasks of the first one it admits at once.
TEMPLATES = {"deferrable": "sys_data_validation", "synchronous": "sys_data_analyse"}

for dag_id in TEMPLATES:
    with DAG(dag_id, schedule=None, max_active_runs=1000, max_active_tasks=1000):
        ModelArtsCreateProcessorTaskOperator(
            task_id="create_and_wait",
            name=dag_id,
            data_source={"type": "DATASET", "source": "X6c3N3eztX7cr3Arvqu"},
            template={"id": TEMPLATES[dag_id]},
            version_id="J4Eh2FDEWH1qnDlD3hQ",
            work_path={"type": "OBS", "path": "obs://my-bucket/{{ run_id }}/"},
            poll_interval=2,
            deferrable=dag_id == "deferrable",
            retries=3,
            retry_delay=timedelta(seconds=1),
        )
