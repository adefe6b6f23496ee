"""The fields of the bodies of create operations, as plain data. DAG files load it, so it does not import pydantic."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: The shape of a text.
TEXT = "text"
#: The shape of an object is the shape of each of its fields. A list of objects has the shape of one of them.
Shape = str | Mapping[str, Any] | None

_SOURCE = dict.fromkeys(("type", "source", "name", "version_id", "version_name"), TEXT)
#: The fields of a body that are objects or lists of objects. Fields without a shape are sent unchanged.
OBJECTS: Mapping[str, Mapping[str, Any]] = {
    "template": {"id": TEXT, "name": TEXT, "operator_params": {"id": TEXT, "name": TEXT, "params": {}}},
    "data_source": _SOURCE,
    "inputs": _SOURCE,
    "work_path": dict.fromkeys(("type", "path", "output_path", "name", "version_id", "version_name"), TEXT),
}
#: The fields that are lists.
LISTS = ("inputs", "operator_params")

_DATASET = {"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}
_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "template": {"id": "sys_data_validation", "operator_params": []},
    "data_source": _DATASET,
    "inputs": _DATASET,
    "work_path": {"type": "OBS", "path": "obs://bucket/folder/"},
    "operator_params": {"id": "sys_data_analyse", "params": {}},
    "params": {"task_type": "image_classification"},
}
#: An id or a path, given instead of the object that contains it.
_NAME = r"[\w:/.@-]{1,200}"


def example(field: str, given: Any = None, *, item: bool = False) -> str:
    """Return an example of a field, as JSON.

    :param given: the wrong value; an id or a path appears in the right field of the example.
    :param item: whether to return one item of a list.
    """
    shown = dict(_EXAMPLES[field])
    if isinstance(given, str) and re.fullmatch(_NAME, given):
        if field == "template":
            shown["id"] = given
        elif field == "work_path":
            shown["path"] = given
        elif field in ("data_source", "inputs"):
            shown = {"type": "OBS" if "/" in given else "DATASET", "source": given}
    return json.dumps([shown] if field in LISTS and not item else shown, ensure_ascii=False)


def read_text(text: str) -> Any:
    """Return the object, list or None that a text represents in JSON or Python; any other text unchanged."""
    from ast import literal_eval

    for read in (json.loads, literal_eval):
        try:
            value = read(text.strip().removeprefix("\ufeff"))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(value, str) and value != text:  # encoded twice
            value = read_text(value)
        if value is None or (isinstance(value, Mapping | Sequence) and not isinstance(value, str | bytes)):
            return value
    return text


def replace_leaves(value: Any, shape: Shape, replace: Callable[[Any, Shape], Any]) -> Any:
    """Return a value in which each leaf is replaced by what ``replace`` returns for it and its shape."""
    if value is None or isinstance(value, str | bytes):  # first: a check for an abstract class is slow
        return replace(value, shape)
    if isinstance(value, Mapping):
        shapes = shape if isinstance(shape, Mapping) else {}
        return {key: replace_leaves(item, shapes.get(key), replace) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [replace_leaves(item, shape, replace) for item in value]
    return replace(value, shape)
