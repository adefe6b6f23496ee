"""Checkpoints: which ends need an event, and what a stored checkpoint keeps of that in little space."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from airflow_modelarts.api.ends import Origin
from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
from airflow_modelarts.polling.checkpoints import MAX_ENDS, Active, Checkpoint
from airflow_modelarts.polling.snapshots import OVERLAP, Poll, Snapshot

ORIGIN = Origin("modelarts_default", "p", "example.com")
#: In milliseconds.
START, HOUR = 1_700_000_000_000, 3_600_000


def task(task_id: str, status: int, created: int | None = START + 1000, **fields: Any) -> ProcessorTask:
    return ProcessorTask(task_id=task_id, status=status, create_time=created, **fields)


def snapshot(*tasks: ProcessorTask, since: int = START - HOUR) -> Snapshot:
    active = {one.task_id: one for one in tasks if not one.is_terminal}
    recent = {one.task_id: one for one in tasks}
    return Snapshot(ORIGIN, active, recent, since, Poll(None, "modelarts_default", "0"))


def ended(
    checkpoint: Checkpoint, *tasks: ProcessorTask, since: int = START - HOUR, is_first: bool = False
) -> list[str]:
    """Return the tasks whose end needs an event, and record them."""
    latest = snapshot(*tasks, since=since)
    found = checkpoint.compare(latest, lambda _: True).ended
    for one in found:
        checkpoint.note(one)
    checkpoint.cover(latest, is_first=is_first)
    return sorted(one.task_id for one in found)


def restarted(checkpoint: Checkpoint) -> Checkpoint:
    restored = Checkpoint.restore(json.loads(json.dumps(checkpoint.to_json())))
    assert restored is not None
    return restored


@pytest.fixture(params=[False, True], ids=["running", "restarted"])
def later(request: pytest.FixtureRequest) -> Any:
    """Return the same checkpoint, or what a restart makes of it."""
    return restarted if request.param else lambda checkpoint: checkpoint


def test_a_task_that_ended_before_the_first_snapshot_needs_no_event() -> None:
    checkpoint = Checkpoint.begin(START)
    old = [task("old", 2, created=START - 1), task("again", 2, created=START - 1, version_count=3)]
    assert ended(checkpoint, *old, task("running", 1), is_first=True) == []
    assert ended(checkpoint, *old) == []


def test_a_task_that_was_active_ends_once(later: Any) -> None:
    checkpoint = Checkpoint.begin(START)
    ended(checkpoint, task("a", 1, created=START - HOUR), is_first=True)
    checkpoint = later(checkpoint)
    assert ended(checkpoint, task("a", 3, created=START - HOUR)) == ["a"]
    assert ended(later(checkpoint), task("a", 3, created=START - HOUR)) == []


def test_a_task_that_starts_and_ends_between_two_snapshots_ends_once(later: Any) -> None:
    checkpoint = Checkpoint.begin(START)
    ended(checkpoint, is_first=True)
    checkpoint = later(checkpoint)
    assert ended(checkpoint, task("quick", 2)) == ["quick"]
    assert ended(later(checkpoint), task("quick", 2)) == []


def test_a_task_without_a_creation_time_ends_if_it_was_active() -> None:
    checkpoint = Checkpoint.begin(START)
    assert ended(checkpoint, task("a", 2, created=None), is_first=True) == []
    ended(checkpoint, task("a", 1, created=None))
    assert ended(checkpoint, task("a", 2, created=None)) == ["a"]


V1 = {"status": 3, "version_count": 1, "duration_seconds": 30}


@pytest.mark.parametrize(
    "again",
    [
        {"status": 2, "version_count": 2, "duration_seconds": 30},
        {"status": 3, "version_count": 2, "duration_seconds": 30},
        {"status": 2, "version_count": 3, "duration_seconds": 40},
        {"status": 2, "version_count": 1, "duration_seconds": 30},  # the first version was deleted
        {"status": 3, "version_count": 1, "duration_seconds": 31},
        {"status": 2},  # a service that tells less
    ],
    ids=str,
)
@pytest.mark.parametrize("created", [START - HOUR // 2, START + 1000], ids=["before the start", "after it"])
def test_a_task_that_ran_again_between_two_snapshots_ends_again(later: Any, again: Any, created: int) -> None:
    checkpoint = Checkpoint.begin(START)
    ended(checkpoint, task("a", 1, created), is_first=True)
    assert ended(checkpoint, task("a", created=created, **V1)) == ["a"]
    checkpoint = later(checkpoint)
    assert ended(checkpoint, task("a", created=created, **again)) == ["a"]
    assert ended(later(checkpoint), task("a", created=created, **again)) == []


def test_a_task_that_was_seen_running_again_ends_again(later: Any) -> None:
    checkpoint = Checkpoint.begin(START)
    ended(checkpoint, is_first=True)
    assert ended(checkpoint, task("a", 2)) == ["a"]
    ended(checkpoint, task("a", 1))
    assert ended(later(checkpoint), task("a", 2)) == ["a"], (
        "without a count of versions, the same marks are another end"
    )


def test_a_version_that_was_seen_running_ends_although_an_older_one_was_deleted() -> None:
    checkpoint = Checkpoint.begin(START)
    ended(checkpoint, is_first=True)
    assert ended(checkpoint, task("a", **V1)) == ["a"]
    ended(checkpoint, task("a", 1, version_count=1))
    assert ended(checkpoint, task("a", **V1)) == ["a"]


@pytest.mark.parametrize(
    "shown",
    [
        {"status": 2, "version_count": 1, "duration_seconds": 9},  # the newest was deleted
        {"status": 3, "version_count": 1, "duration_seconds": 30},  # the oldest was
    ],
)
def test_a_deleted_version_is_no_end(later: Any, shown: Any) -> None:
    checkpoint = Checkpoint.begin(START)
    ended(checkpoint, is_first=True)
    assert ended(checkpoint, task("a", 3, version_count=2, duration_seconds=30)) == ["a"]
    assert ended(later(checkpoint), task("a", **shown)) == []


def test_a_version_that_is_deleted_while_it_runs_is_no_end(later: Any) -> None:
    checkpoint = Checkpoint.begin(START)
    ended(checkpoint, is_first=True)
    assert ended(checkpoint, task("a", **V1)) == ["a"]
    ended(checkpoint, task("a", 1, version_count=2))
    assert ended(later(checkpoint), task("a", **V1)) == []


def test_an_old_task_that_has_left_the_lists_is_missing_if_it_may_be_selected(later: Any) -> None:
    checkpoint = Checkpoint.begin(START)
    tasks = [task("wanted", 1, created=1), task("other", 1, created=1)]
    checkpoint.compare(snapshot(*tasks), lambda one: one.task_id == "wanted")
    changes = later(checkpoint).compare(snapshot(), lambda _: True)
    assert (changes.ended, changes.missing) == ([], ["wanted"])


def test_a_trigger_that_selects_other_ends_may_want_every_active_task() -> None:
    checkpoint = Checkpoint.begin(START)
    checkpoint.compare(snapshot(task("a", 1)), lambda _: False)
    assert checkpoint.for_another_selection().compare(snapshot(), lambda _: True).missing == ["a"]


# The stored form


def many(count: int, *, status: int, every: int, **fields: Any) -> list[ProcessorTask]:
    """Return tasks with ids like the service's, created one after the other in milliseconds."""
    return [task(f"{status}AbCdEfGhIj{number:08}", status, START + number * every, **fields) for number in range(count)]


