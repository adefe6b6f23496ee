"""Tests of the models of answers, documented and random."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_modelarts.api.models import (
    ApiModel,
    CreatedTask,
    CreatedVersion,
    Empty,
    ProcessorTask,
    ProcessorTaskItemPage,
    ProcessorTaskPage,
    ProcessorTaskVersion,
    ProcessorTaskVersionPage,
    SampleResultPage,
    parse,
    parse_result,
    parse_sample_results,
    without_signed_links,
)
from tests.support.flows import CONTRACT

EXAMPLES = CONTRACT / "examples"
DESCRIBED = (EXAMPLES / "describe-feature-analysis.json").read_bytes()
#: The example of the reference; the contract has a copy.
SEED = b"""{
  "task_id" : "AcYfsdfhGyrWL5TtahH",
  "name" : "V002",
  "data_source" : {
    "type" : "DATASET",
    "source" : "X6c3N3eztX7cr3Arvqu"
  },
  "inputs" : [ {
    "type" : "DATASET",
    "source" : "X6c3N3eztX7cr3Arvqu"
  } ],
  "template" : {
    "id" : "sys_data_analyse",
    "name" : "data analyse template name",
    "operator_params" : [ {
      "id" : "sys_data_analyse",
      "params" : {
        "op_list" : [ ],
        "task_type" : "image_classification",
        "manifest_path" : "s3://lch-test-obs/classify/output/dataset-3026-X6c3N3eztX7cr3Arvqu/annotation/V002/V002.manifest",
        "file_path" : "s3://lch-test-obs/classify/output/dataset-3026-X6c3N3eztX7cr3Arvqu/annotation/evaluation/V002",
        "is_normed" : false
      }
    } ]
  },
  "status" : 2,
  "duration_seconds" : 22,
  "create_time" : 1606373999627,
  "result" : "xxx",
  "version_id" : "XwTuRqI9En7xuZskW70",
  "is_current" : true
}"""

MODELS: list[type[ApiModel]] = [
    ProcessorTask,
    ProcessorTaskVersion,
    ProcessorTaskPage,
    ProcessorTaskVersionPage,
    ProcessorTaskItemPage,
    SampleResultPage,
    CreatedTask,
    CreatedVersion,
    Empty,
]
#: One field of each type of a task, with a possible value.
FULL_TASK: dict[str, Any] = {
    "task_id": "t",
    "name": "n",
    "description": "",
    "status": 3,
    "create_time": 1606373999627,
    "duration_seconds": 22,
    "error_msg": "out of memory",
    "result": {"a": 1},
    "data_source": {"type": "OBS", "source": "obs://b/k"},
    "inputs": [{"type": "DATASET", "source": "d", "name": "n", "version_id": "v", "version_name": "V001"}],
    "template": {
        "id": "sys_data_validation",
        "name": "x",
        "operator_params": [
            {
                "id": "o",
                "name": "O",
                "advanced_params_switch": False,
                "params": {"size": "1920", "on": True, "n": 2**40},
            }
        ],
    },
    "work_path": {"type": "OBS", "path": "obs://b/o", "output_path": "/datasets/demo", "name": "w"},
    "version_count": 3,
    "version_id": "v",
    "version_name": "V001",
    "workspace_id": "0",
    "is_current": True,
}


def task(**fields: Any) -> ProcessorTask:
    return parse(ProcessorTask, json.dumps({"task_id": "t", **fields}).encode())


def task_of(body: str) -> ProcessorTask:
    return parse(ProcessorTask, body.encode())


@pytest.mark.parametrize("body", [SEED, DESCRIBED], ids=["seed", "contract"])
def test_the_references_example_is_read(body: bytes) -> None:
    read = parse(ProcessorTask, body)
    assert (read.task_id, read.status, read.is_terminal, read.result) == ("AcYfsdfhGyrWL5TtahH", 2, True, "xxx")


def test_the_references_example_is_returned_unchanged_without_the_result() -> None:
    expected = {name: value for name, value in json.loads(DESCRIBED).items() if name != "result"}
    assert parse(ProcessorTask, DESCRIBED).to_json() == {**expected, "status_name": "completed"}


def test_nested_objects_are_read() -> None:
    read = task(**FULL_TASK)
    assert read.work_path is not None
    assert read.work_path.output_path == "/datasets/demo"
    assert read.template is not None
    assert read.template.operator_params is not None
    assert read.template.operator_params[0].params == {"size": "1920", "on": True, "n": 2**40}


def test_only_the_id_of_a_task_is_required() -> None:
    assert task().to_json() == {"task_id": "t", "status_name": "unknown (None)"}


@pytest.mark.parametrize("field", [name for name in FULL_TASK if name != "task_id"])
def test_a_task_may_lack_a_field(field: str) -> None:
    body = {name: value for name, value in FULL_TASK.items() if name != field}
    read = parse(ProcessorTask, json.dumps(body).encode())
    assert getattr(read, field) is None
    assert field not in read.to_json()


@pytest.mark.parametrize("field", [name for name in FULL_TASK if name != "task_id"])
def test_a_field_of_a_task_may_be_null(field: str) -> None:
    assert getattr(task(**{**FULL_TASK, field: None}), field) is None


@pytest.mark.parametrize("body", [b"{}", b'{"task_id": null}', b'{"task_id": {}}'])
def test_a_task_without_an_id_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="task_id"):
        parse(ProcessorTask, body)


@pytest.mark.parametrize(
    "fields",
    [
        {"data_source": {"type": None, "source": None}},
        {"inputs": []},
        {"inputs": [{}]},
        {"template": {}},
        {"template": {"operator_params": None}},
        {"template": {"operator_params": [{"params": None, "advanced_params_switch": None}]}},
        {"work_path": {}},
    ],
    ids=str,
)
def test_an_object_within_a_task_may_lack_any_field(fields: dict[str, Any]) -> None:
    assert task(**fields).to_json() == {"task_id": "t", **fields, "status_name": "unknown (None)"}


@pytest.mark.parametrize(
    "fields",
    [
        {"new_field": {"a": [1, None]}},
        {"data_source": {"bucket_region": "eu-de"}},
        {"template": {"operator_params": [{"id": "o", "gpu": 1}]}},
        {"work_path": {"quota": 1.5}},
        {"to_json": 1, "model_config": 2, "model_fields": 3, "is_terminal": 4, "_private": 5, "__class__": 6},
        {"model_extra": 1, "__pydantic_extra__": 2, "copy": 3, "": 4, "schema": 5, "self": 6},
    ],
    ids=str,
)
def test_unknown_fields_are_kept_and_returned(fields: dict[str, Any]) -> None:
    assert task(**fields).to_json() == {"task_id": "t", **fields, "status_name": "unknown (None)"}


def test_an_unknown_field_named_like_one_of_ours_does_not_replace_it() -> None:
    assert task(status=2, is_terminal=False).is_terminal is True


def test_a_field_of_another_type_does_not_make_a_list_unreadable() -> None:
    body = b'{"count": 2, "tasks": [{"task_id": "a", "status": 2, "work_path": "", "inputs": [7]}, {"task_id": "b"}]}'
    page = parse(ProcessorTaskPage, body)
    assert [(task.task_id, task.status, task.work_path) for task in page.tasks or ()] == [
        ("a", 2, None),
        ("b", None, None),
    ]


def test_a_list_that_is_no_list_is_unreadable() -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(ProcessorTaskPage, b'{"tasks": {}}')


def test_a_numeric_id_is_read() -> None:
    assert task(task_id=17).task_id == "17"


def test_a_number_given_as_text_is_read() -> None:
    assert task(status="2").status == 2


def test_the_operator_parameters_are_kept_unchanged() -> None:
    params = {"total_status": "[0,1,2]", "image_max_width": "1920", "n": 1, "x": 1.0, "on": "true", "map": {"a": "1"}}
    read = task(template={"id": "t", "operator_params": [{"params": params}]})
    assert json.dumps(read.to_json()["template"]["operator_params"][0]["params"]) == json.dumps(params)


@pytest.mark.parametrize(("status", "terminal"), [(0, False), (1, False), (2, True), (3, True), (4, True)])
def test_each_documented_status_is_terminal_or_not(status: int, terminal: bool) -> None:
    assert task(status=status).is_terminal is terminal


@pytest.mark.parametrize("status", [-1, 5, 42, 2**70, None])
def test_an_undocumented_status_is_not_terminal(status: int | None) -> None:
    read = task(status=status)
    assert read.status == status
    assert not read.is_terminal


@pytest.mark.parametrize("status", [2, 7, None])
def test_a_task_has_the_name_of_its_status(status: int | None) -> None:
    assert (
        task(status=status).to_json()["status_name"]
        == {2: "completed", 7: "unknown (7)", None: "unknown (None)"}[status]
    )


def test_a_task_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        task().name = "other"  # type: ignore[misc]  # the test is about the runtime


def test_the_items_count_is_called_total() -> None:
    assert parse(ProcessorTaskItemPage, b'{"total": 7, "items": [{"template_id": "sys_data_analyse"}]}').count == 7


def test_a_versions_counts_are_read() -> None:
    version = parse(ProcessorTaskVersion, b'{"task_version_id": "v", "status": 1, "deleted_sample_count": 3}')
    assert (version.task_version_id, version.status, version.deleted_sample_count) == ("v", 1, 3)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
#: Objects with the field names of the models and values of any type.
objects = st.recursive(
    json_values,
    lambda inner: st.dictionaries(
        st.sampled_from(
            [*FULL_TASK, "id", "params", "tasks", "items", "results", "versions", "count", "total", "has_more"]
        )
        | st.sampled_from(
            ["sample_id", "result_description", "signed_new_source", "operator_params", "type", "source"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=8,
)
any_body = (json_values | objects).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model.__name__))
@settings(deadline=None, max_examples=100)
@given(body=any_body)
@example(body=b"")
@example(body=b"null")
@example(body=b"[]")
@example(body=b"\xff")
@example(body=b'{"task_id": "\\ud800"}')
@example(body=b'{"task_id": "\\ud800", "x": NaN}')
@example(body=b'{"task_id": "t", "x": 1' + b"0" * 5000 + b"}")
@example(body=b'{"task_id": "t", "x": NaN, "y": 1' + b"0" * 5000 + b"}")
@example(body=b"[" * 100_000)
@example(body=b'{"task_id": "t", "result": ' + b"[" * 100_000 + b"NaN" + b"]" * 100_000 + b"}")
def test_any_answer_becomes_json_or_raises_value_error(model: type[ApiModel], body: bytes) -> None:
    try:
        read = parse(model, body)
    except ValueError:
        return
    as_json = [read.to_json(), getattr(read, "result", None)]
    assert json.loads(json.dumps(as_json, allow_nan=False)) == as_json


@pytest.mark.parametrize("number", ["1", "NaN"])
@pytest.mark.parametrize("field", ["x", "result", "signed_x"])
@pytest.mark.parametrize("depth", range(100, 1000, 100))
def test_an_answer_of_any_depth_becomes_json_or_raises_value_error(depth: int, field: str, number: str) -> None:
    try:
        read = task_of(f'{{"task_id": "t", "{field}": ' + "[" * depth + number + "]" * depth + "}")
    except ValueError:
        return
    assert json.dumps([read.to_json(), read.result])


def test_an_answer_too_deep_for_the_stack_raises_value_error() -> None:
    body = '{"task_id": "t", "result": ' + "[" * 190 + '"signed_"' + "]" * 190 + "}"

    def read_with(frames_left: int) -> ProcessorTask:
        frame, used = sys._getframe(), 0
        while frame.f_back is not None:
            frame, used = frame.f_back, used + 1
        return task_of(body) if sys.getrecursionlimit() - used <= frames_left else read_with(frames_left)

    with pytest.raises(ValueError, match="nested too deeply"):
        read_with(frames_left=120)


@pytest.mark.parametrize("signed_links", [True, False])
@settings(deadline=None, max_examples=100)
@given(body=objects.map(lambda value: json.dumps({"results": [value]}).encode()) | any_body)
@example(body=b'{"results": [{"x": ' + b"[" * 900 + b"NaN" + b"]" * 900 + b"}]}")
def test_any_page_of_samples_is_read_or_raises_value_error(signed_links: bool, body: bytes) -> None:
    try:
        page = parse_sample_results(body, signed_links=signed_links)
    except ValueError:
        return
    assert signed_links or all(
        result.signed_new_source is None and result.signed_origin_source is None for result in page.results or []
    )


@settings(deadline=None, max_examples=100)
@given(objects.filter(lambda value: isinstance(value, dict)))
def test_any_fields_of_a_task_are_returned_unchanged(fields: dict[str, Any]) -> None:
    body = json.dumps({**fields, "task_id": "t"}).encode()
    try:
        read = parse(ProcessorTask, body)
    except ValueError:
        return
    known = set(FULL_TASK)
    given = {
        name: value for name, value in json.loads(body, parse_constant=lambda _: None).items() if name not in known
    }
    returned = {name: value for name, value in read.to_json().items() if name not in known}
    returned.pop("status_name")
    given.pop("status_name", None)
    assert returned == without_signed_links(given)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-1.5E999", "1e+400", "1e0400", "1e400\n"])
@pytest.mark.parametrize("form", ["[[0, {}]]", '{{"a": 1.5, "b": {{"c": {}}}}}'])
@pytest.mark.parametrize("dump", [str, json.dumps], ids=["json", "text"])
def test_a_number_of_a_result_that_is_not_finite_becomes_null(
    number: str, form: str, dump: Callable[[str], str]
) -> None:
    read = task_of(f'{{"task_id": "t", "result": {dump(form.format(number))}}}')
    assert read.result == json.loads(form.format("null"))


@pytest.mark.parametrize("first", [0.5, float("nan")], ids=["finite", "NaN"])
@pytest.mark.parametrize("form", ["object", "array", "text"])
def test_reading_a_result_takes_no_more_memory_than_json_does(form: str, first: float) -> None:
    items = [{"sample": f"s3://bucket/{number}.jpg", "brightness": number / 7, "x": first} for number in range(5000)]
    result = {"object": {"items": items}, "array": items, "text": json.dumps(items)}[form]
    body = json.dumps({"task_id": "t", "result": result}).encode()
    del items, result

    def read_plainly() -> object:
        read = json.loads(body)
        return read, json.loads(read["result"]) if form == "text" else None

    peaks = []
    for read in (read_plainly, lambda: parse(ProcessorTask, body)):
        read()  # what is loaded once does not count
        tracemalloc.start()
        read()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The parser reads the bytes of a text; with the lowest version of pydantic that takes 1.42 times as much.
    assert peaks[1] <= (1.5 if form == "text" else 1.2) * peaks[0]


def test_a_result_that_is_not_finite_becomes_none() -> None:
    assert task_of('{"task_id": "t", "result": -1e999}').result is None


@pytest.mark.parametrize("value", [1e308, -1e-320, "1e999", "NaN", "7e1234", ["1e400"], {"1e400": 1e22}, 10**400])
def test_a_finite_number_and_a_text_like_a_number_are_kept(value: object) -> None:
    read = task_of(json.dumps({"task_id": "t", "result": {"x": value}}))
    assert read.result == {"x": value}


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=30) | json_values.map(json.dumps))
def test_a_text_result_becomes_an_object_or_an_array_or_is_unchanged(text: str) -> None:
    read = parse_result(text)
    assert read == text or (isinstance(read, dict | list) and text.lstrip()[0] in "[{")
