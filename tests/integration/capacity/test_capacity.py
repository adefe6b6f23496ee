"""The service has no capacity for all tasks at once: fan-outs, throttling, and what users do to tasks that wait for it.

One Airflow with one triggerer runs everything.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.projects import Project
from airflow_modelarts.testing.emulator.service.tasks import Task
from airflow_modelarts.testing.sandbox import Sandbox
from tests.integration.capacity.fan_out import CREATE, Creates, FanOut
from tests.support.airflow_runs import (
    COMPLETED,
    RUNNING,
    STOPPED,
    AirflowUser,
    files_with_secrets,
    pushed,
    secrets_in,
    states,
    trigger_rows,
)
from tests.support.case_table import format_table
from tests.support.waiting import TIMEOUT, wait_until

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="tests/integration/versions has a smaller fan-out")
DAGS = Path(__file__).parent / "dags"
#: The environment variables FAN_OUT and THROTTLED set other numbers of mapped tasks.
TASKS, THROTTLED_TASKS = (int(os.environ.get(name, default)) for name, default in (("FAN_OUT", 60), ("THROTTLED", 6)))
#: Active processing tasks that the service admits, and the seconds that each takes.
LIMIT, DURATION = 10, 5.0
UNLIMITED = 1_000_000


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=DURATION) as server:
        yield server


@pytest.fixture(scope="module")
def sandbox(emulator: EmulatorServer) -> Iterator[Sandbox]:
    # On a busy machine a call of a task can take longer than Airflow's default of 5 seconds.
    environment = {"AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60"}
    connections = {"modelarts_default": emulator.airflow_connection()}
    with Sandbox(DAGS, connections=connections, environment=environment) as running:
        running.wait_for_dags("creates", "only_defer", "throttled", "last", "version", timeout=180)
        yield running


@pytest.fixture(scope="module")
def user(sandbox: Sandbox) -> AirflowUser:
    return AirflowUser(sandbox)


# Fan-outs


@pytest.fixture(scope="module")
def baseline(sandbox: Sandbox) -> FanOut:
    """As many tasks that only defer and return: the time that Airflow itself takes."""
    return FanOut(sandbox, "only_defer", TASKS).run()


@pytest.fixture(scope="module")
def creates(sandbox: Sandbox, emulator: EmulatorServer) -> FanOut:
    emulator.state.settings.running_limit = LIMIT
    try:
        return FanOut(sandbox, "creates", TASKS).run()
    finally:
        emulator.state.settings.running_limit = UNLIMITED


@pytest.fixture(scope="module")
def requests(creates: FanOut, emulator: EmulatorServer) -> Creates:
    return Creates.of(emulator, accounts.PROJECT_ID)


def test_a_fan_out_larger_than_the_limit_succeeds(creates: FanOut, requests: Creates) -> None:
    assert creates.states == {"success": TASKS + 1}, "\n".join(creates.logs("group.run"))
    assert requests.accepted == TASKS


def test_the_service_refuses_few_requests(
    creates: FanOut, baseline: FanOut, requests: Creates, publish: Callable[[str, str], None]
) -> None:
    ideal = TASKS / LIMIT * DURATION
    legend = f"{TASKS} mapped creates of {DURATION:g} s each where {LIMIT} are admitted at once. Times are in seconds."
    head = ["ideal", "Airflow's own", "1.25 x ideal + Airflow's own", "took", "accepted", "refused", "refused a task"]
    row = [
        f"{ideal:.0f}",
        f"{baseline.seconds:.0f}",
        f"{1.25 * ideal + baseline.seconds:.0f}",
        f"{creates.seconds:.0f}",
        str(requests.accepted),
        str(requests.refused),
        f"{requests.refused / TASKS:.2f}",
    ]
    publish("fan-out", format_table(legend, head, [row]))
    assert 0 < requests.refused <= TASKS / 2


def test_each_task_takes_a_worker_at_its_start_and_at_its_end(creates: FanOut, requests: Creates) -> None:
    starts = [log.count("Worker startup parse complete") for log in creates.logs("group.run")]
    assert starts == [2] * TASKS


# Throttling


@pytest.fixture(scope="module")
def throttled(sandbox: Sandbox, emulator: EmulatorServer) -> FanOut:
    """Six mapped tasks, each in a project that a gateway throttles: both ways to wait, three kinds of answers."""
    kinds = ({}, {"retry_after": 2}, {"form": "html"})
    for number in range(6):
        project_id = f"{number:032x}"
        emulator.state.projects[project_id] = Project(project_id, project_id)
        emulator.state.faults.limit_rate(2, path=project_id, **kinds[number // 2])
    return FanOut(sandbox, "throttled", THROTTLED_TASKS).run()


def test_throttling_fails_no_task(throttled: FanOut, emulator: EmulatorServer) -> None:
    found = [Creates.of(emulator, f"{number:032x}") for number in range(6)]
    assert [creates.accepted for creates in found] == [THROTTLED_TASKS] * 6
    assert throttled.states == {"success": 6 * (THROTTLED_TASKS + 1)}


def test_each_throttled_project_was_throttled(throttled: FanOut, emulator: EmulatorServer) -> None:
    """Otherwise the outcome would prove nothing."""
    limits = [fault for fault in emulator.state.faults.all() if fault.kind == "limit_rate"]
    assert all(limit.hits for limit in limits), [limit.hits for limit in limits]
    assert len(limits) == 6


# Marked, cleared and timed out while it waits for capacity


class Waiting:
    """Runs of one-task DAGs in a project of their own."""

    def __init__(self, sandbox: Sandbox, emulator: EmulatorServer, number: int) -> None:
        self.sandbox, self.emulator = sandbox, emulator
        self.project_id = f"{number:032x}"
        self.project = emulator.state.projects[self.project_id] = Project(self.project_id, self.project_id)
        self.run_ids: dict[str, str] = {}

    def start(self, dag_id: str, processor_task_id: str = "") -> str:
        """Start a run, and return its id."""
        run_id = self.sandbox.trigger(dag_id, conf={"project": self.project_id, "id": processor_task_id})
        self.run_ids[dag_id] = run_id
        return run_id

    def queue(self, *dag_ids: str) -> None:
        """Start runs, and wait until all wait for capacity."""
        for dag_id in dag_ids:
            self.start(dag_id)
        for dag_id in dag_ids:
            self.wait_for_log(dag_id, "waiting for capacity")

    def wait_for_log(self, dag_id: str, text: str) -> None:
        self.wait_until(lambda: text in self.log(dag_id), dag_id)

    def wait_until(self, condition: Callable[[], object], dag_id: str) -> None:
        """Poll a condition while Airflow's processes live. A failure shows the log of a task."""

        def holds() -> object:
            self.sandbox.check()
            return condition()

        wait_until(holds, lambda: self.log(dag_id))

    def state(self, dag_id: str) -> str:
        return states(self.sandbox, dag_id, self.run_ids[dag_id])["run"]

    def end(self, dag_id: str) -> str:
        """Wait for the end of a run, and return its state."""
        return self.sandbox.wait(dag_id, self.run_ids[dag_id], timeout=TIMEOUT)

    def log(self, dag_id: str) -> str:
        return self.sandbox.task_log(dag_id, self.run_ids[dag_id], "run")

    def value(self, dag_id: str, key: str) -> object:
        return pushed(self.sandbox, dag_id, self.run_ids[dag_id])["run", key]

    def tasks(self, dag_id: str) -> list[Task]:
        """Return the processing tasks that a DAG has created."""
        name = dag_id.replace("_", "-")
        return [task for task in self.project.tasks.values() if task.name.startswith(f"{name}-")]


