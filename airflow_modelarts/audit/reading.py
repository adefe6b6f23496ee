"""Reads the list of an audit, and notes what could not be read and what was deleted meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_modelarts.audit.text import sanitize

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorTask
    from airflow_modelarts.api.operations import Page
    from airflow_modelarts.audit.report import AuditReport

#: Milliseconds since the epoch, from 2000 to 2100. Zero, and seconds or microseconds, are outside: a task with such a
#: time would be in no window.
PLAUSIBLE = range(946_684_800_000, 4_102_444_800_000)
#: Tasks with unreadable fields, and unreadable items, that a report names.
NAMED = 10


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What of a list could not be read.

    :param items: the number of listed items that could not be read at all, so they are in no other count.
    :param first_items: where the first of them are and why, for example ``page 3, item 7: no readable task_id``.
    :param tasks: the number of tasks of the report that have an unreadable field.
    :param fields: for each unreadable field, the number of tasks that have it. Its value counts as missing.
    :param first: for the first of these tasks, the unreadable fields by task id.
    """

    items: int = 0
    first_items: Sequence[str] = ()
    tasks: int = 0
    fields: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.items or self.fields)

    def describe(self) -> list[str]:
        """Return a sentence on the items, and one on the fields, if there are any."""
        sentences = []
        if count := self.items:
            text = "item cannot be read and is excluded" if count == 1 else "items cannot be read and are excluded"
            sentences.append(f"{count:,} listed {text} ({_first(self.first_items, count)}).")
        if self.fields:
            counts = ", ".join(
                f"{name} of {count:,} {'task' if count == 1 else 'tasks'}" for name, count in self.fields.items()
            )
            tasks = [f"{task_id}: {' and '.join(names)}" for task_id, names in self.first.items()]
            sentences.append(f"Fields that cannot be read count as missing: {counts} ({_first(tasks, self.tasks)}).")
        return sentences

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "items": self.items,
            "first_items": list(self.first_items),
            "tasks": self.tasks,
            "fields": dict(self.fields),
            "first_tasks": {task_id: list(names) for task_id, names in self.first.items()},
        }


class UnreadableFields:
    """Counts unreadable fields, and keeps the names of the first tasks that have some."""

    def __init__(self) -> None:
        self.tasks = 0
        self.counts: Counter[str] = Counter()
        self.first: dict[str, Sequence[str]] = {}

    def add(self, task: ProcessorTask) -> None:
        """Note the unreadable fields of a task."""
        if names := task.unreadable:
            self.tasks += 1
            self.counts.update(names)
            if len(self.first) < NAMED:
                self.first[sanitize(task.task_id)] = names

    def result(self) -> Unreadable:
        """Return what was noted."""
        return Unreadable(tasks=self.tasks, fields=self.counts, first=self.first)


class ListReader:
    """Iterates over the tasks of a list, and notes what its pages say besides.

    :param pages: the pages, in the order of the list.
    """

    def __init__(self, pages: Iterable[Page[ProcessorTask]]) -> None:
        self.unreadable_items = 0
        self.first_items: list[str] = []
        self.deleted = 0
        #: How many tasks the service counted and did not list, apart from deleted ones; 0 unless the list was read to
        #: its end.
        self.not_listed = 0
        self._pages = pages

    def __iter__(self) -> Iterator[ProcessorTask]:
        first: int | None = None
        previous: int | None = None
        listed = 0
        for page in self._pages:
            listed += page.size
            if page.count is not None:
                if previous is not None:
                    # New tasks can hide deletions, so the sum is a lower bound.
                    self.deleted += max(previous - page.count, 0)
                previous = page.count
                first = page.count if first is None else first
            self.unreadable_items += len(page.unreadable)
            for item in page.unreadable[: NAMED - len(self.first_items)]:
                self.first_items.append(f"page {page.number + 1}, item {item.index + 1}: {item.reason}")
            for task in page.items:
                yield task if task.create_time is None or task.create_time in PLAUSIBLE else _undated(task)
        self.not_listed = max((first or 0) - listed - self.deleted, 0)

    def complete(self, report: AuditReport) -> AuditReport:
        """Return a report with what was noted while the list was read."""
        unreadable = replace(report.unreadable, items=self.unreadable_items, first_items=tuple(self.first_items))
        return replace(report, unreadable=unreadable, deleted_while_listing=self.deleted, not_listed=self.not_listed)


def _undated(task: ProcessorTask) -> ProcessorTask:
    from airflow_modelarts.api.lenient_reading import mark_unreadable

    return mark_unreadable(task.model_copy(update={"create_time": None}), (*task.unreadable, "create_time"))


def _first(texts: Sequence[str], count: int) -> str:
    more = f" and {count - len(texts):,} more" if count > len(texts) else ""
    return "; ".join(texts) + more
