"""How a wait gets through an outage of the service: the delays between polls, and one log line each way."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

from airflow_modelarts.api.backoff import exponential_delay, with_jitter
from airflow_modelarts.api.errors import ModelArtsError

#: Seconds until the second line of an outage that lasts; the intervals then double up to the longest.
FIRST_REPEAT = 60.0
MAX_REPEAT = 3600.0
#: Seconds; delays grow up to this, or up to the poll interval if that is longer.
MAX_OUTAGE_DELAY = 300.0


def max_delay(interval: float) -> float:
    """Return the seconds up to which the delays of an outage grow."""
    return max(interval, MAX_OUTAGE_DELAY)


def backoff(interval: float, failures: int) -> float:
    """Return the seconds to wait after some failures in a row: twice as long each time."""
    return exponential_delay(interval, failures, max_delay(interval))


def retry_after(interval: float, error: Exception) -> float:
    """Return the seconds that the service asks to wait, up to the longest delay; 0 if it asks for none."""
    return min(getattr(error, "retry_after", None) or 0.0, max_delay(interval))


def backoff_with_jitter(interval: float, failures: int, error: Exception) -> float:
    """Return the backoff with jitter, or the seconds that the service asks for if they are more."""
    delay = with_jitter(backoff(interval, failures), random.random, low=0.8, high=1.2)
    return max(delay, retry_after(interval, error))


class OutageLog:
    """Logs an outage that lasts: its first error, then errors at intervals that double up to an hour, then its end.

    :param log: a logger.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._what = ""
        self._began: float | None = None
        self._next = 0.0
        self._interval = 0.0

    def failed(self, what: str, error: BaseException) -> bool:
        """Record an error; return whether a line was logged.

        :param what: begins the line; it says what fails.
        """
        self._what = what
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began, self._next, self._interval = now, now, FIRST_REPEAT
        if now < self._next:
            return False
        lasted = "" if now == self._began else f" This has lasted for {timedelta(seconds=round(now - self._began))}."
        self._log.warning("%s: %s%s It is tried again.", self._what, describe_error(error), lasted)
        self._next, self._interval = now + self._interval, min(2 * self._interval, MAX_REPEAT)
        return True

    def ended(self) -> bool:
        """Record a success; return whether it ended an outage."""
        if self._began is None:
            return False
        lasted = timedelta(seconds=round(asyncio.get_running_loop().time() - self._began))
        self._began = None
        self._log.info("%s: works again after %s.", self._what, lasted)
        return True


def describe_error(error: BaseException) -> str:
    """Return a sentence about an error; its class too if it is not one of this package."""
    return str(error) if isinstance(error, ModelArtsError) else f"{type(error).__name__}: {error}."


def log_outage_began(log: Any, error: ModelArtsError) -> None:
    """Log the first error of an outage, and that the wait continues."""
    log.warning("%s The wait goes on.", error)


def log_outage_ended(log: Any) -> None:
    """Log the first answer after an outage."""
    log.info("ModelArts answers again.")
