"""Tests of the twelve operations: path, query, body, and errors before anything is sent."""

from __future__ import annotations

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

TWELVE: list[tuple[Operation[Any], str, str, str]] = [
    (operations.create_processor_task(**CREATED), "CreateProcessorTask", "POST", "/processor-tasks"),
    (
        operations.list_processor_tasks(),
        "ListProcessorTasks",
        "GET",
        "/processor-tasks?return_result=false&limit=100&offset=0",
    ),
    (
        operations.list_processor_task_items(),
        "ListProcessorTaskItems",
        "GET",
        "/processor-tasks/items?limit=1000&offset=0",
    ),
    (operations.describe_processor_task("t"), "DescribeProcessorTask", "GET", "/processor-tasks/t"),
    (operations.update_processor_task("t", description="d"), "UpdateProcessorTask", "PUT", "/processor-tasks/t"),
    (operations.delete_processor_task("t"), "DeleteProcessorTask", "DELETE", "/processor-tasks/t"),
    (
        operations.create_processor_task_version("t", **CREATED),
        "CreateProcessorTaskVersion",
        "POST",
        "/processor-tasks/t/versions",
    ),
    (
        operations.list_processor_task_versions("t"),
        "ListProcessorTaskVersions",
        "GET",
        "/processor-tasks/t/versions?limit=100&offset=0",
    ),
    (
        operations.describe_processor_task_version("t", "v"),
        "DescribeProcessorTaskVersion",
        "GET",
        "/processor-tasks/t/versions/v",
    ),
    (
        operations.delete_processor_task_version("t", "v"),
        "DeleteProcessorTaskVersion",
        "DELETE",
        "/processor-tasks/t/versions/v",
    ),
    (
        operations.stop_processor_task_version("t", "v"),
        "StopProcessorTaskVersion",
        "POST",
        "/processor-tasks/t/versions/v/stop",
    ),
    (
        operations.list_processor_task_version_results("t", "v"),
        "ListProcessorTaskVersionResults",
        "GET",
        "/processor-tasks/t/versions/v/results?limit=100&offset=0",
    ),
]
WITH_BODY = {"CreateProcessorTask", "CreateProcessorTaskVersion", "UpdateProcessorTask"}

every_operation = pytest.mark.parametrize(
    ("operation", "name", "method", "path"), TWELVE, ids=[name for _, name, _, _ in TWELVE]
)


def query_of(operation: Operation[Any]) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(operation.path_and_query).query, keep_blank_values=True))


@every_operation
def test_an_operation_has_the_method_and_path_of_the_contract(
    operation: Operation[Any], name: str, method: str, path: str
) -> None:
    sent = operation.page(0) if isinstance(operation, ListOperation) else operation
    assert (sent.name, sent.method, sent.path_and_query) == (name, method, path)


@every_operation
def test_only_create_and_update_have_a_body(operation: Operation[Any], name: str, method: str, path: str) -> None:
    assert bool(operation.body) is (name in WITH_BODY)


@every_operation
def test_only_a_create_is_not_idempotent(operation: Operation[Any], name: str, method: str, path: str) -> None:
    assert operation.idempotency is (Idempotency.IF_NOT_DONE if name.startswith("Create") else Idempotency.ALWAYS)


@every_operation
def test_a_target_names_its_ids(operation: Operation[Any], name: str, method: str, path: str) -> None:
    ids = [segment for segment in urlsplit(path).path.split("/") if segment in ("t", "v")]
    assert all(f"'{one}'" in operation.target for one in ids)