ABANDONED = ("marked_synchronous", "marked_deferrable", "run_marked", "timed_out_synchronous", "timed_out_deferrable")


@pytest.fixture(scope="module")
def waiting(sandbox: Sandbox, emulator: EmulatorServer, user: AirflowUser) -> Waiting:
    """Runs that wait for capacity. All but the last are marked, cleared or timed out before there is any."""
    runs = Waiting(sandbox, emulator, 100)
    emulator.state.settings.running_limit = 0
    try:
        runs.queue(*ABANDONED, "cleared", "last")
        user.mark_task_failed("marked_synchronous", runs.run_ids["marked_synchronous"])
        user.mark_task_failed("marked_deferrable", runs.run_ids["marked_deferrable"])
        user.mark_run_failed("run_marked", runs.run_ids["run_marked"])
        user.clear_task("cleared", runs.run_ids["cleared"])
        for dag_id in ABANDONED:
            assert runs.end(dag_id) == "failed"
        for dag_id in ("marked_deferrable", "run_marked", "cleared"):
            runs.wait_for_log(dag_id, "invoking on_kill")
    finally:
        emulator.state.settings.running_limit = UNLIMITED
    for dag_id in ("last", "cleared"):
        runs.end(dag_id)
    return runs


@pytest.mark.parametrize("dag_id", ABANDONED)
def test_a_task_that_no_longer_waits_submits_nothing(waiting: Waiting, dag_id: str) -> None:
    assert waiting.tasks(dag_id) == [], waiting.log(dag_id)


