"""Waits with the kinds of credentials that a machine has by itself, and a retry that the service delays."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Param
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.operators import ModelArtsDescribeProcessorTaskOperator
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

KINDS = ("profile", "oidc", "pod_identity", "assume_agency", "default")

with DAG("by_kind", schedule=None, params={kind: Param("", type="string") for kind in KINDS}):
    for kind in KINDS:
        ModelArtsProcessorTaskSensor(
            task_id=kind,
            processor_task_id=f"{{{{ params.{kind} }}}}",
            modelarts_conn_id=f"by_{kind}",
            poke_interval=1,
            timeout=300,
            deferrable=True,
        )

if AIRFLOW_V_3_3_PLUS:
    from airflow_modelarts.retry_policy import ModelArtsRetryPolicy

    with DAG("delayed_by_the_service", schedule=None, params={"processor_task_id": Param("", type="string")}):
        ModelArtsDescribeProcessorTaskOperator(
            task_id="read",
            processor_task_id="{{ params.processor_task_id }}",
            retries=5,
            retry_delay=timedelta(hours=1),
            retry_policy=ModelArtsRetryPolicy(),
        )
