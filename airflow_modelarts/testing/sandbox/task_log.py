"""Task logs as Airflow writes them, made readable; and any text of others, made safe to print on a terminal."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_LINE_CATEGORIES = frozenset({"Zl", "Zp"})
_DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
CONTINUATION = "    "
"""Indents what follows the first line of a log message, so that no message can look like a line of the log itself."""


def printable(text: str) -> str:
    r"""Return text whose control characters are shown as escapes, such as ``\x1b``, but for tabs and line feeds.

    A terminal obeys control characters: they can hide, overwrite and forge what it shows. Colours are left out.
    """
    return "".join(map(_shown, _COLOUR.sub("", text)))


def one_line(text: str) -> str:
    """Return text as `printable` does, on one line."""
    return printable(text).replace("\n", "\\n")


def _shown(character: str) -> str:
    if character in "\t\n" or (" " <= character <= "~"):
        return character
    category = unicodedata.category(character)
    if category == "Cc" or category in _LINE_CATEGORIES or character in _DIRECTION_MARKS:
        return character.encode("unicode_escape").decode("ascii")
    return character


def readable_log(text: str) -> str:
    """Return a task log as printable lines: Airflow 3 writes a JSON object a line, Airflow 2 writes text already.

    Only a line feed ends a line: JSON may hold U+2028 and its like, at which `str.splitlines` would cut it.
    """
    return "\n".join(_readable_line(line.removesuffix("\r")) for line in text.removesuffix("\n").split("\n"))


def _readable_line(line: str) -> str:
    try:
        entry = json.loads(line)
        event = entry["event"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return printable(line)
    head = f"[{str(entry.get('timestamp', ''))[:19]}] {str(entry.get('level', '')).upper()} - "
    lines = [one_line(head) + _continued(event)]
    # Airflow puts the outermost exception first, Python's tracebacks put it last, where a reader looks for it.
    for error in reversed(_list(entry.get("error_detail"))):
        lines += _traceback(error) if isinstance(error, Mapping) else []
    return "\n".join(lines)


def _traceback(error: Mapping[str, Any]) -> list[str]:
    frames = [
        one_line(f'  File "{frame.get("filename")}", line {frame.get("lineno")}, in {frame.get("name")}')
        for frame in _list(error.get("frames"))
        if isinstance(frame, Mapping)
    ]
    return [
        "Traceback (most recent call last):",
        *frames,
        _continued(f"{error.get('exc_type')}: {error.get('exc_value')}"),
        *map(_continued, _list(error.get("exc_notes"))),
    ]


def _continued(text: object) -> str:
    return printable(str(text)).replace("\n", f"\n{CONTINUATION}")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
