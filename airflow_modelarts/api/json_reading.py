"""Reads JSON of the service, and replaces what XComs and databases cannot store."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pydantic_core import from_json

#: Levels of nesting within a field. Airflow's own JSON functions fail at some 200, depending on the stack.
MAX_DEPTH = 100

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# An exponent of three digits or more: the number may be too large for a float, and is then read as infinite.
_LARGE_EXPONENT = re.compile(rb"[0-9][eE]\+?[0-9]{3}")
# Escaped halves of surrogate pairs; "other" are whole pairs and escaped backslashes.
_SURROGATES = re.compile(rb"(?i)(?P<other>\\\\|\\u[d][89ab][0-9a-f]{2}\\u[d][c-f][0-9a-f]{2})|\\u[d][89a-f][0-9a-f]{2}")
# Possessive quantifiers, so that a long string takes no memory.
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)


def read_json(body: bytes) -> Any:
    """Read JSON, with None for NaN and infinities, which XComs and PostgreSQL refuse.

    :raises ValueError: it is not JSON, or is nested too deeply.
    :raises RecursionError: it is nested too deeply for the remaining stack.
    """
    value = from_json(without_byte_order_mark(body))
    return _with_null_for_non_finite(value) if may_hold_non_finite(body) else value


def may_hold_non_finite(body: bytes) -> bool:
    """Return whether JSON may have NaN or an infinity, which is no text or number of a task."""
    return b"NaN" in body or b"Infinity" in body or _LARGE_EXPONENT.search(body) is not None


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


def _with_null_for_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_null_for_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_null_for_non_finite(item) for item in value]
    return null_for_non_finite(value)