@pytest.mark.parametrize("every", [0, 10, 8640], ids=["at once", "within the overlap", "in a day"])
@pytest.mark.parametrize("version_count", [None, 1, 2])
def test_a_checkpoint_of_10000_recent_and_500_active_tasks_has_less_than_16_kb(every: int, version_count: int) -> None:
    checkpoint = Checkpoint.begin(START)
    ended(checkpoint, is_first=True)
    tasks = many(10_000, status=2, every=every, version_count=version_count) + many(500, status=1, every=every)
    since = START + 10_000 * every - int(OVERLAP * 1000)
    assert len(ended(checkpoint, *tasks, since=since)) == 10_000
    stored = json.dumps(checkpoint.to_json())
    assert len(stored) < 16_000
    assert ended(restarted(checkpoint), *tasks, since=since) == []
    assert len(restarted(checkpoint).active) == 500


def test_a_restart_finds_what_is_new_beyond_the_stored_ends() -> None:
    checkpoint = Checkpoint.begin(START)
    tasks = many(10_000, status=2, every=8640)
    ended(checkpoint, *tasks, is_first=True, since=START + 86_000_000)
    new = task("new", 2, created=START + 86_399_000)
    assert ended(restarted(checkpoint), *tasks, new) == ["new"]


@pytest.mark.parametrize("begin", [START - HOUR, START + 2 * HOUR], ids=["created since the start", "before it"])
def test_a_restart_finds_a_task_that_ran_again_although_its_first_end_is_not_stored(begin: int) -> None:
    checkpoint = Checkpoint.begin(begin)
    tasks = many(10_000, status=2, every=100, version_count=1)
    ended(checkpoint, *tasks, is_first=True)
    ended(checkpoint, *tasks[-100:], since=START + 10_000 * 100)
    again = task(tasks[0].task_id, 2, tasks[0].create_time, version_count=2)
    assert ended(restarted(checkpoint), again, *tasks[1:]) == [again.task_id]


