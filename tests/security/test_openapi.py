"""The emulator conforms to its OpenAPI document, for requests that schemathesis generates from it."""

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis is not installed: pip install 'airflow-modelarts[security]'"
)

from schemathesis.specs.openapi import checks  # noqa: E402  # after the skip

from airflow_modelarts.testing.emulator import EmulatorState, create_app  # noqa: E402  # after the skip
from airflow_modelarts.testing.emulator.service import accounts  # noqa: E402  # after the skip

#: Checks that do not apply, by the contract: the service refuses places that do not exist, and its gateway answers 404
#: to every unknown path or method.
EXCLUDED = [checks.positive_data_acceptance, checks.unsupported_method, checks.allow_header_conformance]
#: The control API accepts "1" for 1, as FastAPI does by default.
EXCLUDED_FOR_CONTROL = [*EXCLUDED, checks.negative_data_rejection]
BOUNDED = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
STATE = EmulatorState()
schema: Any = schemathesis.openapi.from_asgi("/openapi.json", create_app(STATE))


def headers() -> dict[str, str]:
    token = STATE.accounts.issue_token(accounts.PROJECT_ID, now=time.time(), lifetime=3600.0)
    return {"X-Auth-Token": token.value}


def use_existing_ids(case: Any) -> None:
    task = STATE.add_task(template="sys_data_cleaning", status=2)
    known = {"project_id": accounts.PROJECT_ID, "task_id": task.task_id, "version_id": task.versions[-1].version_id}
    for name in case.path_parameters or {}:
        if name in known:
            case.path_parameters[name] = known[name]


@schema.include(path_regex="^/v[23]/").parametrize()
@BOUNDED
def test_the_service_conforms_to_its_openapi_document(case: Any) -> None:
    STATE.reset()
    case.call_and_validate(headers=headers(), excluded_checks=EXCLUDED)


@schema.include(path_regex="^/v2/.*task_id").parametrize()
@BOUNDED
def test_the_service_conforms_to_its_openapi_document_for_existing_tasks(case: Any) -> None:
    STATE.reset()
    use_existing_ids(case)
    case.call_and_validate(headers=headers(), excluded_checks=EXCLUDED)


@schema.include(path_regex="^/emulator/").parametrize()
@BOUNDED
def test_the_control_api_conforms_to_its_openapi_document(case: Any) -> None:
    STATE.reset()
    use_existing_ids(case)
    case.call_and_validate(excluded_checks=EXCLUDED_FOR_CONTROL)
