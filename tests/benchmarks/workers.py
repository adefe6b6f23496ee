"""What one wait costs the workers of a real Airflow, by mode: processes started, and their CPU time.

Every worker process begins the task's log with the same line, so counting these counts the processes. The CPU time is
that of everything below the scheduler, which with the LocalExecutor is the workers, those that have ended included.
"""

from pathlib import Path

import psutil

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox
from tests.benchmarks.tables import show

MODES = ("poke", "reschedule", "deferrable", "from_the_triggerer")
#: Seconds that the processing task takes.
DURATION = 30.0


def run() -> None:
    """Run one wait in each mode, one after the other, and print the table."""
    rows = []
    with EmulatorServer(task_duration=DURATION) as server:
        connections = {"modelarts_default": server.airflow_connection()}
        with Sandbox(Path(__file__).parent / "dags", connections=connections) as sandbox:
            sandbox.wait_for_dags(*MODES)
            for mode in MODES:
                task_id = server.state.add_task().task_id
                before = _worker_seconds(sandbox)
                run_id = sandbox.trigger(mode, conf={"id": task_id})
                state = sandbox.wait(mode, run_id)
                log = sandbox.task_log(mode, run_id, "wait")
                rows.append(
                    (mode, state, log.count("Worker startup parse complete"), _worker_seconds(sandbox) - before)
                )
    show(f"One wait of {DURATION:.0f} s, poked every 5 s", ("mode", "state", "worker processes", "worker CPU s"), rows)


def _worker_seconds(sandbox: Sandbox) -> float:
    scheduler = psutil.Process(sandbox.component("scheduler").pid)
    seconds: float = sum(scheduler.cpu_times()[2:4])  # of its children that have ended
    for process in scheduler.children(recursive=True):
        try:
            seconds += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return seconds
