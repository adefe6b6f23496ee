"""What a user's hand on a run does to the processing task behind it, in real Airflow; and what a restart does not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from airflow_modelarts.testing.sandbox.sandbox import Component, Sandbox, TaskInstance

DAGS = Path(__file__).parent / "dags"
#: Seconds, as in dags/kills.py.
POLL_INTERVAL = 20
#: Seconds for whatever should take a few, on a busy machine.
PATIENCE = 120.0
#: Seconds after which a triggerer that is silent is taken for dead.
TRIGGERER_GIVEN_UP = 10
RUNNING, COMPLETED, STOPPED = 1, 2, 4

since_3_3 = pytest.mark.skipif(
    not AIRFLOW_V_3_3_PLUS, reason="triggers can notice that they are killed since Airflow 3.3, which remembers too"
)


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=2.0) as server:
        yield server


@pytest.fixture(scope="module")
def sandbox(emulator: EmulatorServer) -> Iterator[Sandbox]:
    connections = {"modelarts_default": emulator.airflow_connection()}
    environment = {"AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(TRIGGERER_GIVEN_UP)}
    with Sandbox(DAGS, only_file=DAGS / "kills.py", connections=connections, environment=environment) as running:
        running.wait_for_dags("mapped", "version", timeout=180)
        yield running


class User:
    """Somebody at Airflow's public API."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._url = f"http://127.0.0.1:{sandbox.port}"
        self._session = requests.Session()
        token = self._session.get(f"{self._url}/auth/token", timeout=60).json()["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def marks_task(self, dag_id: str, run_id: str) -> None:
        self._ask("PATCH", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/run", {"new_state": "failed"})

    def marks_run(self, dag_id: str, run_id: str) -> None:
        self._ask("PATCH", f"dags/{dag_id}/dagRuns/{run_id}", {"state": "failed"})

    def clears(self, dag_id: str, run_id: str) -> None:
        order = {"dry_run": False, "only_failed": False, "dag_run_id": run_id, "task_ids": ["run"]}
        self._ask("POST", f"dags/{dag_id}/clearTaskInstances", order)

    def _ask(self, method: str, path: str, body: dict[str, Any]) -> None:
        answer = self._session.request(method, f"{self._url}/api/v2/{path}", json=body, timeout=60)
        assert answer.ok, answer.text


@pytest.fixture(scope="module")
def user(sandbox: Sandbox) -> User:
    return User(sandbox)


class Running:
    """A run of a DAG with one task, whose processing task is under way."""

    def __init__(self, sandbox: Sandbox, emulator: EmulatorServer, dag_id: str, *, duration: float = 100_000) -> None:
        self.sandbox, self.emulator, self.dag_id = sandbox, emulator, dag_id
        self._before = {task.task_id for task in emulator.state.all_tasks()}
        self._rule = emulator.state.next_task(name=f"{dag_id}-*", duration=duration)
        self.run_id = sandbox.trigger(dag_id)

    @property
    def tasks(self) -> list[Task]:
        """The processing tasks that it has created."""
        return [task for task in self.emulator.state.all_tasks() if task.task_id not in self._before]

    @property
    def instance(self) -> TaskInstance:
        (instance,) = self.sandbox.task_instances(self.dag_id, self.run_id)
        return instance

    @property
    def log(self) -> str:
        return self.sandbox.task_log(self.dag_id, self.run_id, "run")

    def is_there(self) -> Task:
        """Wait for its processing task."""
        self.becomes(lambda: bool(self.tasks), "the processing task")
        return self.tasks[-1]

    def is_running(self) -> Task:
        """Wait for its processing task, and let it run: while it is initializing, the service would not stop it."""
        task = self.is_there()
        self.emulator.state.set_status(task.task_id, RUNNING)
        return task

    def is_deferred(self) -> None:
        """Wait until the triggerer has taken it over."""
        self.becomes(
            lambda: self.instance.state == "deferred" and "starting" in self.log.split("Post Execute")[-1], "it"
        )

    def becomes(self, condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> float:
        """Wait for something, and return how many seconds it took."""
        began = time.monotonic()
        while not condition():
            self.sandbox.check()
            assert time.monotonic() < began + timeout, f"{what} did not come: {self.log}"
            time.sleep(0.05)
        return time.monotonic() - began

    def is_stopped(self, task: Task, timeout: float = PATIENCE) -> float:
        """Wait until the version has stopped, and return how many seconds it took."""
        return self.becomes(lambda: self.status(task) == STOPPED, "the stop", timeout)

    def status(self, task: Task) -> int:
        return self.emulator.state.status(task.task_id)

    def ends(self) -> str:
        return self.sandbox.wait(self.dag_id, self.run_id, timeout=PATIENCE)

    def value(self, key: str) -> Any:
        values = {xcom.key: xcom.value for xcom in self.sandbox.xcoms(self.dag_id, self.run_id)}
        return values[key]


# Left in peace


@pytest.mark.parametrize("path", ["synchronous", "deferrable"])
def test_it_creates_waits_and_hands_on(sandbox: Sandbox, emulator: EmulatorServer, path: str) -> None:
    run = Running(sandbox, emulator, f"happy_{path}", duration=2.0)
    assert run.ends() == "success", run.log
    (task,) = run.tasks
    assert run.value("return_value")["task_id"] == run.value("processor_task_id") == task.task_id
    assert run.value("return_value")["status_name"] == "completed"
    assert run.value("version")["task_version_id"] == task.versions[0].version_id
    assert run.value("work_path") == {"type": "OBS", "path": "obs://bucket/work/"}


def test_a_mapped_one_creates_each(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    run_id = sandbox.trigger("mapped")
    assert sandbox.wait("mapped", run_id, timeout=PATIENCE) == "success"
    names = [task.name for task in emulator.state.all_tasks() if task.name.startswith("mapped-")]
    assert sorted(name.rpartition("-")[0] for name in names) == ["mapped-a", "mapped-b", "mapped-c"]
    returned = [xcom for xcom in sandbox.xcoms("mapped", run_id) if xcom.key == "return_value"]
    assert sorted(xcom.map_index for xcom in returned) == [0, 1, 2]
    assert sorted(xcom.value["name"] for xcom in returned) == sorted(names)


def test_a_version_is_run_and_waited_for(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    original = emulator.state.add_task(template="sys_data_validation", status=COMPLETED)
    run_id = sandbox.trigger("version", conf={"id": original.task_id})
    log = lambda: sandbox.task_log("version", run_id, "run")  # noqa: E731
    assert sandbox.wait("version", run_id, timeout=PATIENCE) == "success", log()
    _, version = original.versions
    values = {xcom.key: xcom.value for xcom in sandbox.xcoms("version", run_id)}
    assert values["version"]["task_version_id"] == version.version_id
    assert values["version"]["status_name"] == "completed"
    assert values["return_value"]["task_id"] == original.task_id
    assert f"Version '{version.version_id}' of processing task '{original.task_id}' is completed" in log()


# Marked as failed


@since_3_3
@pytest.mark.parametrize("what", ["task", "run"])
def test_marked_as_failed_while_deferred_its_version_is_stopped_within_a_poll(
    sandbox: Sandbox, emulator: EmulatorServer, user: User, what: str
) -> None:
    run = Running(sandbox, emulator, "killed_deferrable")
    task = run.is_running()
    run.is_deferred()
    mark = user.marks_task if what == "task" else user.marks_run
    mark(run.dag_id, run.run_id)
    assert run.is_stopped(task) < POLL_INTERVAL
    assert run.ends() == "failed"
    assert len(run.tasks) == 1


@since_3_3
def test_a_version_that_is_initializing_is_stopped_as_soon_as_it_runs(
    sandbox: Sandbox, emulator: EmulatorServer, user: User
) -> None:
    run = Running(sandbox, emulator, "killed_deferrable")
    task = run.is_there()
    run.is_deferred()
    refused = emulator.state.log.count("StopProcessorTaskVersion")
    user.marks_task(run.dag_id, run.run_id)
    run.becomes(
        lambda: emulator.state.log.count("StopProcessorTaskVersion") > refused + 1, "a second attempt to stop it"
    )
    emulator.state.set_status(task.task_id, RUNNING)
    run.is_stopped(task)


@since_3_3
def test_marked_as_failed_while_a_worker_waits_its_version_is_stopped(
    sandbox: Sandbox, emulator: EmulatorServer, user: User
) -> None:
    run = Running(sandbox, emulator, "killed_synchronous")
    task = run.is_running()
    run.becomes(lambda: "is running" in run.log or "is initialized" in run.log, "the wait")
    user.marks_task(run.dag_id, run.run_id)
    assert run.is_stopped(task) < POLL_INTERVAL
    assert run.ends() == "failed"


@since_3_3
def test_a_feature_analysis_goes_on_and_the_log_says_so(sandbox: Sandbox, emulator: EmulatorServer, user: User) -> None:
    run = Running(sandbox, emulator, "analysis")
    task = run.is_running()
    run.is_deferred()
    user.marks_task(run.dag_id, run.run_id)
    run.becomes(lambda: f"Cannot stop processing task '{task.task_id}': it has no versions" in run.log, "the warning")
    assert run.status(task) == RUNNING


# Cleared


@since_3_3
def test_cleared_while_deferred_its_version_is_stopped_and_one_other_runs(
    sandbox: Sandbox, emulator: EmulatorServer, user: User
) -> None:
    run = Running(sandbox, emulator, "cleared_deferrable")
    task = run.is_running()
    run.is_deferred()
    user.clears(run.dag_id, run.run_id)
    assert run.is_stopped(task) < POLL_INTERVAL
    assert run.ends() == "success", run.log
    first, second = run.tasks
    assert (run.status(first), run.status(second)) == (STOPPED, COMPLETED)
    assert run.value("return_value")["task_id"] == second.task_id


@since_3_3
@pytest.mark.parametrize("path", ["synchronous", "deferrable"])
def test_cleared_after_a_success_it_runs_anew(
    sandbox: Sandbox, emulator: EmulatorServer, user: User, path: str
) -> None:
    run = Running(sandbox, emulator, f"happy_{path}", duration=2.0)
    assert run.ends() == "success", run.log
    user.clears(run.dag_id, run.run_id)
    assert run.ends() == "success", run.log
    first, second = run.tasks
    assert run.instance.try_number == 2
    assert run.value("return_value")["task_id"] == second.task_id != first.task_id


# Left alone for too long


@pytest.mark.parametrize(
    "path",
    [
        "synchronous",
        # Airflow 2 does not let the operator know when the time of a deferred task is over.
        pytest.param("deferrable", marks=since_3_3),
    ],
)
def test_a_timeout_stops_the_version_and_fails_the_run(sandbox: Sandbox, emulator: EmulatorServer, path: str) -> None:
    run = Running(sandbox, emulator, f"timed_out_{path}")
    task = run.is_running()
    assert run.ends() == "failed", run.log
    assert run.is_stopped(task, timeout=10) < 10, run.log
    assert len(run.tasks) == 1


# Restarted


def test_a_triggerer_that_is_restarted_stops_nothing(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    run = Running(sandbox, emulator, "cleared_deferrable")
    task = run.is_running()
    run.becomes(lambda: run.instance.state == "deferred", "the deferral")
    asked = emulator.state.log.count("StopProcessorTaskVersion")
    sandbox.component("triggerer").terminate()  # as an upgrade would end it, so that it has time to do harm
    run.becomes(lambda: sandbox.component("triggerer").poll() is not None, "the end of the triggerer")
    sandbox.restart("triggerer")
    assert run.status(task) == RUNNING
    emulator.state.finish(task.task_id)
    assert run.ends() == "success", run.log
    assert emulator.state.log.count("StopProcessorTaskVersion") == asked
    assert run.instance.try_number == 1
    assert len(run.tasks) == 1


@pytest.fixture
def second_triggerer(sandbox: Sandbox) -> Iterator[Component]:
    """Another triggerer beside that of the sandbox, which has the sandbox to itself again in the end."""
    log = sandbox.home / "components" / "second-triggerer.log"
    second = Component("second triggerer", ("triggerer", "--skip-serve-logs"), sandbox.environment, log)
    yield second
    second.kill()
    sandbox.restart("triggerer")


@since_3_3
def test_a_triggerer_that_was_taken_for_dead_stops_nothing_when_it_comes_back(
    sandbox: Sandbox, emulator: EmulatorServer, second_triggerer: Component
) -> None:
    run = Running(sandbox, emulator, "cleared_deferrable")
    task = run.is_running()
    run.is_deferred()
    first = sandbox.component("triggerer").pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    try:
        second_triggerer.start()
        run.becomes(lambda: run.log.count(" starting") == 2, "the second triggerer")
    finally:
        os.kill(first, signal.SIGCONT)
    run.becomes(lambda: "another triggerer waits for it" in run.log, "the end of the first wait")
    assert run.status(task) == RUNNING
    emulator.state.finish(task.task_id)
    assert run.ends() == "success", run.log
    assert run.instance.try_number == 1
