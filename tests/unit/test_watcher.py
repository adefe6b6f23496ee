"""When the waits of the triggerer end, and how they join and leave the watcher that they share."""

import asyncio
import contextvars
import random
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
from airflow_modelarts.polling.plan import CONCURRENCY
from airflow_modelarts.polling.wait import Changed, Ended
from airflow_modelarts.polling.watcher import BATCH_DELAY
from tests.support.event_collection import FOREVER, Timed, collect, collect_all, kinds, names, run_for, watch
from tests.support.virtual import now, run
from tests.support.virtual_service import PAGE, History, Service, error_response, unavailable

# The end of a wait


def test_a_wait_ends_with_the_terminal_status_of_its_task() -> None:
    service = Service()
    service.add(["a"], (0, 0), (7, 1), (31, 3))
    events = run(collect(watch(service, "a")))
    assert [event for _, event in events] == [Changed(0), Changed(1), Ended(3)]
    assert 31 <= events[-1][0] <= 36


def test_a_task_that_ended_before_the_wait_is_read_after_one_interval() -> None:
    service = Service()
    service.add(["a"], (0, 2))
    assert run(collect(watch(service, "a", 60))) == [(60, Ended(2))]


def test_a_task_that_no_worker_has_polled_is_read_at_once() -> None:
    service = Service()
    service.add(["a"], (0, 2))
    assert run(collect(watch(service, "a", 60, poll_at_once=True))) == [(BATCH_DELAY, Ended(2))]


def test_an_undocumented_status_ends_no_wait() -> None:
    service = Service()
    service.add(["a"], (0, 1), (20, 7), (40, 2))
    assert [event for _, event in run(collect(watch(service, "a")))] == [Changed(1), Changed(7), Ended(2)]


def test_two_waits_for_one_task_share_its_requests_and_both_end() -> None:
    service = Service()
    service.add(["a"], (0, 1), (20, 2))
    first, second = run(collect_all(service, ["a", "a"]))
    assert first[-1] == second[-1] == (20, Ended(2))
    assert service.count() == 4


