"""
Checkpoints: what one event trigger has emitted so far, compared with each snapshot and stored for its next start.

Delivery is at least once: a checkpoint is stored only after the events before it have left the triggerer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsNotFoundError
from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.polling.snapshots import FIRST_PERIOD, OVERLAP, Snapshot, take_snapshot
from airflow_modelarts.polling.watcher import Api

#: Seconds after which an event has certainly left the triggerer, which sends its events about once a second.
SENT_AFTER = 5.0


@dataclass(slots=True)
class Checkpoint:
    """
    What one event trigger knows, so that it emits each end once.

    :param watermark: milliseconds since the epoch; a task created before it is followed only while it is active.
    :param active: ids of the tasks that were active, whenever they were created.
    :param ended: ids of the recent tasks whose end needs no event any more.
    """

    watermark: int
    active: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    @classmethod
    def restore(cls, stored: Any) -> Checkpoint | None:
        """Read what :meth:`to_json` returned; None if it is anything else."""
        match stored:
            case {"watermark": int(watermark), "active": list(active), "ended": list(ended)}:
                return cls(watermark, set(active), set(ended))
        return None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"watermark": self.watermark, "active": sorted(self.active), "ended": sorted(self.ended)}

    def diff(self, snapshot: Snapshot) -> tuple[list[ProcessorTask], list[str]]:
        """
        Advance to a snapshot.

        :return: the tasks that have ended since, and the ids of tasks that were active and are in no list any more.
        """
        terminal = {task_id: task for task_id, task in snapshot.recent.items() if task.is_terminal}
        active = (snapshot.active.keys() | snapshot.recent.keys()) - terminal.keys()
        ended = [task for task in terminal.values() if self._ended_since(task)]
        missing = self.active - active - terminal.keys()
        # A task that is active again, with a new version, will end again.
        self.active, self.ended = set(active), set(terminal)
        self.watermark = max(self.watermark, snapshot.since)
        return ended, sorted(missing)

    def _ended_since(self, task: ProcessorTask) -> bool:
        if task.task_id in self.active:
            return True
        return task.task_id not in self.ended and task.create_time is not None and task.create_time >= self.watermark

    async def backfill(self, api: Api, first: Snapshot, workspace_id: str) -> Snapshot | None:
        """
        Return a snapshot that covers everything since the checkpoint; None if it cannot be taken now.

        A poll that other triggers started long ago covers only the latest minutes.

        :param first: the first snapshot of the poll, which is returned if it covers enough.
        """
        since = max(self.watermark, int((time.time() - FIRST_PERIOD) * 1000))
        if first.since <= since + OVERLAP * 1000:
            return first
        try:
            return await take_snapshot(api, since, workspace_id)
        except ModelArtsError:
            return None

    async def describe_missing(self, api: Api, task_ids: Sequence[str]) -> list[ProcessorTask]:
        """Read tasks that are in no list any more by id (DescribeProcessorTask); return those that have ended."""
        ended = []
        for task_id in task_ids:
            try:
                task = await api.call(operations.describe_processor_task(task_id))
            except ModelArtsNotFoundError:
                continue  # deleted: it will never end
            except ModelArtsError:
                self.active.add(task_id)  # its status is not known: it is read again after the next snapshot
                continue
            if task.is_terminal:
                ended.append(task)
                self.ended.add(task_id)
            else:
                self.active.add(task_id)
        return ended


class CheckpointStore:
    """
    One checkpoint in the state stores of one or several assets: equal watchers of several assets share one trigger.

    :param stores: returns Airflow's accessors at the time; none before Airflow 3.3, and then nothing is stored.
    :param key: the checkpoint's name in each store.
    :param log: the trigger's logger.
    """

    def __init__(self, stores: Callable[[], Sequence[Any]], key: str, log: Any) -> None:
        self._stores = stores
        self._key = key
        self._log = log

    async def load(self) -> Checkpoint | None:
        """Return the latest of the stored checkpoints: an asset may have joined or returned after the others."""
        stored = [Checkpoint.restore(await store.aget(self._key)) for store in self._stores()]
        return max(filter(None, stored), key=lambda checkpoint: checkpoint.watermark, default=None)

    @asynccontextmanager
    async def saving(self) -> AsyncGenerator[Callable[[Checkpoint, bool], None], None]:
        """
        Save checkpoints in the background, so that no snapshot waits for a store.

        Yield a function that takes a checkpoint, and whether events were emitted for it: then it is saved only when
        they have left the triggerer. After a crash in between, the next start emits them again.
        """
        queue: asyncio.Queue[tuple[float, dict[str, Any]]] = asyncio.Queue()

        def save(checkpoint: Checkpoint, after_events: bool) -> None:
            due = asyncio.get_running_loop().time() + SENT_AFTER if after_events else 0.0
            queue.put_nowait((due, checkpoint.to_json()))

        saving = asyncio.create_task(self._save_all(queue))
        try:
            yield save
        finally:
            saving.cancel()
            await asyncio.gather(saving, return_exceptions=True)

    async def _save_all(self, queue: asyncio.Queue[tuple[float, dict[str, Any]]]) -> None:
        while True:
            due, checkpoint = await queue.get()
            while not queue.empty():  # the latest includes the others
                later, checkpoint = queue.get_nowait()
                due = max(due, later)
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            try:
                for store in self._stores():
                    await store.aset(self._key, checkpoint)
            except Exception as error:  # whatever the store raises; the next snapshot saves again
                self._log.warning("Could not save the checkpoint; a restart will emit these events again: %s", error)
