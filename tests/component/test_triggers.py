"""The trigger of deferred waits: what Airflow stores of it, and what it does when a user kills the Airflow task."""

import asyncio
import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models.trigger import Trigger
from airflow.providers.common.compat.sdk import XCom
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts import airflow_calls, triggers
from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.service.accounts import ACCESS_KEY, PROJECT_ID, SECRET_KEY
from airflow_modelarts.triggers import ProcessorTaskTrigger
from tests.support.task_instances import collect_log
from tests.support.triggers import events, trigger
from tests.support.virtual import run


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return collect_log(monkeypatch, ProcessorTaskTrigger)


# What Airflow stores

VERSION = "def"
ARGUMENTS: dict[str, Any] = {
    "processor_task_id": "abc",
    "modelarts_conn_id": "other",
    "project_id": "p",
    "poll_interval": 7.5,
    "workspace_id": "w",
    "look_at_once": True,
    "upstream": {"task_id": "create", "key": "return_value"},
    "end_from_trigger": True,
    "push_return_value": True,
    "failed_statuses": [3],
    "task_version_id": VERSION,
    "stop_on_kill": True,
}


def stored_and_read(arguments: dict[str, Any]) -> dict[str, Any]:
    """Store arguments and read them again, as a deferral does with the metadata database."""
    row = Trigger(classpath="any", kwargs=arguments)
    try:
        from airflow.serialization.decoders import smart_decode_trigger_kwargs
    except ImportError:  # Airflow 2
        return row.kwargs
    return {name: smart_decode_trigger_kwargs(value) for name, value in row.kwargs.items()}


@pytest.mark.parametrize("arguments", [{}, {"processor_task_id": "abc"}, ARGUMENTS])
def test_the_stored_arguments_make_the_same_trigger(arguments: dict[str, Any]) -> None:
    path, stored = ProcessorTaskTrigger(**arguments).serialize()
    assert path == f"{ProcessorTaskTrigger.__module__}.{ProcessorTaskTrigger.__qualname__}"
    assert arguments.items() <= stored.items()
    assert json.loads(json.dumps(stored)) == stored
    again = ProcessorTaskTrigger(**stored_and_read(stored))
    assert again.serialize() == (path, stored)


