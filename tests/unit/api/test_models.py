"""Tests of the models: answers, documented and random, and request bodies."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_modelarts.api import operations, request_parts
from airflow_modelarts.api.errors import ModelArtsRequestError
from airflow_modelarts.api.models import (
    ApiModel,
    CreatedTask,
    CreatedVersion,
    CreateProcessorTaskRequest,
    CreateProcessorTaskVersionRequest,
    Empty,
    ProcessorTask,
    ProcessorTaskItemPage,
    ProcessorTaskPage,
    ProcessorTaskVersion,
    ProcessorTaskVersionPage,
    SampleResultPage,
    UpdateProcessorTaskRequest,
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


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
        ([1, "2"], [1, "2"]),
        ({}, {}),
        ([], []),
        ('{"a": [1]}', {"a": [1]}),
        (" \n\t[1, 2]\n", [1, 2]),
        ("{}", {}),
        ("[]", []),
        ('{"a": "[1]"}', {"a": "[1]"}),
        ("xxx", "xxx"),
        ("", ""),
        (" ", " "),
        ("17", "17"),
        ("1.5e3", "1.5e3"),
        ("true", "true"),
        ("null", "null"),
        ('"quoted"', '"quoted"'),
        ("{not json}", "{not json}"),
        ('{"a": 1', '{"a": 1'),
        ('{"a": 1} {"b": 2}', '{"a": 1} {"b": 2}'),
        ("[1, 2", "[1, 2"),
        ("{'a': 1}", "{'a': 1}"),
        ("[" * 100_000, "[" * 100_000),
        ("[" * 5000 + "]" * 5000, "[" * 5000 + "]" * 5000),
        ('{"ü": "漢😀"}', {"ü": "漢😀"}),
        (17, 17),
        (1.5, 1.5),
        (True, True),
        (None, None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_result_has_the_form_of_the_contract(sent: Any, read: Any) -> None:
    assert task(result=sent).result == read


def test_a_result_that_is_absent_is_none() -> None:
    assert task().result is None


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("form", ['{"x": [%s, 1]}', '"{\\"x\\": [%s, 1]}"'], ids=["object", "string"])
def test_nan_and_infinities_in_a_result_become_none(form: str, number: str) -> None:
    assert task_of(f'{{"task_id": "t", "result": {form % number}}}').result == {"x": [None, 1]}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinities_in_other_fields_become_none(number: str) -> None:
    assert task_of(f'{{"task_id": "t", "duration_seconds": {number}, "x": {number}}}').to_json() == {
        "task_id": "t",
        "duration_seconds": None,
        "x": None,
        "status_name": "unknown (None)",
    }


@pytest.mark.parametrize("text", ["NaN", "to Infinity and beyond"])
def test_a_text_that_mentions_nan_is_unchanged(text: str) -> None:
    assert task(description=text, result=text).to_json()["description"] == text


def test_a_result_given_as_text_with_a_lone_surrogate_stays_text() -> None:
    assert parse_result('{"a": "\ud800"}') == '{"a": "\ud800"}'


@pytest.mark.parametrize("depth", [100, 190])
def test_a_deeply_nested_result_is_read(depth: int) -> None:
    assert json.dumps(task_of('{"task_id": "t", "result": ' + "[" * depth + "]" * depth + "}").result) == (
        "[" * depth + "]" * depth
    )


def test_the_repr_of_a_task_excludes_the_result() -> None:
    assert "megabytes" not in repr(task(result={"x": "megabytes"}))


def test_the_json_of_a_task_excludes_the_result() -> None:
    assert "result" not in task(result={"a": 1}).to_json()


LINK = "https://b.obs.example/k/a.jpg?AccessKeyId=AK&Expires=1&x-obs-security-token=T0KEN&Signature=S3CRET%3D"
AMAZONS = "https://b.s3.example/k?X-Amz-Credential=AK&X-Amz-Security-Token=T0KEN&X-Amz-Signature=S3CRET"


@pytest.mark.parametrize("link", [LINK, AMAZONS, LINK.lower().replace("s3cret", "S3CRET").replace("t0ken", "T0KEN")])
@pytest.mark.parametrize(
    "form",
    ["{}", "see {}", "<a href='{}'>", "{} and {}", '{{"u": "{}"}}', '[["{}"]]', '{{"u": {{"signed_url": "{}"}}}}'],
)
def test_a_signed_link_in_a_result_loses_its_signature(form: str, link: str) -> None:
    read = json.dumps(task(result=form.format(link, link)).result)
    assert "S3CRET" not in read
    assert "T0KEN" not in read


def test_a_signed_link_in_a_result_keeps_its_address() -> None:
    assert task(result={"url": f"see {LINK} there"}).result == {"url": "see https://b.obs.example/k/a.jpg there"}


def test_a_signed_link_with_escaped_slashes_in_a_result_loses_its_signature() -> None:
    body = '{{"task_id": "t", "result": {{"url": "{}"}}}}'.format(LINK.replace("/", "\\/").replace("S", "\\u0053"))
    assert task_of(body).result == {"url": "https://b.obs.example/k/a.jpg"}


@pytest.mark.parametrize("form", ['{{"url": "{}"}}', '"{{\\"url\\": \\"{}\\"}}"'], ids=["object", "string"])
def test_a_signed_link_escaped_by_java_in_a_result_loses_its_signature(form: str) -> None:
    link = LINK.replace("=", "\\u003d").replace("&", "\\u0026")
    body = f'{{"task_id": "t", "result": {form.format(link)}}}'
    assert task_of(body).result == {"url": "https://b.obs.example/k/a.jpg"}


@pytest.mark.parametrize("field", ["description", "error_msg", "new_field"])
def test_a_signed_link_in_another_field_loses_its_signature(field: str) -> None:
    assert task(**{field: LINK}).to_json()[field] == "https://b.obs.example/k/a.jpg"


def test_a_signed_link_in_an_error_message_loses_its_signature() -> None:
    read = task(error_msg="no access to https://b.obs/k?AccessKeyId=FAKE&Signature=FAKE, ask for it")
    assert "Signature" not in (read.error_msg or "")
    assert (read.error_msg or "").startswith("no access to https://b.obs/k")


def test_fields_of_signed_links_are_removed_at_any_depth() -> None:
    read = task(result=[{"signed_origin_source": "x", "a": {"signed_new_source": "y", "b": 1}}], signed_x="z")
    assert read.result == [{"a": {"b": 1}}]
    assert "signed_x" not in read.to_json()


@pytest.mark.parametrize(
    "text",
    ["https://h.example/?q=1", "obs://bucket/key", "https://h.example/signature=1", "what? signature=1", "a?b=c"],
)
def test_a_text_without_a_signed_link_is_unchanged(text: str) -> None:
    assert without_signed_links(text) == text


@pytest.mark.parametrize("piece", ["a", "a.", "a://", "a://b?", "https://x/y?z=1,", "https://x/y?signatur=1,", "x ? "])
def test_a_long_text_is_searched_for_signed_links(piece: str) -> None:
    text = piece * (60_000 // len(piece))
    started = time.process_time()
    assert without_signed_links(text) == text
    assert time.process_time() - started < 1


SAMPLES = json.dumps(
    {
        "count": 1,
        "has_more": False,
        "results": [
            {
                "sample_id": "s",
                "origin_source": "obs://b/k",
                "result_property": 1,
                "result_description": [["a", "b"]],
                "signed_origin_source": LINK,
                "signed_new_source": LINK,
                "new_field": 1,
            }
        ],
    }
).encode()


def test_the_download_links_of_samples_are_removed() -> None:
    page = parse_sample_results(SAMPLES, signed_links=False)
    assert page.results is not None
    assert page.results[0].signed_origin_source is None
    assert page.results[0].signed_new_source is None
    assert "S3CRET" not in str(page.model_dump())


def test_the_other_fields_of_samples_are_kept() -> None:
    page = parse_sample_results(SAMPLES, signed_links=False)
    assert page.results is not None
    assert page.results[0].to_json() == {
        "sample_id": "s",
        "origin_source": "obs://b/k",
        "result_property": 1,
        "result_description": [["a", "b"]],
        "new_field": 1,
    }


def test_the_download_links_of_samples_are_kept_on_request() -> None:
    page = parse_sample_results(SAMPLES, signed_links=True)
    assert page.results is not None
    assert page.results[0].signed_origin_source == LINK


def test_the_download_links_of_samples_are_never_in_their_json() -> None:
    page = parse_sample_results(SAMPLES, signed_links=True)
    assert page.results is not None
    assert "S3CRET" not in json.dumps(page.results[0].to_json())


def test_the_download_links_of_samples_are_never_in_their_repr() -> None:
    assert "S3CRET" not in repr(parse_sample_results(SAMPLES, signed_links=True))


@pytest.mark.parametrize("signed_links", [True, False])
@pytest.mark.parametrize("body", [b"{}", b'{"results": null}', b'{"results": []}'])
def test_a_page_of_samples_may_be_empty(body: bytes, signed_links: bool) -> None:
    assert not parse_sample_results(body, signed_links=signed_links).results


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


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=30) | json_values.map(json.dumps))
def test_a_text_result_becomes_an_object_or_an_array_or_is_unchanged(text: str) -> None:
    read = parse_result(text)
    assert read == text or (isinstance(read, dict | list) and text.lstrip()[0] in "[{")


BODIES = [
    (CreateProcessorTaskRequest, "create-data-validation.json"),
    (CreateProcessorTaskRequest, "create-feature-analysis.json"),
]


@pytest.mark.parametrize(("model", "name"), BODIES, ids=[name for _, name in BODIES])
def test_the_bodies_of_the_contract_are_valid(model: type[CreateProcessorTaskRequest], name: str) -> None:
    assert model.model_validate_json((EXAMPLES / name).read_bytes()).name in ("PRE-e77c", "V001")


@pytest.mark.parametrize("name", [name for _, name in BODIES])
def test_a_body_of_the_contract_is_sent_unchanged(name: str) -> None:
    body = json.loads((EXAMPLES / name).read_bytes())
    assert json.loads(operations.create_processor_task(**body).body) == body


def create(**changes: Any) -> dict[str, Any]:
    """Return the valid body of a create with changes; None removes a field."""
    body = {"name": "n", "template": {"id": "sys_data_cleaning"}, "data_source": {"type": "OBS"}, **changes}
    return {name: value for name, value in body.items() if value is not None}


def faults_of(body: dict[str, Any], model: Any = CreateProcessorTaskRequest) -> str:
    found = request_parts.describe_faults(model, body)
    assert found, "the body is refused"
    return found


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"name": None}, "name: Field required"),
        ({"name": ""}, "name: String should have at least 1 character"),
        ({"name": 17}, "name: Input should be a valid string"),
        ({"template": None}, "template: Field required"),
        ({"template": {}}, "template.id: Field required"),
        ({"template": {"id": ""}}, "template.id"),
        ({"template": {"id": "t", "operator_params": ["x"]}}, "template.operator_params.0"),
        ({"data_source": None}, "neither is there"),
        ({"inputs": [{"type": "OBS"}]}, "not both"),
        ({"inputs": [], "data_source": None}, "inputs: List should have at least 1 item"),
        ({"data_source": {"type": "obs"}}, "data_source.type: Input should be 'OBS', 'TASK', 'DATASET' or 'CUSTOM'"),
        ({"inputs": [{"type": "OBS"}, {"type": "x"}], "data_source": None}, "inputs.1.type"),
        ({"work_path": {"type": "TASK"}}, "work_path.type"),
        ({"work_path": {"version_name": "V 1"}}, "work_path.version_name"),
        ({"work_path": {"version_name": "V" * 33}}, "work_path.version_name"),
        ({"description": "a" * 257}, "description: String should have at most 256 characters"),
        *(({"description": f"a{character}b"}, "description") for character in "^!<>=&\"'"),
        ({"create_version": True, "template": {"id": "sys_data_analyse"}}, "create_version must not be true"),
    ],
    ids=str,
)
def test_a_fault_of_a_body_names_its_field(changes: dict[str, Any], fault: str) -> None:
    assert fault in faults_of(create(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"description": ""},
        {"description": "ü" * 256},
        {"description": "line\nbreak"},
        {"work_path": {"version_name": ""}},
        {"work_path": {"version_name": "V-1_" * 8}},
        {"create_version": True},
        {"create_version": False, "template": {"id": "sys_data_analyse"}},
        {"new_field": {"a": 1}},
        {"data_source": {"type": "CUSTOM", "source": "p", "new": 1}},
        {"inputs": [{"type": "TASK", "source": "t"}], "data_source": None},
        {"template": {"id": "own_template", "operator_params": [{"anything": [1, {"x": None}]}]}},
    ],
    ids=str,
)
def test_a_body_that_the_service_may_accept_is_valid(changes: dict[str, Any]) -> None:
    assert CreateProcessorTaskRequest.model_validate(create(**changes)).name == "n"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (create(name="", description="!", template={}), ["name", "description", "template.id"]),
        (create(name="", data_source=None), ["name", "give data_source or inputs"]),
        (
            create(name="", create_version=True, template={"id": "sys_data_analyse"}),
            ["name", "create_version must not be true"],
        ),
        (
            create(data_source=None, create_version=True, template={"id": "sys_data_analyse"}),
            ["give data_source or inputs", "create_version must not be true"],
        ),
    ],
    ids=["three fields", "a field and the input", "a field and the version", "the input and the version"],
)
def test_every_fault_of_a_body_is_named_at_once(body: dict[str, Any], named: list[str]) -> None:
    faults = faults_of(body)
    assert [name for name in named if name not in faults] == []


def test_the_faults_of_a_body_are_one_line() -> None:
    assert "\n" not in faults_of(create(name="", description="\n!"))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ["S3CRET"]},
        {"description": "S3CRET!"},
        {"data_source": {"type": "S3CRET"}},
        {"data_source": "S3CRET"},
        {"template": {"id": ["S3CRET"]}},
        {"template": {"id": "t", "operator_params": {"password": "S3CRET"}}},
        {"work_path": {"version_name": "S3CRET S3CRET"}},
        {"create_version": "S3CRET"},
    ],
    ids=str,
)
def test_the_faults_of_a_body_quote_no_value(changes: dict[str, Any]) -> None:
    assert "S3CRET" not in faults_of(create(**changes))


def test_the_body_of_a_version_ignores_create_version() -> None:
    body = create(create_version=True, template={"id": "sys_data_analyse"})
    assert CreateProcessorTaskVersionRequest.model_validate(body).name == "n"


@pytest.mark.parametrize("description", ["!", "a" * 257, None, 17])
def test_an_update_with_an_invalid_description_has_a_fault(description: Any) -> None:
    assert "description" in faults_of({"description": description}, UpdateProcessorTaskRequest)


def test_the_error_of_an_invalid_body_names_the_operation_that_was_not_sent() -> None:
    with pytest.raises(ModelArtsRequestError, match="CreateProcessorTask was not sent"):
        operations.create_processor_task(**create(name=""))
