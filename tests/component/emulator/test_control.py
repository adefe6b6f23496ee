"""The control API over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.service import accounts
from tests.support.calling import DATA_VALIDATION, FEATURE_ANALYSIS, Caller, error_of


def create(call: Caller, body: dict[str, Any] = FEATURE_ANALYSIS) -> str:
    return str(call("POST", body=body).json()["task_id"])


def status(call: Caller, task_id: str) -> int:
    return int(call("GET", f"/{task_id}").json()["status"])


@pytest.mark.parametrize(("verb", "expected"), [("finish", 2), ("fail", 3), ("stop", 4)])
def test_the_control_api_ends_a_task(call: Caller, verb: str, expected: int) -> None:
    task_id = create(call)
    assert call.control("POST", f"/tasks/{task_id}/{verb}").json()["status"] == expected
    assert status(call, task_id) == expected


def test_the_control_api_fails_a_task_with_a_message(call: Caller) -> None:
    task_id = create(call)
    call.control("POST", f"/tasks/{task_id}/fail", {"error_msg": "broken pictures"})
    assert call("GET", f"/{task_id}").json()["error_msg"] == "broken pictures"


def test_the_control_api_changes_duration_status_and_result(call: Caller) -> None:
    task_id = create(call)
    call.control("PATCH", f"/tasks/{task_id}", {"status": 7})
    assert status(call, task_id) == 7
    call.control("PATCH", f"/tasks/{task_id}", {"status": 2, "duration": 0, "result": "plain"})
    assert call("GET", f"/{task_id}").json()["result"] == "plain"
    call.control("PATCH", f"/tasks/{task_id}", {"result_form": "array"})
    assert isinstance(call("GET", f"/{task_id}").json()["result"], list)
    call.control("PATCH", f"/tasks/{task_id}", {"error_msg": "ignored without a status"})
    assert status(call, task_id) == 2


def test_the_control_api_adds_tasks_of_any_age_and_sets_the_order_of_lists(call: Caller) -> None:
    for created in ("2026-05-01T14:00:00+02:00", 1_777_627_800_123, "2026-05-01T10:00:00Z"):
        call.control("POST", "/tasks", {"create_time": created, "status": 2})
    listed = [task["create_time"] for task in call("GET").json()["tasks"]]
    assert listed == [1_777_636_800_000, 1_777_629_600_000, 1_777_627_800_123]
    call.control("PATCH", "/settings", {"list_order": "as_added"})
    assert [task["create_time"] for task in call("GET").json()["tasks"]] == [listed[1], listed[2], listed[0]]
    refused = call.control("POST", "/tasks", {"create_time": "2026-05-01T14:00:00"})  # in which time zone?
    assert refused.status_code == 422


def test_the_control_api_changes_a_versions_sample_count(call: Caller, state: EmulatorState) -> None:
    task_id = create(call, DATA_VALIDATION)
    changed = call.control("PATCH", f"/tasks/{task_id}", {"sample_count": 7, "status": 2}).json()
    assert call("GET", f"/{task_id}/versions/{changed['version_ids'][0]}/results").json()["count"] == 7
    assert call.control("PATCH", f"/tasks/{create(call)}", {"sample_count": 7}).status_code == 400


def test_a_result_that_is_nested_too_deeply_is_refused(call: Caller) -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert call.control("PATCH", f"/tasks/{create(call)}", {"result": deep}).status_code == 400
    assert call.control("POST", "/rules", {"result": deep}).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/tasks/unknown"),
        ("PATCH", "/tasks/unknown"),
        ("POST", "/tasks/unknown/finish"),
        ("POST", "/faults/999999999/release"),
        ("DELETE", "/faults/999999999"),
        ("DELETE", "/access-keys/unknown"),
        ("DELETE", "/users/unknown"),
    ],
)
def test_an_unknown_task_fault_key_or_user_is_not_found(call: Caller, method: str, path: str) -> None:
    assert call.control(method, path, {} if method == "PATCH" else None).status_code == 404


def test_the_control_api_shows_tasks_with_the_body_that_created_them(call: Caller) -> None:
    task_id = create(call)
    assert call.control("GET", f"/tasks/{task_id}").json()["body"] == FEATURE_ANALYSIS
    assert [task["task_id"] for task in call.control("GET", "/tasks").json()] == [task_id]
    assert call.control("GET", "/tasks?last=0").json() == []


def test_the_control_api_adds_many_tasks_at_once(call: Caller) -> None:
    body = {"count": 250, "template": "sys_data_cleaning", "status": 1}
    assert len(call.control("POST", "/tasks", body).json()) == 250
    assert call("GET", "?status=1&task_type=sys_data_cleaning").json()["count"] == 250
    assert call.control("POST", "/tasks", {"project_id": "x"}).status_code == 404


def test_the_control_api_adds_and_removes_rules(call: Caller) -> None:
    call.control("POST", "/rules", {"name": "V*", "status": 3, "duration": 0, "error_msg": "by rule"})
    assert call("GET", f"/{create(call)}").json()["error_msg"] == "by rule"
    call.control("POST", "/rules", {"times": None, "duration": 0})
    call.control("DELETE", "/rules")
    assert status(call, create(call, {**FEATURE_ANALYSIS, "name": "other"})) == 0


def test_the_control_api_advances_the_clock(call: Caller) -> None:
    task_id = create(call)
    assert call.control("POST", "/clock/advance", {"seconds": 10}).json()["now"] > 0
    assert status(call, task_id) == 2
    for seconds in (-1, "NaN", 1e300):
        assert call.control("POST", "/clock/advance", {"seconds": seconds}).status_code == 422


def test_the_control_api_changes_and_shows_settings(call: Caller, state: EmulatorState) -> None:
    change = {"not_found": "http404_empty", "task_duration": 0, "running_limit": 0, "clock_offset": -60}
    settings = call.control("PATCH", "/settings", change).json()
    assert {name: settings[name] for name in change} == change
    assert call.control("GET", "/settings").json() == settings
    assert call("GET", "/gone").status_code == 404
    assert error_of(call("POST", body=FEATURE_ANALYSIS)) == (400, "ModelArts.4409")
    assert call.control("PATCH", "/settings", {"task_duration": None}).json() == settings, "null changes nothing"
    assert call.control("PATCH", "/settings", {"colour": "red"}).status_code == 422
    assert call.control("PATCH", "/settings", {"sample_count": -1}).status_code == 422


def test_the_control_api_shows_and_removes_logged_requests(call: Caller) -> None:
    call("GET")
    call("GET", "/items")
    logged = call.control("GET", "/requests").json()
    assert logged["counts"] == {"ListProcessorTasks": 1, "ListProcessorTaskItems": 1}
    assert [request["status"] for request in logged["requests"]] == [200, 200]
    last = call.control("GET", "/requests?operation=ListProcessorTasks&last=1").json()
    assert [request["operation"] for request in last["requests"]] == ["ListProcessorTasks"]
    call.control("DELETE", "/requests")
    assert call.control("GET", "/requests").json() == {"counts": {}, "refusals": {}, "requests": []}


def test_the_log_counts_refusals_apart_by_operation_and_code(call: Caller, state: EmulatorState) -> None:
    call.control("PATCH", "/settings", {"running_limit": 5, "template_limits": {"sys_data_analyse": 0}})
    for _ in range(2):
        assert error_of(call("POST", body=FEATURE_ANALYSIS)) == (400, "ModelArts.4409")
    call.control("POST", "/faults", {"kind": "throttle"})
    call.control("POST", "/faults", {"kind": "throttle", "form": "html"})
    assert [call("POST", body=FEATURE_ANALYSIS).status_code for _ in range(2)] == [429, 503]
    assert call("GET").status_code == 200
    shown = call.control("GET", "/requests").json()
    assert shown["counts"] == {"CreateProcessorTask": 4, "ListProcessorTasks": 1}
    assert shown["refusals"] == {"CreateProcessorTask": {"ModelArts.4409": 2, "APIGW.0308": 1, "HTTP 503": 1}}
    assert [request["error_code"] for request in shown["requests"]] == ["ModelArts.4409"] * 2 + [
        "APIGW.0308",
        None,
        None,
    ]
    assert state.log.refusals("CreateProcessorTask").total() == 4
    assert state.log.refusals()["ModelArts.4409"] == 2
    assert not state.log.refusals("ListProcessorTasks")


def test_the_control_api_resets_the_emulator(call: Caller) -> None:
    create(call)
    call.control("POST", "/faults", {"kind": "answer", "status": 500, "times": None})
    call.control("POST", "/reset")
    assert call("GET").json()["count"] == 0


# Faults


@pytest.mark.parametrize(
    ("body", "expected", "header"),
    [
        ({"kind": "throttle", "retry_after": 3}, 429, ("Retry-After", "3")),
        ({"kind": "throttle", "retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 429, ("Retry-After", "Wed, 21 Oct")),
        ({"kind": "refuse", "code": "ModelArts.4409", "retry_after": 1}, 400, ("Retry-After", "1")),
        ({"kind": "expired_token"}, 401, ("Content-Type", "application/json")),
        ({"kind": "answer", "status": 503, "body": "x", "headers": {"X-A": "b"}}, 503, ("X-A", "b")),
        ({"kind": "answer"}, 200, ("Content-Length", "0")),
        ({"kind": "redirect", "location": "http://x.invalid/"}, 307, ("Location", "http://x.invalid/")),
        ({"kind": "slow", "seconds": 0.01}, 200, ("Content-Type", "application/json")),
        ({"kind": "malformed"}, 200, ("Content-Type", "text/html")),
    ],
)
def test_control_adds_a_fault(call: Caller, body: dict[str, Any], expected: int, header: tuple[str, str]) -> None:
    added = call.control("POST", "/faults", body).json()
    assert call.control("GET", "/faults").json() == [added]
    response = call("GET")
    assert response.status_code == expected
    assert response.headers[header[0]].startswith(header[1])
    assert call("GET").status_code == 200


def test_a_rate_limit_lasts_until_it_is_removed(call: Caller) -> None:
    body = {"kind": "limit_rate", "rate": 0.001, "burst": 2, "retry_after": 3, "status": 503}
    added = call.control("POST", "/faults", body).json()
    assert (added["kind"], added["times"]) == ("limit_rate", None)
    answers = [call("GET") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 503, 503]
    assert answers[-1].headers["Retry-After"] == "3"
    assert call.control("GET", "/faults").json()[0]["hits"] == 2
    call.control("DELETE", f"/faults/{added['fault_id']}")
    assert call("GET").status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "content_type", "retry_after"),
    [
        ({}, 429, "application/json", None),
        ({"retry_after": 2}, 429, "application/json", "2"),
        ({"form": "html"}, 503, "text/html", None),
        ({"form": "html", "retry_after": 2, "status": 429}, 429, "text/html", "2"),
    ],
)
def test_a_rate_limit_answers_as_the_api_or_as_a_gateways_page(
    call: Caller, fields: dict[str, Any], status: int, content_type: str, retry_after: str | None
) -> None:
    call.control("POST", "/faults", {"kind": "limit_rate", "rate": 0.001, **fields})
    assert call("GET").status_code == 200
    refused = call("GET")
    assert (refused.status_code, refused.headers.get("Retry-After")) == (status, retry_after)
    assert refused.headers["Content-Type"].startswith(content_type)
    assert ("<html>" in refused.text) is ("form" in fields)


@pytest.mark.parametrize("kind", ["cut_off", "reset"])
def test_the_control_api_adds_a_fault_that_breaks_a_connection(call: Caller, kind: str) -> None:
    call.control("POST", "/faults", {"kind": kind, "operation": "ListProcessorTasks"})
    assert call("GET", "/items").status_code == 200
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        call("GET")


@pytest.mark.parametrize("verb", ["release", "drop"])
def test_the_control_api_releases_or_drops_a_held_call(call: Caller, state: EmulatorState, verb: str) -> None:
    fault = call.control("POST", "/faults", {"kind": "hold", "when": "after"}).json()
    (hold,) = state.faults.all()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, "GET")
        assert hold.wait(60)  # type: ignore[attr-defined]  # it is a Hold
        assert call.control("GET", "/faults").json()[0]["hits"] == 1
        assert call.control("POST", f"/faults/{fault['fault_id']}/{verb}").status_code == 200
        if verb == "release":
            assert answer.result(60).status_code == 200
        else:
            with pytest.raises(requests.ConnectionError):
                answer.result(60)
    assert call.control("GET", "/faults").json() == []


def test_the_control_api_removes_one_fault_or_all(call: Caller) -> None:
    first, *_ = [call.control("POST", "/faults", {"kind": "answer", "status": 500}).json() for _ in range(3)]
    assert call.control("POST", f"/faults/{first['fault_id']}/release").status_code == 400
    assert call.control("DELETE", f"/faults/{first['fault_id']}").status_code == 200
    assert len(call.control("GET", "/faults").json()) == 2
    call.control("DELETE", "/faults")
    assert call("GET").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "earthquake"},
        {"kind": "answer", "status": 100},
        {"kind": "answer", "headers": {"X": "a\r\nY: b"}},
        {"kind": "answer", "headers": {"X Y": "a"}},
        {"kind": "slow", "seconds": -1},
        {"kind": "throttle", "times": 0},
        {"kind": "limit_rate", "rate": 0},
        {"kind": "limit_rate", "burst": 0},
        {"kind": "throttle", "colour": "red"},
        {"kind": "slow", "status": 500},
    ],
)
def test_an_invalid_fault_is_refused(call: Caller, body: dict[str, Any]) -> None:
    assert call.control("POST", "/faults", body).status_code == 422


# Accounts


def test_the_control_api_rotates_and_removes_a_key(call: Caller) -> None:
    call.control("POST", "/access-keys", {"access_key": accounts.ACCESS_KEY, "secret_key": "rotated"})
    assert call("GET").status_code == 401
    assert call("GET", secret_key="rotated").status_code == 200
    call.control("DELETE", f"/access-keys/{accounts.ACCESS_KEY}")
    assert call("GET", secret_key="rotated").status_code == 401


def test_the_control_api_changes_and_removes_a_user(call: Caller) -> None:
    call.control("POST", "/users", {"name": accounts.USER_NAME, "password": "changed"})
    assert call.create_token().status_code == 401
    assert call.create_token(password="changed").status_code == 201
    call.control("DELETE", f"/users/{accounts.USER_NAME}")
    assert call.create_token(password="changed").status_code == 401


def test_the_control_api_issues_and_revokes_tokens(call: Caller) -> None:
    token = call.control("POST", "/tokens", {}).json()["token"]
    headers = {"X-Auth-Token": token}
    assert call.send("GET", call.url(""), headers=headers).status_code == 200
    assert call.control("POST", "/tokens/expire").json() == {"expired": 1}
    assert call.send("GET", call.url(""), headers=headers).status_code == 401
