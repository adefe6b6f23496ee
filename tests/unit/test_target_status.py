"""What a wait reads of an answer by id."""

from __future__ import annotations

import tracemalloc

import pytest

from airflow_modelarts.api.operations import describe_processor_task
from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling.target_status import describe_status

READABLE = [
    b'{"task_id": "a", "status": 1, "workspace_id": "w", "name": "n", "inputs": [], "extra": 1}',
    b'{"task_id": "a", "status": "2", "workspace_id": 0}',
    b'{"task_id": "a", "result": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    b'\xef\xbb\xbf{"task_id": "a", "status": 1e400, "name": "\\ud83d"}',
    b'{"task_id": "a", "status": null, "result": {"number": NaN}}',
    b'{"task_id": "a", "status": 2, "workspace_id": {}, "duration_seconds": 12.5, "create_time": "2026-11-23T08:00Z"}',
    b'{"task_id": "a", "status": 2, "name": "\xff", "template": "t", "inputs": [1], "error_msg": []}',
    b'{"task_id": "a", "status": 9, "status": 2.0, "result": "[1, 2"}',
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
]


@pytest.mark.parametrize("body", READABLE)
def test_a_wait_reads_the_same_status_as_a_worker(body: bytes) -> None:
    task, status = describe_processor_task("a").read(body), describe_status(Target("a")).read(body)
    assert status.model_dump() == {name: getattr(task, name) for name in ("task_id", "status", "workspace_id")}


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
