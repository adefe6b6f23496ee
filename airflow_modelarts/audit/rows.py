"""The tasks of an audit as rows: one task a line, as JSON Lines or CSV, written while the list is read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING, Any

from airflow_modelarts.api.lenient_reading import LARGEST_NUMBER
from airflow_modelarts.audit.findings import MAX_DETAIL, template_id
from airflow_modelarts.audit.text import iso, sanitize

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorDataSource, ProcessorTask

#: The columns of each row, in their order, and what they have. A value that is not known is null, in CSV empty.
COLUMNS: Mapping[str, str] = {
    "project_id": "the project",
    "task_id": "the processing task's id",
    "name": "its name",
    "template_id": "its template, such as `sys_data_cleaning`",
    "status": "the status as a number",
    "status_name": "the status in words, such as `failed`",
    "create_time": "when the task was created, ISO 8601 in UTC",
    "duration_seconds": "whole seconds",
    "source_type": "`OBS`, `TASK`, `DATASET` or `CUSTOM`; with several inputs, one word for each",
    "source": "the input: an `obs://` URI, or the id of a dataset or a task; with several, separated by spaces",
    "version_id": "the dataset version that is the input",
    "version_name": "its name",
    "version_count": "how often the task was run",
    "work_path_type": "`OBS` or `DATASET`",
    "work_path": "where the task writes: an `obs://` URI, or the id of a dataset",
    "workspace_id": "the workspace",
    "error_msg": "why the task failed, at most 1,000 characters",
    "checks": "the checks that found something, by their keys in `findings` of the JSON; in CSV separated by spaces",
    "unreadable": "the fields that the service wrote in a way that cannot be read, likewise",
}
#: A spreadsheet takes a cell that begins so for a formula.
FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r")


def row(task: ProcessorTask, checks: Sequence[str], project_id: str | None = None) -> dict[str, Any]:
    """Return a task as a row with all COLUMNS.

    :param checks: the names of the checks that found something in it.
    """
    from airflow_modelarts.api.models import WorkPath
    from airflow_modelarts.api.places import data_sources, output_uri

    inputs, output = data_sources(task), task.work_path or WorkPath()
    return {
        "project_id": project_id,
        "task_id": sanitize(task.task_id),
        "name": _text(task.name),
        "template_id": template_id(task),
        # Readers of rows, such as pandas, hold integers of 64 bits.
        "status": task.status if abs(task.status or 0) <= LARGEST_NUMBER else None,
        "status_name": task.status_name,
        "create_time": _moment(task.create_time),
        "duration_seconds": task.duration_seconds,
        "source_type": _text(" ".join(one.type or "-" for one in inputs)),
        "source": " ".join(_source(one) for one in inputs) or None,
        "version_id": _text(task.version_id),
        "version_name": _text(task.version_name),
        "version_count": task.version_count,
        "work_path_type": _text(output.type),
        "work_path": output_uri(task) or _text(output.path or output.output_path, MAX_DETAIL),
        "workspace_id": _text(task.workspace_id),
        "error_msg": _text(task.error_msg, MAX_DETAIL),
        "checks": list(checks),
        "unreadable": list(task.unreadable),
    }


def as_json_line(fields: Mapping[str, Any]) -> bytes:
    """Return a row as a line of JSON in UTF-8."""
    return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def as_csv_line(fields: Mapping[str, Any]) -> bytes:
    """Return a row as a line of CSV in UTF-8; text that a spreadsheet would take for a formula gets an apostrophe."""
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(map(_cell, fields.values()))
    return line.getvalue().encode()


def _cell(value: Any) -> Any:
    text = " ".join(value) if isinstance(value, list) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(FORMULA_MARKS) else text


def _text(text: str | None, limit: int = 200) -> str | None:
    return sanitize(text, limit) if text else None


def _source(source: ProcessorDataSource) -> str:
    from airflow_modelarts.api.places import typed_uri

    return typed_uri(source.type, source.source) or _text(source.source, MAX_DETAIL) or "-"


def _moment(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else iso(datetime.fromtimestamp(milliseconds / 1000, UTC))


#: How to write a row, by how the file's name ends; and what the file begins with.
FORMATS: Mapping[str, Callable[[Mapping[str, Any]], bytes]] = {".jsonl": as_json_line, ".csv": as_csv_line}
HEADERS: Mapping[str, bytes] = {".jsonl": b"", ".csv": as_csv_line({name: name for name in COLUMNS})}
