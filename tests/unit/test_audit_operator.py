"""The audit operator: which window it audits, what it asks for, and where the report goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath
from requests_mock import Mocker

from airflow_modelarts.audit import AuditRules
from airflow_modelarts.exceptions import ModelArtsAuditFailed
from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator
from airflow_modelarts.operators.files import clean_up_partials

try:
    from airflow.sdk.io import attach
except ImportError:
    from airflow.io.store import attach

LIST_URL = "https://modelarts.example.com/v2/0123456789abcdef0123456789abcdef/processor-tasks"
START = datetime(2026, 11, 23, tzinfo=UTC)
END = START + timedelta(days=1)
NOW = END + timedelta(days=5, hours=9)
INTERVAL = {"data_interval_start": START, "data_interval_end": END, "logical_date": START}


class TaskInstance:
    dag_id, run_id, task_id, map_index = "dag", "scheduled__2026", "audit", -1

    def __init__(self, try_number: int = 1) -> None:
        self.try_number = try_number
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


def run(context: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", **arguments)
    usual = {"ti": TaskInstance(), "run_id": "scheduled__2026", **INTERVAL}
    return operator.execute(usual if context is None else {"run_id": "manual", **context})  # type: ignore[arg-type]


def at(moment: datetime, **fields: Any) -> dict[str, Any]:
    return {"task_id": str(moment.timestamp()), "status": 2, "create_time": int(moment.timestamp() * 1000), **fields}


@pytest.fixture
def one_failure(requests_mock: Mocker) -> None:
    failed = {"task_id": "abc", "name": "<b>bold</b>", "status": 3, "error_msg": "the bucket is full"}
    requests_mock.get(LIST_URL, json={"count": 1, "tasks": [{**at(START), **failed}]})


@pytest.fixture
def store() -> Iterator[ObjectStoragePath]:
    """An object store."""
    from fsspec.implementations.memory import MemoryFileSystem

    attach("memory", fs=MemoryFileSystem())
    bucket = ObjectStoragePath("memory://audits")
    bucket.fs.makedirs(bucket.path, exist_ok=True)
    yield bucket
    bucket.fs.rm(bucket.path, recursive=True)


# The window


def window(context: dict[str, Any], requests_mock: Mocker, **arguments: Any) -> dict[str, str]:
    requests_mock.get(LIST_URL, json={"count": 0, "tasks": []})
    told: dict[str, str] = run(context, **arguments)["window"]
    return told


def test_it_audits_the_data_interval(requests_mock: Mocker) -> None:
    found = window(INTERVAL, requests_mock)
    assert found == {"start": "2026-11-23T00:00:00+00:00", "end": "2026-11-24T00:00:00+00:00"}


@pytest.mark.parametrize(
    "context",
    [
        {"data_interval_start": END, "data_interval_end": END, "logical_date": END},
        {"data_interval_start": NOW, "data_interval_end": NOW, "logical_date": END},
        {"data_interval_end": END},
        {"logical_date": END},
        {"logical_date": None, "dag_run": SimpleNamespace(run_after=END)},
    ],
    ids=["empty interval", "an earlier day again", "half an interval", "no interval", "no logical date"],
)
def test_without_an_interval_it_audits_the_day_before_and_says_so(
    requests_mock: Mocker, said: Callable[[], str], context: dict[str, Any]
) -> None:
    found = window(context, requests_mock)
    assert found == {"start": "2026-11-23T00:00:00+00:00", "end": "2026-11-24T00:00:00+00:00"}
    assert "No window_start and no data interval to go by: auditing the day before 2026-11-24" in said()


def test_a_run_that_says_nothing_is_about_the_24_hours_until_now(requests_mock: Mocker) -> None:
    before = datetime.now(UTC)
    found = window({"dag_run": SimpleNamespace(run_after=None)}, requests_mock)
    start, end = (datetime.fromisoformat(found[name]) for name in ("start", "end"))
    assert end - start == timedelta(days=1)
    assert before <= end <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-11-20T08:00:00+08:00", "2026-11-20T01:00:00"),
        (datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 20, 1)),
    ],
)
def test_a_window_that_is_given_goes_before_the_interval(requests_mock: Mocker, start: Any, end: Any) -> None:
    found = window(INTERVAL, requests_mock, window_start=start, window_end=end)
    assert found == {"start": "2026-11-20T00:00:00+00:00", "end": "2026-11-20T01:00:00+00:00"}


def test_a_start_alone_goes_to_the_end_of_the_interval(requests_mock: Mocker) -> None:
    found = window(INTERVAL, requests_mock, window_start="2026-11-23T23:00:00", window_end="")
    assert found == {"start": "2026-11-23T23:00:00+00:00", "end": "2026-11-24T00:00:00+00:00"}


def test_an_end_alone_goes_24_hours_back(requests_mock: Mocker) -> None:
    found = window(INTERVAL, requests_mock, window_end="2026-11-20")
    assert found == {"start": "2026-11-19T00:00:00+00:00", "end": "2026-11-20T00:00:00+00:00"}


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 30, 23), (10, 26, 25), (11, 24, 24)])
def test_a_day_is_as_long_as_the_dags_time_zone_has_it(requests_mock: Mocker, month: int, day: int, hours: int) -> None:
    zone = pendulum.timezone("Europe/Berlin")
    end = pendulum.datetime(2026, month, day, tz=zone)
    found = window({"logical_date": end.in_timezone("UTC"), "dag": SimpleNamespace(timezone=zone)}, requests_mock)
    assert datetime.fromisoformat(found["end"]) == end
    assert datetime.fromisoformat(found["start"]) == end - timedelta(hours=hours)


HALF_A_DAY = timedelta(hours=12)


@pytest.mark.parametrize("context", [INTERVAL, {"logical_date": END}], ids=["interval", "no interval"])
def test_a_lag_moves_the_window_back(requests_mock: Mocker, context: dict[str, Any]) -> None:
    found = window(context, requests_mock, lag=HALF_A_DAY)
    assert found == {"start": "2026-11-22T12:00:00+00:00", "end": "2026-11-23T12:00:00+00:00"}


def test_a_lag_leaves_alone_what_is_given(requests_mock: Mocker) -> None:
    found = window(INTERVAL, requests_mock, lag=HALF_A_DAY, window_start="2026-11-20", window_end="2026-11-21")
    assert found == {"start": "2026-11-20T00:00:00+00:00", "end": "2026-11-21T00:00:00+00:00"}
    found = window(INTERVAL, requests_mock, lag=HALF_A_DAY, window_end="2026-11-21")
    assert found == {"start": "2026-11-20T00:00:00+00:00", "end": "2026-11-21T00:00:00+00:00"}
    found = window(INTERVAL, requests_mock, lag=HALF_A_DAY, window_start="2026-11-20")
    assert found == {"start": "2026-11-20T00:00:00+00:00", "end": "2026-11-23T12:00:00+00:00"}


@pytest.mark.parametrize("nothing", [None, "", "None"])
def test_what_a_template_makes_of_nothing_is_no_moment(requests_mock: Mocker, nothing: str | None) -> None:
    found = window(INTERVAL, requests_mock, window_start=nothing, window_end=nothing)
    assert found == {"start": "2026-11-23T00:00:00+00:00", "end": "2026-11-24T00:00:00+00:00"}


def test_a_moment_that_is_none_is_refused_by_its_name(requests_mock: Mocker) -> None:
    with pytest.raises(ValueError, match="window_start is 'yesterday': give a datetime such as"):
        run(window_start="yesterday")
    assert not requests_mock.called


# The list


def test_it_asks_for_the_newest_first_without_results_and_with_the_filters(requests_mock: Mocker) -> None:
    requests_mock.get(LIST_URL, json={"count": 0, "tasks": []})
    run(template_id="sys_data_cleaning", source_type="DATASET", source="ds", workspace_id="7")
    (request,) = requests_mock.request_history
    assert {name: values[0] for name, values in request.qs.items()} == {
        "sort_by": "create_time",
        "order": "desc",
        "return_result": "false",
        "task_type": "sys_data_cleaning",
        "source_type": "dataset",
        "source": "ds",
        "workspace_id": "7",
        "limit": "100",
        "offset": "0",
    }


def test_it_reads_no_further_than_the_window(requests_mock: Mocker) -> None:
    newer = [at(END + timedelta(minutes=1))]
    within = [at(START + timedelta(seconds=number), task_id=str(number)) for number in reversed(range(98))]
    older = [at(START - timedelta(seconds=1))]
    requests_mock.get(LIST_URL, json={"count": 1000, "tasks": newer + within + older})
    assert run()["total"] == 98
    assert requests_mock.call_count == 1


def test_tasks_that_cannot_be_placed_are_counted_apart(requests_mock: Mocker, said: Callable[[], str]) -> None:
    requests_mock.get(LIST_URL, json={"count": 2, "tasks": [{"task_id": "undated", "status": 3}, at(START)]})
    told = run()
    assert (told["total"], told["undated"], told["by_status"]) == (1, 1, {"completed": 1})
    assert "1 listed tasks do not say when they were created" in said()


def test_by_default_nothing_is_written(requests_mock: Mocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    requests_mock.get(LIST_URL, json={"count": 0, "tasks": []})
    assert not {"report_path", "json_path"} & set(run())
    assert list(tmp_path.iterdir()) == []


# The report


@pytest.mark.usefixtures("one_failure")
def test_the_report_is_a_page_and_json_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "yet.html"
    told = run(report_path=str(path))
    assert (told["report_path"], told["json_path"]) == (str(path), str(path.with_suffix(".json")))
    html, described = path.read_text(), json.loads(path.with_suffix(".json").read_text())
    assert "the bucket is full" in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert described["findings"]["failed"]["tasks"][0]["detail"] == "the bucket is full"
    assert (described["project"], described["run"]) == ("0123456789abcdef0123456789abcdef", "scheduled__2026")
    assert sorted(file.name for file in path.parent.iterdir()) == ["yet.html", "yet.json"]


@pytest.mark.usefixtures("one_failure")
def test_the_path_can_be_a_url(tmp_path: Path) -> None:
    run(report_path=f"file://{tmp_path}/report.html")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json"]


@pytest.mark.usefixtures("one_failure")
def test_the_report_goes_to_an_object_store_with_its_connection(store: ObjectStoragePath) -> None:
    attach("memory", conn_id="the_store", fs=store.fs)
    told = run(report_path="memory://audits/2026.html", object_storage_conn_id="the_store")
    assert told["report_path"].endswith("audits/2026.html")
    assert sorted(name.rpartition("/")[2] for name in store.fs.ls(store.path, detail=False)) == [
        "2026.html",
        "2026.json",
    ]


@pytest.mark.parametrize("path", ["s3://bucket/audits/", "/tmp/audits", "/tmp/audit.HTML.txt"])
def test_a_path_that_is_no_page_is_refused_before_anything_is_read(requests_mock: Mocker, path: str) -> None:
    with pytest.raises(ValueError, match=r"name a file that ends in \.html"):
        run(report_path=path)
    assert not requests_mock.called


def test_a_page_that_cannot_be_made_leaves_the_report_before_it(
    requests_mock: Mocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests_mock.get(LIST_URL, json={"count": 0, "tasks": []})

    def fail(*_: Any) -> str:
        raise OSError("no page")

    monkeypatch.setattr("airflow_modelarts.audit.html.page", fail)
    with pytest.raises(OSError, match="no page"):
        run(report_path=str(tmp_path / "report.html"))
    assert list(tmp_path.iterdir()) == []


def test_a_retry_removes_what_a_killed_try_left(requests_mock: Mocker, tmp_path: Path) -> None:
    requests_mock.get(LIST_URL, json={"count": 0, "tasks": []})
    for name in ("report.html", "report.json"):
        Path(clean_up_partials(ObjectStoragePath(str(tmp_path / name)), TaskInstance())).write_text("half a pa")
    run({"ti": TaskInstance(try_number=2), **INTERVAL}, report_path=str(tmp_path / "report.html"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json"]


# The verdict


@pytest.mark.usefixtures("one_failure")
def test_a_broken_rule_fails_it_only_when_asked_to(said: Callable[[], str]) -> None:
    assert run()["broken_rules"] == {"failures_allowed": "1 task has failed"}
    assert "Rule failures_allowed is broken: 1 task has failed." in said()


@pytest.mark.usefixtures("one_failure")
def test_it_fails_after_the_report_was_written_and_the_summary_was_pushed(tmp_path: Path) -> None:
    task_instance, path = TaskInstance(), tmp_path / "report.html"
    with pytest.raises(ModelArtsAuditFailed, match="1 audit rule is broken by tasks created from 2026-11-23 00:00 to"):
        run({"ti": task_instance, **INTERVAL}, report_path=str(path), fail_on_broken_rules=True)
    assert path.exists()
    assert task_instance.xcoms["return_value"]["broken_rules"] == {"failures_allowed": "1 task has failed"}


def test_the_failure_names_each_broken_rule_and_who_broke_it(requests_mock: Mocker) -> None:
    tasks = [at(START, task_id=f"f{number}", status=3, duration_seconds=90) for number in range(5)]
    requests_mock.get(LIST_URL, json={"count": 5, "tasks": tasks})
    rules = AuditRules(longest_seconds=60)
    with pytest.raises(ModelArtsAuditFailed) as failure:
        run(rules=rules, fail_on_broken_rules=True, do_xcom_push=False)
    told = str(failure.value)
    assert told.startswith("2 audit rules are broken by tasks created from ")
    assert "failures_allowed: 5 tasks have failed (f0, f1, f2 and 2 more)" in told
    assert "longest_seconds: 5 tasks lasted longer than 1 min (f0, f1, f2 and 2 more)" in told


def test_airflow_does_not_retry_a_verdict() -> None:
    assert issubclass(ModelArtsAuditFailed, AirflowFailException)


@pytest.mark.usefixtures("one_failure")
def test_rules_that_hold_fail_nothing() -> None:
    assert run(rules={"failures_allowed": "1"}, fail_on_broken_rules=True)["broken_rules"] == {}


def test_rules_can_be_templated() -> None:
    operator = ModelArtsAuditProcessorTasksOperator(
        task_id="audit",
        rules={"longest_seconds": "{{ params.seconds }}", "allowed_output_prefixes": ["obs://{{ params.bucket }}"]},
    )
    operator.render_template_fields({"params": {"seconds": 60, "bucket": "b"}})  # type: ignore[typeddict-item]
    assert operator.rules == {"longest_seconds": "60", "allowed_output_prefixes": ["obs://b"]}


def test_rules_of_the_dataclass_pass_through_rendering() -> None:
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", rules=AuditRules(longest_seconds=60))
    operator.render_template_fields({})
    assert operator.rules == AuditRules(longest_seconds=60)


def test_the_fields_that_users_compute_are_templated() -> None:
    names = {"window_start", "window_end", "rules", "template_id", "source_type", "source", "workspace_id"}
    connections = {"report_path", "object_storage_conn_id", "modelarts_conn_id", "project_id"}
    assert set(ModelArtsAuditProcessorTasksOperator.template_fields) == names | connections
