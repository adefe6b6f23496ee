"""What sensor and operators share: the connection, templated fields, and for those that wait deferral and timeouts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, TaskDeferred, conf

from airflow_modelarts.api.arguments import (
    check_optional_text,
    check_text,
    read_flag,
    read_optional_flag,
    refuse_unknown,
)
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus, read_ends, status_name
from airflow_modelarts.templating import TemplatedFields

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context

    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
    from airflow_modelarts.api.retry import RetryPolicy
    from airflow_modelarts.api.targets import Target
    from airflow_modelarts.hooks import ModelArtsHook

P = ParamSpec("P")
T = TypeVar("T")


class ExtraLinks:
    """The attribute ``operator_extra_links``, which imports the link when it is read: a DAG file needs none.

    It is no property, since Airflow reads it of the class too, for a mapped operator, and a user may set it.

    :param name: of the link's class in :mod:`airflow_modelarts.links`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, operator: object, owner: type) -> tuple[BaseOperatorLink, ...]:
        from airflow_modelarts import links

        return (getattr(links, self._name)(),)


def fails_fast(method: Callable[P, T]) -> Callable[P, T]:
    """Decorate what Airflow calls of an operator: with ``fail_fast`` it raises AirflowFailException where that applies.

    Airflow does not retry after that exception.
    """

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            from airflow_modelarts.api.permanence import is_permanent

            operator: Any = args[0]
            if operator.fail_fast and is_permanent(error):
                raise AirflowFailException(str(error)) from error
            raise

    return call


class ModelArtsOperator(TemplatedFields, BaseOperator):
    """An operator or sensor with a connection to ModelArts.

    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :param fail_fast: fail without ``retries`` where a retry cannot mend the error: a refused request, a wrong
        configuration, refused credentials, a missing task, a task that failed with a reason that will stay; default
        false.
    :raises AirflowFailException: in place of such an error, with ``fail_fast``.
    :raises ArgumentError: an argument cannot be right. It is a ``ValueError`` and a ``TypeError``.
    """

    #: Checks of arguments when a DAG is parsed, each a function of the argument's name and value.
    argument_checks: ClassVar[Mapping[str, Callable[[str, Any], object]]] = {
        "modelarts_conn_id": check_text,
        "project_id": check_optional_text,
        "fail_fast": read_flag,
    }
    #: Terminal statuses for which outlets get no event.
    failed_statuses: Collection[int] = (ProcessorTaskStatus.FAILED, ProcessorTaskStatus.STOPPED)
    template_fields: Sequence[str] = ("modelarts_conn_id", "project_id")
    ui_color = "#ffe4e1"

    def __init__(
        self,
        *,
        modelarts_conn_id: str = "modelarts_default",
        project_id: str | None = None,
        fail_fast: bool = False,
        **kwargs: Any,
    ) -> None:
        known = self._known_arguments()
        if "task_id" in known:  # otherwise Airflow's message, without the nearest name
            refuse_unknown(type(self).__name__, [name for name in kwargs if name not in known], known)
        super().__init__(**kwargs)
        self._check_arguments(modelarts_conn_id=modelarts_conn_id, project_id=project_id, fail_fast=fail_fast)
        self.modelarts_conn_id = modelarts_conn_id
        self.project_id = project_id
        self.fail_fast = fail_fast

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Return Airflow's intermediate state of a mapped operator; the arguments that are known are checked."""
        made = super().partial(**kwargs)
        dag = made.kwargs.get("dag")
        # Those of a task group contain what the groups around it have.
        scopes = (dag, made.kwargs.get("task_group"))
        defaults = {name: value for one in scopes for name, value in (getattr(one, "default_args", None) or {}).items()}
        defaults |= kwargs.get("default_args") or {}
        try:
            cls.check_arguments({**defaults, **made.kwargs}, dag)
        except ValueError:
            made._expand_called = True  # otherwise Airflow warns that the task was never mapped
            raise
        return made

    @classmethod
    def _known_arguments(cls) -> set[str]:
        """Return the names of the arguments as Airflow notes them, for its check of mapped operators."""
        inits = (vars(one).get("__init__") for one in cls.__mro__)
        return set().union(*(getattr(init, "_BaseOperatorMeta__param_names", ()) for init in inits))

    @classmethod
    def check_arguments(cls, given: Mapping[str, Any], dag: Any) -> None:
        """Check arguments by :attr:`argument_checks`.

        :param dag: the DAG. If it has other marks for templates, any text of a templated field can be one.
        :raises ArgumentError: one cannot be right.
        """
        unknown = cls.template_fields if getattr(dag, "jinja_environment_kwargs", None) else ()
        for name, check in cls.argument_checks.items():
            if name in given and name not in unknown:
                check(name, given[name])

    def _check_arguments(self, **given: Any) -> None:
        self.check_arguments(given, self.get_dag())

    def _open_hook(self, retries: RetryPolicy | None = None) -> ModelArtsHook:
        from airflow_modelarts.hooks import ModelArtsHook

        return ModelArtsHook(self.modelarts_conn_id, project_id=self.project_id, retries=retries)

    def _emit_asset_events(
        self,
        context: Context,
        hook: ModelArtsHook,
        task: ProcessorTask,
        version: ProcessorTaskVersion | None = None,
        *,
        is_end_of_version: bool = False,
    ) -> None:
        """Describe an end in the events of the outlets; before an end, and after a failure, they get no event.

        :param version: the version that was run, for a task that has versions.
        :param is_end_of_version: whether that version is what the operator is about, and not the task.
        """
        if not self.outlets:
            return
        from datetime import UTC, datetime

        from airflow_modelarts import assets
        from airflow_modelarts.api.ends import Origin, identify_end

        settings = hook.get_conn()
        origin = Origin.of(self.modelarts_conn_id, settings.client, settings.region)
        end = identify_end(origin, task, datetime.now(UTC), version, is_end_of_version=is_end_of_version)
        if end["status"] in TERMINAL_STATUSES and end["status"] not in self.failed_statuses:
            assets.emit(context, self.outlets, end)
            return
        self.log.info("The outlets get no event: processing task '%s' is %s.", task.task_id, end["status_name"])
        self.outlets = []  # Airflow emits an event of each asset that it finds here when the Airflow task succeeds


