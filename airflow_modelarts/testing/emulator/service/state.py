"""The emulated service in memory: projects, tasks and versions, and every operation on them. No HTTP, no threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields
from typing import Any

from airflow_modelarts.testing.emulator.control.faults import Faults
from airflow_modelarts.testing.emulator.http.gateway import KeyRefusal, TokenRefusal
from airflow_modelarts.testing.emulator.http.log import RequestLog
from airflow_modelarts.testing.emulator.http.responses import NotFoundError, NotFoundShape, ServiceError
from airflow_modelarts.testing.emulator.service import accounts, results, validation
from airflow_modelarts.testing.emulator.service.accounts import Accounts
from airflow_modelarts.testing.emulator.service.projects import Project, TaskQuery, VersionQuery
from airflow_modelarts.testing.emulator.service.tasks import (
    COMPLETED,
    FAILED,
    INITIALIZED,
    RUNNING,
    STOPPED,
    Clock,
    HasMoreMeaning,
    ResultForm,
    Run,
    Task,
    TaskRule,
    Version,
    new_id,
    sources_of,
)
from airflow_modelarts.testing.emulator.service.validation import MissingResources

TEMPLATES = {
    "sys_data_analyse": ("Feature analysis", "数据特征分析"),
    "sys_data_cleaning": ("Data cleansing", "数据清洗"),
    "sys_data_augmentation": ("Data augmentation", "数据增强"),
    "sys_data_validation": ("Data validation", "数据校验"),
    "sys_data_selection": ("Data selection", "数据选择"),
}


@dataclass
class Settings:
    """
    How the service behaves.

    :param task_duration: seconds a run takes, of which it is initialized for the first tenth.
    :param sample_count: samples that a version processes.
    :param result_form: how a feature analysis tells its result.
    :param not_found: how a missing task is told.
    :param has_more: what ``has_more`` of sample results means: that ``more_follow``, or that ``all_returned`` (so the
        reference defines it); ``absent`` leaves it out.
    :param refused_token: the code for a token that is not valid or has expired; it decides the HTTP status, 401 or 403.
    :param refused_key: the same for an access key.
    :param token_lifetime: seconds; of IAM's tokens.
    :param running_limit: tasks of a project whose newest run has not ended; while there are so many, no task and no
        version is created (ModelArts.4409).
    :param unfinished_limit: the same with ModelArts.4616; out of reach by default.
    :param task_quota: tasks in a project; one more is refused with ModelArts.0118.
    :param clock_offset: seconds by which the gateway's clock is ahead of the machine's: tokens, signatures, ``Date``.
    """

    task_duration: float = 10.0
    sample_count: int = 20
    result_form: ResultForm = "object"
    not_found: NotFoundShape = "modelarts"
    has_more: HasMoreMeaning = "more_follow"
    refused_token: TokenRefusal = "APIGW.0301"  # noqa: S105  # nosec B105 - a code
    refused_key: KeyRefusal = "APIGW.0301"
    token_lifetime: float = 24 * 3600.0
    running_limit: int = 1_000_000
    unfinished_limit: int = 1_000_000
    task_quota: int = 1_000_000
    clock_offset: float = 0.0


class EmulatorState:
    """
    The service, and what a test turns about it.

    Safe to use from any thread while the emulator serves. Operations raise
    :class:`~airflow_modelarts.testing.emulator.http.responses.ServiceError` where the service would refuse.

    :param clock: the time by which tasks live.
    """

    def __init__(self, settings: Settings | None = None, *, clock: Clock | None = None) -> None:
        self.initial_settings = settings or Settings()
        self.clock = clock or Clock()
        self.accounts = Accounts()
        self.faults = Faults()
        self.log = RequestLog()
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget all tasks, rules, faults, requests and changed settings; release what is held."""
        with self._lock:
            values = {field.name: getattr(self.initial_settings, field.name) for field in fields(Settings)}
            self.settings = Settings(**values)
            self.missing = MissingResources()
            self.templates = dict(TEMPLATES)
            self.rules: list[TaskRule] = []
            self.projects = {
                accounts.PROJECT_ID: Project(accounts.PROJECT_ID, accounts.PROJECT_NAME),
                accounts.OTHER_PROJECT_ID: Project(accounts.OTHER_PROJECT_ID, accounts.OTHER_PROJECT_NAME),
            }
            self._serial = 0
        self.clock.reset()
        self.accounts.reset()
        self.faults.clear()
        self.log.clear()

    # The twelve operations

    def create_task(self, project_id: str, body: Any) -> Task:
        """CreateProcessorTask."""
        body = validation.check_create(body)
        with self._lock:
            project = self.projects[project_id]
            self._check_places(project, body)
            if body["name"] in project.ids_by_name:
                raise ServiceError("ModelArts.4709", f"a processing task named {body['name']!r} exists already")
            if len(project.tasks) >= self.settings.task_quota:
                raise ServiceError("ModelArts.0118")
            self._check_limits(project)
            return self._add(project, body, self._take_rule(body["name"]))

    def list_tasks(self, project_id: str, query: TaskQuery, *, return_result: bool = True) -> dict[str, Any]:
        """ListProcessorTasks."""
        with self._lock:
            project = self.projects[project_id]
            if query.workspace_id not in project.workspaces:
                raise ServiceError("ModelArts.0102", f"workspace_id: workspace {query.workspace_id!r} does not exist")
            count, page = project.select(query, self.clock.now())
            return {"count": count, "tasks": [self._describe(project, task, return_result) for task in page]}

    def list_items(self, offset: int, limit: int) -> dict[str, Any]:
        """ListProcessorTaskItems."""
        items = [
            {"template_id": template_id, "label_en": english, "label_zh": chinese}
            for template_id, (english, chinese) in self.templates.items()
        ]
        return {"total": len(items), "items": items[offset * limit : (offset + 1) * limit]}

    def describe_task(self, project_id: str, task_id: str) -> dict[str, Any]:
        """DescribeProcessorTask."""
        with self._lock:
            return self._describe(self.projects[project_id], self._find(project_id, task_id), True)

    def update_task(self, project_id: str, task_id: str, body: Any) -> None:
        """UpdateProcessorTask."""
        body = validation.check_update(body)
        with self._lock:
            task = self._find(project_id, task_id)
            task.body = {**task.body, "description": body["description"]}

    def delete_task(self, project_id: str, task_id: str) -> None:
        """DeleteProcessorTask; a running task may be deleted, an initializing one not."""
        with self._lock:
            task = self._find(project_id, task_id)
            self._refuse_initializing(task.run)
            self.projects[project_id].remove(task)

    def create_version(self, project_id: str, task_id: str, body: Any) -> Version:
        """CreateProcessorTaskVersion; feature analysis has none."""
        body = validation.check_create_version(body)
        with self._lock:
            task, project = self._find(project_id, task_id), self.projects[project_id]
            self._check_places(project, body)
            if task.is_feature_analysis or body["template"]["id"] != task.template_id:
                # The contract is silent on another template than the task's; a version is another run of the same task.
                raise ServiceError(
                    "ModelArts.0101", f"template.id: a {task.template_id} task gets no version of this kind"
                )
            if project.ids_by_name.get(body["name"], task_id) != task_id:
                raise ServiceError("ModelArts.4709", f"another processing task is named {body['name']!r}")
            self._check_limits(project)
            rule = self._take_rule(task.name)
            return self._add_version(task, body, self._start_run(rule), rule)

    def list_versions(self, project_id: str, task_id: str, query: VersionQuery) -> dict[str, Any]:
        """ListProcessorTaskVersions; a feature analysis has none to list."""
        with self._lock:
            versions = query.select(self._find(project_id, task_id).versions)
            page = versions[query.offset * query.limit : (query.offset + 1) * query.limit]
            return {"count": len(versions), "versions": [self._describe_version(version) for version in page]}

    def describe_version(self, project_id: str, task_id: str, version_id: str) -> dict[str, Any]:
        """DescribeProcessorTaskVersion."""
        with self._lock:
            return self._describe_version(self._find_version(project_id, task_id, version_id))

    def delete_version(self, project_id: str, task_id: str, version_id: str) -> None:
        """DeleteProcessorTaskVersion; the task then follows the newest one left."""
        with self._lock:
            version = self._find_version(project_id, task_id, version_id)
            self._refuse_initializing(version.run)
            task = self._find(project_id, task_id)
            task.versions.remove(version)
            if not task.versions:
                task.first_run = version.run

    def stop_version(self, project_id: str, task_id: str, version_id: str) -> None:
        """StopProcessorTaskVersion; one that has ended cannot be stopped."""
        with self._lock:
            version = self._find_version(project_id, task_id, version_id)
            self._refuse_initializing(version.run)
            if version.run.status(self.clock.now()) in (COMPLETED, FAILED, STOPPED):
                raise ServiceError("ModelArts.0101", f"version {version_id} has ended and cannot be stopped")
            version.run.set_status(STOPPED, self.clock.now())

    def list_results(
        self,
        project_id: str,
        task_id: str,
        version_id: str,
        *,
        result_property: int = -1,
        offset: int = 0,
        limit: int = 10,
        process_parameter: str | None = None,
    ) -> dict[str, Any]:
        """ListProcessorTaskVersionResults; there are none until the version has completed."""
        with self._lock:
            version, now = self._find_version(project_id, task_id, version_id), self.clock.now()
        return results.sample_results(
            version,
            result_property=result_property,
            offset=offset,
            limit=limit,
            process_parameter=process_parameter,
            now=now,
            has_more=self.settings.has_more,
        )

    # What tests ask and order

    @property
    def gateway_time(self) -> float:
        """The gateway's clock, in seconds since the epoch. Turning the tasks' clock leaves it alone."""
        return self.clock.source_now() + self.settings.clock_offset

    def find_task(self, task_id: str) -> Task:
        """
        Return a task of any project.

        :raises KeyError: there is none.
        """
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
        """Return a task's status at this moment."""
        with self._lock:
            return self.find_task(task_id).run.status(self.clock.now())

    def set_status(self, task_id: str, status: int, *, error_msg: str | None = None) -> None:
        """
        Change what a task, or its newest version, is from now on.

        :param status: 2, 3 and 4 end it now; 0 and 1 last until the next order; any other number is shown as it is.
        """
        with self._lock:
            self.find_task(task_id).run.set_status(status, self.clock.now(), error_msg)

    def finish(self, task_id: str) -> None:
        """Let a task complete now."""
        self.set_status(task_id, COMPLETED)

    def fail(self, task_id: str, error_msg: str | None = None) -> None:
        """Let a task fail now."""
        self.set_status(task_id, FAILED, error_msg=error_msg)

    def stop(self, task_id: str) -> None:
        """Let a task be stopped now, as from the console."""
        self.set_status(task_id, STOPPED)

    def set_duration(self, task_id: str, duration: float) -> None:
        """Change how many seconds a task takes, counted from its creation."""
        with self._lock:
            self.find_task(task_id).run.set_duration(duration)

    def set_result(self, task_id: str, result: Any = None, *, form: ResultForm | None = None) -> None:
        """
        Set what a feature analysis answers once it has completed.

        :param result: any JSON; None lets the emulator make it up.
        :param form: how the made-up result is told; None for what the settings say.
        """
        with self._lock:
            task = self.find_task(task_id)
            task.result, task.result_form = result, form

    def set_sample_count(self, task_id: str, sample_count: int) -> None:
        """Set how many samples the newest version of a task processes."""
        with self._lock:
            versions = self.find_task(task_id).versions
            if not versions:
                raise ValueError(f"task {task_id} has no version")
            versions[-1].sample_count = sample_count

    def add_rule(self, rule: TaskRule) -> TaskRule:
        """Decide what becomes of runs that are created later; the first rule that matches counts."""
        with self._lock:
            self.rules.append(rule)
        return rule

    def next_task(self, **wishes: Any) -> TaskRule:
        """Add a ``TaskRule`` from its fields; by default for one run."""
        return self.add_rule(TaskRule(**wishes))

    def add_task(
        self,
        name: str | None = None,
        *,
        template: str = "sys_data_analyse",
        project_id: str = accounts.PROJECT_ID,
        status: int | None = None,
        duration: float | None = None,
        error_msg: str | None = None,
        result: Any = None,
        body: dict[str, Any] | None = None,
    ) -> Task:
        """
        Put a task there as if somebody had created it in the console; nothing is validated.

        :param status: 0 to 4 or any other number, at once and to stay; None lets it run its course.
        :param duration: seconds; None for what the settings say.
        :param body: fields of the create body that differ.
        """
        with self._lock:
            project = self.projects[project_id]
            source = {"type": "DATASET", "source": "emulator-dataset"}
            given = {
                "name": name or f"task-{self._serial + 1}",
                "template": {"id": template},
                "data_source": source,
                **(body or {}),
            }
            if given.get("inputs"):
                given.pop("data_source")
            rule = TaskRule(duration=duration, error_msg=error_msg, result=result)
            task = self._add(project, given, rule)
            if status is not None:
                task.run.set_status(status, self.clock.now(), error_msg)
            return task

    def add_tasks(self, count: int, **wishes: Any) -> list[Task]:
        """Put many tasks there, each as :meth:`add_task` does."""
        with self._lock:
            return [self.add_task(**wishes) for _ in range(count)]

    def put_task(self, task: Task) -> None:
        """Put a ready-made task there, newer than all others; its id and its name must be new to its project."""
        with self._lock:
            self._serial += 1
            task.serial = self._serial
            self.projects[task.project_id].add(task)

    # Inside

    def _find(self, project_id: str, task_id: str) -> Task:
        task = self.projects[project_id].tasks.get(task_id)
        if task is None:
            raise NotFoundError("ModelArts.4700", f"no task with the id {task_id!r}", self.settings.not_found)
        return task

    def _find_version(self, project_id: str, task_id: str, version_id: str) -> Version:
        for version in self._find(project_id, task_id).versions:
            if version.version_id == version_id:
                return version
        # The contract has no code for a missing version; its sisters 4612, 4631 and 4636 all speak of the task.
        raise NotFoundError("ModelArts.4636", f"no version with the id {version_id!r}", self.settings.not_found)

    def _check_places(self, project: Project, body: dict[str, Any]) -> None:
        validation.check_places(body, templates=self.templates, workspaces=project.workspaces, missing=self.missing)
        for source in sources_of(body):
            if source.get("type") == "TASK" and source["source"] not in project.tasks:
                raise ServiceError("ModelArts.4612", f"the data source {source['source']!r} is no task of this project")

    def _check_limits(self, project: Project) -> None:
        lowest = min(self.settings.running_limit, self.settings.unfinished_limit)
        if len(project.tasks) < lowest:
            return
        now = self.clock.now()
        unended = sum(task.run.status(now) in (INITIALIZED, RUNNING) for task in project.tasks.values())
        if unended >= self.settings.running_limit:
            raise ServiceError("ModelArts.4409")
        if unended >= self.settings.unfinished_limit:
            raise ServiceError("ModelArts.4616")

    def _refuse_initializing(self, run: Run) -> None:
        if run.status(self.clock.now()) == INITIALIZED:
            raise ServiceError("ModelArts.4850")

    def _take_rule(self, name: str) -> TaskRule:
        for rule in self.rules:
            if rule.times != 0 and rule.matches(name):
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return TaskRule()

    def _start_run(self, rule: TaskRule) -> Run:
        duration = self.settings.task_duration if rule.duration is None else rule.duration
        return Run.start(self.clock.now(), duration, rule.status, rule.error_msg)

    def _add(self, project: Project, body: dict[str, Any], rule: TaskRule) -> Task:
        self._serial += 1
        run = self._start_run(rule)
        task = Task(new_id(), project.project_id, body, run, self._serial, run.created_at)
        task.result, task.result_form = rule.result, rule.result_form
        if not task.is_feature_analysis:
            # create_version is not looked at: every data-processing task runs at once here, as its first version.
            # What the real service does with a data-processing task that shall have none is not documented.
            self._add_version(task, body, task.first_run, rule)
        project.add(task)
        return task

    def _add_version(self, task: Task, body: dict[str, Any], run: Run, rule: TaskRule) -> Version:
        task.versions_created += 1
        count = self.settings.sample_count if rule.sample_count is None else rule.sample_count
        version = Version(new_id(), f"V{task.versions_created:03}", task.task_id, body, run, count)
        task.versions.append(version)
        return version

    def _describe(self, project: Project, task: Task, with_result: bool) -> dict[str, Any]:
        now, run = self.clock.now(), task.run
        described = task.describe(now)
        described["is_current"] = project.is_current(task)
        if with_result and task.is_feature_analysis and run.status(now) == COMPLETED:
            result = task.result
            if result is None:
                result = results.default_result(task.task_id, task.result_form or self.settings.result_form)
            if result is not None:
                described["result"] = result
        return described

    def _describe_version(self, version: Version) -> dict[str, Any]:
        now = self.clock.now()
        return {**version.describe(now), **results.sample_counts(version, now)}
