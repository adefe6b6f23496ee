"""A DAG that starts when a processing task ends, in real Airflow, across a restart of the triggerer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox

pytestmark = pytest.mark.skipif(
    not AIRFLOW_V_3_3_PLUS, reason="asset watchers came with Airflow 3, their store with 3.3"
)


@pytest.fixture(scope="module")
def watching() -> Iterator[tuple[Sandbox, EmulatorServer]]:
    """An Airflow of its own, since runs that assets start need the scheduler's schedules."""
    dags = Path(__file__).parent / "event_dags"
    with EmulatorServer(task_duration=10_000) as emulator:
        connections = {"modelarts_default": emulator.airflow_connection()}
        schedules = {"AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True"}
        with Sandbox(dags, connections=connections, environment=schedules) as sandbox:
            sandbox.wait_for_dags("on_end", "on_end_too", "on_failure", timeout=180)
            yield sandbox, emulator


def told(sandbox: Sandbox, dag_id: str) -> Counter[str]:
    """Count how often each processing task was told of to a DAG."""
    xcoms = [xcom for run_id in sandbox.api.runs(dag_id) for xcom in sandbox.api.xcoms(dag_id, run_id)]
    return Counter(name for xcom in xcoms if xcom.key == "return_value" for name in xcom.value)


def events(sandbox: Sandbox, asset: str) -> list[str]:
    """Return the names of the processing tasks that an asset's events are about."""
    return [event.extra["payload"]["name"] for event in sandbox.api.asset_events() if event.name == asset]


def noted(sandbox: Sandbox, processor_task_id: str) -> int:
    """Count the assets for which it is stored that the end of a task was told."""
    values = [value for asset in sandbox.api.asset_ids() for value in sandbox.api.asset_state(asset).values()]
    return sum(processor_task_id in value["ended"] for value in values)


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def test_every_end_starts_a_run_once_even_across_a_killed_triggerer(watching: tuple[Sandbox, EmulatorServer]) -> None:
    sandbox, emulator = watching
    state = emulator.state
    before = [state.add_task(f"watched-before-{number}") for number in range(3)]
    state.add_task("other")
    state.add_task("watched-long-ago", status=2).created_at -= 3600

    def polls() -> int:
        return state.log.count("ListProcessorTasks")

    wait_until(lambda: polls() > 6, "nobody polls")
    # One after the other: of two events in one moment, Airflow's scheduler may hold the second back for the next run.
    state.finish(before[0].task_id)
    wait_until(lambda: told(sandbox, "on_end").total() >= 1, "the first end was not told")
    state.fail(before[1].task_id, "no luck")
    wait_until(lambda: told(sandbox, "on_end").total() >= 2, "the second end was not told")
    wait_until(lambda: told(sandbox, "on_failure").total() >= 1, "the failure was not told")
    # An end is noted when it has been sent for sure; one that a kill finds in between is told twice.
    wait_until(lambda: noted(sandbox, before[1].task_id) == 3, "what was told was not noted")

    sandbox.component("triggerer").kill()
    state.finish(before[2].task_id)
    meanwhile = state.add_task("watched-meanwhile")
    state.finish(meanwhile.task_id)
    sandbox.restart("triggerer")
    names = [*(task.name for task in before), meanwhile.name]
    wait_until(lambda: len(events(sandbox, "ends")) >= 4, "what ended meanwhile was not told")
    count = polls()
    wait_until(lambda: polls() > count + 9, "nobody polls any more")

    assert sorted(events(sandbox, "ends")) == sorted(names)
    assert events(sandbox, "ends_too") == events(sandbox, "ends")
    assert events(sandbox, "failures") == [before[1].name]


def test_both_watchers_share_one_poll(watching: tuple[Sandbox, EmulatorServer]) -> None:
    _, emulator = watching
    held = emulator.faults.hold(operation="ListProcessorTasks")
    assert held.wait(60), "nobody polls"
    count = emulator.state.log.count("ListProcessorTasks")
    time.sleep(5)  # some rounds of a poll that nobody holds
    goes_on = emulator.state.log.count("ListProcessorTasks") > count
    held.release()
    assert not goes_on, "another one polls while this one is held"
