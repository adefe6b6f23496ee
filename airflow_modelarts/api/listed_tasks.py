"""Tasks of a list, without what only an event needs: a page of thousands of characters a task becomes small objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, TypeAlias

import msgspec

from airflow_modelarts.api import operations
from airflow_modelarts.api.json_reading import read_part
from airflow_modelarts.api.lenient_reading import LARGEST_NUMBER
from airflow_modelarts.api.models import ProcessorTask, read_count
from airflow_modelarts.api.operations import ListOperation, Page
from airflow_modelarts.api.statuses import TERMINAL_STATUSES

#: A number of a task; others are read as everywhere.
_Number = Annotated[int, msgspec.Meta(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)] | None


@dataclass(slots=True)
class ListedSource:
    """What a trigger selects by of an input."""

    type: str | None = None
    source: str | None = None


@dataclass(slots=True)
class ListedTemplate:
    """The id of a template."""

    id: str | None = None


@dataclass(slots=True)
class ListedWorkPath:
    """What a trigger selects by of an output."""

    type: str | None = None
    path: str | None = None
    output_path: str | None = None


@dataclass(slots=True)
class ListedTask:
    """What tells the ends of a task apart, and what a trigger selects by; the names are those of ``ProcessorTask``."""

    task_id: str
    name: str | None = None
    status: int | None = None
    create_time: _Number = None
    duration_seconds: _Number = None
    version_count: _Number = None
    data_source: ListedSource | None = None
    inputs: list[ListedSource] | None = None
    template: ListedTemplate | None = None
    work_path: ListedWorkPath | None = None
    _page: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended: completed, failed or stopped."""
        return self.status in TERMINAL_STATUSES


@dataclass(slots=True)
class _Tasks:
    count: Any = None
    tasks: list[ListedTask] | None = None


class _Body:
    """The bytes of a page, from which all of a task can still be read."""

    def __init__(self, body: bytes, read: Callable[[bytes], Page[ProcessorTask]]) -> None:
        self._body = body
        self._read = read

    @cached_property
    def tasks(self) -> dict[str, ProcessorTask]:
        return {task.task_id: task for task in self._read(self._body).items}


#: A task of a list: what does not fit the small objects, a number as a text too, is read as everywhere.
Listed: TypeAlias = ListedTask | ProcessorTask


_TASKS = msgspec.json.Decoder(_Tasks)


def list_tasks(**query: Any) -> ListOperation[Listed]:
    """List tasks (ListProcessorTasks).

    :param query: as of :func:`~airflow_modelarts.api.operations.list_processor_tasks`.
    """
    listing = operations.list_processor_tasks(**query)

    def read(body: bytes) -> Page[Any]:
        found = read_part(_TASKS, body)
        if found is None:
            return listing.read(body)
        page = _Body(body, listing.read)
        for task in found.tasks or []:
            task._page = page
        return Page(found.tasks or [], read_count(found.count))

    return replace(listing, read=read)  # type: ignore[return-value]  # the items differ


def complete(task: Listed) -> ProcessorTask:
    """Return a task with all fields that the list has, which are read now."""
    if isinstance(task, ProcessorTask):
        return task
    page: _Body = task._page
    return page.tasks[task.task_id]
