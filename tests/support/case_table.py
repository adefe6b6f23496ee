"""Runs a table of cases in a real Airflow: one run of one DAG, in which each case is one Airflow task.

A table module describes its cases and what each does to its task. This module starts Airflow and collects the results.
"""

import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.projects import Project
from airflow_modelarts.testing.emulator.service.tasks import Task
from airflow_modelarts.testing.sandbox.sandbox import Sandbox, TaskInstance
from tests.support.waiting import TIMEOUT

DAGS = Path(__file__).parent / "case_dags"
DAG_ID = "cases"
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed"})
#: Seconds. Each poll of 200 tasks costs Airflow's API server 0.06 s.
POLL_INTERVAL = 0.8
#: Seconds that a processing task takes which runs until the case ends it.
ENDLESS = 86400.0


@dataclass(kw_only=True, eq=False)
class Case:
    """One Airflow task of a table. Its requests are known by their emulator project, which no other case has.

    :param mode: how the task waits or creates: a key of ``MODES`` in ``case_dags/cases.py``.
    :param emulator: where the requests of the case are counted.
    :param retries: of the Airflow task.
    :param processor_task_id: the processing task that a wait waits for.
    """

    number: int
    mode: str
    emulator: EmulatorServer
    retries: int = 0
    processor_task_id: str = ""
    state: str = "not started"
    tries: int = 0
    xcoms: dict[str, Any] = field(default_factory=dict)
    log: str = ""
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def task_id(self) -> str:
        """The id of the Airflow task."""
        return f"case_{self.number}"

    @property
    def project_id(self) -> str:
        """The id of the emulator project."""
        return f"{self.number:032x}"

    @property
    def creates(self) -> bool:
        """Whether the case creates its processing task instead of waiting for an existing one."""
        return self.mode.startswith("create")

    @property
    def processing_tasks(self) -> list[Task]:
        """All processing tasks of its project."""
        return list(self.emulator.state.projects[self.project_id].tasks.values())

    @property
    def seconds(self) -> float:
        """The duration of the Airflow task, all tries included."""
        return (self.ended - self.began).total_seconds() if self.began and self.ended else float("nan")

    def connection(self) -> dict[str, Any]:
        """Return the Airflow connection of the case."""
        described: dict[str, Any] = json.loads(self.emulator.airflow_connection())
        return {**described, "extra": {**described["extra"], "project_id": self.project_id}}

    def arguments(self) -> dict[str, Any]:
        """Return what the DAG file needs to know."""
        return {
            "task_id": self.task_id,
            "mode": self.mode,
            "processor_task_id": self.processor_task_id,
            "retries": self.retries,
        }

    def prepare(self) -> None:
        """Add the project to the emulator, with a processing task to wait for."""
        state = self.emulator.state
        state.projects[self.project_id] = Project(self.project_id, self.project_id)
        if not self.creates:
            self.processor_task_id = state.add_task(project_id=self.project_id, duration=ENDLESS).task_id

    def update(self, instance: TaskInstance) -> None:
        """Store the state of the Airflow task."""
        self.state, self.tries = str(instance.state), instance.try_number
        self.began = min(filter(None, [self.began, instance.start_date]), default=None)
        self.ended = instance.end_date

    def step(self, answered: int, read_log: Callable[[], str]) -> None:
        """Act on the processing task or on Airflow's processes. Called at each poll until the Airflow task has ended.

        :param answered: how many requests of the case have been answered with success.
        :param read_log: returns the log of the Airflow task.
        """
        if answered and not self.creates:
            self.emulator.state.finish(self.processor_task_id)


@contextmanager
def airflow_with(
    cases: Sequence[Case], environment: Mapping[str, str] | None = None, *, dags_folder: Path = DAGS
) -> Iterator[Sandbox]:
    """Prepare the cases and start an Airflow that has one task for each."""
    for case in cases:
        case.prepare()
    connections = {case.task_id: json.dumps(case.connection()) for case in cases}
    settings = {
        "CASES": json.dumps([case.arguments() for case in cases]),
        # Airflow's default is 5 seconds, which a busy machine can exceed.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        **(environment or {}),
    }
    with Sandbox(dags_folder, connections=connections, environment=settings) as sandbox:
        sandbox.wait_for_dags(DAG_ID, timeout=TIMEOUT)
        yield sandbox


def run_cases(sandbox: Sandbox, cases: Sequence[Case], *, timeout: float) -> float:
    """Run all cases, collect what each left behind, and return how many seconds the run took.

    :param timeout: seconds after which a case that has not ended is left in its state.
    """
    run_id = sandbox.trigger(DAG_ID)
    began = time.monotonic()
    while not step_all(sandbox, run_id, cases) and time.monotonic() < began + timeout:
        time.sleep(POLL_INTERVAL)
    seconds = time.monotonic() - began
    collect(sandbox, run_id, cases)
    return seconds


def step_all(sandbox: Sandbox, run_id: str, cases: Sequence[Case]) -> bool:
    """Update and step each case that has not ended; return whether all have."""
    sandbox.check()
    answered = Counter(
        entry.path.split("/")[2]
        for emulator in {case.emulator for case in cases}
        for entry in emulator.state.log.entries()
        if entry.path.startswith("/v2/") and entry.status == 200 and entry.fault in (None, "hold")
    )
    by_task_id = {case.task_id: case for case in cases}
    for instance in sandbox.task_instances(DAG_ID, run_id):
        case = by_task_id[instance.task_id]
        if case.state not in ENDED:
            case.update(instance)
            case.step(answered[case.project_id], functools.partial(sandbox.task_log, DAG_ID, run_id, case.task_id))
    return all(case.state in ENDED for case in cases)


def collect(sandbox: Sandbox, run_id: str, cases: Sequence[Case]) -> None:
    """Read the XComs and the log of each case."""
    by_task_id = {case.task_id: case for case in cases}
    for xcom in sandbox.xcoms(DAG_ID, run_id):
        by_task_id[xcom.task_id].xcoms[xcom.key] = xcom.value
    for case in cases:
        case.log = sandbox.task_log(DAG_ID, run_id, case.task_id)


def format_table(legend: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text, with a column as wide as its widest cell."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([legend, "", *(line.rstrip() for line in lines)])
