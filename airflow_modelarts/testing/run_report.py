"""What ``airflow-modelarts run`` shows of a run: tables of tasks, XComs and the ends of task logs, as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from airflow_modelarts.testing.sandbox import TaskInstance, XCom
from airflow_modelarts.testing.terminal import aligned, indented, one_line

MAX_XCOM_CHARACTERS = 1200
MAX_LINE_CHARACTERS = 80
LOG_LINES = 20
FINISHED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
FAILED_TRY = frozenset({"failed", "up_for_retry"})
# Internal XComs of Airflow and of this package's operators.
_INTERNAL_KEY = re.compile(r"_link_.*|skipmixin_key|modelarts_deferred_try")
_FOLDING_MARK = re.compile(r"::(end)?group::")
_AIRFLOW_FRAME = re.compile(r'\s*File "(.*[/\\]site-packages[/\\]airflow[/\\]|<frozen importlib)')


def unfinished(task_instances: Iterable[TaskInstance]) -> str:
    """Return a sentence that names the unfinished tasks."""
    waiting = [f"{i.label} ({i.state or 'not started'})" for i in task_instances if i.state not in FINISHED]
    return f"Not done: {', '.join(waiting)}." if waiting else "No task was running."


def task_table(task_instances: Iterable[TaskInstance]) -> str:
    """Return a table of tasks with their state, tries and the duration of the last try."""
    rows = [("Task", "State", "Tries", "Duration")]
    for instance in task_instances:
        duration = "" if instance.duration is None else f"{instance.duration:.1f} s"
        rows.append((one_line(instance.label), instance.state or "not started", str(instance.try_number), duration))
    return aligned(rows)


def tries_to_show(instance: TaskInstance, *, all_tries: bool) -> list[int]:
    """Return the numbers of a task's tries whose logs are shown: the failed ones, or all.

    Every try before the last has failed. The state tells whether the last one has.
    """
    shows_last = all_tries or instance.state in FAILED_TRY
    return list(range(1, instance.try_number + shows_last))


def xcom_listing(xcoms: Iterable[XCom]) -> str:
    """Return a run's XComs, one paragraph a task, without internal ones."""
    lines: list[str] = []
    shown = (xcom for xcom in xcoms if not _INTERNAL_KEY.fullmatch(xcom.key))
    for label, group in groupby(shown, key=lambda xcom: xcom.label):
        lines.append(f"  {one_line(label)}")
        lines += (indented(f"{one_line(xcom.key)}: {shortened(xcom.value)}", 4) for xcom in group)
    return "\n".join(lines)


def shortened(value: object) -> str:
    """Return a value as JSON, on one line if it is short; a long one is cut and its size appended."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > MAX_LINE_CHARACTERS:
        text = json.dumps(value, ensure_ascii=False, indent=2)
    return (
        text if len(text) <= MAX_XCOM_CHARACTERS else f"{text[:MAX_XCOM_CHARACTERS]}… ({len(text):,} characters in all)"
    )


def log_end(log: str) -> str:
    """Return the last LOG_LINES of a task log, without Airflow's stack frames and the folding marks for its UI."""
    lines = [line for line in without_airflow_frames(log.split("\n")) if not _FOLDING_MARK.search(line)]
    return indented("\n".join(lines[-LOG_LINES:]).strip("\n") or "(the task wrote no log)", 2)


def without_airflow_frames(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a log or a traceback without the stack frames of Airflow's own code."""
    frame_indentation: int | None = None
    for line in lines:
        indentation = len(line) - len(line.lstrip())
        if _AIRFLOW_FRAME.match(line):
            frame_indentation = indentation
        elif frame_indentation is None or indentation <= frame_indentation:
            frame_indentation = None
            yield line
