"""Checks the arguments of an operation and encodes them as the path, the query and the body of its request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from airflow_modelarts.api.arguments import is_template
from airflow_modelarts.api.bodies import example
from airflow_modelarts.api.errors import ModelArtsRequestError
from airflow_modelarts.api.request_models import CreateProcessorTaskVersionRequest
from airflow_modelarts.api.signing import encode

#: Follows the value of a setting or an id in an error.
NOT_RENDERED = (
    "it is a template that was not rendered. Airflow renders the templated fields of operators and sensors once. It "
    "renders nothing in connections, in hooks and in the values that a template inserts"
)


def encode_path(*ids: str) -> str:
    """Return the path of ids and names such as ``stop``; raise ModelArtsRequestError for what is no path segment."""
    return "/".join(["/processor-tasks", *(_encode_segment(segment) for segment in ids)])


def encode_query(**parameters: Any) -> dict[str, str]:
    """Return the parameters that are not None, as text; raise ModelArtsRequestError for what cannot be encoded."""
    return {
        name: str(value).lower() if isinstance(value, bool) else _encodable(name, str(value))
        for name, value in parameters.items()
        if value is not None
    }


def encode_body(operation: str, model: type[BaseModel], **fields: Any) -> bytes:
    """Return the fields that are not None as JSON, unchanged; raise ModelArtsRequestError with every fault."""
    given = {name: value for name, value in fields.items() if value is not None}
    if "inputs" in given and not isinstance(given["inputs"], str | Mapping):
        given["inputs"] = list(given["inputs"])
    unrendered = (name for name in ("name", "version_id", "workspace_id") if is_template(given.get(name)))
    reason = "; ".join(f"{name} is {given[name]!r}: {NOT_RENDERED}" for name in unrendered)
    reason = reason or describe_faults(model, given)
    if not reason:
        try:
            return json.dumps(given, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            reason = str(error)
    raise ModelArtsRequestError(
        f"{operation} was not sent, since its arguments are not valid: {reason}", operation=operation
    )


def describe_faults(model: type[BaseModel], body: Mapping[str, Any]) -> str:
    """Return every fault of a body on one line, each with its field's name and without values; "" if it is valid."""
    try:
        model.model_validate(body)
        return ""
    except ValidationError as error:
        found = list(_field_faults(error))
    if issubclass(model, CreateProcessorTaskVersionRequest):
        # Pydantic checks the body as a whole only if every field is valid.
        found += [fault for fault in model.faults_between_fields(body) if fault not in found]
    return "; ".join(found)


def _field_faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        field = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] in ("model_type", "dict_type", "list_type"):
            *_, name = (part for part in fault["loc"] if isinstance(part, str))
            kind = "a list" if fault["type"] == "list_type" else "an object"
            shown = example(name, item=isinstance(fault["loc"][-1], int))
            message = f"it must be {kind}, or its text as JSON, such as {shown}"
        if field == "description" and fault["type"] == "string_pattern_mismatch":
            message = "it must contain none of ^ ! < > = & \" '"
        yield f"{field}: {message}" if field else message


def _encodable(name: str, text: str) -> str:
    if is_template(text):
        raise ModelArtsRequestError(f"{name} is {text!r}: {NOT_RENDERED}")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can contain
        raise ModelArtsRequestError(f"{name} is {text!r}, which cannot be sent: {error.reason}") from None
    return text


def _encode_segment(value: object) -> str:
    # The value can be of any type: users pass what another task pushed.
    if is_template(value):
        advice = NOT_RENDERED
    elif isinstance(value, str) and "/" in value:
        # Some gateways decode an escaped slash, so that a task would be deleted instead of a version.
        advice = "an id contains no slash. Give the last part alone, and a version's id by its own parameter"
    elif isinstance(value, str) and value.strip() and value not in (".", ".."):  # a dot segment would change the path
        return encode(_encodable("an id", value))
    else:
        advice = "if another task returned it, check what that pushed"
    raise ModelArtsRequestError(f"{value!r} is not the id of a processing task or version: {advice}")
