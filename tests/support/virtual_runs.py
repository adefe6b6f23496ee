"""A ModelArts in memory whose tasks run several times: versions come, end and are deleted. It tells its own time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, TypeVar

from airflow_modelarts.api.http import Response
from tests.support.virtual import EPOCH, now
from tests.support.virtual_service import ACTIVE, Call, Service, error_response

T = TypeVar("T")
FOREVER = 1e9


@dataclass
class Run:
    """One version, by the loop's clock.

    :param starts: when it is created.
    :param ends: when it reaches its status.
    :param deleted: when the version is deleted.
    """

    starts: float
    ends: float
    status: int = 2
    deleted: float = FOREVER


@dataclass
class RunningTask:
    """A task and its versions, the first of which begins with it.

    :param has_versions: false for a feature analysis.
    :param fields: more of its answers, for example ``name``.
    """

    runs: list[Run]
    deleted: float = FOREVER
    has_versions: bool = True
    fields: dict[str, Any] = field(default_factory=dict)

    def describe(self, task_id: str, at: float, offset: float) -> dict[str, Any] | None:
        versions = self.versions(task_id, at, offset)
        if not versions or at >= self.deleted:
            return None
        newest = versions[-1]
        shown = {
            "task_id": task_id,
            "workspace_id": "0",
            "create_time": int((EPOCH + self.runs[0].starts + offset) * 1000),
            "status": newest["status"],
            "duration_seconds": newest["duration_seconds"],
            **self.fields,
        }
        return {**shown, "version_count": len(versions)} if self.has_versions else shown

    def versions(self, task_id: str, at: float, offset: float) -> list[dict[str, Any]]:
        return [
            {
                "task_id": task_id,
                "task_version_id": f"v{number}",
                "create_time": int((EPOCH + run.starts + offset) * 1000),
                "update_time": int((EPOCH + min(at, run.ends) + offset) * 1000),
                "duration_seconds": int(min(at, run.ends) - run.starts),
                "status": run.status if at >= run.ends else 1,
            }
            for number, run in enumerate(self.runs, 1)
            if run.starts <= at < run.deleted
        ]


@dataclass
class RunService(Service):
    """A service with such tasks; lists have the newest first.

    :param clock_offset: seconds by which its clock is ahead of the loop's.
    :param has_date: whether its answers have a Date header.
    """

    running: dict[str, RunningTask] = field(default_factory=dict)
    clock_offset: float = 0.0
    has_date: bool = True
    _shown: tuple[float, list[dict[str, Any]]] = (-1.0, [])

    def run(self, task_id: str, *runs: Run, **fields: Any) -> None:
        self.running[task_id] = RunningTask(list(runs), fields=fields)

    def answer(self, call: Call) -> Response:
        content = self._read(call)
        if content is None:
            return error_response(400, "ModelArts.4700")
        headers = {"date": formatdate(EPOCH + now() + self.clock_offset, usegmt=True)} if self.has_date else {}
        return Response(200, headers, json.dumps(content).encode())

    def _read(self, call: Call) -> dict[str, Any] | None:
        task_id, _, rest = call.task_id.partition("/")
        if call.is_list:
            return self._page(call.query, "tasks", self._rows(call.query.get("status")))
        task = self.running.get(task_id)
        shown = task and task.describe(task_id, now(), self.clock_offset)
        if task is None or shown is None:
            return None
        if rest:
            versions = task.versions(task_id, now(), self.clock_offset) if task.has_versions else []
            return self._page(call.query, "versions", versions)
        return shown

    def _rows(self, status: str | None) -> list[dict[str, Any]]:
        if self._shown[0] != now():
            shown = (task.describe(task_id, now(), self.clock_offset) for task_id, task in self.running.items())
            found = sorted(filter(None, shown), key=lambda row: row["create_time"], reverse=True)
            self._shown = now(), found
        return [row for row in self._shown[1] if status in (None, str(row["status"]))]

    def _page(self, query: dict[str, str], name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        begin = int(query["offset"]) * int(query["limit"])
        return {"count": len(rows), name: rows[begin : begin + int(query["limit"])]}


class Fanout:
    """Shares one stream among several readers, as Airflow 3.3 does: each gets what is yielded while it reads.

    :param open_stream: opens the stream; the first reader does so.
    """

    def __init__(self, open_stream: Callable[[], AsyncGenerator[T, None]]) -> None:
        self._open_stream = open_stream
        self._queues: set[asyncio.Queue[Any]] = set()
        self._polling: asyncio.Task[None] | None = None

    async def read(self) -> AsyncGenerator[Any, None]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._queues.add(queue)
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll())
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)
            if not self._queues and self._polling is not None:
                self._polling.cancel()
                await asyncio.gather(self._polling, return_exceptions=True)
                self._polling = None

    async def _poll(self) -> None:
        async with aclosing(self._open_stream()) as stream:
            async for item in stream:
                for queue in self._queues:
                    queue.put_nowait(item)


__all__ = ["ACTIVE", "FOREVER", "Fanout", "Run", "RunService", "RunningTask"]
