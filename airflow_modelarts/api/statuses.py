"""The statuses of processing tasks; apart from the models so that a DAG file can name one without loading those."""

from __future__ import annotations

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


def outcome(task_id: str, status: int | None) -> dict[str, Any]:
    """Return what a wait that has ended tells: the XCom of every mode."""
    return {"task_id": task_id, "status": status, "status_name": status_name(status)}
