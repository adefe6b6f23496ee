"""Lists end with any repeated answers of the service."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_modelarts.api import operations
from airflow_modelarts.api.http import Response
from airflow_modelarts.api.operations import ListOperation
from tests.support.flows import ONCE, answer, client, pages, run_flow

LISTS: dict[str, tuple[ListOperation[Any], str]] = {
    "tasks": (operations.list_processor_tasks(limit=2), "task_id"),
    "items": (operations.list_processor_task_items(limit=2), "template_id"),
    "versions": (operations.list_processor_task_versions("t", limit=2), "task_version_id"),
    "results": (operations.list_processor_task_version_results("t", "v", limit=2), "sample_id"),
}
IDS = st.sampled_from(["a", "b", "c", "d"])
COUNTS = st.none() | st.integers(-1, 10**30)
PAGES = st.lists(
    st.tuples(st.lists(IDS | st.none(), min_size=1, max_size=3), COUNTS, st.none() | st.booleans()),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([*LISTS]), PAGES)
def test_a_list_with_repeating_pages_ends(name: str, circle: list[Any]) -> None:
    operation, identity = LISTS[name]
    named = "task_id" if name == "tasks" else identity  # a task without an id is none

    def bodies() -> Iterator[Response]:
        for ids, count, has_more in itertools.cycle(circle):
            items = [{named: given or ("a" if name == "tasks" else None), "label_en": f"of {given}"} for given in ids]
            yield answer({name: items, "count": count, "total": count, "has_more": has_more})

    served = bodies()
    result = run_flow(pages(operation, ONCE), lambda request: next(served), clients=client(), max_steps=60)
    # Twice around, and what four items in hand can fill of pages of two.
    assert len(result.requests) <= 2 * len(circle) + 3
    found = [operation.identify(item) for page in result.pages for item in page.items]
    identities = [identity for identity in found if identity is not None]
    assert len(identities) == len(set(identities))


@pytest.mark.parametrize("name", ["items", "versions"])
def test_alternating_pages_of_items_without_identity_end_the_list(name: str) -> None:
    operation, _ = LISTS[name]
    labels = itertools.cycle("ab")
    result = run_flow(
        pages(operation, ONCE),
        lambda request: answer({name: [{"label_en": next(labels), "name": "n"}, {}]}),
        clients=client(),
        max_steps=20,
    )
    assert len(result.pages) == 2
