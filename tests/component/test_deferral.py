"""The deferred sensor without Airflow's processes: its outcomes are those of the modes that stay on a worker."""

import json
import os
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor
from airflow_modelarts.testing.emulator.service.accounts import ACCESS_KEY, PROJECT_ID
from airflow_modelarts.triggerer_sensor import TRIGGER
from airflow_modelarts.triggers import ProcessorTaskTrigger
from tests.support.sensor_modes import MODES, Simulation, defer, outcome_of, run_sensor, sensor
from tests.support.task_instances import TaskInstance, collect_log
from tests.support.triggers import events
from tests.support.virtual import run

# All modes

OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "soft_fail": {"soft_fail": True},
    "never_fail": {"never_fail": True},
    "silent_fail": {"silent_fail": True},
    "any end": {"failed_statuses": ()},
}


def ends_with(status: int, at: float = 62.0) -> Callable[[Simulation], str]:
    def add(simulation: Simulation) -> str:
        added = simulation.state.add_task("mine", status=1)
        simulation.at(at, lambda: simulation.state.set_status(added.task_id, status, error_msg="no samples"))
        if at <= 0:
            simulation.state.set_status(added.task_id, status, error_msg="no samples")
        return added.task_id

    return add


def fails_after_an_outage(simulation: Simulation) -> str:
    task_id = ends_with(3)(simulation)

    def begin() -> None:
        outage = simulation.state.faults.answer(503, times=None)
        simulation.at(simulation.now + 40, lambda: simulation.state.faults.remove(outage))

    simulation.at(20, begin)
    return task_id


def loses_its_credentials(simulation: Simulation) -> str:
    simulation.at(40, lambda: simulation.state.accounts.remove_key(ACCESS_KEY))
    return ends_with(2)(simulation)


def is_deleted(simulation: Simulation) -> str:
    task_id = simulation.state.add_task("mine", status=1).task_id
    simulation.at(40, lambda: simulation.state.delete_task(PROJECT_ID, task_id))
    return task_id


