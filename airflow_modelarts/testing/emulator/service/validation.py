"""Validation of request bodies; an error names the field and has the contract's code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from airflow_modelarts.testing.emulator.service.errors import ServiceError
from airflow_modelarts.testing.emulator.service.projects import Project
from airflow_modelarts.testing.emulator.service.tasks import sources_of

#: Characters. The contract has a code for a work path that is too long, but no limit; OBS keys end at 1024 bytes.
MAX_WORK_PATH = 1024
#: Levels of nesting; bodies of this API need six.
MAX_JSON_DEPTH = 64

_OBS_PATH = re.compile(r"(?:obs://|s3://|/)(?P<bucket>[a-z0-9][a-z0-9.-]{2,62})(?:/(?P<key>[^\x00-\x1f]*))?")


@dataclass
class MissingResources:
    """Resources that requests must not name. Every other dataset, bucket and path is taken to exist."""

    datasets: set[str] = field(default_factory=set)
    dataset_versions: set[str] = field(default_factory=set)
    buckets: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    encrypted_buckets: set[str] = field(default_factory=set)


def read_json(raw: bytes) -> Any:
    """Parse a request's body; refuse what is not JSON, a number that JSON does not allow, and too deep nesting."""
    try:
        value = json.loads(raw, parse_constant=_refuse_constant, parse_float=_finite)
        check_depth(value, MAX_JSON_DEPTH)
    except (ValueError, RecursionError) as error:  # broken UTF-8 and integers of thousands of digits are ValueErrors
        raise ServiceError("ModelArts.0104", f"the request body is not valid JSON: {error}") from None
    return value


def check_depth(value: Any, levels: int) -> None:
    """Raise ValueError for JSON that is nested too deeply."""
    if levels == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            if isinstance(item, (dict, list)):
                check_depth(item, levels - 1)


def check_body(model: type[BaseModel], body: Any) -> dict[str, Any]:
    """Return a request's body when it is valid by the API's model of it; raise ServiceError otherwise."""
    try:
        model.model_validate(body, strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        # A missing field or a wrong type is a wrong parameter (0104); anything else is an invalid argument (0101).
        wrong_form = any(
            problem["type"] == "missing" or problem["type"].endswith(("_type", "_unicode")) for problem in problems
        )
        message = "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}" for problem in problems)
        raise ServiceError("ModelArts.0104" if wrong_form else "ModelArts.0101", message) from None
    valid: dict[str, Any] = body
    return valid


def check_resources(
    body: dict[str, Any], project: Project, templates: Collection[str], missing: MissingResources
) -> None:
    """Check that what a create body names exists; raise ServiceError with the code of the first problem."""
    template_id = body["template"]["id"]
    if template_id not in templates:
        raise ServiceError(
            "ModelArts.0101", f"template.id: {template_id!r} does not exist; the templates are {', '.join(templates)}"
        )
    if (body.get("workspace_id") or "0") not in project.workspaces:
        raise ServiceError("ModelArts.0102", f"workspace_id: workspace {body['workspace_id']!r} does not exist")
    if body.get("data_source") is not None:
        _check_source("data_source", body["data_source"], missing)
    for number, source in enumerate(body.get("inputs") or []):
        _check_source(f"inputs.{number}", source, missing)
    if body.get("work_path") is not None:
        _check_work_path(body["work_path"], missing)
    _check_dataset_version("version_id", body.get("version_id"), missing)
    for source in sources_of(body):
        if source.get("type") == "TASK" and source["source"] not in project.tasks:
            message = f"the data source {source['source']!r} is not a task of the project"
            raise ServiceError("ModelArts.4612", message)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _check_source(name: str, source: dict[str, Any], missing: MissingResources) -> None:
    kind, place = source.get("type"), source.get("source")
    if kind not in (None, "CUSTOM") and not place:
        raise ServiceError("ModelArts.0101", f"{name}.source: needed for type {kind}")
    if kind == "OBS":
        _check_obs_path(f"{name}.source", str(place), missing)
    if kind == "DATASET":
        _check_dataset(f"{name}.source", str(place), missing)
        _check_dataset_version(f"{name}.version_id", source.get("version_id"), missing)


def _check_work_path(work_path: dict[str, Any], missing: MissingResources) -> None:
    path = work_path.get("path")
    if path is None:
        return
    if len(path) > MAX_WORK_PATH:
        raise ServiceError("ModelArts.4350", f"work_path.path: longer than {MAX_WORK_PATH} characters")
    if work_path.get("type") == "OBS":
        _check_obs_path("work_path.path", path, missing)
    if work_path.get("type") == "DATASET":
        _check_dataset("work_path.path", path, missing)


def _check_obs_path(name: str, path: str, missing: MissingResources) -> None:
    parsed = _OBS_PATH.fullmatch(path)
    if parsed is None:
        raise ServiceError(
            "ModelArts.0101",
            f"{name}: must be obs://bucket/key, s3://bucket/key or /bucket/key; "
            "a bucket name has 3 to 63 lower-case letters, digits, '-' and '.'",
        )
    bucket = parsed["bucket"]
    if bucket in missing.buckets:
        raise ServiceError("ModelArts.4311", f"{name}: the OBS bucket {bucket} does not exist")
    if bucket in missing.encrypted_buckets:
        # The contract says that these are refused, but not with which code.
        raise ServiceError("ModelArts.0101", f"{name}: the OBS bucket {bucket} is encrypted with KMS")
    if path in missing.paths:
        raise ServiceError("ModelArts.4312", f"{name}: the OBS path {path} does not exist")


def _check_dataset(name: str, dataset_id: str, missing: MissingResources) -> None:
    if dataset_id in missing.datasets:
        raise ServiceError("ModelArts.4352", f"{name}: dataset {dataset_id} does not exist")


def _check_dataset_version(name: str, version_id: Any, missing: MissingResources) -> None:
    if isinstance(version_id, str) and version_id in missing.dataset_versions:
        raise ServiceError("ModelArts.4353", f"{name}: dataset version {version_id} does not exist")
