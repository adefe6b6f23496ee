"""The ledger: over any history of a project's tasks, each end is told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_modelarts.api.errors import ModelArtsAuthenticationError, ModelArtsNotFoundError, ModelArtsTransientError
from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.api.operations import Operation, Page
from airflow_modelarts.polling import snapshots as completions
from airflow_modelarts.polling.checkpoints import Checkpoint
from airflow_modelarts.polling.snapshots import Snapshot, poll_snapshots


def task(task_id: str, status: int, created: int = 1000) -> ProcessorTask:
    return ProcessorTask(task_id=task_id, status=status, create_time=created)


def snapshot(*tasks: ProcessorTask, since: int = 0, unlisted: tuple[str, ...] = ()) -> Snapshot:
    """Show tasks as the lists would: the recent ones, and the active ones whenever they were created."""
    shown = [one for one in tasks if one.task_id not in unlisted]
    active = {one.task_id: one for one in shown if not one.is_terminal}
    recent = {one.task_id: one for one in shown if (one.create_time or 0) >= since}
    return Snapshot(active, recent, since)


def told(checkpoint: Checkpoint, seen: Snapshot) -> list[str]:
    return sorted(one.task_id for one in checkpoint.diff(seen)[0])


def test_what_had_ended_before_the_first_look_is_no_news() -> None:
    checkpoint = Checkpoint(watermark=2000)
    assert told(checkpoint, snapshot(task("old", 2), task("running", 1))) == []


def test_a_task_that_was_active_is_told_when_it_ends_and_once() -> None:
    checkpoint = Checkpoint(watermark=2000)
    told(checkpoint, snapshot(task("a", 1)))
    assert told(checkpoint, snapshot(task("a", 3))) == ["a"]
    assert told(checkpoint, snapshot(task("a", 3))) == []


def test_a_task_that_came_and_went_between_two_looks_is_told() -> None:
    checkpoint = Checkpoint(watermark=2000)
    told(checkpoint, snapshot())
    assert told(checkpoint, snapshot(task("quick", 2, created=2500))) == ["quick"]


def test_a_task_without_a_time_is_told_if_it_was_seen_active() -> None:
    checkpoint = Checkpoint(watermark=2000)
    untimed = ProcessorTask(task_id="a", status=2)
    assert told(checkpoint, Snapshot({}, {"a": untimed}, 0)) == []
    told(checkpoint, snapshot(task("a", 1)))
    assert told(checkpoint, Snapshot({}, {"a": untimed}, 0)) == ["a"]


def test_a_task_that_runs_again_is_told_again() -> None:
    checkpoint = Checkpoint(watermark=0)
    told(checkpoint, snapshot(task("a", 1)))
    told(checkpoint, snapshot(task("a", 2)))
    told(checkpoint, snapshot(task("a", 1)))
    assert told(checkpoint, snapshot(task("a", 4))) == ["a"]


def test_an_old_task_that_is_in_no_list_any_more_is_to_be_asked_for() -> None:
    checkpoint = Checkpoint(watermark=0)
    told(checkpoint, snapshot(task("old", 1, created=1), since=5000))
    assert checkpoint.diff(snapshot(since=5000)) == ([], ["old"])


def test_what_is_stored_is_json_and_restores_to_the_same() -> None:
    checkpoint = Checkpoint(5, {"b", "a"}, {"c"})
    assert checkpoint.to_json() == {"watermark": 5, "active": ["a", "b"], "ended": ["c"]}
    assert Checkpoint.restore(checkpoint.to_json()) == checkpoint


@pytest.mark.parametrize("stored", [None, {}, {"watermark": "x", "active": [], "ended": []}, [1], "text"])
def test_what_is_not_a_ledger_restores_to_nothing(stored: Any) -> None:
    assert Checkpoint.restore(stored) is None


class Service:
    """Answers for single tasks by id: a task, or an error."""

    def __init__(self, answers: dict[str, ProcessorTask | Exception]) -> None:
        self.answers = answers

    async def call(self, operation: Operation[Any]) -> Any:
        answer = self.answers[operation.path.rpartition("/")[2]]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_lost_task_is_asked_for_until_somebody_can_tell() -> None:
    checkpoint = Checkpoint(0)
    answers: dict[str, ProcessorTask | Exception] = {
        "ended": task("ended", 2),
        "active": task("active", 1),
        "deleted": ModelArtsNotFoundError("gone"),
        "unclear": ModelArtsTransientError("out of order"),
    }
    found = await checkpoint.describe_missing(Service(answers), list(answers))  # type: ignore[arg-type]  # it only calls
    assert [one.task_id for one in found] == ["ended"]
    assert checkpoint.active == {"active", "unclear"}
    assert checkpoint.ended == {"ended"}


Histories = st.lists(
    st.tuples(
        st.integers(0, 30), st.integers(1, 12), st.lists(st.integers(1, 12), max_size=2), st.sampled_from([2, 3, 4])
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(
    histories=Histories,
    looks=st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=5, max_size=25),
    first_reach=st.integers(0, 40),
    shy=st.sets(st.integers(0, 11)),
)
def test_every_end_is_told_once_whatever_the_history_and_the_restarts(
    histories: list[tuple[int, int, list[int], int]],
    looks: list[tuple[int, bool]],
    first_reach: int,
    shy: set[int],
) -> None:
    """
    Tasks are created, end, and run again for a while; looks come at odd times; a restart restores what was stored.

    A shy task is missing from the lists while it is active, as one is that moves from one list to another.
    """

    def status(history: tuple[int, int, list[int], int], now: int) -> int | None:
        created, runs, pauses, end = history
        if now < created:
            return None
        moment = created + runs
        if now < moment:
            return 1
        for pause in pauses:  # it ends, rests, and runs again for as long as before
            if moment + pause <= now < moment + pause + runs:
                return 1
            moment += pause + runs if now >= moment + pause else 0
        return end

    checkpoint, now, previous = Checkpoint(watermark=0), 0, -100
    first = True
    counts: dict[str, int] = {}
    expected: dict[str, int] = {}
    last: dict[str, int | None] = {}
    for step, restarts in looks:
        now += step
        since = -100 if first else previous - 2
        tasks = {f"t{n}": task(f"t{n}", s, h[0]) for n, h in enumerate(histories) if (s := status(h, now)) is not None}
        for task_id, one in tasks.items():
            was_active_or_new = last.get(task_id) in (None, 1)
            if one.is_terminal and was_active_or_new:
                expected[task_id] = expected.get(task_id, 0) + 1
            last[task_id] = one.status
        hidden = tuple(task_id for task_id, one in tasks.items() if int(task_id[1:]) in shy and one.status == 1)
        news, lost = checkpoint.diff(snapshot(*tasks.values(), since=since, unlisted=hidden))
        found = asyncio.run(checkpoint.describe_missing(Service(dict(tasks)), lost))  # type: ignore[arg-type]  # it only calls
        for one in [*news, *found]:
            counts[one.task_id] = counts.get(one.task_id, 0) + 1
        previous, first = now, restarts
        if restarts:
            restored = Checkpoint.restore(checkpoint.to_json())
            assert restored is not None
            checkpoint = restored
    shown = {task_id: count for task_id, count in expected.items() if int(task_id[1:]) not in shy}
    assert {task_id: counts.get(task_id, 0) for task_id in shown} == shown
    assert all(count <= expected[task_id] for task_id, count in counts.items()), "none is told more often than it ended"


class Lists:
    """Answers list operations from a script of lists by page, and then fails or repeats."""

    def __init__(self, *rounds: Exception | list[ProcessorTask]) -> None:
        self.rounds = list(rounds)
        self.current: list[ProcessorTask] = []
        self.asked: list[str] = []

    async def pages(self, operation: Operation[Any]) -> AsyncGenerator[Page[ProcessorTask], None]:
        self.asked.append(operation.query.get("status", "recent"))
        if operation.query.get("status") == "1":
            answer = self.rounds.pop(0) if self.rounds else self.current
            if isinstance(answer, Exception):
                raise answer
            self.current = answer
        wanted = operation.query.get("status")
        shown = [one for one in self.current if wanted in (None, str(one.status))]
        for start in range(0, len(shown), 2):
            yield Page(shown[start : start + 2])


async def test_pictures_go_on_through_outages_and_mistakes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(completions.asyncio, "sleep", sleep)
    caplog.set_level("INFO", logger=completions.log.name)
    api = Lists(
        [task("a", 1)],
        ModelArtsTransientError("out of order"),
        ModelArtsAuthenticationError("refused"),
        [task("a", 2)],
    )
    stream = poll_snapshots(api, 5.0)  # type: ignore[arg-type]  # it only lists
    first = await anext(stream)
    second = await anext(stream)
    await stream.aclose()
    assert set(first.active) == {"a"}
    assert set(second.active) == set()
    assert slept[0] == 5.0
    assert slept[1] < slept[2]
    assert second.since < first.since + 86_400_000
    assert [record.message for record in caplog.records] == [
        "out of order Polling for processing tasks that end goes on.",
        "ModelArts answers again.",
    ]


async def test_the_recent_tasks_are_read_no_further_back_than_needed() -> None:
    now = 10_000_000_000_000
    tasks = [task(f"new{n}", 2, created=now) for n in range(3)] + [task(f"old{n}", 2, created=1) for n in range(50)]
    api = Lists(tasks)
    stream = poll_snapshots(api, 5.0)  # type: ignore[arg-type]  # it only lists
    seen = await anext(stream)
    await stream.aclose()
    assert set(seen.recent) == {"new0", "new1", "new2"}
    assert api.asked == ["1", "0", "recent"]


class Clock:
    """A clock that sleeping and failing looks move on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_700_000_000.0
        monkeypatch.setattr(completions.asyncio, "sleep", self.sleep)
        monkeypatch.setattr(completions.time, "time", lambda: self.now)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_after_an_outage_a_picture_reaches_back_behind_its_beginning_however_long_each_look_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)

    class BlackHole(Lists):
        async def pages(self, operation: Operation[Any]) -> AsyncGenerator[Page[ProcessorTask], None]:
            if operation.query.get("status") == "1" and self.rounds and isinstance(self.rounds[0], Exception):
                await clock.sleep(600.0)  # nobody answers, until the time is out
            async for page in super().pages(operation):
                yield page

    api = BlackHole([], *[ModelArtsTransientError("timed out") for _ in range(30)], [])
    before = clock.now
    stream = poll_snapshots(api, 5.0)  # type: ignore[arg-type]  # it only lists
    await anext(stream)
    seen = await anext(stream)
    await stream.aclose()
    assert clock.now - before > 30 * 600
    assert seen.since == int((before - completions.OVERLAP) * 1000)


