"""An event loop whose clock jumps, and a ModelArts in memory that lives by it: hours of waiting in no time."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import selectors
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import pytest

from airflow_modelarts import airflow_calls
from airflow_modelarts.api import errors
from airflow_modelarts.api.client import ClientConfig
from airflow_modelarts.api.credentials import StaticToken, TokenCache
from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.http import Request, Response, TransportError
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.rate import RateLimiter
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.polling.watcher import POLL_RETRIES
from airflow_modelarts.transport import AsyncDriver
from airflow_modelarts.transport.settings import Settings

T = TypeVar("T")
PAGE = 100
ACTIVE = (0, 1)
Fault = Callable[[Operation[Any]], Exception | None]


class _JumpingSelector(selectors.DefaultSelector):
    """
    Takes no time to wait; the time that a real one would have taken is over when it returns.

    :param busy: how many answers of other threads and of servers are on their way; until then the clock stands still.
    """

    now = 0.0
    busy = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0 if timeout == 0 or not self.busy else 1)
        if found or self.busy or timeout == 0:
            return found
        if timeout is None:
            raise AssertionError("everybody waits, and nothing is left that could happen")
        self.now += max(timeout, 0.0)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on which sleeping takes no time, and what other threads and servers do takes none of its time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def run_in_executor(self, *arguments: Any) -> asyncio.Future[Any]:
        self.stand_still()
        future = super().run_in_executor(*arguments)
        future.add_done_callback(lambda _: self.answered())
        return future

    async def exchange(self, driver: AsyncDriver, request: Request) -> Response:
        """Stand still while a real server answers."""
        self.stand_still()
        try:
            return await _EXCHANGE(driver, request)
        finally:
            self.answered()

    def stand_still(self) -> None:
        self._jumping.busy += 1

    def answered(self) -> None:
        self._jumping.busy -= 1


_EXCHANGE = AsyncDriver._exchange


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a loop with a virtual clock, and see that nothing is left over."""
    loop = VirtualLoop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsyncDriver, "_exchange", lambda driver, request: loop.exchange(driver, request))
        try:
            result = loop.run_until_complete(asyncio.wait_for(main, 10 * 24 * 3600))
            # A call of Airflow goes on when whoever called it is cancelled.
            if calls := [call for call in airflow_calls._RUNNING if call.get_loop() is loop]:
                loop.run_until_complete(asyncio.wait(calls))
            assert asyncio.all_tasks(loop) == set(), "a task is left over"
            assert complaints == []
            return result
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.stand_still()  # a thread that the loop does not show us ends the others
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


def refusal(code: str | None, status: int, *, retry_after: int | None = None) -> ModelArtsError:
    """Return what a call raises when the service answers this."""
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    body = json.dumps({"error_code": code, "error_msg": "so it is"}).encode() if code else b""
    return errors.from_response(
        Response(status, headers, body), operation="an operation", target="a task", secrets=(), now=0.0
    )


def unavailable() -> ModelArtsError:
    return refusal(None, 503)


def unreachable() -> ModelArtsError:
    fault = TransportError("connection refused", kind="connect", sent=False)
    return errors.from_transport(fault, operation="an operation", target="a task", address="https://example.com")


@dataclass
class History:
    """
    The life of a task.

    :param changes: times and the status from then on, ascending.
    :param mute: its answers have no status as long as it is active.
    """

    task_id: str
    changes: list[tuple[float, int]]
    workspace_id: str = "0"
    mute: bool = False

    def status(self, now: float) -> int:
        return next((status for time, status in reversed(self.changes) if time <= now), self.changes[0][1])

    def end(self, since: float) -> tuple[float, int]:
        """Return when, from a moment on, it is first seen ended, and how."""
        if self.status(since) not in ACTIVE:
            return since, self.status(since)
        return next((time, status) for time, status in self.changes if time > since and status not in ACTIVE)