def test_every_argument_is_stored() -> None:
    import inspect

    taken = set(inspect.signature(ProcessorTaskTrigger).parameters) - {"stored"}
    assert set(ProcessorTaskTrigger("abc").serialize()[1]) == taken == set(ARGUMENTS)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("version", "write task_version_id="),
        ("poke_interval", "write poll_interval="),
        ("failed_status", "write failed_statuses="),
        ("xyz", "it has end_from_trigger, failed_statuses"),
    ],
)
def test_an_unknown_argument_is_refused_with_the_nearest_name(name: str, way_out: str) -> None:
    with pytest.raises(TypeError, match=f"ProcessorTaskTrigger has no argument '{name}': {way_out}"):
        ProcessorTaskTrigger("abc", **{name: "def"})


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("processor_task_id", None, "processor_task_id is None: give a text"),
        ("processor_task_id", ["abc"], "give a text"),
        ("modelarts_conn_id", None, "give a text"),
        ("task_version_id", ["def"], "give a text"),
        ("workspace_id", {}, "give a text"),
        ("task_version_id", math.inf, "give a text"),
        ("processor_task_id", object(), "give a text"),
        ("stop_on_kill", "False", "give True or False"),
        ("look_at_once", None, "give True or False"),
        ("end_from_trigger", 1, "give True or False"),
        ("push_return_value", "yes", "give True or False"),
        ("upstream", "create", "upstream is 'create': give {'task_id'"),
        ("upstream", {"task_id": "create"}, "give {'task_id'"),
        ("failed_statuses", "failed", "give a list of statuses"),
        ("failed_statuses", [1], "it must contain only"),
        *(
            ("poll_interval", wrong, "give seconds as a finite number greater than 0")
            for wrong in (0, -1, math.nan, math.inf, True, "60", None)
        ),
    ],
)
def test_a_value_that_cannot_be_right_is_refused(name: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        ProcessorTaskTrigger(**{"processor_task_id": "abc", name: value})
    assert isinstance(caught.value, TypeError), "a triggerer ends at any other exception of a constructor"


def test_a_subclass_can_have_an_argument_of_its_own() -> None:
    class Own(ProcessorTaskTrigger):
        def __init__(self, team: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.team = team

        def serialize(self) -> tuple[str, dict[str, Any]]:
            return "dags.Own", {**super().serialize()[1], "team": self.team}

    stored = Own("a", processor_task_id="abc").serialize()[1]
    assert Own(**stored).serialize()[1] == stored
    with pytest.raises(TypeError, match="Own has no argument 'poke_interval': write poll_interval="):
        Own("a", poke_interval=5)


def test_the_task_version_is_read_under_its_name_of_version_1_0_0() -> None:
    older = ProcessorTaskTrigger(**stored_and_read({"processor_task_id": "abc", "version_id": "def"}))
    assert older.task_version_id == "def"
    assert "version_id" not in older.serialize()[1]
    assert ProcessorTaskTrigger("abc", task_version_id="new", version_id="old").task_version_id == "new"


def test_failed_statuses_can_be_names() -> None:
    assert trigger("abc", failed_statuses=["Failed", "4"]).serialize()[1]["failed_statuses"] == [3, 4]
    for wrong in ("failed", 3, [1], ["finished"]):
        with pytest.raises(ValueError, match="failed_statuses"):
            trigger("abc", failed_statuses=wrong)


def test_statuses_are_stored_as_plain_numbers() -> None:
    from airflow_modelarts.api.statuses import ProcessorTaskStatus

    stored = trigger("abc", failed_statuses=(ProcessorTaskStatus.FAILED, 4)).serialize()[1]["failed_statuses"]
    assert [type(status) for status in stored] == [int, int]
    assert trigger("abc", failed_statuses=()).serialize()[1]["failed_statuses"] == []


def test_no_secret_is_stored_or_shown(state: EmulatorState) -> None:
    waiting = trigger(state.add_task(status=2).task_id)
    run(events(waiting))
    for text in (str(waiting.serialize()), repr(waiting), str(vars(waiting))):
        assert SECRET_KEY not in text
        assert ACCESS_KEY not in text


@pytest.mark.parametrize(
    "stored",
    [
        # Version 1.0.0
        {
            **{"processor_task_id": "abc", "modelarts_conn_id": "modelarts_default", "project_id": None},
            **{"poll_interval": 5.0, "workspace_id": "0", "version_id": VERSION, "stop_on_kill": False},
        },
        {**ARGUMENTS, "project_id": PROJECT_ID, "modelarts_conn_id": "modelarts_default", "upstream": None},
    ],
    ids=["1.0.0", "today"],
)
def test_a_stored_trigger_waits_for_its_version(state: EmulatorState, stored: dict[str, Any]) -> None:
    task = state.add_task(template="sys_data_cleaning", status=1)
    version = task.versions[0]
    version.run.set_status(3, state.clock.now())
    ids = {"processor_task_id": task.task_id}
    names = {name: version.version_id for name, value in stored.items() if value == VERSION}
    (event,) = run(events(ProcessorTaskTrigger(**stored_and_read({**stored, **ids, **names}))))
    assert event.payload == {"task_id": task.task_id, "task_version_id": version.version_id, "status": 3}
    assert set(state.log.counts()) == {"DescribeProcessorTaskVersion"}


# A user kills the Airflow task


@pytest.mark.parametrize("stop", [True, False])
def test_on_kill_stops_versions_only_with_stop_on_kill(state: EmulatorState, stop: bool, lines: list[str]) -> None:
    task = state.add_task(template="sys_data_cleaning", status=1)
    other = state.add_task(template="sys_data_cleaning", status=1)
    run(trigger(task.task_id, stop_on_kill=stop).on_kill())
    assert state.status(task.task_id) == (4 if stop else 1)
    assert state.status(other.task_id) == 1
    assert len(lines) == (1 if stop else 0)
    assert state.log.count() == (2 if stop else 0)


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="triggers are killed since Airflow 3.3")
@pytest.mark.parametrize(
    ("airflow_state", "deferred_try", "status"),
    [("deferred", 2, 1), ("deferred", 3, 4), ("deferred", None, 4), ("failed", 2, 4), (None, 2, 4)],
)
def test_on_kill_stops_nothing_that_another_triggerer_waits_for(
    state: EmulatorState, monkeypatch: pytest.MonkeyPatch, airflow_state: str | None, deferred_try: Any, status: int
) -> None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    asked: list[dict[str, Any]] = []

    def get_task_states(**question: Any) -> dict[str, Any]:
        asked.append(question)
        return {"r": {"t_3": airflow_state}}

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", get_task_states)
    monkeypatch.setattr(XCom, "get_one", lambda **question: deferred_try)
    task = state.add_task(template="sys_data_cleaning", status=1)
    killed = trigger(task.task_id, stop_on_kill=True)
    killed.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=3, try_number=2)
    run(killed.on_kill())
    assert state.status(task.task_id) == status
    assert asked == [{"dag_id": "d", "task_ids": ["t"], "run_ids": ["r"], "map_index": 3}]


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="triggers are killed since Airflow 3.3")
@pytest.mark.parametrize("question", ["get_task_states", "get_one"])
@pytest.mark.parametrize(
    ("http_status", "is_stopped", "attempts"), [(403, True, 1), (404, True, 1), (500, False, 3), (None, False, 3)]
)
def test_on_kill_stops_the_version_after_a_4xx_and_nothing_after_a_5xx_of_airflow(
    state: EmulatorState,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    question: str,
    http_status: int | None,
    is_stopped: bool,
    attempts: int,
) -> None:
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    asked: list[str] = []

    def answer(name: str, usual: Any) -> Any:
        def ask(**_: Any) -> Any:
            if name != question:
                return usual
            asked.append(name)
            detail = None if http_status is None else {"status_code": http_status, "message": "Server returned error"}
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))

        return ask

    monkeypatch.setattr(triggers, "ASK_AIRFLOW_DELAY", 0)
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", answer("get_task_states", {"r": {"t": "deferred"}}))
    monkeypatch.setattr(XCom, "get_one", answer("get_one", 1))
    task = state.add_task(template="sys_data_cleaning", status=1)
    killed = trigger(task.task_id, stop_on_kill=True)
    killed.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1)
    run(killed.on_kill())
    assert (state.status(task.task_id) == 4) is is_stopped
    assert len(asked) == attempts
    assert any("Airflow does not tell" in line for line in lines) is not is_stopped