HISTORIES: dict[str, Callable[[Simulation], str]] = {
    "completes": ends_with(2),
    "fails": ends_with(3),
    "is stopped": ends_with(4),
    "had completed": ends_with(2, at=0),
    "had failed": ends_with(3, at=0),
    "shows an unknown status": ends_with(9),
    "never ends": ends_with(2, at=1e9),
    "fails after an outage": fails_after_an_outage,
    "is unknown": lambda _: "unknown",
    "is deleted": is_deleted,
    "loses its credentials": loses_its_credentials,
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_every_mode_has_the_same_outcome(
    simulation: Simulation, history: Callable[[Simulation], str], options: dict[str, Any]
) -> None:
    def outcome_in(mode: dict[str, Any]) -> tuple[str, Any]:
        simulation.reset()
        task_id = history(simulation)
        kind, value = outcome_of(sensor(task_id, **mode, **options), simulation)
        # Ids of tasks and of requests are new each time.
        return kind, re.sub("request [0-9a-f]+", "request", str(value).replace(task_id, "its id"))

    outcomes = {name: outcome_in(mode) for name, mode in MODES.items()}
    expected = outcomes["poke"]
    if AIRFLOW_V_3_1_PLUS and expected[0] == "AirflowSensorTimeout" and options.get("never_fail"):
        # Since 3.1 Airflow's own resume_execution skips after a timeout too; its execute does not.
        assert outcomes.pop("deferrable")[0] == outcomes.pop("end_from_trigger")[0] == "AirflowSkipException"
    assert outcomes == dict.fromkeys(outcomes, expected)


def test_a_skip_has_the_reason_in_every_mode(simulation: Simulation) -> None:
    for mode in list(MODES.values())[1:]:
        task_id = simulation.state.add_task(status=1).task_id
        simulation.at(simulation.now + 20, lambda task_id=task_id: simulation.state.fail(task_id, "no samples"))
        kind, message = outcome_of(sensor(task_id, soft_fail=True, timeout=3600, **mode), simulation)
        assert (kind, message) == ("AirflowSkipException", f"Processing task '{task_id}' failed: no samples")


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_missing_connection_fails_the_sensor_and_never_skips_it(simulation: Simulation, mode: dict[str, Any]) -> None:
    waiting = sensor("abc", modelarts_conn_id="absent", soft_fail=True, **mode)
    with pytest.raises(ModelArtsConfigurationError, match="absent"):
        run_sensor(waiting, simulation)


def test_a_connection_that_is_missing_in_the_triggerer_fails_the_sensor_as_on_a_worker(simulation: Simulation) -> None:
    waiting = sensor("abc", modelarts_conn_id="absent", soft_fail=True, deferrable=True)
    (event,) = run(events(ProcessorTaskTrigger(**waiting._trigger_arguments())))
    with pytest.raises(ModelArtsConfigurationError, match="absent"):
        waiting.resume_execution("execute_complete", {"event": event.payload}, {})


# Deferring


def defer_again(
    waiting: ModelArtsProcessorTaskSensor, first: TaskDeferred, event: dict[str, Any] | None, simulation: Simulation
) -> TaskDeferred:
    """Resume a sensor with an event that does not end its wait, and return its next deferral."""
    arguments = {**(first.kwargs or {}), "event": event}
    with pytest.raises(TaskDeferred) as caught:
        waiting.resume_execution(first.method_name, arguments, {"ti": simulation.instance})
    return caught.value


def test_the_sensor_polls_once_before_it_defers(simulation: Simulation) -> None:
    waiting = sensor(simulation.state.add_task(status=2).task_id, deferrable=True)
    assert waiting.execute({"ti": None})["status"] == 2


def test_the_trigger_gets_the_arguments_of_the_wait(simulation: Simulation) -> None:
    task_id = simulation.state.add_task(status=1).task_id
    waiting = sensor(
        task_id, deferrable=True, poke_interval=7, timeout=1000, failed_statuses=[3], project_id=PROJECT_ID
    )
    deferred = defer(waiting, simulation)
    path, arguments = deferred.trigger.serialize()
    assert path == TRIGGER
    assert arguments == {
        "processor_task_id": task_id,
        "modelarts_conn_id": "modelarts_default",
        "project_id": PROJECT_ID,
        "poll_interval": 7.0,
        "workspace_id": "0",
        "look_at_once": False,
        "upstream": None,
        "end_from_trigger": False,
        "push_return_value": True,
        "failed_statuses": [3],
        "task_version_id": None,
        "stop_on_kill": False,
    }
    assert deferred.method_name == "execute_complete"
    assert deferred.timeout == timedelta(seconds=1000)
    assert deferred.kwargs == {"deadline": simulation.time() + 1000}


def test_the_sensor_defers_although_its_first_poll_fails(simulation: Simulation) -> None:
    task_id = simulation.state.add_task(status=1).task_id
    simulation.state.faults.answer(503, times=2)
    assert defer(sensor(task_id, deferrable=True), simulation).trigger.processor_task_id == task_id


def test_poke_itself_does_not_defer(simulation: Simulation) -> None:
    assert sensor(simulation.state.add_task(status=1).task_id, deferrable=True).poke({}) is False


@pytest.mark.parametrize("status", [2, 3, 4])
def test_a_successful_end_takes_no_further_request(simulation: Simulation, status: int) -> None:
    waiting = sensor("abc", deferrable=True, failed_statuses=())
    done = waiting.resume_execution("execute_complete", {"event": {"task_id": "abc", "status": status}}, {})
    assert done["status"] == status
    assert simulation.state.log.count() == 0


@pytest.mark.parametrize("event", [None, {}, {"task_id": "abc", "error": "once"}, {"status": 9}])
def test_an_event_without_a_terminal_status_defers_again_until_the_same_deadline(
    simulation: Simulation, event: dict[str, Any] | None
) -> None:
    waiting = sensor(simulation.state.add_task(status=1).task_id, deferrable=True, timeout=1000)
    first = defer(waiting, simulation)
    simulation.sleep(400)
    again = defer_again(waiting, first, event, simulation)
    assert again.timeout == timedelta(seconds=600)
    assert again.kwargs == first.kwargs


def test_the_timeout_of_a_wait_that_started_in_the_triggerer_counts_from_there(simulation: Simulation) -> None:
    waiting = sensor(simulation.state.add_task(status=1).task_id, deferrable=True, timeout=1000)
    simulation.start_try()
    simulation.sleep(400)
    with pytest.raises(TaskDeferred) as caught:
        waiting.resume_execution("execute_complete", {"event": {"error": "once"}}, {"ti": simulation.instance})
    assert caught.value.timeout == timedelta(seconds=600)


def test_a_deferral_after_the_deadline_has_no_negative_timeout(simulation: Simulation) -> None:
    waiting = sensor(simulation.state.add_task(status=1).task_id, deferrable=True, timeout=100)
    first = defer(waiting, simulation)
    simulation.sleep(400)
    again = defer_again(waiting, first, {}, simulation)
    assert again.timeout == timedelta(0)


def test_a_failure_counts_although_its_message_cannot_be_read(simulation: Simulation) -> None:
    waiting = sensor("abc", deferrable=True)
    simulation.state.faults.answer(503, times=None)
    with pytest.raises(ModelArtsProcessorTaskFailed, match="'abc' stopped: its message could not be read"):
        waiting.resume_execution("execute_complete", {"event": {"task_id": "abc", "status": 4}}, {})


@pytest.mark.parametrize(
    ("execution_timeout", "left", "error"),
    [(100, 100, AirflowTaskTimeout), (1000, 150, AirflowSensorTimeout), (None, 150, AirflowSensorTimeout)],
)
def test_the_sensor_fails_with_the_error_of_the_timeout_that_comes_first(
    simulation: Simulation, execution_timeout: int | None, left: int, error: type[Exception]
) -> None:
    limit = timedelta(seconds=execution_timeout) if execution_timeout else None
    waiting = sensor(simulation.state.add_task(status=1).task_id, deferrable=True, execution_timeout=limit)
    assert defer(waiting, simulation).timeout == timedelta(seconds=left)
    with pytest.raises(error):
        run_sensor(waiting, simulation)


def test_a_second_deferral_does_not_extend_the_execution_timeout(simulation: Simulation) -> None:
    limits: dict[str, Any] = {"timeout": 1000, "execution_timeout": timedelta(seconds=500)}
    waiting = sensor(simulation.state.add_task(status=1).task_id, deferrable=True, **limits)
    first = defer(waiting, simulation)
    simulation.sleep(400)
    again = defer_again(waiting, first, {}, simulation)
    assert again.timeout == timedelta(seconds=100)


@pytest.mark.parametrize("option", ["soft_fail", "usual"])
def test_a_failed_trigger_fails_the_sensor(option: str) -> None:
    waiting = sensor("abc", deferrable=True, **OPTIONS[option])
    with pytest.raises(AirflowSkipException if option == "soft_fail" else Exception) as caught:
        waiting.resume_execution("__fail__", {"error": "Trigger failure", "traceback": ["line 1"]}, {})
    assert not isinstance(caught.value, AirflowSensorTimeout)


@pytest.mark.parametrize("default", [True, False])
def test_the_default_of_deferrable_is_airflows_setting(monkeypatch: pytest.MonkeyPatch, default: bool) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", str(default))
    assert ModelArtsProcessorTaskSensor(task_id="wait", processor_task_id="abc").deferrable is default
    assert sensor("abc", deferrable=False).deferrable is False


def test_the_sensor_polls_again_after_an_event_that_is_no_dict(simulation: Simulation) -> None:
    """If Airflow runs a trigger inline, it passes the payload of a success, which is its state."""
    waiting = sensor(simulation.state.add_task(status=2).task_id, deferrable=True)
    for event in ("success", "TaskInstanceState.SUCCESS", ["x"], 7):
        assert waiting.resume_execution("execute_complete", {"event": event}, {"ti": None})["status"] == 2


# What the worker's log says of the wait in the triggerer


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return collect_log(monkeypatch, ModelArtsProcessorTaskSensor)


@pytest.mark.parametrize("status", [2, 4])
def test_the_worker_repeats_once_how_and_when_the_wait_ended(
    simulation: Simulation, lines: list[str], status: int
) -> None:
    task_id = simulation.state.add_task(status=1).task_id
    simulation.at(62.0, lambda: simulation.state.set_status(task_id, status))
    outcome_of(sensor(task_id, deferrable=True), simulation)
    name = {2: "completed", 4: "stopped"}[status]
    began, *ended = [line for line in lines if line.startswith(f"Processing task '{task_id}' is ")]
    assert began == f"Processing task '{task_id}' is running."
    (line,) = ended
    assert re.fullmatch(
        rf"Processing task '{task_id}' is {name}; it was waited for in the triggerer until (6[0-9]|7[0-9]) s "
        "after the start of this Airflow task.",
        line,
    )


def test_the_worker_repeats_the_error_that_ended_the_wait(simulation: Simulation, lines: list[str]) -> None:
    waiting = sensor(simulation.state.add_task(status=1).task_id, deferrable=True)
    first = defer(waiting, simulation)
    defer_again(waiting, first, {"task_id": "abc", "error": "the key was refused"}, simulation)
    assert any("when an error ended that: the key was refused" in line for line in lines)


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_wait_on_a_worker_is_not_described_twice(simulation: Simulation, lines: list[str], mode: str) -> None:
    task_id = simulation.state.add_task(status=2).task_id
    run_sensor(sensor(task_id, mode=mode), simulation)
    assert [line for line in lines if "triggerer" in line] == []
    assert lines.count(f"Processing task '{task_id}' is completed.") == 1


# The link to the console


@pytest.fixture
def set_console(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    described = json.loads(os.environ["AIRFLOW_CONN_MODELARTS_DEFAULT"])
    described["extra"]["console_url"] = "https://console.example.com/{processor_task_id}"
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", json.dumps(described))


@pytest.mark.usefixtures("set_console")
@pytest.mark.parametrize("mode", MODES)
def test_the_sensor_pushes_the_link_to_the_console_at_its_first_poll(simulation: Simulation, mode: str) -> None:
    task_id = simulation.state.add_task(status=1).task_id
    simulation.at(20.0, lambda: simulation.state.finish(task_id))
    run_sensor(sensor(task_id, **MODES[mode]), simulation)
    assert simulation.instance.xcoms == {"_link_ModelArtsConsoleLink": f"https://console.example.com/{task_id}"}


@pytest.mark.usefixtures("set_console")
def test_a_wait_that_starts_in_the_triggerer_pushes_the_link_there(simulation: Simulation) -> None:
    task_id = simulation.state.add_task(status=2).task_id
    for at_once in (True, False):
        waiting = ProcessorTaskTrigger(task_id, look_at_once=at_once)
        waiting.task_instance = TaskInstance()  # type: ignore[assignment]  # a stand-in for Airflow's
        run(events(waiting))
        assert simulation.pushed == [f"https://console.example.com/{task_id}"], "a worker pushes it otherwise"


# One version of a task


def add_version(simulation: Simulation, status: int | None, at: float) -> tuple[str, str]:
    """Return the ids of a task that has completed and of a version of it that ends."""
    added = simulation.state.add_task(template="sys_data_cleaning", duration=1e9)
    version = added.versions[0]
    if status is not None:
        simulation.at(at, lambda: version.run.set_status(status, simulation.state.clock.now()))
    return added.task_id, version.version_id


@pytest.mark.parametrize("mode", [*MODES.values(), {"start_from_trigger": True}], ids=[*MODES, "start"])
@pytest.mark.parametrize("status", [2, 3, 4, None])
def test_a_wait_for_a_version_has_the_same_outcome_in_every_mode(
    simulation: Simulation, mode: dict[str, Any], status: int | None
) -> None:
    task_id, version_id = add_version(simulation, status, 62.0)
    kind, value = outcome_of(sensor(task_id, task_version_id=version_id, **mode), simulation)
    named = f"Version '{version_id}' of processing task '{task_id}'"
    expected: dict[int | None, tuple[str, Any]] = {
        2: ("succeeded", {"task_id": task_id, "task_version_id": version_id, "status": 2, "status_name": "completed"}),
        3: ("ModelArtsProcessorTaskFailed", f"{named} failed: the service gave no error_msg"),
        4: ("ModelArtsProcessorTaskFailed", f"{named} stopped: the service gave no error_msg"),
        None: ("AirflowSensorTimeout", ""),
    }
    assert (kind, value) == expected[status]
    operations = set(simulation.state.log.counts())
    assert operations == {"DescribeProcessorTaskVersion"}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_failed_statuses_can_be_names(simulation: Simulation, mode: dict[str, Any]) -> None:
    for given, kind in (["Stopped"], "succeeded"), (["failed"], "ModelArtsProcessorTaskFailed"):
        task_id = simulation.state.add_task(status=1).task_id
        simulation.at(simulation.now + 20, lambda task_id=task_id: simulation.state.fail(task_id, "no samples"))
        waiting = sensor(task_id, failed_statuses=given, timeout=3600, **mode)
        assert outcome_of(waiting, simulation)[0] == kind


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_an_id_that_native_rendering_made_a_number_is_text(simulation: Simulation, mode: dict[str, Any]) -> None:
    _, message = outcome_of(sensor(7, **mode), simulation)  # type: ignore[arg-type]  # as native rendering makes it
    assert "processing task '7'" in message
    assert simulation.state.log.count("DescribeProcessorTask") >= 1
