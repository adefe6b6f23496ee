"""Which refusals of a submission say "not now", and when to submit again. No clock and no random source in here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from airflow_modelarts.api.backoff import exponential_delay, with_jitter
from airflow_modelarts.api.error_codes import find_code
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsThrottledError
from airflow_modelarts.api.http import Flow, Sleep

#: Limits of the project: no other submission would be accepted either.
LIMIT_CODES = frozenset({"ModelArts.4409", "ModelArts.4616", "ModelArts.4992"})
#: Seconds before the second attempt; each refusal after it doubles them.
FIRST_DELAY = 1.0
#: Seconds; the longest delay between two attempts.
MAX_DELAY = 60.0
#: Seconds; the longest ``Retry-After`` that is honoured.
MAX_RETRY_AFTER = 300.0


def is_not_now(error: BaseException) -> bool:
    """Whether the same submission may be accepted later: a limit is reached, the service throttles, or has a fault."""
    return isinstance(error, ModelArtsError) and error.temporary


def is_limit(error: ModelArtsError) -> bool:
    """Whether a limit of the project is reached, so that a place becomes free when one of its tasks ends."""
    return error.error_code in LIMIT_CODES


def describe_refusal(error: ModelArtsError) -> str:
    """Return why there is no room, in a few words."""
    if found := find_code(error.error_code, error.http_status or 0):
        return found.meaning
    return "the service throttles requests" if isinstance(error, ModelArtsThrottledError) else "the service has a fault"


def retry_delay(
    failures: int, error: ModelArtsError, random: Callable[[], float], first_delay: float = FIRST_DELAY
) -> float:
    """Return the seconds to wait after some refusals in a row: twice as long each time, or as the service asks.

    :param failures: at least 1.
    :param random: draws from [0, 1).
    """
    delay = with_jitter(exponential_delay(first_delay, failures, MAX_DELAY), random, low=0.8, high=1.2)
    return max(delay, min(error.retry_after or 0.0, MAX_RETRY_AFTER))


def submit_when_there_is_room(
    submit: Callable[[], Flow[str]],
    random: Callable[[], float],
    on_refused: Callable[[ModelArtsError, float], None] = lambda error, delay: None,
    *,
    can_repeat: bool = True,
) -> Flow[str]:
    """Submit until the service no longer says "not now", and return the id.

    :param submit: one attempt, such as ``create_task`` with a :class:`Submission` whose ``waits`` is true.
    :param on_refused: called with each such refusal, and the seconds until the next attempt.
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
            delay = retry_delay(failures, error, random)
            on_refused(error, delay)
        yield Sleep(delay)
    raise AssertionError("unreachable")
