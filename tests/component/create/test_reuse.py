"""``reuse_existing``: a task of the same name and request is adopted instead of refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred

from airflow_modelarts.api.errors import ModelArtsAlreadyExistsError
from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support.create import (
    INPUTS,
    VALIDATION,
    Try,
    needs_state_store,
    operator,
    queued,
    resumed,
    run,
    triggered,
)

REUSE: dict[str, Any] = {
    "reuse_existing": True,
    "random_name_suffix": False,
    "deferrable": False,
    "work_path": {"type": "OBS", "path": "obs://bucket/out/"},
}
BODY = {"template": VALIDATION, "inputs": INPUTS, "work_path": {"type": "OBS", "path": "/bucket/out"}}


def existing(emulator: EmulatorServer, name: str = "check", **fields: Any) -> Task:
    body = {**BODY, **fields.pop("body", {})}
    return emulator.state.add_task(name, template="sys_data_validation", body=body, **{"status": 2, **fields})


def test_the_first_run_creates_and_the_second_reuses(emulator: EmulatorServer) -> None:
    first = run(REUSE, Try())
    assert first["name"] == "check"
    assert run(REUSE, Try())["task_id"] == first["task_id"]
    assert emulator.state.log.count("CreateProcessorTask") == 1


def test_a_running_task_is_waited_for(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    task = existing(emulator, status=1)
    monkeypatch.setattr("time.sleep", lambda _: emulator.state.finish(task.task_id))
    published = run(REUSE, Try())
    assert (published["task_id"], published["status_name"]) == (task.task_id, "completed")


@pytest.mark.parametrize("status", [3, 4])
def test_a_task_that_failed_or_was_stopped_is_not_reused_and_the_next_name_is(
    emulator: EmulatorServer, status: int
) -> None:
    existing(emulator, status=status)
    first = run(REUSE, Try())
    assert first["name"] == "check-2"
    assert run(REUSE, Try())["task_id"] == first["task_id"]


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("template", {"id": "sys_data_cleaning"}, "template is .*sys_data_validation.* there, and .*sys_data_cleaning"),
        (
            "template",
            {"id": "sys_data_validation", "operator_params": [{"name": "MetaValidation", "params": {"size": 9}}]},
            "template is",
        ),
        ("inputs", [{"type": "DATASET", "source": "other"}], "inputs is .*PYc9H2HGv5BJNwBGXyK.* there, and .*other"),
        ("inputs", [*INPUTS, {"type": "DATASET", "source": "other"}], "inputs is"),
        ("work_path", {"type": "OBS", "path": "obs://bucket/out-2/"}, "work_path is .*/bucket/out.* there"),
        ("version_id", "v2", 'version_id is null there, and "v2" in this request'),
    ],
)
def test_another_request_is_an_error_that_shows_the_difference(
    emulator: EmulatorServer, field: str, value: Any, shown: str
) -> None:
    task = existing(emulator)
    with pytest.raises(ModelArtsAlreadyExistsError, match=shown) as caught:
        run({**REUSE, field: value}, Try())
    assert f"'check' exists already, of another request: '{task.task_id}'" in str(caught.value)
    assert emulator.state.log.count("CreateProcessorTask") == 0


UNLISTED = '{"count": 0, "tasks": []}'


def test_a_task_that_another_run_creates_at_the_same_time_is_reused(emulator: EmulatorServer) -> None:
    task = existing(emulator)
    emulator.faults.answer(200, UNLISTED, operation="ListProcessorTasks")
    assert run(REUSE, Try())["task_id"] == task.task_id


@pytest.mark.parametrize(("reuse_existing", "complaint"), [(True, r"inputs is .*other"), (False, "exists already")])
def test_a_deferred_submission_does_not_adopt_the_task_of_another_request(
    emulator: EmulatorServer, *, reuse_existing: bool, complaint: str
) -> None:
    existing(emulator, body={"inputs": [{"type": "DATASET", "source": "other"}]})
    emulator.faults.answer(200, UNLISTED, operation="ListProcessorTasks")
    attempt, arguments = Try(), {**REUSE, "reuse_existing": reuse_existing}
    deferral = queued(attempt, **arguments)
    event = triggered(deferral)
    with pytest.raises(ModelArtsAlreadyExistsError, match=complaint):
        resumed(attempt, deferral, event, **arguments)
    assert "processor_task_id" not in attempt.xcoms
    assert attempt.next().context.get("task_state_store", {}) == {}


def test_a_task_that_another_run_creates_while_the_submission_is_queued_is_reused(emulator: EmulatorServer) -> None:
    attempt = Try()
    deferral = queued(attempt, **REUSE)
    task = existing(emulator)
    with pytest.raises(TaskDeferred) as waiting:
        resumed(attempt, deferral, triggered(deferral), **REUSE)
    assert waiting.value.trigger.processor_task_id == attempt.xcoms["processor_task_id"] == task.task_id
    assert attempt.xcoms["modelarts_reused"] is True


IN_ANOTHER_WORKSPACE = "No task of this name is in the workspace of this request"


def test_a_name_that_is_taken_in_another_workspace_is_refused(emulator: EmulatorServer) -> None:
    existing(emulator, body={"workspace_id": "other"})
    attempt = Try()
    with pytest.raises(ModelArtsAlreadyExistsError, match=IN_ANOTHER_WORKSPACE):
        run(REUSE, attempt)
    assert attempt.store == {}


def test_a_deferred_submission_ends_if_its_name_is_taken_in_another_workspace(emulator: EmulatorServer) -> None:
    existing(emulator, body={"workspace_id": "other"})
    attempt = Try()
    deferral = queued(attempt, **REUSE)
    event = triggered(deferral)
    with pytest.raises(ModelArtsAlreadyExistsError, match=IN_ANOTHER_WORKSPACE):
        resumed(attempt, deferral, event, **REUSE)
    assert attempt.store == {}


def test_the_random_suffix_is_refused_when_the_dag_is_parsed() -> None:
    for make in (operator, ModelArtsCreateProcessorTaskOperator.partial):
        with pytest.raises(ValueError, match="reuse_existing is True and random_name_suffix is True"):
            make(**({} if make is operator else {"task_id": "run"}), reuse_existing=True)


@needs_state_store
def test_a_kill_does_not_stop_what_existed_before(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    task = existing(emulator, status=1)
    attempt = Try()
    for arguments, number in (({}, 1), ({}, 2)):  # the second try reads from the store that the first one reused it
        waiting = operator(**{**REUSE, **arguments})

        def kill(_: float, waiting: Any = waiting) -> None:
            waiting.on_kill()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("time.sleep", kill)
            with pytest.raises(KeyboardInterrupt):
                waiting.execute(attempt.context)
        assert emulator.state.status(task.task_id) == 1, number
        attempt = attempt.next(cleared=True)


@pytest.mark.parametrize("durable", [True, False])
def test_a_deferred_wait_for_what_existed_before_is_never_stopped(emulator: EmulatorServer, *, durable: bool) -> None:
    task = existing(emulator, status=1)
    attempt, arguments = Try(), {**REUSE, "deferrable": True, "durable": durable}
    with pytest.raises(TaskDeferred) as caught:
        run(arguments, attempt)
    assert caught.value.trigger.stop_on_kill is False
    resumed = operator(**arguments, execution_timeout=timedelta(seconds=1))
    try:
        resumed.resume_execution("__fail__", {"error": "Trigger/execution timeout"}, attempt.context)
    except AirflowTaskTimeout:
        resumed.on_kill()  # as Airflow does
    assert emulator.state.status(task.task_id) == 1
