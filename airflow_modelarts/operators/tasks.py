"""Operators that make one call about a processing task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_modelarts.operators.base import ModelArtsOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class ModelArtsDescribeProcessorTaskOperator(ModelArtsOperator):
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

    template_fields: Sequence[str] = ("processor_task_id", *ModelArtsOperator.template_fields)

    def __init__(self, *, processor_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.processor_task_id = processor_task_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the task and push what it says."""
        with self._open_hook() as hook:
            task = hook.describe_processor_task(self.processor_task_id)
        self.log.info("Processing task '%s' is %s.", task.task_id, task.status_name)
        return self._push(context, task)
