"""The faults, as a caller sees them on the wire."""

import math
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from airflow_modelarts.testing.emulator.control import faults
from airflow_modelarts.testing.emulator.control.faults import Fault, Hold, LimitRate
from tests.support.calling import FEATURE_ANALYSIS, Caller, error_of

#: Seconds; long enough for a busy machine.
TIMEOUT = 60.0
A_DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"not within {TIMEOUT:g} seconds"
        time.sleep(0.005)


def in_background(call: Caller, *arguments: Any) -> Future[requests.Response]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call, *arguments)
    pool.shutdown(wait=False)
    return future


@pytest.fixture
def hold(state: EmulatorState) -> Hold:
    return state.faults.hold()


# Which calls a fault applies to


def test_a_fault_applies_to_the_next_calls_only(call: Caller, state: EmulatorState) -> None:
    state.faults.throttle(2)
    assert [call("GET").status_code for _ in range(3)] == [429, 429, 200]
    assert state.faults.all() == []


def test_a_fault_without_times_lasts_until_it_is_removed(call: Caller, state: EmulatorState) -> None:
    fault = state.faults.answer(503, times=None)
    assert [call("GET").status_code for _ in range(3)] == [503] * 3
    assert fault.hits == 3
    state.faults.remove(fault)
    state.faults.remove(fault)
    assert call("GET").status_code == 200


@pytest.mark.parametrize(
    "match", [{"method": "POST"}, {"path": "/items"}, {"operation": "DescribeProcessorTask"}, {"skip": 1}]
)
def test_a_fault_applies_only_to_matching_calls(call: Caller, state: EmulatorState, match: dict[str, Any]) -> None:
    state.faults.answer(500, **match)
    assert call("GET").status_code == 200
    method, path = ("POST", "") if "method" in match else ("GET", "/items" if "path" in match else "/x")
    assert call(method, path).status_code == 500


def test_the_older_of_two_faults_applies_first(call: Caller, state: EmulatorState) -> None:
    state.faults.answer(500)
    state.faults.answer(502)
    assert [call("GET").status_code for _ in range(3)] == [500, 502, 200]


def test_faults_apply_before_authorization_and_to_iam(call: Caller, state: EmulatorState) -> None:
    state.faults.answer(503, operation="KeystoneCreateUserTokenByPassword")
    assert call.create_token().status_code == 503
    state.faults.throttle()
    assert call.send("GET", call.url("")).status_code == 429


def test_no_fault_applies_to_the_control_api_and_the_pages(call: Caller, state: EmulatorState) -> None:
    state.faults.answer(500, times=None)
    assert call.send("GET", call.server.url).status_code == 200
    assert call.control("GET", "/settings").status_code == 200


def test_clearing_removes_every_fault(call: Caller, state: EmulatorState) -> None:
    state.faults.answer(500, times=None)
    state.faults.hold()
    state.faults.clear()
    assert call("GET").status_code == 200


async def test_the_base_fault_does_nothing() -> None:
    fault = Fault()
    fault.cancel()
    assert not fault.is_over
    with pytest.raises(NotImplementedError):
        await fault.apply(None)  # type: ignore[arg-type]  # it is not used


# Answers without a call of the service


@pytest.mark.parametrize(("retry_after", "header"), [(None, None), (7, "7"), (A_DATE, A_DATE)])
def test_throttling_sends_retry_after(call: Caller, state: EmulatorState, retry_after: Any, header: str | None) -> None:
    state.faults.throttle(retry_after=retry_after)
    response = call("GET")
    assert error_of(response) == (429, "APIGW.0308")
    assert response.headers.get("Retry-After") == header


