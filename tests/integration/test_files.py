"""Files in OBS in a real Airflow, by each kind of credentials; temporary keys expire in the middle of the exports.

The export of the connection ``obs_password`` is uploaded in parts. SAMPLES in the environment is its number of samples.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import Config

from airflow_modelarts.connection.fields import AUTH_KINDS
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.control.faults import Hold
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.sandbox import Sandbox
from tests.support.airflow_runs import files_with_secrets, pushed, states
from tests.support.waiting import TIMEOUT, wait_until
from tests.support.worker_credentials import Worker, set_up

#: Seconds for which a temporary key is valid.
LIFETIME = 10.0
#: By kind of credentials that obtain temporary keys, what the ids of these keys begin with.
OWNERS = {
    "password": "TOKEN",
    "token": "TOKEN",
    "agency": "SERVER",
    "oidc": "OIDC",
    "pod_identity": "POD",
    "assume_agency": "AGENCY",
    "default": "OIDC",
}
#: Samples in a page of an export.
PAGE = 100
FEW_SAMPLES = 3 * PAGE
#: More than a part of an upload has room for.
MANY_SAMPLES = int(os.environ.get("SAMPLES", "6000"))
#: Bytes.
MEMORY = 100_000_000
#: It makes long lines.
LONG_FOLDER = "a-folder-with-a-long-name/" * 32
UPLOADED_IN_PARTS = "password"
DAG_ID = "files"


@dataclass
class Export:
    """An export. If its connection has temporary keys, the request for its last page is held until they have expired.

    :param samples: the number of samples.
    """

    task_id: str
    samples: int
    hold: Hold | None
    #: When it was held, in seconds since the epoch; all keys of that moment expire within the lifetime.
    held_at: float = 0.0
    #: The keys of uploads that were not complete when it was held.
    uploads: list[str] = field(default_factory=list)

    def release_after_expiry(self, client: Any) -> None:
        """Release the request if it is held and its key has expired."""
        if self.hold is None or self.hold.is_over or not self.hold.wait(0):
            return
        if not self.held_at:
            found = client.list_multipart_uploads(Bucket=accounts.BUCKET).get("Uploads", ())
            self.held_at, self.uploads = time.time(), [upload["Key"] for upload in found]
        elif time.time() > self.held_at + LIFETIME:
            self.hold.release()


@dataclass
class Run:
    """The run of the DAG, its XComs by task and key, and its exports by kind of credentials."""

    sandbox: Sandbox
    xcoms: dict[tuple[str, str], Any]
    exports: dict[str, Export]

    def value(self, kind: str, task_id: str) -> Any:
        """Return the value of a task."""
        return self.xcoms[f"{conn_id_of(kind)}.{task_id}", "return_value"]


def conn_id_of(kind: str) -> str:
    return f"obs_{kind}"


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=0) as server:
        server.state.settings.temporary_key_lifetime = LIFETIME
        yield server


@pytest.fixture(scope="module")
def client(emulator: EmulatorServer) -> Any:
    """A client of boto3 for the object store."""
    return boto3.client(
        "s3",
        endpoint_url=emulator.obs_url,
        aws_access_key_id=accounts.ACCESS_KEY,
        aws_secret_access_key=accounts.SECRET_KEY,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


@pytest.fixture(scope="module")
def worker(emulator: EmulatorServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Worker(tmp_path_factory.mktemp("home"), emulator, monkeypatch)


def add_export(emulator: EmulatorServer, kind: str) -> Export:
    """Add the processing task of an export, and hold the request for the last page of its results."""
    samples = MANY_SAMPLES if kind == UPLOADED_IN_PARTS else FEW_SAMPLES
    task = emulator.state.add_task(
        f"exported-{kind}",
        template="sys_data_cleaning",
        project_id=accounts.OTHER_PROJECT_ID if kind == "assume_agency" else accounts.PROJECT_ID,
        body={
            "inputs": [{"type": "OBS", "source": f"obs://images/{LONG_FOLDER}"}],
            "work_path": {"type": "OBS", "path": f"obs://processed/{LONG_FOLDER}"},
        },
    )
    emulator.state.set_sample_count(task.task_id, samples)
    if kind not in OWNERS:
        return Export(task.task_id, samples, None)
    page = {"operation": "ListProcessorTaskVersionResults", "path": task.task_id, "skip": samples // PAGE - 1}
    return Export(task.task_id, samples, emulator.faults.hold(**page))


@pytest.fixture(scope="module")
def run(emulator: EmulatorServer, worker: Worker, client: Any) -> Iterator[Run]:
    """Run the DAG to its end."""
    connections = {}
    for kind in AUTH_KINDS:
        fields = {**set_up(worker, kind)}
        extra = {"read_timeout": TIMEOUT, **fields.pop("extra", {})}  # a request is held for longer on a slow machine
        connections[conn_id_of(kind)] = worker.connection(kind, extra, **fields)
    exports = {kind: add_export(emulator, kind) for kind in AUTH_KINDS}
    environment = {
        "METADATA_SERVICE": emulator.url,
        "EXPORTED": json.dumps({conn_id_of(kind): export.task_id for kind, export in exports.items()}),
    }

    def are_released() -> bool:
        for export in exports.values():
            export.release_after_expiry(client)
        return all(export.hold is None or export.hold.is_over for export in exports.values())

    dags = Path(__file__).parent / "files_dags"
    with Sandbox(dags, connections=connections, environment=environment) as sandbox:
        sandbox.wait_for_dags(DAG_ID, timeout=TIMEOUT)
        run_id = sandbox.trigger(DAG_ID)
        is_over = {"success", "failed"}.__contains__
        wait_until(lambda: are_released() or is_over(sandbox.api.run_state(DAG_ID, run_id)), "the exports", 2 * TIMEOUT)
        ended = sandbox.wait(DAG_ID, run_id, timeout=2 * TIMEOUT)
        failed = [task_id for task_id, state in states(sandbox, DAG_ID, run_id).items() if state == "failed"]
        assert ended == "success", "\n".join(sandbox.task_log(DAG_ID, run_id, task_id)[-3000:] for task_id in failed)
        yield Run(sandbox, pushed(sandbox, DAG_ID, run_id), exports)


@pytest.mark.parametrize("kind", AUTH_KINDS)
def test_each_kind_of_credentials_audits_exports_and_reads(run: Run, client: Any, kind: str) -> None:
    conn_id, samples = conn_id_of(kind), run.exports[kind].samples
    place = f"obs://{conn_id}@{accounts.BUCKET}"
    audit, export = run.value(kind, "audit"), run.value(kind, "export")
    read = run.xcoms["read", "return_value"][conn_id]
    assert (audit["report_path"], export["path"]) == (
        f"{place}/audits/{conn_id}.html",
        f"{place}/exports/{conn_id}.jsonl",
    )
    assert (export["count"], read["samples"], read["audited"]) == (samples, samples, audit["total"])
    assert (read["files"], read["result"]["origin_sample_count"]) == (20, 16)
    page = client.get_object(Bucket=accounts.BUCKET, Key=f"audits/{conn_id}.html")["Body"].read()
    assert b"<h1>Processing tasks" in page
    lines = client.get_object(Bucket=accounts.BUCKET, Key=f"exports/{conn_id}.jsonl")["Body"].iter_lines()
    assert len({json.loads(line)["sample_id"] for line in lines}) == samples


@pytest.mark.parametrize("kind", OWNERS)
def test_a_temporary_key_that_expires_in_the_middle_of_an_export_is_renewed(
    run: Run, emulator: EmulatorServer, kind: str
) -> None:
    held_at = run.exports[kind].held_at
    keys = [key for key in emulator.state.accounts._keys.values() if key.access_key.startswith(f"{OWNERS[kind]}-")]
    issued_at = [key.expires_at - LIFETIME for key in keys if key.expires_at is not None]
    assert min(issued_at) < held_at, "the export had a key"
    assert max(issued_at) > held_at + LIFETIME * 0.9, "the export got another key after the first one"


def test_the_key_of_an_upload_in_parts_expires_between_the_parts(run: Run, client: Any) -> None:
    (upload,) = run.exports[UPLOADED_IN_PARTS].uploads
    assert upload.startswith(f"exports/.{conn_id_of(UPLOADED_IN_PARTS)}.jsonl.part-")
    assert client.list_multipart_uploads(Bucket=accounts.BUCKET).get("Uploads", []) == []


def test_each_kind_obtains_its_keys_where_its_worker_does(run: Run, emulator: EmulatorServer) -> None:
    counts = emulator.state.log.counts()
    issuers = ("CreateTemporaryAccessKey", "GetSecurityKey", "AssumeAgencyWithOIDC", "GetPodIdentityCredentials")
    assert all(counts[operation] > 1 for operation in issuers), counts
    assert counts["KeystoneCreateUserTokenByPassword"] >= 1


def test_exports_to_obs_take_little_memory(run: Run) -> None:
    taken = {kind: run.value(kind, "export")["memory"] for kind in AUTH_KINDS}
    print(f"an export of {MANY_SAMPLES} samples to OBS took {taken[UPLOADED_IN_PARTS]:,} bytes of memory")
    assert max(taken.values()) < MEMORY, taken


def test_no_secret_is_in_logs_xcoms_rendered_fields_or_the_database(run: Run, emulator: EmulatorServer) -> None:
    assert files_with_secrets(run.sandbox, emulator) == []
