"""The triggerer's submission queue: all triggers that submit through one connection and project share one.

It sends one submission at a time. ``polling.submission_plan`` decides whose turn it is, and when. While the service
refuses the first entry, no other one of its template sends a request, and nothing is done for each entry: a thousand
entries cost the requests of one. A queue stores nothing: after a restart the triggers join a new one, each with its
original arrival.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

from airflow_modelarts.airflow_calls import finish
from airflow_modelarts.api.capacity import describe_refusal, is_limit, is_not_now, retry_delay
from airflow_modelarts.api.errors import ModelArtsBusyError, ModelArtsError
from airflow_modelarts.api.http import Flow
from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling.inbox import Inbox
from airflow_modelarts.polling.submission_plan import Room, SubmissionOrder
from airflow_modelarts.polling.watcher import poll_soon

T = TypeVar("T")

#: Seconds for which a new queue waits for other triggers to join: after a restart they start one by one.
BATCH_DELAY = 0.2
#: Positions are compared again after so many changes, as a part of the entries.
CHANGES = 0.1
#: The template of the entries that a worker submits, which is not known here.
TURNS = ""
#: Ends that are remembered, so that two waits for the same target free one place.
RECENT_ENDS = 256
#: The open queues by event loop and key.
_QUEUES: dict[tuple[asyncio.AbstractEventLoop, Hashable], SubmissionQueue] = {}


@dataclass(frozen=True, slots=True)
class Waiting:
    """There is no room for now; the first time, and when the position has changed by half or more."""

    reason: str
    position: int
    total: int


@dataclass(frozen=True, slots=True)
class Checking:
    """The answer to the submission was lost, so it is looked up by name."""

    error: ModelArtsError


@dataclass(frozen=True, slots=True)
class Submitted:
    """The last event.

    :param external_id: of what was submitted; None if it is the entry's turn, and a worker submits.
    :param has_waited: whether ``Waiting`` preceded it.
    """

    external_id: str | None
    has_waited: bool


QueueEvent: TypeAlias = Waiting | Checking | Submitted


class DeadlineError(Exception):
    """The time of an entry is over. A TimeoutError may be that of a secrets backend."""


class Api(Protocol):
    """The part of the asynchronous hook that a queue uses."""

    async def run(self, procedure: Flow[T]) -> T:
        """Run a procedure."""

    async def close(self) -> None:
        """Close the sockets."""


class Submitter(Protocol):
    """The part of a trigger that a queue uses."""

    def attempt(self) -> Flow[str]:
        """Return a procedure that submits once."""


@dataclass(slots=True, eq=False)
class Ticket(Inbox[QueueEvent]):
    """The membership of one trigger: queued at first, then until its wait has ended.

    The events end with ``Submitted``, or with an error: that of a final refusal, or DeadlineError.

    :param priority: a higher one is submitted first.
    :param queued_since: seconds since the epoch.
    :param template: the id of its template; empty if a worker submits.
    :param submitter: None if a worker submits, when it is the entry's turn.
    :param refusals: how often the service has refused this entry for a reason that does not concern the others.
    :param has_left: whether the trigger has left, after which nothing may be submitted.
    :param external_id: of what was submitted, even if the trigger left meanwhile.
    :param under_way: is done when the latest attempt has ended; None before the first one.
    """

    priority: int
    queued_since: float
    template: str = ""
    submitter: Submitter | None = None
    refusals: int = 0
    has_left: bool = field(default=False, init=False)
    external_id: str | None = field(default=None, init=False)
    under_way: asyncio.Future[None] | None = field(default=None, init=False)
    _position: int = field(default=0, init=False)  # in the last event

    def show_position(self, reason: str, position: int, total: int) -> None:
        """Emit the position, the first time and when it has changed by half or more."""
        if not self._position or position <= self._position / 2 or position >= self._position * 2:
            self._position = position
            self.emit(Waiting(reason, position, total))

    def submitted(self, external_id: str | None) -> None:
        """Emit the last event."""
        self.external_id = external_id
        self.emit(Submitted(external_id, has_waited=bool(self._position)))


class SubmissionQueue:
    """Submits for its entries through ``api``, until the last member leaves."""

    def __init__(self, api: Api, key: Hashable) -> None:
        self.api = api
        self._key = key
        self._loop = asyncio.get_running_loop()
        self._order: SubmissionOrder[Ticket] = SubmissionOrder()
        self._room = Room(random.random, self._loop.time() + BATCH_DELAY)
        self._members = 0
        self._timers: dict[Ticket, asyncio.TimerHandle] = {}
        self._poll_interval = math.inf
        self._reason = ""  # why there is no room; empty if there may be
        self._limit = ModelArtsError("")  # the latest refusal by a limit
        self._refusals: Counter[str] = Counter()  # by template, since one of it was accepted
        self._templates: dict[str, str] = {}  # of the tasks that members wait for, by id
        self._changes = 0
        self._ended: deque[Target] = deque(maxlen=RECENT_ENDS)
        self._is_closing = False
        self._changed = asyncio.Event()
        # In a context of its own: it works for all triggers, so its log lines must not go to the first one's task.
        self._task = self._loop.create_task(self._run(), context=contextvars.Context())

    def join(
        self, ticket: Ticket, *, poll_interval: float, timeout: float | None, refusal: ModelArtsError | None
    ) -> None:
        """Add an entry; see the function of this name."""
        self._members += 1
        self._poll_interval = self._room.poll_interval = min(self._poll_interval, poll_interval)
        self._order.add(ticket)
        if timeout is not None:
            self._timers[ticket] = self._loop.call_later(timeout, ticket.fail, DeadlineError())
        if refusal is not None:
            self._refused(ticket, refusal)
        self._show_position(ticket)
        self._changed.set()

    async def leave(self, ticket: Ticket) -> None:
        """Remove a member; the last one closes the queue, when what is being submitted has been."""
        ticket.has_left = True
        if (timer := self._timers.pop(ticket, None)) is not None:
            timer.cancel()
        self._members -= 1
        self._templates.pop(ticket.external_id or "", None)
        if self._order.remove(ticket):
            self._show_positions()
        if not self._members:
            self._is_closing = True
            self._changed.set()
            try:
                await finish(self._close())
            finally:
                if _QUEUES.get((self._loop, self._key)) is self:
                    del _QUEUES[self._loop, self._key]

    @property
    def is_over(self) -> bool:
        """Whether the queue takes no more entries."""
        return self._is_closing or self._task.done()

    def note_end(self, target: Target) -> None:
        """Note that a task of this triggerer has ended, which frees a place."""
        if target not in self._ended:
            self._ended.append(target)
            self._room.ended()
            self._order.release(self._templates.get(target.task_id))
            self._changed.set()

    def note_start(self) -> None:
        """Note that a wait for a version has started: the service has probably accepted what a worker submitted."""
        self._room.turn_accepted()
        if not self._room.is_full:
            self._reason = ""
            self._changed.set()

    async def _close(self) -> None:
        try:
            await asyncio.gather(self._task, return_exceptions=True)
        finally:
            await self.api.close()

    async def _run(self) -> None:
        try:
            await self._serve()
        except Exception as error:  # a defect of this package: the triggers must fail rather than hang
            for ticket in self._order:
                ticket.fail(error)

    async def _serve(self) -> None:
        while (ticket := await self._next()) is not None:
            if ticket.submitter is None:
                self._room.turn_given(self._loop.time())
                self._order.remove(ticket, is_submitted=True)
                ticket.submitted(None)
            else:
                await self._submit(ticket, ticket.submitter)
            self._show_positions()

    async def _next(self) -> Ticket | None:
        """Return the next entry as soon as it may submit; None if the queue is to close."""
        while not self._is_closing:
            self._changed.clear()
            now = self._loop.time()
            head = self._order.head(now)
            if head is None and any(True for _ in self._order):  # all templates that are queued are held
                self._fill(now)
                head = self._order.head(now)
            at = self._order.next_due() if head is None else self._room.next_attempt
            if head is not None and at <= now:
                return head
            if head is not None and self._room.next_poll <= now:
                self._room.polled(poll_soon(self._key), now)
            if head is not None:
                at = min(at, self._room.next_poll)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), None if at == math.inf else max(at - now, 0.0))
        return None

    async def _submit(self, ticket: Ticket, submitter: Submitter) -> None:
        ticket.under_way = self._loop.create_future()
        try:
            external_id = await self.api.run(submitter.attempt())
        except Exception as error:  # a defect of this package too: the trigger must fail rather than hang
            if isinstance(error, ModelArtsError) and is_not_now(error) and not ticket.has_left:
                self._refused(ticket, error)
            else:
                self._order.remove(ticket, is_submitted=True)
                ticket.fail(error)
        else:
            self._expect_ends()
            self._room.accepted(self._loop.time())
            if not self._room.is_full:
                self._reason = ""
            self._order.remove(ticket, is_submitted=True)
            for template in (ticket.template, TURNS):
                self._order.release(template)
            self._refusals.pop(ticket.template, None)
            if not ticket.has_left:
                self._templates[external_id] = ticket.template
            ticket.submitted(external_id)
        finally:
            if not ticket.under_way.done():  # who awaits it can have been cancelled, and it with them
                ticket.under_way.set_result(None)

    def _refused(self, ticket: Ticket, error: ModelArtsError) -> None:
        now = self._loop.time()
        if isinstance(error, ModelArtsBusyError) and not is_limit(error):  # for example its dataset is being published
            ticket.refusals += 1
            self._order.postpone(ticket, now + retry_delay(ticket.refusals, error, random.random))
            ticket.show_position(describe_refusal(error), 1, len(self._order))
            return
        self._expect_ends()
        is_first = not self._reason
        if ticket.submitter is None and is_limit(error):
            self._room.turn_refused(error, now)
        elif is_limit(error):
            self._limit = error
            self._hold(ticket.template, now)
            if self._order.head(now) is not None:  # the limit can be that of the template: another one is next
                return
            self._fill(now)
        else:
            self._room.refused(error, now)
        self._reason = describe_refusal(error)
        if is_first:
            self._show_positions(at_once=True)

    def _hold(self, template: str, now: float) -> None:
        """Let other templates pass for a time that grows with each refusal."""
        self._refusals[template] += 1
        delay = retry_delay(self._refusals[template], self._limit, random.random, self._room.first_delay)
        for held in (template, TURNS):  # a worker is too dear for finding out which limit is reached
            self._order.hold(held, now + delay)
        if self._refusals[template] == 1:
            for position, ticket in enumerate(self._order, 1):
                if ticket.template == template:
                    ticket.show_position(describe_refusal(self._limit), position, len(self._order))

    def _fill(self, now: float) -> None:
        """No entry may submit: the limit is that of the project, or each template that is queued is at its limit."""
        self._order.release()
        self._room.refused(self._limit, now)
        self._reason = describe_refusal(self._limit)

    def _expect_ends(self) -> None:
        is_waiting = self._members > len(self._order)
        self._room.expect_ends(self._poll_interval if is_waiting else None)

    def _show_position(self, ticket: Ticket) -> None:
        self._changes += 1
        position = self._order.position(ticket)
        if self._reason and position > self._room.free:
            ticket.show_position(self._reason, position, len(self._order))

    def _show_positions(self, *, at_once: bool = False) -> None:
        """Show all entries their positions, after so many changes that this costs little for each change."""
        self._changes += 1
        if not self._reason or (self._changes < CHANGES * len(self._order) and not at_once):
            return
        self._changes = 0
        for position, ticket in enumerate(self._order, 1):
            if position > self._room.free:
                ticket.show_position(self._reason, position, len(self._order))


def join(
    key: Hashable,
    open_api: Callable[[], Api],
    ticket: Ticket,
    *,
    poll_interval: float,
    timeout: float | None = None,
    refusal: ModelArtsError | None = None,
) -> SubmissionQueue:
    """Join the submission queue of this event loop and key, and return it; every member has to ``leave`` it.

    A member stays from the submission until the end of the wait.

    :param key: connection and project.
    :param open_api: opens what the queue calls ModelArts with; only the first member uses it.
    :param poll_interval: seconds between two polls of the task, when it runs.
    :param timeout: seconds until the entry fails with DeadlineError; None for no limit.
    :param refusal: why the service refused what a worker submitted in its turn; None if it has not.
    """
    shared = (asyncio.get_running_loop(), key)
    queue = _QUEUES.get(shared)
    if queue is None or queue.is_over:
        queue = _QUEUES[shared] = SubmissionQueue(open_api(), key)
    queue.join(ticket, poll_interval=poll_interval, timeout=timeout, refusal=refusal)
    return queue


def note_start(key: Hashable) -> None:
    """Note that a wait for a version has started on this event loop."""
    if (queue := _QUEUES.get((asyncio.get_running_loop(), key))) is not None:
        queue.note_start()


def note_end(key: Hashable, target: Target) -> None:
    """Note that a wait of this event loop has ended, so that a queue of the same key may submit again."""
    if (queue := _QUEUES.get((asyncio.get_running_loop(), key))) is not None:
        queue.note_end(target)
