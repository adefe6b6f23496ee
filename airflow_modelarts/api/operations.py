"""One function for each API operation: from arguments to an :class:`Operation`, which ``client.call`` carries out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

from airflow_modelarts.api import models, request_models
from airflow_modelarts.api.errors import OtherObjectError
from airflow_modelarts.api.http import Response
from airflow_modelarts.api.lenient_reading import UnreadableItem
from airflow_modelarts.api.models import (
    CreatedTask,
    CreatedVersion,
    Empty,
    ProcessorTask,
    ProcessorTaskItem,
    ProcessorTaskVersion,
    SampleResult,
)
from airflow_modelarts.api.request_parts import encode_body, encode_path, encode_query
from airflow_modelarts.api.retry import Idempotency
from airflow_modelarts.api.signing import encode
from airflow_modelarts.api.statuses import read_status

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

#: Items a page at most, set by the service; for ListProcessorTaskItems it allows more.
MAX_PAGE_SIZE = 100
MAX_ITEMS_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[T_co]):
    """One operation with its arguments.

    :param name: the API's name of the operation.
    :param target: the object of the operation, for messages.
    :param path: below ``/v2/{project_id}``, percent-encoded.
    :param read: reads a successful answer, or raises ValueError.
    :param query: names and values, not yet encoded.
    :param body: JSON.
    :param idempotency: when the request may be repeated.
    :param observe: called with each answer that could be read, for what only its headers tell.
    """

    name: str
    target: str
    path: str
    read: Callable[[bytes], T_co]
    method: str = "GET"
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    idempotency: Idempotency = Idempotency.ALWAYS
    observe: Callable[[Response], None] = lambda _: None

    @property
    def path_and_query(self) -> str:
        """The path, with the encoded query where there is one."""
        query = "&".join(f"{encode(name)}={encode(value)}" for name, value in self.query.items())
        return f"{self.path}?{query}" if query else self.path


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list operation.

    :param count: the number of items of all pages; None if the answer has none.
    :param has_more: as in the answer. The reference explains it in two ways, so nothing here depends on it.
    :param unreadable: the items of the answer that could not be read at all.
    :param number: the page's number, counted from 0.
    """

    items: list[T]
    count: int | None = None
    has_more: bool | None = None
    unreadable: tuple[UnreadableItem, ...] = ()
    number: int = 0

    @property
    def size(self) -> int:
        """The number of items that the answer listed, readable or not."""
        return len(self.items) + len(self.unreadable)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOperation(Operation[Page[T]]):
    """An operation whose answer comes in pages.

    :param identify: returns the identity of an item; None for an item without one.
    :param limit: items a page.
    """

    identify: Callable[[T], Hashable | None]
    limit: int

    def page(self, number: int) -> ListOperation[T]:
        """Return the operation for one page; ``offset`` is a page number, counted from 0."""
        return replace(self, query={**self.query, "limit": str(self.limit), "offset": str(number)})


def create_processor_task(
    *,
    name: str,
    template: Mapping[str, Any],
    data_source: Mapping[str, Any] | None = None,
    inputs: Iterable[Mapping[str, Any]] | None = None,
    work_path: Mapping[str, Any] | None = None,
    version_id: str | None = None,
    description: str | None = None,
    create_version: bool | None = None,
    workspace_id: str | None = None,
) -> Operation[CreatedTask]:
    """Create a processing task and start it (CreateProcessorTask).

    The request is repeated only if the service certainly did not act on it.

    :param name: unique in the project.
    :param template: ``{"id": "sys_data_analyse", "operator_params": [...]}``.
    :param data_source: the one input; exactly one of this and ``inputs`` is given.
    :param inputs: the list of inputs.
    :param work_path: where the task writes.
    :param version_id: the dataset version to process.
    :param description: at most 256 characters, none of ``^ ! < > = & " '``.
    :param create_version: true only for data processing, which is any template but ``sys_data_analyse``.
    :param workspace_id: default "0".
    :raises ModelArtsRequestError: the arguments are not valid; nothing was sent, and every fault is named.
    """
    body = encode_body(
        "CreateProcessorTask",
        request_models.CreateProcessorTaskRequest,
        name=name,
        template=template,
        data_source=data_source,
        inputs=inputs,
        work_path=work_path,
        version_id=version_id,
        description=description,
        create_version=create_version,
        workspace_id=workspace_id,
    )
    return Operation(
        name="CreateProcessorTask",
        target=f"processing task named '{name}'",
        method="POST",
        path="/processor-tasks",
        body=body,
        read=partial(models.parse, CreatedTask),
        idempotency=Idempotency.IF_NOT_DONE,
    )


