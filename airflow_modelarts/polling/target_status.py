"""Reading statuses by id and in lists. Of an answer, only what a wait needs becomes objects: it can be megabytes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec

from airflow_modelarts.api import operations
from airflow_modelarts.api.json_reading import read_part
from airflow_modelarts.api.models import read_count
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.targets import Target


class TargetStatus(msgspec.Struct):
    """As much of a task or version as a wait needs.

    :param task_id: required, so that an answer without it is not taken for a task's.
    :param workspace_id: the workspace that lists the task; None for a version.
    """

    task_id: str
    status: int | None = None
    workspace_id: str | None = None


class _ListedStatus(msgspec.Struct, gc=False):
    """As much of a task of a list as a wait needs."""

    task_id: str
    status: int | None = None


class _StatusPage(msgspec.Struct):
    """As much of a page of tasks as a wait needs."""

    count: Any = None
    tasks: list[_ListedStatus] | None = None


_TASKS = msgspec.json.Decoder(TargetStatus)
_PAGES = msgspec.json.Decoder(_StatusPage)


@lru_cache(16)  # each round reads the same lists
def list_statuses(*, status: int, workspace_id: str) -> ListOperation[Any]:
    """List the tasks with a status (ListProcessorTasks), each with ``task_id`` and ``status``."""
    listing: ListOperation[Any] = operations.list_processor_tasks(status=status, workspace_id=workspace_id)

    def read(body: bytes) -> Page[Any]:
        page = read_part(_PAGES, body)
        return listing.read(body) if page is None else Page(page.tasks or [], read_count(page.count))

    return replace(listing, read=read)


def describe_status(target: Target) -> Operation[TargetStatus]:
    """Read a target's status (DescribeProcessorTask or DescribeProcessorTaskVersion); invalid ids raise at once."""
    if target.task_version_id is not None:
        version: Operation[Any] = operations.describe_processor_task_version(target.task_id, target.task_version_id)
        return replace(version, read=lambda body: TargetStatus(target.task_id, version.read(body).status))
    task: Operation[Any] = operations.describe_processor_task(target.task_id)
    return replace(
        task,
        read=lambda body: operations.check_ids(read_part(_TASKS, body) or task.read(body), task_id=target.task_id),
    )
