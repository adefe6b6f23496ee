"""What a wait reads of an answer by id."""

import tracemalloc

import msgspec
import pytest

from airflow_modelarts.api.operations import describe_processor_task, list_processor_tasks
from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling.target_status import describe_status, list_statuses

READABLE = [
    b'{"task_id": "a", "status": 1, "workspace_id": "w", "name": "n", "inputs": [], "extra": 1}',
    b'{"task_id": "a", "status": "2", "workspace_id": 0}',
    b'{"task_id": "a", "result": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    b'\xef\xbb\xbf{"task_id": "a", "status": 1e400, "name": "\\ud83d"}',
    b'{"task_id": "a", "status": null, "result": {"number": NaN}}',
    b'{"task_id": "a", "status": 2, "workspace_id": {}, "duration_seconds": 12.5, "create_time": "2026-11-23T08:00Z"}',
    b'{"task_id": "a", "status": 2, "name": "\xff", "template": "t", "inputs": [1], "error_msg": []}',
    b'{"task_id": "a", "status": 9, "status": 2.0, "result": "[1, 2"}',
    b'{"task_id": "a", "status": 2, "workspace_id": {}, "work_path": "", "template": "t", "inputs": {}}',
    b'{"task_id": "a", "status": 3, "workspace_id": true, "error_msg": ["m"], "create_time": "x", "is_current": 5}',
    b'{"task_id": "a", "status": 2, "result": [NaN, -Infinity], "workspace_id": 7}',
    b'{"task_id": "a", "status": 2e0, "result": "\\\\q", "workspace_id": "\\u0000"}',
    b'{"task_id": "a", "status": 99999999999999999999, "result": 1e99999}',
    b'{"task_id": "a", "status": -0, "result": 1}',
    b'{"task_id": "a", "status": 3, "inputs": ["i", {"type": []}], "template": {"operator_params": [1, 2]}}',
]
UNREADABLE = [
    b"",
    b"null",
    b"[]",
    b"<html>",
    b'{"task_id": "a"',
    b'{"task_id": "a"} more',
    b'{"hello": "world"}',
    b'{"task_id": null, "status": 2}',
    b'{"task_id": "a", "status": "done"}',
    b'{"task_id": "a", "status": 2.5}',
    b'{"task_id": "a", "status": true}',
    b'{"task_id": "b", "status": 2}',
    b'{"task_id": "b", "status": NaN, "result": NaN}',
    b'{"task_id": "a", "status": [2], "result": NaN}',
    b'{"task_id": "a", "status": 2, "result": NaNN}',
]


@pytest.mark.parametrize("body", READABLE)
def test_a_wait_reads_the_same_status_as_a_worker(body: bytes) -> None:
    task, status = describe_processor_task("a").read(body), describe_status(Target("a")).read(body)
    for name in ("task_id", "status", "workspace_id"):
        assert getattr(status, name) == getattr(task, name)


@pytest.mark.parametrize("count", [b"3", b'"3"', b"-1", b"null", b"[]"])
@pytest.mark.parametrize("odd", [*READABLE, b"5", b"{}", b'{"task_id": "b", "status": "done"}'])
def test_a_list_shows_a_wait_the_same_statuses_as_a_worker(odd: bytes, count: bytes) -> None:
    odd = odd.removeprefix(b"\xef\xbb\xbf")
    body = b'{"count": %s, "tasks": [{"task_id": "x", "status": 1}, %s]}' % (count, odd)
    pages = [listing(status=1, workspace_id="w").read(body) for listing in (list_processor_tasks, list_statuses)]
    full, slim = ([(task.task_id, task.status) for task in page.items] for page in pages)
    assert slim == full
    assert pages[0].count == pages[1].count
    assert pages[0].unreadable == pages[1].unreadable


def test_a_list_without_tasks_is_empty_for_a_wait_too() -> None:
    for body in (b"{}", b'{"tasks": null}', b'{"tasks": [], "count": 0}'):
        assert list_statuses(status=1, workspace_id="w").read(body).items == []


@pytest.mark.parametrize("value", [b"{}", b"NaN", b"[-Infinity]", b"1e400", b'"https://h/f?Signature=s"'])
def test_a_wait_skips_the_fields_of_a_list_that_it_does_not_need(value: bytes) -> None:
    body = (
        b'{"tasks": [{"task_id": "x", "status": 1, "template": {"operator_params": [{"params": {"a": %s}}]}}]}' % value
    )
    (task,) = list_statuses(status=1, workspace_id="w").read(body).items
    assert msgspec.structs.asdict(task) == {"task_id": "x", "status": 1}


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"<html>", b'{"tasks": 5}', b'{"tasks": [', b'{"tasks": {}}'])
def test_a_wait_refuses_the_same_lists_as_a_worker(body: bytes) -> None:
    for listing in (list_processor_tasks, list_statuses):
        with pytest.raises(ValueError, match=r"."):
            listing(status=1, workspace_id="w").read(body)


@pytest.mark.parametrize("body", UNREADABLE)
def test_a_wait_refuses_the_same_answers_as_a_worker(body: bytes) -> None:
    for operation in (describe_processor_task("a"), describe_status(Target("a"))):
        with pytest.raises(ValueError, match=r"."):
            operation.read(body)


def test_a_version_is_read_by_both_ids() -> None:
    operation = describe_status(Target("a", "v"))
    assert (operation.name, operation.path) == ("DescribeProcessorTaskVersion", "/processor-tasks/a/versions/v")
    assert operation.read(b'{"task_version_id": "v", "status": 3}').status == 3


def test_a_large_result_does_not_become_python_objects() -> None:
    size = 2_000_000
    body = b'{"task_id": "a", "status": 2, "result": [' + b"1.5," * (size // 4) + b"1]}"
    tracemalloc.start()
    try:
        describe_status(Target("a")).read(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < size / 10
