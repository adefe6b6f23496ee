"""The statuses of processing tasks; apart from the models so that a DAG file can name one without loading those."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from typing import Any


class ProcessorTaskStatus(IntEnum):
    """The documented statuses of a processing task and of its versions; the service may answer others."""

    INITIALIZED = 0
    RUNNING = 1
    COMPLETED = 2
    FAILED = 3
    STOPPED = 4

    @property
    def is_terminal(self) -> bool:
        """Whether nothing happens any more without somebody's doing."""
        return self >= ProcessorTaskStatus.COMPLETED


TERMINAL_STATUSES = frozenset(status for status in ProcessorTaskStatus if status.is_terminal)


def status_name(status: int | None) -> str:
    """Name a status in lower case; one that is not documented is ``unknown (N)``."""
    try:
        return ProcessorTaskStatus(status).name.lower()  # type: ignore[arg-type]  # None is refused like any other value
    except ValueError:
        return f"unknown ({status})"


def read_status(name: str, given: object) -> ProcessorTaskStatus:
    """
    Read one status from a number, a name in any case, or a number in a text.

    :param name: of the argument, for the error.
    :raises ValueError: it is none of the documented statuses.
    """
    status = _find(given)
    if status is None:
        raise ValueError(f"{name} is {given!r}: it must be {_named(ProcessorTaskStatus)}")
    return status


def read_statuses(
    name: str, given: object, allowed: Collection[ProcessorTaskStatus] = tuple(ProcessorTaskStatus)
) -> tuple[int, ...]:
    """
    Read a list of statuses, each as :func:`read_status` does.

    :param name: of the argument, for the error.
    :param given: the list; a single status is refused, since what is one and what is several must not depend on luck.
    :param allowed: which statuses may be in it, by default all.
    :return: plain integers, ascending and each once: sets and lists of the same statuses are stored alike.
    :raises ValueError: it is no list, or something in it is not one of the allowed statuses.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"{name} is {given!r}: give a list of statuses, for example ['failed', 'stopped'] or [3, 4]")
    found = set()
    for one in given:
        status = _find(one)
        if status is None or status not in allowed:
            raise ValueError(f"{name} has {one!r}: it must contain only {_named(allowed)}")
        found.add(int(status))
    return tuple(sorted(found))


def read_ends(name: str, given: object) -> tuple[int, ...]:
    """Read a list of statuses that are ends of a task: completed, failed or stopped; see :func:`read_statuses`."""
    return read_statuses(name, given, TERMINAL_STATUSES)


def _named(statuses: Iterable[ProcessorTaskStatus]) -> str:
    *others, last = (f"{status.value} ({status.name.lower()})" for status in sorted(statuses))
    return f"{', '.join(others)} or {last}"


def _find(given: object) -> ProcessorTaskStatus | None:
    """Find the status that is meant; none is meant by a bool or a number with a fraction."""
    if isinstance(given, str):
        text = given.strip()
        named = ProcessorTaskStatus.__members__.get(text.upper())
        return named if named is not None else _find(int(text) if re.fullmatch("[0-9]", text) else None)
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    return next((status for status in ProcessorTaskStatus if status == given), None)


def outcome(task_id: str, status: int | None, task_version_id: str | None = None) -> dict[str, Any]:
    """
    Return what a wait that has ended tells: the XCom of every mode.

    :param task_version_id: the version that was waited for; None when it was the task.
    """
    version = {} if task_version_id is None else {"task_version_id": task_version_id}
    return {"task_id": task_id, **version, "status": status, "status_name": status_name(status)}
