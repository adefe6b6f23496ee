"""The sensor in every mode in a real Airflow: outcomes, XComs, inputs, outages, timeouts."""

import time
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox
from tests.support.airflow_runs import files_with_secrets, pushed, states
from tests.support.waiting import wait_until

MODES = ("poke", "reschedule", "deferrable", "triggerer")


def outcome(task_id: str, status: int) -> dict[str, Any]:
    names = {2: "completed", 3: "failed", 4: "stopped"}
    return {"task_id": task_id, "status": status, "status_name": names[status]}


@pytest.fixture(scope="module")
def run_of_waits(sandbox: Sandbox, emulator: EmulatorServer) -> tuple[str, dict[str, str]]:
    """One run of the DAG ``waits``, finished before the tests read it."""
    add = emulator.state.add_task
    running = {f"{mode}_{name}": add(duration=10_000).task_id for mode in MODES for name in ("running", "password")}
    versioned = add(template="sys_data_cleaning", duration=0)
    ids = {
        **running,
        "failed": add(status=3, error_msg="the bucket is full").task_id,
        "stopped": add(status=4).task_id,
        "versioned": versioned.task_id,
        "version": versioned.versions[0].version_id,
    }
    run_id = sandbox.trigger("waits", conf=ids)

    def end_what_is_waited_for(_: object) -> None:
        for name, processor_task_id in list(running.items()):
            if f"Processing task '{processor_task_id}' is initialized" in sandbox.task_log("waits", run_id, name):
                emulator.state.finish(processor_task_id)
                del running[name]

    sandbox.wait("waits", run_id, timeout=600, watch=end_what_is_waited_for)
    assert not running, "each wait has polled its running task"
    return run_id, ids


