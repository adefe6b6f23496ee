"""Listing, stopping, exporting and deleting in a real Airflow, and an export that is killed halfway."""

import contextlib
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox
from tests.support.waiting import TIMEOUT

SAMPLES = 3000


def values(sandbox: Sandbox, dag_id: str, run_id: str) -> dict[tuple[str, int], Any]:
    return {(x.task_id, x.map_index): x.value for x in sandbox.xcoms(dag_id, run_id) if x.key == "return_value"}


def process_writing_to(folder: Path) -> psutil.Process:
    """Return the process that has a file in the folder open."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(Path(file.path).parent == folder for file in process.open_files()):
                return process
    raise AssertionError(f"no process writes to {folder}, which contains {os.listdir(folder)}")


def test_an_export_that_is_killed_halfway_is_complete_after_its_retry(
    sandbox: Sandbox, emulator: EmulatorServer, tmp_path: Path
) -> None:
    task = emulator.state.add_task(template="sys_data_cleaning", duration=0)
    emulator.state.set_sample_count(task.task_id, SAMPLES)
    hold = emulator.faults.hold(operation="ListProcessorTaskVersionResults", skip=SAMPLES // 200)
    file = tmp_path / "out.jsonl"
    run_id = sandbox.trigger("export", conf={"id": task.task_id, "path": str(file)})
    assert hold.wait(TIMEOUT), sandbox.task_log("export", run_id, "export")
    process_writing_to(tmp_path).kill()
    hold.drop()
    (half,) = os.listdir(tmp_path)
    assert half.startswith(".out.jsonl.part-")
    assert sandbox.wait("export", run_id, timeout=TIMEOUT) == "success", sandbox.task_log("export", run_id, "export")

    (instance,) = sandbox.task_instances("export", run_id)
    assert instance.try_number == 2
    assert os.listdir(tmp_path) == ["out.jsonl"]
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({sample["sample_id"] for sample in samples}) == len(samples) == SAMPLES
    summary = values(sandbox, "export", run_id)["export", -1]
    assert (summary["path"], summary["count"], sum(summary["by_property"].values())) == (str(file), SAMPLES, SAMPLES)


def test_mapped_operators_stop_export_and_delete_the_tasks_of_a_list(
    sandbox: Sandbox, emulator: EmulatorServer, tmp_path: Path
) -> None:
    since = time.time()
    tasks = [emulator.state.add_task(f"tidy-{n}", template="sys_data_cleaning", status=1) for n in range(3)]
    emulator.state.add_task("tidy-and-over", template="sys_data_cleaning", status=2)
    emulator.state.add_task("other", template="sys_data_cleaning", status=1)
    since_text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
    conf = {"status": "running", "prefix": "tidy", "folder": str(tmp_path), "since": since_text}
    run_id = sandbox.trigger("tidy_up", conf=conf)
    ended = sandbox.wait("tidy_up", run_id, timeout=TIMEOUT)
    assert ended == "success", sandbox.task_instances("tidy_up", run_id)

    found = values(sandbox, "tidy_up", run_id)
    assert [listed["name"] for listed in found["found", -1]] == ["tidy-0", "tidy-1", "tidy-2"]
    for index, task in enumerate(tasks):
        version_id = task.versions[0].version_id
        assert found["stop", index] == {"task_id": task.task_id, "stopped_version_ids": [version_id]}
        assert found["wait", index]["status_name"] == "stopped"
        assert found["export", index]["path"] == f"{tmp_path}/{index}.jsonl.gz"
        assert found["export", index]["count"] == 0, "a stopped version has no results in the emulator"
        assert gzip.decompress((tmp_path / f"{index}.jsonl.gz").read_bytes()) == b""
        assert found["delete", index]["deleted"] is True
        with pytest.raises(KeyError):
            emulator.state.find_task(task.task_id)
    left = {task.name for task in emulator.state.all_tasks()}
    assert {"tidy-and-over", "other"} <= left
