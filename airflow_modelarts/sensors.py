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

from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus, outcome, read_ends, status_name
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.polling.status_poller import StatusPoller
from airflow_modelarts.templating import RefusesEmptyFields, as_text, own_template_fields

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import StartTriggerArgs

    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion

TRIGGER = "airflow_modelarts.triggers.ProcessorTaskTrigger"
#: What a template may use that is rendered in a triggerer; anything else may need a worker, ``ti`` certainly does.
RENDERED_IN_TRIGGERER = frozenset(
    {"conf", "dag_run", "data_interval_end", "data_interval_start", "ds", "ds_nodash", "logical_date"}
    | {"macros", "params", "run_id", "ts", "ts_nodash", "ts_nodash_with_tz"}
)


class _WorkedOut:
    """
    An attribute of an operator that is worked out each time it is read, since what it depends on may be set late.

    Airflow reads ``outlets``, callbacks and templates when it stores the DAG, and so may be set until then. A property
    would not do: of a mapped operator Airflow reads the class, and expects the default there.
    """

    def __init__(self, default: Any, asked_for: str, work_out: Callable[[Any], Any]) -> None:
        self._default = default
        self._asked_for = asked_for
        self._work_out = work_out

    def __get__(self, operator: Any, owner: type) -> Any:
        asked_for = operator is not None and getattr(operator, self._asked_for)
        return self._work_out(operator) if asked_for else self._default

    def __set__(self, operator: Any, value: Any) -> None:
        setattr(operator, self._asked_for, bool(value))


