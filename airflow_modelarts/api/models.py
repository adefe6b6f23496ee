"""The API's objects in answers, as tolerant models. The models of request bodies are in ``request_models``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from airflow_modelarts.api.json_reading import null_for_non_finite, read_json, repaired
from airflow_modelarts.api.lenient_reading import (
    LARGEST_NUMBER,
    UNREADABLE,
    UNREADABLE_ITEMS,
    UnreadableItem,
    mark_unreadable,
    read_items,
    read_leniently,
)
from airflow_modelarts.api.redaction import may_hold_a_signed_link, printable, without_signed_links
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, status_name

FEATURE_ANALYSIS = "sys_data_analyse"


def parse_result(value: Any) -> Any:
    """Return a task's ``result``: an object by its declaration, a string in the reference's example.

    A string with the JSON of an object or an array is parsed. Any other value is returned unchanged.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return read_json(value.encode())
    except (ValueError, RecursionError):  # not JSON, or with half of a surrogate pair
        return value


def read_count(value: Any) -> int | None:
    """Return a count of items; None for anything else, since a list can be read without a count."""
    if isinstance(value, str | float) and not isinstance(value, bool):
        try:
            value = int(value)
        except (ValueError, OverflowError):
            return None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _status(value: Any) -> Any:
    """Return a status; None for NaN and infinities. A truth value is none, although Python counts with it."""
    if isinstance(value, bool):
        raise ValueError("a truth value is no status")
    return null_for_non_finite(value)


