"""What waits cost a triggerer: this package's trigger, other providers', a bare aiohttp loop a wait, and sleeping.

Each kind runs in a process of its own, as many asyncio tasks as there are waits, as in a triggerer; the services run in
this process, so their work is not counted. This package asks the emulator; the others ask one by one, ten thousand of
them two thousand times a second, and so are answered by something cheaper. Every answer is as large as a real one: the
reference's example of a task, and a run as dbt Cloud describes it. The http provider's trigger describes a task that is
not there (404) until it ends, since any other answer ends its wait. dbt Cloud's speaks TLS only, as ours does too with
a real service, so compare its requests rather than its CPU. amazon's is the waiter of EMR Serverless. Each of its
triggers makes a client, which takes seconds for some dozens, so it is left out where there are more than MOST of them.

Where fewer requests are made than the interval wants, the columns hint at why: a star says that the service was the
limit, a ``core`` near 1 that it was the triggerer, whose event loop has no more than one. With neither, the machine was
busy with something else, and the row says nothing of the kind.

The tasks that end do so one by one over an interval, since a single moment would be early for one kind and late for
another. A wait is lost when its trigger raised.
"""

import asyncio
import gc
import importlib.util
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, Any

import psutil

from airflow_modelarts.testing.emulator import EmulatorServer
from tests.benchmarks.answers import BODIES, EXAMPLE_BODY, VALIDATION, answers
from tests.benchmarks.tables import show
from tests.support.values import PROJECT_ID

INTERVAL = 5.0
#: By kind, the module without which it cannot be measured.
KINDS = {
    "this package": "airflow_modelarts.triggers",
    "http": "airflow.providers.http.triggers.http",
    "dbt Cloud": "airflow.providers.dbt.cloud.triggers.dbt",
    "amazon": "airflow.providers.amazon.aws.triggers.emr",
    "aiohttp": "aiohttp",
    "sleep": "asyncio",
}
#: Submissions that wait for capacity; what waits for nothing else is not ended.
QUEUED = "queued"
ENDLESS = ("sleep", QUEUED)
#: How many waits of a kind start within a minute.
MOST = {"amazon": 100}
TARGETS = "targets: 0.12 requests, a tenth of the CPU of aiohttp, 3 KB at 10,000"
#: How much of a core the services' process, which has one for all its threads, can use before it is the limit.
SERVICE_IS_THE_LIMIT = 0.9
#: How many tasks end within an interval, at most; they are asked for one by one.
MOST_ENDS = 200
#: Seconds for all to have asked, and seconds after the last end; what is not seen by then counts as not seen.
PATIENCE = 60.0


def run(counts: list[int], seconds: float, wanted: Sequence[str] = tuple(KINDS)) -> None:
    """Measure every wanted kind at every count, and print one table."""
    kinds = [kind for kind in wanted if _is_installed(KINDS[kind])]
    rows = []
    for count in counts:
        for kind in kinds:
            if count > MOST.get(kind, count):
                continue
            with _service(kind, count) as service:
                rows.append((count, kind, *_measure(kind, service, seconds)))
    head = ("waits", "kind", "requests", "CPU ms", "core", "KB", "lost", "ends seen", "median s", "max s")
    show(f"A wait and minute at an interval of {INTERVAL:.0f} s; {TARGETS}", head, rows)
    print("core: how much of one the triggerer used. *: the service was the limit.")


def run_queued(count: int, seconds: float) -> None:
    """Measure queued submissions beside as many waits, each of which has logged a line; print both with their ratio."""
    measured = {}
    for kind in ("this package", QUEUED):
        with _service(kind, count, status=0) as service:
            requests, cpu, _, memory, lost, *_ = _measure(kind, service, seconds)
            measured[kind] = (float(str(requests)), float(str(cpu)), float(str(memory)), lost)
    waits, queued = measured.values()
    ratio = (*(ours / theirs for ours, theirs in zip(queued[:3], waits[:3], strict=True)), "")
    head = ("kind", "requests", "CPU ms", "KB", "lost")
    rows = [("waits", *waits), ("queued submissions", *queued), ("ratio", *ratio)]
    show(f"{count} of each; of one and a minute, at an interval of {INTERVAL:.0f} s", head, rows)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False


