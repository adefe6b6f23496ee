"""Tests of the twelve operations: path, query, body, and errors before anything is sent."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import ModelArtsRequestError
from airflow_modelarts.api.models import CreatedTask, CreatedVersion, Empty, ProcessorTask, ProcessorTaskVersion
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.retry import Idempotency
from airflow_modelarts.api.statuses import ProcessorTaskStatus

TEMPLATE = {"id": "sys_data_cleaning"}
SOURCE = {"type": "OBS", "source": "obs://b/k"}
CREATED: dict[str, Any] = {"name": "n", "template": TEMPLATE, "data_source": SOURCE}

TWELVE: list[tuple[Operation[Any], str, str]] = [
    (operations.create_processor_task(**CREATED), "POST", ""),
    (operations.list_processor_tasks(), "GET", "?return_result=false&limit=100&offset=0"),
    (operations.list_processor_task_items(), "GET", "/items?limit=1000&offset=0"),
    (operations.describe_processor_task("t"), "GET", "/t"),
    (operations.update_processor_task("t", description="d"), "PUT", "/t"),
    (operations.delete_processor_task("t"), "DELETE", "/t"),
    (operations.create_processor_task_version("t", **CREATED), "POST", "/t/versions"),
    (operations.list_processor_task_versions("t"), "GET", "/t/versions?limit=100&offset=0"),
    (operations.describe_processor_task_version("t", "v"), "GET", "/t/versions/v"),
    (operations.delete_processor_task_version("t", "v"), "DELETE", "/t/versions/v"),
    (operations.stop_processor_task_version("t", "v"), "POST", "/t/versions/v/stop"),
    (operations.list_processor_task_version_results("t", "v"), "GET", "/t/versions/v/results?limit=100&offset=0"),
]
NAMES = """
    CreateProcessorTask ListProcessorTasks ListProcessorTaskItems DescribeProcessorTask UpdateProcessorTask
    DeleteProcessorTask CreateProcessorTaskVersion ListProcessorTaskVersions DescribeProcessorTaskVersion
    DeleteProcessorTaskVersion StopProcessorTaskVersion ListProcessorTaskVersionResults"""
WITH_BODY = {"CreateProcessorTask", "CreateProcessorTaskVersion", "UpdateProcessorTask"}


def query_of(operation: Operation[Any]) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(operation.path_and_query).query, keep_blank_values=True))


@pytest.mark.parametrize(("number", "name"), enumerate(NAMES.split()))
def test_an_operation_has_the_form_of_the_contract(number: int, name: str) -> None:
    operation, method, path = TWELVE[number]
    sent = operation.page(0) if isinstance(operation, ListOperation) else operation
    assert (sent.name, sent.method, sent.path_and_query) == (name, method, f"/processor-tasks{path}")
    assert bool(operation.body) is (name in WITH_BODY)
    assert operation.idempotency is (Idempotency.IF_NOT_DONE if name.startswith("Create") else Idempotency.ALWAYS)
    ids = [segment for segment in urlsplit(path).path.split("/") if segment in ("t", "v")]
    assert all(f"'{one}'" in operation.target for one in ids)


OperationOf = Callable[[Any], Operation[Any]]
WITH_AN_ID: dict[str, OperationOf] = {
    "describe": operations.describe_processor_task,
    "update": lambda task_id: operations.update_processor_task(task_id, description="d"),
    "delete": operations.delete_processor_task,
    "create version": lambda task_id: operations.create_processor_task_version(task_id, **CREATED),
    "list versions": operations.list_processor_task_versions,
    "task of describe version": lambda task_id: operations.describe_processor_task_version(task_id, "v"),
    "task of delete version": lambda task_id: operations.delete_processor_task_version(task_id, "v"),
    "task of stop version": lambda task_id: operations.stop_processor_task_version(task_id, "v"),
    "task of list results": lambda task_id: operations.list_processor_task_version_results(task_id, "v"),
    "describe version": lambda version_id: operations.describe_processor_task_version("t", version_id),
    "delete version": lambda version_id: operations.delete_processor_task_version("t", version_id),
    "stop version": lambda version_id: operations.stop_processor_task_version("t", version_id),
    "list results": lambda version_id: operations.list_processor_task_version_results("t", version_id),
}
with_an_id = pytest.mark.parametrize("operation_of", WITH_AN_ID.values(), ids=WITH_AN_ID)


@with_an_id
@pytest.mark.parametrize(
    ("value", "segment"),
    [
        ("ü", "%C3%BC"),
        ("a b", "a%20b"),
        ("a?b#c", "a%3Fb%23c"),
        ("%2e%2e", "%252e%252e"),
        ("a+b&c=d", "a%2Bb%26c%3Dd"),
        ("a~b-c_d.e", "a~b-c_d.e"),
        ("...", "..."),
        ("a\r\nX: y", "a%0D%0AX%3A%20y"),
    ],
)
def test_an_id_is_escaped_as_one_path_segment(operation_of: OperationOf, value: str, segment: str) -> None:
    assert segment in operation_of(value).path.split("/")


@with_an_id
@pytest.mark.parametrize("value", ["", " ", "\n", ".", "..", None, 17, ["t"], {"task_id": "t"}])
def test_a_value_that_is_not_an_id_is_refused(operation_of: OperationOf, value: Any) -> None:
    with pytest.raises(ModelArtsRequestError, match="is not the id of a processing task or version"):
        operation_of(value)


@with_an_id
@pytest.mark.parametrize("value", ["t/versions/v", "../x", "/", "https://console.example/task/t", "obs://b/k"])
def test_an_id_with_a_slash_has_its_own_advice(operation_of: OperationOf, value: str) -> None:
    """A gateway that decodes escaped slashes would carry out another operation."""
    with pytest.raises(ModelArtsRequestError, match=r"an id contains no slash\. Give the last part alone"):
        operation_of(value)


@with_an_id
@pytest.mark.parametrize(
    "value", ["{{ params.task }}", "{{ti.xcom_pull('a')}}", "x-{{ ds }}", "{% if x %}a{% endif %}"]
)
def test_an_unrendered_template_has_its_own_advice(operation_of: OperationOf, value: str) -> None:
    with pytest.raises(ModelArtsRequestError, match="it is a template that was not rendered"):
        operation_of(value)


@pytest.mark.parametrize("name", ["source", "task_name", "version_id", "workspace_id"])
def test_an_unrendered_template_in_a_query_is_named(name: str) -> None:
    arguments: dict[str, Any] = {name: "{{ params.x }}"}
    with pytest.raises(
        ModelArtsRequestError, match=rf"{name} is '.*params\.x.*': it is a template that was not rendered"
    ):
        operations.list_processor_tasks(**arguments)


@pytest.mark.parametrize("name", ["name", "version_id", "workspace_id"])
def test_an_unrendered_template_in_a_body_is_named(name: str) -> None:
    arguments: dict[str, Any] = {"name": "n", name: "{% if x %}1{% endif %}"}
    with pytest.raises(ModelArtsRequestError, match=rf"{name} is '.*endif.*': it is a template that was not rendered"):
        operations.create_processor_task(template={"id": "t"}, data_source={"type": "OBS"}, **arguments)


@pytest.mark.parametrize(
    "build",
    [
        lambda half: operations.describe_processor_task(half),
        lambda half: operations.list_processor_tasks(task_name=half),
        lambda half: operations.create_processor_task(name=half, template={"id": "sys_data_analyse"}),
    ],
)
def test_a_text_that_utf_8_cannot_encode_is_refused(build: Callable[[str], Any]) -> None:
    with pytest.raises(ModelArtsRequestError, match=r"surrogates not allowed|unable to parse raw data"):
        build("half of a pair: \ud83d")


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example("\\..\\")
def test_any_id_can_be_decoded_from_the_path(task_id: str) -> None:
    try:
        path = operations.describe_processor_task(task_id).path
    except ModelArtsRequestError:
        assert task_id.strip() in ("", ".", "..") or "/" in task_id or "{" in task_id
        return
    assert path.isascii()
    assert [unquote(segment) for segment in path.split("/")] == ["", "processor-tasks", task_id]


def test_the_query_of_tasks_has_every_given_parameter() -> None:
    same = {"task_type": "sys_data_analyse", "task_name": "ü &", "source_type": "DATASET", "source": "d"}
    same |= {"workspace_id": "0", "sort_by": "name", "order": "asc"}
    others: dict[str, Any] = {"status": ProcessorTaskStatus.RUNNING, "version_id": ["v1", "v2"], "limit": 10}
    operation = operations.list_processor_tasks(**same, **others, query_current=True, return_result=True)
    sent = {"status": "1", "version_id": "v1,v2", "limit": "10", "query_current": "true", "return_result": "true"}
    assert query_of(operation.page(3)) == {**same, **sent, "offset": "3"}


LIST_RESULTS = operations.list_processor_task_version_results


@pytest.mark.parametrize(
    ("operation", "parameter", "value"),
    [
        (LIST_RESULTS("t", "v", process_parameter="a/b,c"), "process_parameter", "a/b,c"),
        (operations.list_processor_tasks(status=0), "status", "0"),
        (operations.list_processor_tasks(query_current=False), "query_current", "false"),
        (operations.list_processor_tasks(version_id="v1"), "version_id", "v1"),
        (LIST_RESULTS("t", "v", result_property=0), "result_property", "0"),
        (LIST_RESULTS("t", "v", result_property=-1), "result_property", "-1"),
        (operations.list_processor_task_versions("t", sort_by="version_name"), "sort_by", "version_name"),
        (operations.list_processor_task_versions("t", order="desc"), "order", "desc"),
        (operations.list_processor_task_versions("t", limit=7).page(1), "limit", "7"),
        (LIST_RESULTS("t", "v", limit=7).page(1), "limit", "7"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_query_has_a_parameter(operation: Operation[Any], parameter: str, value: str) -> None:
    assert query_of(operation)[parameter] == value


def test_a_query_is_escaped() -> None:
    assert operations.list_processor_tasks(task_name="a b&c=ü/~").path_and_query == (
        "/processor-tasks?task_name=a%20b%26c%3D%C3%BC%2F~&return_result=false"
    )


def test_page_does_not_change_the_operation() -> None:
    operation = operations.list_processor_task_items()
    operation.page(3)
    assert operation.page(4).query == {"limit": "1000", "offset": "4"}


def test_a_body_has_the_given_fields_only() -> None:
    given: dict[str, Any] = {
        "name": "ü",
        "template": {"id": "t", "operator_params": [{"name": "O", "params": {"a": "[0,1]", "b": None}}]},
        "inputs": [SOURCE],
        "work_path": {"type": "OBS", "path": "obs://b/o"},
        **{"version_id": "v", "description": "", "workspace_id": "0"},
    }
    with_version = {**given, "create_version": False}
    assert json.loads(operations.create_processor_task(**with_version).body) == with_version
    assert json.loads(operations.create_processor_task_version("t", **given).body) == given


def test_inputs_may_be_any_iterable() -> None:
    operation = operations.create_processor_task(name="n", template=TEMPLATE, inputs=iter([SOURCE]))
    assert json.loads(operation.body)["inputs"] == [SOURCE]


def test_a_body_is_sent_in_utf_8() -> None:
    assert "ü漢".encode() in operations.update_processor_task("t", description="ü漢").body


CIRCLE: dict[str, Any] = {}
CIRCLE["x"] = CIRCLE
UNENCODABLE = [float("nan"), float("inf"), float("-inf"), object(), {1, 2}, b"bytes", CIRCLE, "\ud800"]


@pytest.mark.parametrize("value", UNENCODABLE)
def test_a_value_that_json_cannot_encode_is_refused(value: object) -> None:
    template = {"id": "t", "operator_params": [{"params": {"x": value}}]}
    reason = "is not JSON serializable|Circular reference|not JSON compliant|surrogates not allowed"
    with pytest.raises(ModelArtsRequestError, match=f"CreateProcessorTask was not sent.*({reason})"):
        operations.create_processor_task(name="n", template=template, data_source=SOURCE)


def test_the_error_of_an_invalid_create_names_every_fault() -> None:
    with pytest.raises(ModelArtsRequestError) as caught:
        operations.create_processor_task_version("t", name="", template={}, data_source={"type": "S3"})
    assert all(field in str(caught.value) for field in ("name", "template.id", "data_source.type"))
    assert caught.value.operation == "CreateProcessorTaskVersion"


def test_the_error_of_an_invalid_update_names_the_description() -> None:
    with pytest.raises(ModelArtsRequestError, match=r"UpdateProcessorTask was not sent.*description"):
        operations.update_processor_task("t", description="a & b")


@pytest.mark.parametrize(
    ("operation", "body", "expected"),
    [
        (TWELVE[0][0], b'{"task_id": "t"}', CreatedTask(task_id="t")),
        (TWELVE[1][0], b'{"count": 7, "tasks": [{"task_id": "t"}]}', Page([ProcessorTask(task_id="t")], 7)),
        (TWELVE[1][0], b'{"count": 0, "tasks": null}', Page([], 0)),
        (TWELVE[1][0], b"{}", Page([])),
        (TWELVE[2][0], b'{"total": 0, "items": []}', Page([], 0)),
        (TWELVE[3][0], b'{"task_id": "t"}', ProcessorTask(task_id="t")),
        (TWELVE[6][0], b'{"version_id": "v"}', CreatedVersion(version_id="v")),
        (TWELVE[7][0], b'{"versions": [{"task_version_id": "v"}]}', Page([ProcessorTaskVersion(task_version_id="v")])),
        (TWELVE[8][0], b'{"task_version_id": "v"}', ProcessorTaskVersion(task_version_id="v")),
        (TWELVE[11][0], b'{"count": 3, "has_more": true, "results": []}', Page([], 3, True)),
    ],
    ids=lambda value: value.name if isinstance(value, Operation) else None,
)
def test_each_operation_parses_its_answer(operation: Operation[Any], body: bytes, expected: Any) -> None:
    assert operation.read(body) == expected


@pytest.mark.parametrize("body", [b"", b" \n", b"{}"])
@pytest.mark.parametrize("index", [4, 5, 9, 10], ids=["update", "delete", "delete version", "stop"])
def test_an_operation_without_a_result_accepts_an_empty_answer(index: int, body: bytes) -> None:
    assert TWELVE[index][0].read(body) == Empty()


@pytest.mark.parametrize("operation", [row[0] for row in TWELVE], ids=NAMES.split())
@pytest.mark.parametrize("body", [b"<html>", b"[]", b"7"])
def test_an_answer_of_another_form_raises_value_error(operation: Operation[Any], body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        operation.read(body)


@pytest.mark.parametrize(("asked_for", "link"), [(False, None), (True, "https://h/k?Signature=x")])
def test_download_links_are_kept_only_on_request(asked_for: bool, link: str | None) -> None:
    operation = operations.list_processor_task_version_results("t", "v", signed_links=asked_for)
    page = operation.read(b'{"results": [{"sample_id": "s", "signed_new_source": "https://h/k?Signature=x"}]}')
    assert page.items[0].signed_new_source == link


@pytest.mark.parametrize(
    ("operation", "body", "identity"),
    [
        (TWELVE[1][0], b'{"tasks": [{"task_id": "t", "status": 1}]}', "t"),
        (TWELVE[2][0], b'{"items": [{"template_id": "i"}]}', "i"),
        (TWELVE[7][0], b'{"versions": [{"task_version_id": "v", "task_id": "t"}]}', "v"),
        (TWELVE[11][0], b'{"results": [{"sample_id": "s", "origin_source": "o", "new_source": "n"}]}', ("s", "o", "n")),
        (TWELVE[2][0], b'{"items": [{}]}', None),
    ],
    ids=["task", "item", "version", "result", "nameless"],
)
def test_each_list_identifies_its_items(operation: ListOperation[Any], body: bytes, identity: object) -> None:
    assert operation.identify(operation.read(body).items[0]) == identity
