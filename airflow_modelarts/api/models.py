"""What the API's JSON means: tolerant models for what it answers, a strict one for what is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from airflow_modelarts.api.json_reading import null_for_non_finite, read_json, repaired
from airflow_modelarts.api.redaction import may_hold_a_signed_link, printable, without_signed_links
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, status_name

FEATURE_ANALYSIS = "sys_data_analyse"


def parse_result(value: Any) -> Any:
    """
    Read a task's ``result``: declared an object, and a string in the reference's own example.

    A string that is valid JSON for an object or an array becomes that; anything else stays what it is.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return read_json(value.encode())
    except (ValueError, RecursionError):  # it only looked like JSON; a lone surrogate cannot be encoded either
        return value


def _count(value: Any) -> int | None:
    """Return a count of items; None for what is none, since a list can be read without."""
    if isinstance(value, str | float) and not isinstance(value, bool):
        try:
            value = int(value)
        except (ValueError, OverflowError):
            return None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


#: Tells that it is unreadable only where that is a task's status for sure: a text, for example, or a fraction.
Status = Annotated[int | None, BeforeValidator(null_for_non_finite)]
#: A text that goes into exceptions, logs and reports as it is.
ShownText = Annotated[str | None, AfterValidator(lambda text: text and printable(without_signed_links(text)))]
Count = Annotated[int | None, BeforeValidator(_count)]
#: Whatever is no truth value says nothing.
HasMore = Annotated[bool | None, BeforeValidator(lambda value: value if isinstance(value, bool) else None)]


class ApiModel(BaseModel):
    """An object of the API: any field may be missing or null, unknown ones are kept."""

    model_config = ConfigDict(
        extra="allow", frozen=True, coerce_numbers_to_str=True, protected_namespaces=(), defer_build=True
    )

    def to_json(self) -> dict[str, Any]:
        """Return what the API sent, under its own field names, without download links."""
        kept: dict[str, Any] = without_signed_links(self.model_dump(exclude_unset=True))
        return kept


class ProcessorDataSource(ApiModel):
    """
    An input: an OBS path, another processing task, a dataset, or a tenant's data.

    :param source: an OBS path, a task id, a dataset id, or for ``CUSTOM`` the real user's project id, by ``type``.
    :param version_id: the dataset's version.
    """

    type: str | None = None
    source: str | None = None
    name: str | None = None
    version_id: str | None = None
    version_name: str | None = None


class WorkPath(ApiModel):
    """
    Where a task works and writes.

    :param type: ``OBS`` or ``DATASET``.
    :param path: an OBS path or a dataset id, by ``type``.
    :param output_path: for example ``/datasets/demo``.
    """

    type: str | None = None
    path: str | None = None
    output_path: str | None = None
    name: str | None = None
    version_id: str | None = None
    version_name: str | None = None


class OperatorParam(ApiModel):
    """An operator of a template and its parameters, kept exactly as they were written."""

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
    """
    What a task and a version have in common.

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
        """Return what was answered under the API's field names, plus ``status_name``."""
        return {**super().to_json(), "status_name": self.status_name}


class ProcessorTask(HasStatus):
    """
    A processing task.

    :param create_time: milliseconds since the epoch.
    :param error_msg: only with status 3; on one line, and without signed links.
    :param result: parsed; only with status 2, and only for feature analysis. No dump and no JSON of a task holds it.
    :param version_id: of the *dataset*, as is ``version_name``.
    """

    task_id: str
    name: str | None = None
    description: str | None = None
    create_time: int | None = None
    duration_seconds: int | None = None
    # It can be tens of megabytes, and has a place of its own wherever a task goes.
    result: Annotated[Any, BeforeValidator(parse_result)] = Field(default=None, repr=False, exclude=True)
    data_source: ProcessorDataSource | None = None
    inputs: list[ProcessorDataSource] | None = None
    template: TemplateParam | None = None
    work_path: WorkPath | None = None
    version_count: int | None = None
    version_id: str | None = None
    version_name: str | None = None
    workspace_id: str | None = None
    is_current: bool | None = None


class ProcessorTaskVersion(HasStatus):
    """One run of a data-processing task; feature analysis has none."""

    task_version_id: str | None = None
    task_id: str | None = None
    version_name: str | None = None
    create_time: int | None = None
    update_time: int | None = None
    duration_seconds: int | None = None
    description: str | None = None
    inputs: list[ProcessorDataSource] | None = None
    template: TemplateParam | None = None
    work_path: WorkPath | None = None
    origin_sample_count: int | None = None
    add_sample_count: int | None = None
    modified_sample_count: int | None = None
    unmodified_sample_count: int | None = None
    deleted_sample_count: int | None = None


class ProcessorTaskItem(ApiModel):
    """A template that the service offers, with its labels."""

    template_id: str | None = None
    label_en: str | None = None
    label_zh: str | None = None


class SampleResult(ApiModel):
    """
    What a version did to one sample.

    :param result_property: 0 reserved, 1 modified, 2 deleted, 3 added.
    :param signed_origin_source: a download link that is itself a credential; absent unless it was asked for.
    :param signed_new_source: likewise.
    """

    sample_id: str | None = None
    version_id: str | None = None
    origin_source: str | None = None
    new_source: str | None = None
    result_property: int | None = None
    result_description: list[list[str]] | None = None
    signed_origin_source: str | None = Field(default=None, repr=False)
    signed_new_source: str | None = Field(default=None, repr=False)


class Empty(ApiModel):
    """The answer of an operation that has nothing to say."""


class CreatedTask(ApiModel):
    """The answer of CreateProcessorTask."""

    task_id: str


