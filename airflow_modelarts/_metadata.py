"""What the sandbox reads from its Airflow: the metadata database, by plain read-only SQL, and task logs."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOCK_TIMEOUT = 30.0
"""Seconds to wait for a writer of the database: Airflow 2 locks readers out while it commits, usually milliseconds."""


@dataclass(frozen=True)
class TaskInstance:
    """One task of a run; ``map_index`` is -1 unless it is mapped, ``duration`` in seconds is of the last try."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    start_date: datetime | None
    end_date: datetime | None
    duration: float | None

    @property
    def label(self) -> str:
        """The task's id, with the index of a mapped instance: ``wait[3]``."""
        return _label(self.task_id, self.map_index)


@dataclass(frozen=True)
class XCom:
    """A value that a task pushed."""

    task_id: str
    map_index: int
    key: str
    value: Any

    @property
    def label(self) -> str:
        """The task's id, with the index of a mapped instance: ``wait[3]``."""
        return _label(self.task_id, self.map_index)


class MetadataReader:
    """All the SQL there is. These columns are the same in Airflow 2.11 and 3.

    :param database: the SQLite file; it is opened anew for each question, and read-only
    """

    def __init__(self, database: Path) -> None:
        self._uri = f"{database.as_uri()}?mode=ro"

    def newest_job(self, job_type: str) -> int:
        """Return the id of the newest running job of a type (``SchedulerJob``, …), 0 when there is none."""
        rows = self._rows("SELECT max(id) FROM job WHERE job_type = ? AND state = 'running'", job_type)
        return int(rows[0][0] or 0)

    def dags(self) -> list[str]:
        """Return the ids of the DAGs that are ready to run: parsed and serialized."""
        sql = "SELECT DISTINCT dag_id FROM dag JOIN serialized_dag USING (dag_id) ORDER BY dag_id"
        return [str(dag_id) for (dag_id,) in self._rows(sql)]

    def is_paused(self, dag_id: str) -> bool:
        """Return whether a DAG is paused; False when there is no such DAG."""
        return any(paused for (paused,) in self._rows("SELECT is_paused FROM dag WHERE dag_id = ?", dag_id))

    def import_errors(self) -> dict[str, str]:
        """Return stack traces by file."""
        return dict(self._rows("SELECT filename, stacktrace FROM import_error ORDER BY id"))

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """Return the state of a run, None when there is no such run."""
        rows = self._rows("SELECT state FROM dag_run WHERE dag_id = ? AND run_id = ?", dag_id, run_id)
        return str(rows[0][0]) if rows else None

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Return the task instances of a run by the start of their task, those not started last."""
        rows = self._rows(
            "SELECT task_id, map_index, state, try_number, start_date, end_date, duration,"
            " min(start_date) OVER (PARTITION BY task_id) AS task_start"
            " FROM task_instance WHERE dag_id = ? AND run_id = ?"
            " ORDER BY task_start IS NULL, task_start, task_id, map_index",
            dag_id,
            run_id,
        )
        return [_task_instance(*row[:7]) for row in rows]

    def xcoms(self, dag_id: str, run_id: str) -> list[XCom]:
        """Return what the tasks of a run pushed, by the time of each task's first."""
        rows = self._rows(
            "SELECT task_id, map_index, key, value, min(timestamp) OVER (PARTITION BY task_id) AS first"
            " FROM xcom WHERE dag_id = ? AND run_id = ? ORDER BY first, task_id, map_index, timestamp, key",
            dag_id,
            run_id,
        )
        return [XCom(task_id, map_index, key, _stored(value)) for task_id, map_index, key, value, _ in rows]

    def _rows(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._uri, uri=True, timeout=LOCK_TIMEOUT)) as connection:
            return connection.execute(sql, parameters).fetchall()


def _stored(value: Any) -> Any:
    """Return an XCom's value: JSON as bytes in Airflow 2, as text in Airflow 3 unless SQLite made a number of it."""
    return plain(json.loads(value)) if isinstance(value, str | bytes) else value


def _label(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _task_instance(
    task_id: str,
    map_index: int,
    state: str | None,
    try_number: int,
    start_date: str | None,
    end_date: str | None,
    duration: float | None,
) -> TaskInstance:
    return TaskInstance(task_id, map_index, state, try_number, _time(start_date), _time(end_date), duration)


def _time(text: str | None) -> datetime | None:
    """Return a stored time, which is UTC without saying so."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None


def plain(value: Any) -> Any:
    """Return a stored XCom without the marks by which Airflow remembers types (``__classname__``, ``__data__``)."""
    if isinstance(value, dict):
        if "__classname__" in value and "__data__" in value:
            return plain(value["__data__"])
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


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
