"""Exports and audits that are written to OBS: complete or absent, whatever happens in between."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_modelarts.exceptions import ModelArtsReportNotWritten
from airflow_modelarts.filesystem import object_storage_path
from airflow_modelarts.operators import (
    ModelArtsAuditProcessorTasksOperator,
    ModelArtsExportProcessorTaskResultsOperator,
)
from airflow_modelarts.operators.files import atomic_write, clean_up_partials
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from tests.support.object_store import BUCKET, Clock, ObjectStore, SetConnection, connect
from tests.support.task_instances import TaskInstance

MIB = 1024 * 1024
NOW = datetime.now(UTC)
PLACE = f"obs://modelarts_default@{BUCKET}"


@pytest.fixture
def modelarts(emulator: EmulatorServer, store: ObjectStore, set_connection: SetConnection) -> EmulatorServer:
    """An emulator of ModelArts whose connection also names the object store."""
    connect(set_connection, store, host=emulator.url)
    return emulator


def export(modelarts: EmulatorServer, path: str, samples: int = 300, try_number: int = 1) -> Any:
    task = modelarts.state.add_task(template="sys_data_cleaning")
    modelarts.state.set_sample_count(task.task_id, samples)
    operator = ModelArtsExportProcessorTaskResultsOperator(task_id="export", processor_task_id=task.task_id, path=path)
    return operator.execute({"ti": instance(try_number)})  # type: ignore[typeddict-item]


def instance(try_number: int = 1) -> Any:
    return SimpleNamespace(dag_id="dag", run_id="run", task_id="export", map_index=-1, try_number=try_number)


def audit(**arguments: Any) -> dict[str, Any]:
    window = {"window_start": NOW - timedelta(days=1), "window_end": NOW + timedelta(hours=1)}
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", **{**window, **arguments})
    return operator.execute({"ti": TaskInstance(), "run_id": "scheduled__2026"})  # type: ignore[typeddict-item]


@pytest.mark.parametrize("name", ["results.jsonl", "100% 数据+a b[1].jsonl"])
def test_an_export_is_one_object_that_its_xcom_opens(modelarts: EmulatorServer, store: ObjectStore, name: str) -> None:
    told = export(modelarts, f"{PLACE}/exports/{name}")
    (content,) = store.objects().values()
    assert list(store.objects()) == [f"exports/{name}"]
    assert len(content.splitlines()) == told["count"] == 300
    assert ObjectStoragePath(told["path"]).read_bytes() == content
    assert told["path"] == f"{PLACE}/exports/{name}"


def test_an_export_replaces_an_object(modelarts: EmulatorServer, store: ObjectStore) -> None:
    store.client().put_object(Bucket=BUCKET, Key="out.jsonl.gz", Body=b"old")
    export(modelarts, f"{PLACE}/out.jsonl.gz")
    assert len(gzip.decompress(store.objects()["out.jsonl.gz"]).splitlines()) == 300


def test_a_key_that_expires_in_the_middle_of_an_export_is_renewed(
    modelarts: EmulatorServer, store: ObjectStore, clock: Clock, set_connection: SetConnection
) -> None:
    extra = {"auth": "password", "domain_name": accounts.DOMAIN_NAME}
    modelarts.state.settings.clock_offset = 0
    user = {"login": accounts.USER_NAME, "password": accounts.PASSWORD}
    modelarts.state.accounts = store.accounts
    connect(set_connection, store, host=modelarts.url, extra=extra, **user)

    seen: set[str] = set()

    def pass_an_hour(method: str, path: str) -> None:
        if method == "PUT" and path not in seen:  # the key was valid when the request was signed
            seen.add(path)
            clock.offset += 3700

    store.refuse = pass_an_hour
    path = object_storage_path(f"/{BUCKET}/big")
    with atomic_write(path, clean_up_partials(path, instance())) as file:
        for number in range(4):
            file.write(bytes([number]) * 8 * MIB)
    export(modelarts, f"{PLACE}/out.jsonl")
    assert store.operations("POST").count("/v3.0/OS-CREDENTIAL/securitytokens") >= 6
    store.refuse = lambda method, path: None
    found = store.objects()
    assert set(found) == {"big", "out.jsonl"}
    assert [found["big"][number * 8 * MIB] for number in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("written", [1, 20 * MIB], ids=["small", "multipart"])
def test_a_write_that_fails_leaves_neither_object_nor_upload(store: ObjectStore, written: int) -> None:
    path = object_storage_path(f"/{BUCKET}/out")

    def write() -> None:
        with atomic_write(path, clean_up_partials(path, instance())) as file:
            file.write(bytes(written))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert (store.objects(), store.uploads()) == ({}, [])


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_store_that_fails_in_the_middle_leaves_no_object(store: ObjectStore, method: str) -> None:
    path = object_storage_path(f"/{BUCKET}/out")
    parts: list[str] = []

    def fail(given: str, where: str) -> tuple[int, str] | None:
        is_part = given == method and ("partNumber=2" in where or "uploadId" in where) and "partNumber=1" not in where
        parts.extend([where] if is_part else [])
        return (403, "AccessDenied") if is_part else None

    store.refuse = fail

    def write() -> None:
        with atomic_write(path, clean_up_partials(path, instance())) as file:
            file.write(bytes(9 * MIB))
            file.write(bytes(9 * MIB))

    with pytest.raises(PermissionError, match="refuses access"):
        write()
    assert parts
    assert (store.objects(), store.uploads()) == ({}, [])


WRITER = """
import sys
from types import SimpleNamespace
from airflow_modelarts.filesystem import object_storage_path
from airflow_modelarts.operators.files import atomic_write, clean_up_partials
path = object_storage_path(sys.argv[1])
ti = SimpleNamespace(dag_id="dag", run_id="run", task_id="export", map_index=-1, try_number=1)
with atomic_write(path, clean_up_partials(path, ti)) as file:
    file.write(bytes(20 * 1024 * 1024))
    print("written", flush=True)
    sys.stdin.read()
