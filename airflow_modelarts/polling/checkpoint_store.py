"""Storing the checkpoints of event triggers in the asset state store of Airflow 3.3: when, where, and until when."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from airflow_modelarts.polling.checkpoints import Checkpoint
from airflow_modelarts.polling.outage import OutageLog, backoff

#: Seconds after which an event has certainly left the triggerer, which sends its events about once a second.
SENT_AFTER = 5.0
#: Milliseconds after which a checkpoint is saved again although nothing has changed, which shows that it is in use.
REFRESH_AFTER = 86_400_000
#: Milliseconds after which a checkpoint that was not saved again is removed: its trigger is gone.
UNUSED_AFTER = 7 * REFRESH_AFTER
#: The key of the list of checkpoints in a store.
INDEX = "modelarts_checkpoints"
#: The end of the key under which an outage is reported.
_OUTAGE = "_outage"

#: Stores and keys of the checkpoints that this process uses.
_IN_USE: Counter[Hashable] = Counter()
#: One reader or writer of the lists at a time: a store has no transactions.
_LOCKS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


class CheckpointStore:
    """One trigger's checkpoint in the state stores of its assets: equal watchers of several assets share a trigger.

    :param stores: Airflow's accessors; none before Airflow 3.3, and then nothing is stored.
    :param key: the checkpoint's name in each store. It depends on what the trigger selects.
    :param scope: what is watched. A trigger that selects other ends of the same scope takes a checkpoint over.
    :param owner: the triggerer.
    :param log: a logger.
    :param label: names the trigger in the log.
    """

    def __init__(self, stores: Sequence[Any], key: str, scope: str, owner: Any, log: Any, label: str) -> None:
        self._stores = stores
        self._key = key
        self._report_key = f"{key}{_OUTAGE}"
        self._scope = scope
        self._owner = owner
        self._log = OutageLog(log)
        self._label = label
        #: What is to be written, by key: when, and the value; None removes it.
        self._queue: dict[str, tuple[float, Any]] = {}
        self._queued = asyncio.Event()
        self._written = asyncio.Event()
        self._taken_over: str | None = None
        self._saved = 0
        self._listed = 0
        self._has_report = False

    async def load(self) -> Checkpoint | None:
        """Return the stored checkpoint; that of another selection if there is none, or None.

        A store that cannot be read is tried again, since a trigger without its checkpoint would lose ends.
        """
        for failures in itertools.count(1):
            try:
                checkpoint = await self._load()
                self._log.ended()
                return checkpoint
            except Exception as error:  # whatever the store raises
                self._log.failed(f"{self._label} cannot read its checkpoint", error)
                await asyncio.sleep(backoff(SENT_AFTER, failures))
        raise AssertionError("unreachable")

    async def _load(self) -> Checkpoint | None:
        found = [Checkpoint.restore(await store.aget(self._key)) for store in self._stores]
        self._has_report = any([await store.aget(self._report_key) is not None for store in self._stores])
        # An asset may have joined or returned after the others.
        latest = max(filter(None, found), key=lambda checkpoint: checkpoint.watermark, default=None)
        if latest is None:
            return await self._take_over()
        latest.is_changed |= found != [latest] * len(found)
        return latest

    async def _take_over(self) -> Checkpoint | None:
        """Return the checkpoint that another selection of the same scope saved last."""
        latest: tuple[int, str, Checkpoint] | None = None
        for store in self._stores:
            for key in await _read_index(store):
                stored = await store.aget(key)
                match stored, Checkpoint.restore(stored):
                    case {"scope": self._scope, "saved": int(saved)}, Checkpoint() as found:
                        if latest is None or saved > latest[0]:
                            latest = saved, key, found
        if latest is None:
            return None
        self._taken_over = latest[1]
        return latest[2].for_another_selection()

    @asynccontextmanager
    async def saving(self) -> AsyncGenerator[None, None]:
        """Write in the background, so that no snapshot waits for a store."""
        used = [(store, self._key) for store in self._stores]
        _IN_USE.update(used)
        writing = asyncio.create_task(self._write_all())
        try:
            yield
        finally:
            for one in used:
                _IN_USE[one] -= 1
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def save(self, checkpoint: Checkpoint, now: int, *, after_events: bool) -> None:
        """Save a checkpoint, if it has changed or was saved long ago.

        :param now: milliseconds since the epoch.
        :param after_events: whether events were emitted for it. Then it is saved only when they have left the
            triggerer. After a crash in between, the next start emits them again.
        """
        if not self._stores or not (checkpoint.is_changed or now - self._saved >= REFRESH_AFTER):
            return
        checkpoint.is_changed = False
        self._saved = now
        value = {**checkpoint.to_json(), "scope": self._scope, "owner": self._owner, "saved": now}
        self._written.clear()
        self._enqueue(self._key, value, SENT_AFTER if after_events else 0.0)

    async def flush(self) -> None:
        """Wait until the checkpoint is saved; not longer if the store fails."""
        if self._stores:
            await self._written.wait()

    def report(self, outage: str | None) -> None:
        """Store an outage where Airflow shows it, on the asset's page; None removes it."""
        if self._stores and (outage or self._has_report):
            self._has_report = outage is not None
            self._enqueue(self._report_key, outage, 0.0)

    def _enqueue(self, key: str, value: Any, delay: float) -> None:
        self._queue[key] = asyncio.get_running_loop().time() + delay, value
        self._queued.set()

    async def _write_all(self) -> None:
        failures = 0
        while True:
            await self._queued.wait()
            key = min(self._queue, key=lambda key: self._queue[key][0])
            due, value = self._queue.pop(key)
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            try:
                await self._write(key, value)
            except Exception as error:  # whatever the store raises
                failures += 1
                self._log.failed(
                    f"{self._label} cannot save its checkpoint; a restart would emit its last events again", error
                )
                if key not in self._queue:  # what is there includes this
                    self._enqueue(key, value, backoff(SENT_AFTER, failures))
            else:
                failures = 0
                self._log.ended()
            if not self._queue:
                self._queued.clear()
            if key == self._key and (failures or key not in self._queue):
                self._written.set()

    async def _write(self, key: str, value: Any) -> None:
        for store in self._stores:
            await (store.adelete(key) if value is None else store.aset(key, value))
        if key == self._key:
            await self._tidy_up(value["saved"])

    async def _tidy_up(self, now: int) -> None:
        """List the checkpoint in its stores, and remove unused ones; once a day, and after one was taken over."""
        can_remove = self._taken_over and not any(_IN_USE[store, self._taken_over] for store in self._stores)
        if now - self._listed < REFRESH_AFTER and not can_remove:
            return
        async with _LOCKS.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            for store in self._stores:
                listed = await _read_index(store)
                used = {self._key}
                for key in set(listed) - used:
                    if not await self._is_unused(store, key, now):
                        used.add(key)
                        continue
                    await store.adelete(key)
                    await store.adelete(f"{key}{_OUTAGE}")
                if used != set(listed):
                    await store.aset(INDEX, sorted(used))
        self._listed = now
        if can_remove:
            self._taken_over = None

    async def _is_unused(self, store: Any, key: str, now: int) -> bool:
        if _IN_USE[store, key]:
            return False
        match await store.aget(key):
            case {"saved": int(saved), "owner": owner}:
                # Another triggerer may still use what this one has taken over.
                is_replaced = key == self._taken_over and owner == self._owner
                return is_replaced or now - saved > UNUSED_AFTER
        return True


async def _read_index(store: Any) -> list[str]:
    """Return the keys of the checkpoints in a store."""
    stored = await store.aget(INDEX)
    return [key for key in stored if isinstance(key, str)] if isinstance(stored, list) else []