@pytest.mark.parametrize("mode", MODES)
def test_each_final_status_has_the_same_outcome_in_every_mode(
    sandbox: Sandbox, run_of_waits: tuple[str, dict[str, str]], mode: str
) -> None:
    run_id, ids = run_of_waits
    found = states(sandbox, "waits", run_id)
    names = ("running", "password", "failed", "stopped", "any_end", "soft_fail", "empty", "version", "outlets")
    assert {name: found[f"{mode}_{name}"] for name in names} == {
        "running": "success",
        "password": "success",
        "failed": "failed",
        "stopped": "failed",
        "any_end": "success",
        "soft_fail": "skipped",
        "empty": "failed",
        "version": "success",
        "outlets": "success",
    }
    xcoms = pushed(sandbox, "waits", run_id)
    assert xcoms[f"{mode}_running", "return_value"] == outcome(ids[f"{mode}_running"], 2)
    assert xcoms[f"{mode}_any_end", "return_value"] == outcome(ids["failed"], 3)
    version = {"task_version_id": ids["version"], **outcome(ids["versioned"], 2)}
    assert xcoms[f"{mode}_version", "return_value"] == version


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_calls_the_callback(sandbox: Sandbox, run_of_waits: tuple[str, dict[str, str]], mode: str) -> None:
    run_id, _ = run_of_waits
    log = sandbox.task_log("waits", run_id, f"{mode}_outlets")
    assert "The callback is called" in log
    assert ("only where a worker ends the task: outlets, on_success_callback" in log) is (
        mode == "triggerer" and AIRFLOW_V_3_3_PLUS
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_failure_shows_its_reason_and_is_retried_if_retries_are_set(
    sandbox: Sandbox, run_of_waits: tuple[str, dict[str, str]], mode: str
) -> None:
    run_id, ids = run_of_waits
    tries = {i.task_id: i.try_number for i in sandbox.task_instances("waits", run_id)}
    assert tries[f"{mode}_retries"] == 2
    assert tries[f"{mode}_failed"] == 1
    log = sandbox.task_log("waits", run_id, f"{mode}_failed")
    assert f"Processing task '{ids['failed']}' failed: the bucket is full" in log


@pytest.mark.parametrize("mode", MODES)
def test_an_unknown_task_fails_at_once(sandbox: Sandbox, run_of_waits: tuple[str, dict[str, str]], mode: str) -> None:
    run_id, _ = run_of_waits
    (instance,) = [i for i in sandbox.task_instances("waits", run_id) if i.task_id == f"{mode}_unknown"]
    assert instance.state == "failed"
    log = sandbox.task_log("waits", run_id, f"{mode}_unknown")
    assert "ModelArtsNotFoundError" in log
    assert "Check the id" in log


def test_ids_can_come_from_mapping_xcoms_and_templates(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    result = {"classes": ["cat", "dog"]}
    tasks = [
        emulator.state.add_task(duration=1, result=result, body={"work_path": {"type": "OBS", "path": "obs://b/w/"}})
        for _ in range(3)
    ]
    ids = [task.task_id for task in tasks]
    run_id = sandbox.trigger("inputs", conf={"ids": ids})
    assert sandbox.wait("inputs", run_id, timeout=600) == "success", states(sandbox, "inputs", run_id)
    xcoms = pushed(sandbox, "inputs", run_id)
    for mode in MODES:
        for index, task_id in enumerate(ids):
            assert xcoms[f"{mode}_mapped[{index}]", "return_value"] == outcome(task_id, 2)
        assert xcoms[f"{mode}_xcom", "return_value"] == outcome(ids[0], 2)
        assert xcoms[f"{mode}_pulled", "return_value"] == outcome(ids[0], 2)
    assert xcoms["use", "return_value"] == {"result": result, "work_path": {"type": "OBS", "path": "obs://b/w/"}}
    assert xcoms["read_all[2]", "return_value"]["task_id"] == ids[2]
    assert "result" not in xcoms["read_all[2]", "return_value"]


def test_no_outage_fails_a_wait_before_its_timeout(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    """Throttling, a 503, a cut answer, a web page, and a service that is down for some seconds."""
    task = emulator.state.add_task(duration=10_000)
    faults = emulator.faults
    run_id = sandbox.trigger("patience", conf={"id": task.task_id})
    outages = [
        lambda: faults.throttle(None, retry_after=1),
        lambda: faults.answer(503, "<html>bad gateway</html>", times=None),
        lambda: faults.cut_off(times=None),
        lambda: faults.malformed("html", times=None),
    ]
    for begin in outages:
        fault = begin()
        wait_until(lambda: fault.hits >= 2, f"two calls that meet {fault}")  # noqa: B023
        faults.remove(fault)
    emulator.stop()
    time.sleep(4)
    emulator.start()
    emulator.state.finish(task.task_id)
    ended = sandbox.wait("patience", run_id, timeout=600)
    assert ended == "success", states(sandbox, "patience", run_id)
    tries = {i.task_id: i.try_number for i in sandbox.task_instances("patience", run_id)}
    assert set(tries.values()) == {1}


def test_the_timeout_fails_the_task_without_a_retry_in_every_mode(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    task = emulator.state.add_task(duration=10_000)
    run_id = sandbox.trigger("timeouts", conf={"id": task.task_id})
    sandbox.wait("timeouts", run_id, timeout=600)
    ended = {(i.state, i.try_number) for i in sandbox.task_instances("timeouts", run_id)}
    assert ended == {("failed", 1)}
    for mode in MODES:
        log = sandbox.task_log("timeouts", run_id, f"{mode}_timeout")
        assert "AirflowSensorTimeout" in log, log


def test_airflow_writes_no_secret_to_logs_database_or_output(
    sandbox: Sandbox, emulator: EmulatorServer, run_of_waits: tuple[str, dict[str, str]]
) -> None:
    run_id, _ = run_of_waits
    assert len(pushed(sandbox, "waits", run_id)["samples", "return_value"]) > 0, "results with signed links were read"
    assert emulator.state.accounts._tokens, "a token was in use"
    assert files_with_secrets(sandbox, emulator) == []
