"""Create operators against the emulator: the wait in the triggerer."""

import re
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, TaskDeferred

from airflow_modelarts.api.errors import ModelArtsNotFoundError
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support.create import (
    Try,
    deferral,
    deferred,
    operator,
    set_seconds_since_start,
    tasks,
    version_operator,
)
from tests.support.task_instances import collect_log


def test_a_deferred_wait_pushes_the_same_xcoms(emulator: EmulatorServer) -> None:
    attempt = Try()
    waiting = deferral(attempt)
    trigger: Any = waiting.trigger
    assert trigger.stop_on_kill
    assert trigger.processor_task_id == tasks(emulator)[0].task_id
    emulator.state.finish(trigger.processor_task_id)
    event = {"task_id": trigger.processor_task_id, "status": 2}
    returned = operator(deferrable=True).execute_complete(attempt.context, event, **(waiting.kwargs or {}))
    assert returned["status_name"] == "completed"
    assert attempt.xcoms["version"]["status_name"] == "completed"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return collect_log(monkeypatch, ModelArtsCreateProcessorTaskOperator)


def test_the_worker_repeats_once_how_and_when_the_wait_ended(
    emulator: EmulatorServer, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, task = deferred(emulator, wait_for_capacity=False)
    emulator.state.fail(task.task_id, "the OBS path does not exist")
    set_seconds_since_start(attempt, monkeypatch, 312)
    del lines[:]
    event = {"task_id": task.task_id, "status": 3}
    with pytest.raises(ModelArtsProcessorTaskFailed, match="the OBS path does not exist") as caught:
        operator(deferrable=True).execute_complete(attempt.context, event)
    (line,) = [line for line in lines if line.startswith(f"Processing task '{task.task_id}'")]
    assert re.fullmatch(r".* is failed; it was waited for in the triggerer until 312 s after the start of .*", line)
    assert caught.value.is_permanent


def test_the_worker_repeats_what_the_triggerer_submitted(emulator: EmulatorServer, lines: list[str]) -> None:
    task = emulator.state.add_task("check-1", template="sys_data_validation", status=2)
    event = {"task_id": task.task_id, "name": "check-1", "status": 2, "queued_seconds": 41.7}
    operator(deferrable=True).execute_complete(Try().context, event)
    assert f"Processing task '{task.task_id}' is named 'check-1'; the triggerer submitted it after 42 s." in lines


def test_a_lasting_error_fails_the_deferred_task_without_a_retry(emulator: EmulatorServer) -> None:
    attempt, task = deferred(emulator, wait_for_capacity=False)
    emulator.state.fail(task.task_id, "access denied")
    resumed = operator(deferrable=True, fail_fast=True)
    with pytest.raises(AirflowFailException, match="access denied"):
        resumed.resume_execution("execute_complete", {"event": {"task_id": task.task_id, "status": 3}}, attempt.context)
    emulator.state.fail(task.task_id, "internal error")
    with pytest.raises(ModelArtsProcessorTaskFailed, match="internal error"):
        resumed.resume_execution("execute_complete", {"event": {"task_id": task.task_id, "status": 3}}, attempt.context)


def test_an_invalid_request_fails_the_task_without_a_retry(emulator: EmulatorServer) -> None:
    with pytest.raises(AirflowFailException, match="description: it must contain none of"):
        operator(description="a < b", fail_fast=True).execute(Try().context)


def test_an_outage_after_a_deferred_wait_is_waited_out(emulator: EmulatorServer, pauses: list[float]) -> None:
    attempt = Try()
    trigger: Any = deferral(attempt).trigger
    emulator.state.finish(trigger.processor_task_id)
    emulator.faults.answer(503, times=12, operation="ListProcessorTaskVersions")
    event = {"task_id": trigger.processor_task_id, "status": 2}
    assert operator(deferrable=True).execute_complete(attempt.context, event)["status_name"] == "completed"


def test_an_event_before_the_end_defers_again(emulator: EmulatorServer) -> None:
    attempt, task = deferred(emulator)
    with pytest.raises(TaskDeferred):
        operator(deferrable=True).execute_complete(attempt.context, {"task_id": task.task_id, "error": "?"})


def test_the_error_of_a_trigger_is_raised_by_the_worker(emulator: EmulatorServer) -> None:
    with pytest.raises(ModelArtsNotFoundError, match="no task with this id"):
        operator(deferrable=True).execute_complete(Try().context, {"task_id": "gone", "error": "?"})


def test_a_deferred_wait_has_what_is_left_of_the_execution_timeout(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Try()
    set_seconds_since_start(attempt, monkeypatch, 60)
    timeout = deferral(attempt, execution_timeout=timedelta(seconds=100)).timeout
    assert timeout.total_seconds() == pytest.approx(40)


def test_a_deferred_wait_has_no_timeout_without_execution_timeout(emulator: EmulatorServer) -> None:
    assert deferral(Try()).timeout is None


def test_a_timeout_stops_the_version(emulator: EmulatorServer) -> None:
    attempt, task = deferred(emulator)
    resumed = operator(deferrable=True)
    with pytest.raises(AirflowTaskTimeout, match="execution_timeout is over"):
        resumed.resume_execution("__fail__", {"error": "Trigger timeout"}, attempt.context)
    resumed.on_kill()  # as Airflow does after this error
    assert emulator.state.status(task.task_id) == 4
    assert emulator.state.log.count("StopProcessorTaskVersion") == 1


def test_a_timeout_stops_the_one_version(emulator: EmulatorServer, original: Task) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    with pytest.raises(TaskDeferred):
        version_operator(original, deferrable=True, wait_for_capacity=False).execute(attempt.context)
    emulator.state.set_status(original.task_id, 1)
    attempt.store.clear()  # as on Airflow 2, which has only the XCom
    context = {key: value for key, value in attempt.context.items() if key == "ti"}
    resumed = version_operator(original, deferrable=True)
    with pytest.raises(AirflowTaskTimeout):
        resumed.resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    resumed.on_kill()
    assert emulator.state.status(original.task_id) == 4


def test_another_failure_of_the_trigger_is_raised_unchanged(emulator: EmulatorServer) -> None:
    with pytest.raises(Exception, match="failure"):
        operator(deferrable=True).resume_execution("__fail__", {"error": "Trigger failure"}, Try().context)
