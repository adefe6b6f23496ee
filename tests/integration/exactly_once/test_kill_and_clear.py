"""What happens to the processing task when its run is marked, cleared or timed out, and when a triggerer restarts."""

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Component, Sandbox
from tests.support.airflow_runs import COMPLETED, RUNNING, STOPPED, AirflowUser, CreateRun, pushed
from tests.support.waiting import TIMEOUT

DAGS = Path(__file__).parent / "dags"
#: Seconds without a heartbeat after which Airflow reassigns the triggers of a triggerer.
TRIGGERER_TIMEOUT = 10

since_3_3 = pytest.mark.skipif(
    not AIRFLOW_V_3_3_PLUS, reason="needs the kill of triggers and the task state store of Airflow 3.3"
)


@pytest.fixture(scope="module")
def sandbox(emulator: EmulatorServer) -> Iterator[Sandbox]:
    connections = {"modelarts_default": emulator.airflow_connection()}
    environment = {"AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(TRIGGERER_TIMEOUT)}
    with Sandbox(DAGS, only_file=DAGS / "kills.py", connections=connections, environment=environment) as running:
        running.wait_for_dags("mapped", "version", timeout=TIMEOUT)
        yield running


@pytest.fixture(scope="module")
def user(sandbox: Sandbox) -> AirflowUser:
    return AirflowUser(sandbox)


# Without any intervention


@pytest.mark.parametrize("path", ["synchronous", "deferrable"])
def test_a_run_creates_a_task_waits_and_pushes_a_result(sandbox: Sandbox, emulator: EmulatorServer, path: str) -> None:
    run = CreateRun(sandbox, emulator, f"happy_{path}", duration=2.0)
    assert run.wait_for_end() == "success", run.log()
    (task,) = run.tasks
    assert run.value("return_value")["task_id"] == run.value("processor_task_id") == task.task_id
    assert run.value("return_value")["status_name"] == "completed"
    assert run.value("version")["task_version_id"] == task.versions[0].version_id
    assert run.value("work_path") == {"type": "OBS", "path": "obs://bucket/work/"}


def test_a_mapped_operator_creates_one_task_for_each_input(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    run_id = sandbox.trigger("mapped")
    assert sandbox.wait("mapped", run_id, timeout=TIMEOUT) == "success"
    names = [task.name for task in emulator.state.all_tasks() if task.name.startswith("mapped-")]
    assert sorted(name.rpartition("-")[0] for name in names) == ["mapped-a", "mapped-b", "mapped-c"]
    returned = [xcom for xcom in sandbox.xcoms("mapped", run_id) if xcom.key == "return_value"]
    assert sorted(xcom.map_index for xcom in returned) == [0, 1, 2]
    assert sorted(xcom.value["name"] for xcom in returned) == sorted(names)


def test_a_new_version_is_run_and_waited_for(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    original = emulator.state.add_task(template="sys_data_validation", status=COMPLETED)
    run_id = sandbox.trigger("version", conf={"id": original.task_id})
    ended = sandbox.wait("version", run_id, timeout=TIMEOUT)
    log = sandbox.task_log("version", run_id, "run")
    assert ended == "success", log
    _, version = original.versions
    values = pushed(sandbox, "version", run_id)
    assert values["run", "version"]["task_version_id"] == version.version_id
    assert values["run", "version"]["status_name"] == "completed"
    assert values["run", "return_value"]["task_id"] == original.task_id
    assert f"Version '{version.version_id}' of processing task '{original.task_id}' is completed" in log


def test_a_task_of_the_same_name_and_request_is_reused(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    first, second = (CreateRun(sandbox, emulator, "reused", duration=2.0) for _ in range(2))
    assert first.wait_for_end() == "success", first.log()
    assert second.wait_for_end() == "success", second.log()
    (task,) = [one for one in emulator.state.all_tasks() if one.name == "reused"]
    assert first.value("return_value")["task_id"] == second.value("return_value")["task_id"] == task.task_id


# Without cancel_on_kill


@since_3_3
@pytest.mark.parametrize("path", ["synchronous", "deferrable"])
def test_a_cleared_task_adopts_what_goes_on(
    sandbox: Sandbox, emulator: EmulatorServer, user: AirflowUser, path: str
) -> None:
    run = CreateRun(sandbox, emulator, f"goes_on_{path}")
    task = run.wait_for_running_task()
    run.wait_until(lambda: run.instance.state == ("deferred" if path == "deferrable" else "running"))
    run.wait_until(lambda: "is running" in run.log() or "is initialized" in run.log())
    user.clear_task(run.dag_id, run.run_id)
    run.wait_until(lambda: run.instance.try_number == 2 and run.instance.state in ("running", "deferred"))
    if path == "deferrable":  # until then, Airflow lets an event of the cleared trigger end the second try
        run.wait_until_deferred()
    assert run.status(task) == RUNNING
    emulator.state.finish(task.task_id)
    assert run.wait_for_end() == "success", run.log()
    assert run.tasks == [task]
    assert run.value("return_value")["task_id"] == task.task_id


# Marked as failed


@since_3_3
@pytest.mark.parametrize("what", ["task", "run"])
def test_marking_a_deferred_task_failed_stops_its_version_before_the_next_poll(
    sandbox: Sandbox, emulator: EmulatorServer, user: AirflowUser, what: str
) -> None:
    run = CreateRun(sandbox, emulator, "killed_deferrable")
    task = run.wait_for_running_task()
    run.wait_until_deferred()
    mark = user.mark_task_failed if what == "task" else user.mark_run_failed
    mark(run.dag_id, run.run_id)
    run.wait_until_stopped(task)
    assert run.wait_for_end() == "failed"
    assert len(run.tasks) == 1


@since_3_3
def test_a_version_that_is_initializing_is_stopped_when_it_runs(
    sandbox: Sandbox, emulator: EmulatorServer, user: AirflowUser
) -> None:
    run = CreateRun(sandbox, emulator, "killed_deferrable")
    task = run.wait_for_task()
    run.wait_until_deferred()
    refused = emulator.state.log.count("StopProcessorTaskVersion")
    user.mark_task_failed(run.dag_id, run.run_id)
    run.wait_until(lambda: emulator.state.log.count("StopProcessorTaskVersion") > refused + 1)
    emulator.state.set_status(task.task_id, RUNNING)
    run.wait_until_stopped(task)


@since_3_3
def test_marking_a_task_failed_that_waits_on_a_worker_stops_its_version_before_the_next_poll(
    sandbox: Sandbox, emulator: EmulatorServer, user: AirflowUser
) -> None:
    run = CreateRun(sandbox, emulator, "killed_synchronous")
    task = run.wait_for_running_task()
    run.wait_until(lambda: "is running" in run.log() or "is initialized" in run.log())
    user.mark_task_failed(run.dag_id, run.run_id)
    run.wait_until_stopped(task)
    assert run.wait_for_end() == "failed"


@since_3_3
def test_a_feature_analysis_cannot_be_stopped_and_the_log_says_so(
    sandbox: Sandbox, emulator: EmulatorServer, user: AirflowUser
) -> None:
    run = CreateRun(sandbox, emulator, "analysis")
    task = run.wait_for_running_task()
    run.wait_until_deferred()
    user.mark_task_failed(run.dag_id, run.run_id)
    run.wait_until(lambda: f"Cannot stop processing task '{task.task_id}': it has no versions" in run.log())
    assert run.status(task) == RUNNING


# Cleared


@since_3_3
def test_clearing_a_deferred_task_stops_its_version_and_runs_another(
    sandbox: Sandbox, emulator: EmulatorServer, user: AirflowUser
) -> None:
    run = CreateRun(sandbox, emulator, "cleared_deferrable")
    task = run.wait_for_running_task()
    run.wait_until_deferred()
    user.clear_task(run.dag_id, run.run_id)
    run.wait_until_stopped(task)
    assert run.wait_for_end() == "success", run.log()
    first, second = run.tasks
    assert (run.status(first), run.status(second)) == (STOPPED, COMPLETED)
    assert run.value("return_value")["task_id"] == second.task_id


@since_3_3
@pytest.mark.parametrize("path", ["synchronous", "deferrable"])
def test_clearing_a_succeeded_task_creates_another_processing_task(
    sandbox: Sandbox, emulator: EmulatorServer, user: AirflowUser, path: str
) -> None:
    run = CreateRun(sandbox, emulator, f"happy_{path}", duration=2.0)
    assert run.wait_for_end() == "success", run.log()
    user.clear_task(run.dag_id, run.run_id)
    assert run.wait_for_end() == "success", run.log()
    first, second = run.tasks
    assert run.instance.try_number == 2
    assert run.value("return_value")["task_id"] == second.task_id != first.task_id


# Timed out


@pytest.mark.parametrize(
    "path",
    [
        "synchronous",
        # Airflow 2 does not tell the operator that a deferred task has timed out.
        pytest.param("deferrable", marks=since_3_3),
    ],
)
def test_a_timeout_stops_the_version_and_fails_the_run(sandbox: Sandbox, emulator: EmulatorServer, path: str) -> None:
    run = CreateRun(sandbox, emulator, f"timed_out_{path}")
    task = run.wait_for_running_task()
    assert run.wait_for_end() == "failed", run.log()
    assert run.status(task) == STOPPED, run.log()
    assert len(run.tasks) == 1


# Triggerer restarted


def test_restarting_the_triggerer_stops_no_processing_task(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    run = CreateRun(sandbox, emulator, "cleared_deferrable")
    task = run.wait_for_running_task()
    run.wait_until(lambda: run.instance.state == "deferred")
    asked = emulator.state.log.count("StopProcessorTaskVersion")
    sandbox.component("triggerer").terminate()  # as an upgrade would end it, so that it has time to do harm
    run.wait_until(lambda: sandbox.component("triggerer").poll() is not None)
    sandbox.restart("triggerer")
    assert run.status(task) == RUNNING
    emulator.state.finish(task.task_id)
    assert run.wait_for_end() == "success", run.log()
    assert emulator.state.log.count("StopProcessorTaskVersion") == asked
    assert run.instance.try_number == 1
    assert len(run.tasks) == 1


@pytest.fixture
def second_triggerer(sandbox: Sandbox) -> Iterator[Component]:
    """A second triggerer, not started. Afterwards the first one is restarted."""
    log = sandbox.home / "components" / "second-triggerer.log"
    second = Component("second triggerer", ("triggerer", "--skip-serve-logs"), sandbox.environment, log)
    yield second
    second.kill()
    sandbox.restart("triggerer")


def suspend(pid: int, database: Path) -> None:
    """Suspend a process at a moment when it holds no lock of Airflow's database, which would stop all others too."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        try:
            with closing(sqlite3.connect(database, timeout=1)) as connection:
                connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError:  # locked
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.1)


@since_3_3
def test_a_triggerer_that_lost_its_triggers_to_another_stops_no_processing_task(
    sandbox: Sandbox, emulator: EmulatorServer, second_triggerer: Component
) -> None:
    run = CreateRun(sandbox, emulator, "cleared_deferrable")
    task = run.wait_for_running_task()
    run.wait_until_deferred()
    first = sandbox.component("triggerer").pid
    assert first is not None
    stops = emulator.state.log.count("StopProcessorTaskVersion")
    suspend(first, sandbox.home / "airflow.db")
    try:
        second_triggerer.start()
        run.wait_until(lambda: run.log().count(" starting") == 2)
    finally:
        os.kill(first, signal.SIGCONT)
    run.wait_until(lambda: "invoking on_kill" in run.log())
    # The log of a trigger ends with it, maybe before on_kill does: some polls of the second one give it time to act.
    polls = emulator.state.log.count()
    run.wait_until(lambda: emulator.state.log.count() > polls + 10)
    assert run.status(task) == RUNNING
    emulator.state.finish(task.task_id)
    assert run.wait_for_end() == "success", run.log()
    assert emulator.state.log.count("StopProcessorTaskVersion") == stops
    assert run.instance.try_number == 1
