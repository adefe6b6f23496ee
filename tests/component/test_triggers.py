"""The trigger against the emulator, on an event loop whose clock jumps."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models.trigger import Trigger
from airflow.providers.common.compat.sdk import BaseHook, XCom
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_modelarts import triggers
from airflow_modelarts.polling import watcher
from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from airflow_modelarts.testing.emulator.service.accounts import ACCESS_KEY, PROJECT_ID, SECRET_KEY, KeyPair
from airflow_modelarts.triggers import ProcessorTaskTrigger
from tests.support.virtual import run


@pytest.fixture(scope="module")
def running() -> Iterator[EmulatorServer]:
    with EmulatorServer() as server:
        yield server


@pytest.fixture
def connect(running: EmulatorServer, set_connection: Callable[..., None]) -> Callable[..., None]:
    """Set the connection to the emulator."""

    def connect_with(login: str = ACCESS_KEY, password: str = SECRET_KEY) -> None:
        set_connection(host=running.url, login=login, password=password, extra={"project_id": PROJECT_ID})

    return connect_with


@pytest.fixture
def state(running: EmulatorServer, connect: Callable[..., None]) -> EmulatorState:
    running.state.reset()
    connect()
    return running.state


@pytest.fixture(autouse=True)
def nobody_is_left_watching() -> Iterator[None]:
    yield
    assert watcher._WATCHERS == {}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what triggers log."""
    logged: list[str] = []

    class Log:
        def info(self, text: str, *values: Any) -> None:
            logged.append(text % values)

        warning = info

    monkeypatch.setattr(ProcessorTaskTrigger, "log", Log())
    return logged


def trigger(processor_task_id: str = "", **how: Any) -> ProcessorTaskTrigger:
    return ProcessorTaskTrigger(processor_task_id, **{"poll_interval": 5, **how})


async def events(waiting: ProcessorTaskTrigger) -> list[TriggerEvent]:
    return [event async for event in waiting.run()]


# What is stored of it

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
    "task_version_id": "def",
    "stop_on_kill": True,
}


def stored_and_read(arguments: dict[str, Any]) -> dict[str, Any]:
    """Send arguments the way of a deferral: over the metadata database, to a triggerer."""
    row = Trigger(classpath="any", kwargs=arguments)
    try:
        from airflow.serialization.decoders import smart_decode_trigger_kwargs
    except ImportError:  # Airflow 2
        return row.kwargs
    return {name: smart_decode_trigger_kwargs(value) for name, value in row.kwargs.items()}


@pytest.mark.parametrize("arguments", [{}, {"processor_task_id": "abc"}, ARGUMENTS])
def test_what_is_stored_makes_the_same_trigger_again(arguments: dict[str, Any]) -> None:
    path, stored = ProcessorTaskTrigger(**arguments).serialize()
    assert path == f"{ProcessorTaskTrigger.__module__}.{ProcessorTaskTrigger.__qualname__}"
    assert arguments.items() <= stored.items()
    assert json.loads(json.dumps(stored)) == stored
    again = ProcessorTaskTrigger(**stored_and_read(stored))
    assert again.serialize() == (path, stored)


def test_all_of_it_is_stored() -> None:
    import inspect

    taken = set(inspect.signature(ProcessorTaskTrigger).parameters) - {"_ignored"}
    assert set(ProcessorTaskTrigger("abc").serialize()[1]) == taken == set(ARGUMENTS)


def test_what_another_version_stored_does_not_keep_it_from_being_built() -> None:
    older = ProcessorTaskTrigger(**stored_and_read({"processor_task_id": "abc", "gone": {"since": [1, 2]}}))
    assert older.processor_task_id == "abc"
    assert "gone" not in older.serialize()[1]


def test_the_version_that_an_earlier_version_of_this_package_stored_is_read() -> None:
    older = ProcessorTaskTrigger(**stored_and_read({"processor_task_id": "abc", "version_id": "def"}))
    assert older.task_version_id == "def"
    assert "version_id" not in older.serialize()[1]
    assert ProcessorTaskTrigger("abc", task_version_id="new", version_id="old").task_version_id == "new"


