"""Asset watchers over hours: shared requests, outages, checkpoints and clocks."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_modelarts import event_trigger
from airflow_modelarts.api.http import Response
from airflow_modelarts.event_trigger import BURST
from airflow_modelarts.polling import snapshots
from airflow_modelarts.polling.checkpoint_store import INDEX, SENT_AFTER, UNUSED_AFTER
from tests.support.virtual import now, run, use_virtual_time
from tests.support.virtual_runs import FOREVER, Fanout, Run, RunService
from tests.support.virtual_service import DESCRIBE, Call, error_response, unavailable
from tests.support.watchers import INTERVAL, FakeStateStore, emit, emit_for, new_trigger, polls_of

HOUR, DAY = 3600.0, 86400.0


@pytest.fixture(autouse=True)
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    use_virtual_time(monkeypatch, event_trigger, snapshots)


def ids(payloads: list[dict[str, Any]]) -> list[str]:
    return [payload["task_id"] for payload in payloads]


async def watch_all(
    service: RunService, seconds: float, filters: list[dict[str, Any]], stores: list[FakeStateStore] | None = None
) -> list[list[dict[str, Any]]]:
    """Run watchers that share one poll for some time; return the events of each."""
    shared: Fanout = Fanout(lambda: polls_of(service))
    events: list[list[tuple[float, dict[str, Any]]]] = [[] for _ in filters]
    watching = [
        asyncio.create_task(emit(new_trigger(stores[number] if stores else None, **how), shared.read(), events[number]))
        for number, how in enumerate(filters)
    ]
    await asyncio.sleep(seconds)
    for one in watching:
        assert not one.done(), one
        one.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    return [[payload for _, payload in emitted] for emitted in events]


# Requests


def lost(service: RunService, count: int = 120, **fields: Any) -> None:
    """Add tasks that end long after they have left the recent ones, and others that have ended since."""
    for number in range(count):
        service.run(f"lost{number}", Run(0, DAY + 2 * HOUR + 30), name=f"lost{number}", **fields)
    for number in range(100):
        service.run(f"later{number}", Run(1, 2), name="later")


@pytest.mark.parametrize(
    ("filters", "requests"),
    [
        ({}, 120),
        ({"name_prefix": "lost"}, 120),
        ({"statuses": [4]}, 120),  # its status is not known
        ({"name_prefix": "other"}, 0),
        ({"template_ids": ["sys_data_analyse"]}, 0),
        ({"sources": ["dataset-2"]}, 0),
        ({"output_prefixes": ["obs://out"]}, 120),  # no list has told it
    ],
    ids=str,
)
def test_what_has_left_the_lists_is_read_once_for_all_that_may_want_it(filters: Any, requests: int) -> None:
    service = RunService()
    lost(service, template={"id": "sys_data_cleaning"}, inputs=[{"type": "DATASET", "source": "dataset-1"}])
    # So many newer tasks that the old ones are not on the pages that are read.
    for number in range(300):
        service.run(f"new{number}", Run(DAY + HOUR, DAY + HOUR + 5), name="new")

    async def watch() -> list[Any]:
        await asyncio.sleep(DAY + 2 * HOUR)
        return await watch_all(service, 10 * INTERVAL, [filters] * 20)

    emitted = run(watch())
    assert service.count(DESCRIBE) == requests
    expected = 120 if requests and filters != {"statuses": [4]} and "output_prefixes" not in filters else 0
    assert [len(events) for events in emitted] == [expected] * 20


def test_after_a_restart_tasks_that_no_watcher_wanted_are_not_read() -> None:
    service, stores = RunService(), [FakeStateStore() for _ in range(2)]
    lost(service)
    filters: list[dict[str, Any]] = [{"name_prefix": "other"}, {"name_prefix": "lost1"}]

    async def watch() -> list[Any]:
        await asyncio.sleep(DAY)
        await watch_all(service, HOUR, filters, stores)
        for number in range(600):
            service.run(f"new{number}", Run(now(), now() + 5), name="new")
        await asyncio.sleep(2 * HOUR)
        return await watch_all(service, HOUR, filters, stores)

    other, wanted = run(watch())
    assert (len(other), len(wanted)) == (0, 31)
    assert service.count(DESCRIBE) == 31


def test_a_task_that_cannot_be_read_is_read_again_at_the_next_poll(printed_log: Callable[[], str]) -> None:
    broken_until = DAY + 2 * HOUR + 6 * INTERVAL
    service = RunService(fault=lambda call: unavailable() if not call.is_list and now() < broken_until else None)
    lost(service, 3)
    service.running["lost2"].deleted = DAY + 2 * HOUR + 20
    for number in range(300):
        service.run(f"new{number}", Run(DAY + HOUR, DAY + HOUR + 5), name="new")

    async def watch() -> list[dict[str, Any]]:
        await asyncio.sleep(DAY + 2 * HOUR)
        return await emit_for(20 * INTERVAL, new_trigger(), service)

    assert sorted(ids(run(watch()))) == ["lost0", "lost1"]
    assert service.described() == {"lost0": 6, "lost1": 6, "lost2": 6}
    lines = [line for line in printed_log().splitlines() if "cannot read tasks that it must read by id" in line]
    assert len(lines) == 4, "at the first poll, after one and three minutes, and when it works"


def test_20_watchers_cost_the_requests_of_one_and_small_checkpoints(printed_log: Callable[[], str]) -> None:
    def busy() -> RunService:
        service = RunService()
        for number in range(10_000):
            service.run(f"{number:08}AbCdEfGhIjK", Run(number * 8.64, number * 8.64 + 5))
        for number in range(500):
            service.run(f"{number:08}ZyXwVuTsRqP", Run(number * 172.0, FOREVER))
        return service

    async def watch(service: RunService, count: int) -> Counter[float]:
        await asyncio.sleep(DAY)
        filters: list[dict[str, Any]] = [{"name_prefix": str(number)} for number in range(count)]
        await watch_all(service, 5 * INTERVAL, filters, stores[:count])
        return Counter(call.time for call in service.calls)

    stores = [FakeStateStore() for _ in range(20)]
    assert run(watch(busy(), 20)) == run(watch(busy(), 1))
    sizes = [len(json.dumps(stored)) for store in stores for stored in store.checkpoints.values()]
    assert len(sizes) == 20
    assert max(sizes) < 16_000
    assert printed_log() == ""
    assert {count for store in stores[1:] for count in store.writes.values()} == {1}, "it changes nothing later"


# Reruns that no list of active tasks shows


@pytest.mark.parametrize("is_down", [False, True], ids=["between two polls", "while the triggerer is down"])
@pytest.mark.parametrize("age", [0.0, 5 * HOUR], ids=str)
def test_a_task_that_ran_again_unseen_emits_again(is_down: bool, age: float) -> None:
    service, store = RunService(), FakeStateStore()
    again = DAY + HOUR + 601
    service.run("a", Run(DAY - age - 100, DAY - age + 100, 3), Run(again, again + 5, 2))
    for number in range(500):  # the task is on no page that every poll reads
        service.run(f"new{number}", Run(DAY + HOUR - 1500 + number, DAY + HOUR + 1))

    async def watch() -> list[dict[str, Any]]:
        await asyncio.sleep(DAY - age)
        if not is_down:
            return await emit_for(age + 4 * HOUR, new_trigger(store), service, interval=600)
        first = await emit_for(age + HOUR + 30, new_trigger(store), service, interval=600)
        await asyncio.sleep(HOUR)
        return first + await emit_for(2 * HOUR, new_trigger(store), service, interval=600)

    mine = [payload for payload in run(watch()) if payload["task_id"] == "a"]
    assert [(one["status"], one["version_count"]) for one in mine] == [(3, 1), (2, 2)]
    assert mine[0]["dedupe_key"] != mine[1]["dedupe_key"]


# Versions


def test_each_version_that_ended_is_an_event_of_its_own() -> None:
    service, store = RunService(), FakeStateStore()
    service.run(
        *("a", Run(10, 20, 3), Run(25, 40, 2), Run(45, 50, 4)),
        *(Run(130, 1000, 2), Run(170, 200, 3)),  # one of them runs while the newer one begins and ends
    )
    service.run("analysis", Run(10, 20), template={"id": "sys_data_analyse"})
    service.running["analysis"].has_versions = False
    service.run("other", Run(10, 20), Run(30, 40), name="other")

    async def watch() -> list[dict[str, Any]]:
        how: dict[str, Any] = {"versions": True}
        first = await emit_for(300, new_trigger(store, **how), service)
        assert service.count(DESCRIBE) == 4, "one list each time a task has changed"
        service.running["a"].runs.append(Run(now() + 1, now() + 2))
        await asyncio.sleep(1000)
        return first + await emit_for(300, new_trigger(store, **how), service)

    emitted = run(watch())
    mine = [payload for payload in emitted if payload["task_id"] == "a"]
    assert [one["task_version_id"] for one in mine] == ["v1", "v2", "v3", "v5", "v6", "v4"]
    assert [one["status"] for one in mine][:4] == [3, 2, 4, 3]
    assert len({one["dedupe_key"] for one in emitted}) == len(emitted)
    assert [one["task_version_id"] for one in emitted if one["task_id"] == "analysis"] == [None]


def test_the_versions_of_a_task_are_listed_again_until_they_can_be_read() -> None:
    service = RunService(fault=lambda call: unavailable() if "/" in call.task_id and now() < 200 else None)
    service.run("a", Run(10, 20, 3), Run(25, 40, 2))
    service.run("unwanted", Run(10, 20), Run(25, 40), name="x")

    async def watch() -> list[dict[str, Any]]:
        return await emit_for(400, new_trigger(versions=True, statuses=[2]), service)

    emitted = run(watch())
    assert [(one["task_id"], one["task_version_id"]) for one in emitted if one["task_id"] == "a"] == [("a", "v2")]


# Outages


def test_an_outage_names_the_watcher_at_growing_intervals_and_its_end_once(printed_log: Callable[[], str]) -> None:
    store = FakeStateStore()
    name = (
        "The watcher with modelarts_conn_id='modelarts_default', name_prefix='mine', project_id='p', workspace_id='0'"
    )
    service = RunService(fault=lambda _: error_response(403) if 100 < now() < 10 * HOUR else None)

    async def watch() -> None:
        watching = asyncio.create_task(emit_for(12 * HOUR, new_trigger(store, name_prefix="mine"), service))
        await asyncio.sleep(5 * HOUR)
        (reported,) = [json.loads(value) for key, value in store.values.items() if key.endswith("_outage")]
        assert reported.startswith(f"{name} cannot poll: ListProcessorTasks of processing tasks failed: ")
        await watching

    run(watch())
    began, *repeated, ended = (line for line in printed_log().splitlines() if "The watcher" in line)
    assert f"{name} cannot poll: ListProcessorTasks of processing tasks failed: " in began
    assert 13 <= len(repeated) <= 15, "after about 1, 3, 7, 15, 31 and 63 minutes, and then each hour"
    assert all(f"{name} cannot poll: " in line and "This has lasted for " in line for line in repeated)
    assert f"{name} cannot poll: works again after " in ended
    assert not any(key.endswith("_outage") for key in store.values)


# Checkpoints


def test_a_checkpoint_is_written_when_something_has_changed_and_once_a_day() -> None:
    service, store = RunService(), FakeStateStore()
    service.run("a", Run(0, 3 * DAY + 30))

    async def watch() -> list[int]:
        counts = []
        watching = asyncio.create_task(emit_for(5 * DAY, new_trigger(store), service, interval=HOUR))
        for at in (HOUR, DAY - HOUR, DAY + HOUR, 3 * DAY - HOUR, 3 * DAY + 2 * HOUR):
            await asyncio.sleep(at - now())
            (key,) = store.checkpoints
            counts.append(store.writes[key])
        await watching
        return counts

    assert run(watch()) == [1, 1, 2, 3, 5]


def test_a_stop_in_a_burst_repeats_only_the_rest() -> None:
    service, store = RunService(), FakeStateStore()
    for number in range(2000):
        service.run(f"t{number}", Run(number * 0.01, 30))

    async def take(count: int) -> list[str]:
        """Read some events as fast as they come, then stop."""
        events: list[str] = []
        stream = new_trigger(store).filter_shared_stream(polls_of(service))
        async for event in stream:
            events.append(event.payload["task_id"])
            if len(events) == count:
                break
        await stream.aclose()  # type: ignore[attr-defined]  # Airflow's annotation
        return events

    async def watch() -> tuple[list[str], list[str]]:
        first = await take(1000)
        return first, ids(await emit_for(HOUR, new_trigger(store), service))

    first, rest = run(watch())
    assert set(first) | set(rest) == set(service.running)
    assert len(first) + len(rest) <= 2000 + BURST


def test_a_stop_in_a_burst_loses_no_event_that_has_not_left_the_triggerer() -> None:
    service, store = RunService(), FakeStateStore()
    for number in range(3 * BURST):
        service.run(f"t{number}", Run(number * 0.01, 30))

    async def watch() -> tuple[list[str], list[str]]:
        events: list[tuple[float, dict[str, Any]]] = []
        emitting = asyncio.create_task(emit(new_trigger(store), polls_of(service), events))
        await asyncio.sleep(INTERVAL + SENT_AFTER + 1.5)  # the first part is saved, and the second one is emitted
        emitting.cancel()
        await asyncio.gather(emitting, return_exceptions=True)
        sent = [payload for time, payload in events if time < now() - 2]
        return ids(sent), ids(await emit_for(HOUR, new_trigger(store), service))

    sent, rest = run(watch())
    assert len(sent) == BURST
    assert sorted(sent + rest) == sorted(service.running)


def test_a_checkpoint_of_the_future_loses_no_later_end() -> None:
    service, store = RunService(), FakeStateStore()

    async def watch() -> list[dict[str, Any]]:
        await emit_for(HOUR, new_trigger(store), service)
        (key,) = store.checkpoints
        ahead = dict.fromkeys(("watermark", "floor"), 10**30)
        store.values[key] = json.dumps({**store.checkpoints[key], **ahead})
        service.run("new", Run(2 * HOUR + 65, 2 * HOUR + 70))
        service.run("again", Run(2 * HOUR + 65, 2 * HOUR + 66), Run(2 * HOUR + 67, 2 * HOUR + 70))
        return await emit_for(3 * HOUR, new_trigger(store), service)

    assert sorted(ids(run(watch()))) == ["again", "new"]


def test_a_changed_filter_takes_the_checkpoint_over_and_removes_it() -> None:
    service, store = RunService(), FakeStateStore()
    service.run("old", Run(0, 100))
    service.run("active", Run(0, HOUR + 600))
    service.run("meanwhile", Run(HOUR + 300, HOUR + 600))

    async def watch() -> list[list[str]]:
        first = await emit_for(HOUR, new_trigger(store, statuses=[2]), service)
        await asyncio.sleep(HOUR)
        changed = await emit_for(HOUR, new_trigger(store, statuses=[2, 3]), service)
        return [ids(first), ids(changed)]

    first, changed = run(watch())
    assert (first, sorted(changed)) == (["old"], ["active", "meanwhile"])
    assert list(store.checkpoints) == [new_trigger(statuses=[2, 3])._checkpoint_key()]
    assert json.loads(store.values[INDEX]) == list(store.checkpoints)


def test_the_report_of_an_outage_is_removed_with_the_checkpoint() -> None:
    service, store = RunService(fault=lambda _: unavailable() if HOUR < now() < 2 * HOUR else None), FakeStateStore()

    async def watch() -> None:
        await emit_for(HOUR + 600, new_trigger(store, statuses=[2]), service)
        assert any(key.endswith("_outage") for key in store.values)
        await asyncio.sleep(HOUR)
        await emit_for(HOUR, new_trigger(store, statuses=[3]), service)
        assert not any(key.endswith("_outage") for key in store.values)

    run(watch())


@pytest.mark.parametrize("other", [{"modelarts_conn_id": "other"}, {"project_id": "q"}, {"workspace_id": "1"}], ids=str)
def test_a_watcher_of_something_else_begins_from_now_and_removes_nothing(other: dict[str, Any]) -> None:
    service, store = RunService(), FakeStateStore()
    service.run("meanwhile", Run(HOUR + 300, HOUR + 600))

    async def watch() -> list[dict[str, Any]]:
        await emit_for(HOUR, new_trigger(store), service)
        await asyncio.sleep(HOUR)
        return await emit_for(HOUR, new_trigger(store, **other), service)

    assert run(watch()) == []
    assert len(store.checkpoints) == 2


def test_a_checkpoint_is_removed_when_no_triggerer_has_used_it_for_days() -> None:
    service, store = RunService(), FakeStateStore()

    async def watch() -> list[int]:
        old = new_trigger(store, statuses=[2])
        old.triggerer_job_id = 1
        await emit_for(HOUR, old, service)
        new = new_trigger(store, statuses=[3])
        new.triggerer_job_id = 2
        watching = asyncio.create_task(emit_for(UNUSED_AFTER / 1000 + 2 * DAY, new, service, interval=HOUR))
        counts = []
        for at in (UNUSED_AFTER / 1000 - DAY, UNUSED_AFTER / 1000 + 2 * DAY):
            await asyncio.sleep(at - now())
            counts.append(len(store.checkpoints))
        await watching
        return counts

    assert run(watch()) == [2, 1]


def test_a_checkpoint_that_a_running_watcher_uses_is_kept() -> None:
    service, store = RunService(), FakeStateStore()

    async def watch() -> None:
        running = asyncio.create_task(emit_for(3 * HOUR, new_trigger(store, statuses=[2]), service))
        await asyncio.sleep(HOUR)
        await emit_for(HOUR, new_trigger(store, statuses=[3]), service)
        assert len(store.checkpoints) == 2
        await running

    run(watch())


def test_every_store_gets_the_checkpoint_and_one_is_enough() -> None:
    service, stores = RunService(), [FakeStateStore(), FakeStateStore()]
    service.run("a", Run(0, 100))

    class Stores:
        _by_name = {"one": stores[0], "two": stores[1]}  # noqa: RUF012

    async def watch() -> list[list[str]]:
        first = await emit_for(HOUR, new_trigger(Stores()), service)
        assert stores[0].checkpoints == stores[1].checkpoints != {}
        stores[0].values.clear()
        return [ids(first), ids(await emit_for(HOUR, new_trigger(Stores()), service))]

    assert run(watch()) == [["a"], []]
    assert stores[0].checkpoints == stores[1].checkpoints


def test_a_store_that_cannot_be_read_is_read_again(printed_log: Callable[[], str]) -> None:
    service, store = RunService(), FakeStateStore()
    service.run("a", Run(0, 100))

    class Broken(FakeStateStore):
        async def aget(self, key: str) -> Any:
            if now() < 3 * HOUR:
                raise OSError("the database is down")
            return await store.aget(key)

    async def watch() -> list[list[str]]:
        first = await emit_for(HOUR, new_trigger(store), service)
        return [ids(first), ids(await emit_for(4 * HOUR, new_trigger(Broken()), service))]

    assert run(watch()) == [["a"], []]
    assert "cannot read its checkpoint: OSError: the database is down. " in printed_log()


def test_a_watcher_that_joins_a_poll_waits_until_it_can_read_what_it_missed(printed_log: Callable[[], str]) -> None:
    joins = 3 * HOUR
    service, store = RunService(), FakeStateStore()
    service.run("meanwhile", Run(2 * HOUR, 2 * HOUR + 30), name="meanwhile")
    for number in range(300):  # so that it is not on the first page
        service.run(f"new{number}", Run(joins - HOUR + number, joins), name="new")

    async def watch() -> list[Any]:
        shared: Fanout = Fanout(lambda: polls_of(service))
        await emit_for(HOUR, new_trigger(store, name_prefix="m"), service)
        others = asyncio.create_task(emit(new_trigger(), shared.read(), []))
        await asyncio.sleep(joins - now())
        # Its first two attempts to read the last day fail; the common poll goes on.
        service.fault = lambda call: unavailable() if call.query.get("offset") == "3" and now() < joins + 100 else None
        mine: list[Any] = []
        joined = asyncio.create_task(emit(new_trigger(store, name_prefix="m"), shared.read(), mine))
        await asyncio.sleep(HOUR)
        others.cancel()
        joined.cancel()
        await asyncio.gather(others, joined, return_exceptions=True)
        return [payload for _, payload in mine]

    assert ids(run(watch())) == ["meanwhile"]
    assert "cannot read what it missed: " in printed_log()


def test_a_task_that_no_list_shows_is_read_until_it_ends() -> None:
    service = RunService()
    service.run("hidden", Run(0, 1000))

    def hide(call: Call) -> Any:
        if call.is_list and now() > 100:
            return Response(200, {}, b'{"count": 0, "tasks": []}')
        return None

    service.fault = hide

    async def watch() -> list[dict[str, Any]]:
        return await emit_for(2000, new_trigger(), service)

    assert ids(run(watch())) == ["hidden"]
    assert 14 <= service.count(DESCRIBE) <= 16


# Clocks


@pytest.mark.parametrize("offset", [-600.0, -300.0, 0.0, 300.0, 600.0])
def test_the_first_start_begins_at_the_service_s_time(offset: float) -> None:
    service = RunService(clock_offset=offset)
    service.run("before", Run(1000, 1100))
    service.run("long before", Run(500, 600))
    service.run("after", Run(1210, 1215))
    service.run("active", Run(1000, 1300))

    async def watch() -> list[dict[str, Any]]:
        await asyncio.sleep(1200.5)
        return await emit_for(600, new_trigger(), service)

    assert sorted(ids(run(watch()))) == ["active", "after"]


@pytest.mark.parametrize("offset", [-600.0, 600.0])
def test_a_first_start_in_an_outage_begins_when_it_started(offset: float) -> None:
    service = RunService(clock_offset=offset, fault=lambda _: unavailable() if now() < 3 * HOUR else None)
    service.run("before", Run(1000, 1100))
    service.run("in the outage", Run(1210, 1215))

    async def watch() -> list[dict[str, Any]]:
        await asyncio.sleep(1200.5)
        return await emit_for(4 * HOUR, new_trigger(), service)

    assert ids(run(watch())) == ["in the outage"]
