"""The operators; import them from here. Each is imported when it is first used, so a DAG file pays only for those."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_modelarts.operators.audit import ModelArtsAuditProcessorTasksOperator
    from airflow_modelarts.operators.create import ModelArtsCreateProcessorTaskOperator
    from airflow_modelarts.operators.create_version import ModelArtsCreateProcessorTaskVersionOperator
    from airflow_modelarts.operators.export import ModelArtsExportProcessorTaskResultsOperator
    from airflow_modelarts.operators.tasks import (
        ModelArtsDeleteProcessorTaskOperator,
        ModelArtsDescribeProcessorTaskOperator,
        ModelArtsListProcessorTasksOperator,
        ModelArtsStopProcessorTaskOperator,
        ModelArtsUpdateProcessorTaskOperator,
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
    "ModelArtsUpdateProcessorTaskOperator",
]

_MODULES = {
    "ModelArtsAuditProcessorTasksOperator": "audit",
    "ModelArtsCreateProcessorTaskOperator": "create",
    "ModelArtsCreateProcessorTaskVersionOperator": "create_version",
    "ModelArtsExportProcessorTaskResultsOperator": "export",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'tasks')}"), name)


def __dir__() -> list[str]:
    """Include names that are not imported yet, for editors and ``help()``."""
    return sorted({*globals(), *__all__})