def test_a_rate_limit_passes_a_burst_and_refuses_further_calls(call: Caller, state: EmulatorState) -> None:
    fault = state.faults.limit_rate(rate=0.001, burst=3, retry_after=7, method="GET")
    answers = [call("GET") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert error_of(answers[-1]) == (429, "APIGW.0308")
    assert answers[-1].headers["Retry-After"] == "7"
    assert call("DELETE", "/x").status_code == 400, "the fault does not apply to another method"
    assert fault.hits == 2
    state.faults.remove(fault)
    assert call("GET").status_code == 200


def test_a_rate_limit_refills_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(faults, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    fault = LimitRate(rate=2, burst=5)

    def refused(calls: int) -> int:
        return sum(fault.applies() for _ in range(calls))

    assert refused(8) == 3
    clock.seconds += 0.25
    assert refused(1) == 1, "half a token"
    clock.seconds += 0.25
    assert refused(2) == 1
    clock.seconds += 3600
    assert refused(8) == 3, "no more tokens than a burst are kept"


def test_the_next_fault_applies_to_a_call_that_passes_a_rate_limit(call: Caller, state: EmulatorState) -> None:
    state.faults.limit_rate(rate=0.001, burst=1, status=503, times=1)
    state.faults.answer(500)
    assert [call("GET").status_code for _ in range(3)] == [500, 503, 200]


def test_throttling_can_send_a_date_in_retry_after(call: Caller, state: EmulatorState) -> None:
    end = math.floor(time.time()) + 30
    state.faults.throttle_until(end)
    assert parsedate_to_datetime(call("GET").headers["Retry-After"]).timestamp() == end


def test_an_answer_is_sent_unchanged(call: Caller, state: EmulatorState) -> None:
    state.faults.answer(418, "kürzlich", {"Content-Type": "text/x-tea", "X-Kind": "green"})
    response = call("GET")
    assert (response.status_code, response.content) == (418, "kürzlich".encode())
    assert (response.headers["Content-Type"], response.headers["X-Kind"]) == ("text/x-tea", "green")


def test_a_refusal_has_the_codes_status_by_default(call: Caller, state: EmulatorState) -> None:
    state.faults.refuse("ModelArts.4850")
    state.faults.refuse("ModelArts.9999", "something new", status=418)
    assert error_of(call("GET")) == (403, "ModelArts.4850")
    response = call("GET")
    assert error_of(response) == (418, "ModelArts.9999")
    assert response.json()["error_msg"] == "something new"


def test_a_fault_can_answer_that_the_token_expired(call: Caller, state: EmulatorState) -> None:
    state.faults.expire_token()
    assert error_of(call("GET")) == (401, "APIGW.0301")
    assert call("GET").status_code == 200


def test_a_fault_can_redirect(call: Caller, state: EmulatorState) -> None:
    state.faults.redirect("http://elsewhere.invalid/")
    response = call("GET")
    assert (response.status_code, response.headers["Location"]) == (307, "http://elsewhere.invalid/")


@pytest.mark.parametrize(
    ("form", "content_type", "start"),
    [
        ("html", "text/html", "<!DOCTYPE"),
        ("truncated_json", "application/json", '{"count":'),
        ("wrong_content_type", "application/octet-stream", '{"count":0,"tasks":[]}'),
        ("empty", "application/json", ""),
        ("not_an_object", "application/json", "[["),
    ],
)
def test_a_body_can_be_malformed(call: Caller, state: EmulatorState, form: Any, content_type: str, start: str) -> None:
    state.faults.malformed(form)
    response = call("GET")
    assert (response.status_code, response.headers["Content-Type"]) == (200, content_type)
    assert response.text.startswith(start)
    if form in ("html", "truncated_json", "empty"):
        with pytest.raises(requests.JSONDecodeError):
            response.json()


# Broken connections


def test_a_response_is_cut_off_after_the_service_has_acted(call: Caller, state: EmulatorState) -> None:
    state.faults.cut_off(5)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="5 bytes read"):
        call("POST", body=FEATURE_ANALYSIS)
    assert len(state.all_tasks()) == 1


def test_a_short_response_is_cut_off_too(call: Caller, state: EmulatorState) -> None:
    state.faults.cut_off(1000)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="21 bytes read"):
        call("GET")


@pytest.mark.parametrize(("when", "tasks"), [("before", 0), ("after", 1)])
def test_a_reset_comes_before_or_after_the_act(call: Caller, state: EmulatorState, when: Any, tasks: int) -> None:
    state.faults.reset(when)
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        call("POST", body=FEATURE_ANALYSIS)
    assert len(state.all_tasks()) == tasks


