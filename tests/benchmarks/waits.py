"""
What waits cost a triggerer: this package's trigger, other providers', a bare aiohttp loop a wait, and sleeping.

Each kind runs in a process of its own, as many asyncio tasks as there are waits, as in a triggerer; the services run in
this process, so their work is not counted. The http provider's trigger describes a task that is not there (404) until
it ends. dbt Cloud's speaks TLS only, as ours does too with a real service, so compare its requests rather than its CPU.

The tasks that end do so one by one over an interval, since a single moment would be early for one kind and late for
another. A wait is lost when its trigger raised.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import IO, Any

import psutil

from airflow_modelarts.emulator import EmulatorServer, accounts
from tests.benchmarks.dbt import DbtCloud, dbt_cloud
from tests.benchmarks.tables import show

INTERVAL = 5.0
#: By kind, the module without which it cannot be measured.
KINDS = {
    "this package": "airflow_modelarts.triggers",
    "http": "airflow.providers.http.triggers.http",
    "dbt Cloud": "airflow.providers.dbt.cloud.triggers.dbt",
    "aiohttp": "aiohttp",
    "sleep": "asyncio",
}
TARGETS = "targets at 500 waits: 0.2 requests, 0.5 ms, 8 KB a wait and minute"
#: Above this, the kinds that ask for each wait would measure the service.
MOST_THAT_ASK_ONE_BY_ONE = 1000
#: How many tasks end within an interval, at most; they are asked for one by one.
MOST_ENDS = 200
#: Seconds after the last end; what is not seen by then counts as not seen.
PATIENCE = 60.0


def run(counts: list[int], seconds: float) -> None:
    """Measure every kind at every count, and print one table."""
    kinds = [kind for kind, module in KINDS.items() if _is_installed(module)]
    rows = []
    for count in counts:
        for kind in kinds:
            if count <= MOST_THAT_ASK_ONE_BY_ONE or kind in ("this package", "sleep"):
                rows.append((count, kind, *_measure(kind, count, seconds)))
    head = ("waits", "kind", "requests", "CPU ms", "KB", "lost", "ends seen", "median s", "max s")
    show(f"A wait and minute at an interval of {INTERVAL:.0f} s; {TARGETS}", head, rows)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False


def _measure(kind: str, count: int, seconds: float) -> tuple[object, ...]:
    with EmulatorServer(task_duration=1e6) as server, dbt_cloud() as dbt:
        ids = [task.task_id for task in server.state.add_tasks(count, status=1)]
        end = _way_to_end(kind, server, dbt, ids)
        token = server.state.accounts.issue_token(accounts.PROJECT_ID, now=time.time(), lifetime=86400).value
        order = {"kind": kind, "ids": ids, "seconds": seconds, "url": server.url, "token": token}
        environment = {
            **os.environ,
            "AIRFLOW_CONN_MODELARTS_DEFAULT": server.airflow_connection(),
            "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps({"conn_type": "http", "host": server.url}),
            "AIRFLOW_CONN_DBT_CLOUD_DEFAULT": json.dumps(
                {"conn_type": "dbt_cloud", "host": f"127.0.0.1:{dbt.port}", "login": "1", "password": "fake"}
            ),
            "SSL_CERT_FILE": dbt.certificate,
        }
        program = [sys.executable, "-m", "tests.benchmarks.waits"]
        with subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as child:
            assert child.stdin
            assert child.stdout
            child.stdin.write(json.dumps(order) + "\n")
            child.stdin.flush()
            _hear(child.stdout, "steady")
            before = server.state.log.count() + dbt.requests
            cpu_ms, kilobytes, lost = map(float, _hear(child.stdout, "measured").split())
            requests = server.state.log.count() + dbt.requests - before
            per_minute = 60 / seconds / count
            # The first five were there before the memory was first looked at.
            memory: object = kilobytes / (count - 5) if count > 5 else ""
            figures = (requests * per_minute, cpu_ms * per_minute, memory, int(lost))
            if kind == "sleep":
                child.kill()
                return (*figures, "", "", "")
            # Some of every part of the list that the watcher reads.
            moments = {}
            for task_id in (sample := ids[:: -(-count // MOST_ENDS)]):
                moments[task_id] = time.time()
                end(task_id)
                time.sleep(INTERVAL / len(sample))
            child.stdin.write(json.dumps(sample) + "\n")
            child.stdin.flush()
            seen = json.loads(_hear(child.stdout, "seen"))
            waited = [seen[task_id] - moment for task_id, moment in moments.items() if task_id in seen]
            delays = (statistics.median(waited), max(waited)) if waited else ("", "")
            return (*figures, f"{len(waited)}/{len(sample)}", *delays)


def _way_to_end(kind: str, server: EmulatorServer, dbt: DbtCloud, ids: Sequence[str]) -> Callable[[str], None]:
    """Return what ends a wait of this kind, and prepare the service for it."""
    if kind == "dbt Cloud":
        return lambda task_id: dbt.ended.add(ids.index(task_id))
    if kind != "http":
        return server.state.finish
    server.state.settings.not_found = "http404"
    project = server.state.projects[accounts.PROJECT_ID]
    tasks = {task_id: project.tasks[task_id] for task_id in ids}
    for task in tasks.values():
        project.remove(task)
    return lambda task_id: project.add(tasks[task_id])


def _hear(output: IO[str], word: str) -> str:
    """Wait until the child says a word, and return the rest of its line."""
    for line in output:
        if line.startswith(f"{word} ") or line.strip() == word:
            return line.removeprefix(word)
    raise RuntimeError(f"the triggerer's process ended before it was {word}")


# In the process that stands for the triggerer


async def _ours(task_id: str, order: dict[str, Any]) -> None:
    from airflow_modelarts.triggers import ProcessorTaskTrigger

    async for _ in ProcessorTaskTrigger(task_id, poll_interval=INTERVAL).run():
        return


async def _http(task_id: str, order: dict[str, Any]) -> None:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    trigger = HttpSensorTrigger(
        endpoint=f"v2/{accounts.PROJECT_ID}/processor-tasks/{task_id}",
        headers={"X-Auth-Token": order["token"]},
        poke_interval=INTERVAL,
    )
    async for _ in trigger.run():
        return


async def _dbt_cloud(task_id: str, order: dict[str, Any]) -> None:
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    trigger = DbtCloudRunJobTrigger(
        conn_id="dbt_cloud_default",
        run_id=order["numbers"][task_id],
        end_time=time.time() + 86400,
        poll_interval=INTERVAL,
        account_id=1,
    )
    async for _ in trigger.run():
        return


async def _aiohttp(task_id: str, order: dict[str, Any]) -> None:
    url = f"{order['url']}/v2/{accounts.PROJECT_ID}/processor-tasks/{task_id}"
    while True:
        async with order["session"].get(url, headers={"X-Auth-Token": order["token"]}) as answer:
            if (await answer.json())["status"] > 1:
                return
        await asyncio.sleep(INTERVAL)


async def _sleep(task_id: str, order: dict[str, Any]) -> None:
    while True:  # noqa: ASYNC110  # waking up is what is measured
        await asyncio.sleep(INTERVAL)


WAYS: dict[str, Callable[[str, dict[str, Any]], Awaitable[None]]] = {
    "this package": _ours,
    "http": _http,
    "dbt Cloud": _dbt_cloud,
    "aiohttp": _aiohttp,
    "sleep": _sleep,
}


async def _triggerer(order: dict[str, Any]) -> None:
    import aiohttp

    wait, ids = WAYS[order["kind"]], order["ids"]
    order["numbers"] = {task_id: number for number, task_id in enumerate(ids)}
    seen: dict[str, float] = {}

    async def timed(task_id: str) -> None:
        await wait(task_id, order)
        seen[task_id] = time.time()

    async with aiohttp.ClientSession() as order["session"]:
        # The first waits pay for imports, TLS and the like, which are no cost of a wait.
        first = [asyncio.create_task(timed(task_id)) for task_id in ids[:5]]
        await asyncio.sleep(1.5 * INTERVAL)
        memory = psutil.Process().memory_info
        gc.collect()
        before = memory().rss
        tasks = [*first, *(asyncio.create_task(timed(task_id)) for task_id in ids[5:])]
        await asyncio.sleep(1.5 * INTERVAL)
        print("steady", flush=True)
        cpu = time.process_time()
        await asyncio.sleep(order["seconds"])
        cpu = time.process_time() - cpu
        gc.collect()
        lost = sum(task.done() for task in tasks)
        print("measured", cpu * 1000, (memory().rss - before) / 1024, lost, flush=True)
        sample = json.loads(await asyncio.to_thread(sys.stdin.readline))
        await asyncio.wait([tasks[order["numbers"][task_id]] for task_id in sample], timeout=PATIENCE)
        print("seen", json.dumps(seen), flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    asyncio.run(_triggerer(json.loads(sys.stdin.readline())))
