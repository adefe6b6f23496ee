"""Consumers of outlets and of events that identify an end, and a watcher that is misspelt."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox
from tests.support.documents import EXAMPLES
from tests.support.waiting import TIMEOUT, wait_until

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="needs the asset state store of Airflow 3.3")


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sandbox, EmulatorServer]]:
    """An Airflow of its own: runs that assets start need the scheduler's schedules."""
    dags = tmp_path_factory.mktemp("dags")
    shutil.copytree(Path(__file__).parent / "outlet_dags", dags, dirs_exist_ok=True)
    (dags / "react.py").write_text(EXAMPLES["react"].replace("statuses=[", "poll_interval=1, statuses=["))
    with EmulatorServer(task_duration=10_000) as emulator:
        connections = {"modelarts_default": emulator.airflow_connection()}
        environment = {
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",
            # Seconds until Airflow finds a new DAG file.
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
        }
        with Sandbox(dags, connections=connections, environment=environment) as sandbox:
            sandbox.wait_for_dags("produce", "on_images", "read_results", timeout=TIMEOUT)
            wait_until(lambda: emulator.state.log.count("ListProcessorTasks"), "the first poll")
            yield sandbox, emulator


def test_consumers_run_when_there_is_data_and_can_tell_the_end_from_others(
    watching: tuple[Sandbox, EmulatorServer],
) -> None:
    sandbox, emulator = watching
    run_id = sandbox.trigger("produce")

    def is_waiting() -> bool:
        states = {instance.task_id: instance.state for instance in sandbox.task_instances("produce", run_id)}
        return (states.get("look"), states.get("wait")) == ("success", "deferred")

    wait_until(is_waiting, "the deferred sensor")
    (created,) = [task for task in emulator.state.all_tasks() if task.name.startswith("images-")]
    assert [event for event in sandbox.api.asset_events() if event.source_task_id] == []
    emulator.state.finish(created.task_id)
    assert sandbox.wait("produce", run_id, timeout=TIMEOUT) == "success"
    assert [event.source_task_id for event in sandbox.api.asset_events() if event.source_task_id] == ["wait"]

    wait_until(lambda: sandbox.api.runs("on_images"), "the run that the outlet's event starts")
    (consumer,) = sandbox.api.runs("on_images")
    assert sandbox.wait("on_images", consumer, timeout=TIMEOUT) == "success"
    ((extra,),) = [xcom.value for xcom in sandbox.xcoms("on_images", consumer) if xcom.key == "return_value"]
    assert (extra["task_id"], extra["status"], extra["uri"]) == (created.task_id, 2, "obs://outlets/images")

    def payloads() -> list[dict[str, Any]]:
        found = [event.extra["payload"] for event in sandbox.api.asset_events() if event.name == "completed_analyses"]
        return [payload for payload in found if payload["task_id"] == created.task_id]

    wait_until(payloads, "the event of the watcher")
    (payload,) = payloads()
    of_the_outlet = {name: value for name, value in extra.items() if name != "observed_at"}
    assert {name: payload[name] for name in of_the_outlet} == of_the_outlet


def test_the_recipe_reads_the_result_of_an_end(watching: tuple[Sandbox, EmulatorServer]) -> None:
    sandbox, emulator = watching
    analysis = emulator.state.add_task("recipe")
    emulator.state.finish(analysis.task_id)

    def run_of_it() -> str | None:
        for run_id in sandbox.api.runs("read_results"):
            for xcom in sandbox.xcoms("read_results", run_id):
                if xcom.task_id == "ends" and xcom.key == "return_value":
                    ends = [end["processor_task_id"] for end in xcom.value]
                    if analysis.task_id in ends:
                        return run_id
        return None

    wait_until(run_of_it, "the run of the recipe")
    run_id = run_of_it() or ""
    assert sandbox.wait("read_results", run_id, timeout=TIMEOUT) == "success"
    values = {xcom.task_id: xcom.value for xcom in sandbox.xcoms("read_results", run_id) if xcom.key == "return_value"}
    assert values["use"] == len(values["ends"])


def test_airflow_shows_the_misspelt_argument_of_a_watcher(watching: tuple[Sandbox, EmulatorServer]) -> None:
    sandbox, _ = watching
    file = sandbox.dags_folder / "misspelt.py"
    code = EXAMPLES["react"].replace("template_ids=", "template_id=")
    file.write_text(code.replace("completed_analyses", "misspelt").replace("read_results", "misspelt"))
    wait_until(sandbox.api.import_errors, "the import error")
    (error,) = sandbox.api.import_errors().values()
    assert "ProcessorTaskEventTrigger has no argument 'template_id': write template_ids=" in error
