"""The snapshots that asset events come from: what they contain, and how their poll gets through outages."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from airflow_modelarts.api.http import Response, TransportError
from airflow_modelarts.polling import snapshots
from airflow_modelarts.polling.snapshots import FIRST_PERIOD, OVERLAP, Snapshot, poll_snapshots
from tests.support.virtual import EPOCH, now, run, use_virtual_time
from tests.support.virtual_service import Call, Service, error_response, unavailable


@pytest.fixture(autouse=True)
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    use_virtual_time(monkeypatch, snapshots)


def take(service: Service, count: int) -> list[Snapshot]:
    """Take the first snapshots, one every five seconds."""

    async def read() -> list[Snapshot]:
        async with aclosing(poll_snapshots(service.open(), 5.0)) as stream:
            return [await anext(stream) for _ in range(count)]

    return run(read())


def test_a_snapshot_has_the_active_and_the_recent_tasks() -> None:
    service = Service()
    yesterday = int((EPOCH - FIRST_PERIOD) * 1000)
    service.add(["old", "old but active"], (0, 2), created=yesterday - 1)
    service.tasks["old but active"].changes = [(0, 1)]
    service.add(["new", "new and active"], (0, 2), created=yesterday)
    service.tasks["new and active"].changes = [(0, 0)]
    service.add(["without a time"], (0, 2))
    (snapshot,) = take(service, 1)
    assert set(snapshot.active) == {"old but active", "new and active"}
    assert set(snapshot.recent) == {"new", "new and active", "without a time"}
    assert snapshot.since == yesterday


def test_recent_tasks_are_read_no_further_back_than_needed() -> None:
    service = Service()
    service.add([f"old {number}" for number in range(250)], (0, 2), created=1)
    service.add(["new"], (0, 2), created=int(EPOCH * 1000))
    (snapshot,) = take(service, 1)
    assert set(snapshot.recent) == {"new"}
    assert [call.query.get("status", "recent") for call in service.calls] == ["1", "0", "recent"]


def test_a_later_snapshot_overlaps_the_one_before_however_long_that_took() -> None:
    first, second = take(Service(latency=30.0), 2)
    assert (first.since, second.since) == (int((EPOCH - FIRST_PERIOD) * 1000), int((EPOCH - OVERLAP) * 1000))


def test_the_poll_gets_through_outages_and_refused_credentials(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger=snapshots.log.name)
    faults: Iterator[Response | None] = iter([None, unavailable(), error_response(403)])
    service = Service(fault=lambda call: next(faults, None) if call.query.get("status") == "1" else None)
    service.add(["a"], (0, 1), (6, 2))
    first, second = take(service, 2)
    assert (set(first.active), set(second.active)) == ({"a"}, set())
    delays = [later - earlier for earlier, later in itertools.pairwise(service.times())]
    assert delays[0] == 5.0
    assert 4.0 <= delays[1] <= 6.0
    assert 8.0 <= delays[2] <= 12.0
    began, ended = (record.message for record in caplog.records)
    assert began.startswith("ListProcessorTasks of processing tasks failed: ")
    assert began.endswith(" Polling for processing tasks that end goes on.")
    assert ended == "ModelArts answers again."


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
        async with aclosing(poll_snapshots(service.open(), 5.0)) as stream:
            await anext(stream)
            return await anext(stream), now()

    snapshot, took = run(read())
    assert took > 30 * 600
    assert snapshot.since == int((EPOCH - OVERLAP) * 1000)
