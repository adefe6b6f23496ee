"""The operators. Whatever is heavy is imported where it runs, since every DAG file pays for the imports at the top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.models import ProcessorTask


class ModelArtsDescribeProcessorTaskOperator(BaseOperator):
    """
    Reads a processing task (DescribeProcessorTask) and hands it on.

    It pushes three XComs: ``return_value``, the task under the API's field names plus ``status_name``, without its
    result; ``result``, parsed where the service wrote JSON into a string, None when there is none; and ``work_path``.
    So downstream reads ``describe.output["result"]``. Download links that are signed are dropped.

    :param processor_task_id: the processing task's id (templated).
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    template_fields: Sequence[str] = ("processor_task_id", "modelarts_conn_id", "project_id")
    ui_color = "#ffe4e1"

    def __init__(
        self,
        *,
        processor_task_id: str,
        modelarts_conn_id: str = "modelarts_default",
        project_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.processor_task_id = processor_task_id
        self.modelarts_conn_id = modelarts_conn_id
        self.project_id = project_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the task and push what it says."""
        from airflow_modelarts.hooks import ModelArtsHook

        with ModelArtsHook(self.modelarts_conn_id, project_id=self.project_id) as hook:
            task = hook.describe_processor_task(self.processor_task_id)
        self.log.info("Processing task '%s' is %s.", task.task_id, task.status_name)
        return self._push(context, task)

    def _push(self, context: Context, task: ProcessorTask) -> dict[str, Any]:
        description = task.to_json()
        if self.do_xcom_push:
            context["ti"].xcom_push(key="result", value=task.result)
            context["ti"].xcom_push(key="work_path", value=description.get("work_path"))
        return description
