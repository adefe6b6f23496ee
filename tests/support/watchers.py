"""Runs the trigger of asset watchers against a service in memory, with a store in memory."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from airflow_modelarts.polling.snapshots import Outage, Snapshot, poll_snapshots
from airflow_modelarts.triggers import ProcessorTaskEventTrigger
from tests.support.virtual import now
from tests.support.virtual_service import Service

#: Seconds between two polls.
INTERVAL = 60.0


class FakeStateStore:
    """Airflow's asset state store, as far as the trigger uses it.

    :param failures: how many writes will fail.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.writes: Counter[str] = Counter()
        self.failures = 0

    async def aget(self, key: str) -> Any:
        await asyncio.sleep(0)
        return json.loads(self.values[key]) if key in self.values else None

    async def aset(self, key: str, value: Any) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise OSError("the database is down")
        self.values[key] = json.dumps(value)
        self.writes[key] += 1

    async def adelete(self, key: str) -> None:
        await asyncio.sleep(0)
        self.values.pop(key, None)

    @property
    def checkpoints(self) -> dict[str, Any]:
        return {
            key: json.loads(value)
            for key, value in self.values.items()
            if key.startswith("modelarts_processor_tasks_") and not key.endswith("_outage")
        }


def new_trigger(store: Any = None, **how: Any) -> ProcessorTaskEventTrigger:
    trigger = ProcessorTaskEventTrigger(**how)
    trigger.asset_state_store = store
    return trigger


def polls_of(service: Service, interval: float = INTERVAL) -> AsyncGenerator[Snapshot | Outage, None]:
    return poll_snapshots(service.open(), "modelarts_default", interval)


async def emit(
    trigger: ProcessorTaskEventTrigger, stream: AsyncGenerator[Any, None], events: list[tuple[float, dict[str, Any]]]
) -> None:
    """Append the events of a trigger with their times, until cancelled."""
    async with aclosing(stream):
        async for event in trigger.filter_shared_stream(stream):
            events.append((now(), event.payload))


async def emit_for(
    seconds: float, trigger: ProcessorTaskEventTrigger, service: Service, interval: float = INTERVAL
) -> list[dict[str, Any]]:
    """Run a trigger with a poll of its own for some time, then kill it; return its events."""
    events: list[tuple[float, dict[str, Any]]] = []
    emitting = asyncio.create_task(emit(trigger, polls_of(service, interval), events))
    await asyncio.sleep(seconds)
    assert not emitting.done(), emitting
    emitting.cancel()
    await asyncio.gather(emitting, return_exceptions=True)
    return [payload for _, payload in events]
