"""What several operators share: the XComs, links, asset events and lineage of a processing task; reading datetimes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

from airflow_modelarts.base import ExtraLinks
from airflow_modelarts.base import ModelArtsOperator as ModelArtsOperator
from airflow_modelarts.base import fails_fast as fails_fast
from airflow_modelarts.lineage import ProcessorTaskLineage

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
    from airflow_modelarts.hooks import ModelArtsHook


#: Whether an XCom may be None. Airflow 3.0 sends such an XCom without a body, which its API server refuses.
TAKES_NONE = AIRFLOW_V_3_1_PLUS or not AIRFLOW_V_3_0_PLUS


class TaskResultMixin(ProcessorTaskLineage, ModelArtsOperator):
    """An operator that publishes a processing task: its XComs, a link to the console, asset events and lineage."""

    operator_extra_links = ExtraLinks("ModelArtsConsoleLink")
    #: Whether ``version`` is one of the XComs. It is pushed even when it is None: the outputs of mapped tasks are a
    #: sequence, and a missing one would shift the others.
    pushes_version = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pushes_each_field = self.multiple_outputs
        # An XCom that is None reaches downstream tasks only if its operator has several outputs. Otherwise Airflow 3
        # treats it as one that was never pushed.
        self.multiple_outputs = self.do_xcom_push

    def _link(self, context: Context, hook: ModelArtsHook, task_id: str) -> None:
        """Store the link to the console; called as soon as the processing task's id is known."""
        from airflow_modelarts.links import ModelArtsConsoleLink

        ModelArtsConsoleLink.persist(context, self, task_id, hook.get_conn())

    def _publish(
        self, context: Context, task: ProcessorTask, version: ProcessorTaskVersion | None = None
    ) -> dict[str, Any]:
        """Push ``result``, ``work_path`` and, where that is an XCom, ``version``.

        :param version: the version that was run, for a task that has versions.
        :return: the value of the XCom ``return_value``.
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
        # Otherwise Airflow would also push each field of the returned dict as an XCom of its own.
        self.multiple_outputs = self._pushes_each_field
        return description


def parse_datetime(name: str, given: datetime | str | None) -> datetime | None:
    """Read a datetime or its text; an empty text and the text ``None``, to which empty templates render, are None."""
    text = given.strip() if isinstance(given, str) else ""
    if not given or (isinstance(given, str) and text in ("", "None")):
        return None
    try:
        if isinstance(given, datetime):
            return given
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} is {given!r}: give a datetime such as 2026-11-23T00:00:00+00:00") from None


def in_utc(moment: datetime) -> datetime:
    """Return a datetime in UTC; one without an offset is in UTC already."""
    return datetime.fromtimestamp(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp(), UTC)
