"""The triggerer's poll loop: all waits on one connection and project share a watcher, on the triggerer's event loop.

Each round lists the active tasks and reads by id those that it did not find. Only an answer by id ends a wait, because
a list shifts while it is read. If that takes fewer requests, the round reads by id at once. ``polling.plan`` decides
which requests a round needs; this module sends them and hands the answers to the waits. A watcher stores nothing: after
a restart the triggers join a new one.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping
from contextlib import aclosing, suppress
from typing import Protocol, TypeVar

from airflow_modelarts.api.errors import ModelArtsError, ModelArtsThrottledError
from airflow_modelarts.api.operations import MAX_PAGE_SIZE, ListOperation, Operation, Page
from airflow_modelarts.api.request_parts import encode_path
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.api.statuses import TERMINAL_STATUSES
from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling.outage import backoff_with_jitter
from airflow_modelarts.polling.plan import ACTIVE, CONCURRENCY, DescribeQueue, ListHistory, plan_round
from airflow_modelarts.polling.target_status import describe_status, list_statuses
from airflow_modelarts.polling.wait import DEFAULT_WORKSPACE, Wait

T = TypeVar("T")

#: Retries of a poll: the next poll is the retry, except if the service throttles one request and answers others.
POLL_RETRIES = RetryPolicy(attempts=1, throttled_attempts=10)
#: Seconds; a sensor's poke_interval can be 0, and the service needs a pause between two requests.
MIN_INTERVAL = 0.1
#: Seconds for which the first round waits for other triggers to join: after a restart they start one by one.
BATCH_DELAY = 0.2
#: The running watchers by event loop and key.
_WATCHERS: dict[tuple[asyncio.AbstractEventLoop, Hashable], Watcher] = {}


class Api(Protocol):
    """The part of the asynchronous hook that a watcher uses, with the retry policy :data:`POLL_RETRIES`."""

    async def call(self, operation: Operation[T]) -> T:
        """Carry out one operation."""

    def pages(self, operation: ListOperation[T]) -> AsyncGenerator[Page[T], None]:
        """Carry out a list operation page by page."""

    async def close(self) -> None:
        """Close the sockets."""


class Watcher:
    """Polls the targets of its waits, until the last one leaves or a fatal error ends all of them.

    :param api: what it calls ModelArts with.
    :param key: what its waits have in common.
    """

    def __init__(self, api: Api, key: Hashable) -> None:
        self._api = api
        self._key = key
        self._waits: dict[Target, list[Wait]] = {}
        self._lists: defaultdict[str, ListHistory] = defaultdict(ListHistory)
        self._failures = 0
        self._outage: ModelArtsError | None = None
        self._paused_until = -math.inf
        self._wakes_at = math.inf
        self._round_began = -math.inf
        self._loop = asyncio.get_running_loop()
        self._joined = asyncio.Event()
        # In a context of its own: it works for all triggers, so its log lines must not go to the first one's task.
        self._task = self._loop.create_task(self._run(), context=contextvars.Context())

    def poll_soon(self) -> int:
        """Start a round with all waits; return about how many requests it takes."""
        now = self._loop.time()
        targets = {wait.target for wait in self._open_waits()}
        for wait in self._open_waits():
            wait.poll_at(now)
        self._joined.set()
        versions = sum(target.task_version_id is not None for target in targets)
        return versions + len(ACTIVE) * -(-(len(targets) - versions) // MAX_PAGE_SIZE)

    @property
    def is_over(self) -> bool:
        """True after a fatal error. New waits must start a new watcher: the connection may have been corrected."""
        return self._task.done()

    def join(self, wait: Wait) -> None:
        """Start polling for a wait."""
        self._waits.setdefault(wait.target, []).append(wait)
        if self._outage is not None:
            wait.begin_outage(self._outage)
        # Thousands join one after the other: waking up for each would examine all the others each time.
        if max(wait.due, self._paused_until) < self._wakes_at:
            self._joined.set()

    async def leave(self, wait: Wait) -> None:
        """Stop polling for a wait; the last one that leaves closes the sockets."""
        waits = self._waits[wait.target]
        waits.remove(wait)
        if not waits:
            del self._waits[wait.target]
        if not self._waits:
            if _WATCHERS.get((self._loop, self._key)) is self:
                del _WATCHERS[self._loop, self._key]
            await self._close()

    async def _close(self) -> None:
        self._task.cancel()
        try:
            await asyncio.gather(self._task, return_exceptions=True)
        finally:
            await self._api.close()

    async def _run(self) -> None:
        while True:
            await self._sleep()
            try:
                await self._poll()
            except Exception as error:  # a defect of this package too: the waits must fail rather than hang
                if not (isinstance(error, ModelArtsError) and error.temporary):
                    for wait in self._open_waits():
                        wait.fail(error)
                    return
                self._continue_outage(error)
            else:
                self._end_outage()

    async def _sleep(self) -> None:
        """Sleep until a wait is due, and until the pause of an outage is over."""
        while True:
            self._joined.clear()
            due = min([wait.due for wait in self._open_waits()], default=math.inf)
            self._wakes_at = max(due, self._paused_until)
            seconds = self._wakes_at - self._loop.time()
            if seconds <= 0:
                return
            with suppress(TimeoutError):  # the wait that was due may have left meanwhile
                await asyncio.wait_for(self._joined.wait(), seconds if seconds < math.inf else None)

    def _continue_outage(self, error: ModelArtsError) -> None:
        self._failures += 1
        self._paused_until = self._loop.time() + backoff_with_jitter(self._shortest_interval(), self._failures, error)
        for history in self._lists.values():
            history.skip_until = -math.inf  # not the lists alone failed
        if self._outage is None:
            for wait in self._open_waits():
                wait.begin_outage(error)
        self._outage = error

    def _end_outage(self) -> None:
        if self._outage is not None:
            for wait in self._open_waits():
                wait.end_outage()
        self._failures, self._outage = 0, None

    def _open_waits(self) -> list[Wait]:
        return [wait for waits in self._waits.values() for wait in waits if not wait.is_over]

    def _shortest_interval(self) -> float:
        return min((wait.interval for wait in self._open_waits()), default=0.0)

    async def _poll(self) -> None:
        """Carry out one round; raise a ModelArtsError if no request was answered, or the connection was refused."""
        self._round_began = self._loop.time()
        plan = plan_round(self._open_waits(), self._round_began)
        is_answered = False
        for workspace_id, missing in plan.missing.items():
            is_answered |= await self._poll_lists(workspace_id, missing)
        queue = DescribeQueue(plan.by_id(), plan.failing, is_answered=is_answered)
        await self._poll_by_id(queue)
        if queue.fatal:
            raise queue.fatal
        for target, error in queue.errors.items():
            for wait in self._waits.get(target, ()):
                if isinstance(error, ModelArtsThrottledError):
                    wait.postpone_throttled(error, self._loop.time())
                elif queue.is_answered and error.temporary:
                    wait.postpone(error, self._loop.time())
                elif queue.is_answered:
                    wait.fail(error)
            if not queue.is_answered:
                raise error

    async def _poll_lists(self, workspace_id: str, missing: set[Target]) -> bool:
        """Read a workspace's lists, and remove the tasks that they show as active from ``missing``.

        :return: whether they showed any.
        :raises ModelArtsError: the service throttles or asks for a pause, so that reading by id could make it worse.
        """
        history = self._lists[workspace_id]
        if self._loop.time() < history.skip_until:
            return False
        wanted, failed_before = len(missing), history.failures > 0
        try:
            try:
                await self._read_lists(workspace_id, history, missing)
            except ModelArtsError as error:
                delay = history.second_try_delay(error, self._shortest_interval())
                if delay is None:
                    raise
                await asyncio.sleep(delay)
                await self._read_lists(workspace_id, history, missing)
        except ModelArtsError as error:
            is_throttled = isinstance(error, ModelArtsThrottledError)
            if is_throttled and len(missing) < wanted:
                return True
            history.record_failure(error, self._loop.time(), self._shortest_interval())
            # Only the first time: a gateway can throttle each API separately.
            if not failed_before and (is_throttled or (error.temporary and error.retry_after)):
                raise
            return False  # maybe only these lists fail or are forbidden: read by id instead
        return len(missing) < wanted

    async def _read_lists(self, workspace_id: str, history: ListHistory, missing: set[Target]) -> None:
        """Read the lists as far as that takes fewer requests than reading the missing targets by id."""
        for status in ACTIVE:
            if not history.is_worth_reading(status, len(missing)):
                history.record_unread(status)
                return
            listing = list_statuses(status=status, workspace_id=workspace_id)
            read = 0
            async with aclosing(self._api.pages(listing)) as pages:
                async for page in pages:
                    read += 1
                    history.record_page(status, read, page.count)
                    # Only an answer by id may end a wait.
                    active = {
                        Target(task.task_id): status if task.status is None else task.status
                        for task in page.items
                        if task.status not in TERMINAL_STATUSES
                    }
                    missing.difference_update(active)
                    self._observe(active)
                    if not history.is_worth_reading(status, len(missing), read):
                        break
            history.failures = 0

    async def _poll_by_id(self, queue: DescribeQueue) -> None:
        """Read the queue's targets by id, several at once."""

        async def read_pending() -> None:
            while (target := queue.take(self._waits)) is not None:
                await self._describe(target, queue)

        # One request alone: if the credentials are refused, that need not happen a thousand times.
        if (first := queue.take(self._waits)) is not None:
            await self._describe(first, queue)
        while queue.start_pass():
            await asyncio.gather(*(read_pending() for _ in range(CONCURRENCY)))
            queue.repeat_overloaded()
        if queue.errors and (probe := queue.probe(self._open_waits())) is not None:
            await self._describe(probe, queue)

    async def _describe(self, target: Target, queue: DescribeQueue) -> None:
        try:
            answer = await self._api.call(describe_status(target))
        except Exception as error:
            queue.record_error(target, error)
            return
        queue.record_answer(target)
        for wait in self._waits.get(target, ()):
            wait.workspace_id = answer.workspace_id or DEFAULT_WORKSPACE
        self._observe({target: answer.status})

    def _observe(self, statuses: Mapping[Target, int | None]) -> None:
        for target, status in statuses.items():
            for wait in self._waits.get(target, ()):
                if not wait.is_over:
                    # Counted from the round's beginning: the waits of a long round would otherwise drift apart.
                    wait.observe(status, self._round_began)


