"""Limits the rate of the requests of one connection once the service throttles them.

The rate adapts: additive increase with each answer, multiplicative decrease with each throttled request.
"""

from __future__ import annotations

import copy
import math
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from airflow_modelarts.api.errors import ModelArtsError, ModelArtsThrottledError
from airflow_modelarts.api.http import Flow, Sleep

#: Factor of the rate after a throttled request.
DECREASE = 0.7
#: Increase of the rate with each answer, as a part of the rate after the last decrease. HTTP 503 can concern one task
#: only, so the rate recovers faster after it.
INCREASE = 0.03
INCREASE_UNAVAILABLE = 0.08
#: Above the throttled rate by this factor, the service evidently accepts more than before, so each answer multiplies
#: the rate.
PROBE_ABOVE = 1.5
PROBE_FACTOR = 1.1
#: The factor for the first rate until it is throttled: the first rate is estimated and can be far too low.
FIRST_PROBE_FACTOR = 1.3
#: Requests a second; the lowest rate after throttling, and after HTTP 503.
MIN_RATE = 0.1
MIN_RATE_UNAVAILABLE = 0.5
#: Seconds; clocks and sleeping are not more exact.
MIN_DELAY = 0.001
#: Seconds over which the rate of answers is measured.
MEASURED_SECONDS = 1.0
#: Seconds within which an answer proves that a throttling service works; fewer for HTTP 503, which reports an outage.
RECENT_SECONDS = 10.0
RECENT_SECONDS_UNAVAILABLE = 2.0
#: Seconds after the last decrease at which the limit ends.
UNLIMITED_AFTER = 300.0
#: Limiters that a process keeps.
MAX_CONNECTIONS = 256


@dataclass(frozen=True, slots=True)
class Turn:
    """The permission to send one request now.

    :param at: the time on the limiter's clock, in seconds.
    :param paced: whether the rate delayed the request, or would have if it had come a little earlier.
    """

    at: float
    paced: bool


class RateLimiter:
    """Limits the rate of the requests of one connection; they get their turns in the order in which they ask.

    Threads and event loops can share it: the lock is never held during a sleep.

    :param clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()  # the garbage collector can close a flow while this thread holds the lock
        self._waiting: list[object] = []
        #: Requests a second; infinite without a limit.
        self.rate = math.inf
        self._step = 0.0
        self._throttled_rate = 0.0
        self._decreased_at = -math.inf
        self._blocked_at = self._blocked_until = -math.inf
        self._next_turn = -math.inf
        self._last_turn = -math.inf
        self._answered_at = -math.inf
        self._answers: deque[float] = deque()  # times of the answers of the last seconds

    def copy(self) -> RateLimiter:
        """Return a limiter with the same rate and without waiting requests. Later changes are not shared.

        It takes no lock: a signal handler may call it while the interrupted code holds the lock.
        """
        other = copy.copy(self)
        other._lock, other._waiting, other._answers = threading.RLock(), [], deque()
        return other

    def wait(self, max_retry_after: float) -> Flow[Turn]:
        """Return this request's turn when it comes; a ``Retry-After`` of others counts up to the given seconds."""
        ticket, at, waited = object(), -math.inf, False
        with self._lock:
            self._waiting.append(ticket)
            longest_block = self._clock() + max_retry_after
        try:
            while True:
                with self._lock:
                    now = max(self._clock(), at)  # a sleep can end a little early
                    # A request ahead may have been abandoned, so each delays this one by one interval at most.
                    ahead = self._waiting.index(ticket)
                    at = max(now, self._next_turn + ahead / self.rate, min(self._blocked_until, longest_block))
                    if at - now < MIN_DELAY:
                        return self._take_turn(now, waited=waited)
                waited = True
                yield Sleep(at - now)
        finally:
            with self._lock:
                self._waiting.remove(ticket)

    def answered(self, turn: Turn) -> None:
        """Record that the service did not throttle a request."""
        with self._lock:
            now = self._answered_at = self._clock()
            self._answers.append(now)
            measured_rate = self._measured_rate(now)
            if turn.at > self._blocked_at:
                self._blocked_until = now
            if now - self._decreased_at > UNLIMITED_AFTER:
                self.rate, self._throttled_rate = math.inf, 0.0
            elif turn.paced and self.rate <= 2 * measured_rate:  # otherwise the rate was not used, so not tested
                self.rate += self._step
                if self.rate > PROBE_ABOVE * self._throttled_rate:
                    self.rate *= PROBE_FACTOR if self._throttled_rate else FIRST_PROBE_FACTOR

    def record_error(self, turn: Turn, error: ModelArtsError) -> bool:
        """Record an error; return whether it throttles this request. HTTP 503 does only while others are answered."""
        is_throttled = isinstance(error, ModelArtsThrottledError)
        if not is_throttled and error.http_status != 503:
            if error.http_status is not None and error.http_status < 500:
                self.answered(turn)
            return False
        recent = RECENT_SECONDS if is_throttled else RECENT_SECONDS_UNAVAILABLE
        with self._lock:
            now = self._clock()
            is_answering = now - self._answered_at <= max(recent, 2 / self.rate)
            if is_throttled and error.retry_after:
                self._blocked_at, self._blocked_until = now, max(self._blocked_until, now + error.retry_after)
            # If the service answers no request, it has an outage: the callers back off, and the rate is not the cause.
            if is_answering or (is_throttled and self.rate == math.inf):
                self._decrease(turn, now, is_throttled=is_throttled)
            return is_answering

    def _take_turn(self, now: float, *, waited: bool) -> Turn:
        paced = waited or now - self._last_turn < 2 / self.rate
        self._last_turn = now
        self._next_turn = max(self._next_turn, now) + 1 / self.rate
        return Turn(now, paced)

    def _decrease(self, turn: Turn, now: float, *, is_throttled: bool) -> None:
        if self.rate == math.inf:
            before = self._measured_rate(now)  # an estimate, probably too low
        elif turn.paced and turn.at > self._decreased_at:
            before = self._throttled_rate = min(self.rate, 2 * self._measured_rate(now))
        else:
            return  # sent before the last decrease, or too long after the others for the rate to be the cause
        slowest = MIN_RATE if is_throttled else MIN_RATE_UNAVAILABLE
        self.rate = min(self.rate, max(DECREASE * before, slowest))
        self._step = (INCREASE if is_throttled else INCREASE_UNAVAILABLE) * self.rate
        self._decreased_at = now
        self._next_turn = now + 1 / self.rate

    def _measured_rate(self, now: float) -> float:
        while self._answers and self._answers[0] < now - MEASURED_SECONDS:
            self._answers.popleft()
        return max(len(self._answers), 1) / MEASURED_SECONDS


class RateLimiters:
    """The limiters of a process, one for each connection.

    It takes no lock, so a signal handler may call it.

    :param clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._limiters: dict[Hashable, RateLimiter] = {}

    def find(self, key: Hashable) -> RateLimiter:
        """Return the limiter of a connection; equal keys have the same one."""
        limiter = self._limiters.setdefault(key, RateLimiter(self._clock))
        for oldest in list(self._limiters)[:-MAX_CONNECTIONS]:  # Airflow's connection form tests under random names
            self._limiters.pop(oldest, None)
        return limiter
