"""The trigger for asset watchers: what it picks out, what it keeps, and how it is stored."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.polling import checkpoints
from airflow_modelarts.polling.snapshots import Snapshot
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.triggers import ProcessorTaskEventTrigger
from tests.support.virtual import run

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


#: Seconds between two pictures.
INTERVAL = 60.0
#: In milliseconds.
HOUR = 3_600_000
#: In milliseconds.
HOUR = 3_600_000


class Store:
    """As much of Airflow's asset state store as the trigger uses."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.refusals = 0

    async def aget(self, key: str) -> Any:
        return json.loads(self.values[key]) if key in self.values else None

    async def aset(self, key: str, value: Any) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError("the database is away")
        self.values[key] = json.dumps(value)


def keeping(store: Any, **how: Any) -> ProcessorTaskEventTrigger:
    trigger = ProcessorTaskEventTrigger(**how)
    trigger.asset_state_store = store
    return trigger


async def stream(*rounds: list[dict[str, Any]]) -> AsyncGenerator[Snapshot, None]:
    for tasks in rounds:
        parsed = {one["task_id"]: ProcessorTask.model_validate(one) for one in tasks}
        yield Snapshot({i: one for i, one in parsed.items() if not one.is_terminal}, parsed, 0)
        await asyncio.sleep(INTERVAL)


def fired(
    trigger: ProcessorTaskEventTrigger, *rounds: list[dict[str, Any]], within: float = 1e5
) -> list[dict[str, Any]]:
    """Return what a trigger tells, until its triggerer is killed or nothing more comes."""
    told: list[dict[str, Any]] = []

    async def listen() -> None:
        async for event in trigger.filter_shared_stream(stream(*rounds)):
            told.append(event.payload)

    async def listen_until_killed() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(listen(), within)

    run(listen_until_killed())
    return told


def ids(payloads: list[dict[str, Any]]) -> list[str]:
    return [payload["task_id"] for payload in payloads]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, {"a", "c"}),
        ({"template_ids": ["sys_data_analyse"]}, {"a"}),
        ({"sources": ["dataset-1"]}, {"a", "c"}),
        ({"sources": ["obs://bucket/in/"]}, {"c"}),
        ({"sources": ["s3a://bucket/in"]}, {"c"}),
        ({"sources": ["nothing"]}, set()),
        ({"name_prefix": "nightly"}, {"a"}),
        ({"statuses": [3, 4]}, {"c"}),
        ({"statuses": [2], "name_prefix": "clean"}, set()),
    ],
)
def test_it_fires_for_the_ends_that_it_is_for(filters: dict[str, Any], names: set[str]) -> None:
    payloads = fired(ProcessorTaskEventTrigger(**filters), [ANALYSIS, CLEANING])
    assert {payload["task_id"] for payload in payloads} == names


def test_an_event_is_the_task_without_its_result() -> None:
    (payload,) = fired(ProcessorTaskEventTrigger(), [ANALYSIS])
    assert payload == {**{k: v for k, v in ANALYSIS.items() if k != "result"}, "status_name": "completed"}


def test_no_end_is_told_twice_even_by_another_triggerer() -> None:
    store = Store()
    assert len(fired(keeping(store), [ANALYSIS], [ANALYSIS])) == 1
    assert ids(fired(keeping(store), [ANALYSIS, CLEANING])) == ["c"]


def test_two_triggers_of_one_asset_keep_their_books_apart() -> None:
    store = Store()
    for statuses in ([2], [3]):
        assert len(fired(keeping(store, statuses=statuses), [ANALYSIS, CLEANING])) == 1
    assert len(store.values) == 2


def test_an_end_that_may_not_have_left_the_triggerer_before_it_was_killed_is_told_again() -> None:
    store = Store()
    assert ids(fired(keeping(store), [ANALYSIS], within=checkpoints.SENT_AFTER - 1)) == ["a"]
    assert ids(fired(keeping(store), [ANALYSIS], within=checkpoints.SENT_AFTER + 1)) == ["a"]
    assert ids(fired(keeping(store), [ANALYSIS])) == []


def test_what_it_knows_is_stored_at_once_when_there_is_nothing_to_tell() -> None:
    store = Store()
    fired(keeping(store), [{**ANALYSIS, "status": 1}], within=0.1)
    assert ids(fired(keeping(store), [ANALYSIS])) == ["a"]


def test_an_end_is_told_at_once_whatever_is_yet_to_be_stored() -> None:
    moments: list[float] = []

    async def one_after_the_other() -> AsyncGenerator[Snapshot, None]:
        for count in range(1, 20):
            parsed = {f"t{n}": ProcessorTask.model_validate({**ANALYSIS, "task_id": f"t{n}"}) for n in range(count)}
            yield Snapshot({}, parsed, 0)
            await asyncio.sleep(1.0)

    async def listen() -> None:
        async for _ in keeping(store).filter_shared_stream(one_after_the_other()):
            moments.append(asyncio.get_running_loop().time())

    store = Store()
    run(listen())
    assert moments == pytest.approx(range(19), abs=0.1)
    (known,) = store.values.values()
    assert len(json.loads(known)["ended"]) >= 19 - 2 * checkpoints.SENT_AFTER


def test_a_store_that_is_away_stops_nothing_and_is_tried_again() -> None:
    store = Store()
    store.refusals = 1
    assert ids(fired(keeping(store), [ANALYSIS], [ANALYSIS, CLEANING])) == ["a", "c"]
    assert ids(fired(keeping(store), [ANALYSIS, CLEANING])) == []


