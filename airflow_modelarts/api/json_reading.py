"""JSON of the service as Python: what XComs and databases refuse is replaced, and what is nested too deeply is text."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pydantic_core import from_json

#: Levels within a field; Airflow's own reading and writing of JSON ends at some 200, by the stack that is left.
DEEPEST = 100

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# An exponent with so many digits that the number may be too large for a float, and is then read as infinite.
_LARGE_EXPONENT = re.compile(rb"[0-9][eE]\+?[0-9]{3}")
# Halves of characters as JSON escapes them, beside what must be told from them.
_SURROGATES = re.compile(rb"(?i)(?P<other>\\\\|\\u[d][89ab][0-9a-f]{2}\\u[d][c-f][0-9a-f]{2})|\\u[d][89a-f][0-9a-f]{2}")
# Possessive, so that a string of any length takes no memory.
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)


def read_json(body: bytes) -> Any:
    """
    Read JSON with null for NaN and infinities: services in Python write them, XComs and PostgreSQL refuse them.

    :raises ValueError: it is not JSON, or is nested too deeply.
    :raises RecursionError: it is nested too deeply for the stack that is left.
    """
    value = from_json(without_byte_order_mark(body))
    might_not_be_finite = b"NaN" in body or b"Infinity" in body or _LARGE_EXPONENT.search(body)
    return _with_null_for_non_finite(value) if might_not_be_finite else value


def null_for_non_finite(value: Any) -> Any:
    """Return None for NaN and infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def without_byte_order_mark(body: bytes) -> bytes:
    """Return JSON without the mark that some servers write before it."""
    return body.removeprefix(_BYTE_ORDER_MARK)


def repaired(body: bytes, level: int) -> bytes:
    """
    Return JSON without what makes it unreadable though its meaning is clear.

    Halves of characters, which a service leaves that cuts a text, become U+FFFD. A field that is nested too deeply
    becomes a string that holds its JSON.

    :param level: on which level of nesting the fields are, counted from 1: 2 for those of an object.
    :raises ValueError: a field that is nested too deeply is not UTF-8.
    """
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
                if depth == level and deepest - level >= DEEPEST:
                    parts += [body[kept:start], json.dumps(body[start : token.end()].decode()).encode()]
                    kept = token.end()
                depth -= 1
    return b"".join([*parts, body[kept:]])


def _with_null_for_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_null_for_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_null_for_non_finite(item) for item in value]
    return null_for_non_finite(value)
