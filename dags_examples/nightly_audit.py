"""Audit the processing tasks since the last audit every night, no matter who created them, and write an HTML report.

A task that still runs at midnight is not audited after its end. To include it, add ``lag=timedelta(hours=12)``.

Run it without a cloud account: ``airflow-modelarts run dags_examples/nightly_audit.py --seed 25``. The processing
tasks of ``--seed`` break rules, so the run fails. The report names the broken rules.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import Param, dag

from airflow_modelarts.audit import AuditRules
from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator

#: The last second that a run audits. {{ ds }} is undefined in runs of Airflow 3 that have no logical date.
LAST_SECOND = "{{ ((dag_run.data_interval_end or dag_run.run_after) - macros.timedelta(seconds=1)) | ts_nodash }}"


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["modelarts"],
    params={"folder": Param("file:///tmp/modelarts-audits", type="string", description="folder for the reports")},
)
def nightly_audit() -> None:
    ModelArtsAuditProcessorTasksOperator(
        task_id="audit",
        rules=AuditRules(
            failures_allowed=0,
            longest_seconds=4 * 60 * 60,
            stuck_after_seconds=6 * 60 * 60,
            allowed_output_prefixes=["obs://my-bucket/processed"],
        ),
        report_path="{{ params.folder }}/" + LAST_SECOND + ".html",
        fail_on_broken_rules=True,  # after the report is written
        retries=2,  # for an outage of the service; a broken rule is not retried
    )


nightly_audit()