def test_another_pace_or_order_forgets_nothing() -> None:
    store = Store()
    fired(keeping(store, statuses=[2, 3], poll_interval=60), [ANALYSIS])
    assert fired(keeping(store, statuses=[3, 2], poll_interval=5), [ANALYSIS]) == []


def test_an_argument_that_a_later_version_adds_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store, serialize = Store(), ProcessorTaskEventTrigger.serialize
    fired(keeping(store, statuses=[2]), [ANALYSIS])

    def with_one_more(trigger: ProcessorTaskEventTrigger) -> tuple[str, dict[str, Any]]:
        path, arguments = serialize(trigger)
        return path, {**arguments, "what_a_later_version_adds": None}

    monkeypatch.setattr(ProcessorTaskEventTrigger, "serialize", with_one_more)
    assert fired(keeping(store, statuses=[2]), [ANALYSIS]) == []


def test_without_a_store_it_tells_what_ends_from_now_on() -> None:
    long_ago = {**ANALYSIS, "create_time": 1000}
    assert ids(fired(ProcessorTaskEventTrigger(), [long_ago], [long_ago, CLEANING])) == ["c"]


# Airflow's own store


class Supervisor:
    """Answers what Airflow's state store asks the supervisor, by the names of assets."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], Any] = {}

    async def asend(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import AssetStateStoreResult, SetAssetStateStoreByName

        if isinstance(message, SetAssetStateStoreByName):
            self.values[message.name, message.key] = message.value
            return None
        value = self.values.get((message.name, message.key))
        return None if value is None else AssetStateStoreResult(value=value)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    from airflow.sdk.execution_time import task_runner

    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    return supervisor


def store_of(*names: str) -> Any:
    """Return the store as the triggerer makes it for a trigger that is for these assets."""
    from airflow.sdk import Asset
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    return AssetStateStoreAccessors(inlets=[Asset(name=name, uri=f"x://{name}") for name in names])


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="the store came with Airflow 3.3")
@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_assets_whose_watchers_are_equal_share_a_trigger_and_what_it_knows(
    supervisor: Supervisor, names: tuple[str, ...]
) -> None:
    assert ids(fired(keeping(store_of(*names)), [ANALYSIS])) == ["a"]
    assert {name for name, _ in supervisor.values} == set(names)
    assert ids(fired(keeping(store_of(*names)), [ANALYSIS, CLEANING])) == ["c"]


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="the store came with Airflow 3.3")
def test_an_asset_that_joins_or_was_away_makes_the_others_forget_nothing(supervisor: Supervisor) -> None:
    assert ids(fired(keeping(store_of("one")), [ANALYSIS])) == ["a"]
    ((_, key),) = supervisor.values
    supervisor.values["away", key] = {"watermark": 0, "active": [], "ended": []}
    assert ids(fired(keeping(store_of("away", "joins", "one")), [ANALYSIS])) == []


# A poll that others have begun


@pytest.mark.parametrize("failures", [0, 1])
def test_a_trigger_that_joins_the_poll_of_others_tells_what_ended_while_it_was_away(
    emulator: EmulatorServer, failures: int
) -> None:
    """A DAG was paused, say, and another has kept the poll alive."""
    now = int(time.time() * 1000)
    meanwhile = emulator.state.add_task(status=2)
    trigger = keeping(store := Store())
    store.values[trigger._checkpoint_key()] = json.dumps({"watermark": now - HOUR, "active": [], "ended": []})
    if failures:
        emulator.state.faults.answer(503, times=failures)

    async def from_now_on() -> AsyncGenerator[Snapshot, None]:
        for number in range(3):
            yield Snapshot({}, {}, now + (number + 1) * HOUR)

    async def listen() -> list[str]:
        return [event.payload["task_id"] async for event in trigger.filter_shared_stream(from_now_on())]

    assert run(listen()) == [meanwhile.task_id]
    assert emulator.state.log.count("ListProcessorTasks") == failures + 3


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


def test_statuses_can_be_names_and_are_stored_alike() -> None:
    from airflow_modelarts.triggers import ProcessorTaskEventTrigger

    stored = [ProcessorTaskEventTrigger(statuses=given).serialize() for given in (["stopped", "FAILED"], {3, "4"})]
    assert stored[0] == stored[1]
    assert stored[0][1]["statuses"] == [3, 4]


def test_a_status_that_is_no_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"only 2 \(completed\), 3 \(failed\) or 4 \(stopped\)"):
        ProcessorTaskEventTrigger(statuses=[1])


# The poll


def test_where_airflow_cannot_share_a_poll_it_has_one_of_its_own(emulator: EmulatorServer) -> None:
    """So it is on Airflow 3.0 to 3.2."""
    task = emulator.state.add_task(status=1)

    async def listen() -> Any:
        async with aclosing(ProcessorTaskEventTrigger(poll_interval=5).run()) as events:  # type: ignore[type-var]
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(12)
            emulator.state.finish(task.task_id)
            return (await first).payload["task_id"]

    assert run(listen()) == task.task_id
    assert emulator.state.log.count("ListProcessorTasks") == 4 * 3, "at 0, 5, 10 and 15 seconds"


def test_a_shared_poll_shows_what_there_is_again_and_again(emulator: EmulatorServer) -> None:
    task = emulator.state.add_task(status=1)

    async def look() -> list[Snapshot]:
        arguments = ProcessorTaskEventTrigger(poll_interval=5).serialize()[1]
        async with aclosing(ProcessorTaskEventTrigger.open_shared_stream(arguments)) as pictures:  # type: ignore[type-var]
            return [await anext(pictures) for _ in range(3)]

    assert [set(seen.active) for seen in run(look())] == [{task.task_id}] * 3
