"""What the sensor and all operators share: the connection to ModelArts and the handling of templated fields."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_modelarts.api.arguments import ArgumentError, check_optional_text, check_text, refuse_unknown
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus
from airflow_modelarts.templating import TemplatedFields

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
    from airflow_modelarts.api.retry import RetryPolicy
    from airflow_modelarts.hooks import ModelArtsHook


class ModelArtsOperator(TemplatedFields, BaseOperator):
    """
    An operator or sensor with a connection to ModelArts.

    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :raises ArgumentError: an argument cannot be right. It is a ``ValueError`` and a ``TypeError``.
    """

    #: Checks of arguments when a DAG is parsed, each a function of the argument's name and value.
    argument_checks: ClassVar[Mapping[str, Callable[[str, Any], object]]] = {
        "modelarts_conn_id": check_text,
        "project_id": check_optional_text,
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
        **kwargs: Any,
    ) -> None:
        known = self._known_arguments()
        if "task_id" in known:  # otherwise Airflow's message, without the nearest name
            refuse_unknown(type(self).__name__, [name for name in kwargs if name not in known], known)
        super().__init__(**kwargs)
        self._check_arguments(modelarts_conn_id=modelarts_conn_id, project_id=project_id)
        self.modelarts_conn_id = modelarts_conn_id
        self.project_id = project_id

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Return Airflow's intermediate state of a mapped operator; the arguments that are known are checked."""
        made = super().partial(**kwargs)
        dag = made.kwargs.get("dag")
        defaults = {**getattr(dag, "default_args", {}), **(kwargs.get("default_args") or {})}
        try:
            cls.check_arguments({**defaults, **made.kwargs}, dag)
        except ArgumentError:
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
        """
        Check arguments by :attr:`argument_checks`.

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
        """
        Describe an end in the events of the outlets; before an end, and after a failure, they get no event.

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