def list_processor_tasks(
    *,
    status: int | str | None = None,
    task_type: str | None = None,
    task_name: str | None = None,
    source_type: str | None = None,
    source: str | None = None,
    version_id: str | Iterable[str] | None = None,
    workspace_id: str | None = None,
    query_current: bool | None = None,
    return_result: bool = False,
    sort_by: str | None = None,
    order: str | None = None,
    limit: int = MAX_PAGE_SIZE,
) -> ListOperation[ProcessorTask]:
    """List processing tasks (ListProcessorTasks).

    :param status: 0 to 4, or a name such as ``failed``.
    :param task_type: a template id, for example ``sys_data_analyse``.
    :param task_name: part of the name.
    :param source_type: type of the data source.
    :param source: the data source, for example a dataset id.
    :param version_id: one or several dataset version ids.
    :param query_current: only the newest task of each dataset version; by default all.
    :param return_result: whether to include the results, which can be large; the service's own default is true.
    :param sort_by: ``create_time`` (the service's default), ``name`` or ``duration_seconds``.
    :param order: ``desc`` (the service's default) or ``asc``.
    :param limit: tasks a page, 1 to 100.
    :raises ValueError: the status is not valid.
    """
    versions = version_id if version_id is None or isinstance(version_id, str) else ",".join(version_id)
    query = encode_query(
        status=None if status is None else int(read_status("status", status)),
        task_type=task_type,
        task_name=task_name,
        source_type=source_type,
        source=source,
        version_id=versions,
        workspace_id=workspace_id,
        query_current=query_current,
        return_result=return_result,
        sort_by=sort_by,
        order=order,
    )
    return ListOperation(
        name="ListProcessorTasks",
        target="processing tasks",
        path="/processor-tasks",
        query=query,
        limit=limit,
        read=lambda body: _page(page := models.parse(models.ProcessorTaskPage, body), page.tasks),
        identify=lambda task: task.task_id or None,
    )


def list_processor_task_items(*, limit: int = MAX_ITEMS_PAGE_SIZE) -> ListOperation[ProcessorTaskItem]:
    """List the processing templates that the service offers (ListProcessorTaskItems).

    :param limit: templates a page, 1 to 1000.
    """
    return ListOperation(
        name="ListProcessorTaskItems",
        target="processing templates",
        path="/processor-tasks/items",
        limit=limit,
        read=lambda body: _page(page := models.parse(models.ProcessorTaskItemPage, body), page.items),
        identify=lambda item: item.template_id,
    )


def describe_processor_task(task_id: str) -> Operation[ProcessorTask]:
    """Read a processing task, its parsed result included (DescribeProcessorTask).

    :param task_id: the processing task's id.
    :raises ModelArtsRequestError: the id is empty or not a path segment.
    """
    return Operation(
        name="DescribeProcessorTask",
        target=_task(task_id),
        path=encode_path(task_id),
        read=lambda body: check_ids(models.parse(ProcessorTask, body), task_id=task_id),
    )


def update_processor_task(task_id: str, *, description: str) -> Operation[Empty]:
    """Change a processing task's description (UpdateProcessorTask).

    :param task_id: the processing task's id.
    :param description: at most 256 characters, none of ``^ ! < > = & " '``.
    :raises ModelArtsRequestError: an argument is not valid; nothing was sent.
    """
    return Operation(
        name="UpdateProcessorTask",
        target=_task(task_id),
        method="PUT",
        path=encode_path(task_id),
        body=encode_body("UpdateProcessorTask", request_models.UpdateProcessorTaskRequest, description=description),
        read=_read_empty,
    )


def delete_processor_task(task_id: str) -> Operation[Empty]:
    """Delete a processing task (DeleteProcessorTask); while it is initializing, the service is busy.

    :param task_id: the processing task's id.
    """
    return Operation(
        name="DeleteProcessorTask", target=_task(task_id), method="DELETE", path=encode_path(task_id), read=_read_empty
    )


def create_processor_task_version(
    task_id: str,
    *,
    name: str,
    template: Mapping[str, Any],
    data_source: Mapping[str, Any] | None = None,
    inputs: Iterable[Mapping[str, Any]] | None = None,
    work_path: Mapping[str, Any] | None = None,
    version_id: str | None = None,
    description: str | None = None,
    workspace_id: str | None = None,
) -> Operation[CreatedVersion]:
    """Run a processing task again, as a new version of it (CreateProcessorTaskVersion).

    The arguments are those of :func:`create_processor_task`. The request is repeated as seldom as that one.

    :param task_id: the processing task's id.
    :raises ModelArtsRequestError: the arguments are not valid; nothing was sent, and every fault is named.
    """
    body = encode_body(
        "CreateProcessorTaskVersion",
        request_models.CreateProcessorTaskVersionRequest,
        name=name,
        template=template,
        data_source=data_source,
        inputs=inputs,
        work_path=work_path,
        version_id=version_id,
        description=description,
        workspace_id=workspace_id,
    )
    return Operation(
        name="CreateProcessorTaskVersion",
        target=_task(task_id),
        method="POST",
        path=encode_path(task_id, "versions"),
        body=body,
        read=partial(models.parse, CreatedVersion),
        idempotency=Idempotency.IF_NOT_DONE,
    )


