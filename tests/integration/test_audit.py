"""The nightly audit in a real Airflow, and an audit of many tasks against the emulator."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox
from tests.support.airflow_runs import AirflowUser
from tests.support.documents import EXAMPLES
from tests.support.task_instances import TaskInstance
from tests.support.waiting import TIMEOUT, wait_until

EXAMPLE = Path(__file__).parents[2] / "dags_examples" / "nightly_audit.py"
LIST = "ListProcessorTasks"
MANY = 10_000


@pytest.fixture
def own_emulator() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=0) as server:
        yield server


def add_yesterdays_tasks(emulator: EmulatorServer) -> None:
    # One second before midnight is always yesterday and within the last 24 hours.
    yesterday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(seconds=1)
    place = {"work_path": {"type": "OBS", "path": "s3://my-bucket/processed/1/"}}
    of_yesterday: dict[str, Any] = {"create_time": yesterday, "template": "sys_data_cleaning", "body": place}
    add = emulator.state.add_task
    add("from long ago", create_time=yesterday - timedelta(days=3))
    add("good", **of_yesterday)
    add("bad", **of_yesterday, status=3, error_msg="the bucket is full")


def test_the_example_reports_and_then_fails_without_a_retry(own_emulator: EmulatorServer, tmp_path: Path) -> None:
    add_yesterdays_tasks(own_emulator)
    connections = {"modelarts_default": own_emulator.airflow_connection()}
    with Sandbox(EXAMPLE.parent, only_file=EXAMPLE, connections=connections) as sandbox:
        sandbox.wait_for_dags("nightly_audit", timeout=TIMEOUT)
        # A manual run has no logical date in Airflow 3.
        run_id = "by_hand"
        conf = json.dumps({"folder": str(tmp_path)})
        sandbox.airflow("dags", "trigger", "nightly_audit", "--run-id", run_id, "--conf", conf)
        assert sandbox.wait("nightly_audit", run_id, timeout=TIMEOUT) == "failed"
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


def test_the_recipe_audits_each_task_once_despite_a_pause_and_an_outage(
    own_emulator: EmulatorServer, tmp_path: Path
) -> None:
    """The recipe of docs/audit.md on weekdays: after six of them come four of a pause, later one of an outage."""
    dags, reports = tmp_path / "dags", tmp_path / "reports"
    dags.mkdir()
    recipe = EXAMPLES["audit"].replace("/tmp/modelarts-audit", str(reports)).replace("@daily", "0 6 * * 1-5")
    (dags / "recipe.py").write_text(recipe.replace("airflow.sdk", "airflow.providers.common.compat.sdk"))
    first = datetime(2026, 1, 5, 6, tzinfo=UTC)
    weekdays = [day for day in (first + timedelta(days=number) for number in range(19)) if day.weekday() < 5]
    seeded = seed_failures(own_emulator, weekdays)
    with Sandbox(dags, connections={"modelarts_default": own_emulator.airflow_connection()}) as sandbox:
        sandbox.wait_for_dags("audit", timeout=TIMEOUT)

        def run(days: list[datetime]) -> set[str]:
            """Start the runs of these days at once, and return the states in which they end."""
            for day in days:
                sandbox.api.trigger("audit", f"run_{day:%d}", day, {})
            return {sandbox.wait("audit", f"run_{day:%d}", timeout=600) for day in days}

        assert run(weekdays[:6]) == {"success"}
        # Four days of a pause.
        assert run(weekdays[10:12]) == {"success"}
        outage = own_emulator.faults.answer(503, times=None)
        assert run(weekdays[12:13]) == {"failed"}
        own_emulator.faults.remove(outage)
        assert run(weekdays[13:]) == {"success"}
        assert audited(reports) == Counter(seeded)
        assert (reports / "20260105T055959.html").exists()

        third = f"run_{weekdays[2]:%d}"
        (window,) = [xcom.value["window"] for xcom in sandbox.xcoms("audit", third) if xcom.key == "return_value"]
        AirflowUser(sandbox).clear_task("audit", third, "audit")
        wait_until(lambda: sandbox.task_instances("audit", third)[0].try_number == 2, "the second try")
        assert sandbox.wait("audit", third, timeout=TIMEOUT) == "success"
        (again,) = [xcom.value["window"] for xcom in sandbox.xcoms("audit", third) if xcom.key == "return_value"]
        assert again == window
        assert audited(reports) == Counter(seeded)


def seed_failures(emulator: EmulatorServer, runs: list[datetime]) -> list[str]:
    """Add tasks of all times from the day before the first run to the last, some of them close to each run."""
    begin, end = runs[0] - timedelta(days=1), runs[-1]
    length = (end - begin).total_seconds()
    moments = [begin + timedelta(seconds=length * number / 800) for number in range(800)]
    near = (timedelta(milliseconds=offset) for offset in (-1, 0, 1))
    moments += [begin, *(run + offset for offset, run in product(near, runs) if run + offset < end)]
    return [emulator.state.add_task(status=3, create_time=moment).task_id for moment in moments]


def audited(reports: Path) -> Counter[str]:
    """Return how often each task is in the reports; all have failed."""
    found = [json.loads(file.read_text())["findings"]["failed"]["tasks"] for file in reports.glob("*.json")]
    return Counter(task["task_id"] for tasks in found for task in tasks)


def test_an_audit_of_ten_thousand_tasks_takes_a_hundred_requests(
    own_emulator: EmulatorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", own_emulator.airflow_connection())
    state = own_emulator.state
    place = {"work_path": {"type": "OBS", "path": "obs://b/out/"}}
    state.add_tasks(MANY - 100, template="sys_data_cleaning", body=place)
    state.add_tasks(100, template="sys_data_cleaning", status=3, error_msg="the bucket is full", body=place)
    now = datetime.now(UTC)
    operator = ModelArtsAuditProcessorTasksOperator(
        task_id="audit",
        window_start=now - timedelta(hours=1),
        window_end=now + timedelta(hours=1),
        report_path=str(tmp_path / "report.html"),
    )

    summary = operator.execute({"run_id": "manual", "ti": TaskInstance()})  # type: ignore[typeddict-item]
    assert summary["by_status"] == {"completed": MANY - 100, "failed": 100}
    assert state.log.count(LIST) <= 100
    assert (tmp_path / "report.html").stat().st_size < 1_000_000
    assert len(json.loads((tmp_path / "report.json").read_text())["findings"]["failed"]["tasks"]) == 100
