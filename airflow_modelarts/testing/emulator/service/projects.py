"""A project's tasks, and the choice among them that the list operations make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_modelarts.testing.emulator.service.accounts import OTHER_WORKSPACE_ID, WORKSPACE_ID
from airflow_modelarts.testing.emulator.service.tasks import Task, Version

SortBy = Literal["create_time", "name", "duration_seconds"]
VersionSortBy = Literal["create_time", "version_name"]
Order = Literal["asc", "desc"]


@dataclass(frozen=True, kw_only=True)
class TaskQuery:
    """
    The parameters of ListProcessorTasks; None does not filter.

    :param offset: the page's number, from 0.
    :param task_name: part of the name, in any case: the reference says no more than "fuzzy".
    :param version_ids: dataset versions.
    :param workspace_id: the emulator's choice is that a list without one is the list of the default workspace.
    """

    offset: int = 0
    limit: int = 10
    order: Order = "desc"
    sort_by: SortBy = "create_time"
    status: int | None = None
    task_type: str | None = None
    task_name: str | None = None
    source_type: str | None = None
    source: str | None = None
    version_ids: frozenset[str] | None = None
    workspace_id: str = WORKSPACE_ID
    query_current: bool = False

    @property
    def is_narrow(self) -> bool:
        """Whether it filters by more than workspace and status, as waits for thousands of tasks do not."""
        filters = (self.task_type, self.task_name, self.source_type, self.source, self.version_ids)
        return self.query_current or any(wanted is not None for wanted in filters)


@dataclass(frozen=True, kw_only=True)
class VersionQuery:
    """The parameters of ListProcessorTaskVersions; ``offset`` is the page's number."""

    offset: int = 0
    limit: int = 100
    order: Order = "desc"
    sort_by: VersionSortBy = "create_time"

    def select(self, versions: list[Version]) -> list[Version]:
        """Return all versions in the order asked for; they are kept in that of their creation, and named by it."""
        return versions[::-1] if self.order == "desc" else versions


@dataclass
class Project:
    """A project: its workspaces and its tasks, by id in the order of their creation."""

    project_id: str
    name: str
    workspaces: set[str] = field(default_factory=lambda: {WORKSPACE_ID, OTHER_WORKSPACE_ID})
    tasks: dict[str, Task] = field(default_factory=dict)
    ids_by_name: dict[str, str] = field(default_factory=dict)
    #: The newest task of each kind, by what "is_current" compares.
    _current: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def add(self, task: Task) -> None:
        """Take in a new task."""
        self.tasks[task.task_id] = task
        self.ids_by_name[task.name] = task.task_id
        self._current[task.kind] = task.task_id

    def remove(self, task: Task) -> None:
        """Forget a task; the newest other one of its kind becomes current."""
        del self.tasks[task.task_id]
        if self.ids_by_name.get(task.name) == task.task_id:
            del self.ids_by_name[task.name]
        if self._current[task.kind] == task.task_id:
            del self._current[task.kind]
            newest = next((other for other in reversed(self.tasks.values()) if other.kind == task.kind), None)
            if newest is not None:
                self._current[task.kind] = newest.task_id

    def is_current(self, task: Task) -> bool:
        """Whether it is the newest task of its kind."""
        return self._current[task.kind] == task.task_id

    def select(self, query: TaskQuery, now: float) -> tuple[int, list[Task]]:
        """Return how many tasks there are that match, and one page of them."""
        found = [task for task in self.tasks.values() if task.workspace_id == query.workspace_id]
        if query.status is not None:
            found = [task for task in found if task.run.status(now) == query.status]
        found = [task for task in found if self._matches(task, query)] if query.is_narrow else found
        descending = query.order == "desc"
        if query.sort_by == "name":
            found.sort(key=lambda task: (task.name, task.serial), reverse=descending)
        elif query.sort_by == "duration_seconds":
            found.sort(key=lambda task: (task.run.duration_seconds(now), task.serial), reverse=descending)
        elif descending:
            found.reverse()  # they are kept in the order of their creation
        return len(found), found[query.offset * query.limit : (query.offset + 1) * query.limit]

    def _matches(self, task: Task, query: TaskQuery) -> bool:
        return (
            (query.task_type is None or task.template_id == query.task_type)
            and (query.task_name is None or query.task_name.casefold() in task.name.casefold())
            and (query.version_ids is None or task.dataset_version_id in query.version_ids)
            and (query.source_type is None or any(s.get("type") == query.source_type for s in task.sources))
            and (query.source is None or any(s.get("source") == query.source for s in task.sources))
            and (not query.query_current or self.is_current(task))
        )
