"""The trigger of asset watchers: which ends it emits, its checkpoint, and what Airflow stores of it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.api.arguments import TEMPLATE_IDS
from airflow_modelarts.api.ends import Origin, describe_end
from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.hooks import ModelArtsAsyncHook, ModelArtsHook
from airflow_modelarts.polling import checkpoint_store
from airflow_modelarts.polling.checkpoints import Checkpoint
from airflow_modelarts.polling.snapshots import Poll, Snapshot
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.triggers import ProcessorTaskEventTrigger
from tests.support.values import PROJECT_ID
from tests.support.virtual import run
from tests.support.watchers import FakeStateStore, new_trigger

ANALYSIS = {
    "task_id": "a",
    "name": "nightly-analysis",
    "status": 2,
    "create_time": 4_000_000_000_000,
    "template": {"id": "sys_data_analyse"},
    "data_source": {"type": "DATASET", "source": "dataset-1"},
    "result": {"big": "thing"},
    "work_path": {"type": "OBS", "path": "/out/analyses/today/"},
}
CLEANING = {
    "task_id": "c",
    "name": "cleaning",
    "status": 3,
    "create_time": 4_000_000_000_000,
    "template": {"id": "sys_data_cleaning"},
    "inputs": [{"type": "OBS", "source": "obs://bucket/in/"}, {"type": "DATASET", "source": "dataset-1"}],
    "error_msg": "broken",
    "work_path": {"type": "DATASET", "path": "dataset-2"},
}


ORIGIN = Origin("modelarts_default", PROJECT_ID, "modelarts.example.com")
#: Seconds between two snapshots.
INTERVAL = 60.0
#: In milliseconds.
HOUR = 3_600_000


def snapshot_of(tasks: dict[str, ProcessorTask], since: int = 0) -> Snapshot:
    active = {task_id: task for task_id, task in tasks.items() if not task.is_terminal}
    poll = Poll(ModelArtsAsyncHook(), "modelarts_default", "0")
    return Snapshot(ORIGIN, active, tasks, since, poll)


async def snapshots_of(*rounds: list[dict[str, Any]]) -> AsyncGenerator[Snapshot, None]:
    for tasks in rounds:
        parsed = {one["task_id"]: ProcessorTask.model_validate(one) for one in tasks}
        yield snapshot_of(parsed)
        await asyncio.sleep(INTERVAL)


def emitted(
    trigger: ProcessorTaskEventTrigger, *rounds: list[dict[str, Any]], within: float = 1e5
) -> list[dict[str, Any]]:
    """Return the events of a trigger until there are no more snapshots, or until its triggerer is killed."""
    payloads: list[dict[str, Any]] = []

    async def read() -> None:
        async for event in trigger.filter_shared_stream(snapshots_of(*rounds)):
            payloads.append(event.payload)

    async def read_until_killed() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(read(), within)

    run(read_until_killed())
    return payloads


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
        ({"sources": ["/bucket/in/"]}, {"c"}),
        ({"sources": ["bucket/in"]}, {"c"}),
        ({"sources": ["obs://bucket"]}, {"c"}),
        ({"sources": ["obs://bucket/in-2"]}, set()),
        ({"sources": ["obs://bucket/i"]}, set()),
        ({"sources": ["obs://bucket/in/deeper"]}, set()),
        ({"sources": ["dataset"]}, set()),
        ({"sources": ["dataset-1", "obs://elsewhere"]}, {"a", "c"}),
        ({"output_prefixes": ["/out/analyses"]}, {"a"}),
        ({"output_prefixes": ["s3a://out/analyses/today/"]}, {"a"}),
        ({"output_prefixes": ["obs://out/analyses/to"]}, set()),
        ({"output_prefixes": ["dataset-2"]}, {"c"}),
        ({"output_prefixes": ["dataset-2", "obs://out"]}, {"a", "c"}),
        ({"output_prefixes": ["dataset-"]}, set()),
        ({"sources": ["nothing"]}, set()),
        ({"name_prefix": "nightly"}, {"a"}),
        ({"statuses": [3, 4]}, {"c"}),
        ({"statuses": [2], "name_prefix": "clean"}, set()),
    ],
)
def test_the_filters_select_the_ends_to_emit(filters: dict[str, Any], names: set[str]) -> None:
    payloads = emitted(ProcessorTaskEventTrigger(**filters), [ANALYSIS, CLEANING])
    assert {payload["task_id"] for payload in payloads} == names


def test_an_event_is_the_task_without_its_result() -> None:
    (payload,) = emitted(ProcessorTaskEventTrigger(), [ANALYSIS])
    task = ProcessorTask.model_validate(ANALYSIS)
    with ModelArtsHook() as hook:
        origin = Origin.of("modelarts_default", hook.get_conn().client, None)
    observed_at = datetime.fromisoformat(payload["observed_at"])
    assert payload == describe_end(origin, task, observed_at)
    assert {name: payload[name] for name in ANALYSIS if name != "result"} == {
        name: value for name, value in ANALYSIS.items() if name != "result"
    }
    assert "result" not in payload


def test_an_end_has_the_same_key_for_every_watcher_and_after_a_restart() -> None:
    keys = [
        payload["dedupe_key"]
        for trigger in (ProcessorTaskEventTrigger(), ProcessorTaskEventTrigger(statuses=[2]))
        for payload in emitted(trigger, [ANALYSIS])
    ]
    assert keys[0] == keys[1]


def test_no_end_is_emitted_twice_even_by_another_triggerer() -> None:
    store = FakeStateStore()
    assert len(emitted(new_trigger(store), [ANALYSIS], [ANALYSIS])) == 1
    assert ids(emitted(new_trigger(store), [ANALYSIS, CLEANING])) == ["c"]


def test_two_triggers_of_one_asset_have_separate_checkpoints() -> None:
    store = FakeStateStore()

    async def read(statuses: list[int]) -> list[str]:
        stream = new_trigger(store, statuses=statuses).filter_shared_stream(snapshots_of([ANALYSIS, CLEANING]))
        return [event.payload["task_id"] async for event in stream]

    async def read_both() -> list[list[str]]:
        return await asyncio.gather(read([2]), read([3]))

    assert run(read_both()) == [["a"], ["c"]]
    assert len(store.checkpoints) == 2


def test_an_end_that_a_killed_triggerer_may_not_have_sent_is_emitted_again() -> None:
    store = FakeStateStore()
    assert ids(emitted(new_trigger(store), [ANALYSIS], within=checkpoint_store.SENT_AFTER - 1)) == ["a"]
    assert ids(emitted(new_trigger(store), [ANALYSIS], within=checkpoint_store.SENT_AFTER + 1)) == ["a"]
    assert ids(emitted(new_trigger(store), [ANALYSIS])) == []


def test_a_checkpoint_without_events_is_saved_at_once() -> None:
    store = FakeStateStore()
    emitted(new_trigger(store), [{**ANALYSIS, "status": 1}], within=0.1)
    assert ids(emitted(new_trigger(store), [ANALYSIS])) == ["a"]


def test_an_unsaved_checkpoint_does_not_delay_the_next_event() -> None:
    times: list[float] = []

    async def one_more_each_second() -> AsyncGenerator[Snapshot, None]:
        for count in range(1, 20):
            parsed = {f"t{n}": ProcessorTask.model_validate({**ANALYSIS, "task_id": f"t{n}"}) for n in range(count)}
            yield snapshot_of(parsed)
            await asyncio.sleep(1.0)

    async def read() -> None:
        async for _ in new_trigger(store).filter_shared_stream(one_more_each_second()):
            times.append(asyncio.get_running_loop().time())

    store = FakeStateStore()
    run(read())
    assert times == pytest.approx(range(19), abs=0.1)
    (stored,) = store.checkpoints.values()
    checkpoint = Checkpoint.restore(stored)
    assert checkpoint is not None
    assert len(checkpoint.ends) >= 19 - 2 * checkpoint_store.SENT_AFTER


def test_a_store_that_fails_delays_no_event_and_is_retried() -> None:
    store = FakeStateStore()
    store.failures = 1
    assert ids(emitted(new_trigger(store), [ANALYSIS], [ANALYSIS, CLEANING])) == ["a", "c"]
    assert ids(emitted(new_trigger(store), [ANALYSIS, CLEANING])) == []


def test_another_interval_or_order_keeps_the_checkpoint() -> None:
    store = FakeStateStore()
    emitted(new_trigger(store, statuses=[2, 3], poll_interval=60), [ANALYSIS])
    assert emitted(new_trigger(store, statuses=[3, 2], poll_interval=5), [ANALYSIS]) == []


def test_an_argument_that_a_later_version_adds_keeps_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    store, serialize = FakeStateStore(), ProcessorTaskEventTrigger.serialize
    emitted(new_trigger(store, statuses=[2]), [ANALYSIS])

    def with_another_argument(trigger: ProcessorTaskEventTrigger) -> tuple[str, dict[str, Any]]:
        path, arguments = serialize(trigger)
        return path, {**arguments, "added_later": None}

    monkeypatch.setattr(ProcessorTaskEventTrigger, "serialize", with_another_argument)
    assert emitted(new_trigger(store, statuses=[2]), [ANALYSIS]) == []


def test_without_a_store_only_ends_from_now_on_are_emitted() -> None:
    long_ago = {**ANALYSIS, "create_time": 1000}
    assert ids(emitted(ProcessorTaskEventTrigger(), [long_ago], [long_ago, CLEANING])) == ["c"]


# Airflow's own store


class Supervisor:
    """Answers the requests of Airflow's state store to the supervisor, which name the asset."""

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
    """Return the store that the triggerer gives a trigger of these assets."""
    from airflow.sdk import Asset
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    return AssetStateStoreAccessors(inlets=[Asset(name=name, uri=f"x://{name}") for name in names])


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="the store came with Airflow 3.3")
@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_assets_with_equal_watchers_share_a_trigger_and_its_checkpoint(
    supervisor: Supervisor, names: tuple[str, ...]
) -> None:
    assert ids(emitted(new_trigger(store_of(*names)), [ANALYSIS])) == ["a"]
    assert {name for name, _ in supervisor.values} == set(names)
    assert ids(emitted(new_trigger(store_of(*names)), [ANALYSIS, CLEANING])) == ["c"]


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="the store came with Airflow 3.3")
def test_the_latest_checkpoint_counts_if_an_asset_joins_or_returns(supervisor: Supervisor) -> None:
    assert ids(emitted(new_trigger(store_of("one")), [ANALYSIS])) == ["a"]
    key = new_trigger()._checkpoint_key()
    supervisor.values["returns", key] = {"watermark": 0, "active": [], "ended": []}
    assert ids(emitted(new_trigger(store_of("returns", "joins", "one")), [ANALYSIS])) == []


