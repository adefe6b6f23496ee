"""What the operators share that submit something: submit once, wait for the end, publish it, stop it when killed."""

from __future__ import annotations

import random
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.api.arguments import read_flag, read_seconds
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsNotFoundError, ModelArtsRequestError
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus, status_name
from airflow_modelarts.base import (
    WaitingOperator,
    describe,
    describe_failure,
    describe_wait,
    fails_fast,
    is_trigger_timeout,
)
from airflow_modelarts.compat import ResumableJobMixin
from airflow_modelarts.operators.output_files import OutputFilesMixin
from airflow_modelarts.operators.stopping import StoppingMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDeferred

    from airflow_modelarts.api.http import Flow
    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
    from airflow_modelarts.api.procedures import Submission
    from airflow_modelarts.api.targets import Target
    from airflow_modelarts.operators.current_try import CurrentTry
    from airflow_modelarts.operators.submission_store import SubmissionStore
    from airflow_modelarts.polling.status_poller import StatusPoller

DELETED = "deleted"  # stands for the status of a task or version that has been deleted


class RunTaskOperator(StoppingMixin, ResumableJobMixin, WaitingOperator, OutputFilesMixin):
    """Submits something exactly once, and waits for its end.

    Airflow's ``ResumableJobMixin`` decides what a retry does with the id that an earlier try stored: it adopts what is
    active or has succeeded, and submits again otherwise. An id that is not known is found by ``_submit``.

    :param wait_for_completion: whether to wait for the end; default true.
    :param cancel_on_kill: whether the running version is stopped when the Airflow task is killed, cleared or marked, or
        exceeds ``execution_timeout``; default true.
    :param wait_for_capacity: whether to wait while the service refuses the submission for now; default true.
    :param poll_interval: seconds between two polls, at most, or a timedelta; default 60.
    """

    argument_checks: ClassVar = {
        **WaitingOperator.argument_checks,
        **OutputFilesMixin.argument_checks,
        "wait_for_capacity": read_flag,
        "poll_interval": read_seconds,
        **dict.fromkeys(("wait_for_completion", "cancel_on_kill"), read_flag),
    }
    external_id_key = "modelarts_processor_task_id"
    #: The XCom that holds the id of what was submitted.
    _id_xcom = "processor_task_id"
    pushes_version = True
    workspace_id: str | None

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        wait_for_capacity: bool = True,
        cancel_on_kill: bool = True,
        poll_interval: float | timedelta = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_arguments(
            wait_for_completion=wait_for_completion,
            wait_for_capacity=wait_for_capacity,
            cancel_on_kill=cancel_on_kill,
            outlets=self.outlets,
        )
        self.wait_for_completion = wait_for_completion
        self.wait_for_capacity = wait_for_capacity
        self.cancel_on_kill = cancel_on_kill
        self.poll_interval = read_seconds("poll_interval", poll_interval)
        self._current: CurrentTry | None = None

    @classmethod
    def check_arguments(cls, given: Mapping[str, Any], dag: Any) -> None:
        """Check arguments; assets as outlets need ``wait_for_completion``."""
        super().check_arguments(given, dag)
        _check_outlets(given.get("outlets"), given.get("wait_for_completion", True))

    def resolve_template_files(self) -> None:
        """Check the outlets too: Airflow calls this when a DAG is complete, and they can be set until then."""
        _check_outlets(self.outlets, self.wait_for_completion)
        super().resolve_template_files()

    # For subclasses

    @abstractmethod
    def _validate_request(self) -> None:
        """Raise ModelArtsRequestError if the request is not valid; nothing is sent for it."""

    @abstractmethod
    def _submit(self, context: Context, unconfirmed: Any) -> str:
        """Submit, or find what an earlier try submitted, whose intent is ``unconfirmed``, and return its id."""

    @abstractmethod
    def _target(self, external_id: str) -> Target:
        """Return what the operator waits for."""

    def _take_over(self, context: Context, event: dict[str, Any]) -> bool:
        """Store and announce the id of what the triggerer has submitted; false if this worker goes on to submit."""
        return True

    def _recall_reuse(self, context: Context) -> bool:
        """Whether this try waits for what existed before; a worker that resumes has no store on an older Airflow."""
        return False

    def _find_deferred(self, context: Context) -> str | None:
        """Return the id of what the triggerer has submitted, for a worker that gets no event; None if it has not."""
        return None

    # The beginning of a try, on a worker

    @fails_fast
    def execute(self, context: Context) -> Any:
        """Submit, and unless ``wait_for_completion`` is off, wait for the end."""
        self._prepare_fields()
        _check_outlets(self.outlets, self.wait_for_completion)
        self._validate_request()
        if not AIRFLOW_V_3_3_PLUS:
            lacks = "on this version a retry after a crash creates a second processing task."
            self.log.info("Crash recovery needs Airflow 3.3; %s", lacks)
        with self._start_try(context):
            return self.execute_resumable(context)

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, deadline: float | None = None
    ) -> Any:
        """Hand on what the deferred wait has ended with; the task is read here, since an event carries no result.

        :param event: of the trigger.
        :param deadline: when ``execution_timeout`` is over, in seconds since the epoch.
        """
        self._prepare_fields()
        event = event or {}
        with self._start_try(context) as current:
            current.deadline = deadline
            if event.get("timed_out"):  # while the submission was queued
                current.external_id = event.get("task_id")
                raise self._timeout(current)
            if "turn" in event:  # the triggerer waited for capacity, and this worker submits
                current.queued_since, current.refusals = event["turn"], event.get("refusals", 0)
                return self.execute_resumable(context)
            if "name" in event and not self._take_over(context, event):
                return self.execute_resumable(context)
            # Triggers of version 1.0.0 called the version's id ``version_id``.
            external_id: str = event.get("task_version_id") or event.get("version_id") or event["task_id"]
            # The trigger of a try that was cleared can still report the end of what that try had submitted.
            external_id = (current.store and current.store.external_id) or external_id
            current.external_id = external_id
            current.is_reused = current.is_reused or self._recall_reuse(context)
            status = self._log_wait(context, external_id, event)
            current.latest = self._poll(external_id, known_status=status)
            if not current.latest.is_terminal and self.wait_for_completion:
                raise self._defer(context, external_id)
            return self.get_job_result(external_id, context)

    @fails_fast
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after the deferred wait; a timeout stops the version, as it does on a worker."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except Exception as error:
            if not is_trigger_timeout(next_kwargs):
                raise
            from airflow_modelarts.operators.current_try import CurrentTry

            self._read_arguments()
            # Airflow calls on_kill for the error that follows. Without the store, it stops the version in any case.
            self._current = CurrentTry(self._open_hook())
            self._current.external_id = self._recall_id(context) or self._find_deferred(context)
            self._current.is_reused = self._recall_reuse(context)
            raise self._timeout(self._current) from error

    def _timeout(self, current: CurrentTry) -> AirflowTaskTimeout:
        from airflow_modelarts.operators.queued_submission import describe_end_of_time

        return AirflowTaskTimeout(describe_end_of_time(current.external_id))

    @contextmanager
    def _start_try(self, context: Context) -> Iterator[CurrentTry]:
        from airflow_modelarts.operators.current_try import CurrentTry

        with self._open_hook() as hook:
            self._current = CurrentTry(hook, self._open_store(context))
            yield self._current

    @property
    def _try(self) -> CurrentTry:
        assert self._current is not None  # noqa: S101  # nosec B101 - every way in starts a try
        return self._current

    @property
    def _retry_repeats_task(self) -> bool:
        return self._try.store is None

    def _open_store(self, context: Context) -> SubmissionStore | None:
        from airflow_modelarts.operators.submission_store import SubmissionStore

        return SubmissionStore.open(context, self.external_id_key) if self.durable else None

    def _recall_id(self, context: Context) -> str | None:
        """Return the id that this try submitted; a worker that resumes after a timeout gets no event."""
        if store := self._open_store(context):
            return store.external_id
        recalled: str | None = context["ti"].xcom_pull(
            task_ids=self.task_id, key=self._id_xcom, map_indexes=context["ti"].map_index
        )
        return recalled

    # What ResumableJobMixin calls, in this order

    def get_job_status(self, external_id: Any, context: Context) -> str:
        """Read the status of what an earlier try submitted; an outage does not end it."""
        try:
            status = self._poll(external_id).status
        except ModelArtsNotFoundError as error:
            self.log.warning("%s", error)
            return DELETED
        return status_name(self._stop_if_cleared(external_id, status))

    def is_job_active(self, status: str) -> bool:
        """Whether it has not ended."""
        return status != DELETED and status not in map(status_name, TERMINAL_STATUSES)

    def is_job_succeeded(self, status: str) -> bool:
        """Whether it has ended without a failure; a stop counts only if it was published, since Airflow stops too."""
        is_published = self._try.store is not None and self._try.store.is_concluded
        if status == status_name(ProcessorTaskStatus.STOPPED) and not is_published:
            return False
        return status in map(status_name, TERMINAL_STATUSES - set(self.failed_statuses))

    def submit_job(self, context: Context) -> str:
        """Submit, unless an earlier try has; return the id."""
        store = self._try.store
        return self._submit(context, store.unconfirmed_intent if store else None)

    def poll_until_complete(self, external_id: Any, context: Context) -> Any:
        """Wait for the end, here or in the triggerer, and return what is pushed."""
        self._announce(context, external_id)
        if self._killed:
            self.on_kill()  # the signal came before the id was known
        if not self.wait_for_completion:
            return self.get_job_result(external_id, context)
        if self.deferrable and not self._killed:  # after the wait, a new worker would not know of the kill
            raise self._defer(context, external_id)
        self._try.latest = self._poller(external_id).until(lambda seen: seen.is_terminal, self.poll_interval)
        return self.get_job_result(external_id, context)

    def get_job_result(self, external_id: Any, context: Context) -> Any:
        """Raise the failure, or push the result. The mixin can call it twice; the second call does nothing."""
        current = self._try
        if current.result is None:
            if current.external_id is None:  # it ended before this try, for which Airflow has cleared the XComs
                self._announce(context, external_id)
            if current.latest is None:
                current.latest = self._poll(external_id)
            self._raise_for_failure(external_id)
            current.result = self._publish_end(context, external_id)
            if current.store:
                current.store.conclude()
        return current.result

    # Submitting

    def _run_submission(
        self,
        submit: Callable[[Submission], Flow[str]],
        *,
        may_exist: bool,
        is_ours: bool = False,
        can_repeat: bool = True,
        once: bool = False,
    ) -> str:
        """Run a procedure that submits, and wait for capacity; forget the intent if certainly nothing was submitted.

        :param may_exist: whether an earlier try may have submitted the same.
        :param is_ours: whether nobody else can have submitted under this name.
        :param can_repeat: whether the service refuses the same submission twice.
        :param once: whether to raise a refusal that says "not now", since the triggerer waits.
        """
        from airflow_modelarts.api import capacity
        from airflow_modelarts.api.procedures import Submission

        hook, waits = self._try.hook, self.wait_for_capacity
        log = capacity.CapacityLog(self.log, time.monotonic)
        submission = self._try.submission = Submission(
            may_exist=may_exist,
            is_killed=lambda: self._killed,  # Airflow 3 lets a try go on after on_kill
            on_lookup=log.refused if waits else self._log_lookup,
            retries=capacity.ONE_ATTEMPT if waits else capacity.without_waiting(hook.retries),
            waits=waits,
            is_ours=is_ours,
        )
        try:
            if once or not waits:
                return hook.run(submit(submission))
            submitted = capacity.submit_when_there_is_room(
                lambda: submit(submission),
                random.random,
                log.refused,
                is_killed=lambda: self._killed,
                can_repeat=can_repeat,
            )
            external_id = hook.run(submitted)
        except ModelArtsError as error:
            if self._try.store and not error.outcome_unknown:
                self._try.store.forget()
            if capacity.is_not_now(error):
                capacity.add_advice(error, waits=waits, can_repeat=can_repeat)
            raise
        self._try.queued_seconds = log.submitted()
        return external_id

    def _log_lookup(self, error: ModelArtsError) -> None:
        self.log.warning("%s Checking whether it was created anyway.", error)

    def _announce(self, context: Context, external_id: str) -> None:
        """Push the ids and the link to the console, as soon as they are known."""
        self._try.external_id = external_id
        target = self._target(external_id)
        if self.do_xcom_push:
            context["ti"].xcom_push(key="processor_task_id", value=target.task_id)
            if target.task_version_id is not None:
                context["ti"].xcom_push(key="task_version_id", value=target.task_version_id)
            if self._try.queued_seconds is not None:
                context["ti"].xcom_push(key="queued_seconds", value=round(self._try.queued_seconds, 3))
        self._link(context, self._try.hook, target.task_id)

    # Waiting and publishing

    def _poll(self, external_id: str, known_status: int | None = None) -> Any:
        """Read what was submitted; an outage does not end it."""
        return self._poller(external_id, known_status).until(lambda _: True, self.poll_interval)

    def _log_wait(self, context: Context, external_id: str, event: dict[str, Any]) -> int | None:
        """Repeat how the wait in the triggerer ended, if that was of this submission; return the status, if any."""
        started = context["ti"].start_date
        if external_id not in (event.get("task_version_id"), event.get("version_id"), event.get("task_id")):
            return None
        if started and (text := describe_wait(self._target(external_id), event, time.time() - started.timestamp())):
            self.log.info("%s", text)
            return event.get("status")
        return None

    def _poller(self, external_id: str, known_status: int | None = None) -> StatusPoller[Any]:
        from airflow_modelarts.polling.status_poller import StatusPoller

        target = self._target(external_id)
        return StatusPoller(str(target), lambda: describe(self._try.hook, target), self.log, known_status)

    def _trigger_arguments(self) -> dict[str, Any]:
        return {"poll_interval": self.poll_interval, "stop_on_kill": not self._why_never_stop()}

    def _defer(self, context: Context, external_id: str) -> TaskDeferred:
        """Hand the wait over to the triggerer, for as long as ``execution_timeout`` leaves."""
        deadline = self._note_deferral(context)
        timeout = None if deadline is None else deadline - time.time()
        return self._deferral(self._target(external_id), self.workspace_id, deadline, timeout)

    def _note_deferral(self, context: Context) -> float | None:
        """Push the number of the try that defers; return when ``execution_timeout`` is over, since the epoch."""
        from airflow_modelarts.triggers import DEFERRED_TRY_KEY

        if AIRFLOW_V_3_3_PLUS:
            context["ti"].xcom_push(key=DEFERRED_TRY_KEY, value=context["ti"].try_number)
        started = context["ti"].start_date
        if self._try.deadline is None and self.execution_timeout and started:
            self._try.deadline = started.timestamp() + self.execution_timeout.total_seconds()
        return self._try.deadline

    def _raise_for_failure(self, external_id: str) -> None:
        from airflow_modelarts.api.permanence import is_permanent_reason
        from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed

        target, latest = self._target(external_id), self._try.latest
        was_stopped_here = self._killed and latest.status == ProcessorTaskStatus.STOPPED
        if was_stopped_here or (self.wait_for_completion and latest.status in self.failed_statuses):
            if target.task_version_id is None:  # for lineage
                self._processor_task = latest
            else:
                self._task_version = latest
            reason = getattr(latest, "error_msg", None)
            # Another try submits again, which can help unless the reason stays.
            is_permanent = is_permanent_reason(reason) and not was_stopped_here
            raise ModelArtsProcessorTaskFailed(
                describe_failure(target, latest.status, reason), is_permanent=is_permanent
            )

    def _publish_end(self, context: Context, external_id: str) -> Any:
        """Read the task and its version, push what they say, and emit the asset events."""
        from airflow_modelarts.api import procedures

        target, hook = self._target(external_id), self._try.hook
        task, version = hook.run(procedures.read_end(target, self._try.latest))
        is_end_of_version = version is not None
        if version is None:
            version = self._newest_version(task)
        published = self._publish(context, task, version)
        self._emit_asset_events(context, hook, task, version, is_end_of_version=is_end_of_version)
        return published

    def _newest_version(self, task: ProcessorTask) -> ProcessorTaskVersion | None:
        from airflow_modelarts.api import procedures
        from airflow_modelarts.api.models import FEATURE_ANALYSIS

        if task.template is not None and task.template.id == FEATURE_ANALYSIS:
            return None
        try:
            return self._try.hook.run(procedures.newest_version(task.task_id))
        except (ModelArtsNotFoundError, ModelArtsRequestError) as error:
            # The reference does not say what is answered for a task without versions. The task itself has succeeded.
            self.log.warning("%s", error)
            return None


def _check_outlets(outlets: Any, waits: Any) -> None:
    if outlets:
        from airflow_modelarts.assets import check_outlets

        check_outlets(outlets, waits)