lives = st.tuples(
    st.integers(0, 40),  # when the task starts
    st.integers(0, 200),  # how long it runs
    st.booleans(),  # whether it runs again, as a new version, before the wait joins
    st.sampled_from([2, 3, 4]),
    st.booleans(),  # whether its status is hidden while it is active
    st.sampled_from(["0", "0", "0", "w"]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    tasks=st.lists(st.tuples(lives, st.sampled_from([5.0, 5.0, 5.0, 12.0, 60.0]), st.integers(0, 90)), min_size=1),
    copies=st.integers(1, 8),
    foreign=st.sampled_from([0, 3, 150, 420]),
    latency=st.sampled_from([0.0, 0.05, 0.5]),
    disorder=st.none() | st.randoms(use_true_random=False),
    lists_ended=st.sampled_from([0, 30]),
    faults=st.none() | st.randoms(use_true_random=False),
)
def test_each_wait_ends_once_with_the_true_status_neither_early_nor_late(
    tasks: list[tuple[tuple[int, int, bool, int, bool, str], float, int]],
    copies: int,
    foreign: int,
    latency: float,
    disorder: random.Random | None,
    lists_ended: int,
    faults: random.Random | None,
) -> None:
    service = Service(latency=latency, disorder=disorder, lists_ended=lists_ended)
    if faults:
        service.fault = lambda call: unavailable() if call.is_list and faults.random() < 0.3 else None
    service.add(names(foreign // 2, "foreign"), (0, 1))
    waits = []
    for number in range(len(tasks) * copies):
        (begin, runs, again, end, hides_active, workspace), interval, joins = tasks[number % len(tasks)]
        changes = [(0, 0), (begin, 1), (begin + runs, end)]
        if again and joins >= begin + runs:
            changes += [(joins, 1), (joins + runs, 5 - end if end < 4 else 2)]
        service.tasks[f"task {number}"] = History(f"task {number}", changes, workspace, hides_active)
        waits.append((f"task {number}", interval, float(joins)))
    service.add(names(foreign - foreign // 2, "late foreign"), (0, 0), (60, 1), (200, 2))

    async def watch_all() -> list[Timed]:
        return await asyncio.gather(
            *(collect(watch(service, task_id, interval), after=joins) for task_id, interval, joins in waits)
        )

    requests_a_round = len(waits) / CONCURRENCY + 4 * (foreign + len(waits)) / PAGE + 16
    for (task_id, interval, joins), events in zip(waits, run(watch_all()), strict=True):
        true_end, status = service.tasks[task_id].end(joins)
        ends = [(time, event) for time, event in events if isinstance(event, Ended)]
        assert [event for _, event in ends] == [Ended(status)]
        assert true_end <= ends[0][0] <= true_end + 2 * interval + 2 * latency * requests_a_round + 0.001
    assert service.opened == service.closed in range(1, len(waits) + 1)


def test_a_terminal_status_in_a_list_ends_no_wait() -> None:
    """Only an answer by id does, because a list may show the status of another moment."""
    service = Service(lists_ended=100)
    service.add(["a", "b", "c", "d"], (0, 1), (20, 4))
    assert [kinds(events) for events in run_for(60, service, "abcd")] == [[Changed, Ended]] * 4
    assert service.described() == dict.fromkeys("abcd", 1)


def test_a_task_that_starts_between_the_two_lists_is_read_by_id() -> None:
    service = Service(latency=1.0)  # the statuses in the lists are those of 5.5 and 6.5
    service.add(["a", "b", "c"], (0, 0), (6, 1), (60, 2))
    assert [kinds(events)[-1] for events in run_for(120, service, "abc")] == [Ended] * 3


# Errors that waiting does not cure


def test_an_unknown_id_ends_its_wait_alone() -> None:
    service = Service()
    service.add("abc", (0, 1), (60, 2))
    *known, unknown = run(collect_all(service, ["a", "b", "c", "unknown"]))
    assert isinstance(unknown, ModelArtsNotFoundError)
    assert [kinds(events) for events in known] == [[Changed, Ended]] * 3


@pytest.mark.parametrize("value", ["", ".", None, 7, ["a", "b"], {"task_id": "a"}])
def test_an_invalid_id_is_refused_before_anything_is_opened(value: Any) -> None:
    service = Service()
    with pytest.raises(ModelArtsRequestError, match="is not the id of a processing task"):
        run(collect(watch(service, value)))
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
def test_a_refused_connection_ends_all_its_waits_after_few_requests(
    code: str | None, status: int, kind: type[ModelArtsError], waits: int
) -> None:
    service = Service(latency=0.1, fault=lambda _: error_response(status, code) if now() > 20 else None)
    service.add(names(waits), *FOREVER)
    errors = run(collect_all(service, names(waits)))
    assert [type(error) for error in errors] == [kind] * waits
    assert len({id(error) for error in errors}) == waits, "each wait raises a copy, since raising changes an exception"
    assert service.count(since=20) <= 2 + CONCURRENCY
    assert (service.opened, service.closed) == (1, 1)


@pytest.mark.parametrize("code", ["ModelArts.0203", "ModelArts.0206"])
def test_credentials_that_are_refused_with_status_403_end_all_waits(code: str) -> None:
    service = Service(fault=lambda _: error_response(403, code))
    service.add("abc", (0, 1), (60, 2))
    assert [type(error) for error in run(collect_all(service, "abc"))] == [ModelArtsAuthenticationError] * 3
    assert sum(not call.is_list for call in service.calls) == 1


def test_a_permission_that_is_missing_for_one_task_ends_its_wait_alone() -> None:
    service = Service(fault=lambda call: error_response(403) if call.task_id == "a" else None)
    service.add("abc", (0, 1), (60, 2))
    # The lists show the task while it is active. It is read by id only when it has ended.
    forbidden, *others = run(collect_all(service, "abc"))
    assert isinstance(forbidden, ModelArtsAuthenticationError)
    assert [kinds(events) for events in others] == [[Changed, Ended]] * 2


class UncopyableError(Exception):
    """It cannot be made from its ``args``, and so it cannot be copied."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


@pytest.mark.parametrize("defect", [RuntimeError("a defect"), UncopyableError(reason="a defect")])
@pytest.mark.parametrize("operation", ["ListProcessorTasks", "DescribeProcessorTask"])
def test_a_defect_fails_the_waits_instead_of_hanging_them(defect: Exception, operation: str) -> None:
    service = Service(latency=0.1, fault=lambda call: defect if call.name == operation and now() > 20 else None)
    service.add(names(40), (0, 1), (30, 2))
    errors = run(collect_all(service, names(40)))
    assert {type(error) for error in errors} == {type(defect)}
    assert all(error.__traceback__ for error in errors)
    assert service.count(operation, since=20) <= 1 + CONCURRENCY


# Joining and leaving


def test_a_wait_after_a_fatal_error_starts_a_new_watcher() -> None:
    refused, corrected = Service(fault=lambda _: error_response(400, "ModelArts.0210")), Service()
    corrected.add("ab", (0, 1), (100, 2))

    async def join_after_the_error() -> list[Any]:
        # This wait has not read the error when the next one joins, so the old watcher is not closed yet.
        unread = asyncio.create_task(collect(watch(refused, "a")))
        with pytest.raises(ModelArtsConfigurationError):
            await collect(watch(refused, "a"))
        events = await collect(watch(corrected, "b"))
        return [events, *await asyncio.gather(unread, return_exceptions=True)]

    events, error = run(join_after_the_error())
    assert kinds(events) == [Changed, Ended]
    assert isinstance(error, ModelArtsConfigurationError)
    assert (refused.opened, refused.closed, corrected.opened, corrected.closed) == (1, 1, 1, 1)


def test_a_watcher_with_a_fatal_error_accepts_no_wait() -> None:
    refused, corrected = Service(fault=lambda _: error_response(400, "ModelArts.0210")), Service()
    corrected.add("b", (0, 2))

    async def join_before_every_wait_has_read_its_error() -> Timed:
        readers = [asyncio.create_task(collect(watch(refused, "a"))) for _ in range(3)]
        await asyncio.sleep(0)
        late = asyncio.create_task(collect(watch(refused, "a")))
        await asyncio.gather(*readers, return_exceptions=True)
        events = await collect(watch(corrected, "b"))
        assert isinstance((await asyncio.gather(late, return_exceptions=True))[0], ModelArtsConfigurationError)
        return events

    assert kinds(run(join_before_every_wait_has_read_its_error())) == [Ended]


def test_the_last_wait_closes_the_connection_and_the_next_one_opens_it_again() -> None:
    service = Service()
    service.add("ab", (0, 1), (20, 2), (30, 1), (50, 2))

    async def wait_twice() -> None:
        await asyncio.gather(collect(watch(service, "a")), collect(watch(service, "b"), after=3))
        assert (service.opened, service.closed) == (1, 1)
        await asyncio.sleep(10)
        await collect(watch(service, "a"))
        assert (service.opened, service.closed) == (2, 2)

    run(wait_twice())


def test_each_connection_has_its_own_watcher() -> None:
    service = Service()
    service.add("ab", (0, 2))

    async def watch_both() -> None:
        await asyncio.gather(collect(watch(service, "a", key="one")), collect(watch(service, "b", key="two")))

    run(watch_both())
    assert (service.opened, service.closed) == (2, 2)


def test_leaving_early_closes_the_connection_with_the_last_wait() -> None:
    service = Service(latency=1.0)
    service.add("ab", *FOREVER)

    async def leave() -> None:
        events: Timed = []
        first = asyncio.create_task(collect(watch(service, "a"), events))
        await asyncio.sleep(7)
        assert [event for _, event in events] == [Changed(1)]
        second = asyncio.create_task(collect(watch(service, "b")))
        await asyncio.sleep(12)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert service.closed == 0
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert service.closed == 1

    run(leave())


@pytest.mark.parametrize("after", [0.0, 5.0, 5.3, 5.7])
def test_a_wait_can_be_cancelled_at_any_time(after: float) -> None:
    service = Service(latency=0.5)
    service.add(names(20), (0, 2))
    run_for(after, service, names(20))
    assert service.opened == service.closed


def test_a_wait_that_is_cancelled_again_while_it_closes_still_closes() -> None:
    service = Service()
    service.add("a", *FOREVER)

    async def cancel_twice() -> None:
        reader = asyncio.create_task(collect(watch(service, "a")))
        await asyncio.sleep(7)
        reader.cancel()
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert service.closed == 1

    run(cancel_twice())


def test_each_event_loop_has_its_own_watcher() -> None:
    service = Service()
    service.add("ab", (0, 1), (60, 2))

    async def wait_and_start_another_loop() -> None:
        has_event = asyncio.Event()
        first = asyncio.create_task(watch(service, "a", 0.1)(on_event=lambda _: has_event.set()))
        await has_event.wait()
        await asyncio.to_thread(run, collect(watch(service, "b")))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    asyncio.run(asyncio.wait_for(wait_and_start_another_loop(), 30))
    assert (service.opened, service.closed) == (2, 2)


def test_a_watcher_runs_in_a_context_of_its_own() -> None:
    """The triggerer routes log lines by context variables, and a watcher works for all triggers."""
    trigger: contextvars.ContextVar[str] = contextvars.ContextVar("trigger", default="none")
    seen: set[str] = set()
    service = Service(fault=lambda _: seen.add(trigger.get()))
    service.add("a", (0, 2))

    async def wait_in_a_context() -> None:
        trigger.set("the first one")
        await collect(watch(service, "a"))

    run(wait_in_a_context())
    assert seen == {"none"}
