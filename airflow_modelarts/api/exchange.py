"""One logical request: its attempts, the pauses between them, and the error it ends with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import TypeVar

from airflow_modelarts.api import errors
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsThrottledError
from airflow_modelarts.api.transport import Flow, Pause, Request, Response, TransportError, send

T = TypeVar("T")


class Repeat(Enum):
    """When a request may be sent again."""

    #: Twice is as good as once: GET, PUT, DELETE and stop.
    ALWAYS = "always"
    #: Twice could be two paid jobs: only when the service certainly did not act on it.
    IF_NOT_DONE = "if not done"


@dataclass(frozen=True, slots=True)
class Retries:
    """
    How patient one call is. Pauses grow exponentially with full jitter: each is drawn between 0 and its bound.

    :param attempts: how often a request is sent at most, the first time included.
    :param first_pause: the bound of the first pause, in seconds; it doubles with each attempt.
    :param longest_pause: where the bound stops growing, in seconds.
    :param longest_retry_after: the longest ``Retry-After`` that is honoured, in seconds.
    :param throttled_attempts: how often a request that creates something is sent at most while the service throttles
        it; other failures count by ``attempts``. By default that is the bound of both.
    """

    attempts: int = 5
    first_pause: float = 1.0
    longest_pause: float = 30.0
    longest_retry_after: float = 60.0
    throttled_attempts: int | None = None

    def pause(self, attempt: int, retry_after: float | None, random: Callable[[], float]) -> float:
        """Return the seconds to wait after the given attempt, counted from 1."""
        if retry_after is not None:
            return min(retry_after, self.longest_retry_after)
        # The exponent is bounded because 2.0 ** 1024 overflows.
        return random() * min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 60))


#: How patient a call is by default. Of 100 tasks that submit at once to a gateway that lets in two a second, each one
#: gets in; whoever waits for a task asks again anyway, but nobody repeats a creation that has failed.
DEFAULT_RETRIES = Retries(throttled_attempts=15)


@dataclass(frozen=True, slots=True)
class Exchange:
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
    """

    operation: str
    target: str
    address: str
    repeat: Repeat
    secrets: Sequence[str]
    retries: Retries
    now: Callable[[], float]
    random: Callable[[], float]
    may_have_happened: bool = False

    def run(self, build: Callable[[], Request], parse: Callable[[Response], T]) -> Flow[T]:
        """
        Send a request until it is answered, and return the parsed answer.

        :param build: makes the request anew for each attempt, since a signature carries the time.
        :param parse: reads a successful answer; a ValueError says that it is not what it claims to be.
        :raises ModelArtsError: it was refused, or no attempt got a usable answer.
        """
        may_have_happened = self.may_have_happened
        left = self.retries.attempts
        left_throttled = self.retries.throttled_attempts if self.repeat is Repeat.IF_NOT_DONE else None
        for attempt in count(1):
            if left < 1:
                raise ValueError("Retries.attempts must be at least 1")
            try:
                return (yield from self._attempt(build(), parse))
            except TransportError as fault:
                error, again = self._unanswered(fault), fault.kind not in ("certificate", "too_large")
            except ModelArtsError as refusal:
                error, again = refusal, refusal.temporary
            certainly_not_done = not error.outcome_unknown
            may_have_happened = error.outcome_unknown = may_have_happened or error.outcome_unknown
            if left_throttled is not None and isinstance(error, ModelArtsThrottledError):
                left_throttled -= 1
                is_last = left_throttled < 1
            else:
                left -= 1
                is_last = left < 1
            if is_last or not (again and (certainly_not_done or self.repeat is Repeat.ALWAYS)):
                raise error from None
            yield Pause(self.retries.pause(attempt, error.retry_after, self.random))
        raise AssertionError("unreachable")

    def _attempt(self, request: Request, parse: Callable[[Response], T]) -> Flow[T]:
        response = yield from send(request)
        if not 200 <= response.status < 300:
            raise errors.from_response(
                response, operation=self.operation, target=self.target, secrets=self.secrets, now=self.now()
            )
        try:
            return parse(response)
        except ValueError as reason:  # its text quotes the answer, so it goes no further than here
            raise errors.unreadable(
                response, operation=self.operation, target=self.target, secrets=self.secrets, reason=reason
            ) from None

    def _unanswered(self, fault: TransportError) -> ModelArtsError:
        return errors.from_transport(fault, operation=self.operation, target=self.target, address=self.address)