"""


def test_a_writer_that_is_killed_leaves_no_object_and_the_next_try_writes_it(
    modelarts: EmulatorServer, store: ObjectStore, tmp_path: Path
) -> None:
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    writer = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WRITER, f"/{BUCKET}/out.jsonl"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert writer.stdout is not None
    while (line := writer.stdout.readline()) and line.strip() != "written":
        pass
    assert line, "the writer ended"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert store.objects() == {}
    assert len(store.uploads()) == 1, "the writer was in the middle of its upload"
    assert export(modelarts, f"{PLACE}/out.jsonl", try_number=2)["count"] == 300
    assert list(store.objects()) == ["out.jsonl"]


def test_an_audit_writes_its_files_and_finds_the_audit_before(modelarts: EmulatorServer, store: ObjectStore) -> None:
    modelarts.state.add_task("failed", status=3, create_time=NOW)
    paths = {"report_path": f"{PLACE}/audits/1.html", "rows_path": f"{PLACE}/audits/1.csv"}
    told = audit(**paths)
    found = store.objects()
    assert set(found) == {"audits/1.html", "audits/1.json", "audits/1.csv"}
    assert {name: told[name] for name in paths} == paths
    assert json.loads(ObjectStoragePath(told["json_path"]).read_text())["total"] == 1
    assert [row["name"] for row in csv.DictReader(io.StringIO(found["audits/1.csv"].decode("utf-8-sig")))] == ["failed"]
    later = {"window_start": NOW + timedelta(hours=1), "window_end": NOW + timedelta(hours=2)}
    assert audit(report_path=f"{PLACE}/audits/2.html", **later)["change"] is not None


def test_paths_can_be_given_with_a_connection_apart(modelarts: EmulatorServer, store: ObjectStore) -> None:
    told = audit(report_path=f"obs://{BUCKET}/a.html", object_storage_conn_id="modelarts_default")
    assert told["report_path"] == f"{PLACE}/a.html"
    assert ObjectStoragePath(told["report_path"]).exists()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "AccessDenied", "refuses access"),
        (404, "NoSuchBucket", "does not exist"),
        (301, "PermanentRedirect", "region"),
    ],
)
def test_an_audit_whose_bucket_refuses_reads_no_list(
    modelarts: EmulatorServer, store: ObjectStore, status: int, code: str, words: str
) -> None:
    store.refuse = lambda method, path: (status, code) if method == "PUT" else None
    with pytest.raises(ModelArtsReportNotWritten, match=f"report_path is .* Bucket '{BUCKET}' .*{words}"):
        audit(report_path=f"{PLACE}/a.html")
    assert modelarts.state.log.count("ListProcessorTasks") == 0
