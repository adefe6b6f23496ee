"""The emulated ModelArts service, in memory: its twelve operations. No HTTP."""

from __future__ import annotations

import threading
from copy import deepcopy
from typing import Any

from airflow_modelarts.api import request_models
from airflow_modelarts.testing.emulator.service import accounts, results, tasks, validation
from airflow_modelarts.testing.emulator.service.accounts import Accounts
from airflow_modelarts.testing.emulator.service.errors import NotFoundError, ServiceError
from airflow_modelarts.testing.emulator.service.projects import Project, TaskQuery, VersionQuery
from airflow_modelarts.testing.emulator.service.results import ResultQuery
from airflow_modelarts.testing.emulator.service.settings import Settings
from airflow_modelarts.testing.emulator.service.tasks import Clock, Run, Task, TaskRule, Version, new_id
from airflow_modelarts.testing.emulator.service.validation import MissingResources

#: English and Chinese names by template id.
TEMPLATES = {
    "sys_data_analyse": ("Feature analysis", "数据特征分析"),
    "sys_data_cleaning": ("Data cleansing", "数据清洗"),
    "sys_data_augmentation": ("Data augmentation", "数据增强"),
    "sys_data_validation": ("Data validation", "数据校验"),
    "sys_data_selection": ("Data selection", "数据选择"),
}
#: The statuses of what counts towards a limit.
ACTIVE = frozenset({tasks.INITIALIZED, tasks.RUNNING})


