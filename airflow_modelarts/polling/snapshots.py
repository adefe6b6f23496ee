"""Snapshots of a project's processing tasks, for the asset events.

The API reports neither when a task ended nor in which order tasks ended. So each poll takes a snapshot: the active
tasks and the recently created ones. ``polling.checkpoints`` compares snapshots to find the tasks that ended in between.
All triggers that share a poll share its snapshots, and the further requests that a snapshot leads to.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar, cast

from airflow_modelarts.api import operations
from airflow_modelarts.api.ends import Origin
from airflow_modelarts.api.http import Response
from airflow_modelarts.api.listed_tasks import Listed, list_tasks
from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
from airflow_modelarts.polling.known_ends import End, read_end
from airflow_modelarts.polling.outage import backoff_with_jitter
from airflow_modelarts.polling.plan import ACTIVE, CONCURRENCY
from airflow_modelarts.polling.wait import DEFAULT_WORKSPACE
from airflow_modelarts.polling.watcher import Api
from airflow_modelarts.transport import Settings

T = TypeVar("T")

#: Seconds by which a snapshot overlaps the one before: a list shifts while it is read, and is not exactly in order.
OVERLAP = 600.0
#: Seconds that the first snapshot covers: tasks that were created while no triggerer ran are found up to this age.
FIRST_PERIOD = 86400.0


class PollApi(Api, Protocol):
    """The part of the asynchronous hook that a poll uses."""

    async def settings(self) -> Settings:
        """Return the connection, read and checked."""


@dataclass(frozen=True)
class Snapshot:
    """The tasks that one poll found.

    :param origin: the connection, project and host that were polled.
    :param active: the active tasks by id.
    :param recent: the tasks created since ``since``, by id, terminal or not.
    :param since: milliseconds since the epoch, by the service's clock.
    :param poll: makes further requests.
    :param older: tasks created earlier that the poll came across, by id: not all of them.
    :param clock_offset: seconds by which the service's clock is ahead of this machine's.
    """

    origin: Origin
    active: Mapping[str, Listed]
    recent: Mapping[str, Listed]
    since: int
    poll: Poll = field(repr=False, compare=False)
    older: Mapping[str, Listed] = field(default_factory=dict)
    clock_offset: float = 0.0
    _shared: dict[Hashable, asyncio.Task[Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def tasks(self) -> dict[str, Listed]:
        """All tasks by id, each as the last answer showed it."""
        return {**self.active, **self.recent, **self.older}

    @cached_property
    def ends(self) -> dict[str, End]:
        """The latest end of each terminal task, by the task's id."""
        return {task_id: read_end(task) for task_id, task in self.tasks.items() if task.is_terminal}

    def service_time(self, local: float) -> int:
        """Return a time of this machine's clock in milliseconds by the service's clock."""
        return int((local + self.clock_offset) * 1000)

    async def describe(self, task_id: str) -> ProcessorTask:
        """Read a task by id (DescribeProcessorTask), without its result; once for all triggers that share the poll."""

        async def read(poll: Poll) -> ProcessorTask:
            task = await poll.api.call(operations.describe_processor_task(task_id))
            return task.model_copy(update={"result": None})  # it can have tens of megabytes

        return await self._share(("task", task_id), read)

    async def versions(self, task_id: str) -> list[ProcessorTaskVersion]:
        """List a task's versions (ListProcessorTaskVersions); once for all triggers that share the poll."""

        async def read(poll: Poll) -> list[ProcessorTaskVersion]:
            async with aclosing(poll.api.pages(operations.list_processor_task_versions(task_id))) as pages:
                return [version async for page in pages for version in page.items]

        return await self._share(("versions", task_id), read)

    async def extended(self) -> Snapshot:
        """Take a snapshot that covers as much as the first one of a poll; once for all triggers that share the poll."""
        return await self._share("extended", Poll.take_snapshot)

    async def _share(self, key: Hashable, read: Callable[[Poll], Coroutine[Any, Any, T]]) -> T:
        if key not in self._shared:
            self._shared[key] = self.poll.start(read)
        # One trigger that is cancelled must not cancel the request for the others.
        return cast("T", await asyncio.shield(self._shared[key]))


@dataclass(frozen=True, slots=True)
class Outage:
    """A poll that failed. Polling goes on.

    :param error: the reason.
    :param origin: what was polled; None if the connection cannot be read.
    """

    error: Exception
    origin: Origin | None


