"""The export of sample results: the content of the file, and that it is never partial."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from requests_mock import Mocker

from airflow_modelarts.api.errors import ModelArtsRequestError
from airflow_modelarts.operators.export import ModelArtsExportProcessorTaskResultsOperator
from airflow_modelarts.operators.files import clean_up_partials
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support.fixtures import TASKS
from tests.support.waiting import TIMEOUT

try:
    from airflow.sdk.io import attach
except ImportError:
    from airflow.io.store import attach

VERSION_URL = f"{TASKS}/abc/versions/v1"
RESULTS = "ListProcessorTaskVersionResults"


@pytest.fixture
def bucket() -> ObjectStoragePath:
    """An object store in which a file is visible as soon as it is opened, complete or not."""
    from fsspec.implementations.memory import MemoryFileSystem

    attach("memory", fs=MemoryFileSystem())
    bucket = ObjectStoragePath("memory://bucket")
    if bucket.exists():
        bucket.fs.rm(bucket.path, recursive=True)
    bucket.fs.mkdir(bucket.path)
    return bucket


def add_task(emulator: EmulatorServer, samples: int = 20) -> Task:
    task = emulator.state.add_task(template="sys_data_cleaning")
    emulator.state.set_sample_count(task.task_id, samples)
    return task


def task_instance(try_number: int = 1, **fields: Any) -> Any:
    identity = {"dag_id": "dag", "run_id": "run", "task_id": "export", "map_index": -1}
    return SimpleNamespace(**{**identity, **fields}, try_number=try_number)


def export(task_id: str, path: Any, try_number: int = 1, **arguments: Any) -> Any:
    operator = ModelArtsExportProcessorTaskResultsOperator(
        task_id="export", processor_task_id=task_id, path=path, **arguments
    )
    return operator.execute({"ti": task_instance(try_number)})  # type: ignore[typeddict-item]


def lines(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    assert content == b"" or content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_samples_of_all_pages_are_written_under_api_names(emulator: EmulatorServer, tmp_path: Path) -> None:
    task = add_task(emulator, samples=250)
    export(task.task_id, str(tmp_path / "out.jsonl"))
    samples = lines(tmp_path / "out.jsonl")
    assert len({sample["sample_id"] for sample in samples}) == 250
    assert samples[0] == {
        "sample_id": samples[0]["sample_id"],
        "version_id": task.versions[0].version_id,
        "origin_source": "obs://emulator-bucket/input/00000000.jpg",
        "new_source": f"obs://emulator-bucket/output/{task.task_id}/V001/00000000.jpg",
        "result_property": 0,
        "result_description": [["operator", "sys_data_cleaning"], ["sample", "0"]],
    }
    assert emulator.state.log.count(RESULTS) == 4, "three pages, and one for the count"


def test_the_xcom_has_the_counts_and_a_path_that_opens(emulator: EmulatorServer, tmp_path: Path) -> None:
    task = add_task(emulator)
    told = export(task.task_id, f"file://{tmp_path}/out.jsonl")
    assert len(ObjectStoragePath(told.pop("path")).read_text().splitlines()) == 20
    assert told == {
        "task_id": task.task_id,
        "task_version_id": task.versions[0].version_id,
        "count": 20,
        "by_property": {"reserved": 10, "modified": 4, "added": 4, "deleted": 2},
    }


def test_the_newest_version_is_exported_unless_one_is_named(emulator: EmulatorServer, tmp_path: Path) -> None:
    task = add_task(emulator)
    emulator.state.create_version(accounts.PROJECT_ID, task.task_id, task.body)
    task.versions[1].run.created_at += 1
    first, second = (version.version_id for version in task.versions)
    assert export(task.task_id, str(tmp_path / "newest"))["task_version_id"] == second
    assert export(task.task_id, str(tmp_path / "named"), task_version_id=first)["task_version_id"] == first


def test_result_property_filters_the_samples(emulator: EmulatorServer, tmp_path: Path) -> None:
    told = export(add_task(emulator).task_id, str(tmp_path / "out"), result_property=2)
    assert told["by_property"] == {"deleted": 2}


def test_download_links_are_written_only_with_signed_links(emulator: EmulatorServer, tmp_path: Path) -> None:
    task = add_task(emulator)
    told = [export(task.task_id, str(tmp_path / "without"))]
    assert "ignature" not in (tmp_path / "without").read_text()
    told += [export(task.task_id, str(tmp_path / "with"), signed_links=True, process_parameter="image/resize,w_9")]
    sample = lines(tmp_path / "with")[0]
    assert "Signature=" in sample["signed_new_source"]
    assert "x-image-process=image%2Fresize" in sample["signed_origin_source"]
    assert "ignature" not in json.dumps(told)


def test_a_name_that_ends_in_gz_is_compressed(emulator: EmulatorServer, tmp_path: Path) -> None:
    task = add_task(emulator)
    for name in ("a.gz", "b.gz"):
        export(task.task_id, str(tmp_path / name))
    content = (tmp_path / "a.gz").read_bytes()
    assert len(gzip.decompress(content).splitlines()) == 20
    assert (tmp_path / "b.gz").read_bytes() == content


def test_other_alphabets_and_unknown_fields_are_kept(requests_mock: Mocker, tmp_path: Path) -> None:
    sample = {"sample_id": "s", "new_source": "obs://桶/图片.jpg", "result_property": 9, "of_tomorrow": [1.5, None]}
    requests_mock.get(VERSION_URL, json={"task_version_id": "v1", "status": 2})
    requests_mock.get(f"{VERSION_URL}/results", json={"count": 1, "has_more": False, "results": [sample]})
    told = export("abc", str(tmp_path / "out"), task_version_id="v1")
    assert lines(tmp_path / "out") == [sample]
    assert "图片" in (tmp_path / "out").read_text()
    assert told["by_property"] == {"unknown (9)": 1}


def test_a_list_shorter_than_the_count_of_the_service_is_logged(
    requests_mock: Mocker, tmp_path: Path, printed_log: Callable[[], str]
) -> None:
    requests_mock.get(VERSION_URL, json={"task_version_id": "v1", "status": 2})
    page = {"count": 3, "has_more": False, "results": [{"sample_id": "s"}, {"sample_id": "s"}]}
    requests_mock.get(f"{VERSION_URL}/results", json=page)
    assert export("abc", str(tmp_path / "out"), task_version_id="v1")["count"] == 1
    assert "The service reports a count of 3 samples and listed 1" in printed_log()


def test_without_samples_the_file_is_empty(emulator: EmulatorServer, tmp_path: Path) -> None:
    assert export(add_task(emulator, samples=0).task_id, str(tmp_path / "out"))["count"] == 0
    assert lines(tmp_path / "out") == []


def test_a_task_without_versions_is_refused(emulator: EmulatorServer, tmp_path: Path) -> None:
    task = emulator.state.add_task()
    with pytest.raises(ModelArtsRequestError, match="has no versions, as every feature analysis"):
        export(task.task_id, str(tmp_path / "out"))
    assert files(tmp_path) == []


def test_a_version_that_has_not_ended_is_refused(emulator: EmulatorServer, tmp_path: Path) -> None:
    task = emulator.state.add_task(template="sys_data_cleaning", status=1)
    with pytest.raises(ModelArtsRequestError, match=r"it is running\. Wait for it first"):
        export(task.task_id, str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["", "folder", "new/"])
def test_a_path_of_a_directory_is_refused(emulator: EmulatorServer, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="that is a directory; name a file in it"):
        export("abc", f"{tmp_path}/{name}")


def test_missing_directories_are_created(emulator: EmulatorServer, tmp_path: Path) -> None:
    export(add_task(emulator).task_id, str(tmp_path / "2026" / "05" / "out"))
    assert files(tmp_path / "2026" / "05") == ["out"]


def test_a_failure_keeps_the_earlier_file_and_leaves_no_other(emulator: EmulatorServer, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("yesterday's")
    emulator.faults.refuse("ModelArts.0104", skip=2, operation=RESULTS)
    with pytest.raises(ModelArtsRequestError):
        export(add_task(emulator, samples=500).task_id, str(tmp_path / "out"))
    assert files(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "yesterday's"


def test_an_object_store_gets_a_complete_file(emulator: EmulatorServer, bucket: ObjectStoragePath) -> None:
    told = export(add_task(emulator, samples=300).task_id, "memory://bucket/out.jsonl")
    assert bucket.fs.find("/bucket") == ["/bucket/out.jsonl"]
    assert len((bucket / "out.jsonl").read_text().splitlines()) == told["count"] == 300


def test_a_failure_leaves_no_partial_file_in_an_object_store(
    emulator: EmulatorServer, bucket: ObjectStoragePath
) -> None:
    emulator.faults.refuse("ModelArts.0104", skip=2, operation=RESULTS)
    with pytest.raises(ModelArtsRequestError):
        export(add_task(emulator, samples=500).task_id, bucket / "out.jsonl")
    assert bucket.fs.find("/bucket") == []


def test_a_retry_removes_the_partial_file_of_a_killed_try(emulator: EmulatorServer, tmp_path: Path) -> None:
    path = ObjectStoragePath(str(tmp_path / "out"))
    for try_number in (1, 2):
        Path(clean_up_partials(path, task_instance(try_number))).write_text("half a li")
    others = Path(clean_up_partials(path, task_instance(map_index=4)))
    others.write_text("still at work")
    export(add_task(emulator).task_id, path, try_number=3)
    assert files(tmp_path) == sorted([others.name, "out"])
    assert len(lines(tmp_path / "out")) == 20


def test_the_connection_of_the_object_store_is_that_of_the_path_or_the_argument() -> None:
    def conn_id(path: str, given: str | None) -> str | None:
        operator = ModelArtsExportProcessorTaskResultsOperator(
            task_id="export", processor_task_id="abc", path=path, object_storage_conn_id=given
        )
        opened = str(operator._open_path())
        return opened.partition("://")[2].rpartition("@")[0] or None

    assert conn_id("file://of_path@/tmp/out", None) == "of_path"
    assert conn_id("file:///tmp/out", "given") == "given"
    assert conn_id("file:///tmp/out", None) is None


def test_ids_path_and_connections_are_templated() -> None:
    assert set(ModelArtsExportProcessorTaskResultsOperator.template_fields) == {
        *("processor_task_id", "task_version_id", "path", "object_storage_conn_id"),
        *("modelarts_conn_id", "project_id"),
    }


EXPORT_AND_TELL_MEMORY = """
import re, sys
from types import SimpleNamespace
from airflow_modelarts.operators.export import ModelArtsExportProcessorTaskResultsOperator

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])

ti = SimpleNamespace(dag_id="dag", run_id="run", task_id="export", map_index=-1, try_number=1)
def export(path):
    operator = ModelArtsExportProcessorTaskResultsOperator(task_id="t", processor_task_id=sys.argv[1], path=path)
    return operator.execute({"ti": ti})["count"]

export(sys.argv[2])  # imports, and other memory that is allocated once
before = kilobytes("VmRSS")
count = 0
count += export(sys.argv[2])
print(count, kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux knows about a process")
def test_memory_hardly_grows_with_the_samples(emulator: EmulatorServer, tmp_path: Path) -> None:
    """20,000 samples take less than 20 MB: a fifth of what 100,000 may take, whose export would last half a minute."""
    task = add_task(emulator, samples=100)
    command = [sys.executable, "-c", EXPORT_AND_TELL_MEMORY, task.task_id, str(tmp_path / "out")]
    emulator.state.set_sample_count(task.task_id, 20_000)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    count, growth = map(int, ended.stdout.split()[-2:])
    assert count == len(lines(tmp_path / "out")) == 20_000
    assert growth < 20_000
