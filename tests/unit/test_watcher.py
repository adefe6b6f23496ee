"""The watcher on a virtual clock, against a service in memory: when waits end, and what they cost."""

from __future__ import annotations

import asyncio
import itertools
import random
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api.errors import (
    ModelArtsAuthenticationError,
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsNotFoundError,
    ModelArtsRequestError,
)
from airflow_modelarts.api.http import Response
from airflow_modelarts.api.operations import Operation, describe_processor_task
from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling import plan, target_status, watcher
from airflow_modelarts.polling.outage import MAX_OUTAGE_DELAY
from airflow_modelarts.polling.snapshots import poll_snapshots
from airflow_modelarts.polling.wait import Changed, Ended, OutageBegan, OutageEnded, Wait, WaitEvent
from airflow_modelarts.polling.watcher import watch
from tests.support.virtual import (
    PAGE,
    Gateway,
    History,
    Service,
    is_list,
    refusal,
    run,
    task_id_of,
    unavailable,
    unreachable,
)

HOUR = 3600.0
FOREVER = ((0.0, 1),)


@pytest.fixture(autouse=True)
def nobody_is_left_watching() -> Iterator[None]:
    yield
    assert watcher._WATCHERS == {}


def now() -> float:
    return asyncio.get_running_loop().time()


def waiting(
    service: Service | Gateway,
    task_id: str,
    interval: float = 5.0,
    *,
    key: Any = "conn",
    workspace_id: Any = None,
    **how: Any,
) -> AsyncGenerator[WaitEvent, None]:
    return watch(key, service.open, Target(task_id, None, workspace_id), interval=interval, **how)


async def collect(events: AsyncGenerator[WaitEvent, None], *, after: float = 0.0) -> list[tuple[float, WaitEvent]]:
    """Wait until the end, and return all news with their times."""
    await asyncio.sleep(after)
    async with aclosing(events):
        return [(now(), latest) async for latest in events]


async def for_a_while(seconds: float, *events: AsyncGenerator[WaitEvent, None]) -> list[list[tuple[float, WaitEvent]]]:
    """Listen to waits that do not end, for some time."""
    heard: list[list[tuple[float, WaitEvent]]] = [[] for _ in events]

    async def listen(number: int) -> None:
        async with aclosing(events[number]):
            async for latest in events[number]:
                heard[number].append((now(), latest))

    listeners = [asyncio.create_task(listen(number)) for number in range(len(events))]
    await asyncio.sleep(seconds)
    for listener in listeners:
        listener.cancel()
    results = await asyncio.gather(*listeners, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results), results
    return heard


def kinds(heard: list[tuple[float, WaitEvent]]) -> list[type[WaitEvent]]:
    return [type(latest) for _, latest in heard]


# When a wait ends


def test_a_wait_ends_with_the_status_that_the_task_ended_with() -> None:
    service = Service()
    service.add(["a"], (0, 0), (7, 1), (31, 3))
    heard = run(collect(waiting(service, "a")))
    assert [latest for _, latest in heard] == [Changed(0), Changed(1), Ended(3)]
    assert 31 <= heard[-1][0] <= 36


def test_a_task_that_ended_before_is_noticed_after_one_interval() -> None:
    service = Service()
    service.add(["a"], (0, 2))
    assert run(collect(waiting(service, "a", 60))) == [(60, Ended(2))]


def test_who_was_not_looked_at_by_a_worker_is_looked_at_at_once() -> None:
    service = Service()
    service.add(["a"], (0, 2))
    assert run(collect(waiting(service, "a", 60, poll_at_once=True))) == [(watcher.BATCH_DELAY, Ended(2))]


def test_a_status_that_is_not_documented_is_no_end() -> None:
    service = Service()
    service.add(["a"], (0, 1), (20, 7), (40, 2))
    assert [latest for _, latest in run(collect(waiting(service, "a")))] == [Changed(1), Changed(7), Ended(2)]


def test_two_waits_for_one_task_both_end_and_ask_once() -> None:
    service = Service()
    service.add(["a"], (0, 1), (20, 2))

    async def both() -> list[list[tuple[float, WaitEvent]]]:
        return await asyncio.gather(collect(waiting(service, "a")), collect(waiting(service, "a")))

    first, second = run(both())
    assert first[-1] == second[-1] == (20, Ended(2))
    assert service.count() == 4