def test_statuses_can_be_names(state: EmulatorState) -> None:
    assert trigger("abc", failed_statuses=["Failed", "4"]).serialize()[1]["failed_statuses"] == [3, 4]
    for wrong in ("failed", 3, [1], ["finished"]):
        with pytest.raises(ValueError, match="failed_statuses"):
            trigger("abc", failed_statuses=wrong)


def test_whoever_takes_its_event_alone_leaves_nothing_open(state: EmulatorState, lines: list[str]) -> None:
    """As ``dag.test()`` does, which never comes back to a trigger that has fired."""
    complaints: list[str] = []

    async def first_event(task_id: str) -> TriggerEvent | None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        return await anext(trigger(task_id, look_at_once=True).run(), None)

    for task_id in (state.add_task(status=2).task_id, "unknown"):
        event = asyncio.run(first_event(task_id))
        assert event is not None
        assert watcher._WATCHERS == {}
    assert complaints == []


@pytest.mark.parametrize("push", [True, False])
def test_without_a_task_instance_a_worker_concludes(state: EmulatorState, lines: list[str], push: bool) -> None:
    task_id = state.add_task(status=2).task_id
    (event,) = run(events(trigger(task_id, end_from_trigger=True, push_return_value=push)))
    assert type(event) is TriggerEvent
    assert event.payload == {"task_id": task_id, "status": 2}
    assert lines == [f"Processing task '{task_id}' is completed."]


def test_an_id_of_digits_that_was_rendered_natively_is_text_in_the_triggerer(state: EmulatorState) -> None:
    (event,) = run(events(trigger(7, look_at_once=True)))  # type: ignore[arg-type]  # as native rendering makes it
    assert event.payload["task_id"] == "7"
    assert state.log.count() > 0


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


# How it ends


@pytest.mark.parametrize("status", [2, 3, 4])
def test_its_event_has_the_id_and_the_status_and_no_result(state: EmulatorState, status: int) -> None:
    task = state.add_task(status=status, result={"big": "thing"}, error_msg="broken")
    assert [event.payload for event in run(events(trigger(task.task_id)))] == [
        {"task_id": task.task_id, "status": status}
    ]
    assert not isinstance(run(events(trigger(task.task_id)))[0], TaskSuccessEvent)


class TaskInstance:
    """As much of a task instance as a trigger looks at."""

    dag_id, run_id, task_id, map_index = "dag", "run", "wait", -1


def may_succeed(processor_task_id: str, failed_statuses: tuple[int, ...]) -> ProcessorTaskTrigger:
    waiting = trigger(processor_task_id, end_from_trigger=True, failed_statuses=failed_statuses)
    waiting.task_instance = TaskInstance()
    return waiting


@pytest.mark.parametrize("status", [2, 3, 4])
@pytest.mark.parametrize("failed_statuses", [(), (3,), (3, 4)])
def test_it_succeeds_in_the_triggerer_only_when_it_may_and_when_the_end_is_good(
    state: EmulatorState, monkeypatch: pytest.MonkeyPatch, status: int, failed_statuses: tuple[int, ...]
) -> None:
    from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

    xcoms: list[dict[str, Any]] = []
    monkeypatch.setattr(XCom, "set", lambda **xcom: xcoms.append(xcom))
    task = state.add_task(status=status)
    (event,) = run(events(may_succeed(task.task_id, failed_statuses)))
    if status in failed_statuses:
        assert type(event) is TriggerEvent
        assert event.payload == {"task_id": task.task_id, "status": status}
        assert xcoms == []
        return
    assert isinstance(event, TaskSuccessEvent)
    sensor = ModelArtsProcessorTaskSensor(
        task_id="wait", processor_task_id=task.task_id, failed_statuses=failed_statuses, deferrable=False
    )
    where = {"dag_id": "dag", "run_id": "run", "task_id": "wait", "map_index": -1}
    assert xcoms == [{"key": "return_value", "value": sensor.execute({}), **where}]


