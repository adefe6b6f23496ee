"""One logical request: its attempts, the delays between them, and the error it ends with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import TypeVar

from airflow_modelarts.api import error_mapping
from airflow_modelarts.api.backoff import exponential_delay, with_jitter
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsThrottledError
from airflow_modelarts.api.http import Flow, Request, Response, Sleep, TransportError, send
from airflow_modelarts.api.rate import RateLimiter, Turn

T = TypeVar("T")


class Idempotency(Enum):
    """When a request may be repeated."""

    #: Always: repeating it has no further effect, as with GET, PUT, DELETE and stop.
    ALWAYS = "always"
    #: Only if the service certainly did not act on it: a second effect could be a second paid job.
    IF_NOT_DONE = "if not done"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The attempts of one call and the delays between them: exponential backoff with full jitter.

    :param attempts: how often a request is sent at most, the first time included.
    :param initial_delay: the longest first delay, in seconds; it doubles with each attempt.
    :param max_delay: the longest delay, in seconds.
    :param max_retry_after: the longest ``Retry-After`` that is honoured, in seconds.
    :param throttled_attempts: further attempts while the service throttles the request, or answers it with HTTP 503
        while it answers other requests of the connection.
    :param raised: temporary errors that end the call at once, for a caller that waits longer than a call does.
    """

    attempts: int = 5
    initial_delay: float = 1.0
    max_delay: float = 30.0
    max_retry_after: float = 60.0
    throttled_attempts: int = 0
    raised: tuple[type[ModelArtsError], ...] = ()

    def delay(self, attempt: int, retry_after: float | None, random: Callable[[], float]) -> float:
        """Return the seconds to wait after the given attempt, counted from 1."""
        if retry_after is not None:
            return min(retry_after, self.max_retry_after)
        return with_jitter(exponential_delay(self.initial_delay, attempt, self.max_delay), random)


#: The default. If 100 tasks create at once through a gateway that accepts two requests a second, each one succeeds.
DEFAULT_RETRIES = RetryPolicy(throttled_attempts=10)


@dataclass(frozen=True, slots=True)
class RetryingRequest:
    """One logical request: retry policy, texts to redact, and context for errors.

    :param operation: the API operation's name, for errors, as are its object in ``target`` and the service's address.
    :param address: scheme and host.
    :param secrets: texts that no error may quote.
    :param now: the clock, in seconds since the epoch.
    :param random: draws from [0, 1).
    :param outcome_unknown: whether an earlier request for the same operation may have taken effect.
    :param unresolved: begins the error if the host name does not exist.
    :param explain: returns the error of an answer with a special meaning; None for the usual one.
    :param limiter: paces the requests of the connection; None for no limit.
    :param suspect: what to check if an outage lasts.
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
    suspect: str = error_mapping.CONNECTION_HOST

    def run(self, build: Callable[[], Request], parse: Callable[[Response], T]) -> Flow[T]:
        """Send a request until it succeeds or the retry policy ends, and return the parsed answer.

        :param build: builds the request for each attempt anew, since a signature contains the time.
        :param parse: reads a successful answer, or raises ValueError.
        :raises ModelArtsError: the service refused the request, or no attempt returned a usable answer.
        """
        if self.retries.attempts < 1:
            raise ValueError("RetryPolicy.attempts must be at least 1")
        outcome_unknown = self.outcome_unknown
        attempt, throttled_attempts, delay = 1, self.retries.throttled_attempts, 0.0
        for sent in count(1):
            turn, throttled = None, False
            if self.limiter is not None:
                turn = yield from self.limiter.wait(self.retries.max_retry_after - delay)
            try:
                return (yield from self._attempt(build(), parse, turn))
            except TransportError as fault:
                error = self._unanswered(fault)
                # A resolver can fail once; the second failure counts.
                may_recover = attempt == 1 if fault.kind in ("name", "proxy") else self._may_repeat(error)
            except ModelArtsError as refusal:
                error, may_recover = refusal, self._may_repeat(refusal)
                throttled = self._is_throttled(turn, refusal)
            may_repeat = may_recover and (self.idempotency is Idempotency.ALWAYS or not error.outcome_unknown)
            outcome_unknown = error.outcome_unknown = outcome_unknown or error.outcome_unknown
            if may_repeat and throttled and throttled_attempts > 0:
                throttled_attempts -= 1
                if not isinstance(error, ModelArtsThrottledError):  # HTTP 503 can concern this one task only
                    throttled_attempts = min(throttled_attempts, 1)
                delay = error.retry_after or 0.0
                # Tasks that create at the same time run in processes of their own, so they share no limiter.
                if self.limiter is None or self.idempotency is Idempotency.IF_NOT_DONE:
                    delay = self.retries.delay(sent, error.retry_after, self.random)
            elif may_repeat and attempt < self.retries.attempts:
                delay = self.retries.delay(attempt, error.retry_after, self.random)
                attempt += 1
            else:
                raise error from None
            yield Sleep(delay)
        raise AssertionError("unreachable")

    def _may_repeat(self, error: ModelArtsError) -> bool:
        return error.temporary and not isinstance(error, self.retries.raised)

    def _is_throttled(self, turn: Turn | None, error: ModelArtsError) -> bool:
        """Report an error to the limiter; return whether throttling alone delays the request, and not for too long."""
        if self.limiter is None or turn is None:
            throttled = isinstance(error, ModelArtsThrottledError)
        else:
            throttled = self.limiter.record_error(turn, error)
        return throttled and (error.retry_after or 0.0) <= self.retries.max_retry_after

    def _attempt(self, request: Request, parse: Callable[[Response], T], turn: Turn | None) -> Flow[T]:
        response = yield from send(request)
        if response.status == 400 and self.address.startswith("http:") and error_mapping.wants_tls(response):
            raise self._unanswered(TransportError("it wants https", kind="tls", sent=False))
        if not 200 <= response.status < 300:
            raise self.explain(response) or error_mapping.from_response(
                response, operation=self.operation, target=self.target, secrets=self.secrets, now=self.now()
            )
        try:
            answer = parse(response)
        except ValueError as reason:  # its text quotes the answer, so it is not chained
            raise error_mapping.unreadable(
                response,
                operation=self.operation,
                target=self.target,
                secrets=self.secrets,
                reason=reason,
                suspect=self.suspect,
            ) from None
        if self.limiter is not None and turn is not None:
            self.limiter.answered(turn)
        return answer

    def _unanswered(self, fault: TransportError) -> ModelArtsError:
        return error_mapping.from_transport(
            fault,
            operation=self.operation,
            target=self.target,
            address=self.address,
            unresolved=self.unresolved,
            suspect=self.suspect,
        )
