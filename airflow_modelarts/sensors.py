"""The sensor. Heavy modules are imported where they are used: every DAG file pays for the imports at the top."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    PokeReturnValue,
)

from airflow_modelarts.api.arguments import check_optional_text, check_text, read_flag, read_seconds
from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, outcome
from airflow_modelarts.base import (
    ExtraLinks,
    WaitingOperator,
    describe,
    describe_failure,
    describe_timeout,
    describe_wait,
    fails_fast,
    is_trigger_timeout,
)
from airflow_modelarts.templating import ID
from airflow_modelarts.triggerer_sensor import FIELDS, TriggererSensor

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context, TaskDeferred

    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
    from airflow_modelarts.api.targets import Target
    from airflow_modelarts.hooks import ModelArtsHook
    from airflow_modelarts.polling.status_poller import StatusPoller


class ModelArtsProcessorTaskSensor(TriggererSensor):
    """Waits until a processing task, or one version of it, has ended: completed (2), failed (3) or stopped (4).

    Its XCom is ``{"task_id": …, "status": 2, "status_name": "completed"}``, and ``task_version_id`` if that was given.

    Outages, throttling and unreadable answers do not end the wait before the sensor's own ``timeout``. During an outage
    it polls with backoff, except in mode ``reschedule``, which keeps nothing between two pokes. Refused credentials, an
    unknown task and a wrong project or endpoint fail the sensor at once.

    On a worker it calls DescribeProcessorTask, or DescribeProcessorTaskVersion, once a poke. Deferred, all waits on a
    connection share one poll in the triggerer, see ``polling.watcher``. Outcome, XCom, timeout and failure are the same
    in every mode, with one exception: on Airflow 3, ``never_fail`` skips a deferred sensor after a timeout, and a
    sensor on a worker fails.

    The events of its outlets describe the end, as those of an operator do. After a deferred wait that takes one or two
    requests more.

    :param processor_task_id: the processing task's id (templated).
    :param task_version_id: the version of it to wait for (templated), for example one that was started with
        ``wait_for_completion=False``; default None: the task itself.
    :param failed_statuses: statuses that fail the sensor, with the service's ``error_msg``, as numbers or names, for
        example ``["failed"]``; default 3 (failed) and 4 (stopped). With ``()`` it succeeds at any end; the XCom has the
        status.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :param fail_fast: fail without ``retries`` where a retry cannot mend the error, see
        :mod:`airflow_modelarts.api.permanence`; default false.
    :param deferrable: wait in the triggerer after a first poll on the worker; default is Airflow's
        ``[operators] default_deferrable``.
    :param start_from_trigger: wait in the triggerer from the start, without that first poll (Airflow 3.3). Where that
        is not possible, the sensor starts on a worker and logs why. Implies ``deferrable``.
    :param end_from_trigger: succeed in the triggerer, so that no worker is needed at the end either (Airflow 3.3);
        failures still end on a worker. Where Airflow would lose something by that, such as the asset events of
        ``outlets`` or ``on_success_callback``, successes end on a worker too, and the log says why. A DAG with it does
        not import where an Airflow listener is installed, such as OpenLineage's. Implies ``deferrable``.
    :param poke_interval: seconds between two polls, at most, or a timedelta; default 60.
    :raises ArgumentError: an argument cannot be right, such as a ``poke_interval`` of 0. It is a ``ValueError`` and a
        ``TypeError``.
    :raises ModelArtsRequestError: a templated argument rendered to nothing; nothing was sent.
    :raises ModelArtsProcessorTaskFailed: the task ended with a status in ``failed_statuses``; with ``soft_fail`` the
        sensor is skipped instead.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    template_fields: Sequence[str] = FIELDS
    usual_shape = ID
    operator_extra_links = ExtraLinks("ModelArtsConsoleLink")
    argument_checks: ClassVar = {
        **WaitingOperator.argument_checks,
        "processor_task_id": check_text,
        "task_version_id": check_optional_text,
        "poke_interval": read_seconds,
        **dict.fromkeys(("start_from_trigger", "end_from_trigger"), read_flag),
    }

    def __init__(
        self,
        *,
        processor_task_id: str,
        task_version_id: str | None = None,
        start_from_trigger: bool = False,
        end_from_trigger: bool = False,
        poke_interval: float | timedelta = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=read_seconds("poke_interval", poke_interval), **kwargs)
        self._check_arguments(
            processor_task_id=processor_task_id,
            task_version_id=task_version_id,
            start_from_trigger=start_from_trigger,
            end_from_trigger=end_from_trigger,
        )
        self.processor_task_id = processor_task_id
        self.task_version_id = task_version_id
        self._request_triggerer(start=start_from_trigger, end=end_from_trigger)
        self._executing = False
        self._hook: ModelArtsHook | None = None
        self._has_link = False
        self._known_status: int | None = None  # that the log has already
        self._poller: StatusPoller[ProcessorTask | ProcessorTaskVersion] | None = None

    @fails_fast
    def execute(self, context: Context) -> Any:
        """Wait, in the mode that the arguments choose."""
        self._prepare_fields()
        self._log_why_on_worker()
        self._executing = True
        return super().execute(context)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Read the task or its version once (DescribeProcessorTask, DescribeProcessorTaskVersion)."""
        self._prepare_fields()
        task = self._read()
        if task is not None:
            self._link(context)
        if task is not None and task.is_terminal:
            return PokeReturnValue(is_done=True, xcom_value=self._conclude(context, task))
        if self.deferrable and self._executing:
            raise self._defer(time.time() + self.timeout, task)
        return False

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, deadline: float | None = None
    ) -> dict[str, Any]:
        """Return what the trigger reports. After a failure the task is read once more, for its message.

        :param event: of the trigger.
        :param deadline: when the sensor's ``timeout`` is over, in seconds since the epoch; None when the wait began in
            the triggerer.
        """
        self._prepare_fields()
        if deadline is None:
            self._log_why_on_worker()
        event = event if isinstance(event, dict) else {}
        status = event.get("status")
        self._log_wait(context, event)
        if status in TERMINAL_STATUSES and status not in self.failed_statuses:
            return self._succeed(context, status, None)
        self._poller, self._known_status = None, status if status in TERMINAL_STATUSES else None
        task = self._read_after_trigger()
        if task is not None and task.is_terminal:
            return self._conclude(context, task)
        if status in TERMINAL_STATUSES:
            raise self._failure(status, "its message could not be read")
        started: datetime = context["ti"].start_date
        raise self._defer(deadline or started.timestamp() + self.timeout, task)

    @fails_fast
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after the deferred wait; errors have the same outcome as in the modes that stay on a worker."""
        from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed

        self._prepare_fields()  # outside of the try: never_fail must not skip for a refused argument
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSkipException as skip:
            # Airflow 3 raises a skip of its own from ours, whose message says more.
            raise skip.__cause__ if isinstance(skip.__cause__, AirflowSkipException) else skip  # noqa: B904
        except (ModelArtsError, ModelArtsProcessorTaskFailed) as error:
            if self.never_fail:  # Airflow 2 reads soft_fail only
                raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
            raise
        except Exception as error:
            if not is_trigger_timeout(next_kwargs):
                raise
            if self.soft_fail:  # Airflow 3.0 ignores it after the timeout of a deferred sensor
                raise AirflowSkipException(describe_timeout("timeout")) from error
            if self.execution_timeout and self.execution_timeout.total_seconds() < self.timeout:
                raise AirflowTaskTimeout(describe_timeout("execution_timeout")) from error
            raise AirflowSensorTimeout(describe_timeout("timeout")) from error

    def _log_wait(self, context: Context, event: dict[str, Any]) -> None:
        started = getattr(context.get("ti"), "start_date", None)
        if started and (text := describe_wait(self._target(), event, time.time() - started.timestamp())):
            self.log.info("%s", text)

    def _link(self, context: Context) -> None:
        """Store the link to the console, once for each process."""
        if not self._has_link and self._hook is not None and "ti" in context:
            from airflow_modelarts.links import ModelArtsConsoleLink

            self._has_link = True
            ModelArtsConsoleLink.persist(context, self, self.processor_task_id, self._hook.get_conn())

    def _target(self) -> Target:
        from airflow_modelarts.api.targets import Target

        return Target(self.processor_task_id, self.task_version_id)

    def _defer(self, deadline: float, task: ProcessorTask | ProcessorTaskVersion | None) -> TaskDeferred:
        """Hand the wait over to the triggerer, for as long as the timeout that comes first leaves."""
        seconds = deadline - time.time()
        if self.execution_timeout:  # counted from the same start
            seconds = min(seconds, seconds - self.timeout + self.execution_timeout.total_seconds())
        workspace_id = getattr(task, "workspace_id", None)  # a version has none
        return self._deferral(self._target(), workspace_id, deadline, seconds)

    def _conclude(self, context: Context, task: ProcessorTask | ProcessorTaskVersion) -> dict[str, Any]:
        """Return the XCom of a task or version that has ended, or raise its failure."""
        if task.status in self.failed_statuses:
            raise self._failure(task.status, getattr(task, "error_msg", None))
        return self._succeed(context, task.status, task)

    def _succeed(
        self, context: Context, status: int | None, seen: ProcessorTask | ProcessorTaskVersion | None
    ) -> dict[str, Any]:
        """Return the XCom of a success, and emit the asset events.

        :param seen: what was waited for; None if only the trigger has read it.
        """
        if self.outlets and "outlet_events" in context:  # a test of a DAG may execute it without them
            self._describe_end(context, status, seen)
        return outcome(self.processor_task_id, status, self.task_version_id)

    def _describe_end(self, context: Context, status: int | None, seen: Any) -> None:
        from airflow_modelarts.api import procedures
        from airflow_modelarts.api.errors import ModelArtsNotFoundError

        with self._open_hook() as hook:
            try:
                task, version = hook.run(procedures.read_end(self._target(), seen))
            except ModelArtsNotFoundError as error:
                self.log.warning("%s The events of the outlets do not describe it.", error)
                return
            if version is None:  # it may run again already
                task = task.model_copy(update={"status": status})
            self._emit_asset_events(context, hook, task, version, is_end_of_version=version is not None)

    def _failure(self, status: int | None, reason: str | None) -> AirflowException:
        from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed

        message = describe_failure(self._target(), status, reason)
        if self.soft_fail:
            return AirflowSkipException(message)
        if self.silent_fail:
            # It would ignore any other exception, and keep polling a task that has ended.
            return AirflowFailException(message)
        # A retry reads the same task.
        return ModelArtsProcessorTaskFailed(message, is_permanent=True)

    def _read_after_trigger(self) -> ProcessorTask | ProcessorTaskVersion | None:
        try:
            return self._read()
        except ModelArtsError as error:
            if not self.silent_fail:
                raise
            self.log.error("%s The sensor keeps waiting, because silent_fail is set.", error)
            return None

    def _read(self) -> ProcessorTask | ProcessorTaskVersion | None:
        """Read what is waited for; None during an outage."""
        if self._poller is None:
            from airflow_modelarts.polling.status_poller import StatusPoller

            self._poller = StatusPoller(str(self._target()), self._describe, self.log, self._known_status)
        return self._poller.poll()

    def _describe(self) -> ProcessorTask | ProcessorTaskVersion:
        from airflow_modelarts.api.retry import RetryPolicy

        # The wait itself retries. A second attempt keeps a brief fault from costing a whole poke interval.
        # One hook for all pokes: a connection that could be read once is not lost while its backend has a fault.
        if self._hook is None:
            self._hook = self._open_hook(RetryPolicy(attempts=2, max_retry_after=5.0))
        with self._hook as hook:
            return describe(hook, self._target())

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        """Return Airflow's own interval; during an outage, with backoff and no shorter than the service asks for."""
        usual: float = super()._get_next_poke_interval(started_at, run_duration, poke_count)
        wanted = usual if self._poller is None else self._poller.pause(usual)
        # The wait must not sleep beyond its own timeout.
        return max(min(wanted, self.timeout - run_duration()), 0.0) if wanted > usual else usual
