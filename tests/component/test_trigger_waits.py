"""The trigger of deferred waits against the emulator, on a virtual clock: its event, its log and its requests."""

import asyncio
import gc
import json
import math
import sys
import threading
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook, XCom
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_modelarts.connection import reading
from airflow_modelarts.polling import watcher
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor
from airflow_modelarts.submission_trigger import ProcessorTaskSubmissionTrigger
from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from airflow_modelarts.testing.emulator.control import faults
from airflow_modelarts.testing.emulator.service.accounts import (
    ACCESS_KEY,
    OTHER_PROJECT_ID,
    PROJECT_ID,
    SECRET_KEY,
    KeyPair,
)
from airflow_modelarts.triggers import ProcessorTaskTrigger
from tests.benchmarks.answers import VALIDATION
from tests.support.task_instances import TaskInstance, collect_log
from tests.support.triggers import events, trigger
from tests.support.virtual import run


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return collect_log(monkeypatch, ProcessorTaskTrigger)


def connect(emulator: EmulatorServer, set_connection: Callable[..., None], **fields: str) -> None:
    """Set the connection to the emulator, with another login or password."""
    key = {"login": ACCESS_KEY, "password": SECRET_KEY, **fields}
    set_connection(host=emulator.url, **key, extra={"project_id": PROJECT_ID})


# The event


@pytest.mark.parametrize("status", [2, 3, 4])
def test_the_event_has_the_id_and_the_status_but_no_result(state: EmulatorState, status: int) -> None:
    task = state.add_task(status=status, result={"big": "thing"}, error_msg="broken")
    assert [event.payload for event in run(events(trigger(task.task_id)))] == [
        {"task_id": task.task_id, "status": status}
    ]
    assert not isinstance(run(events(trigger(task.task_id)))[0], TaskSuccessEvent)


def ending_in_the_triggerer(processor_task_id: str, failed_statuses: tuple[int, ...]) -> ProcessorTaskTrigger:
    waiting = trigger(processor_task_id, end_from_trigger=True, failed_statuses=failed_statuses)
    waiting.task_instance = TaskInstance(task_id="wait")
    return waiting


@pytest.mark.parametrize("status", [2, 3, 4])
@pytest.mark.parametrize("failed_statuses", [(), (3,), (3, 4)])
def test_the_task_succeeds_in_the_triggerer_only_at_a_status_that_is_no_failure(
    state: EmulatorState, monkeypatch: pytest.MonkeyPatch, status: int, failed_statuses: tuple[int, ...]
) -> None:
    xcoms: list[dict[str, Any]] = []
    monkeypatch.setattr(XCom, "set", lambda **xcom: xcoms.append(xcom))
    task = state.add_task(status=status)
    (event,) = run(events(ending_in_the_triggerer(task.task_id, failed_statuses)))
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


def test_a_worker_pushes_the_xcom_if_the_triggerer_cannot(
    state: EmulatorState, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    def fail(**_: Any) -> None:
        raise OSError("the bucket is gone")

    monkeypatch.setattr(XCom, "set", fail)
    task = state.add_task(status=2)
    (event,) = run(events(ending_in_the_triggerer(task.task_id, (3, 4))))
    assert type(event) is TriggerEvent
    assert event.payload == {"task_id": task.task_id, "status": 2}
    assert lines[-1].endswith("so a worker will: the bucket is gone")


def test_an_unknown_task_ends_the_wait_with_an_error(state: EmulatorState, lines: list[str]) -> None:
    (event,) = run(events(trigger("unknown")))
    assert event.payload["task_id"] == "unknown"
    assert "Check the id" in event.payload["error"]
    assert lines == [event.payload["error"]]


def test_refused_credentials_end_the_wait_with_an_error(
    state: EmulatorState, emulator: EmulatorServer, set_connection: Callable[..., None]
) -> None:
    connect(emulator, set_connection, login="WRONGKEY")
    (event,) = run(events(trigger(state.add_task().task_id)))
    assert "Check the credentials" in event.payload["error"]
    assert state.log.count() <= 3


def test_an_incomplete_or_missing_connection_ends_the_wait(
    state: EmulatorState, set_connection: Callable[..., None]
) -> None:
    set_connection(extra={"project_id": None})
    (incomplete,) = run(events(trigger("abc")))
    (missing,) = run(events(trigger("abc", modelarts_conn_id="absent")))
    assert "project_id is missing" in incomplete.payload["error"]
    assert "absent" in missing.payload["error"]


def test_the_project_of_the_trigger_replaces_that_of_the_connection(state: EmulatorState) -> None:
    task = state.add_task(project_id=OTHER_PROJECT_ID, status=2)
    (event,) = run(events(trigger(task.task_id, project_id=OTHER_PROJECT_ID)))
    assert event.payload["status"] == 2


def test_a_caller_that_takes_only_the_event_leaves_nothing_open(state: EmulatorState, lines: list[str]) -> None:
    """``dag.test()`` does so: it does not resume a trigger after its event."""
    unhandled: list[str] = []

    async def first_event(task_id: str) -> TriggerEvent | None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["message"]))
        return await anext(trigger(task_id, look_at_once=True).run(), None)

    for task_id in (state.add_task(status=2).task_id, "unknown"):
        event = asyncio.run(first_event(task_id))
        assert event is not None
        assert watcher._WATCHERS == {}
    assert unhandled == []


