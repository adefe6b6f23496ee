"""The emulator as tests control it: the service's tasks, rules and settings, the faults, and the request log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow_modelarts.testing.emulator.control.fault_queue import Faults
from airflow_modelarts.testing.emulator.control.log import RequestLog
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.modelarts import ModelArtsService
from airflow_modelarts.testing.emulator.service.settings import ResultForm, Settings
from airflow_modelarts.testing.emulator.service.tasks import COMPLETED, FAILED, STOPPED, Clock, Task, TaskRule


class EmulatorState(ModelArtsService):
    """The service, and what tests inspect and control it with. Thread-safe. ``clock`` is the clock of the tasks."""

    def __init__(self, settings: Settings | None = None, *, clock: Clock | None = None) -> None:
        self.faults = Faults()
        self.log = RequestLog()
        self.resets = 0
        super().__init__(settings, clock=clock)

    def reset(self) -> None:
        """Remove tasks, rules, faults, objects and logged requests; drop held calls; restore the rest."""
        super().reset()
        self.resets += 1  # the object store compares it, since only its event loop may reset it
        self.faults.clear()
        self.log.clear()

    @property
    def gateway_time(self) -> float:
        """The gateway's time, in seconds since the epoch; the clock of the tasks does not affect it."""
        return self.clock.source_now() + self.settings.clock_offset

    def find_task(self, task_id: str) -> Task:
        """Return a task of any project; raise KeyError if it does not exist."""
        with self._lock:
            for project in self.projects.values():
                if task_id in project.tasks:
                    return project.tasks[task_id]
        raise KeyError(f"no task {task_id!r}")

    def all_tasks(self) -> list[Task]:
        """Return the tasks of all projects, in the order of their creation."""
        with self._lock:
            return [task for project in self.projects.values() for task in project.tasks.values()]

    def status(self, task_id: str) -> int:
        """Return a task's current status."""
        with self._lock:
            return self.find_task(task_id).run.status(self.clock.now())

    def set_status(self, task_id: str, status: int, *, error_msg: str | None = None) -> None:
        """Change the status of a task, or of its newest version.

        :param status: 2, 3 and 4 end it now; 0 and 1 last until the next change; any other number is shown unchanged.
        :param error_msg: error message of a failed task.
        """
        with self._lock:
            self.find_task(task_id).run.set_status(status, self.clock.now(), error_msg)

    def finish(self, task_id: str) -> None:
        """Complete a task now."""
        self.set_status(task_id, COMPLETED)

    def fail(self, task_id: str, error_msg: str | None = None) -> None:
        """Fail a task now."""
        self.set_status(task_id, FAILED, error_msg=error_msg)

    def stop(self, task_id: str) -> None:
        """Stop a task now, as from the console."""
        self.set_status(task_id, STOPPED)

    def set_duration(self, task_id: str, duration: float) -> None:
        """Change a task's duration in seconds, counted from its creation."""
        with self._lock:
            self.find_task(task_id).run.set_duration(duration)

    def set_result(self, task_id: str, result: Any = None, *, form: ResultForm | None = None) -> None:
        """Set the result that a feature analysis has once it is completed.

        :param result: any JSON; None for a generated result.
        :param form: form of the generated result; None for the form in the settings.
        """
        with self._lock:
            task = self.find_task(task_id)
            task.result, task.result_form = result, form

    def set_sample_count(self, task_id: str, sample_count: int) -> None:
        """Set the number of samples that a task's newest version processes."""
        with self._lock:
            versions = self.find_task(task_id).versions
            if not versions:
                raise ValueError(f"task {task_id} has no version")
            versions[-1].sample_count = sample_count

    def add_rule(self, rule: TaskRule) -> TaskRule:
        """Add a rule for runs that are created later; the first rule that matches applies."""
        with self._lock:
            self.rules.append(rule)
        return rule

    def next_task(self, **fields: Any) -> TaskRule:
        """Add a :class:`TaskRule` with these fields; by default it applies to one run."""
        return self.add_rule(TaskRule(**fields))

    def add_task(
        self,
        name: str | None = None,
        *,
        template: str = "sys_data_analyse",
        project_id: str = accounts.PROJECT_ID,
        status: int | None = None,
        duration: float | None = None,
        error_msg: str | None = None,
        create_time: datetime | int | None = None,
        result: Any = None,
        body: dict[str, Any] | None = None,
    ) -> Task:
        """Add a task without validation, as if it had been created in the console.

        :param status: a status that stays, any number; None for one that follows from the clock.
        :param duration: seconds; None for the duration in the settings.
        :param error_msg: error message of a failed task.
        :param create_time: when it was created and began: a datetime with a time zone, or milliseconds since the epoch
            as in the API; None for now.
        :param result: result of a feature analysis; None for a generated one.
        :param body: fields of the create body; they replace the defaults.
        """
        with self._lock:
            project = self.projects[project_id]
            full_body = {
                "name": name or f"task-{self._serial + 1}",
                "template": {"id": template},
                "data_source": {"type": "DATASET", "source": "emulator-dataset"},
                **(body or {}),
            }
            if full_body.get("inputs"):
                full_body.pop("data_source")
            if isinstance(create_time, datetime):
                created_at: float | None = create_time.timestamp()
            else:
                created_at = None if create_time is None else create_time / 1000
            rule = TaskRule(duration=duration, error_msg=error_msg, result=result)
            task = self._add(project, full_body, rule, created_at)
            if status is not None:
                task.run.set_status(status, self.clock.now(), error_msg)
            return task

    def add_tasks(self, count: int, **arguments: Any) -> list[Task]:
        """Add several tasks, each with the arguments of :meth:`add_task`."""
        with self._lock:
            return [self.add_task(**arguments) for _ in range(count)]
