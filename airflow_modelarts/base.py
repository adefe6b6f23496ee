"""What the sensor and all operators share: the connection to ModelArts and the handling of templated fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_modelarts.templating import TemplatedFields

if TYPE_CHECKING:
    from airflow_modelarts.api.retry import RetryPolicy
    from airflow_modelarts.hooks import ModelArtsHook


class ModelArtsOperator(TemplatedFields, BaseOperator):
    """
    An operator or sensor with a connection to ModelArts.

    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    """

    template_fields: Sequence[str] = ("modelarts_conn_id", "project_id")
    ui_color = "#ffe4e1"

    def __init__(
        self, *, modelarts_conn_id: str = "modelarts_default", project_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.modelarts_conn_id = modelarts_conn_id
        self.project_id = project_id

    def _open_hook(self, retries: RetryPolicy | None = None) -> ModelArtsHook:
        from airflow_modelarts.hooks import ModelArtsHook

        return ModelArtsHook(self.modelarts_conn_id, project_id=self.project_id, retries=retries)
