"""Checkpoints: over any history of a project's tasks, each end is emitted once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.polling import checkpoints
from airflow_modelarts.polling.checkpoints import Checkpoint
from airflow_modelarts.polling.snapshots import Snapshot
from tests.support.virtual import EPOCH, now, run, use_virtual_time
from tests.support.virtual_service import History, Service, unavailable

#: In milliseconds.
NOW, HOUR = int(EPOCH * 1000), 3_600_000


def task(task_id: str, status: int, created: int = 1000) -> ProcessorTask:
    return ProcessorTask(task_id=task_id, status=status, create_time=created)


def snapshot(*tasks: ProcessorTask, since: int = 0) -> Snapshot:
    """Return what the lists show: the active tasks, and those created since."""
    active = {one.task_id: one for one in tasks if not one.is_terminal}
    recent = {one.task_id: one for one in tasks if (one.create_time or 0) >= since}
    return Snapshot(active, recent, since)


def ended(checkpoint: Checkpoint, latest: Snapshot) -> list[str]:
    return sorted(one.task_id for one in checkpoint.diff(latest)[0])


def test_a_task_that_ended_before_the_first_snapshot_is_not_emitted() -> None:
    checkpoint = Checkpoint(watermark=2000)
    assert ended(checkpoint, snapshot(task("old", 2), task("running", 1))) == []


def test_a_task_that_was_active_is_emitted_once_when_it_ends() -> None:
    checkpoint = Checkpoint(watermark=2000)
    ended(checkpoint, snapshot(task("a", 1)))
    assert ended(checkpoint, snapshot(task("a", 3))) == ["a"]
    assert ended(checkpoint, snapshot(task("a", 3))) == []


def test_a_task_that_starts_and_ends_between_two_snapshots_is_emitted() -> None:
    checkpoint = Checkpoint(watermark=2000)
    ended(checkpoint, snapshot())
    assert ended(checkpoint, snapshot(task("quick", 2, created=2500))) == ["quick"]


def test_a_task_without_a_creation_time_is_emitted_if_it_was_active() -> None:
    checkpoint = Checkpoint(watermark=2000)
    untimed = ProcessorTask(task_id="a", status=2)
    assert ended(checkpoint, Snapshot({}, {"a": untimed}, 0)) == []
    ended(checkpoint, snapshot(task("a", 1)))
    assert ended(checkpoint, Snapshot({}, {"a": untimed}, 0)) == ["a"]


def test_a_task_that_runs_again_is_emitted_again() -> None:
    checkpoint = Checkpoint(watermark=0)
    ended(checkpoint, snapshot(task("a", 1)))
    ended(checkpoint, snapshot(task("a", 2)))
    ended(checkpoint, snapshot(task("a", 1)))
    assert ended(checkpoint, snapshot(task("a", 4))) == ["a"]


def test_an_old_task_that_has_left_the_lists_is_missing() -> None:
    checkpoint = Checkpoint(watermark=0)
    ended(checkpoint, snapshot(task("old", 1, created=1), since=5000))
    assert checkpoint.diff(snapshot(since=5000)) == ([], ["old"])


def test_a_stored_checkpoint_is_json_and_restores_to_the_same() -> None:
    checkpoint = Checkpoint(5, {"b", "a"}, {"c"})
    assert checkpoint.to_json() == {"watermark": 5, "active": ["a", "b"], "ended": ["c"]}
    assert Checkpoint.restore(checkpoint.to_json()) == checkpoint


@pytest.mark.parametrize("stored", [None, {}, {"watermark": "x", "active": [], "ended": []}, [1], "text"])
def test_anything_else_restores_to_no_checkpoint(stored: Any) -> None:
    assert Checkpoint.restore(stored) is None


def test_a_missing_task_is_read_by_id_until_its_status_is_known() -> None:
    checkpoint = Checkpoint(0)
    service = Service(fault=lambda call: unavailable() if call.task_id == "unavailable" else None)
    service.add(["ended"], (0, 2))
    service.add(["active", "unavailable"], (0, 1))

    async def describe() -> list[ProcessorTask]:
        return await checkpoint.describe_missing(service.open(), ["ended", "active", "deleted", "unavailable"])

    assert [one.task_id for one in run(describe())] == ["ended"]
    assert checkpoint.active == {"active", "unavailable"}
    assert checkpoint.ended == {"ended"}


runs = st.tuples(
    st.integers(0, 30),  # when the task is created
    st.integers(1, 12),  # how long each run takes
    st.lists(st.integers(1, 12), max_size=2),  # the pauses between its runs
    st.sampled_from([2, 3, 4]),
)


@settings(max_examples=300, deadline=None)
@given(
    histories=st.lists(runs, max_size=12),
    polls=st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=5, max_size=25),
    unlisted=st.sets(st.integers(0, 11)),
)
def test_every_end_is_emitted_once_whatever_the_history_and_the_restarts(
    histories: list[tuple[int, int, list[int], int]], polls: list[tuple[int, bool]], unlisted: set[int]
) -> None:
    """
    Polls come at irregular times, and the trigger restarts after some of them.

    An unlisted task is in no list while it is active, like one that moves from one list to another.
    """
    service = Service()
    for number, (created, duration, pauses, end) in enumerate(histories):
        ends_at = created + duration
        changes = [(float(created), 1), (float(ends_at), end)]
        for pause in pauses:
            changes += [(float(ends_at + pause), 1), (float(ends_at + pause + duration), end)]
            ends_at += pause + duration
        service.tasks[f"t{number}"] = History(f"t{number}", changes, created=created)

    async def poll_all() -> tuple[Counter[str], Counter[str]]:
        hook = service.open()
        checkpoint, previous, first = Checkpoint(watermark=0), -100, True
        emitted: Counter[str] = Counter()
        expected: Counter[str] = Counter()
        last: dict[str, int] = {}
        for step, restarts in polls:
            await asyncio.sleep(step)
            at = int(now())
            since = -100 if first else previous - 2
            tasks = [task(h.task_id, h.status(at), h.created) for h in service.tasks.values() if h.created <= at]
            for one in tasks:
                # A task that ended and ran again between two polls looks like one that ended once.
                expected[one.task_id] += one.is_terminal and last.get(one.task_id, 1) == 1
                last[one.task_id] = one.status or 0
            listed = [one for one in tasks if one.is_terminal or int(one.task_id[1:]) not in unlisted]
            found, missing = checkpoint.diff(snapshot(*listed, since=since))
            found += await checkpoint.describe_missing(hook, missing)
            emitted.update(one.task_id for one in found)
            previous, first = at, restarts
            if restarts:
                restored = Checkpoint.restore(checkpoint.to_json())
                assert restored is not None
                checkpoint = restored
        await hook.close()
        return emitted, expected

    emitted, expected = run(poll_all())
    assert all(count <= expected[task_id] for task_id, count in emitted.items()), "an end is emitted twice"
    always_listed = {task_id for task_id in expected if int(task_id[1:]) not in unlisted}
    assert {task_id: emitted[task_id] for task_id in always_listed} == {id_: expected[id_] for id_ in always_listed}


# The first snapshot


def test_a_first_snapshot_that_covers_too_little_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    use_virtual_time(monkeypatch, checkpoints)
    checkpoint = Checkpoint(watermark=NOW - 5 * HOUR)
    service = Service()
    service.add(["known"], (0, 2), created=NOW - 6 * HOUR)
    service.add(["meanwhile"], (0, 2), created=NOW - 4 * HOUR)

    async def backfill() -> Snapshot | None:
        return await checkpoint.backfill(service.open(), snapshot(since=NOW - 660_000), "0")

    latest = run(backfill())
    assert latest is not None
    assert ended(checkpoint, latest) == ["meanwhile"]


@pytest.mark.parametrize(
    ("watermark", "since"),
    [(NOW - 1000, NOW - 660_000), (0, NOW - 24 * HOUR), (NOW - 900_000, NOW - 660_000)],
)
def test_a_first_snapshot_that_covers_enough_costs_no_request(
    monkeypatch: pytest.MonkeyPatch, watermark: int, since: int
) -> None:
    use_virtual_time(monkeypatch, checkpoints)
    service, first = Service(), snapshot(since=since)

    async def backfill() -> Snapshot | None:
        return await Checkpoint(watermark).backfill(service.open(), first, "0")

    assert run(backfill()) is first
    assert service.calls == []


def test_a_first_snapshot_that_cannot_be_replaced_now_is_left_to_the_next_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_virtual_time(monkeypatch, checkpoints)
    service = Service(fault=lambda _: unavailable())

    async def backfill() -> Snapshot | None:
        return await Checkpoint(0).backfill(service.open(), snapshot(since=NOW), "0")

    assert run(backfill()) is None
