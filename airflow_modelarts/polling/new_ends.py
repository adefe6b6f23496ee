"""From a snapshot to the ends that one event trigger has to emit, with the requests that this takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from airflow_modelarts.api.errors import ModelArtsNotFoundError
from airflow_modelarts.api.listed_tasks import Listed, complete
from airflow_modelarts.api.models import FEATURE_ANALYSIS, ProcessorTask, ProcessorTaskVersion
from airflow_modelarts.polling.checkpoints import Active, Checkpoint
from airflow_modelarts.polling.snapshots import Snapshot

T = TypeVar("T")


class Selection(Protocol):
    """Which ends a trigger emits.

    :param versions: whether it emits the ends of versions instead of those of tasks that have versions.
    """

    versions: bool

    def may_select(self, task: Listed) -> bool:
        """Return whether the end of an active task may be selected, by what is known of the task."""

    def selects(self, task: ProcessorTask, version: ProcessorTaskVersion | None = None) -> bool:
        """Return whether an end is selected."""


async def new_ends(
    checkpoint: Checkpoint, snapshot: Snapshot, selection: Selection, on_error: Callable[[BaseException], None]
) -> AsyncGenerator[tuple[ProcessorTask, ProcessorTaskVersion | None], None]:
    """Yield the selected ends that a snapshot shows and the checkpoint does not have.

    An end is recorded in the checkpoint when the next one is asked for. What cannot be read now is tried again with the
    next snapshot.

    :param on_error: called with the error of each request that failed.
    """
    changes = checkpoint.compare(snapshot, selection.may_select)
    ended = changes.ended + await _read_missing(checkpoint, snapshot, selection, changes.missing, on_error)
    changed = [*ended, *changes.running_again]
    asked = [
        task.task_id
        for task in changed
        if selection.versions and selection.may_select(task) and not _is_feature_analysis(task)
    ]
    versions = await _read_all(snapshot.versions, asked)
    for task in changed:
        answer = versions.get(task.task_id, [])
        if isinstance(answer, BaseException) and not isinstance(answer, ModelArtsNotFoundError):
            on_error(answer)
            checkpoint.postpone(task)
            continue
        found = [] if isinstance(answer, BaseException) else answer
        for version in checkpoint.new_versions(task.task_id, found):
            if selection.selects(whole := complete(task), version):
                yield whole, version
            checkpoint.note_version(task.task_id, version)
        if not task.is_terminal:
            checkpoint.note_active(task)
            continue
        if not found and selection.selects(whole := complete(task)):
            yield whole, None
        checkpoint.note(task)


def _is_feature_analysis(task: Listed) -> bool:
    """Return whether a task has no versions."""
    return task.template is not None and task.template.id == FEATURE_ANALYSIS


async def _read_missing(
    checkpoint: Checkpoint,
    snapshot: Snapshot,
    selection: Selection,
    task_ids: Iterable[str],
    on_error: Callable[[BaseException], None],
) -> list[Listed]:
    """Read tasks that were active and are in no list any more; return those that have ended."""
    ended: list[Listed] = []
    for task_id, task in (await _read_all(snapshot.describe, task_ids)).items():
        if isinstance(task, ModelArtsNotFoundError):
            checkpoint.forget(task_id)  # deleted: it will never end
        elif isinstance(task, BaseException):
            on_error(task)
        elif not task.is_terminal:
            checkpoint.active[task_id] = Active(selection.may_select(task), task.version_count)
        elif checkpoint.is_news(task):
            ended.append(task)
        else:
            checkpoint.note(task)
    return ended


async def _read_all(read: Callable[[str], Awaitable[T]], task_ids: Iterable[str]) -> dict[str, T | BaseException]:
    """Read several tasks at once; return the answer or the error of each."""
    wanted = list(task_ids)
    answers = await asyncio.gather(*map(read, wanted), return_exceptions=True)
    return dict(zip(wanted, answers, strict=True))
