"""Which queued submission is next, and when the service may have room for it. No requests, event loop or clock in here.

1. ``SubmissionOrder`` holds the entries: by priority, then by arrival. Every tenth submission is that of the entry that
   has waited longest, so an entry with ``n`` older ones submits after ``10 * (n + 1)`` submissions at the latest.
2. ``Room`` counts the places that are known to be free, and spaces the attempts where none is known.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from airflow_modelarts.api.capacity import FIRST_DELAY, is_limit, retry_delay
from airflow_modelarts.api.errors import ModelArtsError

#: Of so many submissions, one is that of the entry that has waited longest.
TURNS_BY_PRIORITY = 10
#: The first delay after a refusal is longer where waits of this triggerer may free a place: their end is known only
#: when they are polled. So many poll intervals, and at most so many seconds.
INTERVALS = 1.5
MAX_FIRST_DELAY = 15.0
#: Seconds between two turns while no limit is known: the outcome of a worker's submission is known later.
TURN_DELAY = 0.5
#: Seconds until the first extra poll at a limit. Without an end in between, each further delay is longer by a factor.
FIRST_POLL_DELAY = 1.0
POLL_DELAY_GROWTH = 1.5
#: Seconds between two extra polls, at least, for each request that one takes.
SECONDS_PER_REQUEST = 0.5
_NO_ERROR = ModelArtsError("")


class Entry(Protocol):
    """One submission in the queue.

    :param priority: a higher one is submitted first.
    :param queued_since: seconds since the epoch.
    :param template: the id of its template, which can have a limit of its own; empty if that is not known.
    """

    priority: int
    queued_since: float
    template: str


E = TypeVar("E", bound=Entry)


def _by_priority(entry: Entry) -> tuple[int, float]:
    return -entry.priority, entry.queued_since


def _by_age(entry: Entry) -> float:
    return entry.queued_since


class SubmissionOrder(Generic[E]):
    """The entries that have not been submitted yet."""

    def __init__(self) -> None:
        self._by_priority: list[E] = []
        self._by_age: list[E] = []
        self._postponed: dict[E, float] = {}
        self._held: dict[str, float] = {}  # by template, until when
        self._submitted = 0

    def __len__(self) -> int:
        return len(self._by_priority) + len(self._postponed)

    def __iter__(self) -> Iterator[E]:
        return iter(self._by_priority)

    def add(self, entry: E) -> None:
        """Add an entry, after those that are equal to it."""
        self._insert(entry)

    def remove(self, entry: E, *, is_submitted: bool = False) -> bool:
        """Remove an entry; return whether it was there.

        :param is_submitted: whether it leaves because it had its turn.
        """
        was_there = self._postponed.pop(entry, None) is not None or self._take_out(entry)
        self._submitted += was_there and is_submitted
        return was_there

    def postpone(self, entry: E, until: float) -> None:
        """Let the others pass until then: what the service refuses concerns this entry alone."""
        if self._take_out(entry):
            self._postponed[entry] = until

    def head(self, now: float) -> E | None:
        """Return the entry that submits next; None if there is none, or all are postponed or held."""
        for entry in [entry for entry, until in self._postponed.items() if until <= now]:
            del self._postponed[entry]
            self._insert(entry)
        self._held = {template: until for template, until in self._held.items() if until > now}
        is_oldest_next = self._submitted % TURNS_BY_PRIORITY == TURNS_BY_PRIORITY - 1
        entries = self._by_age if is_oldest_next else self._by_priority
        return next((entry for entry in entries if entry.template not in self._held), None)

    def hold(self, template: str, until: float) -> None:
        """Let the entries of other templates pass until then."""
        self._held[template] = until

    def release(self, template: str | None = None) -> None:
        """End the hold of a template, or of all."""
        self._held = {} if template is None else {one: at for one, at in self._held.items() if one != template}

    def next_due(self) -> float:
        """Return when the first entry is due that is postponed or held; infinite if there is none."""
        return min([*self._postponed.values(), *self._held.values()], default=math.inf)

    def position(self, entry: E) -> int:
        """Return the position of an entry by priority and arrival, from 1."""
        return _find(self._by_priority, entry, _by_priority) + 1

    def _insert(self, entry: E) -> None:
        insort(self._by_priority, entry, key=_by_priority)
        insort(self._by_age, entry, key=_by_age)

    def _take_out(self, entry: E) -> bool:
        index = self.position(entry) - 1
        if index == len(self._by_priority) or self._by_priority[index] is not entry:
            return False
        del self._by_priority[index]
        del self._by_age[_find(self._by_age, entry, _by_age)]
        return True


def _find(entries: list[E], entry: E, key: Callable[[Entry], Any]) -> int:
    """Return the index of an entry in a sorted list, or the index that it would have."""
    index = bisect_left(entries, key(entry), key=key)
    while index < len(entries) and entries[index] is not entry and key(entries[index]) == key(entry):
        index += 1
    return index


class Room:
    """What is known of the room at the service, and when the next entry may submit.

    While no limit is known, entries submit without a pause. At a limit, each end of a task of this triggerer frees one
    place. Where no free place is known, an attempt at growing intervals finds those that others have freed. When such
    an attempt succeeds, the limit counts as unknown until the next refusal.

    :param random: draws from [0, 1), for jitter.
    :param starts_at: when the first entry may submit.
    """

    def __init__(self, random: Callable[[], float], starts_at: float = -math.inf) -> None:
        self._random = random
        self._failures = 0
        self._try_at = -math.inf
        self._paused_until = starts_at
        self._is_probing = False  # whether the last turn was given without knowing of a free place
        self._poll_delay = self._least_poll_delay = FIRST_POLL_DELAY
        self._has_ended = False  # whether a task of this triggerer has ended since the last extra poll
        self._polled_at = -math.inf
        #: Seconds between two polls of a task of this triggerer without the extra ones.
        self.poll_interval = math.inf
        #: Whether the limit was reached at the last attempt.
        self.is_full = False
        #: Places that are free for certain, as far as is known here.
        self.free = 0
        #: Seconds until the attempt after the first refusal.
        self.first_delay = FIRST_DELAY

    @property
    def next_attempt(self) -> float:
        """When the next entry may submit; in the past if it may at once."""
        if self.is_full and not self.free:
            return max(self._try_at, self._paused_until)
        return self._paused_until

    @property
    def next_poll(self) -> float:
        """When to poll the tasks of this triggerer for a free place; infinite if their own polls are soon enough."""
        is_blocked = self.is_full and not self.free
        return self._polled_at + self._poll_delay if is_blocked and self._poll_delay < self.poll_interval else math.inf

    def polled(self, requests: int, now: float) -> None:
        """Record an extra poll: the next one is later, and sooner again if this one sees an end.

        :param requests: how many requests it takes.
        """
        self._polled_at, self._has_ended = now, False
        self._least_poll_delay = max(FIRST_POLL_DELAY, requests * SECONDS_PER_REQUEST)
        self._poll_delay = max(self._poll_delay * POLL_DELAY_GROWTH, self._least_poll_delay)

    def expect_ends(self, poll_interval: float | None) -> None:
        """Note how often the tasks of this triggerer are polled; None if it waits for none."""
        self.first_delay = max(FIRST_DELAY, min(INTERVALS * (poll_interval or 0.0), MAX_FIRST_DELAY))

    def refused(self, error: ModelArtsError, now: float) -> None:
        """Record a refusal that says "not now"; throttling delays the next attempt whether a place is free or not."""
        self._failures += 1
        if is_limit(error):
            self._fill(now)
            self._try_at = now + retry_delay(self._failures, error, self._random, self.first_delay)
        else:
            self._paused_until = now + retry_delay(self._failures, error, self._random)

    def accepted(self, now: float) -> None:
        """Record a submission: it takes a place that was known to be free, or shows that there are more."""
        if self.is_full and self.free:
            self._take_place(now)
        else:
            self.is_full, self._failures = False, 0

    def ended(self) -> None:
        """Record the end of a task of this triggerer: its place is free."""
        if not self._has_ended:
            self._has_ended = True
            self._poll_delay = max(self._poll_delay / POLL_DELAY_GROWTH**2, self._least_poll_delay)
        self.free += self.is_full

    def turn_given(self, now: float) -> None:
        """Record that a worker submits, of which the outcome is not known here."""
        if self.is_full and self.free:
            self._take_place(now)
        elif self.is_full:
            self._is_probing = True
            self._failures += 1
            self._try_at = now + self._delay()
        else:
            self._paused_until = now + TURN_DELAY

    def turn_accepted(self) -> None:
        """Record that a worker has submitted: if no place was known to be free, there may be more."""
        if self._is_probing or not self.is_full:
            self._is_probing = self.is_full = False
            self._failures = 0

    def turn_refused(self, error: ModelArtsError, now: float) -> None:
        """Record that a limit refused what a worker submitted in its turn."""
        self._failures += not self.is_full
        self._is_probing = False
        self._fill(now)
        self._try_at = now + self._delay(error)

    def _fill(self, now: float) -> None:
        if not self.is_full:
            self._polled_at = now
        self.is_full, self.free = True, 0

    def _take_place(self, now: float) -> None:
        self.free -= 1
        self._polled_at = now
        self._failures = 1
        self._try_at = now + self._delay()

    def _delay(self, error: ModelArtsError = _NO_ERROR) -> float:
        return retry_delay(max(self._failures, 1), error, self._random, self.first_delay)