def test_a_task_that_is_cleared_while_it_waits_submits_once(waiting: Waiting) -> None:
    assert waiting.end("cleared") == "success", waiting.log("cleared")
    assert len(waiting.tasks("cleared")) == 1


def test_the_log_and_an_xcom_tell_how_long_a_task_waited(waiting: Waiting) -> None:
    log = waiting.log("last")
    assert waiting.end("last") == "success", log
    reasons = re.findall(r"waiting for capacity: the limit of running tasks is reached; position (\d+) of (\d+)", log)
    assert reasons, log
    assert len(reasons) < 10, log
    queued_seconds = waiting.value("last", "queued_seconds")
    assert isinstance(queued_seconds, int | float)
    assert queued_seconds > 1


# Killed while the request is under way


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_submitted_while_its_run_is_marked_failed_is_stopped(
    sandbox: Sandbox, emulator: EmulatorServer, user: AirflowUser, when: str
) -> None:
    runs = Waiting(sandbox, emulator, 200 + len(when))
    emulator.state.next_task(name="marked-deferrable-*", duration=100_000)
    hold = emulator.state.faults.hold(when, operation=CREATE, path=runs.project_id)
    run_id = runs.start("marked_deferrable")
    runs.wait_until(lambda: hold.wait(timeout=0), "marked_deferrable")
    user.mark_task_failed("marked_deferrable", run_id)
    runs.wait_for_log("marked_deferrable", "invoking on_kill")
    hold.release()
    runs.wait_until(lambda: runs.tasks("marked_deferrable"), "marked_deferrable")
    (task,) = runs.tasks("marked_deferrable")
    emulator.state.set_status(task.task_id, RUNNING)  # the service stops none that is initializing
    runs.wait_until(lambda: emulator.state.status(task.task_id) == STOPPED, "marked_deferrable")


# Options


@pytest.mark.parametrize("path", ["synchronous", "deferrable"])
def test_without_wait_for_capacity_a_refusal_fails_the_task_at_once(
    sandbox: Sandbox, emulator: EmulatorServer, path: str
) -> None:
    runs = Waiting(sandbox, emulator, 300 + len(path))
    emulator.state.settings.running_limit = 0
    try:
        runs.start(f"impatient_{path}")
        assert runs.end(f"impatient_{path}") == "failed"
    finally:
        emulator.state.settings.running_limit = UNLIMITED
    log = runs.log(f"impatient_{path}")
    assert "the limit of running tasks is reached" in log
    assert "wait_for_capacity" in log
    assert Creates.of(emulator, runs.project_id) == Creates(accepted=0, refused=1)


def test_a_queued_task_that_does_not_wait_for_its_end_succeeds_when_it_is_submitted(
    sandbox: Sandbox, emulator: EmulatorServer
) -> None:
    runs = Waiting(sandbox, emulator, 400)
    emulator.state.next_task(name="detached-*", duration=100_000)
    emulator.state.settings.running_limit = 0
    try:
        runs.queue("detached")
    finally:
        emulator.state.settings.running_limit = UNLIMITED
    assert runs.end("detached") == "success", runs.log("detached")
    (task,) = runs.tasks("detached")
    assert runs.value("detached", "processor_task_id") == task.task_id
    assert emulator.state.status(task.task_id) != COMPLETED


def test_a_version_waits_for_capacity_and_is_created_once(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    runs = Waiting(sandbox, emulator, 500)
    original = emulator.state.add_task(
        "original", template="sys_data_validation", status=COMPLETED, project_id=runs.project_id
    )
    emulator.state.settings.running_limit = 0
    try:
        runs.start("version", original.task_id)
        runs.wait_for_log("version", "waiting for capacity")
    finally:
        emulator.state.settings.running_limit = UNLIMITED
    assert runs.end("version") == "success", runs.log("version")
    _, version = original.versions
    assert runs.value("version", "task_version_id") == version.version_id


# Secrets


def test_no_secret_is_in_the_row_of_a_queued_trigger_or_in_a_file(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    runs = Waiting(sandbox, emulator, 600)
    emulator.state.settings.running_limit = 0
    try:
        runs.queue("last")
        rows = trigger_rows(sandbox)
    finally:
        emulator.state.settings.running_limit = UNLIMITED
    assert runs.end("last") == "success", runs.log("last")
    (task,) = runs.tasks("last")
    assert any(task.name in row for row in rows), rows
    assert secrets_in("\n".join(rows).encode(), emulator) == []
    assert files_with_secrets(sandbox, emulator) == []
