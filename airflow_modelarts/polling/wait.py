"""One wait in the triggerer: its target, when it is due, and the events for its trigger. It sends no requests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.statuses import TERMINAL_STATUSES
from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling.inbox import Inbox
from airflow_modelarts.polling.outage import backoff_with_jitter, retry_after

#: The workspace of a task whose workspace is not known yet.
DEFAULT_WORKSPACE = "0"
#: Seconds, at most, until a throttled request is repeated, if other requests of its round were answered.
THROTTLED_DELAY = 10.0


@dataclass(frozen=True, slots=True)
class Changed:
    """The status is another than before."""

    status: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The target has reached a terminal status. The last event of a wait."""

    status: int


@dataclass(frozen=True, slots=True)
class OutageBegan:
    """The status cannot be read for now; the wait goes on."""

    error: ModelArtsError


@dataclass(frozen=True, slots=True)
class OutageEnded:
    """The status can be read again."""


WaitEvent: TypeAlias = Changed | Ended | OutageBegan | OutageEnded


@dataclass(slots=True, eq=False)
class Wait(Inbox[WaitEvent]):
    """One wait for one target. Its events end with ``Ended``, or with an error that says what to change.

    :param interval: seconds between two polls of the target, at most.
    :param due: when to poll next, by the event loop's clock; ``join`` of the watcher sets it.
    :param workspace_id: the workspace whose lists may contain the target; corrected by the first answer by id.
    :param status: the latest one; None before the first answer.
    :param not_before: until when the service has asked not to poll, or an error asks for a pause.
    :param failures: how many polls of this target alone have failed in a row.
    :param is_over: whether it has ended or failed, so that no further poll is needed.
    """

    target: Target
    interval: float
    due: float = math.inf
    workspace_id: str = DEFAULT_WORKSPACE
    status: int | None = None
    not_before: float = -math.inf
    failures: int = 0
    is_over: bool = False
    _in_outage: bool = False

    def observe(self, status: int | None, now: float) -> None:
        """Record a status that the service answered."""
        self.due = now + self.interval
        self.failures = 0
        self.end_outage()
        if status in TERMINAL_STATUSES:
            self.is_over = True
            self.emit(Ended(int(status)))
        elif status != self.status:
            self.emit(Changed(status))
        self.status = status

    def poll_at(self, at: float) -> None:
        """Poll at this time if that is sooner, and if no pause is longer."""
        self.due = min(self.due, max(at, self.not_before))

    def postpone(self, error: ModelArtsError, now: float) -> None:
        """Record a temporary error of this target alone, and poll it later each time."""
        self.failures += 1
        self.begin_outage(error)
        self.due = self.not_before = now + backoff_with_jitter(self.interval, self.failures, error)

    def postpone_throttled(self, error: ModelArtsError, now: float) -> None:
        """Poll again soon, without an outage: the service throttled this request, and may have answered others."""
        self.due = self.not_before = now + max(min(self.interval, THROTTLED_DELAY), retry_after(self.interval, error))

    def fail(self, error: BaseException) -> None:
        """End the wait with an error, after the events that were emitted before."""
        self.is_over = True
        Inbox.fail(self, error)  # ``super()`` does not work in a class with slots

    def begin_outage(self, error: ModelArtsError) -> None:
        """Emit the beginning of an outage, unless one has begun."""
        if not self._in_outage:
            self._in_outage = True
            self.emit(OutageBegan(error))

    def end_outage(self) -> None:
        """Emit the end of an outage, if one has begun and this target itself can be read."""
        if self._in_outage and not self.failures:
            self._in_outage = False
            self.emit(OutageEnded())
