"""
How a worker waits: one look after another, through whatever is no verdict on the processing task.

How the pauses of an outage grow is here for triggerers too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from airflow_modelarts.api.statuses import status_name

if TYPE_CHECKING:
    from airflow_modelarts.api.errors import ModelArtsError

#: Seconds; where the pauses of an outage stop growing, unless the interval is longer.
MAX_OUTAGE_DELAY = 300.0


def max_delay(interval: float) -> float:
    """Return the seconds after which a pause stops growing."""
    return max(interval, MAX_OUTAGE_DELAY)


def backoff(interval: float, failures: int) -> float:
    """Return the seconds to wait after some failures in a row: twice as long each time."""
    # The exponent is bounded because 2.0 ** 1024 overflows.
    return min(interval * 2.0 ** min(failures - 1, 60), max_delay(interval))


class HasStatus(Protocol):
    """A processing task, or a version of one."""

    @property
    def status(self) -> int | None:
        """The status, see :class:`~airflow_modelarts.api.statuses.ProcessorTaskStatus`."""

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""


Seen = TypeVar("Seen", bound=HasStatus)


class StatusPoller(Generic[Seen]):
    """
    Looks at a processing task or a version, and logs what changes.

    :param what: what it looks at, for the log; for example ``processing task 'abc'``.
    :param read: reads it once.
    :param log: the operator's logger.
    """

    def __init__(self, what: str, read: Callable[[], Seen], log: Any) -> None:
        self._what = what
        self._read = read
        self._log = log
        self._last_status: int | None = -1  # unlike anything that was seen
        self._outage: ModelArtsError | None = None
        self._failures = 0

    def poll(self) -> Seen | None:
        """
        Read it once; None while nobody can tell how it is.

        :raises ModelArtsError: waiting longer makes no sense; the message says what to change.
        """
        from airflow_modelarts.api.errors import ModelArtsError

        try:
            seen = self._read()
        except ModelArtsError as error:
            if not error.temporary:
                raise
            if self._outage is None:
                self._log.warning("%s The wait goes on.", error)
            self._outage = error
            self._failures += 1
            return None
        if self._outage is not None:
            self._log.info("ModelArts answers again.")
            self._outage, self._failures = None, 0
        if seen.status != self._last_status:
            self._last_status = seen.status
            self._log.info("%s is %s.", self._what, status_name(seen.status))
        return seen

    def pause(self, interval: float) -> float:
        """Return the seconds to the next look: longer during an outage, and as long as the service asks for."""
        if self._outage is None:
            return interval
        asked_for = min(self._outage.retry_after or 0.0, max_delay(interval))
        return max(backoff(interval, self._failures), asked_for)

    def until(self, is_enough: Callable[[Seen], bool], interval: float) -> Seen:
        """
        Look until what is seen is enough, and return it; outages are waited out.

        :param interval: seconds between two looks.
        :raises ModelArtsError: waiting longer makes no sense; the message says what to change.
        """
        while True:
            seen = self.poll()
            if seen is not None and is_enough(seen):
                return seen
            time.sleep(self.pause(interval))