def poll_soon(key: Hashable) -> int:
    """Poll all waits of this event loop and key now; return about how many requests that takes."""
    watcher = _WATCHERS.get((asyncio.get_running_loop(), key))
    return 0 if watcher is None or watcher.is_over else watcher.poll_soon()


def join(key: Hashable, open_api: Callable[[], Api], wait: Wait, *, poll_at_once: bool = False) -> Watcher:
    """Join the watcher of this event loop and key, and return it; every wait has to ``leave`` it.

    All waits under the same key share the polls. Thousands wait at once, so each takes its events in the coroutine that
    it has anyway.

    :param key: connection and project.
    :param open_api: opens what the watcher calls ModelArts with; only the first wait under a key uses it.
    :param poll_at_once: whether to poll now because no worker has done so; otherwise the first poll is one interval
        later.
    :raises ModelArtsRequestError: an id is not valid.
    """
    encode_path(*wait.target.ids)  # refuses an invalid id before anything is opened
    loop = asyncio.get_running_loop()
    shared = (loop, key)
    watcher = _WATCHERS.get(shared)
    if watcher is None or watcher.is_over:
        watcher = _WATCHERS[shared] = Watcher(open_api(), key)
    wait.interval = max(wait.interval, MIN_INTERVAL)
    wait.due = loop.time() + (BATCH_DELAY if poll_at_once else wait.interval)
    watcher.join(wait)
    return watcher
