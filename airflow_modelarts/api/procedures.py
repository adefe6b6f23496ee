"""What takes several API calls: stopping versions, finding a task or a version, submitting exactly once.

A procedure is a generator over the same steps as a call. Both hooks run it: ``hook.run(procedure)``. It does no I/O.
:func:`submit_once` is where a lost answer to a submission is resolved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_modelarts.api import operations
from airflow_modelarts.api.backoff import exponential_delay
from airflow_modelarts.api.client import Pager, call
from airflow_modelarts.api.errors import ModelArtsAlreadyExistsError, ModelArtsError, ModelArtsRequestError
from airflow_modelarts.api.http import Flow, Sleep
from airflow_modelarts.api.models import CreatedTask, CreatedVersion, ProcessorTask, ProcessorTaskVersion
from airflow_modelarts.api.operations import ListOperation, Operation
from airflow_modelarts.api.retry import DEFAULT_RETRIES, RetryPolicy
from airflow_modelarts.api.same_request import check_same_request
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus, status_name
from airflow_modelarts.api.targets import Target

T = TypeVar("T")

#: Outlasts an outage of some minutes. For reads without which a task that runs or has ended would be lost.
LONG_RETRIES = RetryPolicy(attempts=20)
#: How often a submission whose outcome is unknown is sent.
SUBMIT_ATTEMPTS = 6
#: Seconds; the longest delay before a submission is looked up a second time.
MAX_LOOKUP_DELAY = 16.0
#: Seconds before an interrupted submission is looked up a second time; Airflow grants five to a task that it kills.
INTERRUPTED_DELAY = 1.0


@dataclass(slots=True)
class StopReport:
    """The outcome of stopping versions.

    :param task_id: the processing task's id.
    :param stopped: ids of the versions that were stopped.
    :param ended: versions that had ended before: id and status.
    :param errors: one for each version that was not stopped.
    """

    task_id: str
    stopped: list[str] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=dict)
    errors: list[ModelArtsError] = field(default_factory=list)

    def log(self, log: Any) -> None:
        """Log the outcome, in the same words for the stop operator, a killed operator and a killed trigger."""
        for version_id in self.stopped:
            log.info("Stopped version '%s' of processing task '%s'.", version_id, self.task_id)
        for version_id, status in self.ended.items():
            log.info("%s had ended already: it is %s.", Target(self.task_id, version_id), status_name(status))
        for error in self.errors:
            log.warning("%s", error)
        if not (self.stopped or self.ended or self.errors):
            log.info("No version of processing task '%s' is active: there is nothing to stop.", self.task_id)


def stop(target: Target, retries: RetryPolicy) -> Flow[StopReport]:
    """Stop a version, or all versions of a task that have not ended (StopProcessorTaskVersion).

    An error with one version does not keep the others from being stopped; it is in the report.

    :raises ModelArtsRequestError: the task has no versions.
    :raises ModelArtsError: the versions could not be listed.
    """
    report = StopReport(target.task_id)
    if target.task_version_id is not None:
        yield from _stop_version(target.task_id, target.task_version_id, report, retries)
        return report
    versions = yield from _items(operations.list_processor_task_versions(target.task_id), retries)
    if not versions:
        raise ModelArtsRequestError(
            f"Cannot stop processing task '{target.task_id}': it has no versions, and only versions can be stopped. "
            "Wait until it ends",
            operation="StopProcessorTaskVersion",
        )
    for version in versions:
        if not version.is_terminal:
            yield from _stop_version(target.task_id, version.task_version_id or "", report, retries)
    return report


def _stop_version(task_id: str, version_id: str, report: StopReport, retries: RetryPolicy) -> Flow[None]:
    try:
        yield from call(operations.stop_processor_task_version(task_id, version_id), retries)
    except ModelArtsError as error:
        # The version may have ended before, or an attempt whose answer was lost may have stopped it.
        status = yield from terminal_status(task_id, version_id, retries)
        if status is None:
            report.errors.append(error)
        elif status == ProcessorTaskStatus.STOPPED:
            report.stopped.append(version_id)
        else:
            report.ended[version_id] = status
    else:
        report.stopped.append(version_id)


def terminal_status(task_id: str, version_id: str, retries: RetryPolicy) -> Flow[int | None]:
    """Return the status of a version that has ended; None if it has not ended or cannot be read."""
    try:
        version = yield from call(operations.describe_processor_task_version(task_id, version_id), retries)
    except ModelArtsError:
        return None
    return version.status if version.status in TERMINAL_STATUSES else None


def newest_version(
    task_id: str, retries: RetryPolicy = LONG_RETRIES, *, ignored: Collection[str] = ()
) -> Flow[ProcessorTaskVersion | None]:
    """Return the newest version of a task, without those whose ids are in ``ignored``; None if there is none."""
    versions = yield from _items(operations.list_processor_task_versions(task_id, order="desc"), retries)
    counted = (version for version in versions if version.task_version_id not in ignored)
    return max(counted, key=lambda version: version.create_time or 0, default=None)


def version_ids(task_id: str, retries: RetryPolicy = LONG_RETRIES) -> Flow[set[str]]:
    """Return the ids of all versions of a task."""
    versions = yield from _items(operations.list_processor_task_versions(task_id), retries)
    return {version.task_version_id or "" for version in versions}


def find_task(
    name: str, workspace_id: str | None, retries: RetryPolicy = LONG_RETRIES, *, body: bytes | None = None
) -> Flow[ProcessorTask | None]:
    """Return the task that has exactly this name, None if there is none; the API's own filter is fuzzy.

    :param body: the JSON of the request, where somebody else may have created a task of this name.
    :raises ModelArtsAlreadyExistsError: the task is of another request than ``body``.
    """
    listing = operations.list_processor_tasks(task_name=name, workspace_id=workspace_id)
    tasks = yield from _items(listing, retries, lambda task: task.name == name)
    found = next((task for task in tasks if task.name == name), None)
    if found is None or body is None:
        return found
    task = yield from call(operations.describe_processor_task(found.task_id), retries)  # a list may leave fields out
    check_same_request(json.loads(body), task)
    return task


@dataclass(slots=True, kw_only=True)
class Submission:
    """What :func:`submit_once` needs to know about the caller, and what it learns for the caller's next call.

    :param may_exist: whether an earlier request may have submitted the same. A lost answer sets it; a refusal after
        which nothing was found resets it, so that the next refusal costs no further lookup.
    :param is_killed: returns whether the caller has been killed, after which nothing may be submitted.
    :param on_lookup: called with the error that makes a lookup necessary.
    :param retries: of each request that submits.
    :param waits: whether the caller calls again later if the service says "not now" (``capacity.is_not_now``). Then
        such a refusal is raised after at most one lookup, without a delay. So is a fault with ``Retry-After``, after
        its lookups.
    :param is_under_way: whether a request has been sent that has no outcome yet; it stays true if that is interrupted.
    :param find: looks the submission up.
    :param is_ours: whether a task that has the name already is the caller's own in any case: the name was stored before
        the first request.
    :param is_first: whether no earlier process has had the time to submit. Then a refusal is certain even if the lookup
        is refused too, for example since the credentials are wrong.
    """

    may_exist: bool
    is_killed: Callable[[], bool] = lambda: False
    on_lookup: Callable[[ModelArtsError], None] = lambda error: None
    retries: RetryPolicy = DEFAULT_RETRIES
    waits: bool = False
    is_ours: bool = False
    is_first: bool = False
    is_under_way: bool = False
    find: Callable[[RetryPolicy], Flow[str | None]] | None = None


def create_task(
    operation: Operation[CreatedTask], name: str, workspace_id: str | None, submission: Submission
) -> Flow[str]:
    """Create a task exactly once and return its id, see :func:`submit_once`; the service refuses a name twice."""
    # An earlier process may have created it, or a request whose answer was lost, and somebody else as well: then the
    # request tells whose it is.
    body = None if submission.is_ours else operation.body

    def submit() -> Flow[str]:
        created = yield from call(operation, submission.retries)
        return created.task_id

    def find(retries: RetryPolicy) -> Flow[str | None]:
        found = yield from find_task(name, workspace_id, retries, body=body)
        return found.task_id if found else None

    return (yield from submit_once(submit, find, submission, can_repeat=True))


def create_version(
    operation: Operation[CreatedVersion], task_id: str, known: Collection[str], submission: Submission
) -> Flow[str]:
    """Create a version exactly once, see :func:`submit_once`; ``known`` are the ids of earlier versions."""

    def submit() -> Flow[str]:
        created = yield from call(operation, submission.retries)
        return created.version_id

    def find(retries: RetryPolicy) -> Flow[str | None]:
        found = yield from newest_version(task_id, retries, ignored=known)
        return found.task_version_id if found else None

    return (yield from submit_once(submit, find, submission, can_repeat=False))


def submit_once(
    submit: Callable[[], Flow[str]],
    find: Callable[[RetryPolicy], Flow[str | None]],
    submission: Submission,
    *,
    can_repeat: bool,
) -> Flow[str]:
    """Submit, and look the submission up wherever the answer does not tell whether it was accepted.

    :param submit: sends the request and returns the id.
    :param find: returns the id of what was submitted; None if it does not exist.
    :param can_repeat: whether the service refuses the same submission twice, so that repeating it is safe.
    :raises ModelArtsError: it was refused, or not found. ``outcome_unknown`` tells whether it may still appear.
    """
    submission.find = find
    is_lost = False  # whether an answer to a request of this call was lost
    for attempt in range(1, SUBMIT_ATTEMPTS + 1):
        if submission.is_killed():
            raise ModelArtsError("Task was killed; not submitting.", outcome_unknown=submission.may_exist)
        submission.is_under_way = True
        try:
            external_id = yield from submit()
            submission.is_under_way = False
            return external_id
        except ModelArtsError as error:
            submission.is_under_way = False
            is_lost = is_lost or error.outcome_unknown
            is_taken = isinstance(error, ModelArtsAlreadyExistsError)
            submission.may_exist |= error.outcome_unknown or (is_taken and submission.is_ours)
            if not submission.may_exist:
                raise
            submission.on_lookup(error)
            is_final = not (is_taken or error.temporary or error.outcome_unknown)
            # A final refusal can come from our own lost submission, which has used up the quota: then wait longest.
            delay = exponential_delay(1.0, SUBMIT_ATTEMPTS if is_final else attempt, MAX_LOOKUP_DELAY)
            is_refused = not (is_taken or error.outcome_unknown)
            if submission.waits and is_refused and not is_lost:
                delay = 0.0  # the earlier request was sent before this process had its turn
            try:
                found = yield from _find_twice(find, LONG_RETRIES, delay)
            except ModelArtsError as failure:
                if is_final and not is_lost and not failure.temporary and submission.is_first:
                    raise error from None
                raise
            if found:
                return found
            if submission.waits and is_refused:
                submission.may_exist = error.outcome_unknown = False
                raise
            error.outcome_unknown = not is_final
            # The caller that waits keeps to the service's ``Retry-After``, which can be minutes.
            is_due_later = submission.waits and bool(error.retry_after)
            if is_final or attempt == SUBMIT_ATTEMPTS or not can_repeat or is_due_later:
                raise
    raise AssertionError("the last attempt returns or raises")


def find_interrupted(submission: Submission, retries: RetryPolicy) -> Flow[str | None]:
    """Return the id of what an interrupted request submitted; None if there is none."""
    if submission.find is None or not (submission.is_under_way or submission.may_exist):
        return None
    return (yield from _find_twice(submission.find, retries, INTERRUPTED_DELAY))


def _find_twice(
    find: Callable[[RetryPolicy], Flow[str | None]], retries: RetryPolicy, delay: float
) -> Flow[str | None]:
    """Look a submission up, and again after a delay, because the request may still be on its way; 0 for once only."""
    try:
        if (found := (yield from find(retries))) or not delay:
            return found
        yield Sleep(delay)
        return (yield from find(retries))
    except ModelArtsAlreadyExistsError:  # of another request
        raise
    except ModelArtsError as error:
        error.outcome_unknown = True  # the outcome of the submission
        raise


def _items(
    operation: ListOperation[T], retries: RetryPolicy, is_last: Callable[[T], bool] = lambda item: False
) -> Flow[list[T]]:
    """Return the items of all pages; no page is read after one that holds the last item."""
    items: list[T] = []
    pager = Pager(operation, retries)
    while page := (yield from pager.next_page()):
        items += page.items
        if any(map(is_last, page.items)):
            break
    return items


def read_end(
    target: Target, latest: ProcessorTask | ProcessorTaskVersion | None = None
) -> Flow[tuple[ProcessorTask, ProcessorTaskVersion | None]]:
    """Read the task of a target that has ended, and its version if the target is one.

    :param latest: what was read of the target already.
    :raises ModelArtsNotFoundError: it was deleted.
    """
    version: Any = None
    task: Any = latest
    if target.task_version_id is not None:
        describe = operations.describe_processor_task_version(target.task_id, target.task_version_id)
        version = latest or (yield from call(describe, LONG_RETRIES))
        task = None
    return task or (yield from call(operations.describe_processor_task(target.task_id), LONG_RETRIES)), version
