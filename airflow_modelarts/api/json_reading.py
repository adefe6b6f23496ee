"""Reads JSON of the service, and replaces what XComs and databases cannot store."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from typing import Any, TypeVar

import msgspec
from pydantic_core import from_json

T = TypeVar("T")

#: Levels of nesting within a field. Airflow's own JSON functions fail at some 200, depending on the stack.
MAX_DEPTH = 100

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A number with an exponent of three digits or more may be too large for a float, and is then read as infinite. A
# pattern that begins with one certain character is found five times faster than one that begins with a set of them.
_LARGE_EXPONENTS = {
    letter: re.compile(letter + rb"(?<=[0-9].)\+?[0-9]{3,}+(?=[\s,\]}]|\Z)", re.DOTALL) for letter in (b"e", b"E")
}
# As json.loads does. By default values are cached too, which takes twice as long where they differ.
_from_json = partial(from_json, cache_strings="keys")
# Escaped halves of surrogate pairs; "other" are whole pairs and escaped backslashes.
_SURROGATES = re.compile(rb"(?i)(?P<other>\\\\|\\u[d][89ab][0-9a-f]{2}\\u[d][c-f][0-9a-f]{2})|\\u[d][89a-f][0-9a-f]{2}")
# Possessive quantifiers, so that a long string takes no memory.
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)


def read_json(body: bytes) -> Any:
    """Read JSON, with None for NaN and infinities, which XComs and PostgreSQL refuse.

    :raises ValueError: it is not JSON, or is nested too deeply.
    :raises RecursionError: it is nested too deeply for the remaining stack.
    """
    body = without_byte_order_mark(body)
    try:
        value = _from_json(body, allow_inf_nan=False)
    except ValueError:  # not JSON, or with NaN or Infinity
        value = _from_json(body)
    else:
        if not _may_hold_large_number(body):
            return value
    return _put_null_for_non_finite([value])[0]


def read_part(decoder: msgspec.json.Decoder[T], body: bytes) -> T | None:
    """Read of JSON only what a decoder's type has; None if that does not fit. What it skips is checked less strictly.

    Pydantic would build all of it first.
    """
    body = without_byte_order_mark(body)
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            return None
        except msgspec.DecodeError:  # NaN and infinities are not JSON, but some servers write them
            return msgspec.convert(read_json(body), decoder.type)
    except (ValueError, RecursionError, msgspec.ValidationError):
        return None


def _may_hold_large_number(body: bytes) -> bool:
    return any(letter in body and number.search(body) for letter, number in _LARGE_EXPONENTS.items())


def null_for_non_finite(value: Any) -> Any:
    """Return None for NaN and infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def without_byte_order_mark(body: bytes) -> bytes:
    """Return JSON without the byte order mark that some servers send."""
    return body.removeprefix(_BYTE_ORDER_MARK)


def repaired(body: bytes, level: int) -> bytes:
    """Return JSON that can be read, if only some characters or the depth of nesting prevent that.

    Half of a surrogate pair, which a truncated text can contain, and what is not UTF-8 become U+FFFD. A field that is
    nested too deeply becomes a string with its JSON.

    :param level: the level of nesting of the fields, counted from 1: 2 for the fields of an object.
    """
    body = body.decode(errors="replace").encode()
    body = _SURROGATES.sub(lambda found: found["other"] or b"\\ufffd", body)
    parts: list[bytes] = []
    kept = start = depth = deepest = 0
    for token in _STRING_OR_BRACKET.finditer(body):
        match body[token.start() : token.start() + 1]:
            case b"[" | b"{":
                depth += 1
                if depth == level:
                    start, deepest = token.start(), depth
                deepest = max(deepest, depth)
            case b"]" | b"}":
                if depth == level and deepest - level >= MAX_DEPTH:
                    parts += [body[kept:start], json.dumps(body[start : token.end()].decode()).encode()]
                    kept = token.end()
                depth -= 1
    return b"".join([*parts, body[kept:]])


def _put_null_for_non_finite(container: Any) -> Any:
    """Replace NaN and infinities within a list or a dict, and return it. A copy would take as much memory again."""
    for key, item in container.items() if isinstance(container, dict) else enumerate(container):
        if isinstance(item, float):
            container[key] = null_for_non_finite(item)
        elif isinstance(item, dict | list):
            _put_null_for_non_finite(item)
    return container
