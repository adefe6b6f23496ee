"""Sensors that end in the triggerer, and the reasons for which one ends on a worker instead."""

from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor
from tests.support.sensor_modes import Simulation, defer, reasons, sensor
from tests.support.task_instances import collect_log

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="end_from_trigger needs Airflow 3.3")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return collect_log(monkeypatch, ModelArtsProcessorTaskSensor)


def succeeded(context: Any) -> None:
    """A callback."""


class WithPostExecute(ModelArtsProcessorTaskSensor):
    def post_execute(self, context: Any, result: Any = None) -> None:
        """A user's hook."""


class WithExecuteComplete(ModelArtsProcessorTaskSensor):
    def execute_complete(self, *arguments: Any, **named: Any) -> Any:
        return super().execute_complete(*arguments, **named)


def map_over_output(waiting: ModelArtsProcessorTaskSensor) -> None:
    with waiting.dag:

        @task
        def use(value: str) -> None:
            """Use it."""

        use.expand(value=waiting.output)


NEEDS_A_WORKER: list[tuple[str, dict[str, Any], Callable[[ModelArtsProcessorTaskSensor], None] | None]] = [
    ("outlets", {"outlets": [Asset("a")]}, None),
    ("outlets", {"default_args": {"outlets": [Asset("a")]}}, None),
    ("outlets", {}, lambda waiting: setattr(waiting, "outlets", [Asset("late")])),
    ("outlets", {}, lambda waiting: waiting.add_outlets([Asset("late")])),
    ("on_success_callback", {"on_success_callback": succeeded}, None),
    ("on_success_callback", {"on_success_callback": [succeeded]}, None),
    ("on_success_callback", {"default_args": {"on_success_callback": succeeded}}, None),
    ("on_success_callback", {}, lambda waiting: setattr(waiting, "on_success_callback", [succeeded])),
    ("post_execute", {"post_execute": succeeded}, None),
    ("multiple_outputs", {"multiple_outputs": True}, None),
    ("returns_dag_result", {}, lambda waiting: setattr(waiting, "returns_dag_result", True)),
    ("tasks that are mapped over the XCom", {}, map_over_output),
    ("outlets, on_success_callback", {"outlets": [Asset("a")], "on_success_callback": succeeded}, None),
]


@pytest.mark.parametrize("starts_in_triggerer", [True, False])
@pytest.mark.parametrize(("what", "arguments", "later"), NEEDS_A_WORKER)
def test_a_sensor_ends_on_a_worker_and_logs_why_if_airflow_would_lose_something_otherwise(
    simulation: Simulation, lines: list[str], what: str, arguments: dict[str, Any], later: Any, starts_in_triggerer: Any
) -> None:
    task_id = simulation.state.add_task(status=1).task_id
    with DAG("dag", schedule=None):
        waiting = sensor(task_id, start_from_trigger=starts_in_triggerer, end_from_trigger=True, **arguments)
        assert waiting.end_from_trigger is (later is not None)
        if later:
            later(waiting)
    assert not waiting.end_from_trigger, "Airflow would refuse the DAG if a listener is installed"
    reason = f"end_from_trigger is not possible, since Airflow does this only where a worker ends the task: {what}."
    if starts_in_triggerer:
        start = waiting.start_trigger_args
        assert (start.trigger_kwargs or {})["end_from_trigger"] is False
        waiting.resume_execution("execute_complete", {"event": {"task_id": task_id, "status": 2}}, {})
    else:
        deferred = defer(waiting, simulation)
        assert deferred.trigger.end_from_trigger is False
        waiting.execute_complete({}, {"task_id": task_id, "status": 2}, **(deferred.kwargs or {}))
    assert reasons(lines) == [f"This wait uses a worker: {reason}"], "logged once"


@pytest.mark.parametrize(
    ("kind", "what"), [(WithPostExecute, "post_execute"), (WithExecuteComplete, "execute_complete of a subclass")]
)
def test_a_subclass_with_code_for_the_end_ends_on_a_worker(kind: type[ModelArtsProcessorTaskSensor], what: str) -> None:
    waiting = kind(task_id="wait", processor_task_id="abc", end_from_trigger=True)
    assert not waiting.end_from_trigger
    assert waiting._why_end_on_worker().endswith(what)


@pytest.mark.parametrize("arguments", [{"on_execute_callback": succeeded}, {"pre_execute": succeeded}])
def test_callbacks_of_the_start_need_a_worker_only_for_a_start_in_the_triggerer(arguments: dict[str, Any]) -> None:
    assert sensor("abc", end_from_trigger=True, **arguments).end_from_trigger, "they run when it starts on a worker"
    assert not sensor("abc", start_from_trigger=True, end_from_trigger=True, **arguments).end_from_trigger


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"inlets": [Asset("a")]},
        {"on_failure_callback": succeeded, "on_retry_callback": succeeded, "on_skipped_callback": succeeded},
        {"do_xcom_push": False},
    ],
)
def test_a_sensor_ends_in_the_triggerer_if_airflow_loses_nothing(arguments: dict[str, Any]) -> None:
    assert sensor("abc", start_from_trigger=True, end_from_trigger=True, **arguments).end_from_trigger


def test_airflow_stores_the_sensor_as_it_is_at_the_end_of_the_dag_file() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("dag", schedule=None) as dag:
        waiting = sensor("abc", start_from_trigger=True, end_from_trigger=True)
        mapped = ModelArtsProcessorTaskSensor.partial(
            task_id="mapped", start_from_trigger=True, end_from_trigger=True, outlets=[Asset("a")]
        ).expand(processor_task_id=["a", "b"])
        waiting.outlets = [Asset("a")]
        waiting.processor_task_id = "{{ params.late }}"
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    start = stored.get_task("wait").start_trigger_args
    assert stored.get_task("wait").start_from_trigger
    arguments = start.trigger_kwargs.get("__var", start.trigger_kwargs)
    assert (arguments["processor_task_id"], arguments["end_from_trigger"]) == ("{{ params.late }}", False)
    assert stored.get_task("mapped").start_trigger_args is None
    assert mapped.task_id == "mapped"


def test_a_mapped_sensor_starts_on_a_worker_and_logs_why(simulation: Simulation, lines: list[str]) -> None:
    task_id = simulation.state.add_task(status=1).task_id
    with DAG("dag", schedule=None):
        mapped = ModelArtsProcessorTaskSensor.partial(
            task_id="wait", start_from_trigger=True, end_from_trigger=True, on_success_callback=succeeded
        ).expand(processor_task_id=[task_id])
    waiting = mapped.unmap({"processor_task_id": task_id})
    assert isinstance(waiting, ModelArtsProcessorTaskSensor)
    assert defer(waiting, simulation).trigger.end_from_trigger is False
    assert [line.partition(", since ")[2] for line in reasons(lines)] == [
        "Airflow starts mapped tasks on a worker.",
        "Airflow does this only where a worker ends the task: on_success_callback.",
    ]
