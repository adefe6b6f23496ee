"""For each connection, an audit and an export that are written to OBS; and a task that reads what was written."""

from __future__ import annotations

import json
import os
import resource
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, TaskGroup, task

from airflow_modelarts.api.credentials import instance_agency
from airflow_modelarts.filesystem import path_of_output
from airflow_modelarts.operators import (
    ModelArtsAuditProcessorTasksOperator,
    ModelArtsCreateProcessorTaskOperator,
    ModelArtsExportProcessorTaskResultsOperator,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The real service has one address, which is the same on every server.
instance_agency.METADATA_SERVICE = os.environ["METADATA_SERVICE"]
#: By connection, the processing task whose results are exported.
EXPORTED: dict[str, str] = json.loads(os.environ["EXPORTED"])
NOW = datetime.now(UTC)


def peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class MeasuredExport(ModelArtsExportProcessorTaskResultsOperator):
    """Adds to its XCom the memory that it took, in bytes."""

    def execute(self, context: Context) -> dict[str, Any]:
        before = peak()
        return {**super().execute(context), "memory": peak() - before}


@task
def read(
    processor_task: dict[str, Any], audits: list[dict[str, Any]], exports: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Read the files of a processing task, the reports and the exports with each connection."""
    found = {}
    for conn_id, audit, export in zip(EXPORTED, audits, exports, strict=True):
        folder = path_of_output(processor_task, conn_id)
        # As text: fsspec copies the rest of a block for each line of a binary file.
        with ObjectStoragePath(export["path"]).open("r", encoding="utf-8") as rows:
            samples = sum(1 for _ in rows)
        found[conn_id] = {
            "files": len(folder.fs.find(folder.path)),
            "result": json.loads((folder / "V001" / "result.json").read_text()),
            "audited": json.loads(ObjectStoragePath(audit["json_path"]).read_text())["total"],
            "samples": samples,
        }
    return found


with DAG("files", schedule=None, max_active_tasks=6):  # more would start slowly on two cores
    validate = ModelArtsCreateProcessorTaskOperator(
        task_id="validate",
        name="validation",
        template={"id": "sys_data_validation", "operator_params": []},
        inputs=[{"type": "OBS", "source": "obs://my-bucket/images/"}],
        work_path={"type": "OBS", "path": "obs://my-bucket/valid/"},
        modelarts_conn_id=next(iter(EXPORTED)),
    )
    audits, exports = [], []
    for conn_id, processor_task_id in EXPORTED.items():
        place = f"obs://{conn_id}@my-bucket"
        with TaskGroup(conn_id):
            audits.append(
                ModelArtsAuditProcessorTasksOperator(
                    task_id="audit",
                    window_start=NOW - timedelta(days=1),
                    window_end=NOW + timedelta(days=1),
                    report_path=f"{place}/audits/{conn_id}.html",
                    modelarts_conn_id=conn_id,
                )
            )
            exports.append(
                MeasuredExport(
                    task_id="export",
                    processor_task_id=processor_task_id,
                    path=f"{place}/exports/{conn_id}.jsonl",
                    modelarts_conn_id=conn_id,
                    priority_weight=2,  # it is held for a while, in which the audits run
                )
            )
    read(validate.output, [audit.output for audit in audits], [export.output for export in exports])
