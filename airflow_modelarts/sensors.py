"""The sensor. Whatever is heavy is imported where it runs, since every DAG file pays for the imports at the top."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    TaskDeferred,
    XComArg,
    conf,
)
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus, outcome, status_name
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.waiting import Lookout

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.models import ProcessorTask

TRIGGER = "airflow_modelarts.triggers.ProcessorTaskTrigger"
#: What a template may use that is rendered in a triggerer; anything else may need a worker, ``ti`` certainly does.
RENDERED_IN_TRIGGERER = frozenset(
    {"conf", "dag_run", "data_interval_end", "data_interval_start", "ds", "ds_nodash", "logical_date"}
    | {"macros", "params", "run_id", "ts", "ts_nodash", "ts_nodash_with_tz"}
)


class ModelArtsProcessorTaskSensor(BaseSensorOperator):
    """
    Waits until a processing task has ended: completed (2), failed (3) or stopped (4).

    Its XCom is ``{"task_id": …, "status": 2, "status_name": "completed"}``.

    While the service is out of order, throttles, or answers nonsense, the sensor goes on waiting until its own
    ``timeout``; with growing pauses, except in mode ``reschedule``, where nothing is remembered between two pokes.
    Refused credentials, an unknown task and a wrong project or endpoint fail it at once.

    On a worker it calls DescribeProcessorTask once a poke. Deferred, all waits on a connection share one poll in the
    triggerer, see :mod:`airflow_modelarts.watcher`. Outcome, XCom, timeout and failure are the same in every mode, but
    for ``never_fail`` on Airflow 3: after a timeout a deferred sensor is skipped there, and one on a worker fails.

    :param processor_task_id: the processing task's id (templated).
    :param failed_statuses: ends that fail the sensor, with the service's ``error_msg``; default 3 and 4. With ``()`` it
        succeeds at any end and says in its XCom which one it was.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :param deferrable: wait in the triggerer after a first look on the worker; default is Airflow's
        ``[operators] default_deferrable``.
    :param start_from_trigger: wait in the triggerer from the start, without that first look (Airflow 3.3). Where that
        cannot be, the sensor starts on a worker and logs why. Implies ``deferrable``.
    :param end_from_trigger: succeed in the triggerer, so that no worker is needed in the end either (Airflow 3.3);
        failures still end on a worker. A DAG with it does not import where an Airflow listener is installed, such as
        OpenLineage's. Implies ``deferrable``.
    :raises ValueError: ``failed_statuses`` has one that is no end.
    :raises ModelArtsProcessorTaskFailed: the task ended with a status in ``failed_statuses``; with ``soft_fail`` the
        sensor is skipped instead.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    template_fields: Sequence[str] = ("processor_task_id", "modelarts_conn_id", "project_id")
    ui_color = "#ffe4e1"

    def __init__(
        self,
        *,
        processor_task_id: str,
        failed_statuses: Iterable[int] = (ProcessorTaskStatus.FAILED, ProcessorTaskStatus.STOPPED),
        modelarts_conn_id: str = "modelarts_default",
        project_id: str | None = None,
        deferrable: bool | None = None,
        start_from_trigger: bool = False,
        end_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.processor_task_id = processor_task_id
        self.failed_statuses = tuple(int(status) for status in failed_statuses)
        self.modelarts_conn_id = modelarts_conn_id
        self.project_id = project_id
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable or start_from_trigger or end_from_trigger
        if not TERMINAL_STATUSES.issuperset(self.failed_statuses):
            raise ValueError(f"failed_statuses is {self.failed_statuses}: only 2, 3 and 4 are ends of a task")
        self.end_from_trigger = end_from_trigger and AIRFLOW_V_3_3_PLUS
        self._worker_because: list[str] = []
        if end_from_trigger and not self.end_from_trigger:
            self._worker_because.append("end_from_trigger needs Airflow 3.3")
        if start_from_trigger:
            self._start_from_trigger_if_possible()
        self._executing = False
        self._lookout: Lookout[ProcessorTask] | None = None

    def execute(self, context: Context) -> Any:
        """Wait, in the mode that was asked for."""
        for reason in self._worker_because:
            self.log.info("This wait uses a worker: %s.", reason)
        self._executing = True
        return super().execute(context)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Read the task once (DescribeProcessorTask)."""
        task = self._read()
        if task is not None and task.is_terminal:
            return PokeReturnValue(is_done=True, xcom_value=self._conclude(task))
        if self.deferrable and self._executing:
            raise self._deferral(time.time() + self.timeout, task)
        return False

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, deadline: float | None = None
    ) -> dict[str, Any]:
        """
        Conclude what the trigger found. For a success that is all; a failure is read once more, for its message.

        :param event: of the trigger.
        :param deadline: when the sensor's ``timeout`` is over, in seconds since the epoch.
        """
        event = event or {}
        status = event.get("status")
        if status in TERMINAL_STATUSES and status not in self.failed_statuses:
            return outcome(event["task_id"], status)
        task = self._read_after_trigger()
        if task is not None and task.is_terminal:
            return self._conclude(task)
        if status in TERMINAL_STATUSES:
            raise self._failure(event["task_id"], status, "its message could not be read")
        started: datetime = context["ti"].start_date
        raise self._deferral(deadline or started.timestamp() + self.timeout, task)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Conclude the wait; what went wrong has the same outcome here as in the modes that stay on a worker."""
        from airflow_modelarts.api.errors import ModelArtsError

        # In words, since Airflow 2 has two ways to say it.
        timed_out = "timeout" in str((next_kwargs or {}).get("error", "")).lower()
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSkipException as skip:
            # Airflow 3 puts a skip of its own around ours, which says more.
            raise skip.__cause__ if isinstance(skip.__cause__, AirflowSkipException) else skip  # noqa: B904
        except (ModelArtsError, ModelArtsProcessorTaskFailed) as error:
            if self.never_fail:  # Airflow 2 looks at soft_fail alone
                raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
            raise
        except Exception as error:
            if not timed_out:
                raise
            if self.soft_fail:  # Airflow 3.0 forgets it when the time of a deferred sensor is over
                raise AirflowSkipException("timeout is over, and the processing task has not ended") from error
            if self.execution_timeout and self.execution_timeout.total_seconds() < self.timeout:
                raise AirflowTaskTimeout("execution_timeout is over, and the processing task has not ended") from error
            raise AirflowSensorTimeout("timeout is over, and the processing task has not ended") from error

    def _start_from_trigger_if_possible(self) -> None:
        reason = self._why_not_in_triggerer()
        if reason:
            self._worker_because.append(f"start_from_trigger is not possible, since {reason}")
            return
        from airflow.triggers.base import StartTriggerArgs

        arguments: dict[str, Any] = {**self._trigger_arguments(), "look_at_once": True}
        if isinstance(self.processor_task_id, XComArg):
            upstream: Any = self.processor_task_id
            arguments |= {
                "processor_task_id": "",
                "upstream": {"task_id": upstream.operator.task_id, "key": upstream.key},
            }
        self.start_from_trigger = True
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=TRIGGER,
            trigger_kwargs=arguments,
            next_method="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def _why_not_in_triggerer(self) -> str:
        """Say why the wait cannot start in the triggerer; empty when it can."""
        if not AIRFLOW_V_3_3_PLUS:
            return "it needs Airflow 3.3"
        for name in self.template_fields:
            value = getattr(self, name)
            if isinstance(value, XComArg):
                if name != "processor_task_id" or not _is_one_output(value):
                    return f"{name} is more than one output of one task"
            elif isinstance(value, str):
                if reason := _why_not_rendered_in_triggerer(value):
                    return f"the template of {name} {reason}"
            elif value is not None:  # of a mapped task group, for example
                return f"{name} is known only when the task runs"
        return ""

    def _trigger_arguments(self) -> dict[str, Any]:
        return {
            "processor_task_id": self.processor_task_id,
            "modelarts_conn_id": self.modelarts_conn_id,
            "project_id": self.project_id,
            "poll_interval": self.poke_interval,
            "end_from_trigger": self.end_from_trigger,
            "push_return_value": self.do_xcom_push,
            "failed_statuses": list(self.failed_statuses),
        }

    def _deferral(self, deadline: float, task: ProcessorTask | None) -> TaskDeferred:
        """Hand the wait over to the triggerer, for as long as the timeout that comes first leaves."""
        from airflow_modelarts.triggers import ProcessorTaskTrigger

        seconds = deadline - time.time()
        if self.execution_timeout:  # counted from the same start
            seconds = min(seconds, seconds - self.timeout + self.execution_timeout.total_seconds())
        workspace_id = task.workspace_id if task else None
        return TaskDeferred(
            trigger=ProcessorTaskTrigger(**self._trigger_arguments(), workspace_id=workspace_id),
            method_name="execute_complete",
            kwargs={"deadline": deadline},
            timeout=timedelta(seconds=max(seconds, 0.0)),
        )

    def _conclude(self, task: ProcessorTask) -> dict[str, Any]:
        """Turn the end of the task into the sensor's XCom, or into its failure."""
        if task.status in self.failed_statuses:
            raise self._failure(task.task_id, task.status, task.error_msg or "the service gave no error_msg")
        return outcome(task.task_id, task.status)

    def _failure(self, task_id: str, status: int | None, reason: str) -> AirflowException:
        message = f"Processing task '{task_id}' {status_name(status)}: {reason}"
        if self.soft_fail:
            return AirflowSkipException(message)
        if self.silent_fail:
            # It would swallow any other exception, and go on asking after a task that has ended.
            return AirflowFailException(message)
        return ModelArtsProcessorTaskFailed(message)

    def _read_after_trigger(self) -> ProcessorTask | None:
        from airflow_modelarts.api.errors import ModelArtsError

        try:
            return self._read()
        except ModelArtsError as error:
            if not self.silent_fail:
                raise
            self.log.error("%s The sensor goes on waiting, since silent_fail is set.", error)
            return None

    def _read(self) -> ProcessorTask | None:
        """Read the task; None while nobody can tell how it is."""
        if self._lookout is None:
            self._lookout = Lookout(f"Processing task '{self.processor_task_id}'", self._describe, self.log)
        return self._lookout.look()

    def _describe(self) -> ProcessorTask:
        from airflow_modelarts.api.exchange import Retries
        from airflow_modelarts.hooks import ModelArtsHook

        # The wait itself is the retry; one repetition spares a mere blip the whole poke interval.
        retries = Retries(attempts=2, longest_retry_after=5.0)
        with ModelArtsHook(self.modelarts_conn_id, project_id=self.project_id, retries=retries) as hook:
            return hook.describe_processor_task(self.processor_task_id)

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        """Stretch the pause during an outage, and let the service say how long; otherwise it is Airflow's own."""
        usual: float = super()._get_next_poke_interval(started_at, run_duration, poke_count)
        wanted = usual if self._lookout is None else self._lookout.pause(usual)
        # The wait must not sleep past its own timeout.
        return max(min(wanted, self.timeout - run_duration()), 0.0) if wanted > usual else usual


def _is_one_output(value: Any) -> bool:
    return type(value).__name__ == "PlainXComArg" and not getattr(value.operator, "is_mapped", False)


def _why_not_rendered_in_triggerer(text: str) -> str:
    """Say why a template needs a worker; empty when it does not."""
    from jinja2 import Environment, TemplateSyntaxError, meta

    try:
        names = meta.find_undeclared_variables(Environment(autoescape=True).parse(text))
    except TemplateSyntaxError as error:  # it may be right all the same: Airflow and the DAG have filters of their own
        return f"cannot be checked ({error.message})"
    foreign = sorted(names - RENDERED_IN_TRIGGERER)
    return f"uses {', '.join(foreign)}, which a triggerer cannot look up" if foreign else ""
