"""
One poll for all the waits that share a connection and a project. It lives in the triggerer, on its event loop.

A round lists the active tasks and asks by id for those it did not find; only an answer by id ends a wait, since a list
shifts while it is read. Where fewer requests do, it asks by id at once. It keeps no history: a wait that joins again
after a restart goes on as if nothing had been.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import math
import random
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import (
    ModelArtsAuthenticationError,
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsNotFoundError,
    ModelArtsRequestError,
    ModelArtsThrottledError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.json_reading import repaired, without_byte_order_mark
from airflow_modelarts.api.models import Status
from airflow_modelarts.api.operations import MAX_PAGE_SIZE, ListOperation, Operation, Page
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus
from airflow_modelarts.polling.status_poller import backoff, max_delay

T = TypeVar("T")

#: Seconds; a sensor's poke_interval can be 0, and the service must not be asked without a pause.
SHORTEST_INTERVAL = 0.1
#: Seconds for which the first round waits for others to join: after a restart they come one by one, in no time.
BATCH_DELAY = 0.2
#: Requests under way at once.
CONCURRENCY = 8
#: Seconds after which a list that was refused gets another look: permissions are granted now and then.
LIST_AGAIN_AFTER = 3600.0
#: Seconds, at most, before the second try of lists that could not be read; a fifth of a shorter interval.
SECOND_TRY_AFTER = 1.0
#: Seconds, at most, until a throttled request is repeated when others of its round were answered.
THROTTLED_AGAIN_AFTER = 10.0
#: Running first: a task that starts between the two lists is in neither, and is then asked for by id.
ACTIVE = (ProcessorTaskStatus.RUNNING, ProcessorTaskStatus.INITIALIZED)
DEFAULT_WORKSPACE = "0"
#: Between the ids of a task and of a version, for a wait that is for a version: the lists of tasks tell nothing of it.
OF_VERSION = "/versions/"


class Api(Protocol):
    """As much of the asynchronous hook as a watcher uses."""

    async def call(self, operation: Operation[T]) -> T:
        """Carry out one operation."""

    def pages(self, operation: ListOperation[T]) -> AsyncGenerator[Page[T], None]:
        """Carry out a list operation page by page."""

    async def close(self) -> None:
        """Close the sockets."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The task has another status than before."""

    status: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The task has ended. The last news of a wait."""

    status: int


@dataclass(frozen=True, slots=True)
class OutageBegan:
    """Nobody can tell how the task is; the wait goes on."""

    error: ModelArtsError


@dataclass(frozen=True, slots=True)
class OutageEnded:
    """The service answers again."""


WaitEvent: TypeAlias = Changed | Ended | OutageBegan | OutageEnded


@dataclass(slots=True, eq=False)
class Wait:
    """
    One wait for one task.

    :param interval: seconds between two looks at the task, at most.
    :param workspace_id: in whose list the task is looked for; learned from the first answer by id.
    :param due: when to look next, by the event loop's clock.
    """

    processor_task_id: str
    interval: float
    workspace_id: str
    due: float
    status: int | None = None
    failures: int = 0
    _in_outage: bool = False
    _events: list[WaitEvent] = field(default_factory=list)
    _error: BaseException | None = None
    _waker: asyncio.Future[None] | None = None

    async def events(self) -> AsyncGenerator[WaitEvent, None]:
        """
        Yield what happens, until the task has ended.

        :raises ModelArtsError: waiting longer makes no sense; the message says what to change.
        """
        while True:
            while self._events:
                latest = self._events.pop(0)
                yield latest
                if isinstance(latest, Ended):
                    return
            if self._error is not None:
                raise self._error
            self._waker = asyncio.get_running_loop().create_future()
            await self._waker

    def emit(self, events: WaitEvent) -> None:
        """Add to the news."""
        self._events.append(events)
        self._wake()

    def fail(self, error: BaseException) -> None:
        """End the wait with an error, once the news before it are read."""
        self._error = self._error or _copy(error)
        self._wake()

    def begin_outage(self, error: ModelArtsError) -> None:
        """Tell that the task cannot be read, unless that is known."""
        if not self._in_outage:
            self._in_outage = True
            self.emit(OutageBegan(error))

    def end_outage(self) -> None:
        """Tell that it can be read again, if it could not, and if it is not this very task that is out of order."""
        if self._in_outage and not self.failures:
            self._in_outage = False
            self.emit(OutageEnded())

    def observe(self, status: int | None, now: float) -> None:
        """Take in what an answer said of the task."""
        self.due = now + self.interval
        self.failures = 0
        self.end_outage()
        if status in TERMINAL_STATUSES:
            self.emit(Ended(int(status)))
        elif status != self.status:
            self.emit(Changed(status))
        self.status = status

    def postpone(self, error: ModelArtsError, now: float) -> None:
        """Take in that the task could not be read."""
        self.failures += 1
        self.begin_outage(error)
        self.due = now + backoff_with_jitter(self.interval, self.failures, error)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to look for."""
        return self._error is not None or self.status in TERMINAL_STATUSES

    def _wake(self) -> None:
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)


