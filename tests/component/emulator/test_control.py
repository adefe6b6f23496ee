"""The control API: what a test in another process, or a person, can turn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.service import accounts
from tests.support.calling import DATA_VALIDATION, FEATURE_ANALYSIS, Caller, refusal


def create(call: Caller, body: dict[str, Any] = FEATURE_ANALYSIS) -> str:
    return str(call("POST", body=body).json()["task_id"])


def status(call: Caller, task_id: str) -> int:
    return int(call("GET", f"/{task_id}").json()["status"])


@pytest.mark.parametrize(("order", "expected"), [("finish", 2), ("fail", 3), ("stop", 4)])
def test_a_task_is_ended(call: Caller, order: str, expected: int) -> None:
    task_id = create(call)
    assert call.control("POST", f"/tasks/{task_id}/{order}").json()["status"] == expected
    assert status(call, task_id) == expected


def test_a_task_fails_with_a_message(call: Caller) -> None:
    task_id = create(call)
    call.control("POST", f"/tasks/{task_id}/fail", {"error_msg": "broken pictures"})
    assert call("GET", f"/{task_id}").json()["error_msg"] == "broken pictures"


def test_a_tasks_duration_status_and_result_are_changed(call: Caller) -> None:
    task_id = create(call)
    call.control("PATCH", f"/tasks/{task_id}", {"status": 7})
    assert status(call, task_id) == 7
    call.control("PATCH", f"/tasks/{task_id}", {"status": 2, "duration": 0, "result": "plain"})
    assert call("GET", f"/{task_id}").json()["result"] == "plain"
    call.control("PATCH", f"/tasks/{task_id}", {"result_form": "array"})
    assert isinstance(call("GET", f"/{task_id}").json()["result"], list)
    call.control("PATCH", f"/tasks/{task_id}", {"error_msg": "ignored without a status"})
    assert status(call, task_id) == 2


def test_a_versions_sample_count_is_changed(call: Caller, state: EmulatorState) -> None:
    task_id = create(call, DATA_VALIDATION)
    seen = call.control("PATCH", f"/tasks/{task_id}", {"sample_count": 7, "status": 2}).json()
    assert call("GET", f"/{task_id}/versions/{seen['version_ids'][0]}/results").json()["count"] == 7
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
        ("GET", "/tasks/nobody"),
        ("PATCH", "/tasks/nobody"),
        ("POST", "/tasks/nobody/finish"),
        ("POST", "/faults/999999999/release"),
        ("DELETE", "/faults/999999999"),
        ("DELETE", "/access-keys/nobody"),
        ("DELETE", "/users/nobody"),
    ],
)
def test_what_does_not_exist_is_not_found(call: Caller, method: str, path: str) -> None:
    assert call.control(method, path, {} if method == "PATCH" else None).status_code == 404


def test_tasks_are_shown_with_the_body_that_created_them(call: Caller) -> None:
    task_id = create(call)
    assert call.control("GET", f"/tasks/{task_id}").json()["body"] == FEATURE_ANALYSIS
    assert [task["task_id"] for task in call.control("GET", "/tasks").json()] == [task_id]
    assert call.control("GET", "/tasks?last=0").json() == []


def test_many_tasks_are_put_there_at_once(call: Caller) -> None:
    order = {"count": 250, "template": "sys_data_cleaning", "status": 1}
    assert len(call.control("POST", "/tasks", order).json()) == 250
    assert call("GET", "?status=1&task_type=sys_data_cleaning").json()["count"] == 250
    assert call.control("POST", "/tasks", {"project_id": "x"}).status_code == 404


def test_a_rule_is_added_and_forgotten(call: Caller) -> None:
    call.control("POST", "/rules", {"name": "V*", "status": 3, "duration": 0, "error_msg": "told to"})
    assert call("GET", f"/{create(call)}").json()["error_msg"] == "told to"
    call.control("POST", "/rules", {"times": None, "duration": 0})
    call.control("DELETE", "/rules")
    assert status(call, create(call, {**FEATURE_ANALYSIS, "name": "other"})) == 0


def test_the_clock_is_turned(call: Caller) -> None:
    task_id = create(call)
    assert call.control("POST", "/clock/advance", {"seconds": 10}).json()["now"] > 0
    assert status(call, task_id) == 2
    for seconds in (-1, "NaN", 1e300):
        assert call.control("POST", "/clock/advance", {"seconds": seconds}).status_code == 422


def test_settings_are_changed_and_shown(call: Caller, state: EmulatorState) -> None:
    change = {"not_found": "http404_empty", "task_duration": 0, "running_limit": 0, "clock_offset": -60}
    settings = call.control("PATCH", "/settings", change).json()
    assert {name: settings[name] for name in change} == change
    assert call.control("GET", "/settings").json() == settings
    assert call("GET", "/gone").status_code == 404
    assert refusal(call("POST", body=FEATURE_ANALYSIS)) == (400, "ModelArts.4409")
    assert call.control("PATCH", "/settings", {"colour": "red"}).status_code == 422


def test_requests_are_shown_and_forgotten(call: Caller) -> None:
    call("GET")
    call("GET", "/items")
    seen = call.control("GET", "/requests").json()
    assert seen["counts"] == {"ListProcessorTasks": 1, "ListProcessorTaskItems": 1}
    assert [request["status"] for request in seen["requests"]] == [200, 200]
    last = call.control("GET", "/requests?operation=ListProcessorTasks&last=1").json()
    assert [request["operation"] for request in last["requests"]] == ["ListProcessorTasks"]
    call.control("DELETE", "/requests")
    assert call.control("GET", "/requests").json() == {"counts": {}, "requests": []}


def test_a_reset_makes_it_new(call: Caller) -> None:
    create(call)
    call.control("POST", "/faults", {"kind": "answer", "status": 500, "times": None})
    call.control("POST", "/reset")
    assert call("GET").json()["count"] == 0


# Faults


@pytest.mark.parametrize(
    ("order", "expected", "header"),
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
def test_a_fault_is_ordered(call: Caller, order: dict[str, Any], expected: int, header: tuple[str, str]) -> None:
    seen = call.control("POST", "/faults", order).json()
    assert [fault["fault_id"] for fault in call.control("GET", "/faults").json()] == [seen["fault_id"]]
    response = call("GET")
    assert response.status_code == expected
    assert response.headers[header[0]].startswith(header[1])
    assert call("GET").status_code == 200


def test_a_rate_is_ordered_and_lasts_until_it_is_taken_back(call: Caller) -> None:
    order = {"kind": "limit_rate", "rate": 0.001, "burst": 2, "retry_after": 3, "status": 503}
    seen = call.control("POST", "/faults", order).json()
    assert (seen["kind"], seen["times"]) == ("limit_rate", None)
    answers = [call("GET") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 503, 503]
    assert answers[-1].headers["Retry-After"] == "3"
    assert call.control("GET", "/faults").json()[0]["hits"] == 2
    call.control("DELETE", f"/faults/{seen['fault_id']}")
    assert call("GET").status_code == 200


@pytest.mark.parametrize("kind", ["cut_off", "reset"])
def test_a_broken_connection_is_ordered(call: Caller, kind: str) -> None:
    call.control("POST", "/faults", {"kind": kind, "operation": "ListProcessorTasks"})
    assert call("GET", "/items").status_code == 200
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        call("GET")


@pytest.mark.parametrize("order", ["release", "drop"])
def test_a_call_is_held_until_it_is_released_or_dropped(call: Caller, state: EmulatorState, order: str) -> None:
    fault = call.control("POST", "/faults", {"kind": "hold", "when": "after"}).json()
    (hold,) = state.faults.all()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, "GET")
        assert hold.wait(5)  # type: ignore[attr-defined]  # it is a Hold
        assert call.control("GET", "/faults").json()[0]["hits"] == 1
        assert call.control("POST", f"/faults/{fault['fault_id']}/{order}").status_code == 200
        if order == "release":
            assert answer.result(5).status_code == 200
        else:
            with pytest.raises(requests.ConnectionError):
                answer.result(5)
    assert call.control("GET", "/faults").json() == []


def test_faults_are_taken_back_one_by_one_or_all(call: Caller) -> None:
    first, *_ = [call.control("POST", "/faults", {"kind": "answer", "status": 500}).json() for _ in range(3)]
    assert call.control("POST", f"/faults/{first['fault_id']}/release").status_code == 400
    assert call.control("DELETE", f"/faults/{first['fault_id']}").status_code == 200
    assert len(call.control("GET", "/faults").json()) == 2
    call.control("DELETE", "/faults")
    assert call("GET").status_code == 200


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "earthquake"},
        {"kind": "answer", "status": 100},
        {"kind": "answer", "headers": {"X": "a\r\nY: b"}},
        {"kind": "answer", "headers": {"X Y": "a"}},
        {"kind": "slow", "seconds": -1},
        {"kind": "throttle", "times": 0},
        {"kind": "limit_rate", "rate": 0},
        {"kind": "limit_rate", "burst": 0},
        {"kind": "throttle", "colour": "red"},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(call: Caller, order: dict[str, Any]) -> None:
    assert call.control("POST", "/faults", order).status_code == 422


# Accounts


def test_a_key_is_rotated_and_removed(call: Caller) -> None:
    call.control("POST", "/access-keys", {"access_key": accounts.ACCESS_KEY, "secret_key": "rotated"})
    assert call("GET").status_code == 401
    assert call("GET", secret_key="rotated").status_code == 200
    call.control("DELETE", f"/access-keys/{accounts.ACCESS_KEY}")
    assert call("GET", secret_key="rotated").status_code == 401


def test_a_user_is_changed_and_removed(call: Caller) -> None:
    call.control("POST", "/users", {"name": accounts.USER_NAME, "password": "changed"})
    assert call.ask_for_token().status_code == 401
    assert call.ask_for_token(password="changed").status_code == 201
    call.control("DELETE", f"/users/{accounts.USER_NAME}")
    assert call.ask_for_token(password="changed").status_code == 401


def test_tokens_are_issued_and_expired(call: Caller) -> None:
    token = call.control("POST", "/tokens", {}).json()["token"]
    headers = {"X-Auth-Token": token}
    assert call.send("GET", call.url(""), headers=headers).status_code == 200
    assert call.control("POST", "/tokens/expire").json() == {"expired": 1}
    assert call.send("GET", call.url(""), headers=headers).status_code == 401
