"""What the operators share that make the service run something: submit once, wait, conclude, stop it if killed."""

from __future__ import annotations

import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowTaskTimeout,
    TaskDeferred,
    conf,
)
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus, read_ends, status_name
from airflow_modelarts.compat import ResumableJobMixin
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.operators.base import TaskResultMixin
from airflow_modelarts.operators.submission_store import SubmissionStore
from airflow_modelarts.polling.status_poller import StatusPoller
from airflow_modelarts.templating import own_template_fields

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.http import Flow
    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
    from airflow_modelarts.api.procedures import Submission
    from airflow_modelarts.api.retry import RetryPolicy
    from airflow_modelarts.hooks import ModelArtsHook

#: What stands for the status of something that is not there any more.
DELETED = "deleted"
#: Seconds, at least, for which the triggerer has the time to stop what a user has cleared while it waited for it.
TRIGGER_GRACE = 10


class RunTaskOperator(ResumableJobMixin, TaskResultMixin):
    """
    Makes the service run something, exactly once, and waits for its end.

    Airflow's mixin decides what a retry does with the id that the try before it stored: adopt what is active or has
    succeeded, or submit anew. A subclass knows how to submit, so that a submission of unknown outcome is found again.

    :param wait_for_completion: whether to wait for the end; default true.
    :param poll_interval: seconds between two looks, at most; default 60.
    :param failed_statuses: ends that fail the operator, with the service's ``error_msg``, as numbers or names, for
        example ``["failed"]``; default 3 (failed) and 4 (stopped).
    :param deferrable: wait in the triggerer; default is Airflow's ``[operators] default_deferrable``.
    """

    external_id_key = "modelarts_processor_task_id"
    #: The XCom that holds the id of what was submitted.
    _id_xcom = "processor_task_id"
    pushes_version = True

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        poll_interval: float = 60.0,
        failed_statuses: Iterable[int | str] = (ProcessorTaskStatus.FAILED, ProcessorTaskStatus.STOPPED),
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.failed_statuses = read_ends("failed_statuses", failed_statuses)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self._hook: ModelArtsHook | None = None
        self._submission_store: SubmissionStore | None = None
        self._external_id: str | None = None
        self._seen: Any = None
        self._concluded: Any = None
        self._killed = False

    # What a subclass knows

    @abstractmethod
    def _check(self) -> None:
        """Raise ModelArtsRequestError for whatever is wrong with the request; nothing is sent for it."""

    @abstractmethod
    def _submit(self, context: Context, pending: Any) -> str:
        """
        Submit, or find what an earlier try submitted, and return its id.

        :param pending: the intent of an earlier try whose outcome is not known.
        """

    @abstractmethod
    def _read(self, external_id: str) -> Any:
        """Read what was submitted: a processing task or a version."""

    @abstractmethod
    def _note_for_lineage(self, seen: Any) -> None:
        """Keep what was read, for a run that fails."""

    @abstractmethod
    def _ids(self, external_id: str) -> tuple[str, str | None]:
        """Return the ids of the processing task and, if the wait is for a version, of that."""

    # A try, from its beginning or from where the triggerer left off

    def execute(self, context: Context) -> Any:
        """Run it and, unless told otherwise, wait for its end."""
        self._refuse_empty_fields(own_template_fields(type(self)))
        self._read_arguments()
        self._check()
        if not AIRFLOW_V_3_3_PLUS:
            self.log.info(
                "Only Airflow 3.3 and later remember a submission between tries: "
                "here, a try after a crash runs another one."
            )
        with self._open_hook() as self._hook:
            self._submission_store = SubmissionStore.of(context, self.external_id_key) if self.durable else None
            return self.execute_resumable(context)

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, deadline: float | None = None
    ) -> Any:
        """
        Conclude what the trigger found; the task is read here, since an event carries no result.

        :param event: of the trigger.
        :param deadline: when ``execution_timeout`` is over, in seconds since the epoch.
        """
        self._read_arguments()
        event = event or {}
        # Triggers of version 1.0.0 called the version's id ``version_id``.
        external_id: str = event.get("task_version_id") or event.get("version_id") or event["task_id"]
        with self._open_hook() as self._hook:
            self._submission_store = SubmissionStore.of(context, self.external_id_key) if self.durable else None
            # The trigger of a try that was cleared can still tell of the end of what that had submitted.
            external_id = (self._submission_store and self._submission_store.external_id) or external_id
            self._external_id = external_id
            self._seen = self._poll(external_id)
            if not self._seen.is_terminal:
                raise self._deferral(context, external_id, deadline)
            return self.get_job_result(external_id, context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Conclude the wait; a timeout that is over stops the task, as it does on a worker."""
        self._read_arguments()
        # In words, since Airflow 2 has two ways to say it.
        timed_out = "timeout" in str((next_kwargs or {}).get("error", "")).lower()
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except Exception as error:
            if not timed_out:
                raise
            # What on_kill needs to know: Airflow calls it for the error that follows.
            self._external_id, self._hook = self._recall(context), self._open_hook()
            raise AirflowTaskTimeout("execution_timeout is over, and the processing task has not ended") from error

    def on_kill(self) -> None:
        """
        Stop the running versions of the task (StopProcessorTaskVersion); it is the operator's own.

        Where another try follows that adopts them (Airflow 3.3), they are left running. After ``execution_timeout``,
        and when a user has cleared the Airflow task, they are stopped in any case.
        """
        self._killed = True
        if self._hook is None or self._external_id is None:
            return
        is_timeout = isinstance(sys.exception(), AirflowTaskTimeout)  # Airflow calls this while it handles one
        if self._submission_store and not is_timeout and self._submission_store.another_try_adopts():
            self.log.info("%s is not stopped: another try of this Airflow task follows.", self._what(self._external_id))
            return
        from airflow_modelarts.api.retry import RetryPolicy

        # Airflow grants five seconds. It may have interrupted the hook in the middle of anything.
        retries = RetryPolicy(attempts=3, max_delay=1.0, max_retry_after=1.0)
        with self._hook.clone(retries) as hook:
            self._stop(hook, self._external_id, retries)

    # What the mixin asks

    def submit_job(self, context: Context) -> str:
        """Submit it, unless an earlier try has; return its id."""
        self._seen = None  # what the mixin has looked at was submitted by an earlier try
        return self._submit(context, self._submission_store.pending if self._submission_store else None)

    def get_job_status(self, external_id: Any, context: Context) -> str:
        """Read how what an earlier try submitted is; an outage is waited out."""
        from airflow_modelarts.api.errors import ModelArtsNotFoundError

        try:
            self._seen = self._poll(external_id)
        except ModelArtsNotFoundError as error:
            self.log.warning("%s", error)
            return DELETED
        status = self._status_once_cleared(external_id, self._seen.status)
        self._seen = None  # it may have changed since
        return status_name(status)

    def is_job_active(self, status: str) -> bool:
        """Whether it has not ended."""
        return status != DELETED and status not in map(status_name, TERMINAL_STATUSES)

    def is_job_succeeded(self, status: str) -> bool:
        """Whether it has ended, and not in a failure; a stop that nobody has heard of may have been Airflow's own."""
        if status == status_name(ProcessorTaskStatus.STOPPED) and not (
            self._submission_store and self._submission_store.is_done
        ):
            return False
        return status in map(status_name, TERMINAL_STATUSES - set(self.failed_statuses))

    def poll_until_complete(self, external_id: Any, context: Context) -> Any:
        """Wait for the end, here or in the triggerer, and return what there is to push."""
        self._announce(context, external_id)
        if self._killed:
            self.on_kill()  # the signal came while nobody knew the id
        if not self.wait_for_completion:
            return self.get_job_result(external_id, context)
        if self.deferrable and not self._killed:  # whoever takes over would not know that the stop is Airflow's own
            raise self._deferral(context, external_id)
        self._seen = self._poller(external_id).until(lambda seen: seen.is_terminal, self.poll_interval)
        return self.get_job_result(external_id, context)

    def get_job_result(self, external_id: Any, context: Context) -> Any:
        """Judge the end, and push what there is to tell; once, however often it is asked for."""
        if self._concluded is None:
            self._concluded = self._judge(external_id, context)
        return self._concluded

    # Inside

    def _announce(self, context: Context, external_id: str) -> None:
        """Push the ids and leave the link, as soon as they are known."""
        self._external_id = external_id
        task_id, version_id = self._ids(external_id)
        if self.do_xcom_push:
            context["ti"].xcom_push(key="processor_task_id", value=task_id)
            if version_id is not None:
                context["ti"].xcom_push(key="task_version_id", value=version_id)
        self._link(context, self._open(), task_id)

    def _judge(self, external_id: str, context: Context) -> Any:
        if self._external_id is None:
            self._announce(context, external_id)  # it had ended before this try, for which Airflow clears the XComs
        if self._seen is None:
            self._seen = self._poll(external_id)
        is_stopped = self._seen.status == ProcessorTaskStatus.STOPPED
        is_failure = self.wait_for_completion and self._seen.status in self.failed_statuses
        if is_failure or (is_stopped and self._killed):
            self._note_for_lineage(self._seen)
            raise self._failure(external_id)
        concluded = self._conclude(context, external_id)
        if self._submission_store:
            self._submission_store.conclude()
        return concluded

    def _adopts(self, external_id: str, status: int | None) -> bool:
        """Whether what an earlier try submitted is to be adopted; what a user has cleared is stopped instead."""
        name = status_name(self._status_once_cleared(external_id, status))
        return self.is_job_active(name) or self.is_job_succeeded(name)

    def _status_once_cleared(self, external_id: str, status: int | None) -> int | None:
        """Return the status of what an earlier try submitted, once it is stopped if a user has cleared that try."""
        if self._submission_store is None or not self._submission_store.was_cleared:
            return status
        # The triggerer that waited for it stops it. A trigger that is still there would see a stop of ours, and Airflow
        # would resume this try by its event.
        for _ in range(TRIGGER_GRACE):
            if not self.is_job_active(status_name(status)):
                return status
            time.sleep(1.0)
            status = self._poll(external_id).status
        if not self.is_job_active(status_name(status)):
            return status
        from airflow_modelarts.api.procedures import LONG_RETRIES

        self.log.info("%s was submitted before this Airflow task was cleared; stopping it.", self._what(external_id))
        return ProcessorTaskStatus.STOPPED if self._stop(self._open(), external_id, LONG_RETRIES) else status

    def _stop(self, hook: ModelArtsHook, external_id: str, retries: RetryPolicy) -> bool:
        """Stop the running versions; return False, with the reason in the log, where that is not possible."""
        from airflow_modelarts.api import procedures
        from airflow_modelarts.api.errors import ModelArtsError
        from airflow_modelarts.api.targets import Target

        try:
            report = hook.run(procedures.stop(Target(*self._ids(external_id)), retries))
        except ModelArtsError as error:
            self.log.warning("%s", error)
            return False
        report.log(self.log)
        return not report.errors

    def _failure(self, external_id: str) -> ModelArtsProcessorTaskFailed:
        reason = getattr(self._seen, "error_msg", None) or "the service gave no error_msg"
        what = self._what(external_id)
        return ModelArtsProcessorTaskFailed(f"{what} {status_name(self._seen.status)}: {reason}")

    def _what(self, external_id: str) -> str:
        task_id, version_id = self._ids(external_id)
        if version_id is None:
            return f"Processing task '{task_id}'"
        return f"Version '{version_id}' of processing task '{task_id}'"

    def _conclude(self, context: Context, external_id: str) -> Any:
        """Read the task and its version, and push what they say."""
        task_id, version_id = self._ids(external_id)
        if version_id is None:
            return self._publish(context, self._seen, self._newest_version(self._seen))
        from airflow_modelarts.api import client, operations, procedures

        described = client.call(operations.describe_processor_task(task_id), procedures.LONG_RETRIES)
        return self._publish(context, self._open().run(described), self._seen)

    def _newest_version(self, task: ProcessorTask) -> ProcessorTaskVersion | None:
        from airflow_modelarts.api import procedures
        from airflow_modelarts.api.errors import ModelArtsNotFoundError, ModelArtsRequestError
        from airflow_modelarts.api.models import FEATURE_ANALYSIS

        if task.template is not None and task.template.id == FEATURE_ANALYSIS:
            return None
        try:
            return self._open().run(procedures.newest_version(task.task_id))
        except (ModelArtsNotFoundError, ModelArtsRequestError) as error:
            # Nobody knows what the service says of a task that was created without a version. The task has succeeded.
            self.log.warning("%s", error)
            return None

    def _run_submission(self, submit: Callable[[Submission], Flow[str]], *, may_exist: bool) -> str:
        """
        Run a procedure that submits; if certainly nothing was submitted, forget the intent.

        :param may_exist: whether an earlier try may have submitted the same.
        """
        from airflow_modelarts.api.errors import ModelArtsError
        from airflow_modelarts.api.procedures import Submission

        submission = Submission(
            may_exist=may_exist,
            is_killed=lambda: self._killed,  # Airflow 3 lets a try go on after on_kill
            on_lookup=lambda error: self.log.warning("%s Checking whether it was created anyway.", error),
        )
        try:
            return self._open().run(submit(submission))
        except ModelArtsError as error:
            if not error.outcome_unknown:
                self._forget()
            raise

    def _forget(self) -> None:
        """Forget the submission: a later try that took it for pending would adopt what somebody else has made."""
        if self._submission_store:
            self._submission_store.forget()

    def _open(self) -> ModelArtsHook:
        assert self._hook is not None  # noqa: S101  # nosec B101 - every way in opens it
        return self._hook

    def _poll(self, external_id: str) -> Any:
        """Read what was submitted; an outage is waited out."""
        return self._poller(external_id).until(lambda _: True, self.poll_interval)

    def _poller(self, external_id: str) -> StatusPoller[Any]:
        return StatusPoller(self._what(external_id), lambda: self._read(external_id), self.log)

    def _recall(self, context: Context) -> str | None:
        """Return the id that this try submitted, for a worker that was told no more than that the time is over."""
        memory = SubmissionStore.of(context, self.external_id_key) if self.durable else None
        if memory is not None:
            return memory.external_id
        recalled: str | None = context["ti"].xcom_pull(
            task_ids=self.task_id, key=self._id_xcom, map_indexes=context["ti"].map_index
        )
        return recalled

    def _deferral(self, context: Context, external_id: str, deadline: float | None = None) -> TaskDeferred:
        """Hand the wait over to the triggerer, for as long as ``execution_timeout`` leaves."""
        from airflow_modelarts.triggers import DEFERRED_TRY_KEY, ProcessorTaskTrigger

        if AIRFLOW_V_3_3_PLUS:
            context["ti"].xcom_push(key=DEFERRED_TRY_KEY, value=context["ti"].try_number)
        if deadline is None and self.execution_timeout:
            started = context["ti"].start_date
            deadline = started.timestamp() + self.execution_timeout.total_seconds() if started else None
        task_id, version_id = self._ids(external_id)
        trigger = ProcessorTaskTrigger(
            processor_task_id=task_id,
            modelarts_conn_id=self.modelarts_conn_id,
            project_id=self.project_id,
            poll_interval=self.poll_interval,
            workspace_id=getattr(self, "workspace_id", None),
            task_version_id=version_id,
            stop_on_kill=True,
        )
        return TaskDeferred(
            trigger=trigger,
            method_name="execute_complete",
            kwargs={"deadline": deadline},
            timeout=None if deadline is None else timedelta(seconds=max(deadline - time.time(), 0.0)),
        )
