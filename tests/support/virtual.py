"""An event loop with a virtual clock: sleeping takes no time, so tests of hours of polling are fast."""

import asyncio
import selectors
from collections.abc import Coroutine
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import pytest

from airflow_modelarts import airflow_calls
from airflow_modelarts.api.http import Request, Response
from airflow_modelarts.polling import submission_queue, watcher
from airflow_modelarts.transport import AsyncDriver

T = TypeVar("T")
#: Seconds of virtual time after which a test fails.
TIME_LIMIT = 10 * 24 * 3600.0
#: Passes without a sleep after which the clock moves a little, as a real one does. asyncio lets a sleep of less than
#: the clock's resolution end at once, so code that sleeps for the rest of a time would otherwise never reach it.
MAX_PASSES = 1000


class _VirtualSelector(selectors.DefaultSelector):
    """Returns at once, and advances the clock by the timeout.

    :param busy: how many answers of threads and servers are outstanding; until they are there the clock stands still.
    :param passes: how many passes of the loop in a row have not slept.
    """

    now = 0.0
    busy = 0
    passes = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0 if timeout == 0 or not self.busy else 1)
        self.passes = self.passes + 1 if timeout == 0 else 0
        if self.passes > MAX_PASSES:
            self.now += 1e-9
        if found or self.busy or timeout == 0:
            return found
        if timeout is None:
            raise AssertionError("every task waits, and nothing can happen any more")
        self.now += max(timeout, 0.0)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on which sleeping, other threads and servers take no time."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(self, *arguments: Any) -> asyncio.Future[Any]:
        self.stop_clock()
        future = super().run_in_executor(*arguments)
        future.add_done_callback(lambda _: self.start_clock())
        return future

    async def exchange(self, driver: AsyncDriver, request: Request) -> Response:
        """Stop the clock while a real server answers."""
        self.stop_clock()
        try:
            return await _EXCHANGE(driver, request)
        finally:
            self.start_clock()

    def stop_clock(self) -> None:
        self._virtual.busy += 1

    def start_clock(self) -> None:
        self._virtual.busy -= 1


_EXCHANGE = AsyncDriver._exchange


def now() -> float:
    """Return the time on the running loop's clock, which begins at 0."""
    return asyncio.get_running_loop().time()


#: Seconds since the epoch at which virtual clocks begin.
EPOCH = 1_700_000_000.0


def use_virtual_time(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Let ``time.time()`` of these modules be the running loop's clock."""
    for module in modules:
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: EPOCH + now()))


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual clock, and check that it leaves no task, watcher or unhandled exception behind."""
    loop = VirtualLoop()
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsyncDriver, "_exchange", lambda driver, request: loop.exchange(driver, request))
        try:
            result = loop.run_until_complete(asyncio.wait_for(main, TIME_LIMIT))
            # A call of Airflow continues when its caller is cancelled.
            if calls := [call for call in airflow_calls._RUNNING if call.get_loop() is loop]:
                loop.run_until_complete(asyncio.wait(calls))
            assert asyncio.all_tasks(loop) == set(), "a task is left"
            assert not any(loop in shared for shared in watcher._WATCHERS), "a watcher is left"
            assert not any(loop in shared for shared in submission_queue._QUEUES), "a submission queue is left"
            assert unhandled == []
            return result
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.stop_clock()  # asyncio ends the executor in a thread that does not pass run_in_executor
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
