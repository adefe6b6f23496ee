"""A DAG that the end of a processing task starts, across a restart of the triggerer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox
from tests.support.waiting import TIMEOUT, wait_until

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="needs the asset state store of Airflow 3.3")


@pytest.fixture(scope="module")
def watching() -> Iterator[tuple[Sandbox, EmulatorServer]]:
    """An Airflow of its own: runs that assets start need the scheduler's schedules."""
    dags = Path(__file__).parent / "event_dags"
    with EmulatorServer(task_duration=10_000) as emulator:
        connections = {"modelarts_default": emulator.airflow_connection()}
        schedules = {"AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True"}
        with Sandbox(dags, connections=connections, environment=schedules) as sandbox:
            sandbox.wait_for_dags("on_end", "on_end_too", "on_failure", timeout=180)
            yield sandbox, emulator


def received(sandbox: Sandbox, dag_id: str) -> Counter[str]:
    """Count how many events a DAG has received of each processing task."""
    xcoms = [xcom for run_id in sandbox.api.runs(dag_id) for xcom in sandbox.api.xcoms(dag_id, run_id)]
    return Counter(name for xcom in xcoms if xcom.key == "return_value" for name in xcom.value)


def events(sandbox: Sandbox, asset: str) -> list[str]:
    """Return the names of the processing tasks in the events of an asset."""
    return [event.extra["payload"]["name"] for event in sandbox.api.asset_events() if event.name == asset]


def checkpoints(sandbox: Sandbox, processor_task_id: str) -> int:
    """Count the assets whose checkpoint contains the end of a task."""
    values = [value for asset in sandbox.api.asset_ids() for value in sandbox.api.asset_state(asset).values()]
    return sum(processor_task_id in value["ended"] for value in values)


def test_every_end_starts_one_run_even_if_the_triggerer_is_killed(watching: tuple[Sandbox, EmulatorServer]) -> None:
    sandbox, emulator = watching
    state = emulator.state
    before = [state.add_task(f"watched-before-{number}") for number in range(3)]
    state.add_task("other")
    state.add_task("watched-long-ago", status=2).created_at -= 3600

    def polls() -> int:
        return state.log.count("ListProcessorTasks")

    wait_until(lambda: polls() > 6, "the first polls")
    # One after the other: of two events at once, Airflow's scheduler may leave the second to the next run.
    state.finish(before[0].task_id)
    wait_until(lambda: received(sandbox, "on_end").total() >= 1, "the first end")
    state.fail(before[1].task_id, "no luck")
    wait_until(lambda: received(sandbox, "on_end").total() >= 2, "the second end")
    wait_until(lambda: received(sandbox, "on_failure").total() >= 1, "the failure")
    # An end is stored after it was sent: a kill in between would send it twice.
    wait_until(lambda: checkpoints(sandbox, before[1].task_id) == 3, "the checkpoints")

    sandbox.component("triggerer").kill()
    state.finish(before[2].task_id)
    meanwhile = state.add_task("watched-meanwhile")
    state.finish(meanwhile.task_id)
    sandbox.restart("triggerer")
    names = [*(task.name for task in before), meanwhile.name]
    wait_until(lambda: len(events(sandbox, "ends")) >= 4, "the ends while the triggerer was down")
    count = polls()
    wait_until(lambda: polls() > count + 9, "more polls")

    assert sorted(events(sandbox, "ends")) == sorted(names)
    assert events(sandbox, "ends_too") == events(sandbox, "ends")
    assert events(sandbox, "failures") == [before[1].name]


def test_all_watchers_of_a_connection_share_one_poll(watching: tuple[Sandbox, EmulatorServer]) -> None:
    _, emulator = watching
    held = emulator.faults.hold(operation="ListProcessorTasks")
    assert held.wait(TIMEOUT), "there is no poll"
    count = emulator.state.log.count("ListProcessorTasks")
    time.sleep(5)  # another poll loop would poll several times
    polled = emulator.state.log.count("ListProcessorTasks") - count
    held.release()
    assert polled == 0, "another poll loop runs while this one is held"