#: A task's status. A text or a fraction makes the answer unreadable.
Status = Annotated[int | None, BeforeValidator(_status)]
#: A text that exceptions, logs and reports quote.
ShownText = Annotated[str | None, AfterValidator(lambda text: text and printable(without_signed_links(text)))]
Count = Annotated[int | None, BeforeValidator(read_count)]
#: A number of a task. Whatever else the service writes is left to :mod:`airflow_modelarts.api.lenient_reading`.
Number = Annotated[int | None, Field(strict=True, ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
#: The id of what was created, which a path can hold. An answer with another text has no id.
CreatedId = Annotated[str, Field(pattern=r"^[^/]*[^\s./][^/]*$")]
#: None for anything but a truth value.
HasMore = Annotated[bool | None, BeforeValidator(lambda value: value if isinstance(value, bool) else None)]


class ApiModel(BaseModel):
    """An object of the API. Any field may be missing or null; unknown fields are kept."""

    model_config = ConfigDict(
        extra="allow", frozen=True, coerce_numbers_to_str=True, protected_namespaces=(), defer_build=True
    )

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The fields that the answer has and that could not be read, such as ``template.id``. They are None here.

        Only tasks, versions, sample results and templates are read field by field.
        """
        names: tuple[str, ...] = self.__dict__.get(UNREADABLE, ())
        return names

    def to_json(self) -> dict[str, Any]:
        """Return the object under the API's field names, without download links."""
        kept: dict[str, Any] = without_signed_links(self.model_dump(exclude_unset=True))
        return kept


class ProcessorDataSource(ApiModel):
    """An input: an OBS path, another processing task, a dataset, or a tenant's data.

    :param source: an OBS path, a task id, a dataset id, or the real user's project id, depending on ``type``.
    :param version_id: the dataset's version.
    """

    type: str | None = None
    source: str | None = None
    name: str | None = None
    version_id: str | None = None
    version_name: str | None = None


class WorkPath(ApiModel):
    """The place to which a task writes.

    :param type: ``OBS`` or ``DATASET``.
    :param path: depends on ``type``: an OBS path or a dataset id.
    :param output_path: for example ``/datasets/demo``.
    """

    type: str | None = None
    path: str | None = None
    output_path: str | None = None
    name: str | None = None
    version_id: str | None = None
    version_name: str | None = None


class OperatorParam(ApiModel):
    """An operator of a template and its parameters, unchanged."""

    id: str | None = None
    name: str | None = None
    advanced_params_switch: bool | None = None
    params: dict[str, Any] | None = None


class TemplateParam(ApiModel):
    """A processing template, for example ``sys_data_analyse``, and its operators."""

    id: str | None = None
    name: str | None = None
    operator_params: list[OperatorParam] | None = None


class HasStatus(ApiModel):
    """The fields that tasks and versions share.

    :param status: see :class:`~airflow_modelarts.api.statuses.ProcessorTaskStatus`; others are not terminal.
    :param error_msg: why it failed, on one line and without signed links; the reference has it for tasks only.
    """

    status: Status = None
    error_msg: ShownText = None

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended: completed, failed or stopped."""
        return self.status in TERMINAL_STATUSES

    @property
    def status_name(self) -> str:
        """The status in words, for example ``completed``."""
        return status_name(self.status)

    def to_json(self) -> dict[str, Any]:
        """Return the object under the API's field names, plus ``status_name``."""
        return {**super().to_json(), "status_name": self.status_name}


class ProcessorTask(HasStatus):
    """A processing task.

    :param create_time: milliseconds since the epoch.
    :param error_msg: only with status 3; on one line, and without signed links.
    :param result: parsed; only with status 2, and only for feature analysis. Dumps and JSON of a task exclude it.
    :param version_id: of the *dataset*, as is ``version_name``.
    """

    task_id: str
    name: str | None = None
    description: str | None = None
    create_time: Number = None
    duration_seconds: Number = None
    # It can have tens of megabytes, so it is stored apart from the task.
    result: Annotated[Any, BeforeValidator(parse_result)] = Field(default=None, repr=False, exclude=True)
    data_source: ProcessorDataSource | None = None
    inputs: list[ProcessorDataSource] | None = None
    template: TemplateParam | None = None
    work_path: WorkPath | None = None
    version_count: Number = None
    version_id: str | None = None
    version_name: str | None = None
    workspace_id: str | None = None
    is_current: bool | None = None


class ProcessorTaskVersion(HasStatus):
    """One run of a data-processing task; feature analysis has none."""

    task_version_id: str | None = None
    task_id: str | None = None
    version_name: str | None = None
    create_time: Number = None
    update_time: Number = None
    duration_seconds: Number = None
    description: str | None = None
    inputs: list[ProcessorDataSource] | None = None
    template: TemplateParam | None = None
    work_path: WorkPath | None = None
    origin_sample_count: Number = None
    add_sample_count: Number = None
    modified_sample_count: Number = None
    unmodified_sample_count: Number = None
    deleted_sample_count: Number = None


class ProcessorTaskItem(ApiModel):
    """A template that the service offers, with its labels."""

    template_id: str | None = None
    label_en: str | None = None
    label_zh: str | None = None


class SampleResult(ApiModel):
    """The result of a version for one sample.

    :param result_property: 0 reserved, 1 modified, 2 deleted, 3 added.
    :param signed_origin_source: a download link, which is a credential; absent by default.
    :param signed_new_source: likewise.
    """

    sample_id: str | None = None
    version_id: str | None = None
    origin_source: str | None = None
    new_source: str | None = None
    result_property: Number = None
    result_description: list[list[str]] | None = None
    signed_origin_source: str | None = Field(default=None, repr=False)
    signed_new_source: str | None = Field(default=None, repr=False)


class Empty(ApiModel):
    """The answer of an operation that returns nothing."""


class CreatedTask(ApiModel):
    """The answer of CreateProcessorTask."""

    task_id: CreatedId


class CreatedVersion(ApiModel):
    """The answer of CreateProcessorTaskVersion."""

    version_id: CreatedId


class Listing(ApiModel):
    """One page of a list operation. The field of its items depends on the operation."""

    #: The field of the items, and their model.
    items_field: ClassVar[str]
    item_model: ClassVar[type[ApiModel]]

    count: Count = None
    has_more: HasMore = None

    @property
    def unreadable_items(self) -> tuple[UnreadableItem, ...]:
        """The items that are no objects, or have no id, in the order of the page; the others are in the list."""
        items: tuple[UnreadableItem, ...] = self.__dict__.get(UNREADABLE_ITEMS, ())
        return items


class ProcessorTaskPage(Listing):
    """One page of ListProcessorTasks."""

    items_field, item_model = "tasks", ProcessorTask
    tasks: list[ProcessorTask] | None = None


class ProcessorTaskVersionPage(Listing):
    """One page of ListProcessorTaskVersions."""

    items_field, item_model = "versions", ProcessorTaskVersion
    versions: list[ProcessorTaskVersion] | None = None


class ProcessorTaskItemPage(Listing):
    """One page of ListProcessorTaskItems, which calls its count ``total``."""

    count: Count = Field(default=None, alias="total")
    items_field, item_model = "items", ProcessorTaskItem
    items: list[ProcessorTaskItem] | None = None


class SampleResultPage(Listing):
    """One page of ListProcessorTaskVersionResults."""

    items_field, item_model = "results", SampleResult
    results: list[SampleResult] | None = None


Parsed = TypeVar("Parsed", bound=ApiModel)
TaskT = TypeVar("TaskT", bound=ProcessorTask)


def parse(model: type[Parsed], body: bytes) -> Parsed:
    """Parse an answer. Fields and items of a list that do not fit the model do not make the others unreadable.

    Status and ids of a single task or version must be readable, since waits decide by them.

    :raises ValueError: it is not JSON, or does not fit the model.
    """
    try:
        try:
            return _cleaned(model.model_validate(read_json(body)), body)
        except (ValueError, RecursionError):
            # A wait needs no result, so a deeply nested one must not make the answer unreadable.
            readable = repaired(body, 4 if issubclass(model, Listing) else 2)
        return _cleaned(_parse_leniently(model, read_json(readable)), readable)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _parse_leniently(model: type[Parsed], value: Any) -> Parsed:
    if not issubclass(model, Listing):
        return read_leniently(model, value, required=("status", "task_id", "task_version_id"))
    listed = value.get(model.items_field) if isinstance(value, dict) else None
    if not isinstance(listed, list):
        return model.model_validate(value)
    items, unreadable = read_items(model.item_model, listed)
    page = model.model_validate({**value, model.items_field: None}).model_copy(update={model.items_field: items})
    vars(page)[UNREADABLE_ITEMS] = unreadable
    return page


def _cleaned(parsed: Parsed, body: bytes) -> Parsed:
    """Return an answer without the signed links in results of tasks."""
    if may_hold_a_signed_link(body):
        if isinstance(parsed, ProcessorTask):
            return _without_signed_links(parsed)
        if isinstance(parsed, ProcessorTaskPage) and parsed.tasks:
            return parsed.model_copy(update={"tasks": [_without_signed_links(task) for task in parsed.tasks]})
    return parsed


def _without_signed_links(task: TaskT) -> TaskT:
    # to_json excludes the result, which becomes an XCom of its own.
    return task.model_copy(update={"result": without_signed_links(task.result)}) if task.result else task


def parse_sample_results(body: bytes, *, signed_links: bool) -> SampleResultPage:
    """Parse a page of sample results, and remove their download links unless ``signed_links``."""
    page = parse(SampleResultPage, body)
    if signed_links or not page.results:
        return page
    return page.model_copy(update={"results": [_without_links(result) for result in page.results]})


def _without_links(result: SampleResult) -> SampleResult:
    return mark_unreadable(SampleResult.model_validate(result.to_json()), result.unreadable)
