"""A scratch Airflow: real Airflow processes over a temporary AIRFLOW_HOME, started, watched and removed again."""

from airflow_modelarts.testing.sandbox.airflow_api import SandboxError, TaskInstance, XCom
from airflow_modelarts.testing.sandbox.component import Component
from airflow_modelarts.testing.sandbox.configuration import free_port
from airflow_modelarts.testing.sandbox.sandbox import (
    START_TIMEOUT,
    DagImportError,
    DagNotFoundError,
    RunRefusedError,
    Sandbox,
)

__all__ = [
    "START_TIMEOUT",
    "Component",
    "DagImportError",
    "DagNotFoundError",
    "RunRefusedError",
    "Sandbox",
    "SandboxError",
    "TaskInstance",
    "XCom",
    "free_port",
]
