"""Fuzzing over HTTP: every request gets an answer of the service, never a 500, and the next one is served too."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from tests.support.calling import DATA_VALIDATION, FEATURE_ANALYSIS, Caller

BOUNDED = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE"])
TEXTS = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXTS, children, max_size=3),
    max_leaves=10,
)
FIELDS = st.sampled_from([*FEATURE_ANALYSIS, *DATA_VALIDATION])
QUERY_NAMES = st.sampled_from(
    [
        *("limit", "offset", "order", "sort_by", "status", "task_type", "task_name", "source_type", "source"),
        *("version_id", "workspace_id", "query_current", "return_result", "result_property", "process_parameter"),
    ]
)
CONTROL_PATHS = ["settings", "tasks", "rules", "faults", "clock/advance", "access-keys", "users", "tokens"]
CONTROL_FIELDS = ["kind", "times", "status", "name", "seconds", "count", "result", "duration", "headers", "body"]


@pytest.fixture
def caller(emulator: EmulatorServer) -> Caller:
    emulator.state.add_task(template="sys_data_cleaning", status=2)
    emulator.state.add_tasks(3, status=2)
    return Caller(emulator)


def check(caller: Caller, response: Any) -> None:
    assert response.status_code in (200, 400, 403, 404), response.text
    assert response.headers["X-Request-Id"]
    answer = response.json()
    assert response.status_code == 200 or answer["error_code"]


# The requests library removes dot segments after signing, so that the gateway rightly refuses the request.
SEGMENTS = TEXTS.filter(lambda text: text not in (".", "..")) | st.sampled_from(
    ["versions", "results", "stop", "items"]
)


@BOUNDED
@given(method=METHODS, segments=st.lists(SEGMENTS, max_size=4))
def test_any_path_gets_an_answer_of_the_service(caller: Caller, method: str, segments: list[str]) -> None:
    path = "".join("/" + quote(segment, safe="", errors="replace") for segment in segments)
    check(caller, caller(method, path))


@BOUNDED
@given(
    place=st.sampled_from(["", "/items", "/{task}", "/{task}/versions", "/{task}/versions/{version}/results"]),
    query=st.lists(st.tuples(QUERY_NAMES, TEXTS | st.integers().map(str)), max_size=4),
)
def test_any_query_gets_an_answer_of_the_service(caller: Caller, place: str, query: list[tuple[str, str]]) -> None:
    task = caller.server.state.all_tasks()[0]
    path = place.format(task=task.task_id, version=task.versions[0].version_id)
    text = "&".join(f"{name}={quote(value, safe='', errors='replace')}" for name, value in query)
    check(caller, caller("GET", f"{path}?{text}"))


@BOUNDED
@given(
    base=st.sampled_from([FEATURE_ANALYSIS, DATA_VALIDATION, {}]),
    changes=st.dictionaries(FIELDS, VALUES, max_size=3),
    place=st.sampled_from([("POST", ""), ("PUT", "/{task}"), ("POST", "/{task}/versions")]),
)
def test_any_json_body_gets_an_answer_of_the_service(
    caller: Caller, base: dict[str, Any], changes: dict[str, Any], place: tuple[str, str]
) -> None:
    method, path = place
    task = caller.server.state.all_tasks()[0]
    check(caller, caller(method, path.format(task=task.task_id), {**base, **changes}))
    check(caller, caller("GET", "?limit=100"))


@BOUNDED
@given(body=st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_get_an_answer_of_the_service(caller: Caller, body: bytes) -> None:
    check(caller, caller("POST", body=body))


@BOUNDED
@given(
    name=st.sampled_from(["Authorization", "X-Auth-Token", "X-Sdk-Date", "X-Project-Id", "X-Sdk-Content-Sha256"]),
    value=st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=80),
)
def test_any_header_gets_an_answer_of_the_gateway(caller: Caller, name: str, value: str) -> None:
    url = caller.url("")
    headers = {**caller.signed("GET", url), name: value.strip()}
    response = caller.send("GET", url, headers=headers)
    assert response.status_code in (200, 401), response.text


@BOUNDED
@given(request=VALUES, user=st.dictionaries(st.sampled_from(["name", "password", "domain"]), VALUES))
def test_any_request_for_a_token_gets_an_answer_of_iam(caller: Caller, request: Any, user: dict[str, Any]) -> None:
    identity = {"methods": ["password"], "password": {"user": {"name": accounts.USER_NAME, **user}}}
    for body in (request, {"auth": request}, {"auth": {"identity": identity, "scope": request}}):
        response = caller.create_token(json.dumps(body).encode())
        assert response.status_code in (201, 400, 401), response.text


@BOUNDED
@given(
    place=st.sampled_from(CONTROL_PATHS),
    body=st.dictionaries(st.sampled_from(CONTROL_FIELDS), VALUES | st.sampled_from(["answer", "throttle"]), max_size=3),
)
def test_any_body_gets_an_answer_of_the_control_api(caller: Caller, place: str, body: dict[str, Any]) -> None:
    method = "PATCH" if place == "settings" else "POST"
    response = caller.send(
        method,
        f"{caller.server.url}/emulator/{place}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    assert response.status_code in (200, 400, 404, 422), response.text
    caller.server.state.reset()