WITH_TASK: dict[str, Callable[[str], Operation[Any]]] = {
    "DescribeProcessorTask": operations.describe_processor_task,
    "UpdateProcessorTask": lambda task_id: operations.update_processor_task(task_id, description="d"),
    "DeleteProcessorTask": operations.delete_processor_task,
    "CreateProcessorTaskVersion": lambda task_id: operations.create_processor_task_version(task_id, **CREATED),
    "ListProcessorTaskVersions": operations.list_processor_task_versions,
    "DescribeProcessorTaskVersion": lambda task_id: operations.describe_processor_task_version(task_id, "v"),
    "DeleteProcessorTaskVersion": lambda task_id: operations.delete_processor_task_version(task_id, "v"),
    "StopProcessorTaskVersion": lambda task_id: operations.stop_processor_task_version(task_id, "v"),
    "ListProcessorTaskVersionResults": lambda task_id: operations.list_processor_task_version_results(task_id, "v"),
}
WITH_VERSION: dict[str, Callable[[str], Operation[Any]]] = {
    "DescribeProcessorTaskVersion": lambda version_id: operations.describe_processor_task_version("t", version_id),
    "DeleteProcessorTaskVersion": lambda version_id: operations.delete_processor_task_version("t", version_id),
    "StopProcessorTaskVersion": lambda version_id: operations.stop_processor_task_version("t", version_id),
    "ListProcessorTaskVersionResults": lambda version_id: operations.list_processor_task_version_results(
        "t", version_id
    ),
}
with_an_id = pytest.mark.parametrize(
    "operation_of",
    [*WITH_TASK.values(), *WITH_VERSION.values()],
    ids=[*(f"{name}-task" for name in WITH_TASK), *(f"{name}-version" for name in WITH_VERSION)],
)


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
def test_an_id_is_escaped_as_one_path_segment(
    operation_of: Callable[[str], Operation[Any]], value: str, segment: str
) -> None:
    assert segment in operation_of(value).path.split("/")


@with_an_id
@pytest.mark.parametrize("value", ["", " ", "\n", ".", "..", None, 17, ["t"], {"task_id": "t"}])
def test_a_value_that_is_not_an_id_is_refused(operation_of: Callable[[Any], Operation[Any]], value: Any) -> None:
    with pytest.raises(ModelArtsRequestError, match="is not the id of a processing task or version"):
        operation_of(value)


@with_an_id
@pytest.mark.parametrize("value", ["t/versions/v", "../x", "/", "https://console.example/task/t", "obs://b/k"])
def test_an_id_with_a_slash_has_its_own_advice(operation_of: Callable[[Any], Operation[Any]], value: str) -> None:
    """A gateway that decodes escaped slashes would carry out another operation."""
    with pytest.raises(ModelArtsRequestError, match=r"an id contains no slash\. Give the last part alone"):
        operation_of(value)


@with_an_id
@pytest.mark.parametrize(
    "value", ["{{ params.task }}", "{{ti.xcom_pull('a')}}", "x-{{ ds }}", "{% if x %}a{% endif %}"]
)
def test_an_unrendered_template_has_its_own_advice(operation_of: Callable[[Any], Operation[Any]], value: str) -> None:
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
    operation = operations.list_processor_tasks(
        status=ProcessorTaskStatus.RUNNING,
        task_type="sys_data_analyse",
        task_name="ü &",
        source_type="DATASET",
        source="d",
        version_id=["v1", "v2"],
        workspace_id="0",
        query_current=True,
        return_result=True,
        sort_by="name",
        order="asc",
        limit=10,
    )
    assert query_of(operation.page(3)) == {
        "status": "1",
        "task_type": "sys_data_analyse",
        "task_name": "ü &",
        "source_type": "DATASET",
        "source": "d",
        "version_id": "v1,v2",
        "workspace_id": "0",
        "query_current": "true",
        "return_result": "true",
        "sort_by": "name",
        "order": "asc",
        "limit": "10",
        "offset": "3",
    }


def test_status_0_is_in_the_query() -> None:
    assert query_of(operations.list_processor_tasks(status=0))["status"] == "0"


def test_query_current_false_is_in_the_query() -> None:
    assert query_of(operations.list_processor_tasks(query_current=False))["query_current"] == "false"


def test_a_single_dataset_version_is_in_the_query() -> None:
    assert query_of(operations.list_processor_tasks(version_id="v1"))["version_id"] == "v1"


def test_results_are_not_requested_by_default() -> None:
    assert query_of(operations.list_processor_tasks())["return_result"] == "false"


def test_a_query_is_escaped() -> None:
    assert operations.list_processor_tasks(task_name="a b&c=ü/~").path_and_query == (
        "/processor-tasks?task_name=a%20b%26c%3D%C3%BC%2F~&return_result=false"
    )


def test_the_query_of_versions_has_every_given_parameter() -> None:
    operation = operations.list_processor_task_versions("t", sort_by="version_name", order="desc", limit=7)
    assert query_of(operation.page(1)) == {"sort_by": "version_name", "order": "desc", "limit": "7", "offset": "1"}


def test_the_query_of_results_has_every_given_parameter() -> None:
    operation = operations.list_processor_task_version_results(
        "t", "v", result_property=-1, process_parameter="image/resize,m_lfit,h_200", limit=7
    )
    assert query_of(operation.page(1)) == {
        "result_property": "-1",
        "process_parameter": "image/resize,m_lfit,h_200",
        "limit": "7",
        "offset": "1",
    }