def test_an_xcom_that_cannot_be_pushed_in_the_triggerer_is_left_to_a_worker(
    state: EmulatorState, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    def out_of_order(**_: Any) -> None:
        raise OSError("the bucket is gone")

    monkeypatch.setattr(XCom, "set", out_of_order)
    task = state.add_task(status=2)
    (event,) = run(events(may_succeed(task.task_id, (3, 4))))
    assert type(event) is TriggerEvent
    assert event.payload == {"task_id": task.task_id, "status": 2}
    assert lines[-1].endswith("so a worker will: the bucket is gone")


def test_a_task_that_nobody_knows_ends_it_with_an_error(state: EmulatorState, lines: list[str]) -> None:
    (event,) = run(events(trigger("unknown")))
    assert event.payload["task_id"] == "unknown"
    assert "Check the id" in event.payload["error"]
    assert lines == [event.payload["error"]]


def test_refused_credentials_end_it_with_an_error(state: EmulatorState, connect: Callable[..., None]) -> None:
    connect(login="WRONGKEY")
    (event,) = run(events(trigger(state.add_task().task_id)))
    assert "Check the credentials" in event.payload["error"]
    assert state.log.count() <= 3


def test_a_connection_that_lacks_a_field_ends_it_with_an_error(
    state: EmulatorState, set_connection: Callable[..., None]
) -> None:
    set_connection(extra={"project_id": None})
    (event,) = run(events(trigger("abc")))
    assert "project_id is missing" in event.payload["error"]


def test_a_connection_that_does_not_exist_ends_it_with_an_error(state: EmulatorState) -> None:
    (event,) = run(events(trigger("abc", modelarts_conn_id="absent")))
    assert "absent" in event.payload["error"]


def test_the_project_can_be_another_than_the_connections(state: EmulatorState) -> None:
    from airflow_modelarts.testing.emulator.service.accounts import OTHER_PROJECT_ID

    task = state.add_task(project_id=OTHER_PROJECT_ID, status=2)
    (event,) = run(events(trigger(task.task_id, project_id=OTHER_PROJECT_ID)))
    assert event.payload["status"] == 2


# The wait


def test_an_hour_without_a_change_logs_less_than_five_lines(state: EmulatorState, lines: list[str]) -> None:
    task = state.add_task(status=1)

    async def an_hour() -> list[TriggerEvent]:
        waiting = asyncio.create_task(events(trigger(task.task_id, poll_interval=60)))
        await asyncio.sleep(1800)
        outage = state.faults.answer(503, times=None)
        await asyncio.sleep(300)
        state.faults.remove(outage)
        await asyncio.sleep(1500)
        state.finish(task.task_id)
        return await waiting

    assert run(an_hour())[0].payload["status"] == 2
    assert 55 <= state.log.count() <= 65
    assert [line.split(" failed: ")[0] for line in lines] == [
        f"Processing task '{task.task_id}' is running.",
        f"DescribeProcessorTask of processing task '{task.task_id}'",
        "ModelArts answers again.",
        f"Processing task '{task.task_id}' is completed.",
    ]
    assert lines[1].endswith("The wait goes on.")


def test_fifty_waits_share_one_poll_and_a_key_rotated_meanwhile_fails_none(
    state: EmulatorState, connect: Callable[..., None], lines: list[str]
) -> None:
    tasks = state.add_tasks(50, status=1)

    async def rotate() -> list[list[TriggerEvent]]:
        waits = [asyncio.create_task(events(trigger(task.task_id, poll_interval=30))) for task in tasks]
        await asyncio.sleep(100)
        state.accounts.add_key(KeyPair(ACCESS_KEY + "2", "another"))
        connect(login=ACCESS_KEY + "2", password="another")
        state.accounts.remove_key(ACCESS_KEY)
        await asyncio.sleep(100)
        for task in tasks:
            state.finish(task.task_id)
        return await asyncio.gather(*waits)

    assert [event.payload["status"] for (event,) in run(rotate())] == [2] * 50
    assert state.log.count() < 50 + 40, "one question for each end, and the lists"
    assert len(lines) == 100, "no outage, and nothing but the changes"


def test_its_sockets_are_closed_in_the_end(state: EmulatorState) -> None:
    import gc

    tasks = state.add_tasks(20, status=2)

    async def all_of_them() -> None:
        await asyncio.gather(*(events(trigger(task.task_id)) for task in tasks))

    run(all_of_them())
    gc.collect()  # a session or a socket left open would warn, and warnings are errors


def test_a_cancelled_trigger_stops_nothing_and_leaves_nothing_open(state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_cleaning", status=1)

    async def cancel() -> None:
        waiting = asyncio.create_task(events(trigger(task.task_id, stop_on_kill=True)))
        await asyncio.sleep(60)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(cancel())
    assert state.status(task.task_id) == 1
    assert state.log.count("StopProcessorTaskVersion") == 0


def test_the_connection_is_never_read_on_the_event_loop(state: EmulatorState, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[threading.Thread] = []
    read = BaseHook.get_connection

    def get_connection(cls: type[BaseHook], conn_id: str) -> Any:
        readers.append(threading.current_thread())
        return read(conn_id)

    monkeypatch.setattr(BaseHook, "get_connection", classmethod(get_connection))
    run(events(trigger(state.add_task(status=2).task_id)))
    assert threading.current_thread() not in readers


# The id of an upstream task


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str, int], Any]:
    """XComs by task, key and map index; they are read in another thread than the event loop's."""
    xcoms: dict[tuple[str, str, int], Any] = {}
    loop_thread = threading.current_thread()

    def get_one(*, key: str, task_id: str, dag_id: str, run_id: str, map_index: int) -> Any:
        assert threading.current_thread() is not loop_thread
        assert (dag_id, run_id) == ("dag", "run")
        return xcoms.get((task_id, key, map_index))

    monkeypatch.setattr(XCom, "get_one", get_one)
    return xcoms


def of_upstream(map_index: int = -1) -> ProcessorTaskTrigger:
    waiting = trigger(upstream={"task_id": "create", "key": "return_value"}, look_at_once=True)
    instance = TaskInstance()
    instance.map_index = map_index
    waiting.task_instance = instance
    return waiting


@pytest.mark.parametrize(("map_index", "pushed_at"), [(-1, -1), (3, 3), (3, -1)])
def test_an_upstream_task_can_tell_the_id(
    state: EmulatorState, pushed: dict[tuple[str, str, int], Any], map_index: int, pushed_at: int
) -> None:
    task = state.add_task(status=2)
    pushed["create", "return_value", pushed_at] = task.task_id
    (event,) = run(events(of_upstream(map_index)))
    assert event.payload == {"task_id": task.task_id, "status": 2}


def test_an_upstream_task_of_the_same_mapped_group_goes_before_one_outside(
    state: EmulatorState, pushed: dict[tuple[str, str, int], Any]
) -> None:
    task = state.add_task(status=2)
    pushed["create", "return_value", 1] = task.task_id
    pushed["create", "return_value", -1] = "unknown"
    assert run(events(of_upstream(1)))[0].payload["task_id"] == task.task_id


@pytest.mark.parametrize("value", [None, "", 7.5, True, ["a", "b"], {"task_id": "abc"}])
def test_an_upstream_task_that_pushed_no_id_ends_it_with_an_error(
    state: EmulatorState, pushed: dict[tuple[str, str, int], Any], value: Any
) -> None:
    pushed["create", "return_value", -1] = value
    (event,) = run(events(of_upstream()))
    assert "check what that pushed" in event.payload["error"]
    assert json.dumps(event.payload)
    assert state.log.count() == 0


# A user kills the Airflow task


@pytest.mark.parametrize("stop", [True, False])
def test_on_kill_stops_the_running_versions_only_if_they_are_its_own(
    state: EmulatorState, stop: bool, lines: list[str]
) -> None:
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
    state: EmulatorState,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    airflow_state: str | None,
    deferred_try: int | None,
    status: int,
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
def test_on_kill_stops_the_version_if_airflow_cannot_be_asked(
    state: EmulatorState, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    def get_task_states(**_: Any) -> None:
        raise RuntimeError("the supervisor does not answer")

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", get_task_states)
    task = state.add_task(template="sys_data_cleaning", status=1)
    killed = trigger(task.task_id, stop_on_kill=True)
    killed.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1)
    run(killed.on_kill())
    assert state.status(task.task_id) == 4
    assert "the supervisor does not answer" in lines[0]


def test_on_kill_leaves_versions_alone_that_have_ended(state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_cleaning", status=3)
    run(trigger(task.task_id, stop_on_kill=True).on_kill())
    assert state.log.counts() == {"ListProcessorTaskVersions": 1}


def test_on_kill_goes_on_while_airflow_cancels_the_trigger_again_and_again(
    state: EmulatorState, lines: list[str]
) -> None:
    task = state.add_task(template="sys_data_cleaning", status=0)

    async def kill() -> None:
        killed = asyncio.create_task(trigger(task.task_id, stop_on_kill=True).on_kill())
        await asyncio.sleep(0.01)
        assert state.log.count("StopProcessorTaskVersion") >= 1, "it is refused as long as the version is initializing"
        killed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killed
        state.set_status(task.task_id, 1)
        await asyncio.gather(*triggers._STOPPING)

    run(kill())
    assert state.status(task.task_id) == 4
    assert lines == [f"Stopped version '{task.versions[0].version_id}' of processing task '{task.task_id}'."]


def test_on_kill_takes_a_stop_whose_answer_was_lost_for_what_it_was(state: EmulatorState, lines: list[str]) -> None:
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


def test_on_kill_warns_of_a_version_of_which_nobody_knows(state: EmulatorState, lines: list[str]) -> None:
    task = state.add_task(template="sys_data_cleaning", status=1)
    for operation in ("StopProcessorTaskVersion", "DescribeProcessorTaskVersion"):
        state.faults.refuse("ModelArts.0104", "no such thing", operation=operation)
    run(trigger(task.task_id, stop_on_kill=True).on_kill())
    assert state.status(task.task_id) == 1
    (line,) = lines
    assert "no such thing" in line


def test_on_kill_asks_for_as_long_as_airflow_grants(state: EmulatorState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.5)
    task = state.add_task(template="sys_data_cleaning", status=0)

    async def kill() -> float:
        await trigger(task.task_id, stop_on_kill=True).on_kill()
        return asyncio.get_running_loop().time()

    assert 26 < run(kill()) < 30


def test_on_kill_says_why_it_cannot_stop(state: EmulatorState, lines: list[str]) -> None:
    run(trigger("gone", stop_on_kill=True).on_kill())
    assert "'gone'" in lines[0]


def test_on_kill_stops_one_version_where_the_wait_is_for_one(state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_cleaning", status=1)
    body = {**task.body, "name": task.name}
    later = state.create_version(task.project_id, task.task_id, body)
    later.run.set_status(1, state.clock.now())
    run(trigger(task.task_id, stop_on_kill=True, task_version_id=task.versions[0].version_id).on_kill())
    now = state.clock.now()
    assert [version.run.status(now) for version in task.versions] == [4, 1]


def test_on_kill_says_that_what_has_no_versions_goes_on(state: EmulatorState, lines: list[str]) -> None:
    task = state.add_task(status=1)
    run(trigger(task.task_id, stop_on_kill=True).on_kill())
    assert state.status(task.task_id) == 1
    assert "has no versions, and only versions can be stopped" in lines[0]


def test_a_version_is_waited_for_whatever_the_task_does(state: EmulatorState, lines: list[str]) -> None:
    task = state.add_task(template="sys_data_cleaning", status=2)
    first = task.versions[0].version_id
    state.create_version(task.project_id, task.task_id, {**task.body, "name": task.name})
    (event,) = run(events(trigger(task.task_id, task_version_id=first)))
    assert event.payload == {"task_id": task.task_id, "task_version_id": first, "status": 2}
    assert state.log.counts() == {"DescribeProcessorTaskVersion": 1}
    assert lines == [f"Version '{first}' of processing task '{task.task_id}' is completed."]


# Throttling


def test_tasks_that_end_together_behind_a_gateway_that_throttles_all_end_their_waits_without_an_outage(
    state: EmulatorState, lines: list[str]
) -> None:
    """In real time, since the emulator counts its calls by that."""
    state.faults.limit_rate(rate=20, burst=5)
    tasks = [state.add_task(status=2) for _ in range(24)]

    async def all_of_them() -> list[list[TriggerEvent]]:
        waits = (events(trigger(task.task_id, poll_interval=0.2)) for task in tasks)
        return await asyncio.wait_for(asyncio.gather(*waits), 60)

    ended = [event.payload["task_id"] for (event,) in asyncio.run(all_of_them())]
    assert ended == [task.task_id for task in tasks]
    assert [line for line in lines if "The wait goes on" in line] == []
    assert state.log.count() <= 2 * 24
