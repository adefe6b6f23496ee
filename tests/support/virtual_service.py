"""A ModelArts in memory on the running loop's clock. The real driver calls it, so tests run the whole API client."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote

from airflow_modelarts.api.client import ClientConfig
from airflow_modelarts.api.credentials import StaticToken, TokenCache
from airflow_modelarts.api.http import Request, Response, TransportError
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.rate import RateLimiter
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.polling.watcher import POLL_RETRIES
from airflow_modelarts.transport import AsyncDriver, Settings
from tests.support.virtual import now

T = TypeVar("T")
PAGE = 100
ACTIVE = (0, 1)
LIST, DESCRIBE = "ListProcessorTasks", "DescribeProcessorTask"


@dataclass(frozen=True)
class Call:
    """One request, as the service receives it.

    :param time: by the loop's clock.
    :param name: the API operation.
    :param task_id: the task to describe; empty for a list.
    """

    time: float
    name: str
    task_id: str
    query: dict[str, str]

    @classmethod
    def read(cls, request: Request) -> Call:
        path, _, query = request.url.partition("/processor-tasks")[2].partition("?")
        return cls(now(), DESCRIBE if path else LIST, unquote(path.removeprefix("/")), dict(parse_qsl(query)))

    @property
    def is_list(self) -> bool:
        return self.name == LIST


#: Returns what a call gets instead of its answer; None: its answer. Exceptions are raised by the driver.
Fault: TypeAlias = Callable[[Call], Response | Exception | None]


def error_response(status: int, code: str | None = None, **headers: str) -> Response:
    """Return an error of the service; without a code it has no body, as those of gateways."""
    body = json.dumps({"error_code": code, "error_msg": "the message"}).encode() if code else b""
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def unavailable() -> Response:
    return error_response(503)


def throttled() -> Response:
    return error_response(429, "APIGW.0308")


def unreachable() -> TransportError:
    return TransportError("connection refused", kind="connect", sent=False)


@dataclass
class History:
    """The statuses of one task over time.

    :param changes: times and the status from then on, ascending.
    :param hides_active: its answers have no status while it is active.
    :param created: milliseconds since the epoch.
    """

    task_id: str
    changes: list[tuple[float, int]]
    workspace_id: str = "0"
    hides_active: bool = False
    created: int | None = None

    def status(self, at: float) -> int:
        return next((status for time, status in reversed(self.changes) if time <= at), self.changes[0][1])

    def end(self, since: float) -> tuple[float, int]:
        """Return when the task, watched from ``since`` on, is first terminal, and the status."""
        if self.status(since) not in ACTIVE:
            return since, self.status(since)
        return next((time, status) for time, status in self.changes if time > since and status not in ACTIVE)


@dataclass
class Service:
    """A ModelArts that records its calls.

    :param tasks: by id, the oldest first; lists have the newest first.
    :param latency: seconds from request to answer; the status is that of the middle.
    :param disorder: shifts the begin of pages after the first, as when tasks come and go meanwhile.
    :param lists_ended: how many terminal tasks each list of active ones contains too.
    :param opened: how many hooks were opened.
    :param closed: how many of them were closed.
    """

    tasks: dict[str, History] = field(default_factory=dict)
    latency: float = 0.0
    fault: Fault = lambda _: None
    disorder: random.Random | None = None
    lists_ended: int = 0
    calls: list[Call] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    def add(self, task_ids: Iterable[str], *changes: tuple[float, int], **fields: Any) -> None:
        for task_id in task_ids:
            self.tasks[task_id] = History(task_id, list(changes) or [(0.0, 1)], **fields)

    def open(self) -> Hook:
        self.opened += 1
        return Hook(self, self.exchange, RetryPolicy(attempts=1))

    async def exchange(self, request: Request) -> Response:
        self.calls.append(call := Call.read(request))
        await asyncio.sleep(self.latency / 2)
        answer = self.fault(call) or self.answer(call)
        await asyncio.sleep(self.latency / 2)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answer(self, call: Call) -> Response:
        if call.is_list:
            return Response(200, {}, json.dumps(self._list(call.query)).encode())
        if call.task_id not in self.tasks:
            return error_response(400, "ModelArts.4700")
        return Response(200, {}, json.dumps(_describe(self.tasks[call.task_id])).encode())

    def count(self, name: str | None = None, *, since: float = 0.0) -> int:
        return sum(name in (None, call.name) and call.time >= since for call in self.calls)

    def described(self) -> Counter[str]:
        """Count the calls by id for each task."""
        return Counter(call.task_id for call in self.calls if not call.is_list)

    def times(self) -> list[float]:
        """Return the different times of the calls."""
        return sorted({call.time for call in self.calls})

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        wanted = query.get("status")
        here = [task for task in reversed(self.tasks.values()) if task.workspace_id == query.get("workspace_id", "0")]
        assert query["return_result"] == "false", "a result can be megabytes"
        found = [task for task in here if wanted in (None, str(task.status(now())))]
        if wanted is not None:
            found += [task for task in here if task.status(now()) not in ACTIVE][: self.lists_ended]
        begin = int(query["offset"]) * int(query["limit"])
        if self.disorder and begin:
            begin = max(0, begin + self.disorder.choice([-PAGE, -7, -1, 0, 0, 1, 7]))
        page = found[begin : begin + int(query["limit"])]
        return {"count": len(found), "tasks": [_describe(task) for task in page]}


def _describe(task: History) -> dict[str, Any]:
    status = task.status(now())
    shown = {"task_id": task.task_id, "workspace_id": task.workspace_id, "create_time": task.created, "status": status}
    if task.hides_active and status in ACTIVE:
        del shown["status"]
    return shown


@dataclass
class Gateway:
    """A gateway with a token bucket in front of a service.

    :param rate: requests a second that it forwards.
    :param burst: requests that it forwards at once.
    :param refuse: its answer to the others.
    :param is_open: whether it forwards anything.
    :param sent: times of the requests, and whether they were forwarded.
    """

    service: Service
    rate: float
    burst: int
    refuse: Callable[[], Response]
    latency: float = 0.02
    is_open: Callable[[], bool] = lambda: True
    sent: list[tuple[float, bool]] = field(default_factory=list)
    limiter: RateLimiter = field(default_factory=lambda: RateLimiter(now))

    def __post_init__(self) -> None:
        self._tokens, self._filled_at = float(self.burst), 0.0

    def open(self, project_id: str = "p") -> Hook:
        return Hook(self.service, self.exchange, POLL_RETRIES, self.limiter, project_id)

    def least_seconds(self, requests: int) -> float:
        """Return the shortest time in which it can forward so many requests."""
        return max(0.0, requests - self.burst) / self.rate

    @property
    def refused(self) -> int:
        return sum(not passed for _, passed in self.sent)

    async def exchange(self, request: Request) -> Response:
        await asyncio.sleep(self.latency / 2)
        passed = self._takes_token()
        self.sent.append((now(), passed))
        response = self.service.answer(Call.read(request)) if passed else self.refuse()
        await asyncio.sleep(self.latency / 2)
        return response

    def _takes_token(self) -> bool:
        self._tokens = min(float(self.burst), self._tokens + (now() - self._filled_at) * self.rate)
        self._filled_at = now()
        if self._tokens < 1 - 1e-9 or not self.is_open():
            return False
        self._tokens -= 1
        return True


class Hook(AsyncDriver):
    """The part of the asynchronous hook that polling uses; it calls a service in memory instead of a socket."""

    def __init__(
        self,
        service: Service,
        exchange: Callable[[Request], Awaitable[Response]],
        retries: RetryPolicy,
        limiter: RateLimiter | None = None,
        project_id: str = "p",
    ) -> None:
        super().__init__(self._read)
        self._service, self._send, self._retries = service, exchange, retries
        client = ClientConfig(
            endpoint="https://example.com",
            project_id=project_id,
            credentials=StaticToken("token"),
            cache=TokenCache(),
            now=asyncio.get_running_loop().time,
            random=random.random,
            limiter=limiter,
        )
        self._connection = Settings(client, True, 10.0, 60.0, None)

    async def call(self, operation: Operation[T], retries: RetryPolicy | None = None) -> T:
        return await super().call(operation, retries or self._retries)

    def pages(self, operation: ListOperation[T], retries: RetryPolicy | None = None) -> AsyncGenerator[Page[T], None]:
        return super().pages(operation, retries or self._retries)

    async def close(self) -> None:
        await asyncio.sleep(0)
        self._service.closed += 1

    async def _read(self) -> Settings:
        return self._connection

    async def _exchange(self, request: Request) -> Response:
        return await self._send(request)
