"""A scheduler dies while its workers continue: Airflow runs their tasks again and tells the old workers to stop."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.control.faults import Hold
from airflow_modelarts.testing.emulator.service.tasks import TaskRule
from airflow_modelarts.testing.sandbox import Component, Sandbox
from tests.support.airflow_runs import COMPLETED, RUNNING
from tests.support.case_table import DAG_ID, ENDLESS, Case, airflow_with, collect, step_all
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="needs the task state store of Airflow 3.3")
CREATE, DESCRIBE, VERSIONS = "CreateProcessorTask", "DescribeProcessorTask", "ListProcessorTaskVersions"
ENVIRONMENT = {
    "AIRFLOW__CORE__PARALLELISM": "16",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    # Seconds without a heartbeat after which a scheduler counts as dead.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
}
#: What each worker does when its scheduler dies: the mode, and the call that is held. Without a call it waits.
POINTS: dict[str, tuple[str, Any, str | None]] = {
    "create": ("create", "before", CREATE),
    "created": ("create", "after", CREATE),
    "wait": ("create", "before", None),
    "conclude": ("create", "before", VERSIONS),
    "create and defer": ("create deferrable at once", "before", CREATE),
    "created and defer": ("create deferrable at once", "after", CREATE),
    "conclude after deferral": ("create deferrable", "before", VERSIONS),
    "concluded after deferral": ("create deferrable", "after", VERSIONS),
}


@dataclass(kw_only=True, eq=False)
class LossCase(Case):
    """A worker that is at one point when its scheduler dies."""

    when: Any
    operation: str | None
    retries: int = 2
    hold: Hold | None = None
    scheduler_lost: bool = False

    def prepare(self) -> None:
        super().prepare()
        state = self.emulator.state
        duration = 1.0 if self.operation == VERSIONS else ENDLESS
        state.add_rule(TaskRule(name=f"{self.task_id}-*", times=None, duration=duration))
        if self.operation:
            self.hold = state.faults.hold(self.when, operation=self.operation, path=self.project_id)

    def step(self, answered: int, read_log: Callable[[], str]) -> None:
        """Let the processing task run before the loss, so that it could be stopped, and complete after it."""
        state = self.emulator.state
        for task in self.processing_tasks:
            status = state.status(task.task_id)
            if self.scheduler_lost and status < COMPLETED:
                state.finish(task.task_id)
            elif not self.scheduler_lost and self.operation != VERSIONS and status != RUNNING:
                state.set_status(task.task_id, RUNNING)

    @property
    def is_at_its_point(self) -> bool:
        if self.hold is not None:
            return self.hold.wait(timeout=0)
        described = self.emulator.state.log.entries(DESCRIBE)
        return any(self.project_id in entry.path for entry in described)


def lose_scheduler(sandbox: Sandbox, cases: list[LossCase], second: Component) -> None:
    """Kill the scheduler when each worker is at its point, start another, and run the cases to their end."""
    run_id = sandbox.trigger(DAG_ID)

    def step() -> bool:
        return step_all(sandbox, run_id, cases)

    wait_until(lambda: step() or all(case.is_at_its_point for case in cases), "each worker is at its point")
    first = sandbox.component("scheduler")
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.deliberately_down = True
    second.start()
    wait_until(lambda: step() or {case.tries for case in cases} == {2}, "the second tries")
    for case in cases:
        case.scheduler_lost = True
        if case.hold:
            case.hold.release()  # the request of the first try acts late
    wait_until(step, "the end of all cases")
    collect(sandbox, run_id, cases)


@pytest.fixture(scope="module")
def cases() -> Iterator[dict[str, LossCase]]:
    with EmulatorServer() as emulator:
        by_name = {
            name: LossCase(number=number, mode=mode, emulator=emulator, when=when, operation=operation)
            for number, (name, (mode, when, operation)) in enumerate(POINTS.items(), start=1)
        }
        with airflow_with(list(by_name.values()), ENVIRONMENT) as sandbox:
            log = sandbox.home / "components" / "second-scheduler.log"
            second = Component("second scheduler", ("scheduler", "--skip-serve-logs"), sandbox.environment, log)
            try:
                lose_scheduler(sandbox, list(by_name.values()), second)
                yield by_name
            finally:
                second.kill()


@pytest.mark.parametrize("name", POINTS)
def test_a_worker_that_outlives_its_scheduler_creates_no_second_task(cases: dict[str, LossCase], name: str) -> None:
    case = cases[name]
    statuses = [case.emulator.state.status(task.task_id) for task in case.processing_tasks]
    assert (case.state, statuses) == ("success", [COMPLETED]), case.log
