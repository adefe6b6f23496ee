"""The check of object arguments when a DAG is parsed."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from typing import Any

from airflow_modelarts.api.arguments import ArgumentError, is_template, warn_of_unknown_template
from airflow_modelarts.api.bodies import LISTS, example, read_text


def check_object(field: str, value: Any) -> None:
    """
    Check an argument that is an object or a list of objects.

    :raises ArgumentError: it is a literal that no rendering can turn into one.
    """
    read = _read_literal(value)
    other_kind = Mapping if field in LISTS else list | tuple
    if isinstance(read, str | bytes | Number | other_kind):
        raise ArgumentError(f"{field} is {repr(value)[:200]}: give {example(field, value)}")
    for number, item in enumerate(read if isinstance(read, list | tuple) else ()):
        if isinstance(_read_literal(item), str | bytes | Number | list | tuple):
            raise ArgumentError(f"{field}[{number}] is {repr(item)[:200]}: give {example(field, item, item=True)}")


def check_template(field: str, value: Any) -> None:
    """Check a template as :func:`check_object` does; warn of one that the API reference does not document."""
    check_object(field, value)
    read = _read_literal(value)
    template_id = read.get("id") if isinstance(read, Mapping) else getattr(read, "id", None)
    warn_of_unknown_template(f"id of {field}", template_id)


def _read_literal(value: Any) -> Any:
    """Return the value of a literal; None if only rendering can tell."""
    if not isinstance(value, str):
        return value
    return None if is_template(value) or value.endswith(".json") else read_text(value)
