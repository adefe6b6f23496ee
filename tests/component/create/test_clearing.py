"""Create operators against the emulator: a user clears the Airflow task."""

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support.create import Try, deferral, deferred, needs_state_store, operator, run, tasks, version_operator


@needs_state_store
def test_clearing_after_a_success_creates_a_new_task(emulator: EmulatorServer) -> None:
    attempt = Try()
    run({}, attempt)
    run({}, attempt.next(cleared=True))
    assert len(tasks(emulator)) == 2


@needs_state_store
def test_a_completed_task_is_adopted_after_clearing(emulator: EmulatorServer) -> None:
    attempt, task = deferred(emulator)
    emulator.state.finish(task.task_id)
    assert run({}, attempt.next(cleared=True))["task_id"] == task.task_id


@needs_state_store
@pytest.mark.parametrize("id_is_known", [True, False])
def test_a_running_task_is_stopped_after_clearing_and_a_new_one_is_created(
    emulator: EmulatorServer, pauses: list[float], *, id_is_known: bool
) -> None:
    attempt, first = deferred(emulator)
    if not id_is_known:
        attempt.store.delete("modelarts_processor_task_id")
    assert run({}, attempt.next(cleared=True))["task_id"] != first.task_id
    assert sorted(emulator.state.status(task.task_id) for task in tasks(emulator)) == [2, 4]
    assert emulator.state.status(first.task_id) == 4


@needs_state_store
@pytest.mark.parametrize("id_is_known", [True, False])
def test_after_clearing_the_worker_first_lets_the_triggerer_stop_the_version(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, *, id_is_known: bool
) -> None:
    attempt, first = deferred(emulator)
    if not id_is_known:
        attempt.store.delete("modelarts_processor_task_id")
    monkeypatch.setattr("time.sleep", lambda _: emulator.state.stop(first.task_id))
    assert run({}, attempt.next(cleared=True))["task_id"] != first.task_id
    assert emulator.state.log.count("StopProcessorTaskVersion") == 0


@needs_state_store
@pytest.mark.parametrize("status", [2, 3, 4])
def test_an_event_of_a_cleared_try_does_not_end_the_wait_of_the_next_try(
    emulator: EmulatorServer, pauses: list[float], status: int
) -> None:
    attempt, first = deferred(emulator)
    emulator.state.next_task(duration=1000)
    cleared = attempt.next(cleared=True)
    deferral(cleared)
    with pytest.raises(TaskDeferred) as caught:
        operator(deferrable=True).execute_complete(cleared.context, {"task_id": first.task_id, "status": status})
    second = next(task for task in tasks(emulator) if task is not first)
    assert caught.value.trigger.processor_task_id == second.task_id  # type: ignore[attr-defined]


@needs_state_store
@pytest.mark.parametrize("id_is_known", [True, False])
def test_only_the_version_of_a_cleared_try_is_stopped(
    emulator: EmulatorServer, original: Task, pauses: list[float], *, id_is_known: bool
) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    with pytest.raises(TaskDeferred):
        version_operator(original, deferrable=True, wait_for_capacity=False).execute(attempt.context)
    emulator.state.set_status(original.task_id, 1)
    if not id_is_known:
        attempt.store.delete("modelarts_task_version_id")
    version_operator(original).execute(attempt.next(cleared=True).context)
    now = emulator.state.clock.now()
    assert [version.run.status(now) for version in original.versions] == [2, 4, 2]


@needs_state_store
def test_a_running_feature_analysis_is_adopted_after_clearing(emulator: EmulatorServer, pauses: list[float]) -> None:
    analysis = {"template": {"id": "sys_data_analyse"}}
    attempt, task = deferred(emulator, **analysis)
    trigger: Any = deferral(attempt.next(cleared=True), **analysis).trigger
    assert trigger.processor_task_id == task.task_id
    assert len(tasks(emulator)) == 1


@needs_state_store
@pytest.mark.parametrize("cleared", [False, True])
def test_a_stopped_task_is_not_adopted(emulator: EmulatorServer, *, cleared: bool) -> None:
    attempt, task = deferred(emulator)
    emulator.state.stop(task.task_id)
    assert run({"failed_statuses": (3,)}, attempt.next(cleared=cleared))["status_name"] == "completed"
    assert len(tasks(emulator)) == 2


@needs_state_store
def test_a_task_stopped_in_the_wait_is_not_adopted(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt, first = deferred(emulator)
    monkeypatch.setattr("time.sleep", lambda _: emulator.state.stop(first.task_id))
    assert run({"failed_statuses": (3,)}, attempt.next(cleared=True))["task_id"] != first.task_id