class Poll:
    """Takes snapshots for all triggers that share a poll, and makes the further requests that these need.

    :param api: calls ModelArts.
    :param modelarts_conn_id: the connection of the API.
    """

    def __init__(self, api: PollApi, modelarts_conn_id: str, workspace_id: str) -> None:
        self.api = api
        self._modelarts_conn_id = modelarts_conn_id
        self._workspace_id = workspace_id
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._running: set[asyncio.Task[Any]] = set()
        self._next_page = 0

    def start(self, read: Callable[[Poll], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Start a request as soon as fewer than ``CONCURRENCY`` others are under way."""

        async def read_in_turn() -> T:
            async with self._slots:
                return await read(self)

        # In a context of its own: it works for all triggers, so its log lines must not go to the first one's.
        task = asyncio.get_running_loop().create_task(read_in_turn(), context=contextvars.Context())
        self._running.add(task)
        task.add_done_callback(self._finish)
        return task

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # asyncio would log it if no trigger waits for it any more

    async def close(self) -> None:
        """Cancel the requests that are under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def take_snapshot(self, since: int | None = None) -> Snapshot:
        """List the active tasks, those created since ``since``, and one page of older ones (ListProcessorTasks).

        :param since: milliseconds since the epoch by the service's clock; None for ``FIRST_PERIOD`` before now.
        :raises ModelArtsError: a list cannot be read.
        """
        offsets: list[float] = []

        def observe(response: Response) -> None:
            if response.served_at is not None:
                offsets.append(response.served_at - time.time())

        active: dict[str, Listed] = {}
        for status in ACTIVE:
            listing = list_tasks(status=status, workspace_id=self._workspace_id)
            async with aclosing(self.api.pages(replace(listing, observe=observe))) as pages:
                async for page in pages:
                    active |= {task.task_id: task for task in page.items if not task.is_terminal}
        offset = offsets[0] if offsets else 0.0
        period_begin = int((time.time() + offset - FIRST_PERIOD) * 1000)
        since = period_begin if since is None else since
        recent, older = await self._read_recent(since, period_begin)
        return Snapshot(await self._read_origin(), active, recent, since, self, older, offset)

    async def find_origin(self) -> Origin | None:
        """Return what is polled; None if the connection cannot be read."""
        try:
            return await self._read_origin()
        except Exception:  # it was the reason of an outage, or will be
            return None

    async def _read_origin(self) -> Origin:
        settings = await self.api.settings()
        return Origin.of(self._modelarts_conn_id, settings.client, settings.region)

    async def _read_recent(self, since: int, period_begin: int) -> tuple[dict[str, Listed], dict[str, Listed]]:
        """Return the tasks created since ``since``, and the others that the same pages have.

        The list has the newest first. An entry out of order must hide nothing, so it is read up to a page without a
        recent task; to its end if it is seen out of order by more than the overlap.

        A task that is run again keeps its place. If it is not active at any poll, only its entry changes. So each poll
        reads one more page, and together they cover ``FIRST_PERIOD`` again and again.
        """
        listing = list_tasks(workspace_id=self._workspace_id, sort_by="create_time", order="desc")
        read: dict[str, Listed] = {}
        pages, oldest, is_ordered = 0, math.inf, True
        async with aclosing(self.api.pages(listing)) as found:
            async for page in found:
                pages += 1
                read |= {task.task_id: task for task in page.items}
                for created in (task.create_time for task in page.items if task.create_time is not None):
                    is_ordered &= created <= oldest + OVERLAP * 1000
                    oldest = min(oldest, created)
                if is_ordered and not any(_is_since(task, since) for task in page.items):
                    break
            else:
                oldest = -math.inf  # that was the whole list
        if oldest < period_begin:
            self._next_page = 0
        else:
            number = max(self._next_page, pages)
            further = (await self.api.call(listing.page(number))).items
            read |= {task.task_id: task for task in further}
            is_last = len(further) < listing.limit or (further[-1].create_time or 0) < period_begin
            self._next_page = 0 if is_last else number + 1
        recent = {task_id: task for task_id, task in read.items() if _is_since(task, since)}
        return recent, {task_id: task for task_id, task in read.items() if task_id not in recent}


def _is_since(task: Listed, since: int) -> bool:
    # A task without a creation time is taken as recent: the list is ordered, and its neighbours are recent.
    return task.create_time is None or task.create_time >= since


async def poll_snapshots(
    api: PollApi, modelarts_conn_id: str, interval: float, workspace_id: str = DEFAULT_WORKSPACE
) -> AsyncGenerator[Snapshot | Outage, None]:
    """Yield a snapshot every ``interval`` seconds, without end; an outage for each poll that failed.

    An error that waiting does not cure, such as a refused key, is retried too: the connection may be corrected, and if
    the trigger failed, Airflow would restart it every second. The same holds for an error of any other kind.
    """
    poll = Poll(api, modelarts_conn_id, workspace_id)
    since, failures = None, 0
    try:
        while True:
            began, pause = time.time(), interval
            try:
                snapshot = await poll.take_snapshot(since)
            except Exception as error:
                failures += 1
                pause = backoff_with_jitter(interval, failures, error)
                yield Outage(error, await poll.find_origin())
            else:
                since, failures = snapshot.service_time(began - OVERLAP), 0
                yield snapshot
            await asyncio.sleep(pause)
    finally:
        await poll.close()