def test_result_property_0_is_in_the_query() -> None:
    operation = operations.list_processor_task_version_results("t", "v", result_property=0)
    assert query_of(operation)["result_property"] == "0"


@pytest.mark.parametrize(
    ("list_operation", "limit"),
    [
        (operations.list_processor_tasks(), 100),
        (operations.list_processor_task_items(), 1000),
        (operations.list_processor_task_versions("t"), 100),
        (operations.list_processor_task_version_results("t", "v"), 100),
    ],
    ids=["tasks", "items", "versions", "results"],
)
def test_the_default_page_size_is_the_maximum_of_the_service(list_operation: ListOperation[Any], limit: int) -> None:
    assert query_of(list_operation.page(0))["limit"] == str(limit)


def test_page_does_not_change_the_operation() -> None:
    operation = operations.list_processor_task_items()
    operation.page(3)
    assert operation.page(4).query == {"limit": "1000", "offset": "4"}


def test_the_body_of_a_new_task_has_the_given_fields_only() -> None:
    given: dict[str, Any] = {
        "name": "ü",
        "template": {"id": "t", "operator_params": [{"name": "O", "params": {"a": "[0,1]", "b": None}}]},
        "inputs": [SOURCE],
        "work_path": {"type": "OBS", "path": "obs://b/o"},
        "version_id": "v",
        "description": "",
        "create_version": False,
        "workspace_id": "0",
    }
    assert json.loads(operations.create_processor_task(**given).body) == given


def test_the_body_of_a_new_version_has_the_given_fields_only() -> None:
    given: dict[str, Any] = {
        **CREATED,
        "work_path": {"type": "OBS"},
        "version_id": "v",
        "description": "d",
        "workspace_id": "0",
    }
    assert json.loads(operations.create_processor_task_version("t", **given).body) == given


def test_inputs_may_be_any_iterable() -> None:
    operation = operations.create_processor_task(name="n", template=TEMPLATE, inputs=iter([SOURCE]))
    assert json.loads(operation.body)["inputs"] == [SOURCE]


def test_a_body_is_sent_in_utf_8() -> None:
    assert "ü漢".encode() in operations.update_processor_task("t", description="ü漢").body


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_nan_in_a_body_is_refused(number: float) -> None:
    template = {"id": "t", "operator_params": [{"params": {"x": number}}]}
    with pytest.raises(ModelArtsRequestError, match="CreateProcessorTask was not sent"):
        operations.create_processor_task(name="n", template=template, data_source=SOURCE)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"], ids=["object", "set", "bytes"])
def test_a_value_that_json_cannot_encode_is_refused(value: object) -> None:
    template = {"id": "t", "operator_params": [{"params": {"x": value}}]}
    with pytest.raises(ModelArtsRequestError, match="is not JSON serializable"):
        operations.create_processor_task(name="n", template=template, data_source=SOURCE)


def test_a_value_that_contains_itself_is_refused() -> None:
    params: dict[str, Any] = {}
    params["x"] = params
    template = {"id": "t", "operator_params": [{"params": params}]}
    with pytest.raises(ModelArtsRequestError, match="Circular reference"):
        operations.create_processor_task(name="n", template=template, data_source=SOURCE)


def test_a_surrogate_in_a_body_is_refused() -> None:
    template = {"id": "t", "operator_params": [{"params": {"x": "\ud800"}}]}
    with pytest.raises(ModelArtsRequestError, match="CreateProcessorTask was not sent"):
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
        (
            TWELVE[7][0],
            b'{"versions": [{"task_version_id": "v"}]}',
            Page([ProcessorTaskVersion(task_version_id="v")]),
        ),
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


@every_operation
@pytest.mark.parametrize("body", [b"<html>", b"[]", b"7"])
def test_an_answer_of_another_form_raises_value_error(
    operation: Operation[Any], name: str, method: str, path: str, body: bytes
) -> None:
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
        (
            TWELVE[11][0],
            b'{"results": [{"sample_id": "s", "origin_source": "o", "new_source": "n", "result_property": 1}]}',
            ("s", "o", "n"),
        ),
        (TWELVE[2][0], b'{"items": [{}]}', None),
    ],
    ids=["task", "item", "version", "result", "nameless"],
)
def test_each_list_identifies_its_items(operation: ListOperation[Any], body: bytes, identity: object) -> None:
    assert operation.identify(operation.read(body).items[0]) == identity
