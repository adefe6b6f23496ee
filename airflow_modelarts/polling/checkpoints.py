"""Checkpoints: which ends one event trigger has emitted so far, compared with each snapshot.

``polling.checkpoint_store`` stores them. Delivery is at least once: a checkpoint is stored only after the events before
it have left the triggerer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from airflow_modelarts.api.listed_tasks import Listed
from airflow_modelarts.api.models import ProcessorTaskVersion
from airflow_modelarts.polling.known_ends import (
    ANY_MARKS,
    End,
    are_ids,
    identify,
    pack_ends,
    pack_ids,
    read_end,
    unpack_ends,
    unpack_ids,
)
from airflow_modelarts.polling.snapshots import FIRST_PERIOD, OVERLAP, Snapshot

#: Characters that a stored checkpoint has at most, if its ids of active tasks need less.
MAX_STORED = 15_000
#: Ends that are stored at least, however many tasks are active.
MIN_STORED_ENDS = 100
#: Ends that are kept in memory.
MAX_ENDS = 20_000
#: Characters of an end in the stored form, rounded up.
_END_CHARACTERS = 15


class Active(NamedTuple):
    """An active task.

    :param is_wanted: whether its end may be selected, by what is known of it.
    :param version_count: how many versions it has; None if that is not known.
    """

    is_wanted: bool
    version_count: int | None = None


class Changes(NamedTuple):
    """What a snapshot shows that the checkpoint does not have.

    :param ended: the tasks whose end needs an event, the oldest first.
    :param running_again: active tasks that have more versions than before, some of which may have ended.
    :param missing: ids of wanted tasks that were active and are in no list any more.
    """

    ended: list[Listed]
    running_again: list[Listed]
    missing: list[str]


@dataclass(slots=True)
class Checkpoint:
    """What one event trigger knows, so that it emits each end once. Times are milliseconds by the service's clock.

    Of a task that was never seen, creation time and count of versions tell whether its end needs an event.

    :param watermark: an end of an unknown task that was created since needs an event.
    :param floor: an end of an unknown task that was created since, and has several versions, needs an event.
    :param active: the tasks that were active, whenever they were created, by id.
    :param ends: the ends that need no event any more, by the hash of the task's id. Those of versions likewise.
    :param stored_watermark: the watermark of the stored form, which has fewer ends.
    :param is_changed: whether the stored form lacks something.
    """

    watermark: int
    floor: int
    active: dict[str, Active] = field(default_factory=dict)
    ends: dict[bytes, End] = field(default_factory=dict)
    stored_watermark: int = 0
    is_changed: bool = True

    @classmethod
    def begin(cls, time: int) -> Checkpoint:
        """Return the checkpoint of a trigger that starts for the first time."""
        return cls(watermark=time, floor=time, stored_watermark=time)

    @classmethod
    def restore(cls, stored: Any) -> Checkpoint | None:
        """Read what :meth:`to_json` returned, of this version or of one before; None if it is anything else."""
        match stored:
            case {"watermark": int(watermark), "active": list(active), "ended": list(ended)} if are_ids(active + ended):
                ends = {identify(task_id): End(watermark, None, ANY_MARKS) for task_id in ended}
                return cls(watermark, watermark, {id_: Active(True) for id_ in active}, ends, watermark)
            case {
                "watermark": int(watermark),
                "floor": int(floor),
                "active": str(active),
                "unwanted": str(unwanted),
                "ends": str(ends),
            }:
                try:
                    wanted = {task_id: Active(True) for task_id in unpack_ids(active)}
                    others = {task_id: Active(False) for task_id in unpack_ids(unwanted)}
                    known = unpack_ends(ends, watermark)
                except ValueError:
                    return None
                return cls(watermark, floor, others | wanted, known, watermark, is_changed=False)
        return None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, with the ends that a next start needs most, as far as there is room.

        Those are the ends of tasks that were created since the stored watermark, or have several versions. If there is
        no room for some, the watermark and the floor are raised above them.
        """
        active = pack_ids(task_id for task_id, one in self.active.items() if one.is_wanted)
        unwanted = pack_ids(task_id for task_id, one in self.active.items() if not one.is_wanted)
        room = max(MIN_STORED_ENDS, (MAX_STORED - len(active) - len(unwanted)) // _END_CHARACTERS)

        def rank(key: bytes) -> tuple[bool, int]:
            end = self.ends[key]
            return end.time >= self.stored_watermark or (end.version_count or 0) > 1, end.time

        keys = sorted(self.ends, key=rank, reverse=True)
        left_out = [rank(key) for key in keys[room:]]
        covered = max((time + 1 for is_needed, time in left_out if is_needed), default=0)
        return {
            "watermark": max(self.stored_watermark, covered),
            "floor": max(self.floor, covered),
            "active": active,
            "unwanted": unwanted,
            "ends": pack_ends(self.ends, keys[:room]),
        }

    def for_another_selection(self) -> Checkpoint:
        """Return it for a trigger that selects other ends: it may want each of the active tasks."""
        active = {task_id: Active(True, one.version_count) for task_id, one in self.active.items()}
        return replace(self, active=active, is_changed=True)

    async def extend(self, first: Snapshot, now: float) -> Snapshot:
        """Return a snapshot of all since the checkpoint: a poll that others began covers the last minutes only.

        :param first: the first snapshot since the start, which is returned if it covers enough.
        :param now: seconds since the epoch, by the clock of this machine.
        :raises ModelArtsError: the lists cannot be read.
        """
        # A clock that was ahead for a while, or a damaged store, must not hide what ends from now on.
        # Within the overlap it is right: a Date has whole seconds, and a clock may be corrected.
        latest = first.service_time(now + OVERLAP)
        self.watermark, self.floor = min(self.watermark, latest), min(self.floor, latest)
        self.stored_watermark = min(self.stored_watermark, latest)
        since = max(self.watermark, first.service_time(now - FIRST_PERIOD))
        return first if first.since <= since + OVERLAP * 1000 else await first.extended()

    def compare(self, snapshot: Snapshot, may_select: Callable[[Listed], bool]) -> Changes:
        """Compare with a snapshot.

        A task that has ended is followed until :meth:`note` is called for it, one that runs again until
        :meth:`note_active` is.

        :param may_select: whether the end of a task may be selected.
        """
        changes = Changes([], [], [])
        active: dict[str, Active] = {}
        for task_id, task in snapshot.tasks.items():
            before = self.active.get(task_id)
            if (end := snapshot.ends.get(task_id)) is None:
                active[task_id] = Active(may_select(task), task.version_count)
                if self._may_have_versions_that_ended(task):
                    changes.running_again.append(task)
                    active[task_id] = Active(may_select(task), before and before.version_count)
            elif self.is_news(task, end):
                changes.ended.append(task)
                if before is not None:
                    active[task_id] = before
            else:
                self._settle(identify(task_id), end)
        changes.missing.extend(id_ for id_, one in self.active.items() if one.is_wanted and id_ not in snapshot.tasks)
        active |= {task_id: self.active[task_id] for task_id in changes.missing}
        self.is_changed |= active.keys() != self.active.keys()
        self.active = active
        changes.ended.sort(key=lambda task: task.create_time or 0)
        return changes

    def is_news(self, task: Listed, end: End | None = None) -> bool:
        """Return whether the end of a terminal task needs an event."""
        end = end or read_end(task)
        known, active = self.ends.get(identify(task.task_id)), self.active.get(task.task_id)
        if known is not None:
            return known.is_followed_by(end, active and active.version_count, was_active=active is not None)
        if active is not None:
            return True
        has_run_again = (end.version_count or 0) > 1
        return task.create_time is not None and task.create_time >= (self.floor if has_run_again else self.watermark)

    def new_versions(self, task_id: str, versions: Iterable[ProcessorTaskVersion]) -> list[ProcessorTaskVersion]:
        """Return the versions of a task whose end needs an event, in the order of their ends."""
        new = []
        for version in versions:
            if version.is_terminal and version.task_version_id is not None:
                time = _end_time(version)
                if identify(task_id, version.task_version_id) not in self.ends and not 0 < time < self.watermark:
                    new.append(version)
        return sorted(new, key=_end_time)

    def note(self, task: Listed) -> None:
        """Record that the end of a task needs no event any more."""
        self.is_changed = True
        self.ends[identify(task.task_id)] = read_end(task)
        self.active.pop(task.task_id, None)

    def note_active(self, task: Listed) -> None:
        """Record how many versions an active task has."""
        self.active[task.task_id] = self.active[task.task_id]._replace(version_count=task.version_count)

    def note_version(self, task_id: str, version: ProcessorTaskVersion) -> None:
        """Record that the end of a version needs no event any more."""
        self.is_changed = True
        self.ends[identify(task_id, version.task_version_id or "")] = End(_end_time(version), None, ANY_MARKS)

    def postpone(self, task: Listed) -> None:
        """Follow a task that has ended until its end can be handled."""
        self.is_changed = True
        self.active[task.task_id] = Active(True, task.version_count)

    def forget(self, task_id: str) -> None:
        """Stop following a task that was deleted."""
        self.is_changed = True
        self.active.pop(task_id, None)

    def cover(self, snapshot: Snapshot, *, is_first: bool) -> None:
        """Record that all ends of a snapshot were handled.

        :param is_first: whether this is the first snapshot since the start; it covers what the checkpoint lacks.
        """
        if is_first:
            self.floor = min(self.floor, snapshot.since)
        self.stored_watermark = max(self.stored_watermark, self.watermark, snapshot.since)
        if len(self.ends) > MAX_ENDS:
            by_age = sorted(self.ends, key=lambda key: self.ends[key].time, reverse=True)
            self.watermark = max(self.watermark, self.ends[by_age[MAX_ENDS]].time + 1)
            self.floor = max(self.floor, self.watermark)
            self.ends = {key: self.ends[key] for key in by_age[:MAX_ENDS]}

    def _settle(self, key: bytes, end: End) -> None:
        """Record an end that needs no event; the stored form changes only if it had the task with other marks."""
        known = self.ends.get(key)
        self.is_changed |= known is not None and known[1:] != end[1:]
        self.ends[key] = end

    def _may_have_versions_that_ended(self, task: Listed) -> bool:
        """Return whether versions of an active task may have ended since it was seen last."""
        count = task.version_count or 0
        before, known = self.active.get(task.task_id), self.ends.get(identify(task.task_id))
        if count < 2 or (before is not None and before.version_count == count):
            return False
        if known is not None:
            return known.version_count != count - 1
        return before is not None or (task.create_time or 0) >= self.watermark


def _end_time(version: ProcessorTaskVersion) -> int:
    """Return when a version ended, in milliseconds since the epoch; 0 if its answer does not tell."""
    if version.update_time is not None:
        return version.update_time
    if version.create_time is None:
        return 0
    return version.create_time + 1000 * (version.duration_seconds or 0)
