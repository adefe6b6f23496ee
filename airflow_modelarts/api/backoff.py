"""Exponential backoff with jitter: the one formula behind the retries of a call and the polls of a wait."""

from __future__ import annotations

from collections.abc import Callable

#: Bounds the exponent, because ``2.0 ** 1024`` overflows.
MAX_DOUBLINGS = 60


def exponential_delay(initial_delay: float, failures: int, max_delay: float) -> float:
    """Return the delay after a number of failures in a row, in seconds.

    :param initial_delay: the delay after the first failure, in seconds; each further failure doubles it.
    :param failures: how many requests have failed in a row, at least 1.
    :param max_delay: the longest delay, in seconds.
    """
    return min(max_delay, initial_delay * 2.0 ** min(failures - 1, MAX_DOUBLINGS))


def with_jitter(delay: float, random: Callable[[], float], *, low: float = 0.0, high: float = 1.0) -> float:
    """Return ``low`` to ``high`` times a delay, by default 0 to once; ``random`` draws from [0, 1)."""
    return delay * (low + (high - low) * random())
