"""What a look at a project costs the triggerer that emits asset events: the first look of a poll, and a later one.

One watcher, or twenty that share the poll as Airflow 3.3 shares it and select by an input each. They run in a process
of their own; the emulator runs in this one, so its work is not counted.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import psutil

from airflow_modelarts.testing.emulator import EmulatorServer
from tests.benchmarks.answers import EXAMPLE_BODY
from tests.benchmarks.tables import show

ACTIVE, ENDED = 500, 10_000
#: How many of the tasks end between two looks.
ENDS = 5
#: Seconds between two looks; their number after the first.
INTERVAL, LATER = 1.0, 10
DAY = 86_400_000


def run() -> None:
    """Measure one watcher and twenty, and print one table."""
    rows = []
    with _service() as server:
        for count in (1, 20):
            for look, *figures in _measure(server, count):
                rows.append((f"{count}, {look}", *figures))
    head = ("watchers, look", "requests", "CPU ms", "KB", "events")
    show(f"A look at {ACTIVE} active tasks and {ENDED} that have ended, all created over the last day", head, rows)
    print("KB: how much more the process uses after it, which a later look does not add up.")


@contextmanager
def _service() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=1e6) as server:
        now = int(time.time() * 1000)
        for count, status in ((ENDED, 2), (ACTIVE, 1)):
            for number in range(count):
                created = now - DAY + 60_000 + number * (DAY - 120_000) // count
                server.state.add_task(status=status, body=EXAMPLE_BODY, create_time=created)
        yield server


def _measure(server: EmulatorServer, count: int) -> Iterator[tuple[object, ...]]:
    program = [sys.executable, "-m", "tests.benchmarks.looks", str(count)]
    environment = {**os.environ, "AIRFLOW_CONN_MODELARTS_DEFAULT": server.airflow_connection()}
    active = [task.task_id for task in server.state.add_tasks(ENDS * LATER, status=1, body=EXAMPLE_BODY)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdin
        assert child.stdout
        for look in ("first", *("later",) * LATER):
            before = server.state.log.count()
            child.stdin.write("look\n")
            child.stdin.flush()
            cpu, kilobytes, events = json.loads(next(line for line in child.stdout if line.startswith("[")))
            figures = [server.state.log.count() - before, cpu, kilobytes, events]
            if look == "first":
                yield look, *figures
                total = [0.0] * len(figures)
            else:
                total = [one + other for one, other in zip(total, figures, strict=True)]
            for task_id in active[:ENDS]:
                server.state.finish(task_id)
            del active[:ENDS]
        yield "later", *(figure / LATER for figure in total)


# In the process that stands for the triggerer


async def _triggerer(count: int) -> None:
    from airflow_modelarts.hooks import ModelArtsAsyncHook
    from airflow_modelarts.polling.snapshots import poll_snapshots
    from airflow_modelarts.polling.watcher import POLL_RETRIES
    from airflow_modelarts.triggers import ProcessorTaskEventTrigger

    events = 0

    async def emit(trigger: ProcessorTaskEventTrigger, queue: asyncio.Queue[Any]) -> None:
        nonlocal events
        async for _ in trigger.filter_shared_stream(_shared(queue)):
            events += 1

    source = EXAMPLE_BODY["data_source"]["source"]
    queues: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in range(count)]
    watchers = [
        asyncio.create_task(emit(ProcessorTaskEventTrigger(sources=[source, f"dataset{number}"]), queue))
        for number, queue in enumerate(queues)
    ]
    memory = psutil.Process().memory_info
    async with ModelArtsAsyncHook("modelarts_default", retries=POLL_RETRIES) as hook:
        await hook.settings()
        async with aclosing(poll_snapshots(hook, "modelarts_default", INTERVAL)) as polls:
            while await asyncio.to_thread(sys.stdin.readline):
                gc.collect()
                before, cpu, events = memory().rss, time.process_time(), 0
                snapshot = await anext(polls)
                for queue in queues:
                    queue.put_nowait(snapshot)
                for queue in queues:
                    await queue.join()
                figures = [(time.process_time() - cpu) * 1000, (memory().rss - before) / 1024, events]
                print(json.dumps(figures), flush=True)
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)


async def _shared(queue: asyncio.Queue[Any]) -> AsyncGenerator[Any, None]:
    while True:
        yield await queue.get()
        queue.task_done()


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    asyncio.run(_triggerer(int(sys.argv[1])))