@pytest.mark.parametrize("push", [True, False])
def test_without_a_task_instance_a_worker_ends_the_task(state: EmulatorState, lines: list[str], push: bool) -> None:
    task_id = state.add_task(status=2).task_id
    (event,) = run(events(trigger(task_id, end_from_trigger=True, push_return_value=push)))
    assert type(event) is TriggerEvent
    assert event.payload == {"task_id": task_id, "status": 2}
    assert lines == [f"Processing task '{task_id}' is completed."]


def test_an_id_that_native_rendering_made_a_number_is_text(state: EmulatorState) -> None:
    (event,) = run(events(trigger(7, look_at_once=True)))  # type: ignore[arg-type]  # as native rendering makes it
    assert event.payload["task_id"] == "7"
    assert state.log.count() > 0


def test_a_wait_for_a_version_does_not_depend_on_the_task(state: EmulatorState, lines: list[str]) -> None:
    task = state.add_task(template="sys_data_cleaning", status=2)
    first = task.versions[0].version_id
    state.create_version(task.project_id, task.task_id, {**task.body, "name": task.name})
    (event,) = run(events(trigger(task.task_id, task_version_id=first)))
    assert event.payload == {"task_id": task.task_id, "task_version_id": first, "status": 2}
    assert state.log.counts() == {"DescribeProcessorTaskVersion": 1}
    assert lines == [f"Version '{first}' of processing task '{task.task_id}' is completed."]


# The wait


def test_an_hour_of_polls_logs_only_changes(state: EmulatorState, lines: list[str]) -> None:
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


def test_fifty_waits_share_one_poll_and_survive_a_key_rotation(
    state: EmulatorState, emulator: EmulatorServer, set_connection: Callable[..., None], lines: list[str]
) -> None:
    tasks = state.add_tasks(50, status=1)

    async def rotate() -> list[list[TriggerEvent]]:
        waits = [asyncio.create_task(events(trigger(task.task_id, poll_interval=30))) for task in tasks]
        await asyncio.sleep(100)
        state.accounts.add_key(KeyPair(ACCESS_KEY + "2", "another"))
        connect(emulator, set_connection, login=ACCESS_KEY + "2", password="another")
        state.accounts.remove_key(ACCESS_KEY)
        await asyncio.sleep(100)
        for task in tasks:
            state.finish(task.task_id)
        return await asyncio.gather(*waits)

    assert [event.payload["status"] for (event,) in run(rotate())] == [2] * 50
    assert state.log.count() < 50 + 40, "one request by id for each end, and the lists"
    assert len(lines) == 100, "no outage, only changes"


def test_all_sockets_are_closed_at_the_end(state: EmulatorState) -> None:
    tasks = state.add_tasks(20, status=2)

    async def all_of_them() -> None:
        await asyncio.gather(*(events(trigger(task.task_id)) for task in tasks))

    run(all_of_them())
    gc.collect()  # a session or a socket left open would warn, and warnings are errors


def test_a_cancelled_trigger_stops_no_version_and_leaves_nothing_open(state: EmulatorState) -> None:
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


def with_upstream(map_index: int = -1) -> ProcessorTaskTrigger:
    waiting = trigger(upstream={"task_id": "create", "key": "return_value"}, look_at_once=True)
    waiting.task_instance = TaskInstance(map_index=map_index)
    return waiting


