"""The small objects that the event trigger reads from a list."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_modelarts.api.listed_tasks import Listed, ListedTask, complete, list_tasks
from airflow_modelarts.api.operations import list_processor_tasks

EXAMPLE = Path(__file__).parents[2] / "data" / "contract" / "examples" / "describe-feature-analysis.json"
#: Items that make small objects of the page.
USUAL = [
    b'{"task_id": "a", "status": 2, "name": "n", "create_time": 1, "duration_seconds": 2, "version_count": 3}',
    b'{"task_id": "a", "status": null, "data_source": {"type": "OBS", "source": "obs://b/k", "name": "s"}}',
    b'{"task_id": "a", "inputs": [{"type": "DATASET", "source": "d"}], "template": {"id": "t", "operator_params": []}}',
    b'{"task_id": "a", "work_path": {"type": "OBS", "path": "/b/k", "output_path": "/o", "name": "w"}, "extra": 1}',
    b'{"task_id": "a", "status": 2, "_page": 5, "description": [], "error_msg": 5, "is_current": 7, "result": "[1, 2"}',
    b'{"task_id": "a", "template": {"id": "t", "operator_params": [1]}, "result": {"number": 1.5}}',
    b'{"task_id": "a", "template": {"id": "t", "operator_params": [{"params": {"a": NaN, "b": [-Infinity, 1e400]}}]}}',
]
#: Items with fields, or a page with items, that do not fit them.
ODD = [
    b'{"task_id": "a", "status": "2"}',
    b'{"task_id": "a", "status": 2.0}',
    b'{"task_id": "a", "create_time": 9223372036854775808, "duration_seconds": -1e30}',
    b'{"task_id": "a", "create_time": "2026-11-23T08:00Z", "duration_seconds": 12.5, "version_count": "2"}',
    b'{"task_id": "a", "template": "t", "inputs": [1], "work_path": "", "name": ["n"]}',
    b'{"task_id": "a", "name": "\\ud83d"}',
    b'{"task_id": "a", "status": 1e400, "name": NaN, "data_source": {"type": "OBS", "source": -Infinity}}',
    b'{"task_id": NaN, "name": "n"}',
    b'{"task_id": null}',
    b'{"task_id": 2.0, "status": 2}',
    b'{"task_id": 7, "name": 1.50, "data_source": {"type": "DATASET", "source": 2.0}}',
    b"5",
]


def seen(task: Listed) -> list[Any]:
    """Return what triggers and checkpoints see of a task."""
    template, work_path = task.template, task.work_path
    sources = [*(task.inputs or []), *([task.data_source] if task.data_source else [])]
    return [
        *(task.task_id, task.name, task.status, task.create_time, task.duration_seconds, task.version_count),
        *(task.is_terminal, [(source.type, source.source) for source in sources], template and template.id),
        work_path and (work_path.type, work_path.path, work_path.output_path),
    ]


@pytest.mark.parametrize("count", [b"3", b'"3"', b"null", b"[]"])
@pytest.mark.parametrize("item", [*USUAL, *ODD])
def test_a_listed_task_has_the_same_fields_as_a_whole_one(item: bytes, count: bytes) -> None:
    body = b'\xef\xbb\xbf{"count": %s, "tasks": [{"task_id": "x", "status": 1}, %s]}' % (count, item)
    listed, whole = list_tasks().read(body), list_processor_tasks().read(body)
    assert [seen(task) for task in listed.items] == [seen(task) for task in whole.items]
    assert [complete(task) for task in listed.items] == whole.items
    assert (listed.count, listed.unreadable) == (whole.count, whole.unreadable)
    assert isinstance(listed.items[0], ListedTask) == (item in USUAL)


def test_a_list_without_tasks_is_empty() -> None:
    for body in (b"{}", b'{"tasks": null}', b'{"tasks": [], "count": 0}'):
        assert list_tasks().read(body).items == []


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"tasks": 5}', b'{"tasks": []'])
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        list_tasks().read(body)


def test_the_pages_of_listed_tasks_take_a_third_of_the_memory_of_whole_ones() -> None:
    example = json.loads(EXAMPLE.read_text())
    text = json.dumps({"count": 100, "tasks": [{**example, "task_id": f"task {number}"} for number in range(100)]})

    def memory_of(read: Callable[[bytes], Any]) -> int:
        read(text.encode())  # builds what is built once
        tracemalloc.start()
        try:
            pages = [read(text.encode()) for _ in range(5)]
            used, _ = tracemalloc.get_traced_memory()
            assert len(pages) == 5
        finally:
            tracemalloc.stop()
        return used

    assert memory_of(list_tasks().read) < memory_of(list_processor_tasks().read) / 3
