"""Reads objects of the service that do not fit their model: an object field by field, a list item by item.

One odd field of one task must not make a whole list unreadable. This is tried only after an answer did not fit, so
ordinary answers take no longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

#: Where a model's ``__dict__`` has what could not be read. Pydantic ignores names there that are no fields.
UNREADABLE, UNREADABLE_ITEMS = "_unreadable", "_unreadable_items"
#: The largest number that databases and data frames can store.
LARGEST_NUMBER = 2**63 - 1
#: A repaired field is validated again; if it then does not fit either, nothing will.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """An item of a list that cannot be read at all.

    :param index: its place on the page, from 0.
    :param reason: why, for example ``no readable task_id``.
    :param identity: the same for the same object, to recognize one that is listed twice; None for anything else.
    """

    index: int
    reason: str
    identity: bytes | None = field(default=None, repr=False)


def read_leniently(model: type[Model], value: Any, *, required: Collection[str] = ()) -> Model:
    """Read an object. A field that cannot be read becomes None, and ``unreadable`` of the model names it.

    Numbers in text, fractions and, for the moments, ISO 8601 text are read.

    :param value: the object, which this changes.
    :param required: fields that must be readable, beside those that the model requires.
    :raises ValueError: it is no object, or a required field cannot be read.
    """
    unreadable: dict[str, None] = {}
    for attempt in range(ATTEMPTS):
        try:
            read = model.model_validate(value)
        except ValidationError as error:
            if attempt == ATTEMPTS - 1:
                raise
            _repair(value, error, unreadable, required)
        else:
            return mark_unreadable(read, tuple(unreadable))
    raise AssertionError("the last attempt returns or raises")


def mark_unreadable(model: Model, names: tuple[str, ...]) -> Model:
    """Name the unreadable fields of a model, and return it."""
    if names:
        vars(model)[UNREADABLE] = names
    return model


def read_items(model: type[Model], values: Sequence[Any]) -> tuple[list[Model], tuple[UnreadableItem, ...]]:
    """Read the items of a list, and those that cannot be read at all."""
    read, unreadable = [], []
    for index, value in enumerate(values):
        identity = blake2b(repr(value).encode(), digest_size=16).digest() if isinstance(value, dict) else None
        try:
            read.append(read_leniently(model, value))
        except ValidationError as error:
            unreadable.append(UnreadableItem(index, _explain(value, error), identity))
    return read, tuple(unreadable)


def _repair(value: Any, error: ValidationError, unreadable: dict[str, None], required: Collection[str]) -> None:
    """Replace what does not fit: by its number where it has one, else by None; an item of a list is removed."""
    # From the last to the first, so that removing an item moves none that is still to be repaired.
    for fault in reversed(error.errors(include_url=False, include_context=False, include_input=False)):
        place = fault["loc"]
        name = ".".join(part for part in place if isinstance(part, str))
        if not place or name in required or fault["type"] == "missing":
            raise error
        *path, last = place
        holder = value
        for part in path:
            holder = holder[part]
        if isinstance(last, int):
            del holder[last]
            unreadable[name] = None
            continue
        read = NUMBERS.get(last)
        holder[last] = read(holder[last]) if read else None
        if holder[last] is None:
            unreadable[name] = None


def _explain(value: Any, error: ValidationError) -> str:
    if not isinstance(value, dict):
        return "no object"
    names = sorted({str(fault["loc"][0]) for fault in error.errors(include_url=False, include_context=False)})
    return f"no readable {' and '.join(names)}"


def _read_number(value: Any) -> int | None:
    """Return the whole part of a number, or of a number in a text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        try:
            number = math.floor(float(value))
        except (ValueError, OverflowError):  # neither a number nor finite
            return None
    return number if abs(number) <= LARGEST_NUMBER else None


def _read_moment(value: Any) -> int | None:
    """Return a moment in milliseconds since the epoch; ISO 8601 text without an offset is in UTC."""
    number = _read_number(value)
    if number is not None or not isinstance(value, str):
        return number
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


#: How to read the numbers of tasks, versions and sample results that the service did not write as whole numbers.
NUMBERS: dict[str, Callable[[Any], int | None]] = {
    **dict.fromkeys(("create_time", "update_time"), _read_moment),
    **dict.fromkeys(
        (
            *("duration_seconds", "version_count", "result_property", "origin_sample_count", "add_sample_count"),
            *("modified_sample_count", "unmodified_sample_count", "deleted_sample_count"),
        ),
        _read_number,
    ),
}
