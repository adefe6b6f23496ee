"""One task for each case of the crash table; the environment variable CRASH_CASES tells which, and where they die.

The operators are the real ones. What is added is a hook that runs before them: it says which process this is, and,
where the point of the crash is no call of the service, kills it when it talks to its supervisor.
"""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Context

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator

CASES: dict[str, Any] = json.loads(os.environ.get("CRASH_CASES", "{}"))
FOLDER = Path(os.environ.get("CRASH_FOLDER", "."))
#: A retry that is queued before Airflow's scheduler has heard of the end of the try before it is failed by mistake.
RETRY_DELAY = timedelta(seconds=10)


def announce(context: Context) -> None:
    """Say which process runs the case, and arrange for its end if that is to come now."""
    task_id = context["ti"].task_id
    ti: Any = context["ti"]
    resumed = bool(ti._ti_context_from_server.next_method)
    killed = FOLDER / f"{task_id}.killed"
    count = len(killed.read_text().splitlines()) if killed.exists() else 0
    kills = CASES[task_id]["kills"]
    kill = kills[count] if count < len(kills) and kills[count]["resumed"] == resumed else None
    process = {"pid": os.getpid(), "supervisor": os.getppid(), "kill": None if kill is None else count}
    written = FOLDER / f"{task_id}.writing"
    written.write_text(json.dumps(process))
    written.rename(FOLDER / f"{task_id}.process")
    if kill is None:
        return
    if kill["message"] is None:
        armed = FOLDER / f"{task_id}.armed"
        while not armed.exists() or int(armed.read_text() or -1) < count:
            time.sleep(0.05)
    else:
        die_when_told(kill, killed)


def die_when_told(kill: dict[str, Any], killed: Path) -> None:
    """Kill this process right before or after it sends one message to its supervisor, or both processes."""
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


with DAG("crashes", schedule=None, max_active_tasks=64):
    for task_id, case in CASES.items():
        ModelArtsCreateProcessorTaskOperator(
            task_id=task_id,
            modelarts_conn_id=task_id,
            name=task_id,
            template={"id": "sys_data_validation"},
            inputs=[{"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}],
            work_path={"type": "OBS", "path": "obs://bucket/work/"},
            poll_interval=0.5,
            deferrable=case["deferrable"],
            retries=5,
            retry_delay=RETRY_DELAY,
            pre_execute=announce,
        )
