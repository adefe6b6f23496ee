"""Validate the images of a dataset, then open the files that the processing task wrote, and summarise them.

The files are read with the credentials of the same connection. This needs the extra ``obs``.

Run it without a cloud account: ``airflow-modelarts run dags_examples/read_the_output.py``
"""

from __future__ import annotations

import json
from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_modelarts.filesystem import path_of_output
from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator

#: The time of the run. {{ ts_nodash }} is undefined in runs of Airflow 3 that have no logical date.
WHEN = "{{ (dag_run.logical_date or dag_run.run_after) | ts_nodash }}"


@dag(
    schedule=None,
    tags=["modelarts"],
    params={
        "dataset_id": Param("PYc9H2HGv5BJNwBGXyK", type="string", description="the dataset to validate"),
        "dataset_version_id": Param("yoJ5ssClpNlOrsjjFDa", type="string", description="the version of the dataset"),
        "folder": Param("obs://my-bucket/valid", type="string", description="the place in OBS to write to"),
    },
)
def read_the_output() -> None:
    validate = ModelArtsCreateProcessorTaskOperator(
        task_id="validate",
        name=f"validation-{WHEN}",
        template={"id": "sys_data_validation", "operator_params": []},
        data_source={"type": "DATASET", "source": "{{ params.dataset_id }}"},
        version_id="{{ params.dataset_version_id }}",
        work_path={"type": "OBS", "path": "{{ params.folder }}/" + WHEN + "/"},
        poll_interval=2,
        deferrable=True,
        retries=2,  # a retry adopts the processing task of an earlier try
    )

    @task
    def summarise(processor_task: dict[str, Any]) -> dict[str, Any]:
        """Count the files, and read those that hold JSON."""
        folder = path_of_output(processor_task)
        files = folder.fs.find(folder.path, detail=True)
        documents = {name: json.loads(folder.fs.cat_file(name)) for name in sorted(files) if name.endswith(".json")}
        summary = {
            "files": len(files),
            "bytes": sum(info["size"] for info in files.values()),
            "documents": {name.removeprefix(folder.path).lstrip("/"): read for name, read in documents.items()},
        }
        print(f"{summary['files']} files below {folder}: {summary['bytes']:,} bytes")
        return summary

    summarise(validate.output)


read_the_output()
