"""Waits in tests of the watcher: start them, and collect their events with the times."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeAlias

from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling.wait import Ended, OutageBegan, WaitEvent
from tests.support.target_waits import wait_for_end
from tests.support.virtual import now, run
from tests.support.virtual_service import Gateway, Service

HOUR = 3600.0
#: The changes of a task that runs without end.
FOREVER = ((0.0, 1),)
Timed: TypeAlias = list[tuple[float, WaitEvent]]
#: Starts a wait that calls ``on_event``.
StartWait: TypeAlias = Callable[..., Coroutine[Any, Any, int]]


def watch(
    service: Service | Gateway,
    task_id: str,
    interval: float = 5.0,
    *,
    key: Any = "conn",
    workspace_id: str | None = None,
    poll_at_once: bool = False,
) -> StartWait:
    return partial(
        wait_for_end,
        key,
        service.open,
        Target(task_id),
        workspace_id=workspace_id,
        interval=interval,
        poll_at_once=poll_at_once,
    )


async def collect(start: StartWait, events: Timed | None = None, *, after: float = 0.0) -> Timed:
    """Wait until the end, and return all events with their times."""
    collected: Timed = [] if events is None else events
    await asyncio.sleep(after)
    status = await start(on_event=lambda event: collected.append((now(), event)))
    assert collected[-1][1] == Ended(status)
    return collected


async def collect_all(service: Service | Gateway, task_ids: Iterable[str], interval: float = 5.0) -> list[Any]:
    """Wait for each task until its end; return the events or the error of each wait."""
    waits = (collect(watch(service, task_id, interval)) for task_id in task_ids)
    return await asyncio.gather(*waits, return_exceptions=True)


async def collect_for(seconds: float, *waits: StartWait) -> list[Timed]:
    """Collect the events of waits that may not end, for some time."""
    collected: list[Timed] = [[] for _ in waits]
    readers = [asyncio.create_task(collect(*started)) for started in zip(waits, collected, strict=True)]
    await asyncio.sleep(seconds)
    for reader in readers:
        reader.cancel()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert all(isinstance(result, list | asyncio.CancelledError) for result in results), results
    return collected


def run_for(seconds: float, service: Service | Gateway, task_ids: Iterable[str], interval: float = 5.0) -> list[Timed]:
    """Watch tasks for some time on a virtual clock; return the events of each wait."""

    async def watch_all() -> list[Timed]:
        return await collect_for(seconds, *(watch(service, task_id, interval) for task_id in task_ids))

    return run(watch_all())


def names(count: int, kind: str = "task") -> list[str]:
    return [f"{kind} {number}" for number in range(count)]


def kinds(events: Timed) -> list[type[WaitEvent]]:
    return [type(event) for _, event in events]


def end_times(waits: Iterable[Timed]) -> list[float]:
    return [time for events in waits for time, event in events if isinstance(event, Ended)]


def outage_times(waits: Iterable[Timed]) -> list[float]:
    return [time for events in waits for time, event in events if isinstance(event, OutageBegan)]
