"""Create operators on a worker wait for capacity: a limit, throttling and an outage; or fail at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_modelarts.api import errors
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.operators import running
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support.create import INPUTS, VALIDATION, Try, needs_state_store, operator, run, tasks, version_operator

#: The parameter's name must not be in the message of a hook.
PARAMETER = "wait_for_capacity"


class Sleeping:
    """Replaces ``time.sleep``: a sleep takes no time, and can do something.

    Sleeps alone move the clock of the emulator's tasks. The time between two of them depends on the machine.
    """

    def __init__(self, emulator: EmulatorServer) -> None:
        self.state = emulator.state
        self.state.clock.freeze()
        self.seconds = 0.0
        self.at: dict[float, Callable[[], None]] = {}

    def __call__(self, seconds: float) -> None:
        self.seconds += seconds
        self.state.clock.advance(seconds)
        for moment in [moment for moment in sorted(self.at) if moment <= self.seconds]:
            self.at.pop(moment)()


@pytest.fixture
def sleeping(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> Sleeping:
    replaced = Sleeping(emulator)
    monkeypatch.setattr("time.sleep", lambda seconds: (pauses.append(seconds), replaced(seconds)))
    monkeypatch.setattr(running, "time", SimpleNamespace(time=time.time, monotonic=lambda: replaced.seconds))
    return replaced


def creates(emulator: EmulatorServer) -> int:
    return emulator.state.log.count("CreateProcessorTask")


@pytest.mark.parametrize("limit", ["running_limit", "unfinished_limit", "template_limits"])
def test_a_worker_waits_until_there_is_room(emulator: EmulatorServer, sleeping: Sleeping, limit: str) -> None:
    setattr(emulator.state.settings, limit, {VALIDATION["id"]: 1} if limit == "template_limits" else 1)
    active = emulator.state.add_task(template="sys_data_validation", duration=600)
    attempt = Try()
    assert run({}, attempt)["status_name"] == "completed"
    assert emulator.state.status(active.task_id) == 2
    assert len(tasks(emulator)) == 2
    assert 600 <= attempt.xcoms["queued_seconds"] < 700
    assert 8 < creates(emulator) < 30


def test_without_a_refusal_queued_seconds_is_zero(emulator: EmulatorServer) -> None:
    attempt = Try()
    run({}, attempt)
    assert attempt.xcoms["queued_seconds"] == 0


def test_a_version_waits_until_there_is_room(emulator: EmulatorServer, original: Task, sleeping: Sleeping) -> None:
    emulator.state.settings.running_limit = 1
    emulator.state.add_task(duration=600)
    attempt = Try()
    version_operator(original).execute(attempt.context)
    assert len(original.versions) == 2
    assert 600 <= attempt.xcoms["queued_seconds"] < 700


def test_the_log_says_why_it_waits_at_growing_intervals_and_how_long_it_waited(
    emulator: EmulatorServer, sleeping: Sleeping, printed_log: Callable[[], str]
) -> None:
    emulator.state.settings.running_limit = 1
    emulator.state.add_task(duration=3600)
    run({}, Try())
    lines = [line for line in printed_log().splitlines() if "capacity" in line]
    assert "waiting for capacity: the limit of running tasks is reached" in lines[0]
    seconds = [float(found[1]) for line in lines[1:-1] if (found := re.search(r"reached; (\d+) s so far", line))]
    assert len(seconds) == len(lines) - 2 >= 4
    gaps = [later - earlier for earlier, later in pairwise([0.0, *seconds])]
    assert all(gap >= 59 * 2**number for number, gap in enumerate(gaps))
    found = re.search(r"waited (\d+)\.\d s for capacity", lines[-1])
    assert found is not None
    assert 3600 <= float(found[1]) < 3700


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "refuse", "code": "ModelArts.4616"}, "too many unfinished tasks"),
        ({"kind": "refuse", "code": "ModelArts.4704"}, "a dataset version is being published"),
        ({"kind": "throttle"}, "the gateway throttles this caller"),
        ({"kind": "answer", "status": 429}, r"the service throttles requests \(HTTP 429\)"),
        ({"kind": "throttle", "form": "html"}, r"the service has a fault \(HTTP 503\)"),
        ({"kind": "refuse", "code": "ModelArts.4409", "status": 500}, r"the service has a fault \(HTTP 500\)"),
        ({"kind": "malformed"}, "the service returned an unexpected body"),
        ({"kind": "reset"}, "the service does not answer"),
    ],
)
def test_the_log_tells_a_limit_from_throttling_and_from_an_outage(
    emulator: EmulatorServer,
    sleeping: Sleeping,
    printed_log: Callable[[], str],
    fault: dict[str, Any],
    reason: str,
) -> None:
    from pydantic import TypeAdapter

    from airflow_modelarts.testing.emulator.control.faults import AnyFault, Fault

    made: Fault = TypeAdapter(AnyFault).validate_python({"times": None, "operation": "CreateProcessorTask", **fault})
    emulator.faults.add(made)
    sleeping.at[300.0] = lambda: emulator.faults.remove(made)
    assert run({}, Try())["status_name"] == "completed"
    assert len(tasks(emulator)) == 1
    assert re.search(f"waiting for capacity: {reason}[;\\s]", printed_log())


@pytest.mark.parametrize("code", ["ModelArts.0118", "ModelArts.4853", "ModelArts.4116", "ModelArts.0104"])
def test_a_refusal_that_no_waiting_mends_is_final(emulator: EmulatorServer, sleeping: Sleeping, code: str) -> None:
    emulator.faults.refuse(code, times=None, operation="CreateProcessorTask")
    with pytest.raises(errors.ModelArtsError) as refused:
        run({}, Try())
    assert (creates(emulator), sleeping.seconds) == (1, 0)
    assert PARAMETER not in str(refused.value)


def test_retry_after_is_honoured(emulator: EmulatorServer, sleeping: Sleeping) -> None:
    emulator.faults.throttle(times=1, retry_after=120, operation="CreateProcessorTask")
    attempt = Try()
    run({}, attempt)
    assert 120 <= attempt.xcoms["queued_seconds"] < 125
    assert creates(emulator) == 2


@pytest.mark.parametrize("kind", ["task", "version"])
def test_nothing_is_submitted_after_a_kill_while_it_waits(
    emulator: EmulatorServer, original: Task, sleeping: Sleeping, kind: str
) -> None:
    emulator.state.settings.running_limit = 1
    active = emulator.state.add_task(duration=3600)
    waiting = operator() if kind == "task" else version_operator(original)
    sleeping.at[100.0] = waiting.on_kill
    sleeping.at[100.5] = lambda: emulator.state.finish(active.task_id)
    attempt = Try()
    with pytest.raises(errors.ModelArtsError, match="Task was killed; not submitting"):
        waiting.execute(attempt.context)
    assert sleeping.seconds < 105, "Airflow grants five seconds"
    assert (len(tasks(emulator)), len(original.versions)) == (2, 1)
    assert "queued_seconds" not in attempt.xcoms
    assert attempt.store == {}


@needs_state_store
def test_a_crash_while_it_waits_leaves_one_task_when_the_retry_submits(
    emulator: EmulatorServer, sleeping: Sleeping
) -> None:
    class Crash(BaseException):
        pass

    def crash() -> None:
        raise Crash

    emulator.state.settings.running_limit = 1
    emulator.state.add_task(duration=600)
    attempt = Try()
    sleeping.at[100.0] = crash
    with pytest.raises(Crash):
        run({}, attempt)
    run({}, attempt.next())
    assert len(tasks(emulator)) == 2


@needs_state_store
def test_an_answer_that_is_lost_while_the_service_is_full_creates_one_task(
    emulator: EmulatorServer, sleeping: Sleeping
) -> None:
    emulator.state.settings.running_limit = 1
    emulator.state.next_task(duration=600)
    emulator.faults.reset("after", operation="CreateProcessorTask")
    attempt = Try()
    run({"poll_interval": 60}, attempt)
    assert len(tasks(emulator)) == 1
    assert attempt.xcoms["queued_seconds"] < 60, "the task that fills the service is its own"


# Without waiting


@pytest.mark.parametrize("kind", ["task", "version"])
@pytest.mark.parametrize("code", ["ModelArts.4409", "ModelArts.4616", "ModelArts.4992"])
def test_without_waiting_a_limit_fails_at_once_and_names_the_parameter(
    emulator: EmulatorServer, original: Task, sleeping: Sleeping, code: str, kind: str
) -> None:
    emulator.faults.refuse(code, "no more today", times=None)
    emulator.faults.all()[0].method = "POST"
    task: Any = (operator if kind == "task" else version_operator)(
        **({} if kind == "task" else {"task": original}), wait_for_capacity=False
    )
    with pytest.raises(errors.ModelArtsBusyError) as refused:
        task.execute(Try().context)
    assert sum(request.method == "POST" for request in emulator.state.log.entries()) == 1
    assert sleeping.seconds == 0
    assert '"no more today"' in str(refused.value)
    assert str(refused.value).endswith(". Set wait_for_capacity=True to wait until there is room.")


@pytest.mark.parametrize("waits", [True, False])
def test_a_version_whose_answer_is_lost_fails_with_what_a_retry_does(
    emulator: EmulatorServer, original: Task, sleeping: Sleeping, *, waits: bool
) -> None:
    emulator.faults.answer(503, times=None, operation="CreateProcessorTaskVersion")
    with pytest.raises(errors.ModelArtsTransientError) as failed:
        version_operator(original, wait_for_capacity=waits).execute(Try().context)
    assert failed.value.outcome_unknown
    assert PARAMETER not in str(failed.value), "it would not wait for that"
    assert "No version has appeared so far. Set retries: the next try looks for it" in str(failed.value)


def test_without_waiting_a_throttled_request_is_repeated_for_a_while(
    emulator: EmulatorServer, sleeping: Sleeping
) -> None:
    emulator.faults.throttle(times=4, operation="CreateProcessorTask")
    run({"wait_for_capacity": False}, Try())
    emulator.faults.throttle(times=None, operation="CreateProcessorTask")
    with pytest.raises(
        errors.ModelArtsThrottledError, match="wait_for_capacity=True to wait until the service accepts"
    ):
        run({"wait_for_capacity": False}, Try())


def test_a_hook_fails_with_a_message_that_names_no_parameter_of_an_operator(
    emulator: EmulatorServer, sleeping: Sleeping
) -> None:
    emulator.state.settings.running_limit = 0
    with ModelArtsHook(retries=RetryPolicy(attempts=1)) as hook, pytest.raises(errors.ModelArtsBusyError) as refused:
        hook.create_processor_task(name="n", template=VALIDATION, inputs=INPUTS)
    assert PARAMETER not in str(refused.value)
    assert "Try again when some of the project's tasks have ended, or have the quota raised." in str(refused.value)