# A poll that other triggers started


@pytest.mark.parametrize("failures", [0, 1])
def test_a_trigger_that_joins_a_poll_emits_the_ends_since_its_checkpoint(
    emulator: EmulatorServer, failures: int
) -> None:
    """For example, its DAG was paused while another DAG kept the poll running."""
    now = int(time.time() * 1000)
    meanwhile = emulator.state.add_task(status=2)
    trigger = new_trigger(store := FakeStateStore())
    store.values[trigger._checkpoint_key()] = json.dumps({"watermark": now - HOUR, "active": [], "ended": []})
    if failures:
        emulator.state.faults.answer(503, times=failures)

    async def from_now_on() -> AsyncGenerator[Snapshot, None]:
        async with ModelArtsAsyncHook() as hook:
            poll = Poll(hook, "modelarts_default", "0")
            for number in range(3):
                yield Snapshot(ORIGIN, {}, {}, now + (number + 1) * HOUR, poll)

    async def read() -> list[str]:
        return [event.payload["task_id"] async for event in trigger.filter_shared_stream(from_now_on())]

    assert run(read()) == [meanwhile.task_id]
    assert emulator.state.log.count("ListProcessorTasks") == failures + 3


def test_the_stored_arguments_make_the_same_trigger() -> None:
    trigger = ProcessorTaskEventTrigger(
        *("mine", "p", "w", ["sys_data_analyse"], ["s"], "n", [2], 5), output_prefixes=["/b/out/"], versions=True
    )
    path, arguments = trigger.serialize()
    assert path == "airflow_modelarts.triggers.ProcessorTaskEventTrigger"
    again = ProcessorTaskEventTrigger(**json.loads(json.dumps(arguments)))
    assert again.serialize() == trigger.serialize()


