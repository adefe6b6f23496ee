"""One Airflow task for each case of a table; the environment variable CASES holds their arguments as JSON.

The operators are those of the package. In a case with kills a hook runs before the operator: it reports which process
runs the case, and may kill that process at a message to its supervisor.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseOperator, Context

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

CASES: list[dict[str, Any]] = json.loads(os.environ.get("CASES", "[]"))
#: Through the files of this folder the test and the processes talk about kills.
FOLDER = Path(os.environ.get("CASE_FOLDER", "."))
#: Seconds. A wait that hangs ends by itself before the test gives up on it.
SENSOR_TIMEOUT = 2300
#: A retry that is queued before Airflow's scheduler has seen the end of the previous try is failed by mistake.
RETRY_DELAY = timedelta(seconds=10)


def report_process(kills: list[dict[str, Any]], context: Context) -> None:
    """Write down which process runs the case, and prepare its kill if one is due in this try."""
    ti: Any = context["ti"]
    resumed = bool(ti._ti_context_from_server.next_method)
    killed = FOLDER / f"{ti.task_id}.killed"
    count = len(killed.read_text().splitlines()) if killed.exists() else 0
    kill = kills[count] if count < len(kills) and kills[count]["resumed"] == resumed else None
    process = {"pid": os.getpid(), "supervisor": os.getppid(), "kill": None if kill is None else count}
    written = FOLDER / f"{ti.task_id}.writing"
    written.write_text(json.dumps(process))
    written.rename(FOLDER / f"{ti.task_id}.process")
    if kill is None:
        return
    if kill["message"] is None:  # the test kills the process while the emulator holds a call
        armed = FOLDER / f"{ti.task_id}.armed"
        while not armed.exists() or int(armed.read_text() or -1) < count:
            time.sleep(0.05)
    else:
        kill_at_message(kill, killed)


def kill_at_message(kill: dict[str, Any], killed: Path) -> None:
    """Kill this process right before or after it sends one message to its supervisor, or kill both processes."""
    from airflow.sdk.execution_time.comms import CommsDecoder

    send = CommsDecoder.send
    seen = 0

    def die() -> None:
        with killed.open("a") as file:
            file.write(f"{kill['message']}\n")
        if kill["victim"] == "worker":
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def sending(self: Any, msg: Any) -> Any:
        nonlocal seen
        what = " ".join(filter(None, [type(msg).__name__, getattr(msg, "key", None)]))
        seen += what == kill["message"]
        now = what == kill["message"] and seen == kill["nth"]
        if now and kill["when"] == "before":
            die()
        answer = send(self, msg)
        if now:
            die()
        return answer

    CommsDecoder.send = sending  # type: ignore[method-assign]


def common(case: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that all operators share."""
    arguments = {
        "task_id": case["task_id"],
        "modelarts_conn_id": case.get("conn_id", case["task_id"]),
        "retries": case["retries"],
        "retry_delay": RETRY_DELAY,
    }
    if kills := case.get("kills"):
        arguments["pre_execute"] = lambda context: report_process(kills, context)
    return arguments


def wait(case: dict[str, Any], **mode: Any) -> BaseOperator:
    return ModelArtsProcessorTaskSensor(
        processor_task_id=case["processor_task_id"],
        timeout=SENSOR_TIMEOUT,
        **common(case),
        **{"poke_interval": 1, **mode},
    )


def create(case: dict[str, Any], **mode: Any) -> BaseOperator:
    return ModelArtsCreateProcessorTaskOperator(
        name=case["task_id"],
        template={"id": "sys_data_validation"},
        inputs=[{"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}],
        work_path={"type": "OBS", "path": "obs://bucket/work/"},
        poll_interval=0.5,
        **common(case),
        **mode,
    )


#: By mode: what makes the task, and with which options. Those that wait without a worker go first when they need one.
MODES: dict[str, tuple[Callable[..., BaseOperator], dict[str, Any]]] = {
    "poke": (wait, {"mode": "poke", "deferrable": False}),
    # Airflow takes a task that is back within a second or two for a lost one, and fails it.
    "reschedule": (wait, {"mode": "reschedule", "deferrable": False, "poke_interval": 5, "priority_weight": 2}),
    "deferrable": (wait, {"deferrable": True, "priority_weight": 3}),
    "trigger only": (wait, {"start_from_trigger": True, "end_from_trigger": True, "priority_weight": 4}),
    "create": (create, {"deferrable": False}),
    "create deferrable": (create, {"deferrable": True, "priority_weight": 3}),
    "create deferrable at once": (create, {"deferrable": True, "wait_for_capacity": False, "priority_weight": 3}),
}

with DAG("cases", schedule=None, max_active_tasks=64):
    for case in CASES:
        make, options = MODES[case["mode"]]
        if any(kill["victim"] == "triggerer" for kill in case.get("kills", ())):
            options = {**options, "priority_weight": 9}  # these wait for each other
        make(case, **options)