def test_a_broken_connection_logs_nothing(
    call: Caller, state: EmulatorState, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for fault in (state.faults.reset, state.faults.cut_off):
        fault()
        with pytest.raises(requests.RequestException):
            call("GET")
    assert call("GET").status_code == 200
    assert caplog.records == []
    assert capfd.readouterr().err == ""


def test_a_request_whose_caller_disconnects_early_gets_no_answer(emulator: EmulatorServer) -> None:
    with socket.create_connection((emulator.host, emulator.port)) as connection:
        connection.sendall(b"POST /v3/auth/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        wait_for(lambda: emulator.state.log.count() == 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert emulator.state.log.entries()[0].status is None


# Slow and held


def test_a_response_can_be_delayed(call: Caller, state: EmulatorState) -> None:
    state.faults.slow(0.3)
    start = time.monotonic()
    assert call("GET").status_code == 200
    assert time.monotonic() - start >= 0.3


def test_a_response_can_be_sent_slowly(call: Caller, state: EmulatorState) -> None:
    state.faults.trickle(bytes_per_second=100)
    start = time.monotonic()
    assert call("GET").json() == {"count": 0, "tasks": []}
    assert time.monotonic() - start >= 0.2


def test_the_service_acts_on_a_held_call_when_it_is_released(call: Caller, state: EmulatorState, hold: Hold) -> None:
    answer = in_background(call, "POST", "", FEATURE_ANALYSIS)
    assert hold.wait(TIMEOUT)
    assert (state.all_tasks(), answer.done()) == ([], False)
    hold.release()
    hold.release()
    assert answer.result(TIMEOUT).status_code == 200
    assert len(state.all_tasks()) == 1


def test_the_service_has_acted_on_a_call_held_after(call: Caller, state: EmulatorState) -> None:
    hold = state.faults.hold("after")
    answer = in_background(call, "POST", "", FEATURE_ANALYSIS)
    assert hold.wait(TIMEOUT)
    assert (len(state.all_tasks()), answer.done()) == (1, False)
    assert state.log.entries()[0].status is None
    hold.release()
    assert answer.result(TIMEOUT).json()["task_id"] == state.all_tasks()[0].task_id


def test_the_service_never_acts_on_a_dropped_call(call: Caller, state: EmulatorState, hold: Hold) -> None:
    answer = in_background(call, "POST", "", FEATURE_ANALYSIS)
    assert hold.wait(TIMEOUT)
    hold.drop()
    with pytest.raises(requests.ConnectionError):
        answer.result(TIMEOUT)
    assert state.all_tasks() == []


def test_a_released_call_of_a_dead_caller_is_served(emulator: EmulatorServer, call: Caller, hold: Hold) -> None:
    body = b"{}"
    url = call.url("")
    headers = call.signed("POST", url, body)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    path = url.removeprefix(emulator.url)
    with socket.create_connection((emulator.host, emulator.port)) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{head}Content-Length: 2\r\n\r\n".encode() + body)
        assert hold.wait(TIMEOUT)
    hold.release()
    wait_for(lambda: emulator.state.log.entries()[0].status == 400)


def test_a_hold_without_calls_times_out(hold: Hold) -> None:
    assert hold.wait(0.01) is False


def test_released_holds_are_removed(call: Caller, state: EmulatorState, hold: Hold) -> None:
    answer = in_background(call, "GET")
    assert hold.wait(TIMEOUT)
    hold.release()
    assert answer.result(TIMEOUT).status_code == 200
    assert state.faults.all() == []


def test_a_released_hold_no_longer_applies(call: Caller, state: EmulatorState) -> None:
    hold = state.faults.hold(times=None)
    hold.release()
    state.faults.throttle()
    assert [call("GET").status_code for _ in range(2)] == [429, 200]
    assert state.faults.all() == []


def test_a_reset_drops_held_calls(call: Caller, state: EmulatorState, hold: Hold) -> None:
    answer = in_background(call, "GET")
    assert hold.wait(TIMEOUT)
    state.reset()
    with pytest.raises(requests.ConnectionError):
        answer.result(TIMEOUT)


def test_other_calls_are_served_while_many_are_held(call: Caller, state: EmulatorState) -> None:
    hold = state.faults.hold(times=None, operation="ListProcessorTaskItems")
    answers = [in_background(Caller(call.server), "GET", "/items") for _ in range(20)]
    wait_for(lambda: hold.hits == 20)
    assert call("GET").status_code == 200
    state.faults.remove(hold)
    for answer in answers:
        with pytest.raises(requests.ConnectionError):
            answer.result(TIMEOUT)


# The log


def test_requests_are_logged_with_operation_status_and_fault(call: Caller, state: EmulatorState) -> None:
    state.faults.throttle()
    call("GET", "?status=1")
    call("POST", body=FEATURE_ANALYSIS)
    call("GET", "/a/b/c/d")
    wait_for(lambda: state.log.entries()[-1].status is not None)  # the caller can be faster than the log
    logged = [(r.method, r.query, r.operation, r.status, r.fault) for r in state.log.entries()]
    assert logged == [
        ("GET", "status=1", "ListProcessorTasks", 429, "refuse"),
        ("POST", "", "CreateProcessorTask", 200, None),
        ("GET", "", None, 404, None),
    ]
    assert state.log.counts() == {"ListProcessorTasks": 1, "CreateProcessorTask": 1, "unknown": 1}
    assert (state.log.count(), state.log.count("ListProcessorTasks")) == (3, 1)
    assert [entry.method for entry in state.log.entries("CreateProcessorTask")] == ["POST"]


def test_the_request_log_contains_no_secrets(call: Caller, state: EmulatorState) -> None:
    token = call.create_token().headers["X-Subject-Token"]
    call.send("GET", call.url(""), headers={"X-Auth-Token": token})
    call("GET")
    text = repr(state.log.entries())
    assert token not in text
    assert "Signature" not in text


def test_the_emulator_is_thread_safe(emulator: EmulatorServer) -> None:
    def work(number: int) -> list[int]:
        caller = Caller(emulator)
        with caller.session:
            answers = []
            for step in range(5):
                answers.append(caller("POST", "", {**FEATURE_ANALYSIS, "name": f"{number}-{step}"}).status_code)
                emulator.state.clock.advance(1)
                emulator.state.finish(emulator.state.all_tasks()[0].task_id)
                answers.append(caller("GET", "?limit=100").status_code)
            return answers

    with ThreadPoolExecutor(8) as pool:
        answers = [status for statuses in pool.map(work, range(8)) for status in statuses]
    assert answers == [200] * 80
    assert threading.active_count() < 50
