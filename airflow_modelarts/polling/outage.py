"""How a wait gets through an outage of the service: the delays between polls, and one log line each way."""

from __future__ import annotations

import random
from typing import Any

from airflow_modelarts.api.backoff import exponential_delay, with_jitter
from airflow_modelarts.api.errors import ModelArtsError

#: Seconds; delays grow up to this, or up to the poll interval if that is longer.
MAX_OUTAGE_DELAY = 300.0


def max_delay(interval: float) -> float:
    """Return the seconds up to which the delays of an outage grow."""
    return max(interval, MAX_OUTAGE_DELAY)


def backoff(interval: float, failures: int) -> float:
    """Return the seconds to wait after some failures in a row: twice as long each time."""
    return exponential_delay(interval, failures, max_delay(interval))


def retry_after(interval: float, error: ModelArtsError) -> float:
    """Return the seconds that the service asks to wait, up to the longest delay; 0 if it asks for none."""
    return min(error.retry_after or 0.0, max_delay(interval))


def backoff_with_jitter(interval: float, failures: int, error: ModelArtsError) -> float:
    """Return the backoff with jitter, or the seconds that the service asks for if they are more."""
    delay = with_jitter(backoff(interval, failures), random.random, low=0.8, high=1.2)
    return max(delay, retry_after(interval, error))


def log_outage_began(log: Any, error: ModelArtsError, what: str = "The wait") -> None:
    """Log the first error of an outage, and that ``what`` continues."""
    log.warning("%s %s goes on.", error, what)


def log_outage_ended(log: Any) -> None:
    """Log the first answer after an outage."""
    log.info("ModelArts answers again.")
