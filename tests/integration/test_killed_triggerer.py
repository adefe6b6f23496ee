"""A triggerer that is killed in the middle of many waits loses none of them."""

import time
from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox, TaskInstance
from tests.support.airflow_runs import states
from tests.support.waiting import wait_until

#: As the DAG ``many`` has them.
WAITS = 200 if AIRFLOW_V_3_3_PLUS else 6
TIMEOUT = timedelta(seconds=90 if AIRFLOW_V_3_3_PLUS else 120)


def test_a_killed_triggerer_loses_no_wait_end_or_timeout(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    tasks = emulator.state.add_tasks(WAITS, duration=10_000)
    endless = emulator.state.add_task(duration=10_000)
    run_id = sandbox.trigger("many", conf={"ids": [task.task_id for task in tasks], "endless": endless.task_id})
    begun = latest_start(sandbox, run_id)
    # Late enough that a timeout which starts over ends long after one that does not.
    time.sleep(max((begun + TIMEOUT / 2 - datetime.now(UTC)).total_seconds(), 0))
    # The timeout of this run starts before the kill: one that started over would end after it.
    last_run_id = sandbox.trigger("one_timeout", conf={"endless": endless.task_id})
    wait_until(lambda: states(sandbox, "one_timeout", last_run_id) == {"time_out": "deferred"}, "the last deferral")
    for task in tasks[: WAITS // 3]:
        emulator.state.finish(task.task_id)  # some may end at the moment of the kill
    sandbox.restart("triggerer")
    for task in tasks[WAITS // 3 : 2 * WAITS // 3]:
        emulator.state.finish(task.task_id)
    # Longer than the poke_interval: the new triggerer has polled tasks that have ended and tasks that have not.
    time.sleep(3)
    for task in tasks[2 * WAITS // 3 :]:
        emulator.state.finish(task.task_id)
    assert sandbox.wait("many", run_id, timeout=600) == "failed", "three waits time out"

    sandbox.wait("one_timeout", last_run_id, timeout=600)
    (last,) = sandbox.task_instances("one_timeout", last_run_id)
    assert last.end_date is not None
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
        assert instance.end_date < last.end_date, "its timeout started over"


def latest_start(sandbox: Sandbox, run_id: str) -> datetime:
    """Wait until all waits are deferred, and return the latest start of those that are to time out."""

    def instances(kind: str) -> list[TaskInstance]:
        return [i for i in sandbox.task_instances("many", run_id) if i.task_id.startswith(kind)]

    def starts() -> list[datetime]:
        return [i.start_date for i in instances("time_out_") if i.start_date is not None]

    wait_until(lambda: sum(i.state == "deferred" for i in instances("wait_")) == WAITS, "the deferral of all waits")
    wait_until(lambda: len(starts()) == 3, "the start of the waits that time out")
    return max(starts())
