"""Which requests a round of the watcher needs, given what is known. No requests, no event loop and no clock in here.

1. ``plan_round`` selects the targets that are due, and the workspaces whose lists of active tasks may contain them.
2. ``ListHistory`` decides whether reading a list takes fewer requests than reading its targets by id.
3. ``DescribeQueue`` holds the targets that are read by id: their order, repetitions, and what their errors mean.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict, deque
from collections.abc import Container, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from airflow_modelarts.api.backoff import with_jitter
from airflow_modelarts.api.errors import (
    ModelArtsAuthenticationError,
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsNotFoundError,
    ModelArtsRequestError,
    ModelArtsThrottledError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.operations import MAX_PAGE_SIZE
from airflow_modelarts.api.statuses import ProcessorTaskStatus
from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling.outage import backoff_with_jitter
from airflow_modelarts.polling.wait import Wait

#: The lists that are read, in this order: a task that starts between the two is in neither, and is then read by id.
ACTIVE = (ProcessorTaskStatus.RUNNING, ProcessorTaskStatus.INITIALIZED)
#: Requests under way at once.
CONCURRENCY = 8
#: Seconds until forbidden lists are read again: the permission may have been granted.
FORBIDDEN_LIST_DELAY = 3600.0
#: Seconds, at most, before the second try of lists that failed once; a fifth of a shorter interval.
SECOND_TRY_DELAY = 1.0


@dataclass(slots=True)
class Round:
    """The targets that one round polls.

    :param due: the waits that are due.
    :param missing: by workspace, the tasks that no list has shown as active so far.
    :param failing: targets whose latest poll by id failed.
    """

    due: list[Wait] = field(default_factory=list)
    missing: defaultdict[str, set[Target]] = field(default_factory=lambda: defaultdict(set))
    failing: set[Target] = field(default_factory=set)

    def by_id(self) -> list[Target]:
        """Return the targets to read by id, the longest due first, so that a throttling service starves none."""
        missing = set().union(*self.missing.values())
        since: dict[Target, float] = {}
        for wait in self.due:
            if wait.target.task_version_id is not None or wait.target in missing:
                since[wait.target] = min(wait.due, since.get(wait.target, math.inf))
        return sorted(since, key=since.__getitem__)


def plan_round(waits: Iterable[Wait], now: float) -> Round:
    """Select the waits that are due, or will be within half their interval, so that waits keep to common rounds."""
    plan = Round()
    for wait in waits:
        if wait.failures:
            plan.failing.add(wait.target)
        if wait.due <= now + wait.interval / 2:
            plan.due.append(wait)
            if wait.target.task_version_id is None:  # the lists of tasks do not show versions
                plan.missing[wait.workspace_id].add(wait.target)
    return plan


@dataclass(slots=True)
class ListHistory:
    """What earlier rounds learned about the lists of active tasks of one workspace.

    :param pages: how many pages each list had.
    :param failures: how many rounds in a row could not read the lists.
    :param skip_until: when to read them again, by the event loop's clock.
    """

    pages: dict[ProcessorTaskStatus, int] = field(default_factory=lambda: dict.fromkeys(ACTIVE, 1))
    failures: int = 0
    skip_until: float = -math.inf

    def is_worth_reading(self, status: ProcessorTaskStatus, missing: int, read: int = 0) -> bool:
        """Return whether the remaining pages of this list and of those after it are fewer than the missing targets.

        :param missing: how many targets would have to be read by id.
        :param read: how many pages of this list have been read in this round.
        """
        remaining = max(self.pages[status] - read, 0 if read else 1)
        later = ACTIVE[ACTIVE.index(status) + 1 :]
        return missing > remaining + sum(max(1, self.pages[other]) for other in later)

    def record_page(self, status: ProcessorTaskStatus, read: int, count: int | None) -> None:
        """Record page ``read`` of a list in this round, and how many tasks the list has if the answer says so."""
        self.pages[status] = read if count is None else -(-count // MAX_PAGE_SIZE)

    def record_unread(self, status: ProcessorTaskStatus) -> None:
        """Lower the page counts of lists that were not worth reading, so that some later round checks them again."""
        for unread in ACTIVE[ACTIVE.index(status) :]:
            self.pages[unread] = self.pages[unread] * 9 // 10

    def second_try_delay(self, error: ModelArtsError, interval: float) -> float | None:
        """Return the seconds until the lists are tried again in the same round; None if they are not.

        A single failure would otherwise cost one request by id for each wait.

        :param interval: the shortest interval of all waits.
        """
        if not isinstance(error, ModelArtsTransientError) or error.retry_after or self.failures:
            return None
        return with_jitter(min(SECOND_TRY_DELAY, interval / 5), random.random, low=0.5)

    def record_failure(self, error: ModelArtsError, now: float, interval: float) -> None:
        """Skip the lists for a time: longer after each temporary error, and for an hour if they are forbidden."""
        delay = FORBIDDEN_LIST_DELAY
        if error.temporary:
            self.failures += 1
            # With half the interval, the first failure skips no round.
            delay = backoff_with_jitter(interval / 2, self.failures, error)
        self.skip_until = now + delay


class DescribeQueue:
    """The targets that one round reads by id, and what their answers so far mean for the others.

    :param targets: in the order in which to read them.
    :param failing: those whose latest poll failed: an overloaded service is then not the likely cause.
    :param is_answered: whether a list has shown some target, so that the service is known to answer.
    """

    def __init__(
        self, targets: Sequence[Target], failing: AbstractSet[Target] = frozenset(), *, is_answered: bool = False
    ) -> None:
        self._targets = frozenset(targets)
        self._pending = deque(targets)
        self._failing = failing
        #: The latest error of each target that has no answer.
        self.errors: dict[Target, ModelArtsError] = {}
        #: An error that concerns all waits: of the connection, or a defect of this package.
        self.fatal: Exception | None = None
        self._answers = int(is_answered)
        self._answers_before_pass = -1
        self._sent = 0
        self._throttled_in_a_row = 0

    @property
    def is_answered(self) -> bool:
        """Whether the service has answered at least one request, so that errors of others are no outage."""
        return self._answers > 0

    def take(self, wanted: Container[Target]) -> Target | None:
        """Return the next ``wanted`` target; None if there is none, or if further requests would fail too."""
        while self._pending and not self._is_futile():
            target = self._pending.popleft()
            if target in wanted:  # its waits can have left: a round takes minutes at a low rate
                self._sent += 1
                return target
        return None

    def record_answer(self, target: Target) -> None:
        """Record that a target was read."""
        self.errors.pop(target, None)
        self._answers += 1
        self._throttled_in_a_row = 0

    def record_error(self, target: Target, error: Exception) -> None:
        """Record that a target could not be read."""
        if not isinstance(error, ModelArtsError) or _concerns_connection(error):
            self.fatal = self.fatal or error
            return
        self.errors[target] = error
        self._answers += isinstance(error, ModelArtsNotFoundError | ModelArtsRequestError)  # it is of this target alone
        self._throttled_in_a_row = self._throttled_in_a_row + 1 if isinstance(error, ModelArtsThrottledError) else 0

    def start_pass(self) -> bool:
        """Start a pass over the pending targets; false if there are none, or if the pass before had no answer."""
        if not self._pending or self._answers <= self._answers_before_pass:
            return False
        self._answers_before_pass = self._answers
        return True

    def repeat_overloaded(self) -> None:
        """Queue again what an overloaded service refused while it answered others."""
        if self.is_answered and not self._is_futile():
            self._pending.extend(
                target
                for target, error in self.errors.items()
                if target not in self._failing
                and (isinstance(error, ModelArtsThrottledError) or error.http_status == 503)
            )

    def probe(self, waits: Iterable[Wait]) -> Target | None:
        """Return a healthy target outside this queue, whose answer tells an outage from errors of the queue's targets.

        None if that is clear already, or if there is no other target without failures.
        """
        if not self.errors or self.is_answered or self._throttled_in_a_row or self.fatal:
            return None
        others = (wait.target for wait in waits if not wait.failures and wait.target not in self._targets)
        return next(others, None)

    def _is_futile(self) -> bool:
        if self.fatal or self._throttled_in_a_row >= (CONCURRENCY if self.is_answered else 1):
            return True
        return not self.is_answered and self._sent > CONCURRENCY


def _concerns_connection(error: ModelArtsError) -> bool:
    if isinstance(error, ModelArtsAuthenticationError):
        # A 403 may be a permission that is missing in a single workspace.
        return error.asks_for_new_credentials or error.http_status != 403
    return isinstance(error, ModelArtsConfigurationError)
