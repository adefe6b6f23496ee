"""Compares the body of a create request with a task that exists: whether it was created by the same request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_modelarts.api.errors import ModelArtsAlreadyExistsError
from airflow_modelarts.api.places import data_sources, obs_uri, typed_uri
from airflow_modelarts.api.redaction import printable, without_signed_links

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorTask

#: Characters of a value that a difference quotes.
MAX_QUOTE = 300


def differences(body: Mapping[str, Any], task: ProcessorTask) -> list[str]:
    """Return how the request of a task differs from a body, field by field; empty if it does not.

    What the body leaves out is not compared, since the service may have filled it in. Places in OBS are compared as
    places, and a text as the value that it represents: the service may answer ``"1920"`` where 1920 was sent. Two
    texts that only their numbers make equal differ, since ids can look like numbers.

    :param body: the fields template, data_source or inputs, work_path and version_id; others are ignored.
    :param task: as DescribeProcessorTask returned it.
    """
    return list(_differences(body, task))


def check_same_request(body: Mapping[str, Any], task: ProcessorTask) -> None:
    """Refuse a task that has the name of this request, and that another request created.

    :param body: see :func:`differences`.
    :raises ModelArtsAlreadyExistsError: it differs; the message shows how.
    """
    if different := differences(body, task):
        raise ModelArtsAlreadyExistsError(
            f"A processing task named '{task.name}' exists already, of another request: '{task.task_id}'. "
            f"{'; '.join(different)}. Choose another name, or make the same request.",
            operation="CreateProcessorTask",
        )


def _differences(body: Mapping[str, Any], task: ProcessorTask) -> Iterator[str]:
    exists = task.to_json()
    sources = [source.model_dump(exclude_unset=True) for source in data_sources(task)]
    given_sources = body.get("inputs") or ([body["data_source"]] if body.get("data_source") else [])
    if not _are_same_sources(given_sources, sources):
        yield _describe("inputs", given_sources, sources)
    for field in ("template", "work_path", "version_id"):
        given, found = body.get(field), exists.get(field)
        if given is not None and not _is_same(given, found):
            yield _describe(field, given, found)


def _are_same_sources(given: Any, found: list[Any]) -> bool:
    """Return whether two lists have the same inputs, in any order. An input with more fields is matched first."""
    remaining = list(found)
    for one in sorted(given, key=len, reverse=True):
        matched = next((number for number, other in enumerate(remaining) if _is_same(one, other)), None)
        if matched is None:
            return False
        del remaining[matched]
    return not remaining


def _is_same(given: Any, found: Any) -> bool:
    if given == found:  # also NaN as a text
        return True
    are_texts = isinstance(given, str) and isinstance(found, str)
    given, found = _plain(given), _plain(found)
    if are_texts and not isinstance(given, str | list | dict):  # such as the ids "0e12" and "0e13"
        return False
    if given in ("", [], {}) and found is None:
        return True
    if isinstance(given, Mapping):
        if not isinstance(found, Mapping):
            return False
        kind = given.get("type") or found.get("type")
        return all(
            _is_same_place(kind, value, found.get(name)) or _is_same(value, found.get(name))
            for name, value in given.items()
            if value is not None
        )
    if isinstance(given, list | tuple):
        is_list = isinstance(found, list) and len(found) == len(given)
        return is_list and all(_is_same(*pair) for pair in zip(given, found, strict=True))
    return bool(given == found)


def _is_same_place(kind: Any, given: Any, found: Any) -> bool:
    """Return whether two texts are the same place in OBS, which ``bucket/key`` can be if the type says so."""
    if not isinstance(given, str) or not isinstance(found, str):
        return False
    place = typed_uri(kind, given)
    return place is not None and place == typed_uri(kind, found)


def _plain(value: Any) -> Any:
    """Return a place as its URI, and the value that another text represents in JSON."""
    if not isinstance(value, str):
        return value
    if "/" in value and (uri := obs_uri(value)):
        return uri
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _describe(field: str, given: Any, found: Any) -> str:
    shown = (printable(json.dumps(without_signed_links(value), ensure_ascii=False)) for value in (found, given))
    exists, requested = (text if len(text) <= MAX_QUOTE else f"{text[:MAX_QUOTE]}…" for text in shown)
    return f"{field} is {exists} there, and {requested} in this request"
