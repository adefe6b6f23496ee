"""What works on every supported Airflow, and what an older Airflow does instead. The gate runs it on each version."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS, AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.sandbox import Sandbox, TaskInstance
from tests.support.airflow_runs import COMPLETED, RUNNING, STOPPED, AirflowUser, CreateRun, pushed, states
from tests.support.waiting import TIMEOUT, wait_until

DAGS = Path(__file__).parent / "dags"
EXAMPLE = Path(__file__).parents[3] / "dags_examples" / "feature_analysis.py"
MODES = ("poke", "reschedule", "deferrable", "triggerer")
#: Waits with a retry, for what a retry cannot mend.
UNMENDED = [
    f"{mode}_{way}"
    for way in ("fail_fast", *(["retry_policy"] if AIRFLOW_V_3_3_PLUS else []))
    for mode in ("poke", "deferrable")
]


@pytest.fixture(scope="module")
def sandbox(emulator: EmulatorServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """An Airflow with the DAGs of these tests and an example."""
    folder = tmp_path_factory.mktemp("dags")
    for file in (*DAGS.glob("*.py"), EXAMPLE):
        shutil.copy(file, folder)
    connection = json.loads(emulator.airflow_connection())
    connection["extra"]["console_url"] = "https://console.example.com/{processor_task_id}"
    connections = {"modelarts_default": json.dumps(connection)}
    environment = {
        # Airflow starts runs for asset events only with the scheduler's schedules.
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",
        # Seconds without a heartbeat after which another triggerer takes over the triggers.
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    }
    with Sandbox(folder, connections=connections, environment=environment) as running:
        running.wait_for_dags("waits", "create_worker", "create_deferred", timeout=TIMEOUT)
        yield running


@pytest.fixture(scope="module")
def user(sandbox: Sandbox) -> AirflowUser:
    return AirflowUser(sandbox)


def start_run(sandbox: Sandbox, emulator: EmulatorServer, way: str) -> CreateRun:
    """Start a run, and wait until a worker or the triggerer polls its processing task."""
    run = CreateRun(sandbox, emulator, f"create_{way}")
    run.wait_for_running_task()
    run.wait_until(lambda: run.instance.state == ("deferred" if way == "deferred" else "running"))
    operations = ("DescribeProcessorTaskVersion", "DescribeProcessorTask")

    def polls() -> int:
        return sum(map(emulator.state.log.count, operations))

    count = polls()
    run.wait_until(lambda: polls() > count + 2)
    return run


# The sensor


@pytest.fixture(scope="module")
def run_of_waits(sandbox: Sandbox, emulator: EmulatorServer) -> tuple[str, dict[str, str]]:
    """One run of the DAG ``waits``, finished before the tests read it."""
    running = {mode: emulator.state.add_task(duration=10_000).task_id for mode in MODES}
    ids = {**running, "failed": emulator.state.add_task(status=3, error_msg="the bucket is full").task_id}
    ids["deleted"] = emulator.state.add_task(duration=10_000).task_id
    run_id = sandbox.trigger("waits", conf=ids)

    def end_what_is_waited_for(instances: list[TaskInstance]) -> None:
        if {one.state for one in instances if one.task_id in UNMENDED and "deferrable" in one.task_id} == {"deferred"}:
            emulator.state.projects[accounts.PROJECT_ID].tasks.pop(ids["deleted"], None)
        for mode, processor_task_id in list(running.items()):
            if f"'{processor_task_id}' is " in sandbox.task_log("waits", run_id, f"{mode}_good"):
                emulator.state.finish(processor_task_id)
                del running[mode]

    sandbox.wait("waits", run_id, timeout=600, watch=end_what_is_waited_for)
    return run_id, ids


@pytest.mark.parametrize("mode", MODES)
def test_a_wait_succeeds_or_fails_as_its_processing_task_does(
    sandbox: Sandbox, run_of_waits: tuple[str, dict[str, str]], mode: str
) -> None:
    run_id, ids = run_of_waits
    logs = {name: sandbox.task_log("waits", run_id, f"{mode}_{name}") for name in ("good", "bad")}
    found = states(sandbox, "waits", run_id)
    assert (found[f"{mode}_good"], found[f"{mode}_bad"]) == ("success", "failed"), logs
    outcome = {"task_id": ids[mode], "status": 2, "status_name": "completed"}
    assert pushed(sandbox, "waits", run_id)[f"{mode}_good", "return_value"] == outcome
    assert f"Processing task '{ids['failed']}' failed: the bucket is full" in logs["bad"]


@pytest.mark.parametrize("mode", MODES)
def test_a_wait_has_a_link_to_the_console(
    sandbox: Sandbox, run_of_waits: tuple[str, dict[str, str]], mode: str
) -> None:
    run_id, ids = run_of_waits
    links = sandbox.api.extra_links("waits", run_id, f"{mode}_good")
    assert links["ModelArts console"] == f"https://console.example.com/{ids[mode]}"


def test_the_worker_repeats_how_a_deferred_wait_ended(
    sandbox: Sandbox, run_of_waits: tuple[str, dict[str, str]]
) -> None:
    run_id, ids = run_of_waits
    log = sandbox.task_log("waits", run_id, "deferrable_good")
    assert log.count(f"Processing task '{ids['deferrable']}' is completed; it was waited for in the triggerer") == 1, (
        log
    )


@pytest.mark.parametrize("task_id", UNMENDED)
def test_what_a_retry_cannot_mend_is_not_retried(
    sandbox: Sandbox, run_of_waits: tuple[str, dict[str, str]], task_id: str
) -> None:
    run_id, _ = run_of_waits
    (instance,) = [one for one in sandbox.task_instances("waits", run_id) if one.task_id == task_id]
    log = sandbox.task_log("waits", run_id, task_id)
    assert (instance.state, instance.try_number) == ("failed", 1), log
    assert ("the bucket is full" if "poke" in task_id else "no task with this id") in log


def test_a_wait_uses_a_worker_before_airflow_3_3(sandbox: Sandbox, run_of_waits: tuple[str, dict[str, str]]) -> None:
    run_id, _ = run_of_waits
    log = sandbox.task_log("waits", run_id, "triggerer_good")
    for what in ("end_from_trigger", "start_from_trigger"):
        message = f"This wait uses a worker: {what} is not possible, since it needs Airflow 3.3."
        assert (message in log) == (not AIRFLOW_V_3_3_PLUS), log


# Creating


@pytest.mark.parametrize("way", ["worker", "deferred"])
def test_a_run_creates_a_task_waits_and_pushes_a_result(sandbox: Sandbox, emulator: EmulatorServer, way: str) -> None:
    run_id = sandbox.trigger(f"create_{way}")
    ended = sandbox.wait(f"create_{way}", run_id, timeout=TIMEOUT)
    log = sandbox.task_log(f"create_{way}", run_id, "run")
    assert ended == "success", log
    values = pushed(sandbox, f"create_{way}", run_id)
    created = values["run", "return_value"]
    assert (created["task_id"], created["status_name"]) == (values["run", "processor_task_id"], "completed")
    assert emulator.state.status(created["task_id"]) == COMPLETED
    assert values["run", "version"]["status_name"] == "completed"
    assert values["use", "return_value"] == {"type": "OBS", "path": "/versions/out/"}
    # Before Airflow 3.3 a retry cannot find the task of the try before. The log says so.
    assert ("Crash recovery needs Airflow 3.3" in log) == (not AIRFLOW_V_3_3_PLUS), log


def test_a_fan_out_larger_than_the_limit_survives_its_triggerer(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    """The triggerer dies after a request whose answer it never gets. One task runs, and the others are queued."""
    sandbox.wait_for_dags("fan_out", timeout=180)
    emulator.state.settings.template_limits["sys_data_validation"] = 2
    hold = emulator.state.faults.hold("after", operation="CreateProcessorTask", skip=1)
    run_id = sandbox.trigger("fan_out")
    wait_until(lambda: hold.wait(timeout=0), "the second request")

    def deferred() -> int:
        return list(states(sandbox, "fan_out", run_id).values()).count("deferred")

    wait_until(lambda: deferred() > 2, "a task that is queued")
    sandbox.component("triggerer").kill()
    hold.drop()
    sandbox.restart("triggerer")
    ended = sandbox.wait("fan_out", run_id, timeout=TIMEOUT)
    found = states(sandbox, "fan_out", run_id)
    assert ended == "success", found
    created = [task.name for task in emulator.state.all_tasks() if task.name.startswith("fan-out-")]
    assert len(created) == len(found) - 1  # one task of the run returns the names
    assert len({name.rpartition("-")[0] for name in created}) == len(created)


def is_stopped_when_killed(way: str) -> bool:
    """Whether Airflow tells the operator of a kill: workers always, triggers since Airflow 3.3."""
    return way == "worker" or AIRFLOW_V_3_3_PLUS


@pytest.mark.parametrize("way", ["worker", "deferred"])
def test_marking_a_task_failed_stops_its_version_where_airflow_tells_the_operator(
    sandbox: Sandbox, emulator: EmulatorServer, user: AirflowUser, way: str
) -> None:
    run = start_run(sandbox, emulator, way)
    user.mark_task_failed(run.dag_id, run.run_id)
    assert run.wait_for_end() == "failed", run.log()
    if is_stopped_when_killed(way):
        run.wait_until_stopped(run.tasks[0])
    else:
        another = sandbox.trigger(run.dag_id)  # when it has ended, the triggerer has dropped the first one
        assert sandbox.wait(run.dag_id, another, timeout=TIMEOUT) == "success"
        assert run.status(run.tasks[0]) == RUNNING


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            "worker",
            marks=pytest.mark.skipif(
                not AIRFLOW_V_3_0_PLUS, reason="the API of Airflow 2.11 does not clear what a worker runs"
            ),
        ),
        "deferred",
    ],
)
def test_clearing_a_task_runs_another_and_stops_the_first_where_airflow_tells_the_operator(
    sandbox: Sandbox, emulator: EmulatorServer, user: AirflowUser, way: str
) -> None:
    run = start_run(sandbox, emulator, way)
    user.clear_task(run.dag_id, run.run_id)
    if is_stopped_when_killed(way):
        run.wait_until_stopped(run.tasks[0])
    if way == "worker" and not AIRFLOW_V_3_1_PLUS:
        return  # Airflow 3.0 leaves the task in state "restarting"
    run.wait_until(lambda: len(run.tasks) > 1)
    assert run.wait_for_end() == "success", run.log()
    first, second = run.tasks
    assert run.status(first) == (STOPPED if is_stopped_when_killed(way) else RUNNING)
    assert run.status(second) == COMPLETED
    assert pushed(sandbox, run.dag_id, run.run_id)["run", "return_value"]["task_id"] == second.task_id


# An example


def test_the_example_succeeds(sandbox: Sandbox) -> None:
    sandbox.wait_for_dags(EXAMPLE.stem, timeout=TIMEOUT)
    run_id = sandbox.trigger(EXAMPLE.stem)
    ended = sandbox.wait(EXAMPLE.stem, run_id, timeout=TIMEOUT)
    assert ended == "success", states(sandbox, EXAMPLE.stem, run_id)


# Starting a DAG


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="asset watchers came with Airflow 3")
def test_the_end_of_a_processing_task_starts_a_dag(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    sandbox.wait_for_dags("on_end", timeout=TIMEOUT)
    task = emulator.state.add_task("watched-one", duration=10_000)

    def polls() -> int:
        return emulator.state.log.count("ListProcessorTasks")

    count = polls()
    wait_until(lambda: polls() > count + 3, "a poll of the watcher")
    emulator.state.finish(task.task_id)

    def received() -> list[Any]:
        runs = sandbox.api.runs("on_end")
        return [value for run_id in runs for value in pushed(sandbox, "on_end", run_id).values()]

    wait_until(lambda: [task.name] in received(), "a run of on_end")


# The last test: SQLite gives the id of a deleted trigger to the next one. Until Airflow 3.0's triggerer has ended the
# deleted trigger, its event is taken for one of the next.


def test_a_timeout_while_deferred_stops_the_version_since_airflow_3(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    sandbox.wait_for_dags("timed_out", timeout=TIMEOUT)
    run = CreateRun(sandbox, emulator, "timed_out")
    task = run.wait_for_running_task()
    assert run.wait_for_end() == "failed", run.log()
    # Airflow 2 fails the task without telling the operator.
    assert run.status(task) == (STOPPED if AIRFLOW_V_3_0_PLUS else RUNNING), run.log()
