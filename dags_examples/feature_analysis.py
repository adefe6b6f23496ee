"""
Analyse the features of a dataset, wait for the end, and use what was found.

Run it as it stands, with no cloud account: ``airflow-modelarts run dags_examples/feature_analysis.py``
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_modelarts.operators import ModelArtsDescribeProcessorTaskOperator
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor


@dag(
    schedule=None,
    tags=["modelarts"],
    params={
        "dataset_id": Param("X6c3N3eztX7cr3Arvqu", type="string", description="the dataset to analyse"),
        "dataset_version_id": Param("J4Eh2FDEWH1qnDlD3hQ", type="string", description="the version of it"),
    },
)
def feature_analysis() -> None:
    @task
    def create(params: dict[str, Any], ts_nodash: str) -> str:
        """Start the processing task and return its id. The name is the run's own, since names are unique."""
        from airflow_modelarts.hooks import ModelArtsHook

        created = ModelArtsHook().create_processor_task(
            name=f"analysis-{ts_nodash}",
            data_source={"type": "DATASET", "source": params["dataset_id"]},
            template={
                "id": "sys_data_analyse",
                "operator_params": [{"id": "sys_data_analyse", "params": {"op_list": []}}],
            },
            version_id=params["dataset_version_id"],
            work_path={"type": "OBS", "path": f"obs://my-bucket/analysis/{ts_nodash}/"},
        )
        return created.task_id

    @task
    def report(result: Any, work_path: dict[str, Any]) -> str:
        """Say what came out."""
        sentence = f"The analysis found {', '.join(sorted(result))}; its files are below {work_path['path']}"
        print(sentence)
        return sentence

    processor_task_id = create()
    wait = ModelArtsProcessorTaskSensor(
        task_id="wait", processor_task_id=processor_task_id, poke_interval=2, timeout=6 * 60 * 60
    )
    describe = ModelArtsDescribeProcessorTaskOperator(task_id="describe", processor_task_id=processor_task_id)
    wait >> describe
    report(describe.output["result"], describe.output["work_path"])


feature_analysis()