class ModelArtsProcessorTaskSensor(RefusesEmptyFields, BaseSensorOperator):
    """
    Waits until a processing task, or one version of it, has ended: completed (2), failed (3) or stopped (4).

    Its XCom is ``{"task_id": …, "status": 2, "status_name": "completed"}``, and ``task_version_id`` if that was given.

    While the service is out of order, throttles, or answers nonsense, the sensor goes on waiting until its own
    ``timeout``; with growing pauses, except in mode ``reschedule``, where nothing is remembered between two pokes.
    Refused credentials, an unknown task and a wrong project or endpoint fail it at once.

    On a worker it calls DescribeProcessorTask, or DescribeProcessorTaskVersion, once a poke. Deferred, all waits on a
    connection share one poll in the triggerer, see ``polling.watcher``. Outcome, XCom, timeout and failure
    are the same in every mode, but for ``never_fail`` on Airflow 3: after a timeout a deferred sensor is skipped there,
    and one on a worker fails.

    :param processor_task_id: the processing task's id (templated).
    :param task_version_id: the version of it to wait for (templated), for example one that was started with
        ``wait_for_completion=False``; default None: the task itself.
    :param failed_statuses: ends that fail the sensor, with the service's ``error_msg``, as numbers or names, for
        example ``["failed"]``; default 3 (failed) and 4 (stopped). With ``()`` it succeeds at any end and says in its
        XCom which one it was.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :param deferrable: wait in the triggerer after a first look on the worker; default is Airflow's
        ``[operators] default_deferrable``.
    :param start_from_trigger: wait in the triggerer from the start, without that first look (Airflow 3.3). Where that
        cannot be, the sensor starts on a worker and logs why. Implies ``deferrable``.
    :param end_from_trigger: succeed in the triggerer, so that no worker is needed in the end either (Airflow 3.3);
        failures still end on a worker. Where Airflow would lose something by that, such as the asset events of
        ``outlets`` or ``on_success_callback``, successes end on a worker too, and the log says why. A DAG with it does
        not import where an Airflow listener is installed, such as OpenLineage's. Implies ``deferrable``.
    :raises ValueError: ``failed_statuses`` has one that is no end.
    :raises ModelArtsRequestError: a templated argument rendered to nothing; nothing was sent.
    :raises ModelArtsProcessorTaskFailed: the task ended with a status in ``failed_statuses``; with ``soft_fail`` the
        sensor is skipped instead.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    template_fields: Sequence[str] = ("processor_task_id", "task_version_id", "modelarts_conn_id", "project_id")
    ui_color = "#ffe4e1"

    #: What was asked for; Airflow's own constructor looks at what follows from it before ours has set it.
    _asked_to_start = False
    _asked_to_end = False
    # What Airflow reads.
    start_from_trigger: Any = _WorkedOut(False, "_asked_to_start", lambda self: not self._why_start_on_worker())
    start_trigger_args: Any = _WorkedOut(None, "_asked_to_start", lambda self: self._start_trigger_args())
    end_from_trigger: Any = _WorkedOut(False, "_asked_to_end", lambda self: not self._why_end_on_worker())

    def __init__(
        self,
        *,
        processor_task_id: str,
        task_version_id: str | None = None,
        failed_statuses: Iterable[int | str] = (ProcessorTaskStatus.FAILED, ProcessorTaskStatus.STOPPED),
        modelarts_conn_id: str = "modelarts_default",
        project_id: str | None = None,
        deferrable: bool | None = None,
        start_from_trigger: bool = False,
        end_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.processor_task_id = processor_task_id
        self.task_version_id = task_version_id
        self.failed_statuses = read_ends("failed_statuses", failed_statuses)
        self.modelarts_conn_id = modelarts_conn_id
        self.project_id = project_id
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable or start_from_trigger or end_from_trigger
        self._asked_to_start = start_from_trigger
        self._asked_to_end = end_from_trigger
        self._executing = False
        self._poller: StatusPoller[ProcessorTask | ProcessorTaskVersion] | None = None

    def execute(self, context: Context) -> Any:
        """Wait, in the mode that was asked for."""
        self._prepare()
        self._say_why_on_worker()
        self._executing = True
        return super().execute(context)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Read the task or its version once (DescribeProcessorTask, DescribeProcessorTaskVersion)."""
        self._prepare()
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
        :param deadline: when the sensor's ``timeout`` is over, in seconds since the epoch; None when the wait began in
            the triggerer.
        """
        self._prepare()
        if deadline is None:
            self._say_why_on_worker()
        event = event if isinstance(event, dict) else {}
        status = event.get("status")
        if status in TERMINAL_STATUSES and status not in self.failed_statuses:
            return outcome(event["task_id"], status, self.task_version_id)
        task = self._read_after_trigger()
        if task is not None and task.is_terminal:
            return self._conclude(task)
        if status in TERMINAL_STATUSES:
            raise self._failure(status, "its message could not be read")
        started: datetime = context["ti"].start_date
        raise self._deferral(deadline or started.timestamp() + self.timeout, task)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Conclude the wait; what went wrong has the same outcome here as in the modes that stay on a worker."""
        from airflow_modelarts.api.errors import ModelArtsError

        self._prepare()  # its refusal is no end of the wait, which never_fail could turn into a skip
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

    def _prepare(self) -> None:
        """Refuse fields that rendered to nothing, and take ids for text: native rendering makes numbers of digits."""
        names = own_template_fields(type(self))
        self._refuse_empty_fields(names)
        for name in names:
            setattr(self, name, as_text(getattr(self, name)))

    def _say_why_on_worker(self) -> None:
        """Log why a worker does what was asked of the triggerer."""
        reasons = {
            "start_from_trigger": self._why_start_on_worker() if self._asked_to_start else "",
            "end_from_trigger": self._why_end_on_worker() if self._asked_to_end else "",
        }
        for asked_for, reason in reasons.items():
            if reason:
                self.log.info("This wait uses a worker: %s is not possible, since %s.", asked_for, reason)

    def _start_trigger_args(self) -> StartTriggerArgs | None:
        if not self.start_from_trigger:
            return None
        from airflow.triggers.base import StartTriggerArgs

        arguments: dict[str, Any] = {**self._trigger_arguments(), "look_at_once": True}
        if isinstance(self.processor_task_id, XComArg):
            upstream: Any = self.processor_task_id
            arguments |= {
                "processor_task_id": "",
                "upstream": {"task_id": upstream.operator.task_id, "key": upstream.key},
            }
        return StartTriggerArgs(
            trigger_cls=TRIGGER,
            trigger_kwargs=arguments,
            next_method="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def _why_start_on_worker(self) -> str:
        """Say why the wait cannot start in the triggerer; empty when it can."""
        if not AIRFLOW_V_3_3_PLUS:
            return "it needs Airflow 3.3"
        if getattr(self, "_BaseOperator__from_mapped", False):
            return "Airflow starts mapped tasks on a worker"
        if conf.getboolean("triggerer", "queues_enabled", fallback=False):
            return (
                "triggerers have queues here ([triggerer] queues_enabled), and to a wait that starts in one Airflow "
                "gives no queue, so that those with --queues would never take it"
            )
        for name in self.template_fields:
            value = self._as_written(name)
            if isinstance(value, XComArg):
                if name != "processor_task_id":
                    return f"{name} is the output of a task, and a triggerer looks up that of processor_task_id alone"
                if not _is_one_output(value):
                    return f"{name} is more than one output of one task"
            elif isinstance(value, str):
                if reason := _why_not_rendered_in_triggerer(value):
                    return f"the template of {name} {reason}"
            elif value is not None and not isinstance(value, int):  # of a mapped task group, for example
                return f"{name} is known only when the task runs"
        return ""

    def _why_end_on_worker(self) -> str:
        """Say why the wait cannot succeed in the triggerer; empty when it can."""
        if not AIRFLOW_V_3_3_PLUS:
            return "it needs Airflow 3.3"
        lost = ", ".join(name for name, is_set in self._only_on_a_worker().items() if is_set)
        return f"Airflow does this only where a worker ends the task: {lost}" if lost else ""

    def _only_on_a_worker(self) -> dict[str, bool]:
        """Return what a success that a trigger declares does not do (Airflow 3.3), and whether it is wanted here."""
        never_on_a_worker = bool(self.start_from_trigger)
        return {
            "outlets": bool(self.outlets),
            "on_success_callback": bool(self.on_success_callback),
            "on_execute_callback": never_on_a_worker and bool(self.on_execute_callback),
            "pre_execute": never_on_a_worker and self._has_hook("pre_execute"),
            "post_execute": self._has_hook("post_execute"),
            "execute_complete of a subclass": self._overrides("execute_complete", ModelArtsProcessorTaskSensor),
            "operator_extra_links": bool(self.operator_extra_links),
            "multiple_outputs": bool(getattr(self, "multiple_outputs", False)),
            "returns_dag_result": bool(getattr(self, "returns_dag_result", False)),
            "tasks that are mapped over the XCom": self._is_mapped_over(),
        }

    def _is_mapped_over(self) -> bool:
        has_dag: bool = self.has_dag()  # type: ignore[no-untyped-call]  # Airflow's own has no annotations
        return has_dag and any(True for _ in self.iter_mapped_dependants())

    def _has_hook(self, name: str) -> bool:
        return getattr(self, f"_{name}_hook", None) is not None or self._overrides(name, BaseSensorOperator)

    def _overrides(self, name: str, base: type) -> bool:
        return getattr(getattr(self, name), "__func__", None) is not getattr(base, name)

    def _trigger_arguments(self) -> dict[str, Any]:
        return {
            "processor_task_id": as_text(self.processor_task_id),
            "task_version_id": as_text(self.task_version_id),
            "modelarts_conn_id": as_text(self.modelarts_conn_id),
            "project_id": as_text(self.project_id),
            "poll_interval": self.poke_interval,
            "end_from_trigger": self.end_from_trigger,
            "push_return_value": self.do_xcom_push,
            "failed_statuses": list(self.failed_statuses),
        }

    def _deferral(self, deadline: float, task: ProcessorTask | ProcessorTaskVersion | None) -> TaskDeferred:
        """Hand the wait over to the triggerer, for as long as the timeout that comes first leaves."""
        from airflow_modelarts.triggers import ProcessorTaskTrigger

        seconds = deadline - time.time()
        if self.execution_timeout:  # counted from the same start
            seconds = min(seconds, seconds - self.timeout + self.execution_timeout.total_seconds())
        workspace_id = getattr(task, "workspace_id", None)  # a version has none
        return TaskDeferred(
            trigger=ProcessorTaskTrigger(**self._trigger_arguments(), workspace_id=workspace_id),
            method_name="execute_complete",
            kwargs={"deadline": deadline},
            timeout=timedelta(seconds=max(seconds, 0.0)),
        )

    def _conclude(self, task: ProcessorTask | ProcessorTaskVersion) -> dict[str, Any]:
        """Turn the end of what is waited for into the sensor's XCom, or into its failure."""
        if task.status in self.failed_statuses:
            raise self._failure(task.status, getattr(task, "error_msg", None) or "the service gave no error_msg")
        return outcome(self.processor_task_id, task.status, self.task_version_id)

    def _failure(self, status: int | None, reason: str) -> AirflowException:
        message = f"{self._what()} {status_name(status)}: {reason}"
        if self.soft_fail:
            return AirflowSkipException(message)
        if self.silent_fail:
            # It would swallow any other exception, and go on asking after a task that has ended.
            return AirflowFailException(message)
        return ModelArtsProcessorTaskFailed(message)

    def _what(self) -> str:
        if self.task_version_id is None:
            return f"Processing task '{self.processor_task_id}'"
        return f"Version '{self.task_version_id}' of processing task '{self.processor_task_id}'"

    def _read_after_trigger(self) -> ProcessorTask | ProcessorTaskVersion | None:
        from airflow_modelarts.api.errors import ModelArtsError

        try:
            return self._read()
        except ModelArtsError as error:
            if not self.silent_fail:
                raise
            self.log.error("%s The sensor goes on waiting, since silent_fail is set.", error)
            return None

    def _read(self) -> ProcessorTask | ProcessorTaskVersion | None:
        """Read what is waited for; None while nobody can tell how it is."""
        if self._poller is None:
            self._poller = StatusPoller(self._what(), self._describe, self.log)
        return self._poller.poll()

    def _describe(self) -> ProcessorTask | ProcessorTaskVersion:
        from airflow_modelarts.api.retry import RetryPolicy
        from airflow_modelarts.hooks import ModelArtsHook

        # The wait itself is the retry; one repetition spares a mere blip the whole poke interval.
        retries = RetryPolicy(attempts=2, max_retry_after=5.0)
        with ModelArtsHook(self.modelarts_conn_id, project_id=self.project_id, retries=retries) as hook:
            if self.task_version_id is None:
                return hook.describe_processor_task(self.processor_task_id)
            return hook.describe_processor_task_version(self.processor_task_id, self.task_version_id)

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        """Stretch the pause during an outage, and let the service say how long; otherwise it is Airflow's own."""
        usual: float = super()._get_next_poke_interval(started_at, run_duration, poke_count)
        wanted = usual if self._poller is None else self._poller.pause(usual)
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
