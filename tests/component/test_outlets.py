"""The outlets of sensor and operators: of which ends they get events, and which outlets are refused."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias, TaskGroup

from airflow_modelarts.api.ends import Origin, dedupe_key
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.operators import (
    ModelArtsCreateProcessorTaskOperator,
    ModelArtsCreateProcessorTaskVersionOperator,
    ModelArtsDescribeProcessorTaskOperator,
)
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import TaskRule
from tests.support.create import INPUTS, VALIDATION, Try, operator, version_operator
from tests.support.create import server as server  # short tasks
from tests.support.outlets import ON_AIRFLOW_2, alias_events, outlet_events
from tests.support.sensor_modes import MODES, Simulation, run_sensor, sensor

OUTPUT = {"type": "OBS", "path": "obs://bucket/out/"}
URI = "obs://bucket/out"
ASSET, ELSEWHERE, ALIAS = Asset(uri=URI), Asset(uri="x-images://of/training"), AssetAlias("outputs")
MODES_3 = {name: mode for name, mode in MODES.items() if not (ON_AIRFLOW_2 and name == "end_from_trigger")}


def with_events(attempt: Try) -> tuple[Any, Any]:
    events = outlet_events()
    return {**attempt.context, "outlet_events": events}, events


def key_of(task_id: str, task_version_id: str | None = None) -> str:
    """Return the key of an end as an asset watcher computes it."""
    with ModelArtsHook() as hook:
        client = hook.get_conn().client
        origin = Origin.of("another", client, None)
        return dedupe_key(origin, hook.describe_processor_task(task_id), task_version_id)


# Without waiting


@pytest.mark.parametrize(
    ("rule", "statuses"),
    [
        (TaskRule(duration=1000), []),  # initialized
        (TaskRule(duration=math.inf), []),  # running
        (TaskRule(duration=0, status=3), []),
        (TaskRule(duration=0, status=4), []),
        (TaskRule(duration=0, status=2), [2]),
    ],
)
def test_without_waiting_an_alias_gets_the_event_of_a_success_only(
    emulator: EmulatorServer, rule: TaskRule, statuses: list[int]
) -> None:
    context, events = with_events(Try())
    emulator.state.add_rule(rule)
    operator(wait_for_completion=False, outlets=[ALIAS], work_path=OUTPUT).execute(context)
    assert [extra["status"] for _, extra in alias_events(events, ALIAS)] == statuses


WAYS = {
    "a list": lambda: operator(wait_for_completion=False, outlets=[ALIAS, ASSET]),
    "one": lambda: operator(wait_for_completion=False, outlets=ASSET),
    "outside OBS": lambda: operator(wait_for_completion=False, outlets=[ELSEWHERE]),
    "default_args": lambda: operator(wait_for_completion=False, default_args={"outlets": [ASSET]}),
    "all default_args": lambda: operator(default_args={"outlets": [ASSET], "wait_for_completion": False}),
    "a version": lambda: ModelArtsCreateProcessorTaskVersionOperator(
        task_id="t", processor_task_id="abc", wait_for_completion=False, outlets=[ASSET]
    ),
    "mapped": lambda: ModelArtsCreateProcessorTaskOperator.partial(
        task_id="t", name="n", template=VALIDATION, wait_for_completion=False, outlets=[ASSET]
    ),
}


def of_a_dag(**default_args: Any) -> None:
    with DAG("d", schedule=None, default_args=default_args):
        operator()


def mapped_of_a_dag(**default_args: Any) -> None:
    with DAG("d", schedule=None, default_args=default_args):
        ModelArtsCreateProcessorTaskOperator.partial(task_id="t", name="n", template=VALIDATION)


def mapped_of_a_group(**default_args: Any) -> None:
    with DAG("d", schedule=None), TaskGroup("outer", default_args=default_args), TaskGroup("inner"):
        ModelArtsCreateProcessorTaskOperator.partial(task_id="t", name="n", template=VALIDATION)


OF_DEFAULTS = {"DAG": of_a_dag, "mapped in a DAG": mapped_of_a_dag, "mapped in a task group": mapped_of_a_group}


@pytest.mark.parametrize("make", [*WAYS.values(), *OF_DEFAULTS.values()], ids=[*WAYS, *OF_DEFAULTS])
@pytest.mark.filterwarnings("error")
def test_an_asset_as_outlet_is_refused_when_the_dag_is_parsed(make: Any) -> None:
    arguments = {"wait_for_completion": False, "outlets": [ASSET]} if make in OF_DEFAULTS.values() else {}
    with pytest.raises(ValueError, match=r"outlets has .*wait_for_completion=False.*ModelArtsProcessorTaskSensor"):
        make(**arguments)


@pytest.mark.skipif(ON_AIRFLOW_2, reason="Airflow 3 introduced references")
def test_a_reference_to_an_asset_as_outlet_is_refused() -> None:
    reference: Any = Asset.ref(uri=URI)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="outlets has "):
        operator(wait_for_completion=False, outlets=[reference])


@pytest.mark.parametrize(
    "change",
    [
        lambda task: setattr(task, "outlets", [ASSET]),
        lambda task: task.outlets.append(ASSET),
        lambda task: task.add_outlets([ASSET]),
    ],
)
def test_an_asset_that_is_set_later_is_refused_when_airflow_reads_the_dag(
    emulator: EmulatorServer, change: Any
) -> None:
    with DAG("d", schedule=None) as dag:
        task = operator(wait_for_completion=False)
    change(task)
    with pytest.raises(ValueError, match="outlets has "):
        dag.resolve_template_files()
    with pytest.raises(ValueError, match="outlets has "):
        task.execute(Try().context)
    assert emulator.state.log.count() == 0


def test_airflow_shows_the_error_of_the_dag_file(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "from airflow.providers.common.compat.sdk import DAG, Asset\n"
        "from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator\n"
        "with DAG('wrong', schedule=None):\n"
        "    task = ModelArtsCreateProcessorTaskOperator(\n"
        "        task_id='t', name='n', template={'id': 'sys_data_analyse'}, wait_for_completion=False\n"
        "    )\n"
        "task.outlets = [Asset('images')]\n"
    )
    (error,) = dag_bag(tmp_path).import_errors.values()
    assert "outlets has " in error
    assert "images" in error


def dag_bag(folder: Path) -> Any:
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag
    has_examples = "include_examples" in inspect.signature(DagBag).parameters
    return DagBag(folder, **({"include_examples": False} if has_examples else {}))


# At the end


def test_the_events_of_a_created_task_identify_its_end(emulator: EmulatorServer) -> None:
    context, events = with_events(Try())
    operator(outlets=[ALIAS, ASSET, ELSEWHERE], work_path=OUTPUT).execute(context)
    (task,) = emulator.state.all_tasks()
    ((uri, extra),) = alias_events(events, ALIAS)
    assert uri == extra["uri"] == URI
    assert events[ASSET].extra == events[ELSEWHERE].extra == extra
    expected = {
        "modelarts_conn_id": "modelarts_default",
        "project_id": task.project_id,
        "task_id": task.task_id,
        "task_version_id": task.versions[0].version_id,
        "version_count": 1,
        "dedupe_key": key_of(task.task_id),
        "status": 2,
        "status_name": "completed",
    }
    assert {name: extra[name] for name in expected} == expected


def test_the_events_of_a_created_version_identify_the_end_of_that_version(emulator: EmulatorServer) -> None:
    body = {"inputs": INPUTS, "work_path": OUTPUT}
    task = emulator.state.add_task("original", template="sys_data_validation", status=2, body=body)
    context, events = with_events(Try())
    version_operator(task, outlets=[ALIAS]).execute(context)
    ((_, extra),) = alias_events(events, ALIAS)
    version_id = task.versions[-1].version_id
    assert (extra["task_version_id"], extra["version_count"]) == (version_id, 2)
    assert extra["dedupe_key"] == key_of(task.task_id, version_id)


def describe(task_id: str, **arguments: Any) -> tuple[ModelArtsDescribeProcessorTaskOperator, Any]:
    context, events = with_events(Try())
    task = ModelArtsDescribeProcessorTaskOperator(task_id="t", processor_task_id=task_id, **arguments)
    task.execute(context)
    return task, events


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4])
def test_the_outlets_of_the_describe_operator_get_events_of_successes_only(
    emulator: EmulatorServer, status: int
) -> None:
    task = emulator.state.add_task(status=status, body={"work_path": OUTPUT})
    described, events = describe(task.task_id, outlets=[ALIAS, ASSET])
    extras = [extra for _, extra in alias_events(events, ALIAS)]
    if status == 2:
        assert [extra["dedupe_key"] for extra in extras] == [key_of(task.task_id)]
        assert events[ASSET].extra == extras[0]
        assert described.outlets == [ALIAS, ASSET]
    else:
        assert extras == []
        assert described.outlets == [], "Airflow emits an event of each asset that it finds here"


# The sensor


def wait(simulation: Simulation, task_id: str, outlets: list[Any], **arguments: Any) -> tuple[Any, Any]:
    events = outlet_events()
    value = run_sensor(sensor(task_id, outlets=outlets, **arguments), simulation, outlet_events=events)
    return value, events


@pytest.mark.parametrize("mode", MODES_3)
def test_the_events_of_a_sensor_identify_the_end_in_every_mode(simulation: Simulation, mode: str) -> None:
    task = simulation.state.add_task(status=1, body={"work_path": OUTPUT})
    simulation.at(12, lambda: simulation.state.finish(task.task_id))
    value, events = wait(simulation, task.task_id, [ALIAS, ASSET, ELSEWHERE], **MODES_3[mode])
    assert value == {"task_id": task.task_id, "status": 2, "status_name": "completed"}
    ((uri, extra),) = alias_events(events, ALIAS)
    assert uri == URI
    assert extra["dedupe_key"] == key_of(task.task_id)
    assert (extra["task_id"], extra["task_version_id"], extra["status"]) == (task.task_id, None, 2)
    assert events[ASSET].extra == events[ELSEWHERE].extra == extra


@pytest.mark.parametrize("mode", MODES_3)
def test_the_events_of_a_sensor_identify_the_version(simulation: Simulation, mode: str) -> None:
    body = {"inputs": INPUTS, "work_path": OUTPUT}
    task = simulation.state.add_task(template="sys_data_validation", status=1, body=body)
    version_id = task.versions[0].version_id
    simulation.at(12, lambda: simulation.state.finish(task.task_id))
    _, events = wait(simulation, task.task_id, [ALIAS], task_version_id=version_id, **MODES_3[mode])
    ((_, extra),) = alias_events(events, ALIAS)
    assert (extra["task_version_id"], extra["version_count"]) == (version_id, 1)
    assert extra["dedupe_key"] == key_of(task.task_id, version_id)


@pytest.mark.parametrize("mode", MODES_3)
def test_a_sensor_that_fails_emits_nothing(simulation: Simulation, mode: str) -> None:
    task = simulation.state.add_task(status=1, body={"work_path": OUTPUT})
    simulation.at(12, lambda: simulation.state.fail(task.task_id))
    events = outlet_events()
    with pytest.raises(ModelArtsProcessorTaskFailed):
        run_sensor(sensor(task.task_id, outlets=[ALIAS], **MODES_3[mode]), simulation, outlet_events=events)
    assert alias_events(events, ALIAS) == []


def test_an_end_that_the_user_takes_for_a_success_is_emitted(simulation: Simulation) -> None:
    task = simulation.state.add_task(status=4, body={"work_path": OUTPUT})
    _, events = wait(simulation, task.task_id, [ALIAS], failed_statuses=["failed"])
    assert [extra["status"] for _, extra in alias_events(events, ALIAS)] == [4]


def test_a_task_that_runs_again_has_ended_for_the_sensor(simulation: Simulation) -> None:
    task = simulation.state.add_task(status=1, body={"work_path": OUTPUT})
    context: Any = {"outlet_events": (events := outlet_events())}
    waiting = sensor(task.task_id, outlets=[ALIAS], deferrable=True)
    waiting.execute_complete(context, {"task_id": task.task_id, "status": 2}, deadline=1e12)
    assert [extra["status"] for _, extra in alias_events(events, ALIAS)] == [2]


def test_a_task_that_was_deleted_after_its_end_has_no_description(
    simulation: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    context: Any = {"outlet_events": (events := outlet_events())}
    waiting = sensor("gone", outlets=[ALIAS, ASSET], deferrable=True)
    value = waiting.execute_complete(context, {"task_id": "gone", "status": 2}, deadline=1e12)
    assert value == {"task_id": "gone", "status": 2, "status_name": "completed"}
    assert alias_events(events, ALIAS) == []
    assert events[ASSET].extra == {}


def test_a_sensor_without_outlets_reads_nothing_more(simulation: Simulation) -> None:
    waiting = sensor("gone", deferrable=True)
    waiting.execute_complete({}, {"task_id": "gone", "status": 2}, deadline=1e12)
    assert simulation.state.log.count() == 0
