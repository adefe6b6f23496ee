"""A project's tasks, and the queries of the list operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Annotated, Any, Literal
from zlib import crc32

from pydantic import BaseModel, Field

from airflow_modelarts.testing.emulator.service.accounts import OTHER_WORKSPACE_ID, WORKSPACE_ID
from airflow_modelarts.testing.emulator.service.settings import ListOrder
from airflow_modelarts.testing.emulator.service.tasks import Task

Order = Literal["asc", "desc"]
Offset = Annotated[int, Field(ge=0, le=2**31 - 1, description="page number, from 0")]
Limit = Annotated[int, Field(ge=1, le=100, description="entries per page")]


class TaskQuery(BaseModel):
    """The parameters of ListProcessorTasks; None does not filter."""

    offset: Offset = 0
    limit: Limit = 10
    order: Order = "desc"
    sort_by: Literal["create_time", "name", "duration_seconds"] = "create_time"
    status: Annotated[int | None, Field(ge=0, le=4)] = None
    task_type: str | None = None
    #: The reference says "fuzzy"; the emulator matches a part of the name, in any case.
    task_name: str | None = None
    source_type: Literal["OBS", "TASK", "DATASET", "CUSTOM"] | None = None
    source: str | None = None
    version_id: Annotated[str | None, Field(description="dataset version ids, separated by commas")] = None
    #: The emulator lists the default workspace when none is given; the reference does not say.
    workspace_id: str = WORKSPACE_ID
    query_current: bool = False
    return_result: bool = True

    def matches(self, task: Task) -> bool:
        """Whether a task passes the filters other than workspace, status and ``query_current``."""
        return (
            (self.task_type is None or task.template_id == self.task_type)
            and (self.task_name is None or self.task_name.casefold() in task.name.casefold())
            and (not self.version_id or task.dataset_version_id in self.version_id.split(","))
            and (self.source_type is None or any(s.get("type") == self.source_type for s in task.sources))
            and (self.source is None or any(s.get("source") == self.source for s in task.sources))
        )


class VersionQuery(BaseModel):
    """The parameters of ListProcessorTaskVersions."""

    offset: Offset = 0
    limit: Limit = 100
    order: Order = "desc"
    # Versions are named by their creation, so that both orders are the same.
    sort_by: Literal["create_time", "version_name"] = "create_time"


@dataclass
class Project:
    """A project: its workspaces, and its tasks by id in the order in which they were added."""

    project_id: str
    name: str
    workspaces: set[str] = field(default_factory=lambda: {WORKSPACE_ID, OTHER_WORKSPACE_ID})
    tasks: dict[str, Task] = field(default_factory=dict)
    ids_by_name: dict[str, str] = field(default_factory=dict)
    #: Ids of the newest task of each kind; ``is_current`` compares with them.
    _current: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def add(self, task: Task) -> None:
        """Add a new task."""
        self.tasks[task.task_id] = task
        self.ids_by_name[task.name] = task.task_id
        current = self.tasks.get(self._current.get(task.kind, ""), task)
        self._current[task.kind] = max(current, task, key=_age_key).task_id

    def remove(self, task: Task) -> None:
        """Remove a task; the newest remaining one of its kind becomes current."""
        del self.tasks[task.task_id]
        if self.ids_by_name.get(task.name) == task.task_id:
            del self.ids_by_name[task.name]
        if self._current[task.kind] == task.task_id:
            del self._current[task.kind]
            others = [other for other in self.tasks.values() if other.kind == task.kind]
            if others:
                self._current[task.kind] = max(others, key=_age_key).task_id

    def is_current(self, task: Task) -> bool:
        """Whether it is the newest task of its kind."""
        return self._current[task.kind] == task.task_id

    def select(self, query: TaskQuery, now: float, list_order: ListOrder = "sorted") -> tuple[int, list[Task]]:
        """Return the number of matching tasks, and one page of them."""
        found = [task for task in self.tasks.values() if task.workspace_id == query.workspace_id]
        if query.status is not None:
            found = [task for task in found if task.run.status(now) == query.status]
        if query.query_current:
            found = [task for task in found if self.is_current(task)]
        filters = (query.task_type, query.task_name, query.source_type, query.source, query.version_id)
        if any(wanted is not None for wanted in filters):  # without filters, thousands of tasks are listed faster
            found = [task for task in found if query.matches(task)]
        self._sort(found, query, now, list_order)
        return len(found), found[query.offset * query.limit : (query.offset + 1) * query.limit]

    def _sort(self, found: list[Task], query: TaskQuery, now: float, list_order: ListOrder) -> None:
        """Sort the tasks, which are in the order in which they were added."""
        if list_order == "shuffled":
            found.sort(key=lambda task: crc32(task.task_id.encode()))
            return
        if list_order == "sorted" and query.sort_by == "create_time":
            found.sort(key=attrgetter("created_at"))  # thousands of tasks that are in order are sorted fast
        elif list_order == "sorted" and query.sort_by == "name":
            found.sort(key=attrgetter("name"))
        elif list_order == "sorted":
            found.sort(key=lambda task: task.run.duration_seconds(now))
        if query.order == "desc":
            found.reverse()


def _age_key(task: Task) -> tuple[float, int]:
    return task.created_at, task.serial
