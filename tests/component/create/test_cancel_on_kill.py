"""``cancel_on_kill=False``: nothing stops the processing task, and another try adopts it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support.create import Try, deferral, deferred, needs_state_store, operator, run, tasks, version_operator

GOES_ON: dict[str, Any] = {"cancel_on_kill": False}


class Interrupted(BaseException):
    """Stands for the SIGKILL that follows on_kill."""


def kill_while_waiting(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, task: Any, attempt: Try) -> Task:
    """Kill a try during its wait; return its processing task, which runs."""

    def kill(_: float) -> None:
        emulator.state.set_status(tasks(emulator)[-1].task_id, 1)
        task.on_kill()
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", kill)
        with pytest.raises(Interrupted):
            task.execute(attempt.context)
    return tasks(emulator)[-1]


@pytest.mark.parametrize(("arguments", "status"), [(GOES_ON, 1), ({}, 4)])
@pytest.mark.parametrize("states", ["failed", "restarting", "success"])
def test_a_kill_on_a_worker_stops_nothing(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], status: int, states: str
) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    attempt.states = [states]
    task = kill_while_waiting(emulator, monkeypatch, operator(deferrable=False, **arguments), attempt)
    assert emulator.state.status(task.task_id) == status


def test_the_version_of_the_version_operator_goes_on(
    emulator: EmulatorServer, original: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.state.next_task(duration=1000)
    kill_while_waiting(emulator, monkeypatch, version_operator(original, deferrable=False, **GOES_ON), Try())
    assert emulator.state.log.count("StopProcessorTaskVersion") == 0


@needs_state_store
@pytest.mark.parametrize("cleared", [False, True])
def test_the_next_try_adopts_what_goes_on(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, *, cleared: bool
) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    task = kill_while_waiting(emulator, monkeypatch, operator(deferrable=False, **GOES_ON), attempt)
    monkeypatch.setattr("time.sleep", lambda _: emulator.state.finish(task.task_id))
    assert run({"deferrable": False, **GOES_ON}, attempt.next(cleared=cleared))["task_id"] == task.task_id
    assert emulator.state.log.count("StopProcessorTaskVersion") == 0
    assert len(tasks(emulator)) == 1


def test_the_trigger_stops_nothing(emulator: EmulatorServer) -> None:
    for arguments, stops in ((GOES_ON, False), ({}, True)):
        assert deferral(Try(), **arguments).trigger.stop_on_kill is stops


@needs_state_store
def test_a_timeout_of_a_deferred_wait_stops_nothing(emulator: EmulatorServer) -> None:
    attempt, task = deferred(emulator, wait_for_capacity=False, **GOES_ON)
    resumed = operator(execution_timeout=timedelta(seconds=1), **GOES_ON)
    try:
        resumed.resume_execution("__fail__", {"error": "Trigger timeout"}, attempt.context)
    except AirflowTaskTimeout:
        resumed.on_kill()  # as Airflow does
    assert emulator.state.status(task.task_id) == 1
    with pytest.raises(TaskDeferred) as caught:
        run({"deferrable": True, "wait_for_capacity": False, **GOES_ON}, attempt.next())
    assert caught.value.trigger.processor_task_id == task.task_id
