"""The statuses of processing tasks. DAG files load them, so they are not in the module of the models."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from typing import Any

from airflow_modelarts.api.arguments import ArgumentError


class ProcessorTaskStatus(IntEnum):
    """The documented statuses of processing tasks and versions; the service may return others."""

    INITIALIZED = 0
    RUNNING = 1
    COMPLETED = 2
    FAILED = 3
    STOPPED = 4

    @property
    def is_terminal(self) -> bool:
        """Whether the status is final: completed, failed or stopped."""
        return self >= ProcessorTaskStatus.COMPLETED


TERMINAL_STATUSES = frozenset(status for status in ProcessorTaskStatus if status.is_terminal)
_BY_NUMBER: Mapping[float, ProcessorTaskStatus] = {status.value: status for status in ProcessorTaskStatus}


def status_name(status: int | None) -> str:
    """Return the name of a status in lower case; ``unknown (N)`` if it is not documented."""
    try:
        return ProcessorTaskStatus(status).name.lower()  # type: ignore[arg-type]  # None is refused like any other value
    except ValueError:
        return f"unknown ({status})"


def read_status(name: str, given: object) -> ProcessorTaskStatus:
    """Read one status from a number, a name in any case, or a number in a text.

    :param name: the name of the argument, for the error.
    :raises ArgumentError: it is not a documented status.
    """
    status = _find(given)
    if status is None:
        raise ArgumentError(f"{name} is {given!r}: it must be {_named(ProcessorTaskStatus)}")
    return status


def read_statuses(
    name: str, given: object, allowed: Collection[ProcessorTaskStatus] = tuple(ProcessorTaskStatus)
) -> tuple[int, ...]:
    """Read a list of statuses, each as :func:`read_status` does.

    :param name: the name of the argument, for the error.
    :param given: the list; a single status is an error, since a text could be one status or several, and so is an
        iterator, which a mapped or second operator would find empty.
    :param allowed: the statuses that it may contain, by default all.
    :return: plain integers, ascending and without duplicates, so that equal sets and lists are stored equally.
    :raises ArgumentError: it is not a list, or contains something else than the allowed statuses.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Collection):
        raise ArgumentError(
            f"{name} is {given!r}: give a list of statuses, for example ['failed', 'stopped'] or [3, 4]"
        )
    found = set()
    for one in given:
        status = _find(one)
        if status is None or status not in allowed:
            raise ArgumentError(f"{name} has {one!r}: it must contain only {_named(allowed)}")
        found.add(int(status))
    return tuple(sorted(found))


def read_ends(name: str, given: object, *, may_be_empty: bool = True) -> tuple[int, ...]:
    """Read a list of terminal statuses: completed, failed or stopped; see :func:`read_statuses`."""
    read = read_statuses(name, given, TERMINAL_STATUSES)
    if not read and not may_be_empty:
        raise ArgumentError(f"{name} is {given!r}, which selects nothing: leave it out for all, or name one")
    return read


def _named(statuses: Iterable[ProcessorTaskStatus]) -> str:
    *others, last = (f"{status.value} ({status.name.lower()})" for status in sorted(statuses))
    return f"{', '.join(others)} or {last}"


def _find(given: object) -> ProcessorTaskStatus | None:
    """Return the status that a value names; None for a bool, a fraction or any other value."""
    if isinstance(given, str):
        text = given.strip()
        named = ProcessorTaskStatus.__members__.get(text.upper())
        return named if named is not None else _find(int(text) if re.fullmatch("[0-9]", text) else None)
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    return _BY_NUMBER.get(given)


def outcome(task_id: str, status: int | None, task_version_id: str | None = None) -> dict[str, Any]:
    """Return the XCom of a wait that has ended, the same in every mode; without a version, of the task itself."""
    version = {} if task_version_id is None else {"task_version_id": task_version_id}
    return {"task_id": task_id, **version, "status": status, "status_name": status_name(status)}
