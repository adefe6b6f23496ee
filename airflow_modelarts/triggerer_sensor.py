"""Waits that start or end in the triggerer without a worker, and why one cannot (Airflow 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, XComArg, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.base import WaitingOperator
from airflow_modelarts.templating import ID

if TYPE_CHECKING:
    from airflow.triggers.base import StartTriggerArgs

TRIGGER = "airflow_modelarts.triggers.ProcessorTaskTrigger"
#: The templated fields that the trigger has too.
FIELDS = ("processor_task_id", "task_version_id", "modelarts_conn_id", "project_id")
#: The variables of a template that can be rendered in a triggerer. Others may need a worker; ``ti`` does.
RENDERED_IN_TRIGGERER = frozenset(
    {"conf", "dag_run", "data_interval_end", "data_interval_start", "ds", "ds_nodash", "logical_date"}
    | {"macros", "params", "run_id", "ts", "ts_nodash", "ts_nodash_with_tz"}
)


class _ComputedAttribute:
    """An attribute of an operator that is computed each time it is read.

    It depends on ``outlets``, callbacks and templates, which can be set until Airflow stores the DAG. A property would
    not do: for a mapped operator Airflow reads the attribute of the class, and expects the default there.

    :param requested: name of the attribute that holds what the user asked for.
    """

    def __init__(self, default: Any, requested: str, compute: Callable[[Any], Any]) -> None:
        self._default = default
        self._requested = requested
        self._compute = compute

    def __get__(self, operator: Any, owner: type) -> Any:
        is_requested = operator is not None and getattr(operator, self._requested)
        return self._compute(operator) if is_requested else self._default

    def __set__(self, operator: Any, value: Any) -> None:
        setattr(operator, self._requested, bool(value))


class TriggererSensor(WaitingOperator, BaseSensorOperator):
    """A sensor with ``start_from_trigger`` and ``end_from_trigger``, which Airflow reads when it stores the DAG."""

    processor_task_id: str

    #: What the user asked for. Airflow's own constructor reads what follows from it before ours sets it.
    _start_requested = False
    _end_requested = False
    # What Airflow reads.
    start_from_trigger: Any = _ComputedAttribute(
        False, "_start_requested", lambda self: not self._why_start_on_worker()
    )
    start_trigger_args: Any = _ComputedAttribute(None, "_start_requested", lambda self: self._start_trigger_args())
    end_from_trigger: Any = _ComputedAttribute(False, "_end_requested", lambda self: not self._why_end_on_worker())

    def _request_triggerer(self, *, start: bool, end: bool) -> None:
        """Set what the user asked for; both need a deferral."""
        self.deferrable = self.deferrable or start or end
        self._start_requested, self._end_requested = start, end

    def _log_why_on_worker(self) -> None:
        """Log why a worker does what the user wants the triggerer to do."""
        reasons = {
            "start_from_trigger": self._why_start_on_worker() if self._start_requested else "",
            "end_from_trigger": self._why_end_on_worker() if self._end_requested else "",
        }
        for argument, reason in reasons.items():
            if reason:
                self.log.info("This wait uses a worker: %s is not possible, since %s.", argument, reason)

    def _start_trigger_args(self) -> StartTriggerArgs | None:
        if not self.start_from_trigger:
            return None
        from airflow.triggers.base import StartTriggerArgs

        from airflow_modelarts.rendering import read_argument

        fields = {name: read_argument(getattr(self, name), ID) for name in FIELDS}
        arguments: dict[str, Any] = {**fields, **self._trigger_arguments(), "look_at_once": True}
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
        """Return why the wait cannot start in the triggerer; empty when it can."""
        if not AIRFLOW_V_3_3_PLUS:
            return "it needs Airflow 3.3"
        if getattr(self, "_BaseOperator__from_mapped", False):
            return "Airflow starts mapped tasks on a worker"
        if conf.getboolean("triggerer", "queues_enabled", fallback=False):
            return (
                "triggerers have queues here ([triggerer] queues_enabled), and Airflow assigns none to a wait that "
                "starts in a triggerer, so those with --queues would never run it"
            )
        for name in self.template_fields:
            value = self._as_written(name)
            if isinstance(value, XComArg):
                if name != "processor_task_id":
                    return f"{name} is the output of a task, and a triggerer can look up only that of processor_task_id"
                if not _is_one_output(value):
                    return f"{name} is more than one output of one task"
            elif isinstance(value, str):
                if reason := _why_not_rendered_in_triggerer(value):
                    return f"the template of {name} {reason}"
            elif value is not None and not isinstance(value, int):  # of a mapped task group, for example
                return f"{name} is known only when the task runs"
        return ""

    def _why_end_on_worker(self) -> str:
        """Return why the wait cannot succeed in the triggerer; empty when it can."""
        if not AIRFLOW_V_3_3_PLUS:
            return "it needs Airflow 3.3"
        lost = ", ".join(name for name, is_set in self._only_on_a_worker().items() if is_set)
        return f"Airflow does this only where a worker ends the task: {lost}" if lost else ""

    def _only_on_a_worker(self) -> dict[str, bool]:
        """Return what Airflow 3.3 leaves out when a trigger declares the success, and whether this sensor has it."""
        from airflow_modelarts.links import ModelArtsConsoleLink

        never_on_a_worker = bool(self.start_from_trigger)
        return {
            "outlets": bool(self.outlets),
            "on_success_callback": bool(self.on_success_callback),
            "on_execute_callback": never_on_a_worker and bool(self.on_execute_callback),
            "pre_execute": never_on_a_worker and self._has_hook("pre_execute"),
            "post_execute": self._has_hook("post_execute"),
            "execute_complete of a subclass": self._overrides("execute_complete", self._own_class()),
            "operator_extra_links": any(type(one) is not ModelArtsConsoleLink for one in self.operator_extra_links),
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

    def _own_class(self) -> type:
        """Return the sensor's class of this package, of which a user's class may be a subclass."""
        return next(one for one in type(self).__mro__ if TriggererSensor in one.__bases__)

    def _trigger_arguments(self) -> dict[str, Any]:
        return {
            "poll_interval": self.poke_interval,
            "end_from_trigger": self.end_from_trigger,
            "push_return_value": bool(self.do_xcom_push),
            "failed_statuses": list(self.failed_statuses),
        }


def _is_one_output(value: Any) -> bool:
    return type(value).__name__ == "PlainXComArg" and not getattr(value.operator, "is_mapped", False)


def _why_not_rendered_in_triggerer(text: str) -> str:
    """Return why a template needs a worker; empty when it does not."""
    from jinja2 import Environment, TemplateSyntaxError, meta

    try:
        names = meta.find_undeclared_variables(Environment(autoescape=True).parse(text))
    except TemplateSyntaxError as error:  # it may be valid: Airflow and the DAG can add filters
        return f"cannot be checked ({error.message})"
    foreign = sorted(names - RENDERED_IN_TRIGGERER)
    return f"uses {', '.join(foreign)}, which a triggerer cannot look up" if foreign else ""