def _copy(error: BaseException) -> BaseException:
    """Return an exception for one wait alone, since each raise adds to its traceback."""
    try:
        return copy.copy(error).with_traceback(error.__traceback__)
    except Exception:  # its class cannot be made from its ``args``
        return error


def backoff_with_jitter(interval: float, failures: int, error: ModelArtsError) -> float:
    """Return the pause after some failures in a row: growing, with jitter, and as long as the service asks for."""
    jitter = random.uniform(0.8, 1.2)  # noqa: S311  # nosec B311 - jitter
    return max(backoff(interval, failures) * jitter, min(error.retry_after or 0.0, max_delay(interval)))


class Watcher:
    """
    Looks after waits as long as there are any.

    :param api: calls ModelArts, without repeating a call by itself.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._waits: dict[str, list[Wait]] = {}
        self._pages: dict[tuple[str, ProcessorTaskStatus], int] = {}
        self._list_again_at: dict[str, float] = {}
        self._list_failures: dict[str, int] = {}
        self._failures = 0
        self._outage: ModelArtsError | None = None
        self._rest_until = -math.inf
        self._wakes_at = math.inf
        self._round_began = -math.inf
        self._loop = asyncio.get_running_loop()
        self._joined = asyncio.Event()
        # In a context of its own: it works for all triggers, so its log lines are not those of the first one's task.
        self._task = self._loop.create_task(self._run(), context=contextvars.Context())

    def join(self, wait: Wait) -> None:
        """Look after another wait."""
        self._waits.setdefault(wait.processor_task_id, []).append(wait)
        if self._outage is not None:
            wait.begin_outage(self._outage)
        # Thousands join one after the other; each would cost a look at all the others.
        if max(wait.due, self._rest_until) < self._wakes_at:
            self._joined.set()

    def leave(self, wait: Wait) -> None:
        """Look after a wait no longer."""
        waits = self._waits[wait.processor_task_id]
        waits.remove(wait)
        if not waits:
            del self._waits[wait.processor_task_id]

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waits

    @property
    def is_over(self) -> bool:
        """Whether it has given up. Who comes now needs another one, since the connection may be mended by now."""
        return self._task.done()

    async def close(self) -> None:
        """Stop, and close the sockets."""
        self._task.cancel()
        try:
            await asyncio.gather(self._task, return_exceptions=True)
        finally:
            await self._api.close()

    async def _run(self) -> None:
        while True:
            await self._sleep()
            try:
                await self._round()
            except ModelArtsError as error:
                if not error.temporary:
                    return self._give_up(error)
                self._rest(error)
            except Exception as error:  # a defect of ours: those who wait must hear of it rather than wait for ever
                return self._give_up(error)
            else:
                self._end_outage()

    async def _sleep(self) -> None:
        """Sleep until a wait is due, and not before the pause of an outage is over."""
        while True:
            self._joined.clear()
            due = min((wait.due for wait in self._open_waits()), default=math.inf)
            self._wakes_at = max(due, self._rest_until)
            seconds = self._wakes_at - self._loop.time()
            if seconds <= 0:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._joined.wait(), seconds if seconds < math.inf else None)

    def _open_waits(self) -> Iterator[Wait]:
        return (wait for waits in self._waits.values() for wait in waits if not wait.over)

    def _shortest_interval(self) -> float:
        return min((wait.interval for wait in self._open_waits()), default=0.0)

    def _rest(self, error: ModelArtsError) -> None:
        self._failures += 1
        self._rest_until = self._loop.time() + backoff_with_jitter(self._shortest_interval(), self._failures, error)
        self._list_again_at.clear()  # it was not the lists alone
        if self._outage is None:
            for wait in self._open_waits():
                wait.begin_outage(error)
        self._outage = error

    def _end_outage(self) -> None:
        if self._outage is not None:
            for wait in self._open_waits():
                wait.end_outage()
        self._failures, self._outage = 0, None

    def _give_up(self, error: Exception) -> None:
        for wait in self._open_waits():
            wait.fail(error)

    async def _round(self) -> None:
        """Look after the waits that are due, and after those that soon would be, so that they keep together."""
        now = self._round_began = self._loop.time()
        wanted: dict[str, set[str]] = defaultdict(set)
        versions: set[str] = set()
        due: dict[str, float] = {}
        for wait in self._open_waits():
            if wait.due <= now + wait.interval / 2:
                (versions if OF_VERSION in wait.processor_task_id else wanted[wait.workspace_id]).add(
                    wait.processor_task_id
                )
                due[wait.processor_task_id] = min(wait.due, due.get(wait.processor_task_id, math.inf))
        is_answered = False
        for workspace_id, task_ids in wanted.items():
            is_answered |= await self._take_out_active(workspace_id, task_ids)
        # The longest due come first, so that a service that throttles keeps none of them waiting for ever.
        await self._ask(sorted(versions.union(*wanted.values()), key=due.__getitem__), is_answered=is_answered)

    async def _take_out_active(self, workspace_id: str, wanted: set[str]) -> bool:
        """Take out those wanted tasks that the lists of active ones have; return whether there were any."""
        before = len(wanted)
        if self._loop.time() < self._list_again_at.get(workspace_id, -math.inf):
            return False
        failed_before = workspace_id in self._list_failures
        try:
            await self._read_lists(workspace_id, wanted)
        except ModelArtsError as error:
            is_throttled = isinstance(error, ModelArtsThrottledError)
            if is_throttled and len(wanted) < before:
                return True
            self._put_off_lists(workspace_id, error)
            if not failed_before and (is_throttled or (error.temporary and error.retry_after)):
                raise  # asking by id could make it worse; but not a second time: gateways can throttle each API apart
            return False  # it may be these lists alone that cannot or may not be read; asking by id tells
        return len(wanted) < before

    def _put_off_lists(self, workspace_id: str, error: ModelArtsError) -> None:
        """Let some rounds do without the lists."""
        pause = LIST_AGAIN_AFTER
        if error.temporary:
            failures = self._list_failures[workspace_id] = self._list_failures.get(workspace_id, 0) + 1
            # Half the interval, so that after the first failure the next round reads them again.
            pause = backoff_with_jitter(self._shortest_interval() / 2, failures, error)
        self._list_again_at[workspace_id] = self._loop.time() + pause

    async def _read_lists(self, workspace_id: str, wanted: set[str]) -> None:
        """Read the lists, and try a second time soon if they fail for once: by id it takes a request a wait."""
        try:
            await self._read_active(workspace_id, wanted)
        except ModelArtsTransientError as error:
            if error.retry_after or workspace_id in self._list_failures:
                raise
            longest = min(SECOND_TRY_AFTER, self._shortest_interval() / 5)
            await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311  # nosec B311 - jitter
            await self._read_active(workspace_id, wanted)

    async def _read_active(self, workspace_id: str, wanted: set[str]) -> None:
        for status in ACTIVE:
            if not await self._read_list(workspace_id, status, wanted):
                break

    async def _read_list(self, workspace_id: str, status: ProcessorTaskStatus, wanted: set[str]) -> bool:
        """Read a list, as long as that takes fewer requests than asking one by one; return whether it did."""
        if len(wanted) <= self._pages_to_come(workspace_id, status, read=0):
            # The estimates may be of a busier time: let them fade, so that the lists get another look some day.
            for later in ACTIVE[ACTIVE.index(status) :]:
                self._pages[workspace_id, later] = self._pages.get((workspace_id, later), 1) * 9 // 10
            return False
        listing = operations.list_processor_tasks(status=status, workspace_id=workspace_id, return_result=False)
        async with aclosing(self._api.pages(listing)) as pages:
            read = 0
            async for page in pages:
                read += 1
                self._pages[workspace_id, status] = read if page.count is None else -(-page.count // MAX_PAGE_SIZE)
                for task in page.items:
                    if task.status not in TERMINAL_STATUSES:  # only an answer by id may end a wait
                        wanted.discard(task.task_id)
                        self._observe(task.task_id, status if task.status is None else task.status)
                if len(wanted) <= self._pages_to_come(workspace_id, status, read):
                    break
        self._list_failures.pop(workspace_id, None)
        return True

    def _pages_to_come(self, workspace_id: str, status: ProcessorTaskStatus, read: int) -> int:
        """Estimate how many pages of the lists are still to be read, by how many there were."""
        rest = self._pages.get((workspace_id, status), 1) - read
        later = [max(1, self._pages.get((workspace_id, other), 1)) for other in ACTIVE[ACTIVE.index(status) + 1 :]]
        return max(rest, 0 if read else 1) + sum(later)

    async def _ask(self, task_ids: Sequence[str], *, is_answered: bool) -> None:
        """
        Ask for tasks by id. If nobody is answered at all, that is an outage of the service, not of one task.

        :param is_answered: whether the lists had some of the tasks, so that the service is known to answer.
        """
        errors: dict[str, Exception] = {}
        asked, answers, throttled_in_a_row = 0, int(is_answered), 0
        queue = deque(task_ids)

        async def ask(task_id: str) -> None:
            nonlocal asked, answers, throttled_in_a_row
            asked += 1
            try:
                task = await self._api.call(_describe_status(task_id))
            except Exception as error:
                errors[task_id] = error
                answers += _concerns_one(error)
                throttled_in_a_row = throttled_in_a_row + 1 if isinstance(error, ModelArtsThrottledError) else 0
            else:
                errors.pop(task_id, None)
                answers, throttled_in_a_row = answers + 1, 0
                self._take_in(task_id, task)

        def is_in_vain() -> bool:
            if throttled_in_a_row >= (CONCURRENCY if answers else 1) or any(map(_concerns_all, errors.values())):
                return True
            return not answers and asked > CONCURRENCY

        async def ask_in_turn() -> None:
            while queue and not is_in_vain():
                if (task_id := queue.popleft()) in self._waits:  # a round can take minutes at a low rate
                    await ask(task_id)

        if queue:
            await ask(queue.popleft())  # alone: if the credentials are refused, that need not happen a thousand times
        answers_before = -1
        while queue and answers > answers_before:
            answers_before = answers
            await asyncio.gather(*(ask_in_turn() for _ in range(CONCURRENCY)))
            if answers and not is_in_vain():  # the service may have been overloaded for a moment
                queue.extend(task_id for task_id, error in errors.items() if self._is_worth_repeating(task_id, error))
        if errors and not answers and not throttled_in_a_row and not any(map(_concerns_all, errors.values())):
            for healthy in self._healthy(task_ids):
                await ask(healthy)  # it tells an outage of the service from one of these tasks
        self._take_in_errors(errors, somebody_is_answered=answers > 0)

    def _is_worth_repeating(self, task_id: str, error: Exception) -> bool:
        """Tell an error of an overloaded service; a task that failed in the round before may be the only one to."""
        is_overloaded = isinstance(error, ModelArtsThrottledError) or getattr(error, "http_status", None) == 503
        return is_overloaded and not any(wait.failures for wait in self._waits.get(task_id, ()))

    def _healthy(self, asked: Sequence[str]) -> list[str]:
        """Return one other task that has not failed so far, be it new; none if there is none."""
        but_not = set(asked)
        others = (wait.processor_task_id for wait in self._open_waits() if not wait.failures)
        return [task_id for task_id in others if task_id not in but_not][:1]

    def _take_in_errors(self, errors: dict[str, Exception], *, somebody_is_answered: bool) -> None:
        for error in errors.values():
            if _concerns_all(error):
                raise error
        for task_id, error in errors.items():
            if isinstance(error, ModelArtsThrottledError):
                self._take_in_throttling(task_id, error)
                if not somebody_is_answered:
                    raise error
            elif somebody_is_answered or _concerns_one(error):
                self._take_in_error(task_id, cast("ModelArtsError", error))
            else:
                raise error

    def _take_in(self, task_id: str, task: _TaskStatus) -> None:
        for wait in self._waits.get(task_id, ()):
            wait.workspace_id = task.workspace_id or DEFAULT_WORKSPACE
        self._observe(task_id, task.status)

    def _take_in_error(self, task_id: str, error: ModelArtsError) -> None:
        for wait in self._waits.get(task_id, ()):
            if error.temporary:
                wait.postpone(error, self._loop.time())
            else:
                wait.fail(error)

    def _take_in_throttling(self, task_id: str, error: ModelArtsError) -> None:
        """Ask again soon, and after the others: where they are answered, it is no outage."""
        for wait in self._waits.get(task_id, ()):
            pause = min(wait.interval, THROTTLED_AGAIN_AFTER)
            wait.due = self._loop.time() + max(pause, min(error.retry_after or 0.0, max_delay(wait.interval)))

    def _observe(self, task_id: str, status: int | None) -> None:
        for wait in self._waits.get(task_id, ()):
            if not wait.over:
                # As of the round's beginning: those of a long round would be due at odd times, and drift apart.
                wait.observe(status, self._round_began)


def _concerns_all(error: Exception) -> bool:
    """Tell an error of the connection or of ours from one that may be of a single task."""
    if isinstance(error, ModelArtsAuthenticationError):
        # A right that is missing can be one in a single workspace.
        return error.asks_for_new_credentials or error.http_status != 403
    return not isinstance(error, ModelArtsError) or isinstance(error, ModelArtsConfigurationError)


def _concerns_one(error: Exception) -> bool:
    """Tell an error that is certainly of a single task, such as an unknown id."""
    return isinstance(error, ModelArtsNotFoundError | ModelArtsRequestError)


class _TaskStatus(BaseModel):
    """
    As much of a task as a wait needs. Nothing else of an answer becomes Python: a result can be tens of megabytes.

    :param task_id: an answer without it is no task's.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)

    task_id: str
    status: Status = None
    workspace_id: str | None = None


