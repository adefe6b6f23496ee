"""What is promised on every supported Airflow, in that Airflow; where an older one cannot, that it does without.

The gate runs this on each version that the README names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS, AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from airflow_modelarts.testing.sandbox import Sandbox

DAGS = Path(__file__).parent / "dags"
MODES = ("poke", "reschedule", "deferrable", "triggerer")
RUNNING, COMPLETED, STOPPED = 1, 2, 4
#: Seconds for whatever should take a few, on a busy machine.
PATIENCE = 400.0


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=2.0) as server:
        yield server


@pytest.fixture(scope="module")
def sandbox(emulator: EmulatorServer) -> Iterator[Sandbox]:
    connections = {"modelarts_default": emulator.airflow_connection()}
    environment = {
        # Runs that assets start need the scheduler's schedules.
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",
    }
    with Sandbox(DAGS, connections=connections, environment=environment) as running:
        running.wait_for_dags("waits", "create_worker", "create_deferred", timeout=180)
        yield running


def states(sandbox: Sandbox, dag_id: str, run_id: str) -> dict[str, str | None]:
    return {instance.task_id: instance.state for instance in sandbox.task_instances(dag_id, run_id)}


def pushed(sandbox: Sandbox, dag_id: str, run_id: str) -> dict[tuple[str, str], Any]:
    return {(xcom.task_id, xcom.key): xcom.value for xcom in sandbox.xcoms(dag_id, run_id)}


class User:
    """Somebody at Airflow's public API, who tries again while the database is locked."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._url = f"{sandbox.url}/api/{'v2' if AIRFLOW_V_3_0_PLUS else 'v1'}"
        if AIRFLOW_V_3_0_PLUS:
            token = self._session.get(f"{sandbox.url}/auth/token", timeout=60).json()["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"

    def marks_as_failed(self, dag_id: str, run_id: str) -> None:
        order = {"new_state": "failed"} if AIRFLOW_V_3_0_PLUS else {"new_state": "failed", "dry_run": False}
        self._ask("PATCH", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/run", order)

    def clears(self, dag_id: str, run_id: str) -> None:
        order = {"dry_run": False, "only_failed": False, "dag_run_id": run_id, "task_ids": ["run"]}
        self._ask("POST", f"dags/{dag_id}/clearTaskInstances", order)

    def _ask(self, method: str, path: str, body: dict[str, Any]) -> None:
        def is_done() -> bool:
            answer = self._session.request(method, f"{self._url}/{path}", json=body, timeout=60)
            assert answer.status_code < 500 or "locked" in answer.text, answer.text
            assert answer.ok or answer.status_code >= 500, answer.text
            return answer.ok

        wait_until(is_done, f"{method} {path}")


@pytest.fixture(scope="module")
def user(sandbox: Sandbox) -> User:
    return User(sandbox)


def wait_until(condition: Callable[[], bool], what: Callable[[], str] | str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"this did not come: {what if isinstance(what, str) else what()}"
        time.sleep(0.3)


class Run:
    """A run of ``create_worker`` or ``create_deferred``, whose first processing task goes on until it is told to end.

    The later ones end by themselves.
    """

    def __init__(self, sandbox: Sandbox, emulator: EmulatorServer, way: str) -> None:
        self.sandbox, self.state, self.dag_id = sandbox, emulator.state, f"create_{way}"
        self._before = {task.task_id for task in self.state.all_tasks()}
        self.state.next_task(name=f"create-{way}-*", duration=100_000)
        self.run_id = sandbox.trigger(self.dag_id)
        wait_until(lambda: bool(self.tasks), self.log)
        (self.first,) = self.tasks
        self.state.set_status(self.first.task_id, RUNNING)  # while it is initializing, the service stops nothing
        waits = "deferred" if way == "deferred" else "running"
        wait_until(lambda: states(sandbox, self.dag_id, self.run_id)["run"] == waits, self.log)
        # Whoever waits for it is there to be killed when it polls.
        count = self._polls()
        wait_until(lambda: self._polls() > count + 2, self.log)

    @property
    def tasks(self) -> list[Task]:
        return [task for task in self.state.all_tasks() if task.task_id not in self._before]

    def status(self, task: Task) -> int:
        return self.state.status(task.task_id)

    def log(self) -> str:
        return self.sandbox.task_log(self.dag_id, self.run_id, "run")

    def ends(self) -> str:
        return self.sandbox.wait(self.dag_id, self.run_id, timeout=PATIENCE)

    def _polls(self) -> int:
        return self.state.log.count("DescribeProcessorTaskVersion") + self.state.log.count("DescribeProcessorTask")


# The sensor


@pytest.fixture(scope="module")
def run_of_waits(sandbox: Sandbox, emulator: EmulatorServer) -> tuple[str, dict[str, str]]:
    """One run of the DAG ``waits``, over before the tests look at it."""
    running = {mode: emulator.state.add_task(duration=10_000).task_id for mode in MODES}
    ids = {**running, "failed": emulator.state.add_task(status=3, error_msg="the bucket is full").task_id}
    run_id = sandbox.trigger("waits", conf=ids)

    def end_what_is_waited_for(_: object) -> None:
        for mode, processor_task_id in list(running.items()):
            if f"'{processor_task_id}' is " in sandbox.task_log("waits", run_id, f"{mode}_good"):
                emulator.state.finish(processor_task_id)
                del running[mode]

    sandbox.wait("waits", run_id, timeout=600, watch=end_what_is_waited_for)
    return run_id, ids


@pytest.mark.parametrize("mode", MODES)
def test_a_wait_in_this_mode_ends_as_its_processing_task_does(
    sandbox: Sandbox, run_of_waits: tuple[str, dict[str, str]], mode: str
) -> None:
    run_id, ids = run_of_waits
    logs = {name: sandbox.task_log("waits", run_id, f"{mode}_{name}") for name in ("good", "bad")}
    found = states(sandbox, "waits", run_id)
    assert (found[f"{mode}_good"], found[f"{mode}_bad"]) == ("success", "failed"), logs
    outcome = {"task_id": ids[mode], "status": 2, "status_name": "completed"}
    assert pushed(sandbox, "waits", run_id)[f"{mode}_good", "return_value"] == outcome
    assert f"Processing task '{ids['failed']}' failed: the bucket is full" in logs["bad"]


def test_a_wait_without_a_worker_takes_one_before_airflow_3_3_and_says_why(
    sandbox: Sandbox, run_of_waits: tuple[str, dict[str, str]]
) -> None:
    run_id, _ = run_of_waits
    log = sandbox.task_log("waits", run_id, "triggerer_good")
    for what in ("end_from_trigger", "start_from_trigger"):
        said = f"This wait uses a worker: {what} is not possible, since it needs Airflow 3.3."
        assert (said in log) == (not AIRFLOW_V_3_3_PLUS), log


# Creating


@pytest.mark.parametrize("way", ["worker", "deferred"])
def test_a_processing_task_is_created_waited_for_and_handed_on(
    sandbox: Sandbox, emulator: EmulatorServer, way: str
) -> None:
    run_id = sandbox.trigger(f"create_{way}")
    ended = sandbox.wait(f"create_{way}", run_id, timeout=PATIENCE)
    log = sandbox.task_log(f"create_{way}", run_id, "run")
    assert ended == "success", log
    values = pushed(sandbox, f"create_{way}", run_id)
    created = values["run", "return_value"]
    assert (created["task_id"], created["status_name"]) == (values["run", "processor_task_id"], "completed")
    assert emulator.state.status(created["task_id"]) == COMPLETED
    assert values["run", "version"]["status_name"] == "completed"
    assert values["use", "return_value"] == {"type": "OBS", "path": "/versions/out/"}
    # Before Airflow 3.3 nothing is remembered between tries, and whoever runs it is told.
    assert ("a try after a crash runs another one" in log) == (not AIRFLOW_V_3_3_PLUS), log


def is_stopped_when_killed(way: str) -> bool:
    """By the README's table: triggers can notice that they are killed since Airflow 3.3, workers always."""
    return way == "worker" or AIRFLOW_V_3_3_PLUS


@pytest.mark.parametrize("way", ["worker", "deferred"])
def test_marked_as_failed_its_version_is_stopped_where_airflow_tells(
    sandbox: Sandbox, emulator: EmulatorServer, user: User, way: str
) -> None:
    run = Run(sandbox, emulator, way)
    user.marks_as_failed(run.dag_id, run.run_id)
    assert run.ends() == "failed", run.log()
    if is_stopped_when_killed(way):
        wait_until(lambda: run.status(run.first) == STOPPED, run.log)
    else:
        another = sandbox.trigger(run.dag_id)  # when it is over, the triggerer has dropped the first long since
        assert sandbox.wait(run.dag_id, another, timeout=PATIENCE) == "success"
        assert run.status(run.first) == RUNNING


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            "worker",
            marks=pytest.mark.skipif(
                not AIRFLOW_V_3_0_PLUS, reason="the API of Airflow 2.11 does not clear what a worker runs"
            ),
        ),
        "deferred",
    ],
)
def test_cleared_it_runs_another_one_and_stops_the_first_where_airflow_tells(
    sandbox: Sandbox, emulator: EmulatorServer, user: User, way: str
) -> None:
    run = Run(sandbox, emulator, way)
    user.clears(run.dag_id, run.run_id)
    if is_stopped_when_killed(way):
        wait_until(lambda: run.status(run.first) == STOPPED, run.log)
    if way == "worker" and not AIRFLOW_V_3_1_PLUS:
        return  # Airflow 3.0 leaves it "restarting"
    wait_until(lambda: len(run.tasks) > 1, run.log)
    assert run.ends() == "success", run.log()
    first, second = run.tasks
    assert run.status(first) == (STOPPED if is_stopped_when_killed(way) else RUNNING)
    assert run.status(second) == COMPLETED
    assert pushed(sandbox, run.dag_id, run.run_id)["run", "return_value"]["task_id"] == second.task_id