class ModelArtsService:
    """The service: its methods are the API's operations. Thread-safe.

    Operations raise :class:`~airflow_modelarts.testing.emulator.service.errors.ServiceError` where the service would
    refuse.

    :param clock: the clock of the tasks.
    """

    def __init__(self, settings: Settings | None = None, *, clock: Clock | None = None) -> None:
        self._initial_settings = settings or Settings()
        self.clock = clock or Clock()
        self.accounts = Accounts()
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Remove all tasks and rules; restore settings, accounts and clock."""
        with self._lock:
            self.settings = deepcopy(self._initial_settings)
            self.missing = MissingResources()
            self.templates = dict(TEMPLATES)
            self.rules: list[TaskRule] = []
            self.projects = {
                accounts.PROJECT_ID: Project(accounts.PROJECT_ID, accounts.PROJECT_NAME),
                accounts.OTHER_PROJECT_ID: Project(accounts.OTHER_PROJECT_ID, accounts.OTHER_PROJECT_NAME),
            }
            self._serial = 0
            self._runs_added = 0
        self.clock.reset()
        self.accounts.reset()

    def create_task(self, project_id: str, body: Any) -> Task:
        """CreateProcessorTask."""
        body = validation.check_body(request_models.CreateProcessorTaskRequest, body)
        with self._lock:
            project = self.projects[project_id]
            validation.check_resources(body, project, self.templates, self.missing)
            if body["name"] in project.ids_by_name:
                raise ServiceError("ModelArts.4709", f"a processing task named {body['name']!r} exists already")
            if len(project.tasks) >= self.settings.task_quota:
                raise ServiceError("ModelArts.0118")
            self._check_limits(project, body["template"]["id"])
            return self._add(project, body, self._take_rule(body["name"]))

    def list_tasks(self, project_id: str, query: TaskQuery) -> dict[str, Any]:
        """ListProcessorTasks."""
        with self._lock:
            project = self.projects[project_id]
            if query.workspace_id not in project.workspaces:
                raise ServiceError("ModelArts.0102", f"workspace_id: workspace {query.workspace_id!r} does not exist")
            count, page = project.select(query, self.clock.now(), self.settings.list_order)
            return {"count": count, "tasks": [self._describe(project, task, query.return_result) for task in page]}

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
        body = validation.check_body(request_models.UpdateProcessorTaskRequest, body)
        with self._lock:
            task = self._find(project_id, task_id)
            task.body = {**task.body, "description": body["description"]}

    def delete_task(self, project_id: str, task_id: str) -> None:
        """DeleteProcessorTask; a running task can be deleted, an initializing one cannot."""
        with self._lock:
            task = self._find(project_id, task_id)
            self._refuse_initializing(task.run)
            self.projects[project_id].remove(task)

    def create_version(self, project_id: str, task_id: str, body: Any) -> Version:
        """CreateProcessorTaskVersion; a feature analysis has no versions."""
        body = validation.check_body(request_models.CreateProcessorTaskVersionRequest, body)
        with self._lock:
            task, project = self._find(project_id, task_id), self.projects[project_id]
            validation.check_resources(body, project, self.templates, self.missing)
            if task.is_feature_analysis or body["template"]["id"] != task.template_id:
                # The contract does not say what happens with another template; a version is another run of the task.
                message = f"template.id: a {task.template_id} task cannot have a version of this template"
                raise ServiceError("ModelArts.0101", message)
            if project.ids_by_name.get(body["name"], task_id) != task_id:
                raise ServiceError("ModelArts.4709", f"another processing task is named {body['name']!r}")
            self._check_limits(project, task.template_id)
            rule = self._take_rule(task.name)
            return self._add_version(task, body, self._start_run(rule), rule)

    def list_versions(self, project_id: str, task_id: str, query: VersionQuery) -> dict[str, Any]:
        """ListProcessorTaskVersions; the list of a feature analysis is empty."""
        with self._lock:
            versions = self._find(project_id, task_id).versions
            versions = versions[::-1] if query.order == "desc" else versions
            page = versions[query.offset * query.limit : (query.offset + 1) * query.limit]
            return {"count": len(versions), "versions": [self._describe_version(version) for version in page]}

    def describe_version(self, project_id: str, task_id: str, version_id: str) -> dict[str, Any]:
        """DescribeProcessorTaskVersion."""
        with self._lock:
            return self._describe_version(self._find_version(project_id, task_id, version_id))

    def delete_version(self, project_id: str, task_id: str, version_id: str) -> None:
        """DeleteProcessorTaskVersion; the task then has the status of the newest remaining version."""
        with self._lock:
            version = self._find_version(project_id, task_id, version_id)
            self._refuse_initializing(version.run)
            task = self._find(project_id, task_id)
            task.versions.remove(version)
            if not task.versions:
                task.first_run = version.run

    def stop_version(self, project_id: str, task_id: str, version_id: str) -> None:
        """StopProcessorTaskVersion; a version that has ended cannot be stopped."""
        with self._lock:
            version = self._find_version(project_id, task_id, version_id)
            self._refuse_initializing(version.run)
            if version.run.status(self.clock.now()) in (tasks.COMPLETED, tasks.FAILED, tasks.STOPPED):
                raise ServiceError("ModelArts.0101", f"version {version_id} has ended and cannot be stopped")
            version.run.set_status(tasks.STOPPED, self.clock.now())

    def list_results(
        self, project_id: str, task_id: str, version_id: str, query: ResultQuery | None = None
    ) -> dict[str, Any]:
        """ListProcessorTaskVersionResults; the list is empty until the version has completed."""
        with self._lock:
            version, now = self._find_version(project_id, task_id, version_id), self.clock.now()
        return results.sample_results(version, query or ResultQuery(), now, self.settings.has_more)

    def put_task(self, task: Task) -> None:
        """Add a complete task as the newest; its id and name must be new in its project."""
        with self._lock:
            self._serial += 1
            task.serial = self._serial
            self._runs_added += len(task.runs)
            self.projects[task.project_id].add(task)

    def _find(self, project_id: str, task_id: str) -> Task:
        task = self.projects[project_id].tasks.get(task_id)
        if task is None:
            raise NotFoundError("ModelArts.4700", f"no task with the id {task_id!r}")
        return task

    def _find_version(self, project_id: str, task_id: str, version_id: str) -> Version:
        for version in self._find(project_id, task_id).versions:
            if version.version_id == version_id:
                return version
        # The contract has no code for a missing version; 4612, 4631 and 4636 are all about the task.
        raise NotFoundError("ModelArts.4636", f"no version with the id {version_id!r}")

    def _check_limits(self, project: Project, template_id: str) -> None:
        settings = self.settings
        template_limit = settings.template_limits.get(template_id)
        lowest = min(settings.running_limit, settings.unfinished_limit)
        if template_limit is None and self._runs_added < lowest:
            return
        now = self.clock.now()
        active = [task.template_id for task in project.tasks.values() for run in task.runs if run.status(now) in ACTIVE]
        if len(active) >= settings.running_limit:
            raise ServiceError("ModelArts.4409")
        if len(active) >= settings.unfinished_limit:
            raise ServiceError("ModelArts.4616")
        if template_limit is not None and active.count(template_id) >= template_limit:
            raise ServiceError(settings.template_limit_code)

    def _refuse_initializing(self, run: Run) -> None:
        if run.status(self.clock.now()) == tasks.INITIALIZED:
            raise ServiceError("ModelArts.4850")

    def _take_rule(self, name: str) -> TaskRule:
        for rule in self.rules:
            if rule.times != 0 and rule.matches(name):
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return TaskRule()

    def _start_run(self, rule: TaskRule, at: float | None = None) -> Run:
        self._runs_added += 1
        duration = self.settings.task_duration if rule.duration is None else rule.duration
        return Run.start(self.clock.now() if at is None else at, duration, rule.status, rule.error_msg)

    def _add(self, project: Project, body: dict[str, Any], rule: TaskRule, created_at: float | None = None) -> Task:
        self._serial += 1
        run = self._start_run(rule, created_at)
        task = Task(new_id(), project.project_id, body, run, self._serial, run.created_at)
        task.result, task.result_form = rule.result, rule.result_form
        if not task.is_feature_analysis:
            # create_version is ignored: a data-processing task runs at once here, as its first version. What the real
            # service does with create_version=false is not documented.
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
        described = self._by_shown_clock(task.describe(now))
        described["is_current"] = project.is_current(task)
        if with_result and task.is_feature_analysis and run.status(now) == tasks.COMPLETED:
            result = task.result
            if result is None:
                result = results.default_result(task.task_id, task.result_form or self.settings.result_form)
            if result is not None:
                described["result"] = result
        return described

    def _describe_version(self, version: Version) -> dict[str, Any]:
        now = self.clock.now()
        return {**self._by_shown_clock(version.describe(now)), **results.sample_counts(version, now)}

    def _by_shown_clock(self, described: dict[str, Any]) -> dict[str, Any]:
        """Return an object with the times by the clock that the answers' ``Date`` shows."""
        shift = int(self.settings.clock_offset * 1000)
        return described | {
            name: described[name] + shift for name in ("create_time", "update_time") if name in described
        }
