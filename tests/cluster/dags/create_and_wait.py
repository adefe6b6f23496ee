"""Two DAGs that create a processing task and wait for it, one in a triggerer, one on the worker."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator

for dag_id in ("deferrable", "synchronous"):
    with DAG(dag_id, schedule=None, max_active_runs=1000, max_active_tasks=1000):
        ModelArtsCreateProcessorTaskOperator(
            task_id="create_and_wait",
            name=dag_id,
            data_source={"type": "DATASET", "source": "X6c3N3eztX7cr3Arvqu"},
            template={
                "id": "sys_data_analyse",
                "operator_params": [{"id": "sys_data_analyse", "params": {"op_list": []}}],
            },
            version_id="J4Eh2FDEWH1qnDlD3hQ",
            work_path={"type": "OBS", "path": "obs://my-bucket/{{ run_id }}/"},
            poll_interval=2,
            deferrable=dag_id == "deferrable",
            retries=3,
            retry_delay=timedelta(seconds=1),
        )
