"""Task logs as Airflow writes them, made readable, and text made safe to print."""

from __future__ import annotations

import json
from typing import Any


def readable_log(text: str) -> str:
    """Return a task log as plain lines: Airflow 3 writes a JSON object a line, Airflow 2 writes text already."""
    return "\n".join(_readable_line(line) for line in text.splitlines())


def _readable_line(line: str) -> str:
    try:
        entry = json.loads(line)
        event = entry["event"]
    except (ValueError, KeyError, TypeError):
        return line
    head = f"[{str(entry.get('timestamp', ''))[:19]}] {str(entry.get('level', '')).upper()} - {event}"
    # Airflow puts the outermost exception first, Python's tracebacks put it last, where a reader looks for it.
    return "\n".join(
        [head, *(text for error in reversed(entry.get("error_detail") or []) for text in _traceback(error))]
    )


def _traceback(error: dict[str, Any]) -> list[str]:
    frames = [
        f'  File "{frame.get("filename")}", line {frame.get("lineno")}, in {frame.get("name")}'
        for frame in error.get("frames") or []
    ]
    return [
        "Traceback (most recent call last):",
        *frames,
        f"{error.get('exc_type')}: {error.get('exc_value')}",
        *(error.get("exc_notes") or []),
    ]
