"""The run in the browser tests: it has links to the console, XComs and asset events."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator


def create(task_id: str, template: str) -> ModelArtsCreateProcessorTaskOperator:
    return ModelArtsCreateProcessorTaskOperator(
        task_id=task_id,
        name=task_id,
        template={"id": template},
        inputs=[{"type": "OBS", "source": "obs://my-bucket/raw/"}],
        work_path={"type": "OBS", "path": f"obs://my-bucket/{task_id}/"},
        poll_interval=1,
        modelarts_conn_id="modelarts_by_hand",  # the browser makes it
        outlets=[Asset(uri=f"obs://my-bucket/{task_id}/")],
    )


# One has a result and no versions, the other a version and no result.
with DAG("seen_in_the_ui", schedule=None):
    create("analyse", "sys_data_analyse")
    create("clean", "sys_data_cleaning")
