"""Reading statuses by id and in lists. Of an answer, only what a wait needs becomes objects: it can be megabytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from airflow_modelarts.api import operations
from airflow_modelarts.api.json_reading import read_json, repaired, without_byte_order_mark
from airflow_modelarts.api.lenient_reading import read_leniently
from airflow_modelarts.api.models import Count, Number, Status
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.targets import Target


def _id_or_none(value: Any) -> str | int | float | None:
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else None


class TargetStatus(BaseModel):
    """As much of a task or version as a wait needs.

    :param task_id: required, so that an answer without it is not taken for a task's.
    :param workspace_id: the workspace that lists the task; None for a version.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)

    task_id: str
    status: Status = None
    workspace_id: Annotated[str | None, BeforeValidator(_id_or_none)] = None


class _ListedStatus(BaseModel):
    """As much of a task of a list as a wait needs."""

    task_id: str
    status: Number = None


class _StatusPage(BaseModel):
    """As much of a page of tasks as a wait needs."""

    count: Count = None
    tasks: list[_ListedStatus] | None = None


def list_statuses(*, status: int, workspace_id: str) -> ListOperation[Any]:
    """List the tasks with a status (ListProcessorTasks), each with ``task_id`` and ``status``."""
    listing: ListOperation[Any] = operations.list_processor_tasks(status=status, workspace_id=workspace_id)

    def read(body: bytes) -> Page[Any]:
        try:
            page = _StatusPage.model_validate_json(without_byte_order_mark(body))
        except ValueError:
            return listing.read(body)  # item by item
        return Page(page.tasks or [], page.count)

    return replace(listing, read=read)


def describe_status(target: Target) -> Operation[TargetStatus]:
    """Read a target's status (DescribeProcessorTask or DescribeProcessorTaskVersion); invalid ids raise at once."""
    if target.task_version_id is not None:
        version: Operation[Any] = operations.describe_processor_task_version(target.task_id, target.task_version_id)
        return replace(
            version, read=lambda body: TargetStatus(task_id=target.task_id, status=version.read(body).status)
        )
    task: Operation[Any] = operations.describe_processor_task(target.task_id)
    return replace(task, read=lambda body: operations.check_ids(_read_task(body), task_id=target.task_id))


def _read_task(body: bytes) -> TargetStatus:
    try:
        return TargetStatus.model_validate_json(without_byte_order_mark(body))
    except ValueError:
        return read_leniently(TargetStatus, read_json(repaired(body, 2)), required=("status", "task_id"))
