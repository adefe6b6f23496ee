"""What all operators share: the connection, and what they leave behind of a processing task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.models import ProcessorTask
    from airflow_modelarts.hooks import ModelArtsHook


class ModelArtsOperator(BaseOperator):
    """
    An operator with a connection to ModelArts.

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

        return ModelArtsHook(self.modelarts_conn_id, project_id=self.project_id)

    def _push(self, context: Context, task: ProcessorTask) -> dict[str, Any]:
        """Push ``result`` and ``work_path``, and return what is to be ``return_value``."""
        description = task.to_json()
        if self.do_xcom_push:
            context["ti"].xcom_push(key="result", value=task.result)
            context["ti"].xcom_push(key="work_path", value=description.get("work_path"))
        return description
