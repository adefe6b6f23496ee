"""The poll loop of a worker: it blocks, and temporary API errors do not end the wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.statuses import status_name
from airflow_modelarts.polling.outage import backoff, log_outage_began, log_outage_ended, retry_after

if TYPE_CHECKING:
    from airflow_modelarts.api.models import HasStatus


S = TypeVar("S", bound="HasStatus")


class StatusPoller(Generic[S]):
    """Polls a processing task or a version, and logs each change of its status.

    :param what: its name in the log, for example ``Processing task 'abc'``.
    :param read: reads it once.
    :param log: the operator's logger.
    :param known_status: a status that is in the log already; default None for none.
    """

    def __init__(self, what: str, read: Callable[[], S], log: Any, known_status: int | None = None) -> None:
        self._what = what
        self._read = read
        self._log = log
        self._last_status: int | None = -1 if known_status is None else known_status  # -1: nothing logged yet
        self._outage: ModelArtsError | None = None
        self._failures = 0

    def poll(self) -> S | None:
        """Read it once; None if a temporary error prevents that. Errors that waiting cannot end are raised."""
        try:
            latest = self._read()
        except ModelArtsError as error:
            if not error.temporary:
                raise
            if self._outage is None:
                log_outage_began(self._log, error)
            self._outage = error
            self._failures += 1
            return None
        if self._outage is not None:
            log_outage_ended(self._log)
            self._outage, self._failures = None, 0
        if latest.status != self._last_status:
            self._last_status = latest.status
            self._log.info("%s is %s.", self._what, status_name(latest.status))
        return latest

    def pause(self, interval: float) -> float:
        """Return the seconds until the next poll: during an outage more than the interval."""
        if self._outage is None:
            return interval
        return max(backoff(interval, self._failures), retry_after(interval, self._outage))

    def until(self, is_enough: Callable[[S], bool], interval: float) -> S:
        """Poll each ``interval`` seconds until ``is_enough`` returns true; return that answer. Wait outages out."""
        while True:
            latest = self.poll()
            if latest is not None and is_enough(latest):
                return latest
            time.sleep(self.pause(interval))
