"""Runs a sensor in each mode as Airflow would, deferrals and reschedules included, on a simulated clock."""

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import airflow
import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import BaseSensorOperator, TaskDeferred, XCom
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor
from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from tests.support.task_instances import TaskInstance
from tests.support.virtual import EPOCH, run

AIRFLOW_2 = airflow.__version__.startswith("2.")
#: The poke interval, and the step of the simulated clock while a trigger waits, in seconds.
TICK = 5.0
TIMED_OUT = "Trigger/execution timeout" if AIRFLOW_2 else "Trigger timeout"
MODES: dict[str, dict[str, Any]] = {
    "poke": {},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
    "end_from_trigger": {"end_from_trigger": True},
}


@dataclass
class Simulation:
    """The emulator and a clock, which replaces that of every module that sleeps or reads the time.

    :param now: seconds since the test began.
    :param pushed: the XComs that triggers pushed.
    :param instance: the try that runs.
    """

    state: EmulatorState
    now: float = 0.0
    pushed: list[Any] = field(default_factory=list)
    instance: Any = None
    _scheduled: list[tuple[float, Callable[[], Any]]] = field(default_factory=list)

    def reset(self) -> None:
        self.state.reset()
        self.state.clock.freeze()
        self._scheduled.clear()
        self.now = 0.0

    def time(self) -> float:
        return EPOCH + self.now

    def utcnow(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)

    def sleep(self, seconds: float) -> None:
        before, self.now = self.now, self.now + seconds
        self.state.clock.advance(seconds)
        for moment, action in self._scheduled:
            if before < moment <= self.now:
                action()

    def at(self, moment: float, action: Callable[[], Any]) -> None:
        """Carry out an action when the clock reaches a time."""
        self._scheduled.append((moment, action))

    def start_try(self) -> None:
        """Start a try of the Airflow task."""
        began = self.utcnow()
        self.instance = TaskInstance(task_id="wait", start_date=began)
        self.instance.get_first_reschedule_date = lambda _: began


@pytest.fixture
def simulation(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    simulation = Simulation(emulator.state)
    simulation.reset()
    monkeypatch.setattr("time.sleep", simulation.sleep)
    clock = SimpleNamespace(monotonic=simulation.time, sleep=simulation.sleep, time=simulation.time)
    base = importlib.import_module(BaseSensorOperator.__module__)
    monkeypatch.setattr(base, "time", clock)
    monkeypatch.setattr(base, "timezone", SimpleNamespace(utcnow=simulation.utcnow))
    monkeypatch.setattr("airflow_modelarts.sensors.time", clock)
    monkeypatch.setattr(XCom, "set", lambda *, value, **_: simulation.pushed.append(value))
    if AIRFLOW_2:
        monkeypatch.setattr(base, "_orig_start_date", lambda **_: simulation.instance.get_first_reschedule_date({}))
    return simulation


def sensor(processor_task_id: str, **arguments: Any) -> ModelArtsProcessorTaskSensor:
    usual = {"task_id": "wait", "poke_interval": TICK, "timeout": 150, "deferrable": False}
    return ModelArtsProcessorTaskSensor(processor_task_id=processor_task_id, **{**usual, **arguments})


def defer(waiting: ModelArtsProcessorTaskSensor, simulation: Simulation) -> TaskDeferred:
    """Execute a sensor that defers, and return its deferral."""
    simulation.start_try()
    with pytest.raises(TaskDeferred) as caught:
        waiting.execute({"ti": simulation.instance})
    return caught.value


def run_trigger(deferred: TaskDeferred, simulation: Simulation) -> TriggerEvent | None:
    """Run a trigger until its event; None if the timeout of the deferral comes first."""
    assert deferred.timeout is not None
    ends_at = simulation.now + deferred.timeout.total_seconds()
    path, arguments = deferred.trigger.serialize()
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**arguments)
    trigger.task_instance = simulation.instance

    async def first_event() -> TriggerEvent:
        (event,) = [event async for event in trigger.run()]
        return event

    async def wait() -> TriggerEvent | None:
        waiting = asyncio.create_task(first_event())
        while simulation.now < ends_at:
            done, _ = await asyncio.wait([waiting], timeout=TICK)
            if done:
                return waiting.result()
            simulation.sleep(TICK)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return None

    return run(wait())


def run_sensor(waiting: ModelArtsProcessorTaskSensor, simulation: Simulation, **others: Any) -> Any:
    """Execute a sensor, and return its XCom; the context has these values too."""
    simulation.start_try()
    context: Any = {"ti": simulation.instance, **others}
    proceed: Callable[[], Any] = lambda: waiting.execute(context)  # noqa: E731
    while True:
        try:
            return proceed()
        except AirflowRescheduleException as reschedule:
            simulation.sleep((reschedule.reschedule_date - simulation.utcnow()).total_seconds())
        except TaskDeferred as deferred:
            event = run_trigger(deferred, simulation)
            if isinstance(event, TaskSuccessEvent):
                return simulation.pushed[-1]
            method, arguments = deferred.method_name, {**(deferred.kwargs or {})}
            if event is None:
                method, arguments = "__fail__", {"error": TIMED_OUT}
            else:
                arguments["event"] = event.payload

            def proceed(method: str = method, arguments: dict[str, Any] = arguments) -> Any:
                return waiting.resume_execution(method, arguments, context)


def outcome_of(waiting: ModelArtsProcessorTaskSensor, simulation: Simulation) -> tuple[str, Any]:
    """Return the XCom, or the class of the exception and its message, unless Airflow words that."""
    try:
        return "succeeded", run_sensor(waiting, simulation)
    except Exception as error:
        # Airflow words a timeout, and a skip after one, differently in each mode.
        is_timeout = simulation.now >= waiting.timeout - TICK
        return type(error).__name__, "" if is_timeout else str(error)


def reasons(lines: list[str]) -> list[str]:
    """Return why a worker does what was requested of the triggerer."""
    return [line for line in lines if line.startswith("This wait uses a worker")]