histories = st.builds(
    lambda begin, runs, again, end, mute, workspace: (begin, runs, again, end, mute, workspace),
    begin=st.integers(0, 40),
    runs=st.integers(0, 200),
    again=st.booleans(),
    end=st.sampled_from([2, 3, 4]),
    mute=st.booleans(),
    workspace=st.sampled_from(["0", "0", "0", "w"]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    lives=st.lists(st.tuples(histories, st.sampled_from([5.0, 5.0, 5.0, 12.0, 60.0]), st.integers(0, 90)), min_size=1),
    copies=st.integers(1, 8),
    foreign=st.sampled_from([0, 3, 150, 420]),
    latency=st.sampled_from([0.0, 0.05, 0.5]),
    disorder=st.none() | st.randoms(use_true_random=False),
    tells_ended=st.sampled_from([0, 30]),
    faults=st.none() | st.randoms(use_true_random=False),
)
def test_each_wait_ends_once_with_the_true_status_neither_early_nor_late(
    lives: list[tuple[tuple[int, int, bool, int, bool, str], float, int]],
    copies: int,
    foreign: int,
    latency: float,
    disorder: random.Random | None,
    tells_ended: int,
    faults: random.Random | None,
) -> None:
    service = Service(latency=latency, disorder=disorder, tells_ended=tells_ended)
    if faults:
        service.fault = lambda operation: unavailable() if is_list(operation) and faults.random() < 0.3 else None
    service.add([f"foreign {number}" for number in range(foreign // 2)], (0, 1))
    waits = []
    for number in range(len(lives) * copies):
        (begin, runs, again, end, mute, workspace), interval, joins = lives[number % len(lives)]
        changes = [(0, 0), (begin, 1), (begin + runs, end)]
        if again and joins >= begin + runs:  # a new version, which the wait that joins later is about
            changes += [(joins, 1), (joins + runs, 5 - end if end < 4 else 2)]
        service.tasks[f"task {number}"] = History(f"task {number}", changes, workspace, mute)
        waits.append((f"task {number}", interval, float(joins)))
    service.add([f"foreign {number}" for number in range(foreign // 2, foreign)], (0, 0), (60, 1), (200, 2))

    async def all_of_them() -> list[list[tuple[float, WaitEvent]]]:
        return await asyncio.gather(
            *(collect(waiting(service, task_id, interval), after=joins) for task_id, interval, joins in waits)
        )

    requests_a_round = len(waits) / plan.CONCURRENCY + 4 * (foreign + len(waits)) / PAGE + 16
    for (task_id, interval, joins), heard in zip(waits, run(all_of_them()), strict=True):
        true_end, status = service.tasks[task_id].end(joins)
        ends = [(time, latest) for time, latest in heard if isinstance(latest, Ended)]
        assert [latest for _, latest in ends] == [Ended(status)]
        assert true_end <= ends[0][0] <= true_end + 2 * interval + 2 * latency * requests_a_round + 0.001
    assert (service.opened, service.closed) in {(count, count) for count in range(1, len(waits) + 1)}


def test_a_list_that_names_an_ended_task_does_not_end_its_wait() -> None:
    """Only an answer by id does, so that no wait ends by what a list says of another moment."""
    service = Service(tells_ended=100)
    service.add(["a", "b", "c", "d"], (0, 1), (20, 4))
    heard = run(for_a_while(60, *(waiting(service, task_id) for task_id in "abcd")))
    assert [kinds(each) for each in heard] == [[Changed, Ended]] * 4
    assert service.asked() == dict.fromkeys("abcd", 1)


def test_a_task_that_starts_between_the_two_lists_is_asked_for_by_id() -> None:
    service = Service(latency=1.0)  # the lists are looked at half a second and one and a half after 5
    service.add(["a", "b", "c"], (0, 0), (6, 1), (60, 2))
    heard = run(for_a_while(120, *(waiting(service, task_id) for task_id in "abc")))
    assert [kinds(each)[-1] for each in heard] == [Ended] * 3


# What it costs


def test_one_or_two_waits_are_asked_for_by_id_only() -> None:
    service = Service()
    service.add(["a", "b"], *FOREVER)
    run(for_a_while(HOUR, waiting(service, "a"), waiting(service, "b")))
    assert service.count("ListProcessorTasks") == 0
    assert service.count() <= 2 * HOUR / 5


def test_five_hundred_waits_take_few_requests() -> None:
    service = Service(latency=0.01)
    names = [f"task {number}" for number in range(500)]
    service.add(names[:300], *FOREVER)
    service.add(names[300:], (0, 0))
    run(for_a_while(300, *(waiting(service, name) for name in names)))
    assert service.count() / 500 / 5 <= 0.2, "requests per wait and minute"
    assert service.count("DescribeProcessorTask") == 0


@settings(max_examples=15, deadline=None)
@given(
    mine=st.integers(1, 260),
    foreign=st.integers(0, 600),
    waiting_to_start=st.integers(0, 100),
    mine_come_first=st.booleans(),
)
def test_a_round_never_takes_many_more_requests_than_asking_one_by_one(
    mine: int, foreign: int, waiting_to_start: int, mine_come_first: bool
) -> None:
    service = Service()
    names = [f"mine {number}" for number in range(mine)]
    others = [f"foreign {number}" for number in range(foreign)]
    # The newest come first in a list.
    service.add([*others, *names] if mine_come_first else [*names, *others], *FOREVER)
    service.add([f"initialized {number}" for number in range(waiting_to_start)], (0, 0))
    rounds = 20
    run(for_a_while(rounds * 5 + 1, *(waiting(service, name) for name in names)))
    pages = -(-(mine + foreign) // PAGE) + max(1, -(-waiting_to_start // PAGE))
    # Now and then it looks whether the lists have become shorter; the estimate of an empty list is one page.
    assert service.count() <= rounds * (min(mine, pages + 1) + 1)


def test_a_list_that_has_become_shorter_is_read_again() -> None:
    service = Service()
    service.add([f"foreign {number}" for number in range(1000)], (0, 1), (60, 2))
    names = [f"mine {number}" for number in range(9)]
    service.add(names, *FOREVER)
    run(for_a_while(600, *(waiting(service, name) for name in names)))
    assert service.count("DescribeProcessorTask") > 0, "it is too long at first"
    assert service.count(since=600 - 61) <= 12 * 2


def test_a_slow_wait_does_not_pay_for_a_fast_one() -> None:
    service = Service()
    service.add(["slow", "fast"], *FOREVER)
    run(for_a_while(HOUR, waiting(service, "slow", 60), waiting(service, "fast", 5)))
    assert service.asked()["fast"] in range(700, 721)
    assert service.asked()["slow"] <= HOUR / 30


def test_those_who_join_at_any_time_come_to_share_their_rounds() -> None:
    service = Service()
    names = [f"task {number}" for number in range(50)]
    service.add(names, *FOREVER)

    async def join_one_by_one() -> None:
        async def listen(number: int) -> None:
            await asyncio.sleep(number * 0.77)
            await for_a_while(300, waiting(service, names[number]))

        await asyncio.gather(*map(listen, range(50)))

    run(join_one_by_one())
    later = [time for time in service.times() if 100 < time < 250]
    assert len(later) <= 150 / 5 + 1


def test_a_wait_without_an_interval_does_not_flood_the_service() -> None:
    service = Service()
    service.add(["a"], *FOREVER)
    run(for_a_while(60, waiting(service, "a", 0)))
    assert service.count() <= 60 / watcher.MIN_INTERVAL


def test_thousands_join_in_no_time() -> None:
    """Each that joins must not cost a look at all the others."""
    service = Service()
    names = [f"task {number}" for number in range(4000)]
    service.add(names, *FOREVER)
    looks = 0

    class Counting(watcher.Watcher):
        def _open_waits(self) -> Iterator[Wait]:
            nonlocal looks
            looks += 1
            return super()._open_waits()

    async def join_one_by_one() -> None:
        listeners = []
        for name in names:
            listeners.append(asyncio.create_task(collect(waiting(service, name, 60, poll_at_once=True))))
            await asyncio.sleep(0)  # as the triggerer does
        joined = looks
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
        assert joined < 10

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watcher, "Watcher", Counting)
        run(join_one_by_one())


def test_a_task_in_another_workspace_is_looked_for_in_that_ones_list() -> None:
    service = Service()
    service.add("abcde", *FOREVER, workspace_id="w")
    run(for_a_while(61, *(waiting(service, task_id) for task_id in "abcde")))
    assert service.asked() == dict.fromkeys("abcde", 1), "the first answer by id tells the workspace"
    workspaces = {operation.query["workspace_id"] for _, operation in service.calls[-2:]}
    assert workspaces == {"w"}


def test_a_workspace_that_is_known_is_not_asked_for() -> None:
    service = Service()
    service.add("abcde", *FOREVER, workspace_id="w")
    run(for_a_while(61, *(waiting(service, task_id, workspace_id="w") for task_id in "abcde")))
    assert service.asked() == {}


# Outages


@pytest.mark.parametrize("outage", [unavailable, unreachable, lambda: refusal("APIGW.0308", 429)])
@pytest.mark.parametrize("waits", [1, 2, 30])
def test_an_outage_is_waited_out_and_told_when_it_begins_and_when_it_ends(
    outage: Callable[[], ModelArtsError], waits: int
) -> None:
    service = Service(fault=lambda _: outage() if 20 <= now() < 1200 else None)
    names = [f"task {number}" for number in range(waits)]
    service.add(names, (0, 1), (1000, 2))
    heard = run(for_a_while(HOUR, *(waiting(service, name) for name in names)))
    for each in heard:
        assert kinds(each) == [Changed, OutageBegan, OutageEnded, Ended]
        assert each[-1][0] <= 1200 + 1.2 * MAX_OUTAGE_DELAY


@pytest.mark.parametrize("waits", [1, 40])
def test_the_pauses_of_an_outage_grow_with_jitter_up_to_a_limit(waits: int) -> None:
    service = Service(fault=lambda _: unreachable())
    names = [f"task {number}" for number in range(waits)]
    run(for_a_while(5 * HOUR, *(waiting(service, name) for name in names)))
    times = service.times()
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    if waits > 2:
        assert pauses.pop(0) <= plan.SECOND_TRY_DELAY, "before anybody knows that it is an outage"
    for pause, expected in zip(pauses, [5, 10, 20, 40, 80, 160] + [300] * 60, strict=False):
        assert 0.8 * expected <= pause <= 1.2 * expected
    assert len(set(pauses)) == len(pauses), "no jitter"
    assert service.count() <= len(times) * (2 + 2 * plan.CONCURRENCY), "not one call a wait"


@pytest.mark.parametrize(("asked_for", "pause"), [(90, 90), (5000, MAX_OUTAGE_DELAY)])
def test_a_service_that_says_when_to_come_back_is_heard(asked_for: int, pause: float) -> None:
    service = Service(fault=lambda _: refusal("APIGW.0308", 429, retry_after=asked_for) if now() < 6 else None)
    service.add(["a"], (0, 2))
    heard = run(collect(waiting(service, "a")))
    assert heard[-1] == (5 + pause, Ended(2))


def test_a_throttled_list_is_not_followed_by_questions_the_first_time() -> None:
    service = Service(fault=lambda operation: refusal("APIGW.0308", 429) if is_list(operation) else None)
    names = [f"task {number}" for number in range(50)]
    service.add(names, *FOREVER)
    run(for_a_while(9, *(waiting(service, name) for name in names)))
    assert (service.count(), service.count("DescribeProcessorTask")) == (1, 0)


def test_throttled_lists_do_not_hide_an_end() -> None:
    """As where a gateway throttles each API apart, and another program reads the same lists all the time."""
    service = Service(fault=lambda operation: refusal("APIGW.0308", 429) if is_list(operation) else None)
    names = [f"task {number}" for number in range(60)]
    service.add(names[:20], (0, 1), (100, 2))
    service.add(names[20:], *FOREVER)
    heard = run(for_a_while(600, *(waiting(service, name) for name in names)))
    assert len(ends_of(heard)) == 20
    assert max(ends_of(heard)) <= 106
    assert max(outages_of(heard)) <= 6, "nothing but the lists is out of order"
    assert service.count("ListProcessorTasks", since=20) <= 10


def test_throttling_of_everything_costs_few_questions() -> None:
    service = Service(fault=lambda _: refusal("APIGW.0308", 429))
    names = [f"task {number}" for number in range(60)]
    service.add(names, *FOREVER)
    run(for_a_while(HOUR, *(waiting(service, name) for name in names)))
    assert service.count() <= 2 * 18
    assert service.count("DescribeProcessorTask") <= service.count("ListProcessorTasks")


def test_throttling_among_the_questions_stops_them() -> None:
    answers = iter(range(10))
    service = Service(
        latency=0.1,
        fault=lambda operation: None if is_list(operation) or next(answers, None) else refusal("APIGW.0308", 429),
    )
    names = [f"task {number}" for number in range(200)]
    service.add(names, (0, 2))
    run(for_a_while(8, *(waiting(service, name) for name in names)))
    assert service.count("DescribeProcessorTask") <= 10 + 2 * plan.CONCURRENCY


def test_who_joins_during_an_outage_is_told_of_it_and_of_its_end() -> None:
    service = Service(fault=lambda _: unavailable() if now() < 300 else None)
    service.add("ab", (0, 1), (1000, 2))

    async def one_after_the_other() -> list[list[tuple[float, WaitEvent]]]:
        return await asyncio.gather(collect(waiting(service, "a")), collect(waiting(service, "b"), after=100))

    for heard in run(one_after_the_other()):
        assert kinds(heard) == [OutageBegan, OutageEnded, Changed, Ended] or kinds(heard) == [
            OutageBegan,
            Changed,
            OutageEnded,
            Ended,
        ]


@pytest.mark.parametrize("how_many", [1, 2, 12])
@pytest.mark.parametrize("lists", [True, False])
def test_a_single_task_that_cannot_be_read_does_not_slow_the_others(how_many: int, lists: bool) -> None:
    def fault(operation: Operation[Any]) -> Exception | None:
        if is_list(operation):
            return None if lists else refusal(None, 403)
        return unavailable() if task_id_of(operation) == "poisoned" else None

    service = Service(fault=fault)
    names = [f"task {number}" for number in range(how_many)]
    service.add(names, (0, 1), (1000, 2))
    service.add(["poisoned"], (0, 2))
    poisoned, *others = run(for_a_while(1800, *(waiting(service, name) for name in ["poisoned", *names])))
    assert kinds(poisoned) == [OutageBegan]
    for heard in others:
        assert kinds(heard) == [Changed, Ended]
        assert heard[-1][0] <= 1010
    assert service.asked()["poisoned"] < 25, "its own pauses grow"


def test_a_task_that_cannot_be_read_for_a_time_ends_its_wait_later() -> None:
    service = Service(
        fault=lambda operation: unavailable() if operation.path.endswith("/a") and 10 < now() < 100 else None
    )
    service.add("ab", (0, 1), (400, 2))
    first, second = run(for_a_while(HOUR, waiting(service, "a"), waiting(service, "b")))
    assert kinds(first) == [Changed, OutageBegan, OutageEnded, Ended]
    assert kinds(second) == [Changed, Ended]


def test_a_fast_wait_for_a_task_that_cannot_be_read_does_not_slow_a_slow_one() -> None:
    service = Service(fault=lambda operation: unavailable() if operation.path.endswith("/a") else None)
    service.add("ab", (0, 1), (2000, 2))
    poisoned, other = run(for_a_while(HOUR, waiting(service, "a", 5), waiting(service, "b", 60)))
    assert kinds(poisoned) == [OutageBegan]
    assert kinds(other) == [Changed, Ended]
    assert other[-1][0] <= 2120


def test_a_service_outage_and_one_of_a_single_task_are_each_told_once() -> None:
    def fault(operation: Operation[Any]) -> Exception | None:
        return unavailable() if 500 < now() < 900 or (operation.path.endswith("/a") and now() < 2000) else None

    service = Service(fault=fault)
    service.add("abcd", (0, 1), (3000, 2))
    poisoned, *others = run(for_a_while(2 * HOUR, *(waiting(service, task_id) for task_id in "abcd")))
    assert kinds(poisoned).count(OutageBegan) == kinds(poisoned).count(OutageEnded) <= 2
    assert kinds(poisoned)[-1] is Ended
    for heard in others:
        assert [kind for kind in kinds(heard) if kind is not Changed] == [OutageBegan, OutageEnded, Ended]


@pytest.mark.parametrize("blip", [unavailable, unreachable])
@pytest.mark.parametrize("met_by", [0, 3, 5])
def test_a_list_that_cannot_be_read_for_once_is_no_news_and_costs_a_handful_of_requests(
    blip: Callable[[], ModelArtsError], met_by: int
) -> None:
    """The call that fails is the first, one in the middle, or the first of the second list."""
    lists = itertools.count()
    service = Service(fault=lambda operation: blip() if now() >= 60 and next(lists) == met_by else None)
    names = [f"task {number}" for number in range(500)]
    service.add(names[:450], *FOREVER)
    service.add(names[450:], (0, 0))
    for heard in run(for_a_while(64, *(waiting(service, name) for name in names))):
        assert kinds(heard) == [Changed]
    assert service.count("DescribeProcessorTask") == 0
    assert service.count(since=60) <= 2 * 6


def test_a_list_that_cannot_be_read_for_once_delays_an_end_by_no_more_than_the_second_try() -> None:
    service = Service(fault=lambda operation: unavailable() if is_list(operation) and now() == 60 else None)
    names = [f"task {number}" for number in range(30)]
    service.add(names, (0, 1), (58, 2))
    for heard in run(for_a_while(70, *(waiting(service, name) for name in names))):
        assert kinds(heard) == [Changed, Ended]
        assert 60 < heard[-1][0] <= 60 + plan.SECOND_TRY_DELAY


def test_lists_that_are_out_of_order_do_not_hide_an_end() -> None:
    service = Service(fault=lambda operation: unavailable() if is_list(operation) else None)
    names = [f"task {number}" for number in range(30)]
    service.add(names, (0, 1), (600, 2))
    for heard in run(for_a_while(HOUR, *(waiting(service, name) for name in names))):
        assert kinds(heard) == [Changed, Ended], "poke mode would not notice either"
        assert heard[-1][0] <= 610
    assert service.count("ListProcessorTasks") <= 10, "its pauses grow"


def test_lists_that_were_out_of_order_are_read_again() -> None:
    service = Service(fault=lambda operation: unavailable() if is_list(operation) and now() < HOUR else None)
    names = [f"task {number}" for number in range(30)]
    service.add(names, *FOREVER)
    run(for_a_while(2 * HOUR, *(waiting(service, name) for name in names)))
    asked = [time for time, operation in service.calls if not is_list(operation)]
    assert HOUR - 10 < max(asked) < HOUR + 1.2 * MAX_OUTAGE_DELAY


def test_one_of_the_lists_that_is_out_of_order_leaves_the_other_one_of_use() -> None:
    service = Service(fault=lambda operation: unavailable() if operation.query.get("status") == "0" else None)
    names = [f"task {number}" for number in range(30)]
    service.add(names[:20], *FOREVER)
    service.add(names[20:], (0, 0))
    run(for_a_while(600, *(waiting(service, name) for name in names)))
    assert set(service.asked()) == set(names[20:])


def test_lists_are_read_at_once_when_an_outage_of_everything_ends() -> None:
    service = Service(fault=lambda _: unavailable() if 60 < now() < HOUR else None)
    names = [f"task {number}" for number in range(30)]
    service.add(names, *FOREVER)
    run(for_a_while(2 * HOUR, *(waiting(service, name) for name in names)))
    assert service.count("DescribeProcessorTask", since=HOUR) == 0


def test_an_outage_that_begins_amid_the_lists_costs_few_questions() -> None:
    lists = itertools.count()
    service = Service(fault=lambda _: unavailable() if now() >= 60 and next(lists) else None)
    names = [f"task {number}" for number in range(500)]
    service.add(names, *FOREVER)
    for heard in run(for_a_while(64, *(waiting(service, name) for name in names))):
        assert kinds(heard) == [Changed, OutageBegan]
    assert service.count(since=60) <= 5 + plan.CONCURRENCY


def test_a_second_try_that_is_throttled_is_the_last_one() -> None:
    faults = iter([unavailable(), refusal("APIGW.0308", 429)])
    service = Service(fault=lambda _: next(faults, None) if now() >= 60 else None)
    names = [f"task {number}" for number in range(30)]
    service.add(names, *FOREVER)
    run(for_a_while(64, *(waiting(service, name) for name in names)))
    assert service.count(since=60) == 2


def test_lists_that_ask_for_a_pause_get_it_once_and_hide_no_end() -> None:
    service = Service(fault=lambda operation: refusal(None, 503, retry_after=20) if is_list(operation) else None)
    names = [f"task {number}" for number in range(30)]
    service.add(names, (0, 1), (600, 2))
    for heard in run(for_a_while(HOUR, *(waiting(service, name) for name in names))):
        assert [kind for kind in kinds(heard) if kind is not Changed] == [OutageBegan, OutageEnded, Ended]
        assert heard[-1][0] <= 610
    assert service.times()[:2] == [5, 25]


# Throttling: a gateway that lets so many requests pass at once, and so many a second

THROTTLED = b'{"error_code": "APIGW.0308", "error_msg": "slow down"}'
REFUSALS: dict[str, Callable[[], Response]] = {
    "429": lambda: Response(429, {}, THROTTLED),
    "429 with Retry-After": lambda: Response(429, {"retry-after": "1"}, THROTTLED),
    "429 as a web page": lambda: Response(429, {"content-type": "text/html"}, b"<html>Too Many Requests</html>"),
    "503": lambda: Response(503, {"content-type": "text/html"}, b"<html>Service Unavailable</html>"),
    "503 with Retry-After": lambda: Response(503, {"retry-after": "1"}, b""),
}


def ends_of(heard: list[list[tuple[float, WaitEvent]]]) -> list[float]:
    return [time for each in heard for time, latest in each if isinstance(latest, Ended)]


def outages_of(heard: list[list[tuple[float, WaitEvent]]]) -> list[float]:
    return [time for each in heard for time, latest in each if isinstance(latest, OutageBegan)]


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize(("ended", "running"), [(24, 0), (24, 40), (500, 0)])
def test_tasks_that_ended_together_are_told_about_as_fast_as_the_gateway_permits(
    kind: str, ended: int, running: int
) -> None:
    service = Service()
    names = [f"task {number}" for number in range(ended + running)]
    service.add(names[:ended], (0, 1), (21, 2))
    service.add(names[ended:], *FOREVER)
    gateway = Gateway(service, rate=2, burst=5, refuse=REFUSALS[kind])
    least = gateway.least_seconds(ended)
    heard = run(for_a_while(30 + 2 * least, *(waiting(gateway, name) for name in names)))
    assert len(ends_of(heard)) == ended
    assert max(ends_of(heard)) <= 21 + 5 + 1.5 * least
    assert outages_of(heard) == []
    assert gateway.refused <= 12 + ended / 4, "few requests more than needed"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rate=st.floats(0.5, 50),
    burst=st.integers(1, 60),
    ended=st.integers(1, 120),
    running=st.sampled_from([0, 0, 5, 150]),
    kind=st.sampled_from(sorted(REFUSALS)),
    interval=st.sampled_from([5.0, 5.0, 60.0]),
    latency=st.sampled_from([0.0, 0.02, 0.3]),
)
def test_no_wait_starves_whatever_the_gateway_lets_pass(
    rate: float, burst: int, ended: int, running: int, kind: str, interval: float, latency: float
) -> None:
    service = Service()
    names = [f"task {number}" for number in range(ended + running)]
    service.add(names[:ended], (0, 1), (21, 2))
    service.add(names[ended:], *FOREVER)
    gateway = Gateway(service, rate, burst, REFUSALS[kind], latency=latency)
    # Besides the questions by id, the lists: twice, since the round before may still be under way.
    least = (ended + 6) / rate + latency * ended / plan.CONCURRENCY
    heard = run(for_a_while(21 + 2 * interval + 3 * least + 60, *(waiting(gateway, name, interval) for name in names)))
    assert len(ends_of(heard)) == ended
    blocked = float(gateway.refused) if "Retry-After" in kind else 0.0
    assert max(ends_of(heard)) <= 21 + 1.5 * interval + 2 * least + 10 + blocked
    passed = len(gateway.sent) - gateway.refused
    assert gateway.refused <= 12 + passed / 2


def test_a_gateway_that_refuses_most_requests_at_any_rate_is_no_outage() -> None:
    """As where other processes of the same account use up what it lets pass."""
    calls = itertools.count()
    service = Service()
    gateway = Gateway(service, rate=1000, burst=1000, refuse=REFUSALS["429"])
    gateway.is_open = lambda: next(calls) % 3 == 0
    names = [f"task {number}" for number in range(24)]
    service.add(names, (0, 1), (21, 2))
    heard = run(for_a_while(HOUR, *(waiting(gateway, name) for name in names)))
    assert len(ends_of(heard)) == 24
    assert outages_of(heard) == []
    assert len(gateway.sent) <= 3 * (24 + 2 * 10)


def test_a_task_that_alone_is_throttled_keeps_no_other_from_its_turn() -> None:
    service = Service(
        fault=lambda operation: refusal("APIGW.0308", 429) if operation.path.endswith("/throttled") else None
    )
    service.add(["a", "throttled"], *FOREVER)
    run(for_a_while(600, waiting(service, "a"), waiting(service, "throttled")))
    assert service.asked()["a"] >= 20
    assert service.asked()["throttled"] >= 20


def test_pages_that_were_read_before_a_throttled_one_count() -> None:
    service = Service(
        fault=lambda operation: refusal("APIGW.0308", 429) if operation.query.get("offset") == "2" else None
    )
    names = [f"task {number}" for number in range(250)]
    service.add(names, *FOREVER)
    heard = run(for_a_while(120, *(waiting(service, name) for name in names)))
    assert outages_of(heard) == []
    assert all(kinds(each) == [Changed] for each in heard)
    assert min(service.asked()[name] for name in names[:50]) >= 20, "those on the throttled page are asked for by id"
    assert set(service.asked()) == set(names[:50]), "those on the pages before are not"


def test_lists_are_read_to_their_end_at_the_rate_of_the_gateway() -> None:
    service = Service()
    names = [f"task {number}" for number in range(500)]
    service.add(names, *FOREVER)
    gateway = Gateway(service, rate=1, burst=2, refuse=REFUSALS["429"])
    heard = run(for_a_while(900, *(waiting(gateway, name, 10) for name in names)))
    assert outages_of(heard) == []
    assert all(kinds(each) == [Changed] for each in heard)
    assert gateway.refused <= 900 / 8


@pytest.mark.parametrize("kind", ["429", "503"])
def test_projects_of_one_connection_share_its_rate(kind: str) -> None:
    service = Service()
    gateway = Gateway(service, rate=2, burst=5, refuse=REFUSALS[kind])
    names = [f"task {number}" for number in range(60)]
    service.add(names, (0, 1), (21, 2))

    def wait_in_its_project(number: int) -> AsyncGenerator[WaitEvent, None]:
        project_id = f"project {number % 3}"
        key = ("conn", project_id)
        return watch(key, lambda: gateway.open(project_id), Target(names[number]), interval=5.0)

    heard = run(for_a_while(90, *map(wait_in_its_project, range(60))))
    assert len(ends_of(heard)) == 60
    assert max(ends_of(heard)) <= 21 + 5 + 1.5 * gateway.least_seconds(60)
    assert outages_of(heard) == []


@pytest.mark.parametrize("waits", [1, 24])
@pytest.mark.parametrize("kind", ["429", "503"])
def test_an_outage_between_two_throttled_rounds_leaves_no_slow_rate_behind(kind: str, waits: int) -> None:
    service = Service()
    gateway = Gateway(service, rate=2, burst=5, refuse=REFUSALS[kind])
    gateway.is_open = lambda: not 100 <= now() < 1300
    names = [f"task {number}" for number in range(waits)]
    service.add(names, (0, 1), (50, 0), (600, 2))
    heard = run(for_a_while(3000, *(waiting(gateway, name) for name in names)))
    for each in heard:
        assert [each for each in kinds(each) if each is not Changed] == [OutageBegan, OutageEnded, Ended]
    recovered = min(time for time, passed in gateway.sent if passed and time >= 1300)
    assert recovered <= 1300 + 1.2 * MAX_OUTAGE_DELAY
    assert max(ends_of(heard)) <= recovered + 5 + 2 * gateway.least_seconds(waits)


def test_an_outage_that_begins_while_requests_are_paced_is_told_soon() -> None:
    service = Service()
    gateway = Gateway(service, rate=2, burst=5, refuse=REFUSALS["429"])
    gateway.is_open = lambda: now() < 30
    names = [f"task {number}" for number in range(100)]
    service.add(names, (0, 1), (21, 2))
    heard = run(for_a_while(300, *(waiting(gateway, name) for name in names)))
    assert 0 < len(outages_of(heard)) <= 100 - len(ends_of(heard))
    assert max(outages_of(heard)) <= 120
    assert sum(time >= 40 for time, _ in gateway.sent) <= 40


def test_a_key_that_is_refused_while_requests_are_paced_ends_the_waits() -> None:
    service = Service()
    denied = Response(401, {}, b'{"error_code": "APIGW.0301", "error_msg": "no"}')
    gateway = Gateway(service, rate=2, burst=5, refuse=lambda: REFUSALS["429"]() if now() < 30 else denied)
    gateway.is_open = lambda: now() < 30
    names = [f"task {number}" for number in range(100)]
    service.add(names, (0, 1), (21, 2))

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(collect(waiting(gateway, name)) for name in names), return_exceptions=True)

    refused = [end for end in run(all_of_them()) if isinstance(end, BaseException)]
    assert refused
    assert {type(error) for error in refused} == {ModelArtsAuthenticationError}
    assert sum(time >= 30 for time, _ in gateway.sent) <= 4 * plan.CONCURRENCY


def test_a_poll_of_the_event_trigger_and_the_waits_share_the_rate() -> None:
    service = Service()
    gateway = Gateway(service, rate=2, burst=5, refuse=REFUSALS["429"])
    service.add([f"foreign {number}" for number in range(400)], *FOREVER)
    names = [f"task {number}" for number in range(24)]
    service.add(names, (0, 1), (21, 2))
    seen: list[float] = []

    async def poll() -> None:
        async with aclosing(poll_snapshots(gateway.open(), 30.0)) as stream:
            async for _ in stream:
                seen.append(now())

    async def both() -> list[list[tuple[float, WaitEvent]]]:
        polling = asyncio.create_task(poll())
        heard = await for_a_while(300, *(waiting(gateway, name) for name in names))
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        return heard

    heard = run(both())
    assert len(ends_of(heard)) == 24
    assert outages_of(heard) == []
    assert len(seen) >= 6


def test_a_gateway_that_does_not_throttle_costs_no_request_more() -> None:
    def count(through_a_gateway: bool) -> int:
        service = Service()
        names = [f"task {number}" for number in range(500)]
        service.add(names[:480], *FOREVER)
        service.add(names[480:], (0, 1), (60, 2))
        gateway = Gateway(service, rate=10000, burst=10000, refuse=REFUSALS["429"], latency=0.0)
        run(for_a_while(300, *(waiting(gateway if through_a_gateway else service, name) for name in names)))
        return len(gateway.sent) if through_a_gateway else service.count()

    # A poll that is due at the very end may be in or not.
    assert count(through_a_gateway=True) <= count(through_a_gateway=False) + 1


# What waiting cannot mend


def test_an_unknown_id_ends_that_wait_alone() -> None:
    service = Service()
    service.add("abc", (0, 1), (60, 2))

    async def all_of_them() -> list[Any]:
        waits = (collect(waiting(service, task_id)) for task_id in ["a", "b", "c", "unknown"])
        return await asyncio.gather(*waits, return_exceptions=True)

    *known, unknown = run(all_of_them())
    assert isinstance(unknown, ModelArtsNotFoundError)
    assert [kinds(heard) for heard in known] == [[Changed, Ended]] * 3


@pytest.mark.parametrize("value", ["", ".", None, 7, ["a", "b"], {"task_id": "a"}])
def test_what_is_no_id_is_refused_before_anything_is_opened(value: Any) -> None:
    service = Service()
    with pytest.raises(ModelArtsRequestError, match="is not the id of a processing task"):
        run(collect(waiting(service, value)))
    assert service.opened == 0


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("APIGW.0301", 401, ModelArtsAuthenticationError),
        (None, 403, ModelArtsAuthenticationError),
        ("ModelArts.0210", 400, ModelArtsConfigurationError),
    ],
)
@pytest.mark.parametrize("waits", [1, 2, 200])
def test_a_refused_connection_ends_all_its_waits_after_few_calls(
    code: str | None, status: int, kind: type[ModelArtsError], waits: int
) -> None:
    service = Service(latency=0.1, fault=lambda _: refusal(code, status) if now() > 20 else None)
    names = [f"task {number}" for number in range(waits)]
    service.add(names, *FOREVER)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(collect(waiting(service, name)) for name in names), return_exceptions=True)

    ends = run(all_of_them())
    assert [type(end) for end in ends] == [kind] * waits
    assert len({id(end) for end in ends}) == waits, "each its own, since raising changes an exception"
    assert service.count(since=20) <= 2 + plan.CONCURRENCY
    assert (service.opened, service.closed) == (1, 1)


def test_who_joins_once_the_connection_is_mended_waits_with_the_new_one() -> None:
    broken, mended = Service(fault=lambda _: refusal("ModelArts.0210", 400)), Service()
    mended.add("ab", (0, 1), (100, 2))

    async def join_when_refused() -> list[tuple[float, WaitEvent]]:
        refused = waiting(broken, "a")
        with pytest.raises(ModelArtsConfigurationError):
            await anext(refused)
        # Another one has not noticed yet, so the watcher that gave up has not been closed.
        return await collect(waiting(mended, "b"))

    async def both() -> list[Any]:
        lingering = waiting(broken, "a", 5)
        task = asyncio.create_task(collect(lingering))
        heard = await join_when_refused()
        return [heard, *await asyncio.gather(task, return_exceptions=True)]

    heard, error = run(both())
    assert kinds(heard) == [Changed, Ended]
    assert isinstance(error, ModelArtsConfigurationError)
    assert (broken.opened, broken.closed, mended.opened, mended.closed) == (1, 1, 1, 1)


def test_a_watcher_that_gave_up_takes_nobody_in() -> None:
    broken, mended = Service(fault=lambda _: refusal("ModelArts.0210", 400)), Service()
    mended.add("b", (0, 2))

    async def join_before_the_first_has_read_its_error() -> list[tuple[float, WaitEvent]]:
        listeners = [asyncio.create_task(anext(waiting(broken, "a"))) for _ in range(3)]
        await asyncio.sleep(0)
        unread = waiting(broken, "a")
        task = asyncio.create_task(anext(unread))
        await asyncio.gather(*listeners, return_exceptions=True)
        heard = await collect(waiting(mended, "b"))
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], ModelArtsConfigurationError)
        return heard

    assert kinds(run(join_before_the_first_has_read_its_error())) == [Ended]


