"""
Which processing tasks of a project have ended since the last look: one poll, and a ledger for each who listens.

The service tells neither when a task ended nor in which order tasks did. So a poll brings a picture, the active tasks
and the recently created ones, and a ledger compares it with what it knew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsNotFoundError
from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.polling.watcher import ACTIVE, DEFAULT_WORKSPACE, Api, backoff_with_jitter

log = logging.getLogger(__name__)

#: Seconds by which a look reaches back behind the one before: clocks differ, and a list shifts while it is read.
OVERLAP = 600.0
#: Seconds for which a first look reaches back, so that a triggerer may have been down for so long.
FIRST_REACH = 86400.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    How things stand.

    :param active: the active tasks by id.
    :param recent: the tasks created since ``since``, by id, ended or not.
    :param since: milliseconds since the epoch.
    """

    active: Mapping[str, ProcessorTask]
    recent: Mapping[str, ProcessorTask]
    since: int


async def poll_snapshots(
    api: Api, interval: float, workspace_id: str = DEFAULT_WORKSPACE
) -> AsyncGenerator[Snapshot, None]:
    """
    Yield a picture every ``interval`` seconds, for ever. An outage is waited out, and logged when it begins and ends.

    What waiting alone cannot mend, such as a refused key, is logged too, and tried again after growing pauses: somebody
    may mend the connection, and Airflow would start a trigger that fails anew every second.
    """
    since, failures = time.time() - FIRST_REACH, 0
    while True:
        began, pause = time.time(), interval
        try:
            snapshot = await _take_snapshot(api, int(since * 1000), workspace_id)
        except ModelArtsError as error:
            failures += 1
            pause = backoff_with_jitter(interval, failures, error)
            if failures == 1:
                log.warning("%s Watching for processing tasks that end goes on.", error)
        else:
            if failures:
                log.info("ModelArts answers again.")
            since, failures = began - OVERLAP, 0
            yield snapshot
        await asyncio.sleep(pause)


async def _take_snapshot(api: Api, since: int, workspace_id: str) -> Snapshot:
    active: dict[str, ProcessorTask] = {}
    for status in ACTIVE:
        listing = operations.list_processor_tasks(status=status, workspace_id=workspace_id)
        async with aclosing(api.pages(listing)) as pages:
            async for page in pages:
                active |= {task.task_id: task for task in page.items if not task.is_terminal}
    return Snapshot(active, await _read_recent(api, since, workspace_id), since)


async def _read_recent(api: Api, since: int, workspace_id: str) -> dict[str, ProcessorTask]:
    recent: dict[str, ProcessorTask] = {}
    listing = operations.list_processor_tasks(workspace_id=workspace_id, sort_by="create_time", order="desc")
    async with aclosing(api.pages(listing)) as pages:
        async for page in pages:
            # A task without a time cannot be placed; the list is in order, so it is taken for recent.
            new = [task for task in page.items if task.create_time is None or task.create_time >= since]
            recent |= {task.task_id: task for task in new}
            if len(new) < len(page.items):
                break
    return recent


@dataclass(slots=True)
class Checkpoint:
    """
    What one listener knows: it tells no end twice and misses none.

    :param watermark: milliseconds since the epoch; a task created before it is followed only while it is active.
    :param active: ids of the tasks that were active, whenever they were created.
    :param ended: ids of the recent tasks whose end is no news.
    """

    watermark: int
    active: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    @classmethod
    def restore(cls, stored: Any) -> Checkpoint | None:
        """Read what :meth:`store` wrote; None if there is nothing of use."""
        match stored:
            case {"watermark": int(watermark), "active": list(active), "ended": list(ended)}:
                return cls(watermark, set(active), set(ended))
        return None

    def store(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"watermark": self.watermark, "active": sorted(self.active), "ended": sorted(self.ended)}

    def diff(self, snapshot: Snapshot) -> tuple[list[ProcessorTask], list[str]]:
        """
        Take in a picture.

        :return: the tasks that have ended, and the ids of those to be asked for, which were active and are in no list.
        """
        ended = {task_id: task for task_id, task in snapshot.recent.items() if task.is_terminal}
        active = (snapshot.active.keys() | snapshot.recent.keys()) - ended.keys()
        news = [task for task in ended.values() if self._is_news(task)]
        lost = self.active - active - ended.keys()
        # A task that is active again, as a new version, will end anew.
        self.active, self.ended = set(active), set(ended)
        self.watermark = max(self.watermark, snapshot.since)
        return news, sorted(lost)

    async def backfill(self, api: Api, first: Snapshot, workspace_id: str) -> Snapshot | None:
        """
        Return a first picture without a gap between it and what the ledger knows; None if that cannot be read now.

        The poll that brought it may be one that others began long ago, and then it reaches back but minutes.
        """
        since = max(self.watermark, int((time.time() - FIRST_REACH) * 1000))
        if first.since <= since + OVERLAP * 1000:
            return first
        try:
            return await _take_snapshot(api, since, workspace_id)
        except ModelArtsError:
            return None

    def _is_news(self, task: ProcessorTask) -> bool:
        if task.task_id in self.active:
            return True
        return task.task_id not in self.ended and task.create_time is not None and task.create_time >= self.watermark

    async def describe_missing(self, api: Api, task_ids: Sequence[str]) -> list[ProcessorTask]:
        """Ask by id for tasks that were active and are in no list (DescribeProcessorTask); return those that ended."""
        found = []
        for task_id in task_ids:
            try:
                task = await api.call(operations.describe_processor_task(task_id))
            except ModelArtsNotFoundError:
                continue  # deleted: it will never end
            except ModelArtsError:
                self.active.add(task_id)  # nobody can tell: it is asked for again after the next look
                continue
            if task.is_terminal:
                found.append(task)
                self.ended.add(task_id)
            else:
                self.active.add(task_id)
        return found
