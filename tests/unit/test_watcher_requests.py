"""How many requests the waits of a triggerer cost."""

import asyncio
import sys
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_modelarts.polling import watcher
from airflow_modelarts.polling.wait import Changed, Ended, Wait
from tests.support.event_collection import FOREVER, HOUR, Timed, collect, collect_for, kinds, names, run_for, watch
from tests.support.virtual import run
from tests.support.virtual_service import DESCRIBE, LIST, PAGE, Service, error_response


def test_one_or_two_waits_are_read_by_id_only() -> None:
    service = Service()
    service.add(["a", "b"], *FOREVER)
    run_for(HOUR, service, "ab")
    assert service.count(LIST) == 0
    assert service.count() <= 2 * HOUR / 5


def test_five_hundred_waits_take_few_requests() -> None:
    service = Service(latency=0.01)
    service.add(names(500)[:300], *FOREVER)
    service.add(names(500)[300:], (0, 0))
    run_for(300, service, names(500))
    assert service.count() / 500 / 5 <= 0.2, "requests per wait and minute"
    assert service.count(DESCRIBE) == 0


@settings(max_examples=15, deadline=None)
@given(
    waits=st.integers(1, 260), foreign=st.integers(0, 600), initialized=st.integers(0, 100), newest_first=st.booleans()
)
def test_a_round_never_takes_many_more_requests_than_reading_each_target_by_id(
    waits: int, foreign: int, initialized: int, newest_first: bool
) -> None:
    service = Service()
    mine, others = names(waits), names(foreign, "foreign")
    # The newest task comes first in a list.
    service.add([*others, *mine] if newest_first else [*mine, *others], *FOREVER)
    service.add(names(initialized, "initialized"), (0, 0))
    rounds = 20
    run_for(rounds * 5 + 1, service, mine)
    pages = -(-(waits + foreign) // PAGE) + max(1, -(-initialized // PAGE))
    # Some rounds check whether the lists have become shorter; the estimate of an empty list is one page.
    assert service.count() <= rounds * (min(waits, pages + 1) + 1)


def test_a_list_that_has_become_shorter_is_read_again() -> None:
    service = Service()
    service.add(names(1000, "foreign"), (0, 1), (60, 2))
    service.add(names(9), *FOREVER)
    run_for(600, service, names(9))
    assert service.count(DESCRIBE) > 0, "the list is too long at first"
    assert service.count(since=600 - 61) <= 12 * 2


def test_a_fast_wait_does_not_speed_up_a_slow_one() -> None:
    service = Service()
    service.add(["slow", "fast"], *FOREVER)

    async def watch_both() -> list[Timed]:
        return await collect_for(HOUR, watch(service, "slow", 60), watch(service, "fast", 5))

    run(watch_both())
    assert service.described()["fast"] in range(700, 721)
    assert service.described()["slow"] <= HOUR / 30


def test_waits_that_join_at_different_times_come_to_share_their_rounds() -> None:
    service = Service()
    service.add(names(50), *FOREVER)

    async def join_one_by_one() -> None:
        async def read(number: int) -> None:
            await asyncio.sleep(number * 0.77)
            await collect_for(300, watch(service, f"task {number}"))

        await asyncio.gather(*map(read, range(50)))

    run(join_one_by_one())
    later = [time for time in service.times() if 100 < time < 250]
    assert len(later) <= 150 / 5 + 1


def test_a_wait_without_an_interval_does_not_flood_the_service() -> None:
    service = Service()
    service.add(["a"], *FOREVER)
    run_for(60, service, ["a"], interval=0)
    assert service.count() <= 60 / watcher.MIN_INTERVAL


def test_a_wait_that_joins_examines_none_of_the_others() -> None:
    service = Service()
    service.add(names(4000), *FOREVER)
    examined = 0

    class CountingWatcher(watcher.Watcher):
        def _open_waits(self) -> list[Wait]:
            nonlocal examined
            examined += 1
            return super()._open_waits()

    async def join_one_by_one() -> None:
        readers = []
        for name in names(4000):
            readers.append(asyncio.create_task(collect(watch(service, name, 60, poll_at_once=True))))
            await asyncio.sleep(0)  # as the triggerer does
        examined_by_joining = examined
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        assert examined_by_joining < 10

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watcher, "Watcher", CountingWatcher)
        run(join_one_by_one())


def test_a_round_makes_few_python_calls_for_each_wait() -> None:
    def calls(count: int) -> int:
        """Return the calls of functions of this package while ``count`` tasks are polled ten times."""
        service = Service()
        service.add(names(count), *FOREVER)
        made = 0

        def note(frame: FrameType, event: str, _: object) -> None:
            nonlocal made
            made += event == "call" and "airflow_modelarts" in frame.f_code.co_filename

        async def poll_ten_times() -> None:
            polling = asyncio.create_task(collect_for(60, *(watch(service, name) for name in names(count))))
            await asyncio.sleep(8)
            sys.setprofile(note)
            await asyncio.sleep(50)
            sys.setprofile(None)
            await polling

        run(poll_ten_times())
        return made

    assert calls(300) - calls(100) <= 10 * 200 * 6


def test_a_task_of_another_workspace_is_looked_up_in_the_lists_of_that_workspace() -> None:
    service = Service()
    service.add("abcde", *FOREVER, workspace_id="w")
    run_for(61, service, "abcde")
    assert service.described() == dict.fromkeys("abcde", 1), "the first answer by id has the workspace"
    assert {call.query["workspace_id"] for call in service.calls[-2:]} == {"w"}


def test_a_known_workspace_saves_the_first_requests_by_id() -> None:
    service = Service()
    service.add("abcde", *FOREVER, workspace_id="w")

    async def watch_all() -> list[Timed]:
        return await collect_for(61, *(watch(service, task_id, workspace_id="w") for task_id in "abcde"))

    run(watch_all())
    assert service.described() == {}


# Lists that are forbidden


@pytest.mark.parametrize(("status", "code"), [(403, None), (400, "ModelArts.0102")])
def test_tasks_are_read_by_id_where_lists_are_forbidden(status: int, code: str | None) -> None:
    service = Service(fault=lambda call: error_response(status, code) if call.is_list else None)
    service.add(names(20), (0, 1), (600, 3))
    waits = run_for(2 * HOUR, service, names(20))
    assert {tuple(kinds(events)) for events in waits} == {(Changed, Ended)}
    assert service.count(LIST) == 1


def test_a_forbidden_list_is_tried_again_after_an_hour() -> None:
    service = Service(fault=lambda call: error_response(403) if call.is_list and call.time < 90 else None)
    service.add(names(20), *FOREVER)
    run_for(3 * HOUR, service, names(20), interval=60)
    assert service.count(since=3 * HOUR - 601) <= 21


def test_a_forbidden_list_of_one_workspace_leaves_the_other_lists_in_use() -> None:
    service = Service(
        fault=lambda call: error_response(400, "ModelArts.0102") if call.query.get("workspace_id") == "w" else None
    )
    service.add("abcde", *FOREVER, workspace_id="w")
    service.add("fghij", *FOREVER)
    run_for(600, service, "abcdefghij")
    assert {task_id for task_id, count in service.described().items() if count > 2} == set("abcde")