class CreatedVersion(ApiModel):
    """The answer of CreateProcessorTaskVersion."""

    version_id: str


class Listing(ApiModel):
    """One page of a list operation: its items under the operation's own name, and how many there are in all."""

    count: Count = None
    has_more: HasMore = None


class ProcessorTaskPage(Listing):
    """One page of ListProcessorTasks."""

    tasks: list[ProcessorTask] | None = None


class ProcessorTaskVersionPage(Listing):
    """One page of ListProcessorTaskVersions."""

    versions: list[ProcessorTaskVersion] | None = None


class ProcessorTaskItemPage(Listing):
    """One page of ListProcessorTaskItems, which calls its count ``total``."""

    count: Count = Field(default=None, alias="total")
    items: list[ProcessorTaskItem] | None = None


class SampleResultPage(Listing):
    """One page of ListProcessorTaskVersionResults."""

    results: list[SampleResult] | None = None


Description = Annotated[str, Field(max_length=256, pattern=r"""^[^\^!<>=&"']*$""")]
VersionName = Annotated[str, Field(max_length=32, pattern=r"^[A-Za-z0-9_-]*$")]


class _Sent(BaseModel):
    """A body we send: fields we know are checked, fields we do not know pass, nothing is rewritten."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class SentDataSource(_Sent):
    """An input of a task to be created, see :class:`ProcessorDataSource`."""

    type: Literal["OBS", "TASK", "DATASET", "CUSTOM"] | None = None
    source: str | None = None


class SentWorkPath(_Sent):
    """Where a task to be created shall write, see :class:`WorkPath`."""

    type: Literal["OBS", "DATASET"] | None = None
    path: str | None = None
    output_path: str | None = None
    version_name: VersionName | None = None


class SentTemplate(_Sent):
    """The template of a task to be created, see :class:`TemplateParam`."""

    id: Annotated[str, Field(min_length=1)]
    operator_params: list[dict[str, Any]] | None = None


class UpdateProcessorTaskRequest(_Sent):
    """The body of UpdateProcessorTask."""

    description: Description


class CreateProcessorTaskVersionRequest(_Sent):
    """
    The body of CreateProcessorTaskVersion, and the larger part of CreateProcessorTask's.

    :param data_source: the one input; exactly one of this and ``inputs`` is given.
    :param description: at most 256 characters, none of ``^ ! < > = & " '``.
    :param version_id: the dataset version to process.
    """

    name: Annotated[str, Field(min_length=1)]
    template: SentTemplate
    data_source: SentDataSource | None = None
    inputs: Annotated[list[SentDataSource], Field(min_length=1)] | None = None
    description: Description | None = None
    version_id: str | None = None
    work_path: SentWorkPath | None = None
    workspace_id: str | None = None

    @classmethod
    def faults_between_fields(cls, body: Mapping[str, Any]) -> list[str]:
        """Say what is wrong with a body beyond its single fields, as far as those can be read."""
        given = [name for name in ("data_source", "inputs") if body.get(name) is not None]
        if not given:
            return ["give data_source or inputs: neither is there"]
        return ["give data_source or inputs, not both"] if len(given) == 2 else []

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if found := self.faults_between_fields(self.model_dump()):
            raise ValueError("; ".join(found))
        return self


class CreateProcessorTaskRequest(CreateProcessorTaskVersionRequest):
    """
    The body of CreateProcessorTask.

    :param create_version: true only for data processing, which is any template but ``sys_data_analyse``.
    """

    create_version: bool | None = None

    @classmethod
    def faults_between_fields(cls, body: Mapping[str, Any]) -> list[str]:
        """Say what is wrong with a body beyond its single fields, as far as those can be read."""
        found = super().faults_between_fields(body)
        template = body.get("template")
        if body.get("create_version") and isinstance(template, Mapping) and template.get("id") == FEATURE_ANALYSIS:
            found.append(f"create_version must not be true for {FEATURE_ANALYSIS}: it has no versions")
        return found


Parsed = TypeVar("Parsed", bound=ApiModel)
TaskT = TypeVar("TaskT", bound=ProcessorTask)


def parse(model: type[Parsed], body: bytes) -> Parsed:
    """
    Read an answer.

    :raises ValueError: the answer is not JSON, or not of that shape.
    """
    try:
        try:
            return _parse(model, body)
        except (ValueError, RecursionError):
            # A result is of no use to a wait, and must not end or prolong one, however deep it is nested.
            readable = repaired(body, 4 if issubclass(model, Listing) else 2)
            if readable == body:
                raise
        return _parse(model, readable)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _parse(model: type[Parsed], body: bytes) -> Parsed:
    # Not model_validate_json, which holds the answer twice, as JSON and as Python, while it validates.
    parsed = model.model_validate(read_json(body))
    if may_hold_a_signed_link(body):
        if isinstance(parsed, ProcessorTask):
            return _without_signed_links(parsed)
        if isinstance(parsed, ProcessorTaskPage) and parsed.tasks:
            return parsed.model_copy(update={"tasks": [_without_signed_links(task) for task in parsed.tasks]})
    return parsed


def _without_signed_links(task: TaskT) -> TaskT:
    # It leaves the task by another way than to_json: as an XCom of its own.
    return task.model_copy(update={"result": without_signed_links(task.result)}) if task.result else task


def parse_sample_results(body: bytes, *, signed_links: bool) -> SampleResultPage:
    """Read a page of sample results, with their download links only when they are wanted."""
    page = parse(SampleResultPage, body)
    if signed_links or not page.results:
        return page
    return page.model_copy(update={"results": [_without_links(result) for result in page.results]})


def _without_links(result: SampleResult) -> SampleResult:
    return SampleResult.model_validate(result.to_json())
