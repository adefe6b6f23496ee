"""Which requests a round needs: tables, without an event loop."""

from collections.abc import Sequence
from typing import Any

import pytest

from airflow_modelarts.api.errors import (
    ModelArtsAuthenticationError,
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsNotFoundError,
    ModelArtsThrottledError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.statuses import ProcessorTaskStatus
from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling.plan import CONCURRENCY, FORBIDDEN_LIST_DELAY, DescribeQueue, ListHistory, plan_round
from airflow_modelarts.polling.wait import Wait

RUNNING, INITIALIZED = ProcessorTaskStatus.RUNNING, ProcessorTaskStatus.INITIALIZED
A, B, C, D = (Target(name) for name in "abcd")
VERSION = Target("a", "v")
THROTTLED = ModelArtsThrottledError("slow down", http_status=429)
OVERLOADED = ModelArtsTransientError("unavailable", http_status=503)
BROKEN = ModelArtsTransientError("broken", http_status=500)
UNKNOWN = ModelArtsNotFoundError("unknown", http_status=404)
FORBIDDEN = ModelArtsAuthenticationError("forbidden", http_status=403)
REFUSED = ModelArtsAuthenticationError("refused", http_status=401)
WRONG = ModelArtsConfigurationError("wrong project", http_status=400)


def wait(target: Target = A, *, due: float = 100.0, interval: float = 10.0, **fields: Any) -> Wait:
    return Wait(target, interval, due, **fields)


# plan_round, at 100 seconds


ROUNDS: dict[str, tuple[list[Wait], list[Target], dict[str, set[Target]]]] = {
    "no wait": ([], [], {}),
    "a wait that is due": ([wait(A)], [A], {"0": {A}}),
    "within half its interval": ([wait(A, due=105)], [A], {"0": {A}}),
    "not yet due": ([wait(A, due=105.1)], [], {}),
    "within half a longer interval": ([wait(A, due=105.1, interval=60)], [A], {"0": {A}}),
    "the longest due first": ([wait(A, due=99), wait(B, due=90), wait(C, due=95)], [B, C, A], {"0": {A, B, C}}),
    "two waits for one target": ([wait(A, due=99), wait(B, due=98), wait(A, due=97)], [A, B], {"0": {A, B}}),
    "by workspace": ([wait(A, workspace_id="w"), wait(B)], [A, B], {"w": {A}, "0": {B}}),
    "a version is in no list": ([wait(VERSION), wait(A)], [VERSION, A], {"0": {A}}),
    "a version alone": ([wait(VERSION)], [VERSION], {}),
}


@pytest.mark.parametrize("case", ROUNDS)
def test_a_round_polls_what_is_due(case: str) -> None:
    waits, by_id, missing = ROUNDS[case]
    plan = plan_round(waits, 100.0)
    assert (plan.by_id(), dict(plan.missing)) == (by_id, missing)


def test_targets_that_the_lists_show_are_not_read_by_id() -> None:
    plan = plan_round([wait(A), wait(B), wait(VERSION)], 100.0)
    plan.missing["0"].discard(A)
    assert plan.by_id() == [B, VERSION]


def test_a_target_is_failing_if_any_of_its_waits_failed_even_if_not_due() -> None:
    assert plan_round([wait(A), wait(A, due=500, failures=1), wait(B)], 100.0).failing == {A}


# ListHistory


@pytest.mark.parametrize(
    ("pages", "status", "read", "most_by_id"),
    [
        ((1, 1), RUNNING, 0, 2),
        ((0, 0), RUNNING, 0, 2),
        ((5, 1), RUNNING, 0, 6),
        ((5, 3), RUNNING, 0, 8),
        ((5, 3), RUNNING, 4, 4),
        ((5, 3), RUNNING, 5, 3),
        ((5, 3), RUNNING, 9, 3),
        ((5, 3), INITIALIZED, 0, 3),
        ((5, 3), INITIALIZED, 2, 1),
        ((5, 3), INITIALIZED, 3, 0),
    ],
)
def test_lists_are_read_while_they_take_fewer_requests_than_the_targets(
    pages: tuple[int, int], status: ProcessorTaskStatus, read: int, most_by_id: int
) -> None:
    history = ListHistory(dict(zip((RUNNING, INITIALIZED), pages, strict=True)))
    assert not history.is_worth_reading(status, most_by_id, read)
    assert history.is_worth_reading(status, most_by_id + 1, read)


@pytest.mark.parametrize(("count", "pages"), [(None, 3), (0, 0), (1, 1), (100, 1), (101, 2), (950, 10)])
def test_the_count_of_a_list_tells_its_pages(count: int | None, pages: int) -> None:
    history = ListHistory()
    history.record_page(RUNNING, 3, count)
    assert history.pages == {RUNNING: pages, INITIALIZED: 1}


@pytest.mark.parametrize(("status", "pages"), [(RUNNING, (9, 18)), (INITIALIZED, (10, 18))])
def test_the_page_counts_of_unread_lists_fade(status: ProcessorTaskStatus, pages: tuple[int, int]) -> None:
    history = ListHistory({RUNNING: 10, INITIALIZED: 20})
    history.record_unread(status)
    assert (history.pages[RUNNING], history.pages[INITIALIZED]) == pages


@pytest.mark.parametrize(
    ("error", "failures", "interval", "least", "most"),
    [
        (OVERLOADED, 0, 60, 0.5, 1.0),
        (OVERLOADED, 0, 1, 0.1, 0.2),
        (OVERLOADED, 1, 60, None, None),
        (ModelArtsTransientError("later", retry_after=5), 0, 60, None, None),
        (THROTTLED, 0, 60, None, None),
        (FORBIDDEN, 0, 60, None, None),
    ],
)
def test_only_the_first_transient_error_of_the_lists_has_a_second_try(
    error: ModelArtsError, failures: int, interval: float, least: float | None, most: float | None
) -> None:
    delay = ListHistory(failures=failures).second_try_delay(error, interval)
    assert delay is None if least is None or most is None else delay is not None and least <= delay <= most


@pytest.mark.parametrize(
    ("error", "failures", "least", "most"),
    [
        (FORBIDDEN, 0, FORBIDDEN_LIST_DELAY, FORBIDDEN_LIST_DELAY),
        (OVERLOADED, 0, 8, 12),
        (OVERLOADED, 2, 32, 48),
        (OVERLOADED, 50, 240, 360),
        (ModelArtsTransientError("later", retry_after=90), 0, 90, 90),
    ],
)
def test_failed_lists_are_skipped_for_a_time(error: ModelArtsError, failures: int, least: float, most: float) -> None:
    history = ListHistory(failures=failures)
    history.record_failure(error, now=1000.0, interval=20.0)
    assert least <= history.skip_until - 1000.0 <= most
    assert history.failures == failures + error.temporary


# DescribeQueue: each answer is None or an error


def drain(queue: DescribeQueue, answers: dict[Target, Sequence[Exception | None]]) -> list[Target]:
    """Read a queue one by one, as the watcher does; the last answer of a target repeats. Return the requests."""
    sent: list[Target] = []
    left = {target: list(given) for target, given in answers.items()}

    def read_one() -> bool:
        target = queue.take(answers)
        if target is None:
            return False
        sent.append(target)
        given = left[target]
        if error := given.pop(0) if len(given) > 1 else given[0]:
            queue.record_error(target, error)
        else:
            queue.record_answer(target)
        return True

    read_one()
    while queue.start_pass():
        while read_one():
            pass
        queue.repeat_overloaded()
    return sent


@pytest.mark.parametrize(
    ("answers", "sent", "errors", "is_answered"),
    [
        ({A: [None], B: [None]}, [A, B], {}, True),
        ({A: [UNKNOWN], B: [None]}, [A, B], {A: UNKNOWN}, True),
        ({A: [BROKEN], B: [None]}, [A, B], {A: BROKEN}, True),
        ({A: [BROKEN], B: [UNKNOWN]}, [A, B], {A: BROKEN, B: UNKNOWN}, True),
        ({A: [BROKEN], B: [BROKEN]}, [A, B], {A: BROKEN, B: BROKEN}, False),
        ({A: [FORBIDDEN], B: [None]}, [A, B], {A: FORBIDDEN}, True),
        ({A: [OVERLOADED, None], B: [None]}, [A, B, A], {}, True),
        ({A: [OVERLOADED], B: [None]}, [A, B, A], {A: OVERLOADED}, True),
        ({A: [OVERLOADED], B: [OVERLOADED]}, [A, B], {A: OVERLOADED, B: OVERLOADED}, False),
        ({A: [None], B: [THROTTLED, None], C: [None]}, [A, B, C, B], {}, True),
        ({A: [THROTTLED], B: [None]}, [A], {A: THROTTLED}, False),
    ],
)
def test_the_errors_of_some_targets_do_not_stop_the_others(
    answers: dict[Target, Sequence[Exception | None]],
    sent: list[Target],
    errors: dict[Target, Exception],
    is_answered: bool,
) -> None:
    queue = DescribeQueue(list(answers))
    assert drain(queue, answers) == sent
    assert (queue.errors, queue.is_answered, queue.fatal) == (errors, is_answered, None)


@pytest.mark.parametrize("error", [REFUSED, WRONG, RuntimeError("a defect")])
def test_an_error_that_concerns_all_waits_stops_the_round(error: Exception) -> None:
    queue = DescribeQueue([A, B, C])
    assert drain(queue, {A: [None], B: [error], C: [None]}) == [A, B]
    assert queue.fatal is error
    assert queue.probe([wait(D)]) is None


def test_a_round_without_an_answer_stops_after_few_requests() -> None:
    targets = [Target(f"task {number}") for number in range(100)]
    assert len(drain(DescribeQueue(targets), dict.fromkeys(targets, (BROKEN,)))) == 1 + CONCURRENCY


def test_throttling_in_a_row_stops_a_round_that_was_answered_before() -> None:
    targets = [Target(f"task {number}") for number in range(100)]
    answers: dict[Target, Any] = dict.fromkeys(targets, (THROTTLED,))
    assert len(drain(DescribeQueue(targets, is_answered=True), answers)) == CONCURRENCY
    assert len(drain(DescribeQueue(targets), {**answers, targets[0]: [None]})) == 1 + CONCURRENCY


def test_a_target_that_failed_in_the_round_before_is_not_repeated() -> None:
    assert drain(DescribeQueue([A, B, C], {B}), {A: [None], B: [OVERLOADED], C: [None]}) == [A, B, C]


def test_a_target_whose_waits_have_left_is_not_read() -> None:
    assert drain(DescribeQueue([A, B, C]), {A: [None], C: [None]}) == [A, C]


@pytest.mark.parametrize(
    ("errors", "is_answered", "others", "control"),
    [
        ([BROKEN], False, [wait(B)], B),
        ([BROKEN], False, [wait(A), wait(B, failures=1), wait(C)], C),
        ([BROKEN], False, [wait(A), wait(B, failures=1)], None),
        ([BROKEN], True, [wait(B)], None),
        ([UNKNOWN], False, [wait(B)], None),
        ([THROTTLED], False, [wait(B)], None),
        ([None], False, [wait(B)], None),
    ],
)
def test_another_target_tells_an_outage_from_errors_of_the_targets_that_are_due(
    errors: list[Exception | None], is_answered: bool, others: list[Wait], control: Target | None
) -> None:
    queue = DescribeQueue([A], is_answered=is_answered)
    drain(queue, {A: errors})
    assert queue.probe(others) == control
