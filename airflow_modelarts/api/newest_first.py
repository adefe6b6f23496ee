"""Reading a list of processing tasks that is sorted newest first, down to a moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorTask


class NewestFirst:
    """The tasks of a list, without its end in which all tasks are older than a moment.

    The list is read to the end of the page with the first older task, and one page further. If these have older tasks
    only, the rest is not read. Where the order does not hold, nothing follows from an older task, and the whole list
    is read. The older tasks that were read are among those that are yielded.

    A task without ``create_time`` says nothing about the order: the API reference does not say where the service sorts
    it.

    :param tasks: the list, sorted by ``create_time``, newest first.
    :param oldest: the moment, in milliseconds since the epoch; None for the whole list.
    """

    def __init__(self, tasks: Iterable[ProcessorTask], oldest: int | None) -> None:
        self._tasks = tasks
        self._oldest = oldest
        #: Whether no task that was read is newer than one that was listed before it.
        self.order_held = True

    def __iter__(self) -> Iterator[ProcessorTask]:
        from airflow_modelarts.api.operations import MAX_PAGE_SIZE

        previous: int | None = None
        older = 0  # since the last task that is not
        for number, task in enumerate(self._tasks, 1):
            yield task
            created = task.create_time
            if created is not None:
                self.order_held = self.order_held and (previous is None or created <= previous)
                previous = created
                older = older + 1 if self._oldest is not None and created < self._oldest else 0
            elif older:
                older += 1
            if self.order_held and number % MAX_PAGE_SIZE == 0 and older > MAX_PAGE_SIZE:
                return
