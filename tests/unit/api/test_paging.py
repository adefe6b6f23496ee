"""Tests of reading a list page by page."""

import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import ModelArtsThrottledError
from airflow_modelarts.api.http import ReadConnection, Request, Response
from airflow_modelarts.api.operations import Page
from tests.support.flows import FIVE_TIMES, ONCE, TIMEOUT, FlowResult, answer, client, pages, refuse, run_flow


class Listed:
    """A service's list of tasks that can change between two answers.

    :param most: items a page at most, whatever is requested.
    """

    def __init__(
        self, ids: list[str], *, shift: Iterator[list[str]] | None = None, most: int = 100, **extra: Any
    ) -> None:
        self.ids = ids
        self.shift = shift
        self.most = most
        self.extra = extra
        self.offsets: list[int] = []

    def __call__(self, request: Request) -> Response:
        query = dict(parse_qsl(urlsplit(request.url).query))
        limit, offset = min(int(query["limit"]), self.most), int(query["offset"])
        self.offsets.append(offset)
        part = self.ids[offset * limit : (offset + 1) * limit]
        content = {"count": len(self.ids), "tasks": [{"task_id": one} for one in part], **self.extra}
        if self.shift is not None:
            self.ids = next(self.shift, self.ids)
        return answer({name: value for name, value in content.items() if value is not None})


def read_all(service: Listed, limit: int = 3) -> FlowResult[None]:
    return run_flow(pages(operations.list_processor_tasks(limit=limit), ONCE), service, clients=client(), max_steps=400)


def ids_of(result: FlowResult[None]) -> list[str]:
    return [task.task_id for page in result.pages for task in page.items]


def numbered(count: int) -> list[str]:
    return [f"t{number}" for number in range(count)]


@pytest.mark.parametrize(
    ("count", "fields", "requests"),
    [
        (0, {}, 1),
        (2, {}, 1),
        (3, {}, 1),
        (3, {"count": None}, 2),
        (4, {"count": None}, 2),
        (8, {}, 3),
        (6, {"count": 6}, 2),
        (6, {"count": 7}, 3),
        (3, {"has_more": False, "count": 99}, 2),
        (3, {"has_more": True, "count": 3}, 1),
        (6, {"has_more": False}, 2),
        (6, {"has_more": False, "count": None}, 3),
        (7, {"has_more": False, "count": None}, 3),
        (7, {"has_more": True, "count": None}, 3),
        (7, {"has_more": "perhaps", "count": "many"}, 3),
        (6, {"count": 0}, 3),
        (6, {"count": -1}, 3),
        (6, {"count": {}}, 3),
        (6, {"count": "6"}, 2),
        (6, {"count": 6.0}, 2),
        (6, {"count": True}, 3),
    ],
    ids=str,
)
def test_no_page_is_requested_without_need(count: int, fields: dict[str, Any], requests: int) -> None:
    service = Listed(numbered(count), **fields)
    assert ids_of(read_all(service)) == numbered(count)
    assert len(service.offsets) == requests


def test_an_empty_page_ends_a_list_whose_count_is_too_large() -> None:
    service = Listed(numbered(4), count=1000)
    assert ids_of(read_all(service)) == numbered(4)
    assert service.offsets == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("has_more", [True, False, None])
