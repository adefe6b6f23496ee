"""How the waits of a triggerer get through outages: of everything, of the lists, and of a single task."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from airflow_modelarts.polling import plan
from airflow_modelarts.polling.outage import MAX_OUTAGE_DELAY
from airflow_modelarts.polling.wait import Changed, Ended, OutageBegan, OutageEnded
from tests.support.event_collection import (
    FOREVER,
    HOUR,
    Timed,
    collect,
    collect_for,
    end_times,
    kinds,
    names,
    outage_times,
    run_for,
    watch,
)
from tests.support.virtual import now, run
from tests.support.virtual_service import (
    DESCRIBE,
    LIST,
    Call,
    Service,
    error_response,
    throttled,
    unavailable,
    unreachable,
)


def without_changes(events: Timed) -> list[Any]:
    return [kind for kind in kinds(events) if kind is not Changed]


# Of everything


@pytest.mark.parametrize("error", [unavailable, unreachable, throttled])
@pytest.mark.parametrize("waits", [1, 2, 30])
def test_an_outage_is_waited_out_and_has_an_event_at_its_begin_and_end(error: Callable[[], Any], waits: int) -> None:
    service = Service(fault=lambda _: error() if 20 <= now() < 1200 else None)
    service.add(names(waits), (0, 1), (1000, 2))
    for events in run_for(HOUR, service, names(waits)):
        assert kinds(events) == [Changed, OutageBegan, OutageEnded, Ended]
        assert events[-1][0] <= 1200 + 1.2 * MAX_OUTAGE_DELAY


@pytest.mark.parametrize("waits", [1, 40])
def test_the_delays_of_an_outage_grow_with_jitter_up_to_a_maximum(waits: int) -> None:
    service = Service(fault=lambda _: unreachable())
    run_for(5 * HOUR, service, names(waits))
    times = service.times()
    delays = [later - earlier for earlier, later in itertools.pairwise(times)]
    if waits > 2:
        assert delays.pop(0) <= plan.SECOND_TRY_DELAY, "the second try comes before the outage is known"
    for delay, expected in zip(delays, [5, 10, 20, 40, 80, 160] + [300] * 60, strict=False):
        assert 0.8 * expected <= delay <= 1.2 * expected
    assert len(set(delays)) == len(delays), "no jitter"
    assert service.count() <= len(times) * (2 + 2 * plan.CONCURRENCY), "not one request a wait"


@pytest.mark.parametrize(("retry_after", "delay"), [(90, 90), (5000, MAX_OUTAGE_DELAY)])
def test_retry_after_is_honoured_up_to_the_longest_delay(retry_after: int, delay: float) -> None:
    error = error_response(429, "APIGW.0308", retry_after=str(retry_after))
    service = Service(fault=lambda _: error if now() < 6 else None)
    service.add(["a"], (0, 2))
    assert run(collect(watch(service, "a")))[-1] == (5 + delay, Ended(2))


def test_throttling_of_everything_costs_few_requests() -> None:
    service = Service(fault=lambda _: throttled())
    service.add(names(60), *FOREVER)
    run_for(HOUR, service, names(60))
    assert service.count() <= 2 * 18
    assert service.count(DESCRIBE) <= service.count(LIST)


def test_throttling_in_the_middle_of_a_round_stops_it() -> None:
    answers = iter(range(10))
    service = Service(latency=0.1, fault=lambda call: None if call.is_list or next(answers, None) else throttled())
    service.add(names(200), (0, 2))
    run_for(8, service, names(200))
    assert service.count(DESCRIBE) <= 10 + 2 * plan.CONCURRENCY


def test_a_wait_that_joins_during_an_outage_gets_its_begin_and_end() -> None:
    service = Service(fault=lambda _: unavailable() if now() < 300 else None)
    service.add("ab", (0, 1), (1000, 2))

    async def join_one_by_one() -> list[Timed]:
        return await asyncio.gather(collect(watch(service, "a")), collect(watch(service, "b"), after=100))

    for events in run(join_one_by_one()):
        assert without_changes(events) == [OutageBegan, OutageEnded, Ended]
        assert kinds(events).count(Changed) == 1


def test_an_outage_goes_on_when_the_only_wait_that_is_due_leaves() -> None:
    service = Service(fault=lambda _: unavailable())

    async def leave_during_the_outage() -> Timed:
        leaving = asyncio.create_task(collect_for(200, watch(service, "a")))
        await asyncio.sleep(100)
        (events,) = await collect_for(300, watch(service, "b", 1000))
        await leaving
        return events

    assert kinds(run(leave_during_the_outage())) == [OutageBegan]
    assert service.times()[-1] < 200


def test_an_outage_that_begins_amid_the_lists_costs_few_requests() -> None:
    lists = itertools.count()
    service = Service(fault=lambda _: unavailable() if now() >= 60 and next(lists) else None)
    service.add(names(500), *FOREVER)
    for events in run_for(64, service, names(500)):
        assert kinds(events) == [Changed, OutageBegan]
    assert service.count(since=60) <= 5 + plan.CONCURRENCY


def test_the_lists_are_read_at_once_when_an_outage_of_everything_ends() -> None:
    service = Service(fault=lambda _: unavailable() if 60 < now() < HOUR else None)
    service.add(names(30), *FOREVER)
    run_for(2 * HOUR, service, names(30))
    assert service.count(DESCRIBE, since=HOUR) == 0


# Of a single task


@pytest.mark.parametrize("others", [1, 2, 12])
@pytest.mark.parametrize("lists", [True, False])
def test_a_single_task_that_cannot_be_read_does_not_delay_the_others(others: int, lists: bool) -> None:
    def fault(call: Call) -> Any:
        if call.is_list:
            return None if lists else error_response(403)
        return unavailable() if call.task_id == "broken" else None

    service = Service(fault=fault)
    service.add(names(others), (0, 1), (1000, 2))
    service.add(["broken"], (0, 2))
    broken, *healthy = run_for(1800, service, ["broken", *names(others)])
    assert kinds(broken) == [OutageBegan]
    for events in healthy:
        assert kinds(events) == [Changed, Ended]
        assert events[-1][0] <= 1010
    assert service.described()["broken"] < 25, "its delays grow"


def test_a_task_that_cannot_be_read_for_a_time_ends_its_wait_later() -> None:
    service = Service(fault=lambda call: unavailable() if call.task_id == "a" and 10 < now() < 100 else None)
    service.add("ab", (0, 1), (400, 2))
    first, second = run_for(HOUR, service, "ab")
    assert kinds(first) == [Changed, OutageBegan, OutageEnded, Ended]
    assert kinds(second) == [Changed, Ended]


def test_a_fast_wait_for_a_task_that_cannot_be_read_does_not_delay_a_slow_one() -> None:
    service = Service(fault=lambda call: unavailable() if call.task_id == "a" else None)
    service.add("ab", (0, 1), (2000, 2))

    async def watch_both() -> list[Timed]:
        return await collect_for(HOUR, watch(service, "a", 5), watch(service, "b", 60))

    broken, healthy = run(watch_both())
    assert kinds(broken) == [OutageBegan]
    assert kinds(healthy) == [Changed, Ended]
    assert healthy[-1][0] <= 2120


def test_an_outage_of_the_service_and_one_of_a_single_task_have_one_event_each() -> None:
    def fault(call: Call) -> Any:
        return unavailable() if 500 < now() < 900 or (call.task_id == "a" and now() < 2000) else None

    service = Service(fault=fault)
    service.add("abcd", (0, 1), (3000, 2))
    broken, *healthy = run_for(2 * HOUR, service, "abcd")
    assert kinds(broken).count(OutageBegan) == kinds(broken).count(OutageEnded) <= 2
    assert kinds(broken)[-1] is Ended
    for events in healthy:
        assert without_changes(events) == [OutageBegan, OutageEnded, Ended]


# Of the lists


@pytest.mark.parametrize("error", [unavailable, unreachable])
@pytest.mark.parametrize("failing_call", [0, 3, 5])
def test_one_failure_of_a_list_has_no_event_and_costs_little(error: Callable[[], Any], failing_call: int) -> None:
    """The call that fails is the first, one in the middle, or the first of the second list."""
    lists = itertools.count()
    service = Service(fault=lambda _: error() if now() >= 60 and next(lists) == failing_call else None)
    service.add(names(500)[:450], *FOREVER)
    service.add(names(500)[450:], (0, 0))
    for events in run_for(64, service, names(500)):
        assert kinds(events) == [Changed]
    assert service.count(DESCRIBE) == 0
    assert service.count(since=60) <= 2 * 6


def test_a_single_failure_of_a_list_delays_an_end_by_the_second_try_at_most() -> None:
    service = Service(fault=lambda call: unavailable() if call.is_list and now() == 60 else None)
    service.add(names(30), (0, 1), (58, 2))
    for events in run_for(70, service, names(30)):
        assert kinds(events) == [Changed, Ended]
        assert 60 < events[-1][0] <= 60 + plan.SECOND_TRY_DELAY


def test_a_throttled_second_try_of_the_lists_is_the_last() -> None:
    faults = iter([unavailable(), throttled()])
    service = Service(fault=lambda _: next(faults, None) if now() >= 60 else None)
    service.add(names(30), *FOREVER)
    run_for(64, service, names(30))
    assert service.count(since=60) == 2


def test_lists_that_cannot_be_read_do_not_hide_an_end() -> None:
    service = Service(fault=lambda call: unavailable() if call.is_list else None)
    service.add(names(30), (0, 1), (600, 2))
    for events in run_for(HOUR, service, names(30)):
        assert kinds(events) == [Changed, Ended], "a worker reads no lists and has no outage either"
        assert events[-1][0] <= 610
    assert service.count(LIST) <= 10, "their delays grow"


def test_lists_are_read_again_when_their_outage_is_over() -> None:
    service = Service(fault=lambda call: unavailable() if call.is_list and now() < HOUR else None)
    service.add(names(30), *FOREVER)
    run_for(2 * HOUR, service, names(30))
    described_last = max(call.time for call in service.calls if not call.is_list)
    assert HOUR - 10 < described_last < HOUR + 1.2 * MAX_OUTAGE_DELAY


def test_one_list_that_cannot_be_read_leaves_the_other_in_use() -> None:
    service = Service(fault=lambda call: unavailable() if call.query.get("status") == "0" else None)
    service.add(names(30)[:20], *FOREVER)
    service.add(names(30)[20:], (0, 0))
    run_for(600, service, names(30))
    assert set(service.described()) == set(names(30)[20:])


def test_lists_that_ask_for_a_pause_get_it_once_and_do_not_hide_an_end() -> None:
    service = Service(fault=lambda call: error_response(503, retry_after="20") if call.is_list else None)
    service.add(names(30), (0, 1), (600, 2))
    for events in run_for(HOUR, service, names(30)):
        assert without_changes(events) == [OutageBegan, OutageEnded, Ended]
        assert events[-1][0] <= 610
    assert service.times()[:2] == [5, 25]


def test_no_request_by_id_follows_the_first_throttled_list() -> None:
    service = Service(fault=lambda call: throttled() if call.is_list else None)
    service.add(names(50), *FOREVER)
    run_for(9, service, names(50))
    assert (service.count(), service.count(DESCRIBE)) == (1, 0)


def test_throttled_lists_do_not_hide_an_end() -> None:
    """A gateway may throttle each API separately while another program reads the same lists."""
    service = Service(fault=lambda call: throttled() if call.is_list else None)
    service.add(names(60)[:20], (0, 1), (100, 2))
    service.add(names(60)[20:], *FOREVER)
    waits = run_for(600, service, names(60))
    assert len(end_times(waits)) == 20
    assert max(end_times(waits)) <= 106
    assert max(outage_times(waits)) <= 6, "only the lists fail"
    assert service.count(LIST, since=20) <= 10