@dataclass(frozen=True)
class Service:
    """What a kind of wait asks.

    :param ids: of the tasks to wait for.
    :param environment: what the triggerer's process needs to find it.
    :param count: how many requests it has answered.
    :param end: ends a task.
    :param run: makes a task running once its wait has seen it initialized; None if it runs already.
    """

    url: str
    ids: Sequence[str]
    environment: dict[str, str]
    count: Callable[[], int]
    end: Callable[[str], object]
    run: Callable[[str], object] | None = None


@contextmanager
def _service(kind: str, count: int, status: int = 1) -> Iterator[Service]:
    if kind in BODIES:
        with answers(kind) as cheap:
            url = f"http://127.0.0.1:{cheap.port}"
            dbt = {"conn_type": "dbt_cloud", "host": f"127.0.0.1:{cheap.port}", "login": "1", "password": "fake"}
            aws = {
                "conn_type": "aws",
                "login": "fake",
                "password": "fake",
                "extra": {"region_name": "us-east-1", "endpoint_url": url},
            }
            environment = {
                "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps({"conn_type": "http", "host": url}),
                "AIRFLOW_CONN_DBT_CLOUD_DEFAULT": json.dumps(dbt),
                "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
                "SSL_CERT_FILE": cheap.certificate,
            }
            ids = [str(number) for number in range(count)]
            yield Service(url, ids, environment, lambda: cheap.requests, cheap.ended.add)
    else:
        with EmulatorServer(task_duration=1e6) as server:
            ids = [task.task_id for task in server.state.add_tasks(count, status=status, body=EXAMPLE_BODY)]
            server.state.settings.running_limit = count  # which the tasks above use up
            environment = {"AIRFLOW_CONN_MODELARTS_DEFAULT": server.airflow_connection()}
            service = Service(server.url, ids, environment, server.state.log.count, server.state.finish)
            yield service if status else replace(service, run=lambda task_id: server.state.set_status(task_id, 1))


