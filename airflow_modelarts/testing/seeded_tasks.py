"""The processing tasks of ``--seed``: their table, and what happens to the active ones while a DAG runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from airflow_modelarts.api.statuses import ProcessorTaskStatus
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.seeds import seed
from airflow_modelarts.testing.emulator.service.tasks import Task
from airflow_modelarts.testing.terminal import aligned, safe_print

ACTIVE = frozenset({ProcessorTaskStatus.INITIALIZED, ProcessorTaskStatus.RUNNING})


def seed_and_print(server: EmulatorServer, count: int) -> list[Task]:
    """Put `count` processing tasks into the local ModelArts, and print them if there are any."""
    tasks = seed(server.state, count)
    if tasks:
        now = server.state.clock.now()
        rows = [("Task id", "Status", "Age", "Name")]
        for task in sorted(tasks, key=lambda task: task.created_at, reverse=True):
            hours, minutes = divmod(int((now - task.created_at) / 60), 60)
            status = ProcessorTaskStatus(task.run.status(now)).name.lower()
            rows.append((task.task_id, status, f"{hours}:{minutes:02} h", task.name))
        safe_print(f"\nIts processing tasks, the newest first:\n{aligned(rows)}\n")
    return tasks


class ActiveSeeds:
    """Changes the statuses of the seeded tasks that are active, so that a DAG sees them run and then end.

    The running one completes ``task_duration`` after the DAG first requests a processing task or a list of them.
    The initialized one starts to run then, and completes ``task_duration`` later.

    :param task_duration: seconds
    :param clock: returns seconds, as ``time.monotonic`` does
    """

    def __init__(
        self,
        server: EmulatorServer,
        tasks: Sequence[Task],
        task_duration: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = server.state
        self._active = [task for task in tasks if self._state.status(task.task_id) in ACTIVE]
        self._task_duration = task_duration
        self._clock = clock
        self._next_at: float | None = None

    def change_due(self) -> list[tuple[Task, str]]:
        """Make the status changes that are due; return the changed processing tasks and their new statuses."""
        if not self._active or not any("ProcessorTask" in operation for operation in self._state.log.counts()):
            return []
        if self._next_at is None:
            self._next_at = self._clock() + self._task_duration
        if self._clock() < self._next_at:
            return []
        due = [(self._active.pop(0), ProcessorTaskStatus.COMPLETED)]
        if self._active:
            due.append((self._active[0], ProcessorTaskStatus.RUNNING))
        self._next_at = self._clock() + self._task_duration
        changed = []
        for task, status in due:
            with contextlib.suppress(KeyError):  # the DAG may have deleted the task, or stopped it
                if self._state.status(task.task_id) in ACTIVE:
                    self._state.set_status(task.task_id, int(status))
                    changed.append((task, status.name.lower()))
        return changed