class WaitingOperator(ModelArtsOperator):
    """An operator or sensor that waits for the end of a processing task or a version.

    :param failed_statuses: statuses that fail it, with the service's ``error_msg``, as numbers or names, for example
        ``["failed"]``; default 3 (failed) and 4 (stopped).
    :param deferrable: wait in the triggerer; default is Airflow's ``[operators] default_deferrable``.
    """

    argument_checks: ClassVar = {
        **ModelArtsOperator.argument_checks,
        "failed_statuses": read_ends,
        "deferrable": read_optional_flag,
    }

    def __init__(
        self,
        *,
        failed_statuses: Iterable[int | str] = (ProcessorTaskStatus.FAILED, ProcessorTaskStatus.STOPPED),
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_arguments(deferrable=deferrable)
        self.failed_statuses = read_ends("failed_statuses", failed_statuses)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable

    @abstractmethod
    def _trigger_arguments(self) -> dict[str, Any]:
        """Return the trigger's arguments beside the target and the connection."""

    def _deferral(
        self, target: Target, workspace_id: str | None, deadline: float | None, timeout: float | None
    ) -> TaskDeferred:
        """Return the exception that hands the wait over to the triggerer.

        :param workspace_id: the workspace that lists the task, if known.
        :param deadline: what ``execute_complete`` gets, in seconds since the epoch; None for no limit.
        :param timeout: seconds after which Airflow ends the deferred wait; None for no limit.
        """
        from airflow_modelarts.triggers import ProcessorTaskTrigger

        trigger = ProcessorTaskTrigger(
            processor_task_id=target.task_id,
            task_version_id=target.task_version_id,
            workspace_id=workspace_id,
            modelarts_conn_id=self.modelarts_conn_id,
            project_id=self.project_id,
            **self._trigger_arguments(),
        )
        return TaskDeferred(
            trigger=trigger,
            method_name="execute_complete",
            kwargs={"deadline": deadline},
            timeout=None if timeout is None else timedelta(seconds=max(timeout, 0.0)),
        )


def describe(hook: ModelArtsHook, target: Target) -> ProcessorTask | ProcessorTaskVersion:
    """Read a task or a version (DescribeProcessorTask, DescribeProcessorTaskVersion)."""
    if target.task_version_id is None:
        return hook.describe_processor_task(target.task_id)
    return hook.describe_processor_task_version(target.task_id, target.task_version_id)


def describe_failure(target: Target, status: int | None, reason: str | None) -> str:
    """Return the message of a failure; without a reason it says that the service gave none."""
    return f"{target} {status_name(status)}: {reason or 'the service gave no error_msg'}"


def describe_wait(target: Target, event: Mapping[str, Any], seconds: float) -> str:
    """Return how a wait in the triggerer ended, for the log of the worker: some versions lose that of the triggerer.

    :param event: of the trigger.
    :param seconds: since the Airflow task started.
    :return: empty if the event says neither.
    """
    place = f"waited for in the triggerer until {seconds:.0f} s after the start of this Airflow task"
    if event.get("status") in TERMINAL_STATUSES:
        return f"{target} is {status_name(event['status'])}; it was {place}."
    return f"{target} was {place}, when an error ended that: {event['error']}" if event.get("error") else ""


def is_trigger_timeout(next_kwargs: dict[str, Any] | None) -> bool:
    """Whether Airflow resumes a deferred task because its time is over; Airflow 2 reports it in two ways."""
    return "timeout" in str((next_kwargs or {}).get("error", "")).lower()


def describe_timeout(setting: str) -> str:
    """Return the message of a timeout, by the name of the setting that limits the wait."""
    return f"{setting} is over, and the processing task has not ended"
