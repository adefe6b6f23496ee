"""Analyse the features of a dataset, and use the result.

Run it without a cloud account: ``airflow-modelarts run dags_examples/feature_analysis.py``
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator

#: The time of the run. {{ ts_nodash }} is undefined in runs of Airflow 3 that have no logical date.
WHEN = "{{ (dag_run.logical_date or dag_run.run_after) | ts_nodash }}"


@dag(
    schedule=None,
    tags=["modelarts"],
    params={
        "dataset_id": Param("X6c3N3eztX7cr3Arvqu", type="string", description="the dataset to analyse"),
        "dataset_version_id": Param("J4Eh2FDEWH1qnDlD3hQ", type="string", description="the version of the dataset"),
    },
)
def feature_analysis() -> None:
    analyse = ModelArtsCreateProcessorTaskOperator(
        task_id="analyse",
        name=f"analysis-{WHEN}",
        template={"id": "sys_data_analyse", "operator_params": [{"id": "sys_data_analyse", "params": {"op_list": []}}]},
        data_source={"type": "DATASET", "source": "{{ params.dataset_id }}"},
        version_id="{{ params.dataset_version_id }}",
        work_path={"type": "OBS", "path": f"obs://my-bucket/analysis/{WHEN}/"},
        poll_interval=2,
        deferrable=True,
        retries=2,  # a retry adopts the processing task of an earlier try
    )

    @task
    def report(result: Any, work_path: dict[str, Any]) -> str:
        """Print and return a summary of the result."""
        sentence = f"The analysis found {', '.join(sorted(result))}; its files are below {work_path['path']}"
        print(sentence)
        return sentence

    report(analyse.output["result"], analyse.output["work_path"])


feature_analysis()
