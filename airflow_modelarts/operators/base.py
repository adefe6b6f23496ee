"""What all operators share: the connection, what they leave behind of a processing task, and how they read moments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

from airflow_modelarts import assets
from airflow_modelarts.lineage import ProcessorTaskLineage
from airflow_modelarts.links import ModelArtsConsoleLink
from airflow_modelarts.operators.arguments import TypedArguments
from airflow_modelarts.templating import RefusesEmptyFields, own_template_fields

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
    from airflow_modelarts.hooks import ModelArtsHook


#: Whether an XCom may be None: Airflow 3.0 sends such a one without a body, which its API server refuses.
TAKES_NONE = AIRFLOW_V_3_1_PLUS or not AIRFLOW_V_3_0_PLUS


class ModelArtsOperator(RefusesEmptyFields, TypedArguments):
    """
    An operator with a connection to ModelArts.

    A templated argument that was given and rendered to nothing is a ModelArtsRequestError, and nothing is sent.

    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    """

    template_fields: Sequence[str] = ("modelarts_conn_id", "project_id")
    ui_color = "#ffe4e1"

    def __init__(
        self,
        *,
        modelarts_conn_id: str = "modelarts_default",
        project_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.modelarts_conn_id = modelarts_conn_id
        self.project_id = project_id

    def _open_hook(self) -> ModelArtsHook:
        from airflow_modelarts.hooks import ModelArtsHook

        self._refuse_empty_fields(own_template_fields(type(self)))
        return ModelArtsHook(self.modelarts_conn_id, project_id=self.project_id)


class TaskResultMixin(ProcessorTaskLineage, ModelArtsOperator):
    """An operator that hands a processing task on: its XComs, a link to the console, asset events and lineage."""

    operator_extra_links = (ModelArtsConsoleLink(),)
    #: Whether ``version`` is one of the XComs. Then it is pushed even when it is None: the outputs of mapped tasks are
    #: a sequence, in which each has its place.
    pushes_version = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pushes_each_field = self.multiple_outputs
        # An XCom that is None reaches the tasks that ask for it only when its operator has several outputs: otherwise
        # Airflow 3 takes it for one that was never pushed.
        self.multiple_outputs = self.do_xcom_push

    def _link(self, context: Context, hook: ModelArtsHook, task_id: str) -> None:
        """Leave the link to the console, as soon as the processing task's id is known."""
        ModelArtsConsoleLink.persist(context, self, task_id, hook.get_conn())

    def _publish(
        self, context: Context, task: ProcessorTask, version: ProcessorTaskVersion | None = None
    ) -> dict[str, Any]:
        """
        Push ``result``, ``work_path`` and, where that is an XCom, ``version``; emit the asset events.

        :param version: the run that it is about, for a task that has versions.
        :return: what is to be ``return_value``.
        """
        self._processor_task, self._task_version = task, version
        description = task.to_json()
        if self.do_xcom_push:
            outputs = {"result": task.result, "work_path": description.get("work_path")}
            if self.pushes_version:
                outputs["version"] = version and version.to_json()
            for key, value in outputs.items():
                if value is not None or TAKES_NONE:
                    context["ti"].xcom_push(key=key, value=value)
        if self.outlets:
            assets.emit(context, self.outlets, task, version)
        # Airflow would otherwise push each field of what is returned as an XCom of its own too.
        self.multiple_outputs = self._pushes_each_field
        return description


def parse_datetime(name: str, given: datetime | str | None) -> datetime | None:
    """Read a moment; what a template makes of nothing, an empty text or ``None``, is none."""
    if not given or given == "None":
        return None
    try:
        return datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError:
        raise ValueError(f"{name} is {given!r}: give a moment such as 2026-11-23T00:00:00+00:00") from None


def in_utc(moment: datetime) -> datetime:
    """Return a moment as a plain datetime in UTC, which one without an offset is taken to be in."""
    return datetime.fromtimestamp(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp(), UTC)
