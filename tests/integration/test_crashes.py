"""What a triggerer that dies in the middle of many waits leaves of them: everything."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.emulator import EmulatorServer
from airflow_modelarts.sandbox import Sandbox

#: As the DAG ``many`` has them.
WAITS = 200 if AIRFLOW_V_3_3_PLUS else 10
TIMEOUT = 40


def test_a_killed_triggerer_loses_no_wait_repeats_no_end_and_restarts_no_clock(
    sandbox: Sandbox, emulator: EmulatorServer
) -> None:
    tasks = emulator.state.add_tasks(WAITS, duration=10_000)
    endless = emulator.state.add_task(duration=10_000)
    run_id = sandbox.trigger("many", conf={"ids": [task.task_id for task in tasks], "endless": endless.task_id})

    def count(state: str) -> int:
        return Counter(i.state for i in sandbox.task_instances("many", run_id))[state]

    deadline = time.monotonic() + 180
    while count("deferred") < WAITS + 3:
        assert time.monotonic() < deadline, f"{count('deferred')} of {WAITS + 3} waits are deferred"
        time.sleep(0.5)
    for task in tasks[: WAITS // 3]:
        emulator.state.finish(task.task_id)  # some may end just as the triggerer dies
    sandbox.restart("triggerer")
    for task in tasks[WAITS // 3 : 2 * WAITS // 3]:
        emulator.state.finish(task.task_id)
    time.sleep(3)
    for task in tasks[2 * WAITS // 3 :]:
        emulator.state.finish(task.task_id)
    assert sandbox.wait("many", run_id, timeout=300) == "failed", "three waits are meant to time out"

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
        lasted = instance.end_date - instance.start_date
        assert timedelta(seconds=TIMEOUT) <= lasted < timedelta(seconds=2 * TIMEOUT - 5), "its clock did not start over"