@pytest.mark.parametrize("code", ["ModelArts.0203", "ModelArts.0206"])
def test_credentials_that_are_refused_as_403_concern_every_wait(code: str) -> None:
    service = Service(fault=lambda _: refusal(code, 403))
    service.add("abc", (0, 1), (60, 2))

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(collect(waiting(service, each)) for each in "abc"), return_exceptions=True)

    assert [type(heard) for heard in run(all_of_them())] == [ModelArtsAuthenticationError] * 3
    assert sum(not is_list(operation) for _, operation in service.calls) == 1


def test_permissions_that_lack_for_one_task_end_that_wait_alone() -> None:
    service = Service(fault=lambda operation: refusal(None, 403) if operation.path.endswith("/a") else None)
    service.add("abc", (0, 1), (60, 2))

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(collect(waiting(service, each)) for each in "abc"), return_exceptions=True)

    # The task is listed, and so waited for, until it ends: only then it is asked for by id.
    refused, *others = run(all_of_them())
    assert isinstance(refused, ModelArtsAuthenticationError)
    assert [kinds(heard) for heard in others] == [[Changed, Ended]] * 2


@pytest.mark.parametrize("answer", [(None, 403), ("ModelArts.0102", 400)])
def test_where_lists_are_forbidden_it_asks_by_id(answer: tuple[str | None, int]) -> None:
    service = Service(fault=lambda operation: refusal(*answer) if is_list(operation) else None)
    names = [f"task {number}" for number in range(20)]
    service.add(names, (0, 1), (600, 3))
    for heard in run(for_a_while(2 * HOUR, *(waiting(service, name) for name in names))):
        assert kinds(heard) == [Changed, Ended]
    assert service.count("ListProcessorTasks") == 1


