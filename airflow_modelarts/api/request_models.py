"""The bodies of requests, as strict models: they are validated before a request is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from airflow_modelarts.api.models import FEATURE_ANALYSIS

Description = Annotated[str, Field(max_length=256, pattern=r"""^[^\^!<>=&"']*$""")]
VersionName = Annotated[str, Field(max_length=32, pattern=r"^[A-Za-z0-9_-]*$")]


class _Sent(BaseModel):
    """A request body. Known fields are validated, unknown fields are allowed."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class SentDataSource(_Sent):
    """An input of a task to be created, see :class:`~airflow_modelarts.api.models.ProcessorDataSource`."""

    type: Literal["OBS", "TASK", "DATASET", "CUSTOM"] | None = None
    source: str | None = None


class SentWorkPath(_Sent):
    """The place to which a task to be created writes, see :class:`~airflow_modelarts.api.models.WorkPath`."""

    type: Literal["OBS", "DATASET"] | None = None
    path: str | None = None
    output_path: str | None = None
    version_name: VersionName | None = None


class SentTemplate(_Sent):
    """The template of a task to be created, see :class:`~airflow_modelarts.api.models.TemplateParam`."""

    id: Annotated[str, Field(min_length=1)]
    operator_params: list[dict[str, Any]] | None = None


class UpdateProcessorTaskRequest(_Sent):
    """The body of UpdateProcessorTask."""

    description: Description


class CreateProcessorTaskVersionRequest(_Sent):
    """The body of CreateProcessorTaskVersion, and the larger part of CreateProcessorTask's.

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
        """Return the faults that concern several fields of a body."""
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
    """The body of CreateProcessorTask.

    :param create_version: true only for data processing, which is any template but ``sys_data_analyse``.
    """

    create_version: bool | None = None

    @classmethod
    def faults_between_fields(cls, body: Mapping[str, Any]) -> list[str]:
        """Return the faults that concern several fields of a body."""
        found = super().faults_between_fields(body)
        template = body.get("template")
        if body.get("create_version") and isinstance(template, Mapping) and template.get("id") == FEATURE_ANALYSIS:
            found.append(f"create_version must not be true for {FEATURE_ANALYSIS}: it has no versions")
        return found