def test_on_kill_leaves_versions_alone_that_have_ended(state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_cleaning", status=3)
    run(trigger(task.task_id, stop_on_kill=True).on_kill())
    assert state.log.counts() == {"ListProcessorTaskVersions": 1}


def test_a_stop_continues_after_its_trigger_is_cancelled(state: EmulatorState, lines: list[str]) -> None:
    task = state.add_task(template="sys_data_cleaning", status=0)

    async def kill() -> None:
        killed = asyncio.create_task(trigger(task.task_id, stop_on_kill=True).on_kill())
        await asyncio.sleep(0.01)
        assert state.log.count("StopProcessorTaskVersion") >= 1, "it is refused as long as the version is initializing"
        killed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killed
        state.set_status(task.task_id, 1)
        await asyncio.gather(*airflow_calls._RUNNING)

    run(kill())
    assert state.status(task.task_id) == 4
    assert lines == [f"Stopped version '{task.versions[0].version_id}' of processing task '{task.task_id}'."]


def test_on_kill_logs_a_stop_whose_answer_was_lost_as_stopped(state: EmulatorState, lines: list[str]) -> None:
    task = state.add_task(template="sys_data_cleaning", status=1)
    state.faults.reset("after", operation="StopProcessorTaskVersion")
    run(trigger(task.task_id, stop_on_kill=True).on_kill())
    assert state.status(task.task_id) == 4
    assert lines == [f"Stopped version '{task.versions[0].version_id}' of processing task '{task.task_id}'."]


def test_on_kill_says_that_a_version_has_ended_meanwhile(state: EmulatorState, lines: list[str]) -> None:
    task = state.add_task(template="sys_data_cleaning", status=1)
    held = state.faults.hold(operation="StopProcessorTaskVersion")

    async def kill() -> None:
        killed = asyncio.create_task(trigger(task.task_id, stop_on_kill=True).on_kill())
        assert await asyncio.to_thread(held.wait, 30)
        state.finish(task.task_id)
        held.release()
        await killed

    run(kill())
    version = f"Version '{task.versions[0].version_id}' of processing task '{task.task_id}'"
    assert lines == [f"{version} had ended already: it is completed."]


def test_on_kill_logs_the_error_of_a_version_it_cannot_stop_or_read(state: EmulatorState, lines: list[str]) -> None:
    task = state.add_task(template="sys_data_cleaning", status=1)
    for operation in ("StopProcessorTaskVersion", "DescribeProcessorTaskVersion"):
        state.faults.refuse("ModelArts.0104", "no such thing", operation=operation)
    run(trigger(task.task_id, stop_on_kill=True).on_kill())
    assert state.status(task.task_id) == 1
    (line,) = lines
    assert "no such thing" in line


def test_on_kill_retries_the_stop_for_half_a_minute(state: EmulatorState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.5)
    task = state.add_task(template="sys_data_cleaning", status=0)

    async def kill() -> float:
        await trigger(task.task_id, stop_on_kill=True).on_kill()
        return asyncio.get_running_loop().time()

    assert 26 < run(kill()) < 30


def test_on_kill_says_why_it_cannot_stop(state: EmulatorState, lines: list[str]) -> None:
    run(trigger("gone", stop_on_kill=True).on_kill())
    assert "'gone'" in lines[0]


def test_on_kill_stops_only_the_version_that_was_waited_for(state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_cleaning", status=1)
    body = {**task.body, "name": task.name}
    later = state.create_version(task.project_id, task.task_id, body)
    later.run.set_status(1, state.clock.now())
    run(trigger(task.task_id, stop_on_kill=True, task_version_id=task.versions[0].version_id).on_kill())
    now = state.clock.now()
    assert [version.run.status(now) for version in task.versions] == [4, 1]


def test_on_kill_logs_that_a_task_without_versions_cannot_be_stopped(state: EmulatorState, lines: list[str]) -> None:
    task = state.add_task(status=1)
    run(trigger(task.task_id, stop_on_kill=True).on_kill())
    assert state.status(task.task_id) == 1
    assert "has no versions, and only versions can be stopped" in lines[0]