@pytest.mark.parametrize(("map_index", "pushed_at"), [(-1, -1), (3, 3), (3, -1)])
def test_the_id_can_be_the_xcom_of_an_upstream_task(
    state: EmulatorState, pushed: dict[tuple[str, str, int], Any], map_index: int, pushed_at: int
) -> None:
    task = state.add_task(status=2)
    pushed["create", "return_value", pushed_at] = task.task_id
    (event,) = run(events(with_upstream(map_index)))
    assert event.payload == {"task_id": task.task_id, "status": 2}


def test_an_upstream_task_of_the_same_mapped_group_takes_precedence(
    state: EmulatorState, pushed: dict[tuple[str, str, int], Any]
) -> None:
    task = state.add_task(status=2)
    pushed["create", "return_value", 1] = task.task_id
    pushed["create", "return_value", -1] = "unknown"
    assert run(events(with_upstream(1)))[0].payload["task_id"] == task.task_id


@pytest.mark.parametrize("value", [None, "", 7.5, True, ["a", "b"], {"task_id": "abc"}])
def test_an_xcom_that_is_no_id_ends_the_wait_with_an_error(
    state: EmulatorState, pushed: dict[tuple[str, str, int], Any], value: Any
) -> None:
    pushed["create", "return_value", -1] = value
    (event,) = run(events(with_upstream()))
    assert "check what that pushed" in event.payload["error"]
    assert json.dumps(event.payload)
    assert state.log.count() == 0


# Throttling


def test_throttling_is_no_outage_when_many_tasks_end_together(
    state: EmulatorState, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [state.add_task(status=2) for _ in range(24)]

    async def all_of_them() -> list[list[TriggerEvent]]:
        clock = asyncio.get_running_loop().time
        monkeypatch.setattr(faults, "time", SimpleNamespace(monotonic=clock))
        monkeypatch.setattr(reading, "LIMITERS", reading.RateLimiters(clock))
        state.faults.limit_rate(rate=20, burst=5)
        return await asyncio.gather(*(events(trigger(task.task_id, poll_interval=0.2)) for task in tasks))

    ended = [event.payload["task_id"] for (event,) in run(all_of_them())]
    assert ended == [task.task_id for task in tasks]
    assert [line for line in lines if "The wait goes on" in line] == []
    assert state.log.count() <= 2 * 24


# Memory


@pytest.fixture
def traced() -> Iterator[None]:
    """Trace the memory. Coverage is off meanwhile: it makes an object of each frame."""
    coverage = sys.gettrace()
    sys.settrace(None)
    tracemalloc.start()
    yield
    tracemalloc.stop()
    sys.settrace(coverage)


async def bytes_each(start: Callable[[int], Coroutine[Any, Any, Any]]) -> float:
    """Return the memory of an asyncio task beside others: the least of a few times, since caches grow meanwhile."""
    tasks = [asyncio.create_task(start(0))]
    await asyncio.sleep(0)
    least = math.inf
    for _ in range(5):
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tasks += [asyncio.create_task(start(len(tasks) + number)) for number in range(200)]
        await asyncio.sleep(0)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        least = min(least, (after - before) / 200)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return least


def test_a_wait_takes_little_memory_beside_its_asyncio_task(state: EmulatorState, traced: None) -> None:
    asyncio_task = run(bytes_each(lambda _: asyncio.sleep(1000)))
    assert run(bytes_each(lambda number: events(trigger(f"task {number}")))) < asyncio_task + 2500
    assert state.log.count() == 0


def test_a_queued_submission_takes_about_as_little_memory_as_a_wait(state: EmulatorState, traced: None) -> None:
    def queued(number: int) -> ProcessorTaskSubmissionTrigger:
        return ProcessorTaskSubmissionTrigger(f"task {number}", VALIDATION, queued_since=float(number))

    wait = run(bytes_each(lambda number: events(trigger(f"task {number}"))))
    assert run(bytes_each(lambda number: events(queued(number)))) < 1.25 * wait
    assert state.log.count() == 0


def test_triggers_share_the_logger_of_their_class() -> None:
    assert trigger("a").log is trigger("b").log
    assert ProcessorTaskSubmissionTrigger().log is not trigger("a").log
