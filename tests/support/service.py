"""Helpers for tests of the emulated service without HTTP."""

from collections.abc import Callable
from typing import Any

import pytest

from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.service.accounts import PROJECT_ID
from airflow_modelarts.testing.emulator.service.errors import ServiceError
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support.calling import DATA_VALIDATION

#: The time of a frozen clock, in seconds since the epoch.
NOON = 1_800_000_000.0


def describe(state: EmulatorState, task: Task) -> dict[str, Any]:
    return state.describe_task(PROJECT_ID, task.task_id)


def new_version(state: EmulatorState, task: Task, **changes: Any) -> str:
    body = {**DATA_VALIDATION, **changes}
    del body["create_version"]
    return state.create_version(PROJECT_ID, task.task_id, body).version_id


def error_code(operation: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        operation(*arguments)
    return caught.value.code
