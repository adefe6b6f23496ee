"""Validate the images of a dataset, then augment the valid ones: the second task reads the first one's output.

Neither occupies a worker while it waits. Run it without a cloud account:
``airflow-modelarts run dags_examples/validate_then_augment.py``
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
        "dataset_id": Param("PYc9H2HGv5BJNwBGXyK", type="string", description="the dataset to validate"),
        "dataset_version_id": Param("yoJ5ssClpNlOrsjjFDa", type="string", description="the version of the dataset"),
    },
)
def validate_then_augment() -> None:
    validate = ModelArtsCreateProcessorTaskOperator(
        task_id="validate",
        name=f"validation-{WHEN}",
        template={
            "id": "sys_data_validation",
            "operator_params": [
                {
                    "name": "MetaValidation",
                    "advanced_params_switch": False,
                    "params": {"task_type": "image_classification", "dataset_type": "manifest"},
                }
            ],
        },
        inputs=[
            {
                "type": "DATASET",
                "source": "{{ params.dataset_id }}",
                "version_id": "{{ params.dataset_version_id }}",
            }
        ],
        work_path={"type": "OBS", "path": f"obs://my-bucket/valid/{WHEN}/"},
        poll_interval=2,
        deferrable=True,
        retries=2,
    )
    augment = ModelArtsCreateProcessorTaskOperator(
        task_id="augment",
        name=f"augmentation-{WHEN}",
        template={
            "id": "sys_data_augmentation",
            "operator_params": [{"name": "AddNoise", "params": {"task_type": "image_classification"}}],
        },
        # The output of one processing task is the input of the next.
        inputs=[
            {
                "type": "TASK",
                "source": validate.output["processor_task_id"],
                "version_id": "{{ ti.xcom_pull('validate', key='version').task_version_id }}",
            }
        ],
        work_path={"type": "OBS", "path": f"obs://my-bucket/augmented/{WHEN}/"},
        poll_interval=2,
        deferrable=True,
        retries=2,
    )

    @task
    def report(version: dict[str, Any]) -> str:
        """Print and return the numbers of samples."""
        added, total = version["add_sample_count"], version["origin_sample_count"]
        sentence = f"{added} samples were added to {total}"
        print(sentence)
        return sentence

    report(augment.output["version"])


validate_then_augment()
