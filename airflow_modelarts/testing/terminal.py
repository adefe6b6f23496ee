r"""Printing to a terminal: text from others is escaped, since control characters can hide, overwrite and forge output.

Such text are the names, values, logs and errors of a run. Colours are removed; other control characters are shown as
escapes such as ``\x1b``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TextIO

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_ESCAPED_CATEGORIES = frozenset({"Cc", "Zl", "Zp"})
_DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def safe_print(text: str, *, file: TextIO | None = None) -> None:
    """Print text as `printable` returns it."""
    print(printable(text), file=file, flush=True)


def printable(text: str) -> str:
    """Return text with its control characters escaped, except tabs and line feeds."""
    return "".join(map(_escaped, _COLOUR.sub("", text)))


def one_line(text: str) -> str:
    """Return text with its control characters and its line feeds escaped, except tabs."""
    return printable(text).replace("\n", "\\n")


def _escaped(character: str) -> str:
    if character in "\t\n" or " " <= character <= "~":
        return character
    if unicodedata.category(character) in _ESCAPED_CATEGORIES or character in _DIRECTION_MARKS:
        return character.encode("unicode_escape").decode("ascii")
    return character


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def indented(text: str, spaces: int) -> str:
    """Return text with every line indented, empty ones too."""
    return "\n".join(" " * spaces + line for line in text.split("\n"))