async def test_a_first_picture_with_a_gap_before_it_is_replaced_by_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    now = int(clock.now * 1000)
    checkpoint = Checkpoint(watermark=now - 18_000_000)
    api = Lists([task("meanwhile", 2, created=now - 14_400_000), task("known", 2, created=now - 20_000_000)])
    whole = await checkpoint.backfill(api, snapshot(since=now - 660_000), "0")  # type: ignore[arg-type]  # it only lists
    assert whole is not None
    assert told(checkpoint, whole) == ["meanwhile"]


async def test_a_first_picture_without_a_gap_before_it_costs_no_look() -> None:
    api = Lists()
    now = int(completions.time.time() * 1000)
    for watermark, since in [(now - 1000, now - 660_000), (0, now - 86_400_000), (now - 900_000, now - 660_000)]:
        first = snapshot(since=since)
        assert await Checkpoint(watermark).backfill(api, first, "0") is first  # type: ignore[arg-type]  # it only lists
    assert api.asked == []


async def test_a_gap_that_cannot_be_read_now_is_left_to_the_next_picture() -> None:
    api = Lists(ModelArtsTransientError("out of order"))
    first = snapshot(since=int(completions.time.time() * 1000))
    assert await Checkpoint(0).backfill(api, first, "0") is None  # type: ignore[arg-type]  # it only lists
