"""A DAG that the end of a processing task starts, across a restart of the triggerer."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.polling.checkpoint_store import SENT_AFTER
from airflow_modelarts.polling.checkpoints import Checkpoint
from airflow_modelarts.polling.known_ends import identify
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from airflow_modelarts.testing.sandbox import Sandbox
from tests.support.service import new_version
from tests.support.waiting import TIMEOUT, wait_until

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="needs the asset state store of Airflow 3.3")


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the DAGs, which a test changes."""
    return Path(shutil.copytree(Path(__file__).parent / "event_dags", tmp_path_factory.mktemp("dags") / "dags"))


@pytest.fixture(scope="module")
def watching(dags: Path) -> Iterator[tuple[Sandbox, EmulatorServer]]:
    """An Airflow of its own: runs that assets start need the scheduler's schedules."""
    with EmulatorServer(task_duration=10_000) as emulator:
        connections = {"modelarts_default": emulator.airflow_connection()}
        schedules = {
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",
            # A changed DAG file is read soon.
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
        }
        with Sandbox(dags, connections=connections, environment=schedules) as sandbox:
            sandbox.wait_for_dags("on_end", "on_end_too", "on_failure", timeout=TIMEOUT)
            yield sandbox, emulator


def received(sandbox: Sandbox, dag_id: str) -> Counter[str]:
    """Count how many events a DAG has received of each processing task."""
    xcoms = [xcom for run_id in sandbox.api.runs(dag_id) for xcom in sandbox.api.xcoms(dag_id, run_id)]
    return Counter(name for xcom in xcoms if xcom.key == "return_value" for name in xcom.value)


def payloads(sandbox: Sandbox, asset: str) -> list[dict[str, Any]]:
    return [event.extra["payload"] for event in sandbox.api.asset_events() if event.name == asset]


def events(sandbox: Sandbox, asset: str) -> list[str]:
    """Return the names of the processing tasks in the events of an asset."""
    return [payload["name"] for payload in payloads(sandbox, asset)]


def checkpoints(sandbox: Sandbox) -> dict[tuple[int, str], Any]:
    """Return the stored checkpoints by asset and key."""
    return {
        (asset, key): value
        for asset in sandbox.api.asset_ids()
        for key, value in sandbox.api.asset_state(asset).items()
        if key.startswith("modelarts_processor_tasks_")
    }


def knowing(sandbox: Sandbox, processor_task_id: str) -> int:
    """Count the assets whose checkpoint contains the end of a task."""
    restored = (Checkpoint.restore(stored) for stored in checkpoints(sandbox).values())
    return sum(checkpoint is not None and identify(processor_task_id) in checkpoint.ends for checkpoint in restored)


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
    wait_until(lambda: knowing(sandbox, before[1].task_id) == 3, "the checkpoints")

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


def polls(emulator: EmulatorServer) -> Callable[[int], Callable[[], bool]]:
    """Return a function of a number; it returns a condition that is true after so many more lists."""
    before = emulator.state.log.count("ListProcessorTasks")
    return lambda more: lambda: emulator.state.log.count("ListProcessorTasks") > before + more


def run_again(emulator: EmulatorServer, task: Task) -> None:
    """Add a version that is complete at once."""
    with emulator.state._lock:
        new_version(emulator.state, task, name=task.name, template={"id": task.template_id, "operator_params": []})
        emulator.state.finish(task.task_id)


def test_a_task_that_runs_again_faster_than_a_poll_or_while_the_triggerer_is_down_has_an_event_for_each_end(
    watching: tuple[Sandbox, EmulatorServer],
) -> None:
    sandbox, emulator = watching
    task = emulator.state.add_task("watched-again", template="sys_data_validation", body={"create_version": True})

    def mine() -> list[dict[str, Any]]:
        return [one for one in payloads(sandbox, "ends") if one["name"] == "watched-again"]

    wait_until(polls(emulator)(6), "polls of the active task")
    emulator.state.fail(task.task_id)
    wait_until(lambda: len(mine()) == 1, "the first end")
    run_again(emulator, task)
    wait_until(lambda: len(mine()) == 2, "the end between two polls")
    wait_until(lambda: knowing(sandbox, task.task_id) == 3, "the checkpoints")
    time.sleep(SENT_AFTER + 1)
    sandbox.component("triggerer").kill()
    run_again(emulator, task)
    sandbox.restart("triggerer")
    wait_until(lambda: len(mine()) == 3, "the end while the triggerer was down")
    assert sorted((one["status"], one["version_count"]) for one in mine()) == [(2, 2), (2, 3), (3, 1)]
    assert len({one["dedupe_key"] for one in mine()}) == 3


def test_tasks_that_have_left_the_lists_are_read_once_and_only_if_a_watcher_wants_them(
    watching: tuple[Sandbox, EmulatorServer],
) -> None:
    sandbox, emulator = watching
    state = emulator.state
    wanted = [state.add_task(f"watched-lost-{number}") for number in range(5)]
    others = [state.add_task(f"lost-{number}") for number in range(20)]
    for task in (*wanted, *others):
        task.created_at -= 7200
    for task in state.add_tasks(1500, status=2):
        task.created_at -= 3600
    wait_until(polls(emulator)(10), "polls of the active tasks")
    before = state.log.count("DescribeProcessorTask")
    with state._lock:
        for task in (*wanted, *others):
            state.finish(task.task_id)
    names = {task.name for task in wanted}
    wait_until(lambda: names <= set(events(sandbox, "ends_too")), "the ends")
    wait_until(polls(emulator)(10), "more polls")
    assert state.log.count("DescribeProcessorTask") - before <= len(wanted)
    counts = Counter(events(sandbox, "ends"))
    assert [counts[name] for name in sorted(names)] == [1] * len(wanted)


def test_a_checkpoint_is_small_stays_while_nothing_happens_and_follows_a_changed_filter(
    watching: tuple[Sandbox, EmulatorServer], dags: Path
) -> None:
    sandbox, emulator = watching
    wait_until(polls(emulator)(6), "polls")
    time.sleep(SENT_AFTER + 1)
    before = checkpoints(sandbox)
    wait_until(polls(emulator)(15), "polls without a change")
    assert checkpoints(sandbox) == before
    assert len(before) == 3
    assert max(len(json.dumps(stored)) for stored in before.values()) < 16_000

    source = dags / "on_completion.py"
    source.write_text(source.read_text().replace("statuses=[3]", "statuses=[3, 4]"))
    wait_until(lambda: len(set(checkpoints(sandbox)) - set(before)) == 1, "the checkpoint of the changed filter")
    stopped = emulator.state.add_task("watched-stopped")
    failures = events(sandbox, "failures")
    emulator.state.stop(stopped.task_id)
    wait_until(lambda: len(events(sandbox, "failures")) > len(failures), "the end that the filter selects now")
    assert events(sandbox, "failures")[len(failures) :] == ["watched-stopped"]
    # It is removed when the old watcher is gone and the new one has something to save.
    wait_until(lambda: len(checkpoints(sandbox)) == 3, "the removal of the old checkpoint")
