"""The command ``airflow-modelarts emulator``: serves a local ModelArts in the foreground."""

from __future__ import annotations

import argparse
import json
import shlex
import threading
from typing import Any

from airflow_modelarts.testing.command import CONNECTION_ID, SUCCESS, Interrupted, UsageError
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.accounts import BUCKET
from airflow_modelarts.testing.seeded_tasks import seed_and_print

MAX_PORT = 65535


def serve(arguments: argparse.Namespace) -> int:
    """Serve the emulator until a signal ends it."""
    obs_port = arguments.obs_port
    if obs_port is None:
        obs_port = arguments.port + 1 if 0 < arguments.port < MAX_PORT else 0
    try:
        emulator = EmulatorServer(
            arguments.host, arguments.port, obs_port=obs_port, task_duration=arguments.task_duration
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        emulator.start()
    except OSError as error:
        raise UsageError(f"cannot listen on {error.filename}: {error.strerror or error}") from error
    try:
        print(f"ModelArts and IAM:  {emulator.url}")
        print(f"Object store (S3):  {emulator.obs_url}, bucket {BUCKET}")
        print(f"OpenAPI page:       {emulator.url}/docs")
        tasks = seed_and_print(emulator, arguments.seed)
        print("For Airflow, in the shell that starts it:\n")
        print(f"export AIRFLOW_CONN_{CONNECTION_ID.upper()}={shlex.quote(emulator.airflow_connection())}\n")
        print("For you, in any shell:\n")
        print(control_examples(emulator.url, tasks[0].task_id if tasks else "TASK_ID"))
        print("\nCtrl-C ends it.", flush=True)
        threading.Event().wait()
    except Interrupted:
        print("Ended.")
    finally:
        emulator.stop()
    return SUCCESS


def control_examples(url: str, task_id: str) -> str:
    """Return shell lines that use the emulator's control API; they change one processing task."""
    reason = {"error_msg": "the bucket is full"}
    lines: list[tuple[str, str, str, dict[str, Any] | None]] = [
        ("show the processing tasks", "GET", "tasks", None),
        ("add one that runs for a minute", "POST", "tasks", {"template": "sys_data_validation", "duration": 60}),
        ("end one: completed, failed or stopped", "POST", f"tasks/{task_id}/finish", None),
        ("", "POST", f"tasks/{task_id}/fail", reason),
        ("", "POST", f"tasks/{task_id}/stop", None),
        ("make the next new task fail", "POST", "rules", {"status": 3, **reason}),
        ("throttle the next three calls (HTTP 429)", "POST", "faults", {"kind": "throttle", "times": 3}),
        ("advance the clock by an hour", "POST", "clock/advance", {"seconds": 3600}),
        ("reset everything", "POST", "reset", None),
    ]
    return "\n".join(
        (f"# {comment}\n" if comment else "")
        + f"curl -sS -X {method} {url}/emulator/{path}"
        + (f" -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}" if body else "")
        for comment, method, path, body in lines
    )
