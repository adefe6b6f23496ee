"""The trigger for asset watchers: what it picks out, what it keeps, and how it is stored."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.completions import Picture
from airflow_modelarts.triggers import ProcessorTaskEventTrigger

ANALYSIS = {
    "task_id": "a",
    "name": "nightly-analysis",
    "status": 2,
    "create_time": 4_000_000_000_000,
    "template": {"id": "sys_data_analyse"},
    "data_source": {"type": "DATASET", "source": "dataset-1"},
    "result": {"big": "thing"},
}
CLEANING = {
    "task_id": "c",
    "name": "cleaning",
    "status": 3,
    "create_time": 4_000_000_000_000,
    "template": {"id": "sys_data_cleaning"},
    "inputs": [{"type": "OBS", "source": "obs://bucket/in/"}, {"type": "DATASET", "source": "dataset-1"}],
    "error_msg": "broken",
}


class Store:
    """As much of Airflow's asset state store as the trigger uses."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def aget(self, key: str) -> Any:
        return json.loads(self.values[key]) if key in self.values else None

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value)


async def stream(*rounds: list[dict[str, Any]]) -> AsyncGenerator[Picture, None]:
    for tasks in rounds:
        parsed = {one["task_id"]: ProcessorTask.model_validate(one) for one in tasks}
        yield Picture({i: one for i, one in parsed.items() if not one.is_terminal}, parsed, 0)


async def fired(trigger: ProcessorTaskEventTrigger, *rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event.payload async for event in trigger.filter_shared_stream(stream(*rounds))]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, {"a", "c"}),
        ({"template_ids": ["sys_data_analyse"]}, {"a"}),
        ({"sources": ["dataset-1"]}, {"a", "c"}),
        ({"sources": ["obs://bucket/in/"]}, {"c"}),
        ({"sources": ["nothing"]}, set()),
        ({"name_prefix": "nightly"}, {"a"}),
        ({"statuses": [3, 4]}, {"c"}),
        ({"statuses": [2], "name_prefix": "clean"}, set()),
    ],
)
async def test_it_fires_for_the_ends_that_it_is_for(filters: dict[str, Any], names: set[str]) -> None:
    payloads = await fired(ProcessorTaskEventTrigger(**filters), [ANALYSIS, CLEANING])
    assert {payload["task_id"] for payload in payloads} == names


async def test_an_event_is_the_task_without_its_result() -> None:
    (payload,) = await fired(ProcessorTaskEventTrigger(), [ANALYSIS])
    assert payload == {**{k: v for k, v in ANALYSIS.items() if k != "result"}, "status_name": "completed"}


async def test_no_end_is_told_twice_even_by_another_triggerer() -> None:
    store = Store()
    first, second = ProcessorTaskEventTrigger(), ProcessorTaskEventTrigger()
    first.asset_state_store = second.asset_state_store = store  # type: ignore[assignment]  # it only gets and sets
    assert len(await fired(first, [ANALYSIS], [ANALYSIS])) == 1
    assert [payload["task_id"] for payload in await fired(second, [ANALYSIS, CLEANING])] == ["c"]


async def test_two_triggers_of_one_asset_keep_their_books_apart() -> None:
    store = Store()
    for trigger in (ProcessorTaskEventTrigger(statuses=[2]), ProcessorTaskEventTrigger(statuses=[3])):
        trigger.asset_state_store = store  # type: ignore[assignment]  # it only gets and sets
        assert len(await fired(trigger, [ANALYSIS, CLEANING])) == 1
    assert len(store.values) == 2


async def test_without_a_store_it_tells_what_ends_from_now_on() -> None:
    long_ago = {**ANALYSIS, "create_time": 1000}
    assert await fired(ProcessorTaskEventTrigger(), [long_ago], [long_ago, CLEANING]) == await fired(
        ProcessorTaskEventTrigger(), [CLEANING]
    )


def test_what_it_serializes_makes_it_again() -> None:
    trigger = ProcessorTaskEventTrigger("mine", "p", "w", ["t"], ["s"], "n", [2], 5)
    path, arguments = trigger.serialize()
    assert path == "airflow_modelarts.triggers.ProcessorTaskEventTrigger"
    again = ProcessorTaskEventTrigger(**json.loads(json.dumps(arguments)), what_a_later_version_adds=1)
    assert again.serialize() == trigger.serialize()


def test_only_triggers_that_can_share_a_poll_have_the_same_key() -> None:
    assert (
        ProcessorTaskEventTrigger(statuses=[2]).shared_stream_key()
        == ProcessorTaskEventTrigger(name_prefix="x").shared_stream_key()
    )
    assert ProcessorTaskEventTrigger().shared_stream_key() != ProcessorTaskEventTrigger("other").shared_stream_key()


def test_a_status_that_is_no_end_is_refused() -> None:
    with pytest.raises(ValueError, match="only 2, 3 and 4"):
        ProcessorTaskEventTrigger(statuses=[1])
