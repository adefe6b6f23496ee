"""
What waits cost a triggerer: this package's trigger, other providers', a bare aiohttp loop a wait, and sleeping.

Each kind runs in a process of its own, as many asyncio tasks as there are waits, as in a triggerer; the services run in
this process, so their work is not counted. The http provider's trigger waits for an address that answers 404. dbt
Cloud's speaks TLS only, as ours does too with a real service, so compare its requests rather than its CPU.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil

from airflow_modelarts.emulator import EmulatorServer, accounts
from tests.benchmarks.dbt import dbt_cloud
from tests.benchmarks.tables import show

INTERVAL = 5.0
KINDS = ("this package", "http", "dbt Cloud", "aiohttp", "sleep")
TARGETS = "targets at 500 waits: 0.2 requests, 0.5 ms, 8 KB a wait and minute"
#: Above this, the kinds that ask for each wait would measure the service.
MOST_FOR_OTHERS = 1000
#: How many tasks end in one moment, at most; they are asked for one by one.
MOST_ENDS = 200


def run(counts: list[int], seconds: float) -> None:
    """Measure every kind at every count, and print one table."""
    rows = []
    for count in counts:
        for kind in KINDS if count <= MOST_FOR_OTHERS else KINDS[:1]:
            rows.append((count, kind, *_measure(kind, count, seconds)))
    head = ("waits", "kind", "requests", "CPU ms", "KB", "end seen, median s", "max s")
    show(f"A wait and minute at an interval of {INTERVAL:.0f} s; {TARGETS}", head, rows)


def _measure(kind: str, count: int, seconds: float) -> tuple[object, ...]:
    with EmulatorServer(task_duration=1e6) as server, dbt_cloud() as dbt:
        ids = [task.task_id for task in server.state.add_tasks(count, status=1)]
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

            def hear(word: str) -> list[str]:
                for line in child.stdout:  # type: ignore[union-attr]  # asserted above
                    if line.startswith(word):
                        return line.split()[1:]
                raise RuntimeError(f"{kind} ended before {word}")

            hear("steady")
            before = server.state.log.count() + dbt.requests
            cpu_ms, kilobytes = map(float, hear("measured"))
            requests = server.state.log.count() + dbt.requests - before
            per_minute = 60 / seconds / count
            figures: tuple[object, ...] = (requests * per_minute, cpu_ms * per_minute, kilobytes / (count - 5))
            if kind != "this package":
                child.kill()
                return (*figures, "", "")
            for task_id in ids[:MOST_ENDS]:
                server.state.finish(task_id)
            child.stdin.write(f"{time.time()}\n")
            child.stdin.flush()
            median, longest = map(float, hear("seen"))
            return (*figures, median, longest)


# In the process that stands for the triggerer


async def _ours(task_id: str, order: dict[str, Any]) -> None:
    from airflow_modelarts.triggers import ProcessorTaskTrigger

    async for _ in ProcessorTaskTrigger(task_id, poll_interval=INTERVAL).run():
        return


async def _http(task_id: str, order: dict[str, Any]) -> None:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    async for _ in HttpSensorTrigger(endpoint=f"v1/{task_id}", poke_interval=INTERVAL).run():
        return


async def _dbt_cloud(task_id: str, order: dict[str, Any]) -> None:
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    trigger = DbtCloudRunJobTrigger(
        conn_id="dbt_cloud_default", run_id=1, end_time=time.time() + 86400, poll_interval=INTERVAL, account_id=1
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

    wait, ids, ended = WAYS[order["kind"]], order["ids"], []

    async def timed(task_id: str) -> None:
        await wait(task_id, order)
        ended.append(time.time())

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
        print("measured", cpu * 1000, (memory().rss - before) / 1024, flush=True)
        told = float(await asyncio.to_thread(sys.stdin.readline))
        await asyncio.gather(*tasks[:MOST_ENDS])
        waited = sorted(moment - told for moment in ended)
        print("seen", waited[len(waited) // 2], waited[-1], flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    asyncio.run(_triggerer(json.loads(sys.stdin.readline())))