def test_a_list_is_read_completely_if_the_service_limits_its_pages(count: int, has_more: bool | None) -> None:
    service = Listed(numbered(count), most=2, has_more=has_more)
    assert ids_of(read_all(service, limit=100)) == numbered(count)
    assert len(service.offsets) == -(-count // 2)


def test_a_repeated_short_page_ends_a_list_whose_count_is_too_large() -> None:
    def stuck(request: Request) -> Response:
        return answer({"count": 99, "tasks": [{"task_id": one} for one in "ab"]})

    result = run_flow(pages(operations.list_processor_tasks(limit=3), ONCE), stuck, clients=client(), max_steps=50)
    assert ids_of(result) == ["a", "b"]
    assert len(result.requests) == 2


def test_a_list_that_grows_or_shrinks_takes_no_further_request() -> None:
    for later in (["new", *numbered(5)], numbered(5)[1:]):
        service = Listed(numbered(5), shift=iter([later]))
        read_all(service, limit=4)
        assert service.offsets == [0, 1]


def test_a_repeated_item_is_returned_once() -> None:
    # A task is created at the top between the pages, so the last item of the first page is repeated.
    service = Listed(numbered(5), shift=iter([["new", *numbered(5)]]))
    assert ids_of(read_all(service)) == numbered(5)


@pytest.mark.parametrize(
    ("created", "fields"),
    [*((created, {}) for created in (1, 3, 4, 5, 6, 7, 30)), (4, {"count": None}), (6, {"count": None})],
)
def test_items_created_between_two_pages_do_not_end_the_list(created: int, fields: dict[str, None]) -> None:
    before = [*numbered(6), *"abcd"]
    after = [*(f"new{number}" for number in range(created)), *before]
    assert set(ids_of(read_all(Listed(before, shift=iter([before, after]), **fields)))) >= set(before)


def test_a_list_ends_although_its_count_always_grows() -> None:
    numbers = itertools.count(100, 100)
    turns = itertools.cycle(["abc", "def", "ghi"])

    def stuck(request: Request) -> Response:
        return answer({"count": next(numbers), "has_more": True, "tasks": [{"task_id": one} for one in next(turns)]})

    result = run_flow(pages(operations.list_processor_tasks(limit=3), ONCE), stuck, clients=client(), max_steps=50)
    assert ids_of(result) == [*"abcdefghi"]
    assert len(result.requests) == 7


def odd_items(number: int, limit: int) -> list[Any]:
    """Return a page of tasks without ids, which differ."""
    return [{"name": f"n{number}-{index}"} for index in range(limit)]


@pytest.mark.parametrize("odd", [None, "t", {"status": 3}], ids=str)
def test_a_page_with_an_unreadable_item_does_not_end_the_list(odd: Any) -> None:
    listed: list[Any] = [{"task_id": one} for one in numbered(8)]
    listed[1] = odd

    def serve(request: Request) -> Response:
        offset = int(dict(parse_qsl(urlsplit(request.url).query))["offset"])
        return answer({"count": 8, "tasks": listed[offset * 3 : offset * 3 + 3]})

    result = run_flow(pages(operations.list_processor_tasks(limit=3), ONCE), serve, clients=client())
    assert ids_of(result) == ["t0", *numbered(8)[2:]]
    assert [(page.number, [item.index for item in page.unreadable]) for page in result.pages] == [
        (0, [1]),
        (1, []),
        (2, []),
    ]
    assert len(result.requests) == 3


def test_pages_of_unreadable_items_do_not_end_the_list() -> None:
    contents = [odd_items(0, 3), odd_items(1, 3), [{"task_id": "t"}]]
    answers = [answer({"count": 7, "tasks": content}) for content in contents]
    result = run_flow(pages(operations.list_processor_tasks(limit=3), ONCE), answers, clients=client())
    assert ids_of(result) == ["t"]
    assert sum(len(page.unreadable) for page in result.pages) == 6


def test_an_unreadable_item_that_a_shift_repeats_is_reported_once() -> None:
    odd = {"name": "odd", "create_time": 1}
    contents = [[{"task_id": "a"}, {"task_id": "b"}, odd], [odd, {"task_id": "c"}]]
    answers = [answer({"tasks": content}) for content in contents]
    result = run_flow(pages(operations.list_processor_tasks(limit=3), ONCE), answers, clients=client())
    assert ids_of(result) == ["a", "b", "c"]
    assert sum(len(page.unreadable) for page in result.pages) == 1


def test_a_list_of_unreadable_items_ends_although_the_service_ignores_the_offset() -> None:
    def serve(request: Request) -> Response:
        return answer({"count": 99, "tasks": [None, 1, {"status": 3}]})

    result = run_flow(pages(operations.list_processor_tasks(limit=3), ONCE), serve, clients=client(), max_steps=50)
    assert sum(len(page.unreadable) for page in result.pages) == 3


def test_a_last_page_without_items_still_tells_its_count() -> None:
    service = Listed(numbered(6), shift=iter([numbered(3)]))
    result = read_all(service)
    assert [(len(page.items), page.count) for page in result.pages] == [(3, 6), (0, 3)]


def test_an_item_repeated_on_one_page_is_returned_once() -> None:
    assert ids_of(read_all(Listed(["a", "a", "b"]))) == ["a", "b"]


@pytest.mark.parametrize(
    ("turns", "changes", "requests"),
    [(["abc"], False, 2), (["abc"], True, 3), (["abc", "def"], False, 5), (["abc", "def"], True, 5)],
)
@pytest.mark.parametrize("fields", [{}, {"count": 99}], ids=["no count", "count"])
def test_pages_that_repeat_end_the_list(turns: list[str], changes: bool, requests: int, fields: dict[str, int]) -> None:
    pages_of, seconds = itertools.cycle(turns), itertools.count()

    def stuck(request: Request) -> Response:
        tasks = [{"task_id": one, "duration_seconds": next(seconds) if changes else 1} for one in next(pages_of)]
        return answer({**fields, "tasks": tasks})

    result = run_flow(pages(operations.list_processor_tasks(limit=3), ONCE), stuck, clients=client(), max_steps=50)
    assert ids_of(result) == [*"".join(turns)]
    assert len(result.requests) == requests


def test_items_without_an_id_are_all_returned() -> None:
    body = {"total": 2, "items": [{"label_en": "a"}, {"label_en": "b"}]}
    result = run_flow(pages(operations.list_processor_task_items(), ONCE), [answer(body)], clients=client())
    assert [item.label_en for page in result.pages for item in page.items] == ["a", "b"]


def test_a_page_has_the_count_and_has_more_of_the_answer() -> None:
    body = {"count": 1, "has_more": False, "results": [{"sample_id": "s"}]}
    flow = pages(operations.list_processor_task_version_results("t", "v"), ONCE)
    page: Page[Any] = run_flow(flow, [answer(body)], clients=client()).pages[0]
    assert (page.count, page.has_more, len(page.items)) == (1, False, 1)


def test_a_page_is_yielded_before_the_next_one_is_requested() -> None:
    flow = pages(operations.list_processor_tasks(limit=1), ONCE)
    assert flow.send(None) == ReadConnection()
    assert isinstance(flow.send(client()), Request)
    assert isinstance(flow.send(answer({"count": 2, "tasks": [{"task_id": "a"}]})), Page)
    assert flow.send(None) == ReadConnection()


def test_a_failed_page_is_retried() -> None:
    first, second = (answer({"count": 2, "tasks": [{"task_id": one}]}) for one in "ab")
    flow = pages(operations.list_processor_tasks(limit=1), FIVE_TIMES)
    assert ids_of(run_flow(flow, [first, TIMEOUT, refuse(503), second], clients=client())) == ["a", "b"]


def test_a_page_that_fails_permanently_ends_the_list_with_its_error() -> None:
    first = answer({"count": 2, "tasks": [{"task_id": "a"}]})
    result = run_flow(pages(operations.list_processor_tasks(limit=1), ONCE), [first, refuse(429)], clients=client())
    assert isinstance(result.error, ModelArtsThrottledError)
    assert ids_of(result) == ["a"]


@pytest.mark.parametrize("has_more", [True, False, None, "x", 0])
@pytest.mark.parametrize("counted", [True, False])
def test_250_samples_are_returned_with_any_has_more(has_more: Any, counted: bool) -> None:
    def serve(request: Request) -> Response:
        query = dict(parse_qsl(urlsplit(request.url).query))
        limit, offset = int(query["limit"]), int(query["offset"])
        numbers = range(250)[offset * limit : (offset + 1) * limit]
        content = {"results": [{"sample_id": str(number)} for number in numbers], "has_more": has_more}
        return answer(content | ({"count": 250} if counted else {}))

    flow = pages(operations.list_processor_task_version_results("t", "v"), ONCE)
    result: FlowResult[None] = run_flow(flow, serve, clients=client())
    assert [one.sample_id for page in result.pages for one in page.items] == [str(number) for number in range(250)]
    assert len(result.requests) == 3


@pytest.mark.parametrize(("first", "then", "read"), [(6, [6, 8], 6), (6, [8], 8), (9, [6], 6)])
def test_the_count_may_change_while_a_list_is_read(first: int, then: list[int], read: int) -> None:
    assert ids_of(read_all(Listed(numbered(first), shift=map(numbered, then)))) == numbered(read)


ids = st.lists(st.integers(0, 30).map(str), max_size=25)
unique_ids = st.lists(st.integers(0, 99).map(str), max_size=40, unique=True)
counts = st.none() | st.integers(-1, 60)


@settings(deadline=None, max_examples=100)
@given(unique_ids, st.integers(1, 12), st.booleans(), st.booleans())
def test_a_constant_list_is_read_completely(listed: list[str], limit: int, counted: bool, has_more: bool) -> None:
    def serve(request: Request) -> Response:
        offset = int(dict(parse_qsl(urlsplit(request.url).query))["offset"])
        part, rest = listed[offset * limit : (offset + 1) * limit], listed[(offset + 1) * limit :]
        content = {"tasks": [{"task_id": one} for one in part], "has_more": bool(rest) is has_more}
        return answer({**content, "count": len(listed)} if counted else content)

    result = run_flow(pages(operations.list_processor_tasks(limit=limit), ONCE), serve, clients=client())
    assert ids_of(result) == listed
    assert len(result.requests) <= len(listed) // limit + 1


@settings(deadline=None, max_examples=100)
@given(st.lists(ids, min_size=1, max_size=8), st.integers(1, 12), counts, st.none() | st.booleans())
@example([["1"], ["2"]], 1, None, True)
def test_a_list_that_shifts_ends_and_returns_no_item_twice(
    shifts: list[list[str]], limit: int, count: int | None, has_more: bool | None
) -> None:
    service = Listed(shifts[0], shift=iter(shifts[1:]), count=count, has_more=has_more)
    returned = ids_of(read_all(service, limit))
    assert len(returned) == len(set(returned))
    assert set(returned) <= {one for shift in shifts for one in shift}


@settings(deadline=None, max_examples=100)
@given(st.lists(ids, min_size=1, max_size=6), st.integers(1, 6), counts, st.none() | st.booleans(), st.booleans())
@example([["1", "2"], ["2", "1"]], 2, 99, None, False)
def test_a_list_ends_although_the_service_ignores_the_offset(
    answers: list[list[str]], limit: int, count: int | None, has_more: bool | None, changing: bool
) -> None:
    turns = itertools.cycle(answers)
    numbers = itertools.count()

    def serve(request: Request) -> Response:
        extra = {"duration_seconds": next(numbers)} if changing else {}
        content = {"count": count, "has_more": has_more, "tasks": [{"task_id": one, **extra} for one in next(turns)]}
        return answer(content)

    result = run_flow(pages(operations.list_processor_tasks(limit=limit), ONCE), serve, clients=client(), max_steps=200)
    returned = ids_of(result)
    assert len(returned) == len(set(returned))
