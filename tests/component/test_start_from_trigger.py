"""Sensors that start in the triggerer, and the reasons for which one starts on a worker instead."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task, task_group
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS
from jinja2 import Environment

from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor
from airflow_modelarts.testing.emulator.service.accounts import PROJECT_ID
from airflow_modelarts.triggerer_sensor import TRIGGER
from tests.support.sensor_modes import TICK, Simulation, defer, reasons, sensor
from tests.support.task_instances import collect_log

needs_airflow_3_3 = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="start_from_trigger needs Airflow 3.3")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return collect_log(monkeypatch, ModelArtsProcessorTaskSensor)


@needs_airflow_3_3
def test_a_wait_can_start_in_the_triggerer() -> None:
    waiting = sensor("{{ params.id }}", start_from_trigger=True, end_from_trigger=True, timeout=1000)
    assert waiting.start_from_trigger
    assert waiting.deferrable
    start = waiting.start_trigger_args
    assert (start.trigger_cls, start.next_method) == (TRIGGER, "execute_complete")
    assert start.timeout == timedelta(seconds=1000)
    assert start.trigger_kwargs == {
        "processor_task_id": "{{ params.id }}",
        "task_version_id": None,
        "modelarts_conn_id": "modelarts_default",
        "project_id": None,
        "poll_interval": TICK,
        "end_from_trigger": True,
        "push_return_value": True,
        "failed_statuses": [3, 4],
        "look_at_once": True,
    }


@needs_airflow_3_3
def test_the_trigger_gets_the_xcom_that_holds_the_id() -> None:
    with DAG("dag", schedule=None):

        @task
        def create() -> dict[str, str]:
            return {"id": "abc"}

        waiting = sensor(create()["id"], start_from_trigger=True)
    assert waiting.start_trigger_args is not None
    arguments = waiting.start_trigger_args.trigger_kwargs or {}
    assert arguments["upstream"] == {"task_id": "create", "key": "id"}
    assert arguments["processor_task_id"] == ""


def with_template(text: Any) -> ModelArtsProcessorTaskSensor:
    return sensor(text, start_from_trigger=True)


def from_output(build: Callable[[Any], ModelArtsProcessorTaskSensor]) -> Callable[[str], ModelArtsProcessorTaskSensor]:
    """Return a function that builds a sensor in a DAG from a task ``create``."""

    def build_in_dag(_: str) -> ModelArtsProcessorTaskSensor:
        with DAG("dag", schedule=None):

            @task
            def create(name: str = "abc") -> str:
                return name

            return build(create)

    return build_in_dag


with_mapped_task = from_output(lambda create: with_template(create.expand(name=["a", "b"])))
with_computed_value = from_output(lambda create: with_template(create().map(str.upper)))
with_output_as_project = from_output(lambda create: sensor("abc", project_id=create(), start_from_trigger=True))
with_output_as_version = from_output(lambda create: sensor("abc", task_version_id=create(), start_from_trigger=True))


def with_mapped_task_group(_: str) -> ModelArtsProcessorTaskSensor:
    built: list[ModelArtsProcessorTaskSensor] = []
    with DAG("dag", schedule=None):

        @task_group
        def wait_for(task_id: str) -> None:
            built.append(sensor(task_id, start_from_trigger=True))

        wait_for.expand(task_id=["a", "b"])
    return built[0]


@pytest.mark.parametrize(
    ("build", "text", "reason"),
    [
        (with_template, "{{ ti.xcom_pull('create') }}", "the template of processor_task_id uses ti,"),
        (with_template, "{{ task_instance.xcom_pull('create') }}", "uses task_instance,"),
        (with_template, "{{ var.value.id }}", "uses var,"),
        (with_template, "{{ conn.other.host }}{{ mine }}", "uses conn, mine,"),
        (with_template, "{% if %}", "the template of processor_task_id cannot be checked (Expected an expression"),
        (with_template, "{{ logical_date | ds_nodash }}", "cannot be checked (No filter named 'ds_nodash'"),
        (with_mapped_task_group, "", "processor_task_id is known only when the task runs"),
        (with_mapped_task, "", "processor_task_id is more than one output"),
        (with_computed_value, "", "processor_task_id is more than one output"),
        (with_output_as_project, "", "project_id is the output of a task,"),
        (with_output_as_version, "", "task_version_id is the output of a task,"),
    ],
)
def test_a_sensor_whose_arguments_need_a_worker_starts_on_one_and_logs_why(
    simulation: Simulation, lines: list[str], monkeypatch: pytest.MonkeyPatch, build: Any, text: str, reason: str
) -> None:
    waiting = build(text)
    assert not waiting.start_from_trigger
    assert waiting.start_trigger_args is None
    assert waiting.deferrable, "it defers from the worker"
    assert reasons(lines) == [], "the reason is not logged each time the DAG is parsed"
    added = simulation.state.add_task(status=2, template="sys_data_cleaning")
    added.versions[0].run.set_status(2, simulation.state.clock.now())
    outputs = {
        "processor_task_id": added.task_id,
        "task_version_id": added.versions[0].version_id,
        "modelarts_conn_id": "modelarts_default",
        "project_id": PROJECT_ID,
    }
    rendered = {id(getattr(waiting, name)): output for name, output in outputs.items()}
    monkeypatch.setattr(ModelArtsProcessorTaskSensor, "render_template", lambda _, value, *__: rendered[id(value)])
    waiting.render_template_fields({}, Environment())
    waiting.execute({"ti": None})
    (line,) = reasons(lines)
    assert (reason if AIRFLOW_V_3_3_PLUS else "it needs Airflow 3.3") in line


@pytest.mark.parametrize("text", ["abc", "{{ params.id }}", "{{ dag_run.conf['id'] }}", "{{ macros.uuid }}-{{ ds }}"])
@needs_airflow_3_3
def test_templates_that_a_triggerer_can_render_need_no_worker(text: str) -> None:
    assert with_template(text).start_from_trigger


@needs_airflow_3_3
def test_a_sensor_starts_on_a_worker_and_logs_why_if_triggerers_have_queues(
    simulation: Simulation, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__TRIGGERER__QUEUES_ENABLED", "True")
    waiting = sensor(simulation.state.add_task(status=1).task_id, start_from_trigger=True, end_from_trigger=True)
    assert not waiting.start_from_trigger
    assert waiting.start_trigger_args is None
    assert defer(waiting, simulation).trigger.end_from_trigger, "a deferral uses the queue of the Airflow task"
    (line,) = reasons(lines)
    assert "start_from_trigger is not possible, since triggerers have queues here ([triggerer] queues_enabled)" in line


@needs_airflow_3_3
def test_the_trigger_gets_the_template_of_the_version() -> None:
    waiting = sensor("abc", task_version_id="{{ params.version }}", start_from_trigger=True)
    assert (waiting.start_trigger_args.trigger_kwargs or {})["task_version_id"] == "{{ params.version }}"


@pytest.mark.skipif(AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 can start in the triggerer")
def test_before_airflow_3_3_a_sensor_defers_on_a_worker_and_logs_why(simulation: Simulation, lines: list[str]) -> None:
    waiting = sensor(simulation.state.add_task(status=1).task_id, start_from_trigger=True, end_from_trigger=True)
    assert reasons(lines) == []
    deferred = defer(waiting, simulation)
    assert deferred.trigger.end_from_trigger is False
    assert reasons(lines) == [
        "This wait uses a worker: start_from_trigger is not possible, since it needs Airflow 3.3.",
        "This wait uses a worker: end_from_trigger is not possible, since it needs Airflow 3.3.",
    ]
