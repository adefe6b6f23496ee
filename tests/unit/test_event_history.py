"""Asset events over random histories: every end that the API shows is emitted once, with one key."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest

from airflow_modelarts import event_trigger
from airflow_modelarts.polling import snapshots
from airflow_modelarts.polling.checkpoint_store import SENT_AFTER
from airflow_modelarts.polling.snapshots import Outage, Snapshot
from tests.support.virtual import now, run, use_virtual_time
from tests.support.virtual_runs import FOREVER, Run, RunningTask, RunService
from tests.support.watchers import FakeStateStore, new_trigger, polls_of

#: Seconds after which an event has left the triggerer; later than that, a stop loses none.
SENT_WITHIN = 2.0
#: When the trigger starts for the first time, and when the history ends, by the loop's clock.
START, END = 2000.25, 6000.0
FILTERS: list[dict[str, Any]] = [{}, {}, {"name_prefix": "a"}, {"statuses": [3]}, {"name_prefix": "b", "statuses": [2]}]
#: The id of a task, and the number of one of its runs.
Ended: TypeAlias = tuple[str, int]


@dataclass
class History:
    """What happened while a trigger ran with several restarts.

    :param polls: the time of each snapshot, the ends it showed, and the selection at that time.
    :param emitted: the time of each event, its end and its key.
    :param kills: when the trigger was killed.
    """

    service: RunService
    polls: list[tuple[float, set[Ended], dict[str, Any]]] = field(default_factory=list)
    emitted: list[tuple[float, Ended, str]] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)

    def shown(self, task_id: str) -> Ended:
        """Return which run a task shows now."""
        runs = self.service.running[task_id].runs
        return task_id, max(number for number, one in enumerate(runs) if one.starts <= now() < one.deleted)

    def selects(self, selection: dict[str, Any], end: Ended) -> bool:
        task = self.service.running[end[0]]
        name, status = task.fields["name"], task.runs[end[1]].status
        return name.startswith(selection.get("name_prefix", "")) and status in selection.get("statuses", [2, 3, 4])


def random_service(draw: random.Random) -> RunService:
    service = RunService(clock_offset=draw.choice([0.0, -300.0, 300.0, -7200.0, 7200.0]))
    for number in range(draw.randint(1, 10)):
        at = draw.choice([draw.randint(0, int(START) - 10), draw.randint(int(START) + 2, int(END) - 100)])
        runs = []
        for _ in range(draw.choice([1, 1, 2, 3, 5])):
            ends = at + draw.choice([5, 30, 70, 400])
            runs.append(Run(at, ends, draw.choice([2, 3, 4])))
            at = ends + draw.choice([1, 10, 100, 900])
        for one in runs[1:]:
            if draw.random() < 0.1:
                one.deleted = one.starts + draw.choice([15, 100, 500])
        deleted = at + 20.0 if draw.random() < 0.2 else FOREVER
        name = draw.choice("ab") + str(number)
        service.running[name] = RunningTask(runs, deleted, fields={"name": name})
    if draw.random() < 0.4:  # so that older tasks are not on the first pages of the list
        for number in range(250):
            service.run(f"filler{number}", Run(START - 9, START - 5), name="filler")
    return service


async def play(draw: random.Random) -> History:
    history = History(random_service(draw))
    store, selection = FakeStateStore(), draw.choice(FILTERS)
    await asyncio.sleep(START)
    while now() < END:
        sent = len(history.emitted)
        watching = asyncio.create_task(watch(history, store, selection))
        await asyncio.sleep(draw.choice([1.0, 60.0, 300.0, 1000.0, 3000.0]) + draw.random())
        if draw.random() < 0.6:
            await next_call(history.service, steps=draw.randint(0, 40))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert watching.cancelled(), watching
        history.kills.append(now())
        if draw.random() < 0.5:
            history.emitted[sent:] = [one for one in history.emitted[sent:] if one[0] <= now() - SENT_WITHIN]
        await asyncio.sleep(draw.choice([0.0, 30.0, 300.0, 900.0]))
        if draw.random() < 0.3:
            selection = draw.choice(FILTERS)
    return history


async def watch(history: History, store: FakeStateStore, selection: dict[str, Any]) -> None:
    """Run the trigger, and record what it polls and emits."""

    async def recorded() -> AsyncGenerator[Snapshot | Outage, None]:
        async with aclosing(polls_of(history.service)) as stream:
            async for polled in stream:
                assert isinstance(polled, Snapshot)
                ended = {history.shown(task_id) for task_id in polled.ends}
                history.polls.append((now(), ended, selection))
                yield polled

    async with aclosing(recorded()) as stream:
        async for event in new_trigger(store, **selection).filter_shared_stream(stream):
            history.emitted.append((now(), history.shown(event.payload["task_id"]), event.payload["dedupe_key"]))


async def next_call(service: RunService, steps: int) -> None:
    """Return some steps of the event loop after the next request: in the middle of a poll, or just after it."""
    called = asyncio.Event()
    service.fault = lambda _: called.set()  # type: ignore[func-returns-value]  # None: the usual answer
    await called.wait()
    service.fault = lambda _: None
    for _ in range(steps):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(30))
def test_each_end_is_emitted_once_with_one_key(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    use_virtual_time(monkeypatch, event_trigger, snapshots)
    history = run(play(random.Random(seed)))
    tasks = history.service.running

    keys: dict[str, set[Ended]] = defaultdict(set)
    times: dict[Ended, list[float]] = defaultdict(list)
    for time, end, key in history.emitted:
        keys[key].add(end)
        times[end].append(time)
    assert len({(end, key) for _, end, key in history.emitted}) == len(times), "an end has two keys"
    # Of a task whose versions are deleted, the API shows no count from which its ends can be told apart for certain.
    is_certain = {name: all(one.deleted == FOREVER for one in task.runs) for name, task in tasks.items()}
    for ends in keys.values():
        assert sum(is_certain[name] for name, _ in ends) <= 1, "two ends have one key"

    for (name, number), emitted in times.items():
        assert not is_certain[name] or tasks[name].runs[number].ends > START, "an end is from before the first start"
        for first, second in itertools.pairwise(emitted):
            stops = [kill for kill in history.kills if first <= kill <= first + SENT_AFTER]
            assert stops, f"an end is emitted at {first} and at {second}"

    handled: set[Ended] = set()
    for time, ends, selection in history.polls:
        for end in ends - handled:
            is_selected = history.selects(selection, end)
            if not any(time <= kill <= time + SENT_WITHIN for kill in history.kills):
                handled.add(end)
                is_new = tasks[end[0]].runs[end[1]].ends > START
                assert end in times or not (is_new and is_certain[end[0]] and is_selected), f"{end} is not emitted"
            elif not is_selected:
                handled.add(end)  # a stop after it was recorded