def _read_task_status(body: bytes) -> _TaskStatus:
    body = without_byte_order_mark(body)
    try:
        return _TaskStatus.model_validate_json(body)
    except ValueError:
        readable = repaired(body, 2)
        if readable == body:
            raise
    return _TaskStatus.model_validate_json(readable)


def _describe_status(waited_for: str) -> Operation[_TaskStatus]:
    """Describe how a task stands; or a version, as if it were one."""
    is_id = isinstance(waited_for, str)  # users pass what another task pushed
    task_id, of_version, version_id = waited_for.partition(OF_VERSION) if is_id else (waited_for, "", "")
    if of_version:
        version: Operation[Any] = operations.describe_processor_task_version(task_id, version_id)
        return replace(version, read=lambda body: _TaskStatus(task_id=waited_for, status=version.read(body).status))
    task: Operation[Any] = operations.describe_processor_task(task_id)
    return replace(task, read=lambda body: operations.check_task(_read_task_status(body), task_id))


_WATCHERS: dict[Hashable, Watcher] = {}


async def watch(
    key: Hashable,
    open_api: Callable[[], Api],
    *,
    processor_task_id: str,
    version_id: str | None = None,
    interval: float,
    workspace_id: str | None = None,
    look_at_once: bool = False,
) -> AsyncGenerator[WaitEvent, None]:
    """
    Wait for a task together with all who wait under the same key on this event loop.

    Close the generator when you stop listening early; the last one out closes the sockets.

    :param key: connection and project.
    :param open_api: makes what the watcher calls with; used by the first one in.
    :param processor_task_id: the processing task's id.
    :param version_id: the version to wait for, if it is one of the task's versions that counts.
    :param interval: seconds between two looks at the task, at most.
    :param workspace_id: the task's workspace, if it is known.
    :param look_at_once: whether nobody has looked at the task yet; otherwise the first look is after one interval.
    :raises ModelArtsError: waiting longer makes no sense; the message says what to change.
    """
    loop = asyncio.get_running_loop()
    shared = (loop, key)
    waited_for = processor_task_id if version_id is None else f"{processor_task_id}{OF_VERSION}{version_id}"
    _describe_status(waited_for)  # refuses what is no id, before anything is opened
    watcher = _WATCHERS.get(shared)
    if watcher is None or watcher.is_over:
        watcher = _WATCHERS[shared] = Watcher(open_api())
    interval = max(interval, SHORTEST_INTERVAL)
    due = loop.time() + (BATCH_DELAY if look_at_once else interval)
    wait = Wait(waited_for, interval, workspace_id or DEFAULT_WORKSPACE, due)
    watcher.join(wait)
    try:
        async with aclosing(wait.events()) as events:
            async for latest in events:
                yield latest
    finally:
        watcher.leave(wait)
        if watcher.is_idle:
            if _WATCHERS.get(shared) is watcher:
                del _WATCHERS[shared]
            await watcher.close()
