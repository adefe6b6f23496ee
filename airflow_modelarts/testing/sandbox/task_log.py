"""Airflow's task logs as text: Airflow 3 writes one JSON object a line, Airflow 2 writes text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_modelarts.testing.terminal import one_line, printable

CONTINUATION = "    "
"""Indents the later lines of a log message, so that no message can look like a line of the log itself."""


def readable_log(text: str) -> str:
    """Return a task log as printable lines.

    Only a line feed ends a line: JSON may hold U+2028 and similar, at which `str.splitlines` would split it.
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
    # Airflow lists the outermost exception first. Python's tracebacks end with it, where readers look for it.
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
