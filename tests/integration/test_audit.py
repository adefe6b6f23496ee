"""The nightly audit in a real Airflow, and an audit of many tasks against the emulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from airflow_modelarts.testing.sandbox import Sandbox

EXAMPLE = Path(__file__).parents[2] / "dags_examples" / "nightly_audit.py"
LIST = "ListProcessorTasks"
MANY = 10_000


@pytest.fixture
def own_emulator() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=0) as server:
        yield server


def move_back(task: Task, moment: datetime) -> None:
    """Move the creation and the end of a task to a moment in the past."""
    back = task.created_at - moment.timestamp()
    task.created_at -= back
    for run in [task.first_run, *(version.run for version in task.versions)]:
        run.created_at -= back
        run.running_at -= back
        run.ends_at -= back


def add_yesterdays_tasks(emulator: EmulatorServer) -> None:
    # One second before midnight is always yesterday and within the last 24 hours.
    yesterday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(seconds=1)
    place = {"work_path": {"type": "OBS", "path": "s3://my-bucket/processed/1/"}}
    add = emulator.state.add_task
    move_back(add("from long ago", duration=0), yesterday - timedelta(days=3))
    move_back(add("good", template="sys_data_cleaning", duration=0, body=place), yesterday)
    failed = add("bad", template="sys_data_cleaning", duration=0, body=place)
    move_back(failed, yesterday)
    failed.run.end_status, failed.run.error_msg = 3, "the bucket is full"


def test_the_example_reports_and_then_fails_without_a_retry(own_emulator: EmulatorServer, tmp_path: Path) -> None:
    add_yesterdays_tasks(own_emulator)
    connections = {"modelarts_default": own_emulator.airflow_connection()}
    with Sandbox(EXAMPLE.parent, only_file=EXAMPLE, connections=connections) as sandbox:
        sandbox.wait_for_dags("nightly_audit", timeout=180)
        # A manual run has no logical date in Airflow 3.
        run_id = "by_hand"
        conf = json.dumps({"folder": str(tmp_path)})
        sandbox.airflow("dags", "trigger", "nightly_audit", "--run-id", run_id, "--conf", conf)
        assert sandbox.wait("nightly_audit", run_id, timeout=240) == "failed"
        (instance,) = sandbox.task_instances("nightly_audit", run_id)
        (xcom,) = [found for found in sandbox.xcoms("nightly_audit", run_id) if found.key == "return_value"]
        log = sandbox.task_log("nightly_audit", run_id, "audit")
    assert instance.try_number == 1
    assert "ModelArtsAuditFailed: 1 audit rule is broken by tasks created from" in log
    assert xcom.value["by_status"] == {"completed": 1, "failed": 1}
    assert xcom.value["failures"][0]["error_msg"] == "the bucket is full"
    page, described = Path(xcom.value["report_path"]), Path(xcom.value["json_path"])
    assert sorted(tmp_path.iterdir()) == [page, described]
    assert "the bucket is full" in page.read_text()
    assert json.loads(described.read_text())["total"] == 2


def test_an_audit_of_ten_thousand_tasks_takes_a_hundred_requests(
    own_emulator: EmulatorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", own_emulator.airflow_connection())
    state = own_emulator.state
    place = {"work_path": {"type": "OBS", "path": "obs://b/out/"}}
    state.add_tasks(MANY - 100, template="sys_data_cleaning", body=place)
    state.add_tasks(100, template="sys_data_cleaning", status=3, error_msg="the bucket is full", body=place)
    now = datetime.now(UTC)
    instance = SimpleNamespace(dag_id="dag", run_id="manual", task_id="audit", map_index=-1, try_number=1)
    operator = ModelArtsAuditProcessorTasksOperator(
        task_id="audit",
        window_start=now - timedelta(hours=1),
        window_end=now + timedelta(hours=1),
        report_path=str(tmp_path / "report.html"),
    )

    summary = operator.execute({"run_id": "manual", "ti": instance})  # type: ignore[typeddict-item]
    assert summary["by_status"] == {"completed": MANY - 100, "failed": 100}
    assert state.log.count(LIST) <= 100
    assert (tmp_path / "report.html").stat().st_size < 1_000_000
    assert len(json.loads((tmp_path / "report.json").read_text())["findings"]["failed"]["tasks"]) == 100