def test_memory_is_bounded_and_repeats_no_end() -> None:
    checkpoint = Checkpoint.begin(START)
    tasks = many(MAX_ENDS + 1000, status=2, every=10, version_count=2)
    assert len(ended(checkpoint, *tasks, is_first=True)) == len(tasks)
    assert len(checkpoint.ends) == MAX_ENDS
    assert ended(checkpoint, *tasks) == []


def test_nothing_changes_while_nothing_happens() -> None:
    checkpoint = Checkpoint.begin(START)
    tasks = [task("a", 1), task("b", 2), task("c", 3, version_count=2)]
    ended(checkpoint, *tasks, is_first=True)
    checkpoint.is_changed = False
    ended(checkpoint, *tasks, since=START + HOUR)
    ended(checkpoint, *tasks, task("older", 2, created=1), since=START + HOUR)
    assert not checkpoint.is_changed
    ended(checkpoint, task("a", 2))
    assert checkpoint.is_changed


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


def test_a_checkpoint_of_an_earlier_version_is_read() -> None:
    checkpoint = Checkpoint.restore({"watermark": START, "active": ["a"], "ended": ["b"]})
    assert checkpoint is not None
    assert ended(checkpoint, task("a", 2, created=1), task("b", 2), task("c", 2), is_first=True) == ["a", "c"]
    assert ended(checkpoint, task("b", 3, version_count=2)) == ["b"]


@pytest.mark.parametrize(
    "stored",
    [
        None,
        {},
        {"watermark": "x", "active": [], "ended": []},
        [1],
        "text",
        {**Checkpoint.begin(1).to_json(), "active": "no base64"},
        {**Checkpoint.begin(1).to_json(), "active": "YWJj"},
        {**Checkpoint.begin(1).to_json(), "ends": "YWJj"},
        {"watermark": 1, "active": [5], "ended": []},
        {"watermark": 1, "active": [["a"]], "ended": []},
        {"watermark": 1, "active": [], "ended": [None]},
        *(
            {**Checkpoint.begin(1).to_json(), "active": packed(other)}
            for other in (5, None, "abc", {"a": 1}, [5], [["a"]])
        ),
        *({**Checkpoint.begin(1).to_json(), "unwanted": packed(other)} for other in (5, [None])),
    ],
    ids=str,
)
def test_anything_else_restores_to_no_checkpoint(stored: Any) -> None:
    assert Checkpoint.restore(stored) is None


def test_ids_and_counts_of_any_kind_are_stored() -> None:
    checkpoint = Checkpoint.begin(START)
    counts = [None, -1, 0, 1, 65_534, 10**9]
    names = ["a\nb", "ü", "😀", "\ud800", " ", "x" * 100]
    tasks = [task(name, 2, version_count=count) for name, count in zip(names, counts, strict=True)]
    assert len(ended(checkpoint, *tasks, is_first=True)) == len(tasks)
    checkpoint.active = {name: Active(True) for name in names}
    again = restarted(checkpoint)
    assert set(again.active) == set(names)
    again.active = {}
    assert ended(again, *tasks) == []


# Versions


def version(number: int, status: int = 2, **fields: Any) -> ProcessorTaskVersion:
    return ProcessorTaskVersion(task_version_id=f"v{number}", status=status, **fields)


def test_versions_that_ended_since_the_start_need_an_event_once_in_the_order_of_their_ends(later: Any) -> None:
    checkpoint = Checkpoint.begin(START)
    versions = [
        version(1, update_time=START - 1),
        version(2, create_time=START - 9000, duration_seconds=8),
        version(3, update_time=START + 9),
        version(4, create_time=START - 9000, duration_seconds=10),
        version(5, 1, update_time=START + 9),
        version(6),
    ]
    new = checkpoint.new_versions("a", versions)
    assert [one.task_version_id for one in new] == ["v6", "v3", "v4"]
    for one in new:
        checkpoint.note_version("a", one)
    assert later(checkpoint).new_versions("a", versions) == []


@pytest.mark.parametrize(
    ("seen", "now", "is_asked"),
    [
        ([], {"version_count": 1}, False),
        ([], {"version_count": 2}, True),
        ([{"status": 1, "version_count": 1}], {"version_count": 2}, True),
        ([{"status": 1, "version_count": 2}], {"version_count": 2}, False),
        ([{"status": 2, "version_count": 1}], {"version_count": 2}, False),
        ([{"status": 2, "version_count": 1}], {"version_count": 3}, True),
    ],
    ids=str,
)
def test_an_active_task_may_have_versions_that_ended_unseen(seen: Any, now: Any, is_asked: bool) -> None:
    checkpoint = Checkpoint.begin(START)
    for fields in seen:
        for one in checkpoint.compare(snapshot(task("a", **fields)), lambda _: True).running_again:
            checkpoint.note_active(one)
        ended(checkpoint, task("a", **fields))
    assert bool(checkpoint.compare(snapshot(task("a", 1, **now)), lambda _: True).running_again) is is_asked
