"""What can be waited for or stopped: a processing task, or one version of it."""

from __future__ import annotations

from typing import NamedTuple


class Target(NamedTuple):
    """A processing task, or one version of it. Its text is how messages and log lines name it.

    :param task_id: the processing task's id.
    :param task_version_id: the version's id; default None: the task itself.
    """

    task_id: str
    task_version_id: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids that name it in a path."""
        return (self.task_id,) if self.task_version_id is None else (self.task_id, self.task_version_id)

    def __str__(self) -> str:
        if self.task_version_id is None:
            return f"Processing task '{self.task_id}'"
        return f"Version '{self.task_version_id}' of processing task '{self.task_id}'"
