"""Templated fields that rendered to nothing: sensor, operators and trigger refuse them before sending anything."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS
from jinja2 import Environment, StrictUndefined, Undefined
from jinja2.nativetypes import NativeEnvironment
from requests_mock import Mocker

from airflow_modelarts import operators
from airflow_modelarts.api.errors import ModelArtsRequestError
from airflow_modelarts.rendering import is_empty, read_argument
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor
from airflow_modelarts.templating import ID
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.triggers import ProcessorTaskTrigger
from tests.support.fixtures import TASKS
from tests.support.triggers import events
from tests.support.virtual import run

BODY = {"name": "a", "template": {"id": "sys_data_analyse"}, "inputs": [{"type": "DATASET", "source": "d"}]}
#: The required arguments of each operator.
OPERATORS: dict[str, dict[str, Any]] = {
    "ModelArtsAuditProcessorTasksOperator": {},
    "ModelArtsCreateProcessorTaskOperator": BODY,
    "ModelArtsCreateProcessorTaskVersionOperator": {"processor_task_id": "abc"},
    "ModelArtsDeleteProcessorTaskOperator": {"processor_task_id": "abc"},
    "ModelArtsDescribeProcessorTaskOperator": {"processor_task_id": "abc"},
    "ModelArtsExportProcessorTaskResultsOperator": {"processor_task_id": "abc", "path": "/tmp/never.jsonl"},
    "ModelArtsListProcessorTasksOperator": {},
    "ModelArtsStopProcessorTaskOperator": {"processor_task_id": "abc"},
    "ModelArtsUpdateProcessorTaskOperator": {"processor_task_id": "abc", "description": "checked"},
}
#: Fields that may be empty.
MAY_BE_EMPTY = {"description", "window_start", "window_end"}
MODES: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
    "deferrable": {"deferrable": True},
    "triggerer": {"start_from_trigger": True, "end_from_trigger": True},
    "soft_fail": {"soft_fail": True},
    "never_fail": {"never_fail": True},
    "silent_fail": {"silent_fail": True},
}
FIELDS = [
    (name, field)
    for name, needed in OPERATORS.items()
    for field in getattr(operators, name).template_fields
    if field not in MAY_BE_EMPTY
]
lenient = pytest.mark.parametrize("environment", [Environment(), NativeEnvironment()], ids=["text", "native"])


def context(**values: Any) -> Any:
    return {"ti": SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1), **values}


def test_every_operator_is_covered() -> None:
    assert set(OPERATORS) == {name for name in operators.__all__ if name.endswith("Operator")}


@pytest.mark.parametrize(("name", "field"), FIELDS)
@pytest.mark.parametrize("text", ["{{ absent }}", " {{ absent }}\n", "{{ none }}"])
def test_an_operator_refuses_a_field_that_rendered_to_nothing_before_sending(
    requests_mock: Mocker, name: str, field: str, text: str
) -> None:
    operator = getattr(operators, name)(task_id="t", **{**OPERATORS[name], field: text})
    operator.render_template_fields({"none": None}, Environment())
    with pytest.raises(ModelArtsRequestError, match=f"^{field} rendered to nothing"):
        operator.execute(context())
    assert not requests_mock.called


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_an_operator_refuses_a_field_natively_rendered_to_nothing(requests_mock: Mocker, name: str, field: str) -> None:
    for text, environment in (("{{ none }}", NativeEnvironment()), ("{{ absent }}", NativeEnvironment())):
        with DAG("dag", schedule=None, render_template_as_native_obj=True):
            operator = getattr(operators, name)(task_id="t", **{**OPERATORS[name], field: text})
        operator.render_template_fields({"none": None}, environment)
        with pytest.raises(ModelArtsRequestError, match=f"^{field} rendered to nothing"):
            operator.execute(context())
    assert not requests_mock.called


@pytest.mark.parametrize(("name", "field"), FIELDS)
@pytest.mark.parametrize("value", ["", "  ", "None"])
def test_an_operator_refuses_a_field_given_empty(requests_mock: Mocker, name: str, field: str, value: str) -> None:
    """An empty value can come from a mapped XCom, which Airflow passes to the constructor."""

    def make_and_execute() -> None:
        getattr(operators, name)(task_id="t", **{**OPERATORS[name], field: value}).execute(context())

    # An object given as such a text is refused by the constructor.
    with pytest.raises((ModelArtsRequestError, ValueError), match=f"^{field} is "):
        make_and_execute()
    assert not requests_mock.called


@pytest.mark.parametrize("place", ["source", "version_id"])
def test_a_part_of_a_field_that_rendered_to_nothing_is_named(requests_mock: Mocker, place: str) -> None:
    given = {"type": "DATASET", "source": "d", place: "{{ absent }}"}
    operator = operators.ModelArtsCreateProcessorTaskOperator(task_id="t", **{**BODY, "inputs": [given]})
    operator.render_template_fields({}, Environment())
    with pytest.raises(ModelArtsRequestError, match=rf"^inputs\[0\]\['{place}'\] rendered to nothing"):
        operator.execute(context())
    assert not requests_mock.called


def test_an_empty_text_written_inside_a_field_is_not_refused() -> None:
    template = {"id": "sys_data_analyse", "operator_params": [{"id": "p", "params": {"prefix": ""}}]}
    operator = operators.ModelArtsCreateProcessorTaskOperator(task_id="t", **{**BODY, "template": template})
    operator.render_template_fields({}, Environment())
    operator._prepare_fields()


def test_a_list_that_rendered_empty_is_refused() -> None:
    with DAG("dag", schedule=None, render_template_as_native_obj=True):
        operator = operators.ModelArtsListProcessorTasksOperator(task_id="t", status="{{ [] }}")
    operator.render_template_fields({}, NativeEnvironment())
    with pytest.raises(ModelArtsRequestError, match=r"^status rendered to nothing \(\[\]\)"):
        operator.execute(context())


@pytest.mark.parametrize(
    ("field", "message"), [("version_id", "version_id rendered to nothing"), ("status", "status is '")]
)
def test_the_text_of_an_empty_list_is_refused(requests_mock: Mocker, field: str, message: str) -> None:
    operator = operators.ModelArtsListProcessorTasksOperator(task_id="t", **{field: "{{ [] }}"})
    operator.render_template_fields({}, Environment())
    with pytest.raises(ModelArtsRequestError, match=f"^{message}"):
        operator.execute(context())
    assert not requests_mock.called, "it would have listed all tasks"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("field", ModelArtsProcessorTaskSensor.template_fields)
@lenient
def test_the_sensor_refuses_an_empty_field_in_every_mode(
    requests_mock: Mocker, mode: str, field: str, environment: Environment
) -> None:
    arguments = {"processor_task_id": "abc", field: "{{ dag_run.conf.project }}", **MODES[mode]}
    values = {"dag_run": SimpleNamespace(conf={})}
    event = {"task_id": "abc", "status": 2}
    calls: dict[str, Callable[[ModelArtsProcessorTaskSensor], Any]] = {
        "execute": lambda waiting: waiting.execute(context()),
        "poke": lambda waiting: waiting.poke(context()),
        "resume": lambda waiting: waiting.resume_execution("execute_complete", {"event": event}, context()),
        "complete": lambda waiting: waiting.execute_complete(context(), event),
    }
    for call in calls.values():
        with DAG("dag", schedule=None, render_template_as_native_obj=isinstance(environment, NativeEnvironment)):
            waiting = ModelArtsProcessorTaskSensor(task_id="wait", **arguments)
        waiting.render_template_fields(values, environment)  # type: ignore[arg-type]  # as much as is used of a context
        with pytest.raises(ModelArtsRequestError) as caught:
            call(waiting)
        assert str(caught.value).startswith(f"{field} rendered to nothing (")
        assert "from '{{ dag_run.conf.project }}'" in str(caught.value)
        assert f"leave {field} out" in str(caught.value)
    assert not requests_mock.called


def test_an_empty_output_is_named_as_airflow_names_it() -> None:
    class Output:
        """An XComArg as far as rendering uses it."""

        def resolve(self, *_: Any, **__: Any) -> None:
            return None

        def __str__(self) -> str:
            return "the XCom of create"

    waiting = ModelArtsProcessorTaskSensor(task_id="wait", processor_task_id="abc")
    waiting.project_id = Output()  # type: ignore[assignment]  # not yet rendered
    waiting.render_template = lambda value, *_: value.resolve() if isinstance(value, Output) else value  # type: ignore[method-assign,assignment]  # Airflow's own looks for its classes
    waiting.render_template_fields({}, Environment())
    waiting.render_template_fields(
        {}, Environment()
    )  # the values are rendered now: they must not replace the templates
    with pytest.raises(ModelArtsRequestError, match=r"project_id rendered to nothing \(None\) from the XCom of create"):
        waiting.poke(context())


def test_an_argument_given_as_none_uses_the_default(requests_mock: Mocker) -> None:
    waiting = ModelArtsProcessorTaskSensor(task_id="wait", processor_task_id="abc", project_id=None)
    waiting.render_template_fields({}, Environment())
    requests_mock.get(f"{TASKS}/abc", json={"task_id": "abc"})
    assert waiting.poke(context()) is False


@pytest.mark.parametrize("field", ProcessorTaskTrigger._own_fields)
@pytest.mark.parametrize("value", ["", " ", "None", Undefined(name="x"), StrictUndefined(name="x")])
def test_the_trigger_ends_with_an_error_before_sending(server: EmulatorServer, field: str, value: Any) -> None:
    server.state.reset()
    waiting = ProcessorTaskTrigger("abc")
    setattr(waiting, field, value)  # as rendering does
    (event,) = run(events(waiting))
    assert event.payload["error"].startswith(f"{field} is ")
    assert server.state.log.count() == 0


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="before Airflow 3.3 nothing is rendered in a triggerer")
@pytest.mark.parametrize(
    "text", ["{{ dag_run.conf.project }}", "a-{{ dag_run.conf.project }}", "{{ ds }}", "{{ none }}"]
)
@pytest.mark.parametrize("field", ["processor_task_id", "task_version_id", "modelarts_conn_id", "project_id"])
def test_a_template_that_a_triggerer_renders_to_nothing_ends_the_wait_with_an_error(
    server: EmulatorServer, field: str, text: str
) -> None:
    server.state.reset()
    with DAG("dag", schedule=None):
        arguments = {"processor_task_id": "abc", field: text.replace("none", "params.none")}
        sensor = ModelArtsProcessorTaskSensor(task_id="wait", start_from_trigger=True, **arguments)  # type: ignore[arg-type]  # any field
    assert sensor.start_trigger_args is not None
    waiting = ProcessorTaskTrigger(**(sensor.start_trigger_args.trigger_kwargs or {}))
    waiting.task_instance = SimpleNamespace(task_id="wait", task=sensor)  # type: ignore[assignment]  # as much as is used
    waiting.render_template_fields({"dag_run": SimpleNamespace(conf={}), "params": {"none": None}})
    (event,) = run(events(waiting))
    if "none" in text:
        assert event.payload["error"].startswith(f"{field} rendered to nothing ('None') from '{{{{ params.none }}}}'")
    else:
        assert "a template cannot be rendered: " in event.payload["error"]
        assert "project" in event.payload["error"] or "'ds' is undefined" in event.payload["error"]
    assert server.state.log.count() == 0


@pytest.mark.parametrize("value", [0, False, "0", "none", "null", [None], {"a": ""}, b""])
def test_values_that_are_not_empty(value: Any) -> None:
    assert not is_empty(value)


def test_an_integer_is_read_as_the_text_of_an_id() -> None:
    assert [read_argument(value, ID) for value in (7, "7", None, True, 7.5)] == ["7", "7", None, True, 7.5]


def test_templated_fields_of_a_subclass_of_the_user_are_left_alone(requests_mock: Mocker) -> None:
    class Annotated(ModelArtsProcessorTaskSensor):
        template_fields = (*ModelArtsProcessorTaskSensor.template_fields, "note", "limit")

        def __init__(self, *, note: str = "", limit: int = 3, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.note, self.limit = note, limit

    class Described(operators.ModelArtsDescribeProcessorTaskOperator):
        template_fields = (*operators.ModelArtsDescribeProcessorTaskOperator.template_fields, "limit", "note", "body")

        def __init__(self, *, body: Any, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.limit, self.note, self.body = 3, "", body

        def execute(self, context: Any) -> Any:
            self._prepare_fields()
            with self._open_hook():
                return self.note, self.limit, self.body

    waiting = Annotated(task_id="w", processor_task_id="abc", start_from_trigger=True, end_from_trigger=True)
    waiting.render_template_fields({}, Environment())
    requests_mock.get(f"{TASKS}/abc", json={"task_id": "abc"})
    waiting.mode = "poke"
    waiting.deferrable = False
    assert waiting.poke(context()) is False
    assert (waiting.note, waiting.limit) == ("", 3)
    with DAG("dag", schedule=None, render_template_as_native_obj=True):
        reading = Described(task_id="r", processor_task_id="abc", body="{{ 7 }}")
    reading.render_template_fields({})
    assert reading.execute(context()) == ("", 3, 7)


def test_a_blank_text_is_named_with_native_rendering() -> None:
    with DAG("dag", schedule=None, render_template_as_native_obj=True):
        waiting = ModelArtsProcessorTaskSensor(task_id="wait", processor_task_id="\n")
    waiting.render_template_fields({})
    with pytest.raises(ModelArtsRequestError, match=r"^processor_task_id is '', which is no value"):
        waiting.poke(context())
