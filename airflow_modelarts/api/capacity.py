"""Which refusals of a submission say "not now", when to submit again, and what the log says meanwhile.

No clock and no random source in here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from airflow_modelarts.api import errors
from airflow_modelarts.api.backoff import exponential_delay, with_jitter
from airflow_modelarts.api.error_codes import find_code
from airflow_modelarts.api.errors import (
    ModelArtsBusyError,
    ModelArtsError,
    ModelArtsThrottledError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.http import Flow, Sleep
from airflow_modelarts.api.retry import RetryPolicy

#: Limits of the project: no other submission would be accepted either.
LIMIT_CODES = frozenset({"ModelArts.4409", "ModelArts.4616", "ModelArts.4992"})
#: Seconds before the second attempt; each refusal after it doubles them.
FIRST_DELAY = 1.0
#: Seconds; the longest delay between two attempts.
MAX_DELAY = 60.0
#: Seconds; the longest ``Retry-After`` that is honoured.
MAX_RETRY_AFTER = 300.0
#: Seconds of one sleep, at most: Airflow grants five to a task that it kills.
MAX_SLEEP = 1.0
#: Seconds until the second line of the log; each line after it doubles them, up to the longest.
FIRST_REPEAT = 60.0
MAX_REPEAT = 3600.0

#: What is stored of a refusal beside its class and its message.
_STORED = ("error_code", "http_status", "request_id", "retry_after", "outcome_unknown")

#: Of a submission that waits for capacity: a refusal is raised at once, since the caller counts it and waits.
ONE_ATTEMPT = RetryPolicy(attempts=2, raised=(ModelArtsBusyError, ModelArtsThrottledError, ModelArtsTransientError))


def without_waiting(retries: RetryPolicy) -> RetryPolicy:
    """Return the retry policy of a submission that does not wait for capacity: a limit fails it at once."""
    return replace(retries, raised=(ModelArtsBusyError,))


def is_not_now(error: BaseException) -> bool:
    """Whether the same submission may be accepted later: a limit is reached, the service throttles, or has a fault."""
    return isinstance(error, ModelArtsError) and error.temporary


def is_limit(error: ModelArtsError) -> bool:
    """Whether a limit of the project is reached, so that a place becomes free when one of its tasks ends."""
    return isinstance(error, ModelArtsBusyError) and error.error_code in LIMIT_CODES


def describe_refusal(error: ModelArtsError) -> str:
    """Return why there is no room, in a few words: a limit, throttling, or an outage."""
    if isinstance(error, ModelArtsBusyError | ModelArtsThrottledError):
        found = find_code(error.error_code, error.http_status or 0)
        return found.meaning if found else f"the service throttles requests (HTTP {error.http_status})"
    if error.http_status is None:
        return "the service does not answer"
    if error.http_status < 300:
        return "the service returned an unexpected body"
    return f"the service has a fault (HTTP {error.http_status})"


def dump_refusal(error: ModelArtsError) -> dict[str, Any]:
    """Return a refusal as JSON, for a trigger's row or event."""
    return {
        "error": str(error),
        "error_class": type(error).__name__,
        **{name: getattr(error, name) for name in _STORED},
    }


def load_refusal(stored: Mapping[str, Any]) -> ModelArtsError:
    """Return the refusal that :func:`dump_refusal` made JSON of."""
    kind: Any = getattr(errors, stored["error_class"], ModelArtsError)
    error: ModelArtsError = kind(stored["error"], **{name: stored.get(name) for name in _STORED})
    return error


def add_advice(error: ModelArtsError, *, waits: bool, can_repeat: bool) -> None:
    """Add to the message of a refusal that says "not now" what the operator's user can set.

    :param waits: ``wait_for_capacity``.
    :param can_repeat: whether the service refuses the same submission twice.
    """
    advice = ""
    if error.outcome_unknown and not can_repeat:
        advice = "No version has appeared so far. Set retries: the next try looks for it, and submits if there is none."
    elif not waits:
        until = "there is room" if is_limit(error) else "the service accepts it"
        advice = f"Set wait_for_capacity=True to wait until {until}."
    error.args = (f"{error} {advice}".rstrip(),)


def retry_delay(
    failures: int, error: ModelArtsError, random: Callable[[], float], first_delay: float = FIRST_DELAY
) -> float:
    """Return the seconds to wait after some refusals in a row: twice as long each time, or as the service asks.

    :param failures: at least 1.
    :param random: draws from [0, 1).
    """
    delay = with_jitter(exponential_delay(first_delay, failures, MAX_DELAY), random, low=0.8, high=1.2)
    return max(delay, _retry_after(error))


def _retry_after(error: ModelArtsError) -> float:
    return min(error.retry_after or 0.0, MAX_RETRY_AFTER)


class CapacityLog:
    """Logs why a submission waits: once, then at intervals that double, and when the service has accepted it.

    :param log: a logger.
    :param clock: seconds, monotonic.
    """

    def __init__(self, log: Any, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._began = self._next = clock()
        self._lines = 0

    def refused(self, error: ModelArtsError) -> None:
        """Record a refusal."""
        now = self._clock()
        if now < self._next:
            return
        waited = f"; {now - self._began:.0f} s so far" if self._lines else ""
        self._log.info("waiting for capacity: %s%s", describe_refusal(error), waited)
        self._lines += 1
        self._next = now + exponential_delay(FIRST_REPEAT, self._lines, MAX_REPEAT)

    def submitted(self) -> float:
        """Record that the service has accepted it; return the seconds that it waited, 0 without a refusal."""
        if not self._lines:
            return 0.0
        waited = self._clock() - self._began
        self._log.info("waited %.1f s for capacity; the service has accepted the submission", waited)
        return waited


def submit_when_there_is_room(
    submit: Callable[[], Flow[str]],
    random: Callable[[], float],
    on_refused: Callable[[ModelArtsError], None] = lambda error: None,
    *,
    is_killed: Callable[[], bool] = lambda: False,
    can_repeat: bool = True,
) -> Flow[str]:
    """Submit until the service no longer says "not now", and return the id.

    Many workers wait at the same time, and none knows of the others. So the delays differ by half of their length, and
    are added to what the service asks for.

    :param submit: one attempt, such as ``create_task`` with a :class:`Submission` whose ``waits`` is true. Once the
        caller is killed, it raises.
    :param random: draws from [0, 1).
    :param on_refused: called with each such refusal.
    :param is_killed: returns whether the caller has been killed, which ends a delay.
    :param can_repeat: whether the service refuses the same submission twice. Otherwise an attempt whose outcome is
        unknown is the last one.
    :raises ModelArtsError: it was refused for good.
    """
    for failures in count(1):
        try:
            return (yield from submit())
        except ModelArtsError as error:
            if not is_not_now(error) or (error.outcome_unknown and not can_repeat):
                raise
            on_refused(error)
            delay = exponential_delay(FIRST_DELAY, failures, MAX_DELAY)
            remaining = _retry_after(error) + with_jitter(delay, random, low=0.5, high=1.5)
        while remaining > 0 and not is_killed():
            yield Sleep(min(remaining, MAX_SLEEP))
            remaining -= MAX_SLEEP
    raise AssertionError("unreachable")
