"""Reading a list that is sorted newest first: where it stops, and what it does if the order does not hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.api.newest_first import NewestFirst

OLDEST = 1_000_000


def listed(moments: Sequence[int | None]) -> Iterator[ProcessorTask]:
    for moment in moments:
        yield ProcessorTask.model_validate({"task_id": "abc", "status": 2, "create_time": moment})


def read(moments: Sequence[int | None], oldest: int | None = OLDEST) -> tuple[list[int | None], bool]:
    """Return the moments of the tasks that are read, and whether the order held."""
    tasks = NewestFirst(listed(moments), oldest)
    return [task.create_time for task in tasks], tasks.order_held


def newer(count: int) -> list[int | None]:
    return [OLDEST + number for number in reversed(range(count))]


def older(count: int) -> list[int | None]:
    return [OLDEST - 1 - number for number in range(count)]


@pytest.mark.parametrize(
    ("within", "pages"), [(0, 2), (1, 2), (99, 2), (100, 3), (101, 3), (250, 4)], ids=lambda number: str(number)
)
def test_it_reads_one_page_beyond_the_one_with_the_first_older_task(within: int, pages: int) -> None:
    moments = [*newer(within), *older(1000)]
    assert read(moments) == (moments[: 100 * pages], True)


@given(st.lists(st.none() | st.integers(OLDEST - 50, OLDEST + 50), max_size=200))
def test_no_task_is_missed_in_a_list_of_two_pages_whatever_its_order(moments: list[int | None]) -> None:
    found, order_held = read(moments)
    wanted = [moment for moment in moments if moment is not None and moment >= OLDEST]
    assert [moment for moment in found if moment is not None and moment >= OLDEST] == wanted
    dated = [moment for moment in found if moment is not None]
    assert order_held == (dated == sorted(dated, reverse=True))


@pytest.mark.parametrize(
    "moments",
    [
        [*newer(50), OLDEST - 5, *newer(50), *older(1000), OLDEST + 7],
        [*older(120), *newer(3)],
        [*reversed(older(1000)), *reversed(newer(1000))],
        [OLDEST + 5, OLDEST + 6, *older(1000), OLDEST + 1],
        [*newer(99), OLDEST - 5, OLDEST + 200, *older(1000), OLDEST + 7],
    ],
    ids=["straggler", "a page of stragglers", "oldest first", "newer tasks swapped", "straggler at the end of a page"],
)
def test_a_list_out_of_order_is_read_to_its_end(moments: list[int | None]) -> None:
    assert read(moments) == (moments, False)


def test_tasks_of_one_instant_are_in_order() -> None:
    moments = [OLDEST] * 50 + [OLDEST - 1] * 500
    assert read(moments) == (moments[:200], True)


@pytest.mark.parametrize("oldest", [OLDEST, None])
def test_tasks_without_a_moment_end_nothing_and_are_in_any_order(oldest: int | None) -> None:
    moments = [None, *newer(3), *[None] * 500]
    assert read(moments, oldest) == (moments, True)


def test_without_a_moment_the_whole_list_is_read() -> None:
    moments = [*newer(3), *older(1000)]
    assert read(moments, None) == (moments, True)
