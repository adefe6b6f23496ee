"""What a triggerer that dies in the middle of many waits leaves of them: everything."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox, TaskInstance

#: As the DAG ``many`` has them.
WAITS = 200 if AIRFLOW_V_3_3_PLUS else 6
TIMEOUT = timedelta(seconds=90 if AIRFLOW_V_3_3_PLUS else 120)


def test_a_killed_triggerer_loses_no_wait_repeats_no_end_and_restarts_no_clock(
    sandbox: Sandbox, emulator: EmulatorServer
) -> None:
    tasks = emulator.state.add_tasks(WAITS, duration=10_000)
    endless = emulator.state.add_task(duration=10_000)
    run_id = sandbox.trigger("many", conf={"ids": [task.task_id for task in tasks], "endless": endless.task_id})
    latest_start = all_have_begun(sandbox, run_id)
    # Late enough to tell a clock that goes on from one that starts over, though a worker may be slow to note the end.
    time.sleep(max((latest_start + TIMEOUT / 2 - datetime.now(UTC)).total_seconds(), 0))
    for task in tasks[: WAITS // 3]:
        emulator.state.finish(task.task_id)  # some may end just as the triggerer dies
    killed = datetime.now(UTC)
    sandbox.restart("triggerer")
    for task in tasks[WAITS // 3 : 2 * WAITS // 3]:
        emulator.state.finish(task.task_id)
    # Longer than the poke_interval: the new triggerer has met some that have ended and some that have not.
    time.sleep(3)
    for task in tasks[2 * WAITS // 3 :]:
        emulator.state.finish(task.task_id)
    assert sandbox.wait("many", run_id, timeout=600) == "failed", "three waits are meant to time out"

    instances = {i.task_id: i for i in sandbox.task_instances("many", run_id)}
    values = {(x.task_id, x.key): x.value for x in sandbox.xcoms("many", run_id)}
    for number, task in enumerate(tasks):
        instance = instances[f"wait_{number}"]
        assert (instance.state, instance.try_number) == ("success", 1), instance
        assert values[instance.task_id, "return_value"]["task_id"] == task.task_id
    for number in range(3):
        instance = instances[f"time_out_{number}"]
        assert instance.state == "failed"
        assert instance.start_date is not None
        assert instance.end_date is not None
        assert instance.end_date - instance.start_date >= TIMEOUT
        assert instance.end_date < killed + TIMEOUT, "its clock started over"


def all_have_begun(sandbox: Sandbox, run_id: str) -> datetime:
    """Wait until all waits are deferred, and return when the last of those began that are to time out."""

    def instances(kind: str) -> list[TaskInstance]:
        return [i for i in sandbox.task_instances("many", run_id) if i.task_id.startswith(kind)]

    deadline = time.monotonic() + 300
    while True:
        deferred = sum(i.state == "deferred" for i in instances("wait_"))
        # The first of these may be over on a slow machine, before the last wait is deferred.
        starts = [i.start_date for i in instances("time_out_") if i.start_date is not None]
        if (deferred, len(starts)) == (WAITS, 3):
            return max(starts)
        assert time.monotonic() < deadline, f"{deferred} of {WAITS} waits are deferred, {len(starts)} of 3 have begun"
        time.sleep(0.5)
