"""The sensor's deferrable path without Airflow's processes, side by side with the modes that stay on a worker."""

from __future__ import annotations

import asyncio
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import airflow
import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    Asset,
    BaseSensorOperator,
    TaskDeferred,
    XCom,
    task,
    task_group,
)
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS, AIRFLOW_V_3_3_PLUS
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent
from jinja2 import Environment

from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.polling import watcher
from airflow_modelarts.sensors import TRIGGER, ModelArtsProcessorTaskSensor
from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from airflow_modelarts.testing.emulator.service.accounts import ACCESS_KEY, PROJECT_ID, SECRET_KEY
from airflow_modelarts.triggers import ProcessorTaskTrigger
from tests.support.virtual import run

AIRFLOW_2 = airflow.__version__.startswith("2.")
needs_airflow_3_3 = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="start_from_trigger needs Airflow 3.3")
#: Seconds on the world's clock that go by at once while a trigger waits; a poke interval.
TICK = 5.0
TIMED_OUT = "Trigger/execution timeout" if AIRFLOW_2 else "Trigger timeout"
EPOCH = 1_700_000_000.0


@dataclass
class World:
    """A service and a clock; the modules that sleep or look at a clock get this one."""

    state: EmulatorState
    now: float = 0.0
    plans: list[tuple[float, Callable[[], Any]]] = field(default_factory=list)
    instance: Any = None

    def sleep(self, seconds: float) -> None:
        before, self.now = self.now, self.now + seconds
        self.state.clock.advance(seconds)
        for moment, happen in self.plans:
            if before < moment <= self.now:
                happen()

    def time(self) -> float:
        return EPOCH + self.now

    def at(self, moment: float, happen: Callable[[], Any]) -> None:
        self.plans.append((moment, happen))


class TaskInstance:
    """As much of a task instance as sensors and triggers look at."""

    dag_id, task_id, run_id, map_index, max_tries = "dag", "wait", "run", -1, 0

    def __init__(self, world: World) -> None:
        self._world, self._started = world, world.now
        self.start_date = datetime.fromtimestamp(world.time(), UTC)

    def get_first_reschedule_date(self, context: Any) -> datetime:
        return datetime.now(UTC) - timedelta(seconds=self._world.now - self._started)


@pytest.fixture(scope="module")
def running() -> Iterator[EmulatorServer]:
    with EmulatorServer() as server:
        yield server


@pytest.fixture
def world(running: EmulatorServer, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> World:
    running.state.reset()
    running.state.clock.freeze()
    set_connection(host=running.url, login=ACCESS_KEY, password=SECRET_KEY, extra={"project_id": PROJECT_ID})
    world = World(running.state)
    monkeypatch.setattr("time.sleep", world.sleep)
    base = importlib.import_module(BaseSensorOperator.__module__)
    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=world.time, sleep=world.sleep, time=world.time))
    monkeypatch.setattr("airflow_modelarts.sensors.time", SimpleNamespace(time=world.time))
    if AIRFLOW_2:
        monkeypatch.setattr(base, "_orig_start_date", lambda **_: world.instance.get_first_reschedule_date({}))
    return world


@pytest.fixture(autouse=True)
def nobody_is_left_watching() -> Iterator[None]:
    yield
    assert watcher._WATCHERS == {}


