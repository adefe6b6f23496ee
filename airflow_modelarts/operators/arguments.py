"""The check of arguments when a DAG is parsed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from numbers import Number
from typing import Any, Literal, get_args

from airflow_modelarts.api.arguments import ArgumentError, is_reference, is_template, warn_of_unknown_template
from airflow_modelarts.api.bodies import LISTS, example, read_text
from airflow_modelarts.api.statuses import read_status, read_statuses

#: What an audit takes as its window, see ModelArtsAuditProcessorTasksOperator.
WindowKind = Literal["since_last", "data_interval", "day"]


def check_object(field: str, value: Any) -> None:
    """Check an argument that is an object or a list of objects.

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


def read_status_filter(name: str, given: Any) -> tuple[int, ...]:
    """Read one status or several, each as a number or a name; None selects all.

    :raises ArgumentError: one is unknown, or the list is empty.
    :raises ModelArtsRequestError: a template rendered to an empty list.
    """
    if given is None:
        return ()
    if isinstance(given, str) and given.lstrip().startswith("["):  # the text of a list that a template rendered
        if not (listed := read_text(given)):
            from airflow_modelarts.api.errors import ModelArtsRequestError

            raise ModelArtsRequestError(f"{name} is {given!r}, an empty list. Leave {name} out for every status")
        given = listed
    if isinstance(given, int | str):
        return (int(read_status(name, given)),)
    if not (statuses := read_statuses(name, given)):
        raise ArgumentError(f"{name} is {given!r}, an empty list: leave it out for every status")
    return statuses


def check_status_filter(name: str, given: Any) -> None:
    """Check a status or a list of them, if no template and no other task gives any."""
    parts = given if isinstance(given, list | tuple | set | frozenset) else [given]
    if all(isinstance(part, int | float | str) and not is_template(part) for part in parts):
        read_status_filter(name, given)


def check_window(window: Any, lag: Any) -> None:
    """Check the arguments that choose the window of an audit.

    :raises ValueError: the kind is unknown, or the lag is negative or no timedelta.
    """
    if window not in get_args(WindowKind):
        raise ValueError(f"window is {window!r}: choose {', '.join(map(repr, get_args(WindowKind)))}")
    if not isinstance(lag, timedelta) or lag < timedelta():
        raise ValueError(f"lag is {lag!r}: give a timedelta that is not negative, such as timedelta(hours=12)")


def literals(value: Any) -> Any:
    """Return the part of an argument that rendering does not change.

    :return: None if only rendering can tell the whole of it. In an object, such a value is an empty text; in a list it
        is missing.
    """
    if isinstance(value, Mapping):
        return {key: "" if _is_open(item) else literals(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [literals(item) for item in value if not _is_open(item)]
    return None if _is_open(value) else value


def _is_open(value: Any) -> bool:
    return is_template(value) or is_reference(value)


def _read_literal(value: Any) -> Any:
    """Return the value of a literal; None if only rendering can tell."""
    if not isinstance(value, str):
        return value
    return None if is_template(value) or value.endswith(".json") else read_text(value)
