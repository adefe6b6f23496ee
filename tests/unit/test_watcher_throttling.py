"""Waits behind a gateway that forwards so many requests at once, and so many a second."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api.errors import ModelArtsAuthenticationError
from airflow_modelarts.api.http import Response
from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling.outage import MAX_OUTAGE_DELAY
from airflow_modelarts.polling.plan import CONCURRENCY
from airflow_modelarts.polling.snapshots import Snapshot, poll_snapshots
from airflow_modelarts.polling.wait import Changed, Ended, OutageBegan, OutageEnded
from tests.support.event_collection import (
    FOREVER,
    HOUR,
    StartWait,
    Timed,
    collect_all,
    collect_for,
    end_times,
    kinds,
    names,
    outage_times,
    run_for,
    watch,
)
from tests.support.target_waits import wait_for_end
from tests.support.virtual import now, run
from tests.support.virtual_service import Gateway, Service, throttled

BODY = b'{"error_code": "APIGW.0308", "error_msg": "slow down"}'
LIMIT_RESPONSES: dict[str, Callable[[], Response]] = {
    "429": lambda: Response(429, {}, BODY),
    "429 with Retry-After": lambda: Response(429, {"retry-after": "1"}, BODY),
    "429 as a web page": lambda: Response(429, {"content-type": "text/html"}, b"<html>Too Many Requests</html>"),
    "503": lambda: Response(503, {"content-type": "text/html"}, b"<html>Service Unavailable</html>"),
    "503 with Retry-After": lambda: Response(503, {"retry-after": "1"}, b""),
}


@pytest.mark.parametrize("kind", LIMIT_RESPONSES)
@pytest.mark.parametrize(("ended", "running"), [(24, 0), (24, 40), (500, 0)])
def test_tasks_that_end_together_end_their_waits_as_fast_as_they_can(kind: str, ended: int, running: int) -> None:
    service = Service()
    tasks = names(ended + running)
    service.add(tasks[:ended], (0, 1), (21, 2))
    service.add(tasks[ended:], *FOREVER)
    gateway = Gateway(service, rate=2, burst=5, refuse=LIMIT_RESPONSES[kind])
    least = gateway.least_seconds(ended)
    waits = run_for(30 + 2 * least, gateway, tasks)
    assert len(end_times(waits)) == ended
    assert max(end_times(waits)) <= 21 + 5 + 1.5 * least
    assert outage_times(waits) == []
    assert gateway.refused <= 12 + ended / 4, "few requests more than needed"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rate=st.floats(0.5, 50),
    burst=st.integers(1, 60),
    ended=st.integers(1, 120),
    running=st.sampled_from([0, 0, 5, 150]),
    kind=st.sampled_from(sorted(LIMIT_RESPONSES)),
    interval=st.sampled_from([5.0, 5.0, 60.0]),
    latency=st.sampled_from([0.0, 0.02, 0.3]),
)
def test_no_wait_starves_at_any_rate(
    rate: float, burst: int, ended: int, running: int, kind: str, interval: float, latency: float
) -> None:
    service = Service()
    tasks = names(ended + running)
    service.add(tasks[:ended], (0, 1), (21, 2))
    service.add(tasks[ended:], *FOREVER)
    gateway = Gateway(service, rate, burst, LIMIT_RESPONSES[kind], latency=latency)
    # The requests by id and the lists, these twice, since the round before may still be under way.
    least = (ended + 6) / rate + latency * ended / CONCURRENCY
    waits = run_for(21 + 2 * interval + 3 * least + 60, gateway, tasks, interval)
    assert len(end_times(waits)) == ended
    blocked = float(gateway.refused) if "Retry-After" in kind else 0.0
    assert max(end_times(waits)) <= 21 + 1.5 * interval + 2 * least + 10 + blocked
    passed = len(gateway.sent) - gateway.refused
    assert gateway.refused <= 12 + passed / 2


def test_a_gateway_that_refuses_most_requests_at_any_rate_is_no_outage() -> None:
    """Other processes of the same account may use up what it forwards."""
    calls = itertools.count()
    service = Service()
    gateway = Gateway(service, rate=1000, burst=1000, refuse=LIMIT_RESPONSES["429"])
    gateway.is_open = lambda: next(calls) % 3 == 0
    service.add(names(24), (0, 1), (21, 2))
    waits = run_for(HOUR, gateway, names(24))
    assert len(end_times(waits)) == 24
    assert outage_times(waits) == []
    assert len(gateway.sent) <= 3 * (24 + 2 * 10)


def test_a_single_throttled_task_does_not_delay_the_others() -> None:
    service = Service(fault=lambda call: throttled() if call.task_id == "throttled" else None)
    service.add(["a", "throttled"], *FOREVER)
    run_for(600, service, ["a", "throttled"])
    assert service.described()["a"] >= 20
    assert service.described()["throttled"] >= 20


def test_tasks_on_pages_before_a_throttled_page_are_not_read_by_id() -> None:
    service = Service(fault=lambda call: throttled() if call.query.get("offset") == "2" else None)
    service.add(names(250), *FOREVER)
    waits = run_for(120, service, names(250))
    assert outage_times(waits) == []
    assert all(kinds(events) == [Changed] for events in waits)
    on_the_throttled_page = names(250)[:50]
    assert min(service.described()[name] for name in on_the_throttled_page) >= 20
    assert set(service.described()) == set(on_the_throttled_page)


def test_lists_are_read_to_their_end_at_the_rate_of_the_gateway() -> None:
    service = Service()
    service.add(names(500), *FOREVER)
    gateway = Gateway(service, rate=1, burst=2, refuse=LIMIT_RESPONSES["429"])
    waits = run_for(900, gateway, names(500), interval=10)
    assert outage_times(waits) == []
    assert all(kinds(events) == [Changed] for events in waits)
    assert gateway.refused <= 900 / 8


@pytest.mark.parametrize("kind", ["429", "503"])
def test_the_projects_of_one_connection_share_its_rate(kind: str) -> None:
    service = Service()
    gateway = Gateway(service, rate=2, burst=5, refuse=LIMIT_RESPONSES[kind])
    service.add(names(60), (0, 1), (21, 2))

    def watch_in_project(number: int) -> StartWait:
        project_id = f"project {number % 3}"
        key, target = ("conn", project_id), Target(f"task {number}")
        return partial(wait_for_end, key, lambda: gateway.open(project_id), target, interval=5.0)

    async def watch_all() -> list[Timed]:
        return await collect_for(90, *map(watch_in_project, range(60)))

    waits = run(watch_all())
    assert len(end_times(waits)) == 60
    assert max(end_times(waits)) <= 21 + 5 + 1.5 * gateway.least_seconds(60)
    assert outage_times(waits) == []


@pytest.mark.parametrize("waits", [1, 24])
@pytest.mark.parametrize("kind", ["429", "503"])
def test_the_rate_recovers_from_an_outage_between_two_throttled_rounds(kind: str, waits: int) -> None:
    service = Service()
    gateway = Gateway(service, rate=2, burst=5, refuse=LIMIT_RESPONSES[kind])
    gateway.is_open = lambda: not 100 <= now() < 1300
    service.add(names(waits), (0, 1), (50, 0), (600, 2))
    collected = run_for(3000, gateway, names(waits))
    for events in collected:
        assert [kind for kind in kinds(events) if kind is not Changed] == [OutageBegan, OutageEnded, Ended]
    recovered = min(time for time, passed in gateway.sent if passed and time >= 1300)
    assert recovered <= 1300 + 1.2 * MAX_OUTAGE_DELAY
    assert max(end_times(collected)) <= recovered + 5 + 2 * gateway.least_seconds(waits)


def test_an_outage_that_begins_while_requests_are_paced_has_an_event_soon() -> None:
    service = Service()
    gateway = Gateway(service, rate=2, burst=5, refuse=LIMIT_RESPONSES["429"])
    gateway.is_open = lambda: now() < 30
    service.add(names(100), (0, 1), (21, 2))
    waits = run_for(300, gateway, names(100))
    assert 0 < len(outage_times(waits)) <= 100 - len(end_times(waits))
    assert max(outage_times(waits)) <= 120
    assert sum(time >= 40 for time, _ in gateway.sent) <= 40


def test_a_key_that_is_refused_while_requests_are_paced_ends_the_waits() -> None:
    service = Service()
    denied = Response(401, {}, b'{"error_code": "APIGW.0301", "error_msg": "no"}')
    gateway = Gateway(service, rate=2, burst=5, refuse=lambda: LIMIT_RESPONSES["429"]() if now() < 30 else denied)
    gateway.is_open = lambda: now() < 30
    service.add(names(100), (0, 1), (21, 2))
    refused = [end for end in run(collect_all(gateway, names(100))) if isinstance(end, BaseException)]
    assert refused
    assert {type(error) for error in refused} == {ModelArtsAuthenticationError}
    assert sum(time >= 30 for time, _ in gateway.sent) <= 4 * CONCURRENCY


def test_an_event_trigger_and_the_waits_share_the_rate() -> None:
    service = Service()
    gateway = Gateway(service, rate=2, burst=5, refuse=LIMIT_RESPONSES["429"])
    service.add(names(400, "foreign"), *FOREVER)
    service.add(names(24), (0, 1), (21, 2))
    snapshots: list[Any] = []

    async def poll() -> None:
        async with aclosing(poll_snapshots(gateway.open(), "c", 30.0)) as stream:
            async for snapshot in stream:
                snapshots.append(snapshot)

    async def poll_and_watch() -> list[Timed]:
        polling = asyncio.create_task(poll())
        waits = await collect_for(300, *(watch(gateway, name) for name in names(24)))
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        return waits

    waits = run(poll_and_watch())
    assert len(end_times(waits)) == 24
    assert outage_times(waits) == []
    assert sum(isinstance(snapshot, Snapshot) for snapshot in snapshots) >= 6


def test_a_gateway_that_does_not_throttle_costs_no_further_request() -> None:
    def count(through_a_gateway: bool) -> int:
        service = Service()
        service.add(names(500)[:480], *FOREVER)
        service.add(names(500)[480:], (0, 1), (60, 2))
        gateway = Gateway(service, rate=10000, burst=10000, refuse=LIMIT_RESPONSES["429"], latency=0.0)
        run_for(300, gateway if through_a_gateway else service, names(500))
        return len(gateway.sent) if through_a_gateway else service.count()

    # A round that is due at the very end may be included or not.
    assert count(through_a_gateway=True) <= count(through_a_gateway=False) + 1
