"""The operators, by what they do; import them from here. Whatever is heavy is imported where it runs."""

from __future__ import annotations

from airflow_modelarts.operators.audit import ModelArtsAuditProcessorTasksOperator
from airflow_modelarts.operators.create import (
    ModelArtsCreateProcessorTaskOperator,
    ModelArtsCreateProcessorTaskVersionOperator,
)
from airflow_modelarts.operators.export import ModelArtsExportProcessorTaskResultsOperator
from airflow_modelarts.operators.tasks import (
    ModelArtsDeleteProcessorTaskOperator,
    ModelArtsDescribeProcessorTaskOperator,
    ModelArtsListProcessorTasksOperator,
    ModelArtsStopProcessorTaskOperator,
)

__all__ = [
    "ModelArtsAuditProcessorTasksOperator",
    "ModelArtsCreateProcessorTaskOperator",
    "ModelArtsCreateProcessorTaskVersionOperator",
    "ModelArtsDeleteProcessorTaskOperator",
    "ModelArtsDescribeProcessorTaskOperator",
    "ModelArtsExportProcessorTaskResultsOperator",
    "ModelArtsListProcessorTasksOperator",
    "ModelArtsStopProcessorTaskOperator",
]