@pytest.fixture(autouse=True)
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The XComs that triggers push."""
    values: list[Any] = []
    monkeypatch.setattr(XCom, "set", lambda *, value, **_: values.append(value))
    return values


def sensor(processor_task_id: str, **arguments: Any) -> ModelArtsProcessorTaskSensor:
    usual = {"task_id": "wait", "poke_interval": TICK, "timeout": 150, "deferrable": False}
    return ModelArtsProcessorTaskSensor(processor_task_id=processor_task_id, **{**usual, **arguments})


# What Airflow does with a sensor


def build_trigger(deferred: TaskDeferred, instance: TaskInstance) -> Any:
    path, arguments = deferred.trigger.serialize()
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**arguments)
    trigger.task_instance = instance
    return trigger


def run_trigger(deferred: TaskDeferred, world: World) -> TriggerEvent | None:
    """Run a trigger until its event; None when the timeout of the deferral comes first."""
    assert deferred.timeout is not None
    ends_at = world.now + deferred.timeout.total_seconds()

    async def first_event() -> TriggerEvent:
        events = [event async for event in build_trigger(deferred, world.instance).run()]
        (event,) = events
        return event

    async def wait() -> TriggerEvent | None:
        waiting = asyncio.create_task(first_event())
        while world.now < ends_at:
            done, _ = await asyncio.wait([waiting], timeout=TICK)
            if done:
                return waiting.result()
            world.sleep(TICK)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return None

    return run(wait())


def carry_out(waiting: ModelArtsProcessorTaskSensor, world: World, pushed: list[Any]) -> Any:
    """Execute a sensor as Airflow would, deferrals and reschedules included, and return its XCom."""
    world.instance = TaskInstance(world)
    context: Any = {"ti": world.instance}
    proceed: Callable[[], Any] = lambda: waiting.execute(context)  # noqa: E731
    while True:
        try:
            return proceed()
        except AirflowRescheduleException as again:
            world.sleep((again.reschedule_date - datetime.now(UTC)).total_seconds())
        except TaskDeferred as deferred:
            event = run_trigger(deferred, world)
            if isinstance(event, TaskSuccessEvent):
                return pushed[-1]
            method, arguments = deferred.method_name, {**(deferred.kwargs or {})}
            if event is None:
                method, arguments = "__fail__", {"error": TIMED_OUT}
            else:
                arguments["event"] = event.payload

            def proceed(method: str = method, arguments: dict[str, Any] = arguments) -> Any:
                return waiting.resume_execution(method, arguments, context)


def outcome_of(waiting: ModelArtsProcessorTaskSensor, world: World, pushed: list[Any]) -> tuple[str, Any]:
    """Return the XCom, or what was raised: its class, and its message unless Airflow words it."""
    try:
        return "succeeded", carry_out(waiting, world, pushed)
    except Exception as error:
        words = str(error)
        # Airflow words a timeout, and a skip after one, differently in each mode.
        is_timeout = world.now >= waiting.timeout - TICK
        return type(error).__name__, "" if is_timeout else words


# The table

MODES: dict[str, dict[str, Any]] = {
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
    "end_from_trigger": {"end_from_trigger": True},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "soft_fail": {"soft_fail": True},
    "never_fail": {"never_fail": True},
    "silent_fail": {"silent_fail": True},
    "any end": {"failed_statuses": ()},
}


def ends(status: int, at: float = 62.0) -> Callable[[World], str]:
    def begin(world: World) -> str:
        added = world.state.add_task("mine", status=1)
        world.at(at, lambda: world.state.set_status(added.task_id, status, error_msg="no samples"))
        if at <= 0:
            world.state.set_status(added.task_id, status, error_msg="no samples")
        return added.task_id

    return begin


def with_outage(world: World) -> str:
    task_id = ends(3)(world)

    def begin() -> None:
        outage = world.state.faults.answer(503, times=None)
        world.at(world.now + 40, lambda: world.state.faults.remove(outage))

    world.at(20, begin)
    return task_id


def revoked(world: World) -> str:
    world.at(40, lambda: world.state.accounts.remove_key(ACCESS_KEY))
    return ends(2)(world)


def deleted(world: World) -> str:
    task_id = world.state.add_task("mine", status=1).task_id
    world.at(40, lambda: world.state.delete_task(PROJECT_ID, task_id))
    return task_id


HISTORIES: dict[str, Callable[[World], str]] = {
    "completes": ends(2),
    "fails": ends(3),
    "is stopped": ends(4),
    "had completed": ends(2, at=0),
    "had failed": ends(3, at=0),
    "shows an unknown status": ends(9),
    "never ends": ends(2, at=1e9),
    "fails after an outage": with_outage,
    "is unknown": lambda _: "unknown",
    "is deleted": deleted,
    "loses its credentials": revoked,
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_every_mode_has_the_same_outcome(
    world: World, pushed: list[Any], history: Callable[[World], str], options: dict[str, Any]
) -> None:
    def outcome_in(mode: dict[str, Any]) -> tuple[str, Any]:
        world.state.reset()
        world.state.clock.freeze()
        world.plans.clear()
        world.now = 0.0
        task_id = history(world)
        kind, value = outcome_of(sensor(task_id, **mode, **options), world, pushed)
        # Ids of tasks and of requests are new each time.
        return kind, re.sub("request [0-9a-f]+", "request", str(value).replace(task_id, "its id"))

    expected = outcome_in({})
    outcomes = {name: outcome_in(mode) for name, mode in MODES.items()}
    if AIRFLOW_V_3_1_PLUS and expected[0] == "AirflowSensorTimeout" and options.get("never_fail"):
        # Since 3.1 Airflow's own resume_execution skips after a timeout too; its execute does not.
        assert outcomes.pop("deferrable")[0] == outcomes.pop("end_from_trigger")[0] == "AirflowSkipException"
    assert outcomes == dict.fromkeys(outcomes, expected)


def test_a_skip_says_what_happened_in_every_mode(world: World, pushed: list[Any]) -> None:
    for mode in MODES.values():
        task_id = world.state.add_task(status=1).task_id
        world.at(world.now + 20, lambda task_id=task_id: world.state.fail(task_id, "no samples"))
        kind, words = outcome_of(sensor(task_id, soft_fail=True, timeout=3600, **mode), world, pushed)
        assert (kind, words) == ("AirflowSkipException", f"Processing task '{task_id}' failed: no samples")


@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["poke", *MODES])
def test_a_connection_that_does_not_exist_fails_and_never_skips(
    world: World, pushed: list[Any], mode: dict[str, Any]
) -> None:
    waiting = sensor("abc", modelarts_conn_id="absent", soft_fail=True, **mode)
    with pytest.raises(ModelArtsConfigurationError, match="absent"):
        carry_out(waiting, world, pushed)


def test_a_connection_that_does_not_exist_in_the_triggerer_fails_as_on_a_worker(world: World) -> None:
    waiting = sensor("abc", modelarts_conn_id="absent", soft_fail=True, deferrable=True)

    async def first_event() -> TriggerEvent:
        (event,) = [event async for event in ProcessorTaskTrigger(**waiting._trigger_arguments()).run()]
        return event

    with pytest.raises(ModelArtsConfigurationError, match="absent"):
        waiting.resume_execution("execute_complete", {"event": run(first_event()).payload}, {})


# Deferring


def deferral(waiting: ModelArtsProcessorTaskSensor, world: World) -> TaskDeferred:
    world.instance = TaskInstance(world)
    with pytest.raises(TaskDeferred) as caught:
        waiting.execute({"ti": world.instance})
    return caught.value


def test_it_looks_once_before_it_defers(world: World) -> None:
    waiting = sensor(world.state.add_task(status=2).task_id, deferrable=True)
    assert waiting.execute({"ti": None})["status"] == 2


def test_it_defers_with_what_the_trigger_needs(world: World) -> None:
    task_id = world.state.add_task(status=1).task_id
    waiting = sensor(
        task_id, deferrable=True, poke_interval=7, timeout=1000, failed_statuses=[3], project_id=PROJECT_ID
    )
    deferred = deferral(waiting, world)
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
    assert deferred.kwargs == {"deadline": world.time() + 1000}


def test_an_outage_at_the_first_look_does_not_keep_it_on_the_worker(world: World) -> None:
    task_id = world.state.add_task(status=1).task_id
    world.state.faults.answer(503, times=2)
    assert deferral(sensor(task_id, deferrable=True), world).trigger.processor_task_id == task_id


def test_poke_alone_does_not_defer(world: World) -> None:
    assert sensor(world.state.add_task(status=1).task_id, deferrable=True).poke({}) is False


@pytest.mark.parametrize("status", [2, 3, 4])
def test_a_good_end_takes_no_further_call(world: World, status: int) -> None:
    waiting = sensor("abc", deferrable=True, failed_statuses=())
    done = waiting.resume_execution("execute_complete", {"event": {"task_id": "abc", "status": status}}, {})
    assert done["status"] == status
    assert world.state.log.count() == 0


@pytest.mark.parametrize("event", [None, {}, {"task_id": "abc", "error": "once"}, {"status": 9}])
def test_an_event_that_was_not_the_end_defers_again_until_the_same_deadline(
    world: World, event: dict[str, Any] | None
) -> None:
    waiting = sensor(world.state.add_task(status=1).task_id, deferrable=True, timeout=1000)
    first = deferral(waiting, world)
    world.sleep(400)
    with pytest.raises(TaskDeferred) as caught:
        waiting.resume_execution(first.method_name, {**(first.kwargs or {}), "event": event}, {"ti": world.instance})
    assert caught.value.timeout == timedelta(seconds=600)
    assert caught.value.kwargs == first.kwargs


def test_a_wait_that_began_in_the_triggerer_counts_its_timeout_from_there(world: World) -> None:
    waiting = sensor(world.state.add_task(status=1).task_id, deferrable=True, timeout=1000)
    world.instance = TaskInstance(world)
    world.sleep(400)
    with pytest.raises(TaskDeferred) as caught:
        waiting.resume_execution("execute_complete", {"event": {"error": "once"}}, {"ti": world.instance})
    assert caught.value.timeout == timedelta(seconds=600)


def test_no_time_left_is_no_negative_time(world: World) -> None:
    waiting = sensor(world.state.add_task(status=1).task_id, deferrable=True, timeout=100)
    first = deferral(waiting, world)
    world.sleep(400)
    with pytest.raises(TaskDeferred) as caught:
        waiting.resume_execution(first.method_name, {**(first.kwargs or {}), "event": {}}, {"ti": world.instance})
    assert caught.value.timeout == timedelta(0)


def test_a_bad_end_counts_even_if_its_message_cannot_be_read(world: World) -> None:
    waiting = sensor("abc", deferrable=True)
    world.state.faults.answer(503, times=None)
    with pytest.raises(ModelArtsProcessorTaskFailed, match="'abc' stopped: its message could not be read"):
        waiting.resume_execution("execute_complete", {"event": {"task_id": "abc", "status": 4}}, {})


@pytest.mark.parametrize(
    ("execution_timeout", "left", "error"),
    [(100, 100, AirflowTaskTimeout), (1000, 150, AirflowSensorTimeout), (None, 150, AirflowSensorTimeout)],
)
def test_the_timeout_that_comes_first_ends_it_as_itself(
    world: World, pushed: list[Any], execution_timeout: int | None, left: int, error: type[Exception]
) -> None:
    limit = timedelta(seconds=execution_timeout) if execution_timeout else None
    waiting = sensor(world.state.add_task(status=1).task_id, deferrable=True, execution_timeout=limit)
    assert deferral(waiting, world).timeout == timedelta(seconds=left)
    with pytest.raises(error):
        carry_out(waiting, world, pushed)


def test_the_execution_timeout_does_not_start_over(world: World) -> None:
    waiting = sensor(
        world.state.add_task(status=1).task_id,
        deferrable=True,
        timeout=1000,
        execution_timeout=timedelta(seconds=500),
    )
    first = deferral(waiting, world)
    world.sleep(400)
    with pytest.raises(TaskDeferred) as caught:
        waiting.resume_execution(first.method_name, {**(first.kwargs or {}), "event": {}}, {"ti": world.instance})
    assert caught.value.timeout == timedelta(seconds=100)


@pytest.mark.parametrize("option", ["soft_fail", "usual"])
def test_a_trigger_that_failed_fails_the_sensor(option: str) -> None:
    waiting = sensor("abc", deferrable=True, **OPTIONS[option])
    with pytest.raises(AirflowSkipException if option == "soft_fail" else Exception) as caught:
        waiting.resume_execution("__fail__", {"error": "Trigger failure", "traceback": ["oh"]}, {})
    assert not isinstance(caught.value, AirflowSensorTimeout)


@pytest.mark.parametrize("default", [True, False])
def test_it_defers_by_default_where_airflow_says_so(monkeypatch: pytest.MonkeyPatch, default: bool) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", str(default))
    assert ModelArtsProcessorTaskSensor(task_id="wait", processor_task_id="abc").deferrable is default
    assert sensor("abc", deferrable=False).deferrable is False


# Starting in the triggerer


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    logged: list[str] = []

    class Log:
        def info(self, text: str, *values: Any) -> None:
            logged.append(text % values if values else text)

        debug = warning = error = info

    monkeypatch.setattr(ModelArtsProcessorTaskSensor, "log", Log())
    return logged


def reasons(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("This wait uses a worker")]


@needs_airflow_3_3
def test_a_wait_can_start_in_the_triggerer() -> None:
    waiting = sensor("{{ params.id }}", start_from_trigger=True, end_from_trigger=True, timeout=1000)
    assert waiting.start_from_trigger
    assert waiting.deferrable
    start = waiting.start_trigger_args
    assert start is not None
    assert (start.trigger_cls, start.next_method) == (TRIGGER, "execute_complete")
    assert start.timeout == timedelta(seconds=1000)
    assert start.trigger_kwargs == {
        "processor_task_id": "{{ params.id }}",
        "task_version_id": None,
        "modelarts_conn_id": "modelarts_default",
        "project_id": None,
        "poll_interval": TICK,
        "end_from_trigger": True,
        "push_return_value": True,
        "failed_statuses": [3, 4],
        "look_at_once": True,
    }


@needs_airflow_3_3
def test_an_id_that_another_task_gives_is_named_to_the_trigger() -> None:
    with DAG("dag", schedule=None):

        @task
        def create() -> dict[str, str]:
            return {"id": "abc"}

        waiting = sensor(create()["id"], start_from_trigger=True)
    assert waiting.start_trigger_args is not None
    arguments = waiting.start_trigger_args.trigger_kwargs or {}
    assert arguments["upstream"] == {"task_id": "create", "key": "id"}
    assert arguments["processor_task_id"] == ""


def of_a_template(text: str) -> ModelArtsProcessorTaskSensor:
    return sensor(text, start_from_trigger=True)


def of_a_mapped_task(_: str) -> ModelArtsProcessorTaskSensor:
    with DAG("dag", schedule=None):

        @task
        def create(name: str) -> str:
            return name

        return sensor(create.expand(name=["a", "b"]), start_from_trigger=True)


def of_a_mapped_task_group(_: str) -> ModelArtsProcessorTaskSensor:
    built: list[ModelArtsProcessorTaskSensor] = []
    with DAG("dag", schedule=None):

        @task_group
        def wait_for(task_id: str) -> None:
            built.append(sensor(task_id, start_from_trigger=True))

        wait_for.expand(task_id=["a", "b"])
    return built[0]


def of_a_computed_value(_: str) -> ModelArtsProcessorTaskSensor:
    with DAG("dag", schedule=None):

        @task
        def create() -> str:
            return "abc"

        return sensor(create().map(str.upper), start_from_trigger=True)


def of_an_output_as_project(_: str) -> ModelArtsProcessorTaskSensor:
    with DAG("dag", schedule=None):

        @task
        def create() -> str:
            return "abc"

        return sensor("abc", project_id=create(), start_from_trigger=True)


def of_an_output_as_version(_: str) -> ModelArtsProcessorTaskSensor:
    with DAG("dag", schedule=None):

        @task
        def run_again() -> str:
            return "abc"

        return sensor("abc", task_version_id=run_again(), start_from_trigger=True)


@pytest.mark.parametrize(
    ("build", "text", "reason"),
    [
        (of_a_template, "{{ ti.xcom_pull('create') }}", "the template of processor_task_id uses ti,"),
        (of_a_template, "{{ task_instance.xcom_pull('create') }}", "uses task_instance,"),
        (of_a_template, "{{ var.value.id }}", "uses var,"),
        (of_a_template, "{{ conn.other.host }}{{ mine }}", "uses conn, mine,"),
        (of_a_template, "{% if %}", "the template of processor_task_id cannot be checked (Expected an expression"),
        (of_a_template, "{{ logical_date | ds_nodash }}", "cannot be checked (No filter named 'ds_nodash'"),
        (of_a_mapped_task_group, "", "processor_task_id is known only when the task runs"),
        (of_a_mapped_task, "", "processor_task_id is more than one output"),
        (of_a_computed_value, "", "processor_task_id is more than one output"),
        (of_an_output_as_project, "", "project_id is the output of a task,"),
        (of_an_output_as_version, "", "task_version_id is the output of a task,"),
    ],
)
def test_what_a_triggerer_cannot_look_up_takes_a_worker_which_says_why(
    world: World,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    build: Callable[[str], ModelArtsProcessorTaskSensor],
    text: str,
    reason: str,
) -> None:
    waiting = build(text)
    assert not waiting.start_from_trigger
    assert waiting.start_trigger_args is None
    assert waiting.deferrable, "it defers from the worker"
    assert reasons(lines) == [], "not each time the DAG is read"
    added = world.state.add_task(status=2, template="sys_data_cleaning")
    added.versions[0].run.set_status(2, world.state.clock.now())
    outputs = {
        "processor_task_id": added.task_id,
        "task_version_id": added.versions[0].version_id,
        "modelarts_conn_id": "modelarts_default",
        "project_id": PROJECT_ID,
    }
    rendered = {id(getattr(waiting, name)): output for name, output in outputs.items()}
    monkeypatch.setattr(ModelArtsProcessorTaskSensor, "render_template", lambda _, value, *__: rendered[id(value)])
    waiting.render_template_fields({}, Environment())
    waiting.execute({"ti": None})
    (said,) = reasons(lines)
    assert (reason if AIRFLOW_V_3_3_PLUS else "it needs Airflow 3.3") in said


@pytest.mark.parametrize("text", ["abc", "{{ params.id }}", "{{ dag_run.conf['id'] }}", "{{ macros.uuid }}-{{ ds }}"])
@needs_airflow_3_3
def test_what_a_triggerer_can_render_takes_no_worker(text: str) -> None:
    assert of_a_template(text).start_from_trigger


@needs_airflow_3_3
def test_where_triggerers_have_queues_it_starts_on_a_worker_and_says_why(
    world: World, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__TRIGGERER__QUEUES_ENABLED", "True")
    waiting = sensor(world.state.add_task(status=1).task_id, start_from_trigger=True, end_from_trigger=True)
    assert not waiting.start_from_trigger
    assert waiting.start_trigger_args is None
    assert deferral(waiting, world).trigger.end_from_trigger, "which takes the queue of the Airflow task"
    (said,) = reasons(lines)
    assert "start_from_trigger is not possible, since triggerers have queues here ([triggerer] queues_enabled)" in said


# Ending in the triggerer


def succeeded(context: Any) -> None:
    """A callback."""


class WithHook(ModelArtsProcessorTaskSensor):
    def post_execute(self, context: Any, result: Any = None) -> None:
        """Do what a user wants done in the end."""


class WithEnd(ModelArtsProcessorTaskSensor):
    def execute_complete(self, *arguments: Any, **named: Any) -> Any:
        return super().execute_complete(*arguments, **named)


def set_late(waiting: ModelArtsProcessorTaskSensor) -> None:
    waiting.outlets = [Asset("late")]


def add_late(waiting: ModelArtsProcessorTaskSensor) -> None:
    waiting.add_outlets([Asset("late")])


def call_back_late(waiting: ModelArtsProcessorTaskSensor) -> None:
    waiting.on_success_callback = [succeeded]


def map_over(waiting: ModelArtsProcessorTaskSensor) -> None:
    with waiting.dag:

        @task
        def use(value: str) -> None:
            """Use it."""

        use.expand(value=waiting.output)


def return_it(waiting: ModelArtsProcessorTaskSensor) -> None:
    waiting.returns_dag_result = True


LOSES: list[tuple[str, dict[str, Any], Callable[[ModelArtsProcessorTaskSensor], None] | None]] = [
    ("outlets", {"outlets": [Asset("a")]}, None),
    ("outlets", {"default_args": {"outlets": [Asset("a")]}}, None),
    ("outlets", {}, set_late),
    ("outlets", {}, add_late),
    ("on_success_callback", {"on_success_callback": succeeded}, None),
    ("on_success_callback", {"on_success_callback": [succeeded]}, None),
    ("on_success_callback", {"default_args": {"on_success_callback": succeeded}}, None),
    ("on_success_callback", {}, call_back_late),
    ("post_execute", {"post_execute": succeeded}, None),
    ("multiple_outputs", {"multiple_outputs": True}, None),
    ("returns_dag_result", {}, return_it),
    ("tasks that are mapped over the XCom", {}, map_over),
    ("outlets, on_success_callback", {"outlets": [Asset("a")], "on_success_callback": succeeded}, None),
]


@needs_airflow_3_3
@pytest.mark.parametrize("starts_in_triggerer", [True, False])
@pytest.mark.parametrize(("what", "arguments", "later"), LOSES)
def test_what_a_success_in_the_triggerer_would_lose_ends_on_a_worker_which_says_why(
    world: World,
    lines: list[str],
    what: str,
    arguments: dict[str, Any],
    later: Callable[[ModelArtsProcessorTaskSensor], None] | None,
    starts_in_triggerer: bool,
) -> None:
    task_id = world.state.add_task(status=1).task_id
    with DAG("dag", schedule=None):
        waiting = sensor(task_id, start_from_trigger=starts_in_triggerer, end_from_trigger=True, **arguments)
        assert waiting.end_from_trigger is (later is not None)
        if later:
            later(waiting)
    assert not waiting.end_from_trigger, "nor does Airflow then mind a listener"
    said = f"end_from_trigger is not possible, since Airflow does this only where a worker ends the task: {what}."
    if starts_in_triggerer:
        start = waiting.start_trigger_args
        assert start is not None
        assert (start.trigger_kwargs or {})["end_from_trigger"] is False
        waiting.resume_execution("execute_complete", {"event": {"task_id": task_id, "status": 2}}, {})
    else:
        deferred = deferral(waiting, world)
        assert deferred.trigger.end_from_trigger is False
        waiting.execute_complete({}, {"task_id": task_id, "status": 2}, **(deferred.kwargs or {}))
    assert reasons(lines) == [f"This wait uses a worker: {said}"], "once"


@needs_airflow_3_3
@pytest.mark.parametrize(("kind", "what"), [(WithHook, "post_execute"), (WithEnd, "execute_complete of a subclass")])
def test_what_a_subclass_does_in_the_end_is_not_lost(kind: type[ModelArtsProcessorTaskSensor], what: str) -> None:
    waiting = kind(task_id="wait", processor_task_id="abc", end_from_trigger=True)
    assert not waiting.end_from_trigger
    assert waiting._why_end_on_worker().endswith(what)


@needs_airflow_3_3
@pytest.mark.parametrize("arguments", [{"on_execute_callback": succeeded}, {"pre_execute": succeeded}])
def test_what_is_to_be_called_on_a_worker_is_called_on_one(arguments: dict[str, Any]) -> None:
    assert sensor("abc", end_from_trigger=True, **arguments).end_from_trigger, "at its start"
    assert not sensor("abc", start_from_trigger=True, end_from_trigger=True, **arguments).end_from_trigger


@needs_airflow_3_3
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"inlets": [Asset("a")]},
        {"on_failure_callback": succeeded, "on_retry_callback": succeeded, "on_skipped_callback": succeeded},
        {"do_xcom_push": False},
    ],
)
def test_what_is_not_lost_ends_in_the_triggerer(arguments: dict[str, Any]) -> None:
    assert sensor("abc", start_from_trigger=True, end_from_trigger=True, **arguments).end_from_trigger


@needs_airflow_3_3
def test_what_airflow_stores_of_it_is_as_of_the_end_of_the_dag_file() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("dag", schedule=None) as dag:
        waiting = sensor("abc", start_from_trigger=True, end_from_trigger=True)
        mapped = ModelArtsProcessorTaskSensor.partial(
            task_id="mapped", start_from_trigger=True, end_from_trigger=True, outlets=[Asset("a")]
        ).expand(processor_task_id=["a", "b"])
        waiting.outlets = [Asset("a")]
        waiting.processor_task_id = "{{ params.late }}"
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    start = stored.get_task("wait").start_trigger_args
    assert stored.get_task("wait").start_from_trigger
    arguments = start.trigger_kwargs.get("__var", start.trigger_kwargs)
    assert (arguments["processor_task_id"], arguments["end_from_trigger"]) == ("{{ params.late }}", False)
    assert stored.get_task("mapped").start_trigger_args is None
    assert mapped.task_id == "mapped"


@needs_airflow_3_3
def test_a_mapped_task_starts_on_a_worker_and_says_why(world: World, lines: list[str]) -> None:
    task_id = world.state.add_task(status=1).task_id
    with DAG("dag", schedule=None):
        mapped = ModelArtsProcessorTaskSensor.partial(
            task_id="wait", start_from_trigger=True, end_from_trigger=True, on_success_callback=succeeded
        ).expand(processor_task_id=[task_id])
    waiting = mapped.unmap({"processor_task_id": task_id})
    assert isinstance(waiting, ModelArtsProcessorTaskSensor)
    assert deferral(waiting, world).trigger.end_from_trigger is False
    assert [line.partition(", since ")[2] for line in reasons(lines)] == [
        "Airflow starts mapped tasks on a worker.",
        "Airflow does this only where a worker ends the task: on_success_callback.",
    ]


def test_an_event_that_is_no_dict_is_looked_behind(world: World) -> None:
    """Where a trigger is run in line, Airflow passes the payload of a success, which is its state."""
    waiting = sensor(world.state.add_task(status=2).task_id, deferrable=True)
    for event in ("success", "TaskInstanceState.SUCCESS", ["x"], 7):
        assert waiting.resume_execution("execute_complete", {"event": event}, {"ti": None})["status"] == 2


# One version of a task


def of_version(world: World, status: int | None, at: float) -> tuple[str, str]:
    """Return the ids of a task that has completed and of a version of it that ends."""
    added = world.state.add_task(template="sys_data_cleaning", duration=1e9)
    version = added.versions[0]
    if status is not None:
        world.at(at, lambda: version.run.set_status(status, world.state.clock.now()))
    return added.task_id, version.version_id


@pytest.mark.parametrize("mode", [{}, *MODES.values(), {"start_from_trigger": True}], ids=["poke", *MODES, "starts"])
@pytest.mark.parametrize("status", [2, 3, 4, None])
def test_a_version_is_waited_for_alike_in_every_mode(
    world: World, pushed: list[Any], mode: dict[str, Any], status: int | None
) -> None:
    task_id, version_id = of_version(world, status, 62.0)
    kind, value = outcome_of(sensor(task_id, task_version_id=version_id, **mode), world, pushed)
    named = f"Version '{version_id}' of processing task '{task_id}'"
    expected: dict[int | None, tuple[str, Any]] = {
        2: (
            "succeeded",
            {"task_id": task_id, "task_version_id": version_id, "status": 2, "status_name": "completed"},
        ),
        3: ("ModelArtsProcessorTaskFailed", f"{named} failed: the service gave no error_msg"),
        4: ("ModelArtsProcessorTaskFailed", f"{named} stopped: the service gave no error_msg"),
        None: ("AirflowSensorTimeout", ""),
    }
    assert (kind, value) == expected[status]
    operations = set(world.state.log.counts())
    assert operations == {"DescribeProcessorTaskVersion"}


@needs_airflow_3_3
def test_a_version_is_named_to_the_trigger_that_starts_the_wait() -> None:
    waiting = sensor("abc", task_version_id="{{ params.version }}", start_from_trigger=True)
    assert waiting.start_trigger_args is not None
    assert (waiting.start_trigger_args.trigger_kwargs or {})["task_version_id"] == "{{ params.version }}"


@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["poke", *MODES])
def test_names_of_statuses_fail_it_as_their_numbers_do(world: World, pushed: list[Any], mode: dict[str, Any]) -> None:
    for given, kind in (["Stopped"], "succeeded"), (["failed"], "ModelArtsProcessorTaskFailed"):
        task_id = world.state.add_task(status=1).task_id
        world.at(world.now + 20, lambda task_id=task_id: world.state.fail(task_id, "no samples"))
        waiting = sensor(task_id, failed_statuses=given, timeout=3600, **mode)
        assert outcome_of(waiting, world, pushed)[0] == kind


@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["poke", *MODES])
def test_an_id_of_digits_that_was_rendered_natively_is_text(
    world: World, pushed: list[Any], mode: dict[str, Any]
) -> None:
    _, told = outcome_of(sensor(7, **mode), world, pushed)  # type: ignore[arg-type]  # as native rendering makes it
    assert "No processing task '7'" in told or "processing task '7'" in told
    assert world.state.log.count("DescribeProcessorTask") >= 1


@pytest.mark.skipif(AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 can")
def test_before_airflow_3_3_it_defers_from_the_worker_and_says_why(world: World, lines: list[str]) -> None:
    waiting = sensor(world.state.add_task(status=1).task_id, start_from_trigger=True, end_from_trigger=True)
    assert reasons(lines) == []
    deferred = deferral(waiting, world)
    assert deferred.trigger.end_from_trigger is False
    assert reasons(lines) == [
        "This wait uses a worker: start_from_trigger is not possible, since it needs Airflow 3.3.",
        "This wait uses a worker: end_from_trigger is not possible, since it needs Airflow 3.3.",
    ]


def test_a_dag_file_pays_for_no_library_beside_what_airflow_has_loaded() -> None:
    script = (
        "import sys; from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseSensorOperator; "
        "before = set(sys.modules); import airflow_modelarts.operators as operators, airflow_modelarts.sensors; "
        "[getattr(operators, name) for name in operators.__all__]; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(new.difference(sys.stdlib_module_names)), sep='|')"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.strip().splitlines()[-1].split("|")) <= {"airflow", "airflow_modelarts"}


def test_a_dag_file_pays_for_no_more_than_the_sensor() -> None:
    script = (
        "import sys; from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor as S; "
        "S(task_id='wait', processor_task_id='abc', deferrable=True); "
        "print(*sorted(name for name in sys.modules if name.startswith('airflow_modelarts.')), sep='|')"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.strip().splitlines()[-1].split("|"))
    assert "airflow_modelarts.sensors" in loaded
    heavy = {
        f"airflow_modelarts.{name}"
        for name in ("hooks", "transport", "polling.watcher", "triggers", "api.models", "testing")
    }
    assert all(find_spec(name) for name in heavy)
    assert loaded.isdisjoint(heavy)