def _measure(kind: str, service: Service, seconds: float) -> tuple[object, ...]:
    ids, count = service.ids, len(service.ids)
    order = {"kind": kind, "ids": ids, "seconds": seconds, "url": service.url}
    program = [sys.executable, "-m", "tests.benchmarks.waits"]
    environment = {**os.environ, **service.environment}
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps(order) + "\n")
        child.stdin.flush()
        _hear(child.stdout, "started")
        _settle(kind, service)
        child.stdin.write("measure\n")
        child.stdin.flush()
        before, busy = service.count(), time.process_time()
        took, cpu, kilobytes, lost = map(float, _hear(child.stdout, "measured").split())
        requests, busy = service.count() - before, time.process_time() - busy
        per_minute = 60 / took / count
        star = "*" if busy / took > SERVICE_IS_THE_LIMIT else ""
        # The first five were there before the memory was first looked at.
        memory: object = kilobytes / (count - 5) if count > 5 else ""
        figures = (f"{requests * per_minute:.2f}{star}", cpu * 1000 * per_minute, cpu / took, memory, int(lost))
        if kind in ENDLESS:
            child.kill()
            return (*figures, "", "", "")
        # Some of every part of the list that the watcher reads.
        moments = {}
        for task_id in (sample := ids[:: -(-count // MOST_ENDS)]):
            moments[task_id] = time.time()
            service.end(task_id)
            time.sleep(INTERVAL / len(sample))
        child.stdin.write(json.dumps(sample) + "\n")
        child.stdin.flush()
        seen = json.loads(_hear(child.stdout, "seen"))
        waited = [seen[task_id] - moment for task_id, moment in moments.items() if task_id in seen]
        delays = (statistics.median(waited), max(waited)) if waited else ("", "")
        return (*figures, f"{len(waited)}/{len(sample)}", *delays)


def _settle(kind: str, service: Service) -> None:
    """Wait until those that ask one by one have all asked, and so have what they keep; at 10,000 that takes a while."""
    if service.run is not None:
        for task_id in service.ids:
            service.run(task_id)
        time.sleep(1.5 * INTERVAL)
    patient_until = time.monotonic() + PATIENCE
    while kind in BODIES and service.count() < 2 * len(service.ids) and time.monotonic() < patient_until:
        time.sleep(0.1)


def _hear(output: IO[str], word: str) -> str:
    """Wait until the child says a word, and return the rest of its line."""
    for line in output:
        if line.startswith(f"{word} ") or line.strip() == word:
            return line.removeprefix(word)
    raise RuntimeError(f"the triggerer's process ended before it was {word}")


# In the process that stands for the triggerer

TASKS = f"v2/{PROJECT_ID}/processor-tasks"
TOKEN = {"X-Auth-Token": "fake"}


async def _ours(task_id: str, order: dict[str, Any]) -> None:
    from airflow_modelarts.triggers import ProcessorTaskTrigger

    async for _ in ProcessorTaskTrigger(task_id, poll_interval=INTERVAL).run():
        return


async def _queued(task_id: str, order: dict[str, Any]) -> None:
    from airflow_modelarts.submission_trigger import ProcessorTaskSubmissionTrigger

    trigger = ProcessorTaskSubmissionTrigger(
        # From its text, so that each trigger has a body of its own, as Airflow reads it from the trigger's row.
        f"street-signs-validation-{task_id}",
        json.loads(VALIDATION),
        queued_since=time.time(),
        poll_interval=INTERVAL,
    )
    async for _ in trigger.run():
        return


async def _http(task_id: str, order: dict[str, Any]) -> None:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    trigger = HttpSensorTrigger(endpoint=f"{TASKS}/{task_id}", headers=TOKEN, poke_interval=INTERVAL)
    async for _ in trigger.run():
        return


async def _dbt_cloud(task_id: str, order: dict[str, Any]) -> None:
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    trigger = DbtCloudRunJobTrigger(
        conn_id="dbt_cloud_default",
        run_id=int(task_id),
        end_time=time.time() + 86400,
        poll_interval=INTERVAL,
        account_id=1,
    )
    async for _ in trigger.run():
        return


async def _amazon(task_id: str, order: dict[str, Any]) -> None:
    from airflow.providers.amazon.aws.triggers.emr import EmrServerlessStartJobTrigger

    trigger = EmrServerlessStartJobTrigger("00fq2d8r1n5m4p0v", task_id, int(INTERVAL), waiter_max_attempts=10**6)
    async for _ in trigger.run():
        return


async def _aiohttp(task_id: str, order: dict[str, Any]) -> None:
    url = f"{order['url']}/{TASKS}/{task_id}"
    while True:
        async with order["session"].get(url, headers=TOKEN) as answer:
            if (await answer.json())["status"] > 1:
                return
        await asyncio.sleep(INTERVAL)


async def _sleep(task_id: str, order: dict[str, Any]) -> None:
    while True:  # noqa: ASYNC110  # waking up is what is measured
        await asyncio.sleep(INTERVAL)


WAYS: dict[str, Callable[[str, dict[str, Any]], Awaitable[None]]] = {
    "this package": _ours,
    QUEUED: _queued,
    "http": _http,
    "dbt Cloud": _dbt_cloud,
    "amazon": _amazon,
    "aiohttp": _aiohttp,
    "sleep": _sleep,
}


def _silence_logs() -> None:
    """Log nothing: a triggerer writes its logs elsewhere, and they would be most of what is measured of some kinds."""
    logging.disable(logging.CRITICAL)
    with suppress(ImportError):  # of Airflow 3
        import structlog

        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


async def _triggerer(order: dict[str, Any]) -> None:
    import aiohttp

    wait, ids = WAYS[order["kind"]], order["ids"]
    seen: dict[str, float] = {}

    async def timed(task_id: str) -> None:
        await wait(task_id, order)
        seen[task_id] = time.time()

    async with aiohttp.ClientSession() as order["session"]:
        # The first waits pay for imports, TLS and the like, which are no cost of a wait.
        first = [asyncio.create_task(timed(task_id)) for task_id in ids[:5]]
        await asyncio.sleep(1.5 * INTERVAL)
        memory = psutil.Process().memory_info
        await asyncio.to_thread(gc.collect)  # the first thread is no cost of a wait either
        before = memory().rss
        tasks = [*first, *(asyncio.create_task(timed(task_id)) for task_id in ids[5:])]
        await asyncio.sleep(1.5 * INTERVAL)
        print("started", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(order["seconds"])
        took, cpu = time.monotonic() - began, time.process_time() - cpu  # a busy event loop wakes up late
        gc.collect()
        lost = sum(task.done() for task in tasks)
        print("measured", took, cpu, (memory().rss - before) / 1024, lost, flush=True)
        sample = set(json.loads(await asyncio.to_thread(sys.stdin.readline)))
        ending = [task for task_id, task in zip(ids, tasks, strict=True) if task_id in sample]
        await asyncio.wait(ending, timeout=PATIENCE)
        print("seen", json.dumps(seen), flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    _silence_logs()
    asyncio.run(_triggerer(json.loads(sys.stdin.readline())))
