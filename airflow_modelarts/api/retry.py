"""One logical request: its attempts, the pauses between them, and the error it ends with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import TypeVar

from airflow_modelarts.api import errors
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsThrottledError
from airflow_modelarts.api.http import Flow, Request, Response, Sleep, TransportError, send
from airflow_modelarts.api.rate import RateLimiter, Turn

T = TypeVar("T")


class Idempotency(Enum):
    """When a request may be sent again."""

    #: Twice is as good as once: GET, PUT, DELETE and stop.
    ALWAYS = "always"
    #: Twice could be two paid jobs: only when the service certainly did not act on it.
    IF_NOT_DONE = "if not done"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    How patient one call is. Pauses grow exponentially with full jitter: each is drawn between 0 and its bound.

    :param attempts: how often a request is sent at most, the first time included.
    :param first_pause: the bound of the first pause, in seconds; it doubles with each attempt.
    :param longest_pause: where the bound stops growing, in seconds.
    :param longest_retry_after: the longest ``Retry-After`` that is honoured, in seconds.
    :param throttled_attempts: how often it is sent beyond ``attempts`` while the service throttles it, or is overloaded
        and answers other requests of the connection.
    """

    attempts: int = 5
    initial_delay: float = 1.0
    max_delay: float = 30.0
    max_retry_after: float = 60.0
    throttled_attempts: int = 0

    def pause(self, attempt: int, retry_after: float | None, random: Callable[[], float]) -> float:
        """Return the seconds to wait after the given attempt, counted from 1."""
        if retry_after is not None:
            return min(retry_after, self.max_retry_after)
        # The exponent is bounded because 2.0 ** 1024 overflows.
        return random() * min(self.max_delay, self.initial_delay * 2.0 ** min(attempt - 1, 60))


#: How patient a call is by default. Of 100 tasks that submit at once to a gateway that lets in two a second, each one
#: gets in.
DEFAULT_RETRIES = RetryPolicy(throttled_attempts=10)


@dataclass(frozen=True, slots=True)
class RetryingRequest:
    """
    What is to be known about a request beside its bytes.

    :param operation: the API operation's name, for errors.
    :param target: what it is about, for errors.
    :param address: scheme and host of the service, for errors.
    :param repeat: when it may be sent again.
    :param secrets: texts that no error may quote.
    :param retries: how patient to be.
    :param now: the clock, in seconds since the epoch.
    :param random: draws from [0, 1).
    :param may_have_happened: whether an earlier exchange for the same operation may have taken effect.
    :param unresolved: what an error says first where the address has a host name that does not exist.
    :param explain: returns the error of a refusal that means something special here; None leaves it to the usual table.
    :param limiter: paces the requests of the connection; None for a service that is asked too seldom.
    """

    operation: str
    target: str
    address: str
    idempotency: Idempotency
    secrets: Sequence[str]
    retries: RetryPolicy
    now: Callable[[], float]
    random: Callable[[], float]
    outcome_unknown: bool = False
    unresolved: str = ""
    explain: Callable[[Response], ModelArtsError | None] = lambda _: None
    limiter: RateLimiter | None = None

    def run(self, build: Callable[[], Request], parse: Callable[[Response], T]) -> Flow[T]:
        """
        Send a request until it is answered, and return the parsed answer.

        :param build: makes the request anew for each attempt, since a signature carries the time.
        :param parse: reads a successful answer; a ValueError says that it is not what it claims to be.
        :raises ModelArtsError: it was refused, or no attempt got a usable answer.
        """
        outcome_unknown = self.outcome_unknown
        attempt, throttled_attempts, paused = 1, self.retries.throttled_attempts, 0.0
        for sent in count(1):
            if attempt > self.retries.attempts:
                raise ValueError("Retries.attempts must be at least 1")
            turn, throttled = None, False
            if self.limiter is not None:
                turn = yield from self.limiter.wait(self.retries.max_retry_after - paused)
            try:
                return (yield from self._attempt(build(), parse, turn))
            except TransportError as fault:
                error, again = self._unanswered(fault), fault.kind not in ("certificate", "tls", "too_large")
                # A resolver can be wrong for a moment; what it says twice is so.
                again = again and (fault.kind not in ("name", "proxy") or attempt == 1)
            except ModelArtsError as refusal:
                error, again = refusal, refusal.temporary
                throttled = self._is_throttled(turn, refusal)
            certainly_not_done = not error.outcome_unknown
            outcome_unknown = error.outcome_unknown = outcome_unknown or error.outcome_unknown
            again = again and (certainly_not_done or self.idempotency is Idempotency.ALWAYS)
            if again and throttled and throttled_attempts > 0:
                throttled_attempts -= 1
                if not isinstance(error, ModelArtsThrottledError):  # HTTP 503 can be about this one task
                    throttled_attempts = min(throttled_attempts, 1)
                paused = error.retry_after or 0.0
                # Tasks that create at once, each in a process of its own, do not share the limiter's pace.
                if self.limiter is None or self.idempotency is Idempotency.IF_NOT_DONE:
                    paused = self.retries.pause(sent, error.retry_after, self.random)
            elif not again or attempt == self.retries.attempts:
                raise error from None
            else:
                paused = self.retries.pause(attempt, error.retry_after, self.random)
                attempt += 1
            yield Sleep(paused)
        raise AssertionError("unreachable")

    def _is_throttled(self, turn: Turn | None, error: ModelArtsError) -> bool:
        """Tell the limiter of an error; return whether the request may be sent again soon."""
        if self.limiter is None or turn is None:
            throttled = isinstance(error, ModelArtsThrottledError)
        else:
            throttled = self.limiter.refused(turn, error)
        return throttled and (error.retry_after or 0.0) <= self.retries.max_retry_after

    def _attempt(self, request: Request, parse: Callable[[Response], T], turn: Turn | None) -> Flow[T]:
        response = yield from send(request)
        if response.status == 400 and self.address.startswith("http:") and errors.wants_tls(response):
            raise self._unanswered(TransportError("it wants https", kind="tls", sent=False))
        if not 200 <= response.status < 300:
            raise self.explain(response) or errors.from_response(
                response, operation=self.operation, target=self.target, secrets=self.secrets, now=self.now()
            )
        try:
            answer = parse(response)
        except ValueError as reason:  # its text quotes the answer, so it goes no further than here
            raise errors.unreadable(
                response, operation=self.operation, target=self.target, secrets=self.secrets, reason=reason
            ) from None
        if self.limiter is not None and turn is not None:
            self.limiter.answered(turn)
        return answer

    def _unanswered(self, fault: TransportError) -> ModelArtsError:
        return errors.from_transport(
            fault, operation=self.operation, target=self.target, address=self.address, unresolved=self.unresolved
        )