def test_the_arguments_that_earlier_versions_stored_are_accepted() -> None:
    stored = {
        "modelarts_conn_id": "modelarts_default",
        "project_id": None,
        "workspace_id": "0",
        "template_ids": [],
        "sources": ["obs://bucket/in/"],
        "name_prefix": "",
        "statuses": [2, 3, 4],
        "poll_interval": 60.0,
    }
    trigger = ProcessorTaskEventTrigger(**stored)
    assert trigger.serialize() == ProcessorTaskEventTrigger(sources=["/bucket/in"]).serialize()


def test_triggers_share_a_poll_whatever_they_select() -> None:
    assert (
        ProcessorTaskEventTrigger(statuses=[2]).shared_stream_key()
        == ProcessorTaskEventTrigger(name_prefix="x").shared_stream_key()
    )
    assert ProcessorTaskEventTrigger().shared_stream_key() != ProcessorTaskEventTrigger("other").shared_stream_key()


def test_statuses_can_be_names_and_are_stored_as_numbers() -> None:
    stored = [ProcessorTaskEventTrigger(statuses=given).serialize() for given in (["stopped", "FAILED"], {3, "4"})]
    assert stored[0] == stored[1]
    assert stored[0][1]["statuses"] == [3, 4]


def test_equal_lists_and_sets_are_stored_equally() -> None:
    stored = [
        ProcessorTaskEventTrigger(sources=given).serialize()
        for given in (["obs://bucket/in/", "d"], {"d", "/bucket/in"}, ("s3a://bucket/in", "d", "d"))
    ]
    assert stored[0] == stored[1] == stored[2]
    assert stored[0][1]["sources"] == ["d", "obs://bucket/in"]


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("template_id", "write template_ids="),
        ("source", "write sources="),
        ("status", "write statuses="),
        ("conn_id", "write modelarts_conn_id="),
        ("poke_interval", "write poll_interval="),
        ("output_prefix", "write output_prefixes="),
        ("xyz", "it has modelarts_conn_id, name_prefix, output_prefixes, poll_interval, project_id, sources, statuses"),
    ],
)
def test_an_unknown_argument_is_refused_with_the_nearest_name(name: str, way_out: str) -> None:
    with pytest.raises(TypeError, match=f"ProcessorTaskEventTrigger has no argument '{name}': {way_out}"):
        ProcessorTaskEventTrigger(**{name: ["sys_data_analyse"]})


