"""A scheduler dies and its workers live on: Airflow runs their task instances again, and tells the workers to stop."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.control.faults import Hold
from airflow_modelarts.testing.emulator.service.projects import Project
from airflow_modelarts.testing.emulator.service.tasks import TaskRule
from airflow_modelarts.testing.sandbox import Component, Sandbox

pytestmark = pytest.mark.skipif(
    not AIRFLOW_V_3_3_PLUS, reason="the task state store, by which a retry knows what was sent, came with Airflow 3.3"
)
DAGS = Path(__file__).parent / "dags"
#: Seconds for whatever should take a few, on a busy machine.
PATIENCE = 300.0
#: Seconds after which a scheduler that is silent is taken for dead.
SCHEDULER_GIVEN_UP = 15
CREATE, DESCRIBE, VERSIONS = "CreateProcessorTask", "DescribeProcessorTask", "ListProcessorTaskVersions"
RUNNING, COMPLETED = 1, 2


@dataclass(frozen=True)
class Case:
    """What a worker is doing when its scheduler dies; without a call it waits for the end."""

    name: str
    deferrable: bool = False
    when: str = "before"
    operation: str | None = None

    @property
    def ends_early(self) -> bool:
        """Whether the processing task has ended before the scheduler dies."""
        return self.operation == VERSIONS


CASES = (
    Case("posts", operation=CREATE),
    Case("has_posted", when="after", operation=CREATE),
    Case("waits"),
    Case("concludes", operation=VERSIONS),
    Case("posts_and_defers", deferrable=True, operation=CREATE),
    Case("has_posted_and_defers", deferrable=True, when="after", operation=CREATE),
    Case("concludes_after_deferral", deferrable=True, operation=VERSIONS),
    Case("has_concluded_after_deferral", deferrable=True, when="after", operation=VERSIONS),
)


class SchedulerLoss:
    """One run, whose scheduler dies when each worker is where its case wants it."""

    def __init__(self, emulator: EmulatorServer) -> None:
        self.state = emulator.state
        self.projects = {case.name: f"{number:032x}" for number, case in enumerate(CASES, start=1)}
        self.holds: dict[str, Hold] = {}
        for case in CASES:
            project_id = self.projects[case.name]
            self.state.projects[project_id] = Project(project_id, project_id)
            self.state.add_rule(TaskRule(name=f"{case.name}-*", times=None, duration=1.0 if case.ends_early else 86400))
            if case.operation:
                self.holds[case.name] = self.state.faults.hold(
                    case.when,
                    operation=case.operation,
                    path=project_id,  # type: ignore[arg-type]  # one of the two
                )
        described = json.loads(emulator.airflow_connection())
        self.connections = {
            name: json.dumps({**described, "extra": {**described["extra"], "project_id": project_id}})
            for name, project_id in self.projects.items()
        }

    def follow(self, sandbox: Sandbox, second: Component) -> None:
        run_id = sandbox.trigger("scheduler_loss")
        self._becomes(self._are_in_place, "the workers in their places")
        first = sandbox.component("scheduler")
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        first.deliberately_down = True
        second.start()
        self._becomes(lambda: self._tries(sandbox, run_id) == {2}, "the second tries")
        for hold in self.holds.values():
            hold.release()  # a request of the dead that acts late
        self._becomes(lambda: self._finish() or self._has_ended(sandbox, run_id), "the end")
        self.outcomes = {ti.task_id: str(ti.state) for ti in sandbox.task_instances("scheduler_loss", run_id)}
        self.logs = {case.name: sandbox.task_log("scheduler_loss", run_id, case.name) for case in CASES}

    def statuses(self, case: Case) -> list[int]:
        """Return how the processing tasks of a case stand, one that is too many included."""
        tasks = self.state.projects[self.projects[case.name]].tasks
        return [self.state.status(task_id) for task_id in tasks]

    def _are_in_place(self) -> bool:
        """Whether each worker is at its call, or has looked at a task that could be stopped."""
        for case in CASES:
            for task_id in self.state.projects[self.projects[case.name]].tasks:
                if not case.ends_early and self.state.status(task_id) != RUNNING:
                    self.state.set_status(task_id, RUNNING)
        looked_at = {entry.path.split("/")[2] for entry in self.state.log.entries() if entry.operation == DESCRIBE}
        return all(hold.wait(timeout=0) for hold in self.holds.values()) and all(
            self.projects[case.name] in looked_at for case in CASES if case.operation is None
        )

    def _tries(self, sandbox: Sandbox, run_id: str) -> set[int]:
        return {ti.try_number for ti in sandbox.task_instances("scheduler_loss", run_id)}

    def _finish(self) -> None:
        """End what a second try waits for: it is running, and nobody has stopped it."""
        for case in CASES:
            for task_id in self.state.projects[self.projects[case.name]].tasks:
                if self.state.status(task_id) < COMPLETED:
                    self.state.finish(task_id)

    def _has_ended(self, sandbox: Sandbox, run_id: str) -> bool:
        states = [ti.state for ti in sandbox.task_instances("scheduler_loss", run_id)]
        return all(state in ("success", "failed") for state in states)

    def _becomes(self, condition: object, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():  # type: ignore[operator]  # a callable without arguments
            assert time.monotonic() < deadline, f"{what} did not come"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def loss() -> Iterator[SchedulerLoss]:
    environment = {
        "SCHEDULER_LOSS_CASES": json.dumps({case.name: case.deferrable for case in CASES}),
        "AIRFLOW__CORE__PARALLELISM": "16",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": str(SCHEDULER_GIVEN_UP),
    }
    with EmulatorServer() as emulator:
        run = SchedulerLoss(emulator)
        dag_file = DAGS / "scheduler_loss.py"
        with Sandbox(DAGS, only_file=dag_file, connections=run.connections, environment=environment) as sandbox:
            sandbox.wait_for_dags("scheduler_loss", timeout=180)
            log = sandbox.home / "components" / "second-scheduler.log"
            second = Component("second scheduler", ("scheduler", "--skip-serve-logs"), sandbox.environment, log)
            try:
                run.follow(sandbox, second)
                yield run
            finally:
                second.kill()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_worker_that_outlives_its_scheduler_costs_no_second_processing_task(loss: SchedulerLoss, case: Case) -> None:
    assert (loss.outcomes[case.name], loss.statuses(case)) == ("success", [COMPLETED]), loss.logs[case.name]
