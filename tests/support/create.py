"""What the tests of the create operators share: tries of a task instance, its state store, and the operators."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.operators import (
    ModelArtsCreateProcessorTaskOperator,
    ModelArtsCreateProcessorTaskVersionOperator,
    queued_submission,
    running,
)
from airflow_modelarts.operators.submission_store import RECORD_KEY
from airflow_modelarts.submission_trigger import ProcessorTaskSubmissionTrigger
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support import virtual
from tests.support.task_instances import TaskInstance

EXAMPLES = Path(__file__).parents[1] / "data" / "contract" / "examples"
VALIDATION = {"id": "sys_data_validation", "operator_params": [{"name": "MetaValidation", "params": {}}]}
INPUTS = [{"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}]

needs_state_store = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="the task state store came with Airflow 3.3")


class Store(dict[str, Any]):
    """Airflow's task state store, as far as it is used."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Try:
    """One try of an Airflow task instance; the next has the same store."""

    def __init__(self, store: Store | None = None, *, number: int = 1, max_tries: int = 2) -> None:
        self.store = Store() if store is None else store
        #: The state of the task instance in Airflow; empty if its row was deleted.
        self.states: list[str | None] = ["failed"]
        self.has_store = True
        self.number = number
        self.ti: Any = TaskInstance(task_id="run", run_id="manual", try_number=number, max_tries=max_tries)
        self.ti.get_task_states = lambda **_: {"manual": dict(zip(["run"], self.states, strict=False))}
        self.xcoms = self.ti.xcoms

    def next(self, *, cleared: bool = False) -> Try:
        max_tries = self.ti.max_tries + self.number if cleared else self.ti.max_tries
        return Try(self.store, number=self.number + 1, max_tries=max_tries)

    @property
    def context(self) -> Any:
        return {"ti": self.ti, **({"task_state_store": self.store} if self.has_store else {})}


class Killed(BaseException):
    """A crash of the worker."""


@pytest.fixture(scope="module")
def server() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=0.05) as running:
        yield running


def operator(**arguments: Any) -> ModelArtsCreateProcessorTaskOperator:
    given: dict[str, Any] = {"template": VALIDATION, "inputs": INPUTS, "poll_interval": 0.02, **arguments}
    return ModelArtsCreateProcessorTaskOperator(task_id="run", **{"name": "check", **given})


def tasks(emulator: EmulatorServer) -> list[Task]:
    return emulator.state.all_tasks()


def run(arguments: dict[str, Any], attempt: Try) -> Any:
    return operator(**arguments).execute(attempt.context)


def version_operator(task: Task, **arguments: Any) -> ModelArtsCreateProcessorTaskVersionOperator:
    return ModelArtsCreateProcessorTaskVersionOperator(
        **{"task_id": "again", "processor_task_id": task.task_id, "poll_interval": 0.02, **arguments}
    )


@pytest.fixture
def original(emulator: EmulatorServer) -> Task:
    body = {
        "inputs": INPUTS,
        "work_path": {"type": "OBS", "path": "obs://bucket/o", "version_name": "V1"},
        "description": "old",
    }
    return emulator.state.add_task("original", template="sys_data_validation", status=2, body=body)


def set_seconds_since_start(attempt: Try, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the clock of the operators to this time after the start of the try; it stands still."""
    clock = SimpleNamespace(time=lambda: attempt.ti.start_date.timestamp() + seconds, monotonic=time.monotonic)
    monkeypatch.setattr(running, "time", clock)
    monkeypatch.setattr(queued_submission, "time", clock)


def deferral(attempt: Try, **arguments: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        run({"deferrable": True, "wait_for_capacity": False, **arguments}, attempt)
    return caught.value


def unconfirmed(intent: Any) -> Try:
    """Return the try after one that crashed before it knew the outcome; its record is of version 1.0.0."""
    store = Store()
    store.set(RECORD_KEY, {"intent": intent, "max_tries": 2})
    return Try(store, number=2)


def deferred(emulator: EmulatorServer, attempt: Try | None = None, **arguments: Any) -> tuple[Try, Task]:
    """Return a try that waits in the triggerer, and its processing task, which runs and does not end."""
    emulator.state.next_task(duration=1000)
    attempt = attempt or Try()
    deferral(attempt, **arguments)
    task = tasks(emulator)[-1]
    emulator.state.set_status(task.task_id, 1)
    return attempt, task


def queued(attempt: Try, **arguments: Any) -> TaskDeferred:
    """Run the worker at the start, and return its deferral."""
    with pytest.raises(TaskDeferred) as caught:
        operator(**{**arguments, "deferrable": True}).execute(attempt.context)
    assert isinstance(caught.value.trigger, ProcessorTaskSubmissionTrigger)
    return caught.value


def triggered(deferral: TaskDeferred) -> dict[str, Any]:
    """Run the trigger as a triggerer does, from what Airflow stores of it."""

    async def main() -> Any:
        stored = deferral.trigger.serialize()[1]
        (event,) = [event async for event in type(deferral.trigger)(**stored).run()]
        return event.payload

    payload: dict[str, Any] = virtual.run(main())
    return payload


def resumed(attempt: Try, deferral: TaskDeferred, event: dict[str, Any], **arguments: Any) -> Any:
    """Run the worker at the end."""
    return operator(**{**arguments, "deferrable": True}).execute_complete(
        attempt.context, event, **(deferral.kwargs or {})
    )