@dataclass
class Service:
    """
    ModelArts as the watcher's ``Api``: it understands the operations, and counts what it is asked.

    :param latency: seconds; it looks in the middle of them.
    :param fault: returns what a call meets instead of its answer.
    :param disorder: how far pages after the first begin from where they should; some come twice.
    :param tells_ended: how many ended tasks each list holds too.
    :param calls: times and operations of the requests.
    """

    tasks: dict[str, History] = field(default_factory=dict)
    latency: float = 0.0
    fault: Fault = lambda _: None
    disorder: random.Random | None = None
    tells_ended: int = 0
    calls: list[tuple[float, Operation[Any]]] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    def add(self, task_ids: Iterable[str], *changes: tuple[float, int], workspace_id: str = "0") -> None:
        for task_id in task_ids:
            self.tasks[task_id] = History(task_id, list(changes) or [(0.0, 1)], workspace_id)

    def open(self) -> Service:
        self.opened += 1
        return self

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1

    async def call(self, operation: Operation[T]) -> T:
        self.calls.append((asyncio.get_running_loop().time(), operation))
        await asyncio.sleep(self.latency / 2)
        if error := self.fault(operation):
            await asyncio.sleep(self.latency / 2)
            raise error
        answer = self.answer(operation)
        await asyncio.sleep(self.latency / 2)
        return operation.read(answer)

    def answer(self, operation: Operation[Any]) -> bytes:
        return json.dumps(self._list(operation) if is_list(operation) else self._describe(operation)).encode()

    async def pages(self, operation: ListOperation[T]) -> AsyncGenerator[Page[T], None]:
        seen: set[Any] = set()
        previous: list[T] = []
        for number in itertools.count():
            page = await self.call(operation.page(number))
            new = [item for item in page.items if operation.identify(item) not in seen]
            seen.update(map(operation.identify, new))
            if not new or page.items == previous:
                return
            previous = page.items
            yield Page(new, page.count)
            if len(page.items) < operation.limit or (page.count is not None and len(seen) >= page.count):
                return

    def count(self, name: str | None = None, *, since: float = 0.0) -> int:
        return sum(name in (None, operation.name) for time, operation in self.calls if time >= since)

    def asked(self) -> Counter[str]:
        """Count the questions by id."""
        return Counter(task_id_of(operation) for _, operation in self.calls if not is_list(operation))

    def times(self) -> list[float]:
        """Return when requests came, each moment once."""
        return sorted({time for time, _ in self.calls})

    def _describe(self, operation: Operation[Any]) -> dict[str, Any]:
        task_id = task_id_of(operation)
        if task_id not in self.tasks:
            raise refusal("ModelArts.4700", 400)
        return self._tell(self.tasks[task_id])

    def _list(self, operation: Operation[Any]) -> dict[str, Any]:
        query = operation.query
        now, wanted = asyncio.get_running_loop().time(), query.get("status")
        here = [task for task in reversed(self.tasks.values()) if task.workspace_id == query.get("workspace_id", "0")]
        assert wanted is None or query["return_result"] == "false", "a result can be megabytes"
        found = [task for task in here if wanted in (None, str(task.status(now)))]
        found += [task for task in here if task.status(now) not in ACTIVE][: self.tells_ended]
        begin = int(query["offset"]) * int(query["limit"])
        if self.disorder and begin:
            begin = max(0, begin + self.disorder.choice([-PAGE, -7, -1, 0, 0, 1, 7]))
        page = found[begin : begin + int(query["limit"])]
        return {"count": len(found), "tasks": [self._tell(task) for task in page]}

    def _tell(self, task: History) -> dict[str, Any]:
        status = task.status(asyncio.get_running_loop().time())
        told = {"task_id": task.task_id, "workspace_id": task.workspace_id}
        return told if task.mute and status in ACTIVE else {**told, "status": status}


@dataclass
class Gateway:
    """
    A gateway with a token bucket in front of a service; asked through the real driver, so that all of the core runs.

    :param rate: requests a second that it lets pass.
    :param burst: requests that it lets pass at once.
    :param refuse: its answer to the others.
    :param is_open: whether it lets anything pass.
    :param sent: times of the requests, and whether they passed.
    """

    service: Service
    rate: float
    burst: int
    refuse: Callable[[], Response]
    retries: RetryPolicy = POLL_RETRIES
    latency: float = 0.02
    is_open: Callable[[], bool] = lambda: True
    sent: list[tuple[float, bool]] = field(default_factory=list)
    limiter: RateLimiter = field(default_factory=lambda: RateLimiter(lambda: asyncio.get_running_loop().time()))

    def __post_init__(self) -> None:
        self._tokens, self._filled_at = float(self.burst), 0.0

    def open(self, project_id: str = "p") -> Gatewayed:
        return Gatewayed(self, project_id)

    def least_seconds(self, requests: int) -> float:
        """Return within what time it can let so many requests pass at best."""
        return max(0.0, requests - self.burst) / self.rate

    @property
    def refused(self) -> int:
        return sum(not passed for _, passed in self.sent)

    async def exchange(self, request: Request) -> Response:
        await asyncio.sleep(self.latency / 2)
        passed = self._pass()
        self.sent.append((asyncio.get_running_loop().time(), passed))
        response = Response(200, {}, self._ask(request)) if passed else self.refuse()
        await asyncio.sleep(self.latency / 2)
        return response

    def _pass(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._tokens = min(float(self.burst), self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if self._tokens < 1 - 1e-9 or not self.is_open():
            return False
        self._tokens -= 1
        return True

    def _ask(self, request: Request) -> bytes:
        path, _, query = request.url.partition("/processor-tasks")[2].partition("?")
        operation: Any = SimpleNamespace(path=f"/processor-tasks{path}", query=dict(parse_qsl(query)))
        return self.service.answer(operation)


class Gatewayed(AsyncDriver):
    """As much of the asynchronous hook as a watcher uses, over a gateway that is no socket."""

    def __init__(self, gateway: Gateway, project_id: str) -> None:
        super().__init__(self._settings_of_gateway)
        self.gateway = gateway
        self.project_id = project_id

    async def call(self, operation: Operation[T], retries: RetryPolicy | None = None) -> T:
        return await super().call(operation, retries or self.gateway.retries)

    def pages(self, operation: ListOperation[T], retries: RetryPolicy | None = None) -> AsyncGenerator[Page[T], None]:
        return super().pages(operation, retries or self.gateway.retries)

    async def _settings_of_gateway(self) -> Settings:
        client = ClientConfig(
            endpoint="https://example.com",
            project_id=self.project_id,
            credentials=StaticToken("token"),
            cache=TokenCache(),
            now=asyncio.get_running_loop().time,
            random=random.random,
            limiter=self.gateway.limiter,
        )
        return Settings(client, True, 10.0, 60.0, None)

    async def _exchange(self, request: Request) -> Response:
        return await self.gateway.exchange(request)


def is_list(operation: Operation[Any]) -> bool:
    return operation.path == "/processor-tasks"


def task_id_of(operation: Operation[Any]) -> str:
    return unquote(operation.path.removeprefix("/processor-tasks/"))