NOT_INTERVALS = [0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf, 10**400, True, False, "60", None, timedelta(0)]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("template_ids", "sys_data_analyse", r"give a list of texts, for example \['sys_data_analyse'\]"),
        ("sources", "obs://bucket/in/", r"give a list of texts, for example \['obs://bucket/in/'\]"),
        ("output_prefixes", "obs://bucket/", "give a list of texts"),
        ("sources", b"abc", "give a list of texts"),
        ("sources", {"dataset-1": 1}, "give a list of texts"),
        ("sources", None, "give a list of texts"),
        ("template_ids", 7, "give a list of texts"),
        ("sources", [None], "an item of sources is None: give a text"),
        ("sources", [["dataset-1"]], "an item of sources is .*: give a text"),
        ("template_ids", [""], "an item of template_ids is '', which is no value"),
        ("sources", ["https://bucket.obs.example.com/in"], "give a place in OBS as obs://bucket/folder/, or an id"),
        ("sources", ["obs://bucket/../in"], "give a place in OBS as"),
        ("output_prefixes", ["{{ var.value.out }}"], "templates are not rendered here"),
        ("statuses", [], "which selects nothing: leave it out for all"),
        ("statuses", (), "which selects nothing"),
        ("statuses", set(), "which selects nothing"),
        ("statuses", "completed", "give a list of statuses"),
        ("statuses", 2, "give a list of statuses"),
        ("statuses", None, "give a list of statuses"),
        ("statuses", [1], r"only 2 \(completed\), 3 \(failed\) or 4 \(stopped\)"),
        ("statuses", [True], "it must contain only"),
        ("name_prefix", None, "name_prefix is None: give a text"),
        ("name_prefix", ["a"], "give a text"),
        ("name_prefix", "  ", "which is no value"),
        ("modelarts_conn_id", None, "modelarts_conn_id is None: give a text"),
        ("modelarts_conn_id", "", "which is no value"),
        ("workspace_id", None, "workspace_id is None: give a text"),
        ("project_id", "", "project_id is '', which is no value"),
        ("versions", "False", "give True or False"),
        *(("poll_interval", value, "give seconds as a finite number greater than 0") for value in NOT_INTERVALS),
    ],
)
def test_a_value_that_cannot_be_right_is_refused(name: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        ProcessorTaskEventTrigger(**{name: value})
    assert isinstance(caught.value, TypeError), "a triggerer ends at any other exception of a constructor"


class OwnTrigger(ProcessorTaskEventTrigger):
    """A trigger with an argument of its own, as a user's subclass has it."""

    def __init__(self, team: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.team = team

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "dags.OwnTrigger", {**super().serialize()[1], "team": self.team}


def test_a_subclass_can_have_arguments_of_its_own() -> None:
    arguments = OwnTrigger(team="a", sources=["d"]).serialize()[1]
    store = FakeStateStore()
    stored = [OwnTrigger(**arguments), OwnTrigger(**{**arguments, "team": "b"})]
    assert len({trigger._checkpoint_key() for trigger in stored}) == 2
    stored[0].asset_state_store = store
    assert ids(emitted(stored[0], [{**ANALYSIS, "data_source": {"type": "DATASET", "source": "d"}}])) == ["a"]
    with pytest.raises(TypeError, match="OwnTrigger has no argument 'status': write statuses="):
        OwnTrigger(team="a", status=[2])


def test_a_refused_source_shows_no_signature() -> None:
    with pytest.raises(ValueError, match="give a place in OBS") as caught:
        ProcessorTaskEventTrigger(sources=["https://b.obs.example.com/k?AccessKeyId=AK&Signature=secret"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("template_id", "way_out"),
    [("sys_data_analyze", "did you mean 'sys_data_analyse'"), ("mine", "documented are sys_data_analyse, ")],
)
def test_a_template_that_the_reference_does_not_document_is_a_warning(template_id: str, way_out: str) -> None:
    with pytest.warns(UserWarning, match=f"'{template_id}', .*{way_out}") as caught:
        assert ProcessorTaskEventTrigger(template_ids=[template_id]).template_ids == [template_id]
    assert caught[0].filename == __file__


def test_the_documented_templates_are_those_of_the_service() -> None:
    from airflow_modelarts.testing.emulator.service.modelarts import TEMPLATES

    assert set(TEMPLATE_IDS) == set(TEMPLATES)


def test_an_interval_can_be_a_timedelta_and_an_id_a_number() -> None:
    trigger = ProcessorTaskEventTrigger(poll_interval=timedelta(minutes=2), sources=[12345678], workspace_id=7)
    assert (trigger.poll_interval, trigger.sources, trigger.workspace_id) == (120.0, ["12345678"], "7")


# The poll


def test_the_trigger_polls_by_itself_where_airflow_shares_no_polls(emulator: EmulatorServer) -> None:
    """Airflow 3.0 to 3.2 share none."""
    task = emulator.state.add_task(status=1)

    async def read() -> Any:
        async with aclosing(ProcessorTaskEventTrigger(poll_interval=5).run()) as events:  # type: ignore[type-var]
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(12)
            emulator.state.finish(task.task_id)
            return (await first).payload["task_id"]

    assert run(read()) == task.task_id
    assert emulator.state.log.count("ListProcessorTasks") == 4 * 3, "at 0, 5, 10 and 15 seconds"


def test_a_shared_poll_yields_a_snapshot_each_interval(emulator: EmulatorServer) -> None:
    task = emulator.state.add_task(status=1)

    async def take_three() -> list[Snapshot]:
        arguments = ProcessorTaskEventTrigger(poll_interval=5).serialize()[1]
        async with aclosing(ProcessorTaskEventTrigger.open_shared_stream(arguments)) as stream:  # type: ignore[type-var]
            return [await anext(stream) for _ in range(3)]

    assert [set(snapshot.active) for snapshot in run(take_three())] == [{task.task_id}] * 3


@pytest.mark.parametrize("offset", [-300.0, 300.0])
def test_the_first_start_begins_at_the_time_of_a_service_whose_clock_differs(
    emulator: EmulatorServer, offset: float
) -> None:
    emulator.state.settings.clock_offset = offset
    before = emulator.state.add_task("before", status=2)
    before.created_at -= 60

    async def read() -> list[str]:
        async with aclosing(ProcessorTaskEventTrigger(poll_interval=5).run()) as events:  # type: ignore[type-var]
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(7)
            emulator.state.add_task("after", status=2).created_at += 2
            return [(await first).payload["name"]]

    assert run(read()) == ["after"]
