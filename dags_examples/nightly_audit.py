"""
Audit each night the processing tasks of the day before, whoever created them, and leave a page to look at.

A task that still runs at midnight is in no audit after its end: where that matters, add ``lag=timedelta(hours=12)``.

Run it with no cloud account: ``airflow-modelarts run dags_examples/nightly_audit.py --seed 25``. The processing
tasks that ``--seed`` makes up break rules, so the run fails; the page says which.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import Param, dag

from airflow_modelarts.audit import AuditRules
from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["modelarts"],
    params={"folder": Param("file:///tmp/modelarts-audits", type="string", description="where the reports go")},
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
        # The day of the run, which in Airflow 3 can lack the logical date that {{ ds }} is made of.
        report_path="{{ params.folder }}/{{ (dag_run.logical_date or dag_run.run_after) | ds }}.html",
        fail_on_broken_rules=True,  # when the report is written
        retries=2,  # for a service out of reach; a broken rule is not retried
    )


nightly_audit()
