"""How operators read their arguments: numbers for text, and objects given as text or in files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from requests_mock import Mocker

from airflow_modelarts.api.errors import ModelArtsRequestError
from airflow_modelarts.operators import (
    ModelArtsAuditProcessorTasksOperator,
    ModelArtsCreateProcessorTaskOperator,
    ModelArtsCreateProcessorTaskVersionOperator,
    ModelArtsDeleteProcessorTaskOperator,
    ModelArtsDescribeProcessorTaskOperator,
    ModelArtsExportProcessorTaskResultsOperator,
    ModelArtsListProcessorTasksOperator,
    ModelArtsStopProcessorTaskOperator,
)
from airflow_modelarts.operators.create import RequestBodyMixin
from airflow_modelarts.operators.tasks import TaskResultMixin
from airflow_modelarts.testing.emulator import EmulatorServer
from tests.support.fixtures import TASKS

TEMPLATE = {"id": "sys_data_validation", "operator_params": [{"id": "MetaValidation", "params": {"size": 7}}]}
INPUTS = [{"type": "OBS", "source": "obs://bucket/in/"}]
FORM = r'give \{"id": "sys_data_validation", "operator_params": \[\]\}'


#: For tests of texts that are no template's id.
any_template = pytest.mark.filterwarnings("ignore:.*a template that the API reference does not document")
TASK_DURATION = 0.05  # seconds, of the emulator's tasks


class TaskInstance(SimpleNamespace):
    """Keeps the XComs that are pushed."""

    def __init__(self) -> None:
        super().__init__(try_number=1, max_tries=1, map_index=-1, stats_tags={}, xcoms={})

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


def operator(**arguments: Any) -> ModelArtsCreateProcessorTaskOperator:
    given = {"name": "check", "template": TEMPLATE, "inputs": INPUTS, "poll_interval": 0.02, **arguments}
    return ModelArtsCreateProcessorTaskOperator(task_id="run", random_name_suffix=False, **given)


def rendered(operator: Any, *, native: bool = False, folder: Path | None = None, **context: Any) -> Any:
    """Render an operator as a task of a DAG."""
    dag = DAG(
        "d", schedule=None, render_template_as_native_obj=native, template_searchpath=[str(folder)] if folder else None
    )
    dag.add_task(operator)
    operator.resolve_template_files()
    operator.render_template_fields(context)
    return operator


def sent(emulator: EmulatorServer, operator: Any) -> dict[str, Any]:
    operator.execute({"ti": TaskInstance()})
    (task,) = emulator.state.all_tasks()
    return task.body


# Text and numbers

#: Texts that native rendering would read as Python literals.
TEXTS = ["20261125", "2026_11_25", "1e5", "0x10", "1.10", "True", "1, 2", "'quoted'", "7 # note", "[1]", "None of it"]


@any_template
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text_wherever_the_api_expects_text(text: str, native: bool) -> None:
    template = {"id": text, "name": "{{ x }}", "operator_params": [{"id": "{{ x }}", "name": text}]}
    given = operator(
        name=text,
        template=template,
        inputs=None,
        data_source={"type": "DATASET", "source": "{{ x }}", "version_id": text, "name": text},
        work_path={"type": "OBS", "path": "{{ x }}", "version_name": text, "output_path": text},
        version_id="{{ x }}",
        description="{{ x }}",
        workspace_id=text,
    )
    body = rendered(given, native=native, x=text)
    assert body.name == body.version_id == body.description == body.workspace_id == text
    assert body.template == {"id": text, "name": text, "operator_params": [{"id": text, "name": text}]}
    assert body.data_source == {"type": "DATASET", "source": text, "version_id": text, "name": text}
    assert body.work_path == {"type": "OBS", "path": text, "version_name": text, "output_path": text}


def test_numbers_are_sent_as_text_where_the_api_expects_text(emulator: EmulatorServer) -> None:
    given = operator(
        name=20261125,
        template={"id": "sys_data_validation", "operator_params": [{"id": 1, "name": 2, "params": {"n": 3, "f": [4]}}]},
        inputs=[{"type": "DATASET", "source": 12345678, "version_id": 20231023, "name": True}],
        work_path={"type": "DATASET", "path": 1, "version_name": 2},
        version_id=20231023,
        description=1.5,
        workspace_id=0,
    )
    assert sent(emulator, given) == {
        "name": "20261125",
        "template": {
            "id": "sys_data_validation",
            "operator_params": [{"id": "1", "name": "2", "params": {"n": 3, "f": [4]}}],
        },
        "inputs": [{"type": "DATASET", "source": "12345678", "version_id": "20231023", "name": "True"}],
        "work_path": {"type": "DATASET", "path": "1", "version_name": "2"},
        "version_id": "20231023",
        "description": "1.5",
        "workspace_id": "0",
        "create_version": True,
    }


def test_parameters_of_operators_stay_as_they_were_written() -> None:
    params = {"n": "100", "flag": "True", "list": "[0, 1]", "none": "None", "file": "x.json", "deep": {"id": "7"}}
    template = {"id": "sys_data_validation", "operator_params": [{"params": {**params, "day": "{{ n }}"}}]}
    kept = rendered(operator(template=template), native=True, n=7).template["operator_params"][0]["params"]
    assert kept == {**params, "day": 7}


def test_a_field_that_renders_natively_to_none_is_not_sent() -> None:
    given = rendered(operator(version_id="{{ x }}", description="{{ x }}-{{ x }}"), native=True, x=None)
    assert given.version_id is None
    assert given.description == "None-None"


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (ModelArtsDescribeProcessorTaskOperator, {"processor_task_id"}),
        (ModelArtsStopProcessorTaskOperator, {"processor_task_id", "task_version_id"}),
        (ModelArtsDeleteProcessorTaskOperator, {"processor_task_id", "task_version_id"}),
        (ModelArtsExportProcessorTaskResultsOperator, {"processor_task_id", "task_version_id", "path"}),
        (ModelArtsListProcessorTasksOperator, {"template_id", "task_name", "source", "version_id", "workspace_id"}),
        (ModelArtsAuditProcessorTasksOperator, {"template_id", "source", "workspace_id", "report_path"}),
        (ModelArtsCreateProcessorTaskVersionOperator, {"processor_task_id", "name", "version_id"}),
    ],
)
@any_template
@pytest.mark.parametrize("text", ["20261125", "1_000", "1e5"])
def test_ids_and_filters_of_every_operator_stay_text(make: Any, fields: set[str], text: str) -> None:
    given = dict.fromkeys({*fields, "project_id", "modelarts_conn_id"}, text)
    task = rendered(make(task_id="t", **given), native=True)
    assert {name: getattr(task, name) for name in given} == given


def test_an_id_can_be_a_number(requests_mock: Mocker) -> None:
    requests_mock.get(f"{TASKS}/7", json={"task_id": "7", "status": 2})
    requests_mock.get(f"{TASKS}/7/versions/8", json={"task_version_id": "8", "status": 1})
    requests_mock.post(f"{TASKS}/7/versions/8/stop", json={})
    requests_mock.delete(f"{TASKS}/7/versions/8", json={})
    ids: dict[str, Any] = {"task_id": "t", "processor_task_id": 7}
    context: Any = {"ti": TaskInstance()}
    ModelArtsDescribeProcessorTaskOperator(**ids).execute(context)
    stopped = ModelArtsStopProcessorTaskOperator(**ids, task_version_id=8).execute(context)
    assert stopped == {"task_id": "7", "stopped_version_ids": ["8"]}
    deleted = ModelArtsDeleteProcessorTaskOperator(**ids, task_version_id=8).execute(context)
    assert deleted == {"task_id": "7", "task_version_id": "8", "deleted": True}


@pytest.mark.parametrize("versions", [[20231023, 20231024], ["20231023", 20231024], "['20231023', '20231024']"])
def test_filters_can_be_numbers_and_lists_of_them(requests_mock: Mocker, versions: Any) -> None:
    requests_mock.get(TASKS, json={"count": 0, "tasks": []})
    given: dict[str, Any] = {"source": 12345678, "task_name": True, "created_after": 20261125, "version_id": versions}
    ModelArtsListProcessorTasksOperator(task_id="t", **given).execute({})
    query = requests_mock.last_request.qs
    assert {name: query[name] for name in ("source", "task_name", "version_id")} == {
        "source": ["12345678"],
        "task_name": ["true"],  # requests-mock lowers it
        "version_id": ["20231023,20231024"],
    }


def test_a_list_of_versions_can_come_from_one_expression() -> None:
    task = ModelArtsListProcessorTasksOperator(task_id="t", version_id="{{ x }}", created_after="{{ day }}")
    day = datetime(2026, 11, 25, tzinfo=UTC)
    rendered(task, native=True, x=["a", "b"], day=day)
    assert (task.version_id, task.created_after) == (["a", "b"], day)


@pytest.mark.parametrize("native", [False, True])
def test_a_list_of_statuses_can_come_from_one_expression(requests_mock: Mocker, native: bool) -> None:
    tasks = [{"task_id": str(status), "status": status} for status in range(5)]
    requests_mock.get(TASKS, json={"count": 5, "tasks": tasks})
    listing = ModelArtsListProcessorTasksOperator(task_id="t", status="{{ x }}")
    rendered(listing, native=native, x=["failed", 2])
    assert [task["task_id"] for task in listing.execute({})] == ["2", "3"]


# Objects as text and in files


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("write", [json.dumps, repr, lambda body: json.dumps(json.dumps(body)), lambda body: body])
def test_a_body_can_be_the_text_that_a_template_renders(emulator: EmulatorServer, write: Any, native: bool) -> None:
    template = {**TEMPLATE, "name": '数据 "it\'s"'}
    work_path = {"type": "OBS", "path": "obs://bucket/out/", "version_name": "V1"}
    x = {"template": write(template), "inputs": write(INPUTS), "work_path": write(work_path)}
    task = operator(template="{{ x.template }}", inputs=" {{ x.inputs }}\n", work_path="{{ x.work_path }}")
    body = sent(emulator, rendered(task, native=native, x=x))
    assert (body["template"], body["inputs"], body["work_path"]) == (template, INPUTS, work_path)


@pytest.mark.parametrize("native", [False, True])
def test_a_body_can_be_text_that_contains_templates(emulator: EmulatorServer, native: bool) -> None:
    task = operator(
        template='{"id": "sys_data_{{ x }}", "operator_params": [{"params": {"on": true, "url": "a\\/{{ x }}"}}]}',
        inputs="({'type': 'OBS', 'source': 'obs://bucket/{{ x }}/'},)",
    )
    body = sent(emulator, rendered(task, native=native, x="validation"))
    params = {"on": True, "url": "a/validation"}
    assert body["template"] == {"id": "sys_data_validation", "operator_params": [{"params": params}]}
    assert body["inputs"] == [{"type": "OBS", "source": "obs://bucket/validation/"}]


def test_parts_of_a_body_can_be_text(emulator: EmulatorServer) -> None:
    template = {"id": "sys_data_validation", "operator_params": "{{ x.params }}"}
    x = {"params": [{"id": 7, "params": {"n": "7"}}], "input": json.dumps(INPUTS[0])}
    body = sent(emulator, rendered(operator(template=template, inputs=["{{ x.input }}"]), x=x))
    assert body["template"]["operator_params"] == [{"id": "7", "params": {"n": "7"}}]
    assert body["inputs"] == INPUTS


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("is_resolved", [False, True])
def test_a_body_can_be_in_a_file(emulator: EmulatorServer, tmp_path: Path, native: bool, is_resolved: bool) -> None:
    (tmp_path / "body.json").write_text(json.dumps({**TEMPLATE, "name": "{{ x }}"}), encoding="utf-8-sig")
    (tmp_path / "inputs.json").write_text(json.dumps(INPUTS))
    task = operator(template="body.json", inputs="inputs.json")
    if not is_resolved:  # as for mapped operators
        task.resolve_template_files = lambda: None  # type: ignore[method-assign]
    body = sent(emulator, rendered(task, native=native, folder=tmp_path, x="7"))
    assert (body["template"], body["inputs"]) == ({**TEMPLATE, "name": "7"}, INPUTS)


@any_template
@pytest.mark.parametrize("native", [False, True])
def test_other_texts_are_not_read_as_file_names(native: bool, caplog: pytest.LogCaptureFixture) -> None:
    path = {"type": "OBS", "path": "obs://bucket/x.json", "unknown": "{{ x }}.json"}
    params = {"manifest": "{{ x }}.json", "other": "x.json", "list": ["x.json"]}
    template = {"id": "x.json", "operator_params": [{"params": params}]}
    given = {"name": "x.json", "description": "{{ x }}.json", "work_path": path, "template": template}
    task = rendered(operator(**given, inputs=[{"source": "obs://bucket/{{ x }}.json"}]), native=native, x="y")
    assert (task.name, task.description) == ("x.json", "y.json")
    assert task.work_path == {**path, "unknown": "y.json"}
    assert task.template["operator_params"][0]["params"] == {**params, "manifest": "y.json"}
    assert task.inputs == [{"source": "obs://bucket/y.json"}]
    assert not caplog.records


@pytest.mark.parametrize("text", ["sys_data_validation", "7", "{'id': ", "[1"])
def test_a_text_that_is_no_body_is_refused_with_an_example(text: str) -> None:
    task = rendered(operator(template="{{ x }}", inputs="{{ x }}", work_path=["{{ x }}"][0]), x=text)
    with pytest.raises(ModelArtsRequestError) as caught:
        task.execute({"ti": TaskInstance()})
    message = str(caught.value)
    assert 'template: it must be an object, or its text as JSON, such as {"id": "sys_data_validation"' in message
    assert 'inputs: it must be a list, or its text as JSON, such as [{"type": "DATASET"' in message
    assert 'work_path: it must be an object, or its text as JSON, such as {"type": "OBS"' in message
    assert "Sent" not in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"template": {**TEMPLATE, "operator_params": {"id": "x"}}}, r"template.operator_params: .* \[\{"),
        ({"template": {**TEMPLATE, "operator_params": ["x"]}}, r"template.operator_params.0: it must be an object"),
        ({"inputs": ["{{ x }}"]}, r'inputs.0: it must be an object, .* such as \{"type": "DATASET"'),
    ],
)
def test_a_part_that_is_no_object_is_refused_with_an_example(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelArtsRequestError, match=message):
        operator(**arguments).execute({"ti": TaskInstance()})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"template": "sys_data_validation"}, f"template is 'sys_data_validation': {FORM}"),
        ({"template": "sys_data_cleaning"}, 'give {"id": "sys_data_cleaning", "operator_params": \\[\\]}'),
        ({"template": '["sys_data_validation"]'}, FORM),
        ({"template": "two words"}, FORM),
        ({"template": ""}, FORM),
        ({"template": 7}, FORM),
        ({"template": [TEMPLATE]}, FORM),
        ({"data_source": "PYc9H2HGv5"}, 'give {"type": "DATASET", "source": "PYc9H2HGv5"}'),
        ({"data_source": "/bucket/in"}, 'give {"type": "OBS", "source": "/bucket/in"}'),
        ({"inputs": "obs://bucket/in/"}, r'give \[{"type": "OBS", "source": "obs://bucket/in/"}\]'),
        ({"inputs": INPUTS[0]}, r'give \[{"type": "DATASET"'),
        ({"inputs": json.dumps(INPUTS[0])}, r'give \[{"type": "DATASET"'),
        ({"inputs": [INPUTS[0], "/b/in"]}, r"inputs\[1\] is '/b/in': give {"),
        ({"work_path": "obs://bucket/out/"}, 'give {"type": "OBS", "path": "obs://bucket/out/"}'),
    ],
)
def test_a_literal_that_is_no_body_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{") if r"\{" not in message else message):
        operator(**arguments)


def test_a_value_known_only_at_run_time_is_not_refused_when_the_dag_is_parsed() -> None:
    with DAG("d", schedule=None):
        before = ModelArtsDescribeProcessorTaskOperator(task_id="before", processor_task_id="abc")
        given: list[Any] = [
            "{{ x }}",
            "{% include 'x' %}",
            "body.json",
            "{'id': 'sys_data_cleaning'}",
            before.output,
            lambda **_: {},
        ]
        for number, template in enumerate(given):
            ModelArtsCreateProcessorTaskOperator(task_id=f"t{number}", name="n", template=template)
        make = ModelArtsCreateProcessorTaskOperator.partial(task_id="mapped", name="n", template="{{ x }}")
        make.expand(inputs=before.output)
        ModelArtsCreateProcessorTaskVersionOperator(task_id="again", processor_task_id="abc")
    with DAG("other", schedule=None, jinja_environment_kwargs={"variable_start_string": "<<"}):
        ModelArtsCreateProcessorTaskOperator(task_id="t", name="n", template="<< x >>")


def test_the_rules_of_an_audit_can_be_the_text_that_a_template_renders() -> None:
    task = ModelArtsAuditProcessorTasksOperator(task_id="t", rules="{{ x }}")
    rendered(task, x={"longest_seconds": 5})._read_arguments()
    assert task.rules == {"longest_seconds": 5}


def test_a_failed_rendering_leaves_the_arguments_unchanged() -> None:
    task = operator(name="{{ 1 / 0 }}", description="a")
    with pytest.raises(ZeroDivisionError):
        rendered(task)
    assert (task.name, task.description) == ("{{ 1 / 0 }}", "a")


# Outputs


@pytest.mark.parametrize("do_xcom_push", [False, True])
@pytest.mark.parametrize("make", [ModelArtsCreateProcessorTaskOperator, ModelArtsDescribeProcessorTaskOperator])
def test_multiple_outputs_is_set_if_xcoms_are_pushed(make: Any, do_xcom_push: bool) -> None:
    needed = {"name": "n", "template": TEMPLATE} if issubclass(make, RequestBodyMixin) else {"processor_task_id": "abc"}
    task: TaskResultMixin = make(task_id="t", do_xcom_push=do_xcom_push, **needed)
    assert task.multiple_outputs is do_xcom_push


@pytest.mark.parametrize("asked", [False, True])
def test_fields_become_xcoms_only_with_multiple_outputs(requests_mock: Mocker, asked: bool) -> None:
    requests_mock.get(f"{TASKS}/abc", json={"task_id": "abc", "status": 2})
    task = ModelArtsDescribeProcessorTaskOperator(task_id="t", processor_task_id="abc", multiple_outputs=asked)
    task.execute({"ti": TaskInstance()})  # type: ignore[typeddict-item]
    assert task.multiple_outputs is asked
