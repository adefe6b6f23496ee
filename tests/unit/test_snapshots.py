"""The snapshots that asset events come from: what they contain, and how their poll gets through outages."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import aclosing
from email.utils import formatdate

import pytest

from airflow_modelarts.api.ends import Origin
from airflow_modelarts.api.http import Response, TransportError
from airflow_modelarts.polling import snapshots
from airflow_modelarts.polling.plan import CONCURRENCY
from airflow_modelarts.polling.snapshots import FIRST_PERIOD, OVERLAP, Outage, Snapshot, poll_snapshots
from tests.support.virtual import EPOCH, now, run, use_virtual_time
from tests.support.virtual_runs import Run, RunService
from tests.support.virtual_service import DESCRIBE, Call, Service, error_response, unavailable

#: In milliseconds.
NOW, YESTERDAY = int(EPOCH * 1000), int((EPOCH - FIRST_PERIOD) * 1000)


@pytest.fixture(autouse=True)
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    use_virtual_time(monkeypatch, snapshots)


def poll(service: Service, count: int) -> list[Snapshot | Outage]:
    """Poll some times, every five seconds."""

    async def read() -> list[Snapshot | Outage]:
        async with aclosing(poll_snapshots(service.open(), "mine", 5.0)) as stream:
            return [await anext(stream) for _ in range(count)]

    return run(read())


def take(service: Service, count: int) -> list[Snapshot]:
    """Return the first snapshots of a poll without outages."""
    return [polled for polled in poll(service, count) if isinstance(polled, Snapshot)]


def pages(service: Service) -> list[str]:
    """Return which pages of which list were read."""
    return [f"{call.query.get('status', 'all')} {call.query['offset']}" for call in service.calls if call.is_list]


def test_a_snapshot_has_the_active_and_the_recent_tasks() -> None:
    service = Service()
    service.add(["old", "old but active"], (0, 2), created=YESTERDAY - 1)
    service.tasks["old but active"].changes = [(0, 1)]
    service.add(["new", "new and active"], (0, 2), created=YESTERDAY)
    service.tasks["new and active"].changes = [(0, 0)]
    service.add(["without a time"], (0, 2))
    (snapshot,) = take(service, 1)
    assert set(snapshot.active) == {"old but active", "new and active"}
    assert set(snapshot.recent) == {"new", "new and active", "without a time"}
    assert set(snapshot.older) == {"old", "old but active"}
    assert snapshot.since == YESTERDAY
    assert snapshot.origin == Origin("mine", "p", "example.com")


def test_recent_tasks_are_read_up_to_a_page_without_any() -> None:
    service = Service()
    service.add([f"old {number}" for number in range(350)], (0, 2), created=1)
    service.add(["new"], (0, 2), created=NOW)
    (snapshot,) = take(service, 1)
    assert set(snapshot.recent) == {"new"}
    assert pages(service) == ["1 0", "0 0", "all 0", "all 1"]


def test_an_old_straggler_at_the_end_of_a_page_hides_no_task() -> None:
    service = Service()
    service.add([f"late {number}" for number in range(50)], (0, 2), created=NOW)
    service.add(["straggler"], (0, 2), created=1)
    service.add([f"new {number}" for number in range(99)], (0, 2), created=NOW)
    (snapshot,) = take(service, 1)
    assert len(snapshot.recent) == 149


def test_a_list_that_is_out_of_order_is_read_to_its_end() -> None:
    service = Service()
    service.add(["new"], (0, 2), created=NOW)  # the lists of this service have the last one first
    service.add([f"old {number}" for number in range(350)], (0, 2), created=1)
    service.add(["inverted", "older"], (0, 2), created=1)
    service.tasks["inverted"].created = NOW
    (snapshot,) = take(service, 1)
    assert set(snapshot.recent) == {"new", "inverted"}


def test_each_snapshot_reads_one_more_page_of_the_last_day() -> None:
    service = Service()
    service.add([f"ancient {number}" for number in range(500)], (0, 2), created=1)
    service.add([f"old {number}" for number in range(500)], (0, 2), created=NOW - 3_600_000)
    first, *later = take(service, 7)
    assert len(first.recent) == 500
    service.calls = service.calls[8:]
    assert [page for page in pages(service) if page.startswith("all")] == [
        *("all 0", "all 1", "all 0", "all 2", "all 0", "all 3", "all 0", "all 4", "all 0", "all 5", "all 0", "all 1")
    ]
    assert [len(snapshot.older) for snapshot in later] == [200] * 6


def test_a_later_snapshot_overlaps_the_one_before_however_long_that_took() -> None:
    first, second = take(Service(latency=30.0), 2)
    assert abs(first.since - YESTERDAY) <= 60_000
    assert second.since == int((EPOCH - OVERLAP) * 1000)


@pytest.mark.parametrize("offset", [-600.0, 0.0, 600.0])
def test_times_are_those_of_the_service(offset: float) -> None:
    first, second = take(RunService(clock_offset=offset), 2)
    assert first.since == int((EPOCH + offset - FIRST_PERIOD) * 1000)
    assert second.since == int((EPOCH + offset - OVERLAP) * 1000)
    assert first.service_time(EPOCH) == int((EPOCH + offset) * 1000)


@pytest.mark.parametrize("date", [None, "", "yesterday", formatdate(EPOCH)[:20]])
def test_without_a_valid_date_the_time_is_that_of_this_machine(date: str | None) -> None:
    service = Service()
    usual = service.answer
    headers = {} if date is None else {"date": date}
    service.fault = lambda call: Response(200, headers, usual(call).body)
    (snapshot,) = take(service, 1)
    assert (snapshot.since, snapshot.clock_offset) == (YESTERDAY, 0.0)


def test_the_poll_gets_through_outages_refused_credentials_and_defects() -> None:
    faults: Iterator[Response | Exception | None] = iter(
        [None, unavailable(), error_response(403), ZeroDivisionError("a defect")]
    )
    service = Service(fault=lambda call: next(faults, None) if call.query.get("status") == "1" else None)
    service.add(["a"], (0, 1), (6, 2))
    polled = poll(service, 5)
    assert [type(one) for one in polled] == [Snapshot, Outage, Outage, Outage, Snapshot]
    errors = [one for one in polled if isinstance(one, Outage)]
    assert [type(one.error).__name__ for one in errors][2] == "ZeroDivisionError"
    assert errors[0].origin == Origin("mine", "p", "example.com")
    delays = [later - earlier for earlier, later in itertools.pairwise(service.times())]
    assert delays[0] == 5.0
    assert 4.0 <= delays[1] <= 6.0
    assert 8.0 <= delays[2] <= 12.0


def test_a_snapshot_after_an_outage_covers_all_of_it() -> None:
    """Each poll of the outage takes many minutes until it times out."""
    timeouts = itertools.count()

    def fault(call: Call) -> TransportError | None:
        if call.time == 0:
            return None
        service.latency = 1200.0 if next(timeouts) < 30 else 0.0
        return TransportError("timed out", kind="timeout", sent=True) if service.latency else None

    service = Service(fault=fault)

    async def read() -> tuple[Snapshot, float]:
        async with aclosing(poll_snapshots(service.open(), "mine", 5.0)) as stream:
            await anext(stream)
            while not isinstance(polled := await anext(stream), Snapshot):
                pass
            return polled, now()

    snapshot, took = run(read())
    assert took > 30 * 600
    assert snapshot.since == int((EPOCH - OVERLAP) * 1000)


# Further requests


def test_further_requests_are_made_once_for_all_and_few_at_a_time() -> None:
    service = RunService(latency=1.0)
    names = [f"t{number}" for number in range(20)]
    for name in names:
        service.run(name, Run(0, 5))

    async def describe_all() -> None:
        async with aclosing(poll_snapshots(service.open(), "mine", 5.0)) as stream:
            snapshot = await anext(stream)
            assert isinstance(snapshot, Snapshot)
            began = now()
            cancelled = asyncio.create_task(snapshot.describe("t0"))
            readers = asyncio.gather(*(asyncio.gather(*map(snapshot.describe, names)) for _ in range(4)))
            await asyncio.sleep(0.5)
            cancelled.cancel()  # it takes nothing from the others
            answers = await readers
            assert all([task.task_id for task in answer] == names for answer in answers)
            assert now() - began == -(-len(names) // CONCURRENCY)
            versions = await asyncio.gather(*(snapshot.versions("t1") for _ in range(5)))
            assert [[one.task_version_id for one in answer] for answer in versions] == [["v1"]] * 5
            extended = await asyncio.gather(*(snapshot.extended() for _ in range(5)))
            assert all(len(one.recent) == 20 for one in extended)

    run(describe_all())
    assert set(service.described().values()) == {1}
    assert service.count(DESCRIBE) == 21
    assert len(pages(service)) == 2 * 3


def test_the_end_of_a_poll_ends_its_requests() -> None:
    service = RunService()
    service.run("a", Run(0, 5))

    async def leave() -> None:
        async with aclosing(poll_snapshots(service.open(), "mine", 5.0)) as stream:
            snapshot = await anext(stream)
            assert isinstance(snapshot, Snapshot)
            service.latency = 100.0
            reading = asyncio.create_task(snapshot.describe("a"))
            await asyncio.sleep(1.0)
        await asyncio.wait([reading])
        assert reading.cancelled()

    run(leave())