def test_a_list_that_was_forbidden_is_tried_again_some_day() -> None:
    service = Service(fault=lambda operation: refusal(None, 403) if is_list(operation) and now() < 90 else None)
    names = [f"task {number}" for number in range(20)]
    service.add(names, *FOREVER)
    run(for_a_while(3 * HOUR, *(waiting(service, name, 60) for name in names)))
    assert service.count(since=3 * HOUR - 601) <= 21


def test_a_forbidden_list_of_one_workspace_leaves_the_others_alone() -> None:
    service = Service(
        fault=lambda operation: refusal("ModelArts.0102", 400) if operation.query.get("workspace_id") == "w" else None
    )
    service.add("abcde", *FOREVER, workspace_id="w")
    service.add("fghij", *FOREVER)
    run(for_a_while(600, *(waiting(service, task_id) for task_id in "abcdefghij")))
    assert {task_id for task_id, count in service.asked().items() if count > 2} == set("abcde")


class StubbornError(Exception):
    """It cannot be made from its ``args``, and so it cannot be copied."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


@pytest.mark.parametrize("defect", [RuntimeError("a defect"), StubbornError(reason="a defect")])
@pytest.mark.parametrize("where", ["ListProcessorTasks", "DescribeProcessorTask"])
def test_a_defect_ends_the_waits_rather_than_let_them_hang(defect: Exception, where: str) -> None:
    service = Service(latency=0.1, fault=lambda operation: defect if operation.name == where and now() > 20 else None)
    names = [f"task {number}" for number in range(40)]
    service.add(names, (0, 1), (30, 2))

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(collect(waiting(service, name)) for name in names), return_exceptions=True)

    ends = run(all_of_them())
    assert {type(end) for end in ends} == {type(defect)}
    assert all(end.__traceback__ for end in ends)
    assert service.count(where, since=20) <= 1 + plan.CONCURRENCY


# Coming and going


def test_the_last_one_out_closes_and_who_comes_then_opens_anew() -> None:
    service = Service()
    service.add("ab", (0, 1), (20, 2), (30, 1), (50, 2))

    async def one_after_the_other() -> None:
        await asyncio.gather(collect(waiting(service, "a")), collect(waiting(service, "b"), after=3))
        assert (service.opened, service.closed) == (1, 1)
        await asyncio.sleep(10)
        await collect(waiting(service, "a"))
        assert (service.opened, service.closed) == (2, 2)

    run(one_after_the_other())


def test_another_connection_has_a_watcher_of_its_own() -> None:
    service = Service()
    service.add("ab", (0, 2))

    async def both() -> None:
        await asyncio.gather(collect(waiting(service, "a", key="one")), collect(waiting(service, "b", key="two")))

    run(both())
    assert (service.opened, service.closed) == (2, 2)


def test_leaving_early_frees_everything() -> None:
    service = Service(latency=1.0)
    service.add("ab", *FOREVER)

    async def leave() -> None:
        first = waiting(service, "a")
        assert await anext(first) == Changed(1)
        second = asyncio.create_task(collect(waiting(service, "b")))
        await asyncio.sleep(12)
        await first.aclose()
        assert service.closed == 0
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert service.closed == 1

    run(leave())


@pytest.mark.parametrize("after", [0.0, 5.0, 5.3, 5.7])
def test_a_cancelled_wait_leaves_nothing_behind_whatever_it_was_doing(after: float) -> None:
    service = Service(latency=0.5)
    names = [f"task {number}" for number in range(20)]
    service.add(names, (0, 2))
    run(for_a_while(after, *(waiting(service, name, 5) for name in names)))
    assert service.opened == service.closed


def test_who_is_cancelled_again_while_it_closes_still_closes() -> None:
    service = Service()
    service.add("a", *FOREVER)

    async def cancel_twice() -> None:
        listener = asyncio.create_task(collect(waiting(service, "a")))
        await asyncio.sleep(7)
        listener.cancel()
        await asyncio.sleep(0)
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        assert service.closed == 1

    run(cancel_twice())


def test_who_does_not_listen_does_not_hold_the_others_up() -> None:
    service = Service()
    service.add("ab", (0, 1), (60, 2))

    async def one_sleeps() -> list[tuple[float, WaitEvent]]:
        sleeper = waiting(service, "a")
        await anext(sleeper)
        heard = await collect(waiting(service, "b"))
        assert [latest async for latest in sleeper] == [Ended(2)]
        return heard

    assert kinds(run(one_sleeps())) == [Changed, Ended]


def test_each_event_loop_has_a_watcher_of_its_own() -> None:
    service = Service()
    service.add("ab", (0, 1), (60, 2))

    async def wait_and_start_another_loop() -> None:
        events = waiting(service, "a", 0.1)
        await anext(events)
        await asyncio.to_thread(run, collect(waiting(service, "b")))
        await events.aclose()

    asyncio.run(asyncio.wait_for(wait_and_start_another_loop(), 30))
    assert (service.opened, service.closed) == (2, 2)


def test_a_watcher_logs_and_runs_in_nobodys_context() -> None:
    """The triggerer routes a log line by context variables, and the watcher works for all."""
    import contextvars

    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")
    seen: set[str] = set()
    service = Service(fault=lambda _: seen.add(whose.get()))
    service.add("a", (0, 2))

    async def wait_in_a_context() -> None:
        whose.set("the first one's")
        await collect(waiting(service, "a"))

    run(wait_in_a_context())
    assert seen == {"nobody's"}


READABLE = [
    b'{"task_id": "a", "status": 1, "workspace_id": "w", "name": "n", "inputs": [], "extra": 1}',
    b'{"task_id": "a", "status": "2", "workspace_id": 0}',
    b'{"task_id": "a", "result": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    b'\xef\xbb\xbf{"task_id": "a", "status": 1e400, "name": "\\ud83d"}',
    b'{"task_id": "a", "status": null, "result": {"number": NaN}}',
    b'{"task_id": "a", "status": 9, "status": 2.0, "result": "[1, 2"}',
]
UNREADABLE = [
    b"",
    b"null",
    b"[]",
    b"<html>",
    b'{"task_id": "a"',
    b'{"task_id": "a"} more',
    b'{"hello": "world"}',
    b'{"task_id": null, "status": 2}',
    b'{"task_id": "a", "status": "done"}',
    b'{"task_id": "a", "status": 2.5}',
    b'{"task_id": "a", "workspace_id": {}}',
    b'{"task_id": "a", "name": "\xff"}',
    b'{"task_id": "b", "status": 2}',
]


@pytest.mark.parametrize("body", READABLE)
def test_an_answer_means_the_same_to_a_wait_as_to_a_worker(body: bytes) -> None:
    whole, standing = describe_processor_task("a").read(body), target_status.describe_status(Target("a")).read(body)
    assert standing.model_dump() == {name: getattr(whole, name) for name in ("task_id", "status", "workspace_id")}


@pytest.mark.parametrize("body", UNREADABLE)
def test_what_is_no_answer_to_a_worker_is_none_to_a_wait(body: bytes) -> None:
    for operation in (describe_processor_task("a"), target_status.describe_status(Target("a"))):
        with pytest.raises(ValueError, match=r"."):
            operation.read(body)


def test_a_result_is_not_made_into_python_in_a_triggerer() -> None:
    size = 2_000_000
    body = b'{"task_id": "a", "status": 2, "result": [' + b"1.5," * (size // 4) + b"1]}"
    tracemalloc.start()
    try:
        target_status.describe_status(Target("a")).read(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < size / 10