def test_when_its_time_is_over_while_deferred_its_version_is_stopped_from_airflow_3_on(
    sandbox: Sandbox, emulator: EmulatorServer
) -> None:
    sandbox.wait_for_dags("timed_out", timeout=180)
    emulator.state.next_task(name="timed-out-*", duration=100_000)
    run_id = sandbox.trigger("timed_out")

    def tasks() -> list[Task]:
        return [task for task in emulator.state.all_tasks() if task.name.startswith("timed-out-")]

    def log() -> str:
        return sandbox.task_log("timed_out", run_id, "run")

    wait_until(lambda: bool(tasks()), log)
    (task,) = tasks()
    emulator.state.set_status(task.task_id, RUNNING)
    assert sandbox.wait("timed_out", run_id, timeout=PATIENCE) == "failed", log()
    # Airflow 2 fails the task without letting the operator know.
    assert emulator.state.status(task.task_id) == (STOPPED if AIRFLOW_V_3_0_PLUS else RUNNING), log()


# Starting a DAG


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="asset watchers came with Airflow 3")
def test_the_end_of_a_processing_task_starts_a_dag(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    sandbox.wait_for_dags("on_end", timeout=180)
    task = emulator.state.add_task("watched-one", duration=10_000)

    def polls() -> int:
        return emulator.state.log.count("ListProcessorTasks")

    count = polls()
    wait_until(lambda: polls() > count + 3, "a poll of the watcher")
    emulator.state.finish(task.task_id)

    def told() -> list[Any]:
        runs = sandbox.api.runs("on_end")
        return [value for run_id in runs for value in pushed(sandbox, "on_end", run_id).values()]

    wait_until(lambda: [task.name] in told(), "a run of on_end")
