"""As much of a service as the kinds of wait need that ask one by one, on a thread of its own.

It is so cheap that it is they who are measured. It speaks TLS where a client speaks nothing else.
"""

import asyncio
import json
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.certificates import write_certificate

EXAMPLES = Path(__file__).parents[1] / "data" / "contract" / "examples"
#: The reference's example of a task, with a name as pipelines give it and without the result, which active ones lack.
TASK = {
    **json.loads((EXAMPLES / "describe-feature-analysis.json").read_text()),
    "name": "street-signs-feature-analysis-20261126-1f0c4a7e",
}
del TASK["result"]
#: The request that created it.
EXAMPLE_BODY = {name: TASK[name] for name in ("name", "data_source", "template", "version_id")}
#: The reference's example of a request that creates a task with versions, without its name, as JSON.
VALIDATION = json.dumps(
    {
        name: value
        for name, value in json.loads((EXAMPLES / "create-data-validation.json").read_text()).items()
        if name != "name"
    }
)
#: A run of a job as dbt Cloud describes it, without the objects that a request must ask for.
RUN = {
    "id": 1,
    "trigger_id": 219064481,
    "account_id": 1,
    "environment_id": 84531,
    "project_id": 70829,
    "job_definition_id": 312006,
    "status": 3,
    "dbt_version": "versionless",
    "git_branch": "main",
    "git_sha": "3f1c1a0f6a4d4c2aa9f8a5c0a7d1f0a4b6f0c9d2",
    "status_message": None,
    "owner_thread_id": None,
    "executed_by_thread_id": "dbt-run-219064481-gxqzv",
    "deferring_run_id": None,
    "artifacts_saved": False,
    "artifact_s3_path": None,
    "has_docs_generated": False,
    "has_sources_generated": False,
    "notifications_sent": False,
    "blocked_by": [],
    "created_at": "2026-11-26 02:00:07.103410+00:00",
    "updated_at": "2026-11-26 02:00:31.446711+00:00",
    "dequeued_at": "2026-11-26 02:00:09.871230+00:00",
    "started_at": "2026-11-26 02:00:14.266013+00:00",
    "finished_at": None,
    "last_checked_at": "2026-11-26 02:00:31.440117+00:00",
    "last_heartbeat_at": "2026-11-26 02:00:31.440117+00:00",
    "should_start_at": None,
    "status_humanized": "Running",
    "in_progress": True,
    "is_complete": False,
    "is_success": False,
    "is_error": False,
    "is_cancelled": False,
    "duration": "00:00:24",
    "queued_duration": "00:00:07",
    "run_duration": "00:00:17",
    "href": "https://cloud.getdbt.com/deploy/1/projects/70829/runs/1/",
    "trigger": None,
    "job": None,
    "environment": None,
    "run_steps": [],
}
#: A job run as EMR Serverless describes it.
JOB_RUN = {
    "applicationId": "00fq2d8r1n5m4p0v",
    "jobRunId": "00fq2d9c7k3j1t0v",
    "name": "street-signs-feature-analysis-20261126-1f0c4a7e",
    "arn": "arn:aws:emr-serverless:us-east-1:123456789012:/applications/00fq2d8r1n5m4p0v/jobruns/00fq2d9c7k3j1t0v",
    "createdBy": "arn:aws:sts::123456789012:assumed-role/airflow/airflow",
    "createdAt": 1795658407.1,
    "updatedAt": 1795658431.4,
    "startedAt": 1795658414.3,
    "executionRole": "arn:aws:iam::123456789012:role/feature-analysis",
    "state": "RUNNING",
    "stateDetails": "",
    "releaseLabel": "emr-7.9.0",
    "jobDriver": {
        "sparkSubmit": {
            "entryPoint": "s3://my-bucket/code/feature_analysis.py",
            "entryPointArguments": ["--input", "s3://my-bucket/street-signs", "--output", "s3://my-bucket/out"],
            "sparkSubmitParameters": "--conf spark.executor.cores=4 --conf spark.executor.memory=14g",
        }
    },
    "totalExecutionDurationSeconds": 0,
    "executionTimeoutMinutes": 720,
    "attempt": 1,
}
DONE = {"code": 200, "is_success": True, "user_message": "Success!", "developer_message": ""}
#: By kind, the answer while the wait goes on, and the one that ends it: HTTP status and body.
BODIES: dict[str, tuple[tuple[int, dict[str, Any]], tuple[int, dict[str, Any]]]] = {
    "http": ((404, {"error_code": "ModelArts.4700", "error_msg": "Not found."}), (200, {**TASK, "status": 2})),
    "dbt Cloud": (
        (200, {"status": DONE, "data": RUN}),
        (200, {"status": DONE, "data": {**RUN, "status": 10, "in_progress": False, "is_complete": True}}),
    ),
    "amazon": ((200, {"jobRun": JOB_RUN}), (200, {"jobRun": {**JOB_RUN, "state": "SUCCESS"}})),
    "aiohttp": ((200, {**TASK, "status": 1}), (200, {**TASK, "status": 2})),
}


def _answer(status: int, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


@dataclass
class Answers:
    """A service that knows its tasks by the last part of the path.

    :param active: what it answers while a task goes on.
    :param over: what it answers once the task has ended.
    :param certificate: the file that vouches for it.
    """

    active: bytes
    over: bytes
    certificate: str
    port: int = 0
    requests: int = 0
    ended: set[str] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                path = request.split(b" ", 2)[1].partition(b"?")[0]
                task_id = path.rstrip(b"/").rpartition(b"/")[2].decode()
                writer.write(self.over if task_id in self.ended else self.active)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


@contextmanager
def answers(kind: str) -> Iterator[Answers]:
    """Serve a kind on a free port."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = write_certificate(Path(folder))
        context = None
        if kind == "dbt Cloud":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
        active, over = BODIES[kind]
        service = Answers(_answer(*active), _answer(*over), str(certificate))
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(service.serve, "127.0.0.1", 0, ssl=context, backlog=4096))
        service.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        yield service
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