def list_processor_task_versions(
    task_id: str, *, sort_by: str | None = None, order: str | None = None, limit: int = MAX_PAGE_SIZE
) -> ListOperation[ProcessorTaskVersion]:
    """List the versions of a processing task (ListProcessorTaskVersions).

    :param task_id: the processing task's id.
    :param sort_by: ``create_time`` or ``version_name``.
    :param order: ``asc`` or ``desc``.
    :param limit: versions a page, 1 to 100.
    """
    return ListOperation(
        name="ListProcessorTaskVersions",
        target=f"versions of {_task(task_id)}",
        path=encode_path(task_id, "versions"),
        query=encode_query(sort_by=sort_by, order=order),
        limit=limit,
        read=lambda body: _page(page := models.parse(models.ProcessorTaskVersionPage, body), page.versions),
        identify=lambda version: version.task_version_id,
    )


def describe_processor_task_version(task_id: str, version_id: str) -> Operation[ProcessorTaskVersion]:
    """Read one version of a processing task (DescribeProcessorTaskVersion).

    :param task_id: the processing task's id.
    :param version_id: the version's id (``task_version_id``).
    """
    return Operation(
        name="DescribeProcessorTaskVersion",
        target=_version(task_id, version_id),
        path=encode_path(task_id, "versions", version_id),
        read=lambda body: check_ids(
            models.parse(ProcessorTaskVersion, body), task_id=task_id, task_version_id=version_id
        ),
    )


def delete_processor_task_version(task_id: str, version_id: str) -> Operation[Empty]:
    """Delete one version of a processing task (DeleteProcessorTaskVersion).

    :param task_id: the processing task's id.
    :param version_id: the version's id (``task_version_id``).
    """
    return Operation(
        name="DeleteProcessorTaskVersion",
        target=_version(task_id, version_id),
        method="DELETE",
        path=encode_path(task_id, "versions", version_id),
        read=_read_empty,
    )


def stop_processor_task_version(task_id: str, version_id: str) -> Operation[Empty]:
    """Stop a running version of a processing task (StopProcessorTaskVersion). Feature analysis cannot be stopped.

    :param task_id: the processing task's id.
    :param version_id: the version's id (``task_version_id``).
    """
    return Operation(
        name="StopProcessorTaskVersion",
        target=_version(task_id, version_id),
        method="POST",
        path=encode_path(task_id, "versions", version_id, "stop"),
        read=_read_empty,
    )


def list_processor_task_version_results(
    task_id: str,
    version_id: str,
    *,
    result_property: int | None = None,
    process_parameter: str | None = None,
    signed_links: bool = False,
    limit: int = MAX_PAGE_SIZE,
) -> ListOperation[SampleResult]:
    """List what a version did to each sample (ListProcessorTaskVersionResults).

    :param task_id: the processing task's id.
    :param version_id: the version's id (``task_version_id``).
    :param result_property: -1 all, 0 reserved, 1 modified, 2 deleted, 3 added.
    :param process_parameter: an OBS image operation, for example a resize, that the download links apply.
    :param signed_links: keep the download links. Anyone who has such a link can download the file.
    :param limit: samples a page, 1 to 100.
    """
    return ListOperation(
        name="ListProcessorTaskVersionResults",
        target=f"results of {_version(task_id, version_id)}",
        path=encode_path(task_id, "versions", version_id, "results"),
        query=encode_query(result_property=result_property, process_parameter=process_parameter),
        limit=limit,
        read=lambda body: _page(page := models.parse_sample_results(body, signed_links=signed_links), page.results),
        identify=lambda result: (result.sample_id, result.origin_source, result.new_source),
    )


def check_ids(answer: T, **ids: str) -> T:
    """Return an answer if it has the requested ids or none; raise OtherObjectError if a proxy's cache mixed it up."""
    if any(getattr(answer, name) not in (None, requested) for name, requested in ids.items()):
        raise OtherObjectError("another task or version")
    return answer


def _read_empty(body: bytes) -> Empty:
    """Read an answer without content; the service may omit the ``{}``."""
    return models.parse(Empty, body) if body.strip() else Empty()


def _page(page: models.Listing, items: list[T] | None) -> Page[T]:
    return Page(items or [], page.count, page.has_more, page.unreadable_items)


def _task(task_id: str) -> str:
    return f"processing task '{task_id}'"


def _version(task_id: str, version_id: str) -> str:
    return f"version '{version_id}' of processing task '{task_id}'"
