"""The audit operator: its window, its requests, and the report that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath
from requests_mock import Mocker

from airflow_modelarts.api.errors import ModelArtsTransientError
from airflow_modelarts.audit import AuditRules
from airflow_modelarts.exceptions import ModelArtsAuditFailed, ModelArtsReportNotWritten
from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator
from airflow_modelarts.operators.files import clean_up_partials
from tests.support.fixtures import PROJECT_ID
from tests.support.fixtures import TASKS as LIST_URL
from tests.support.task_instances import TaskInstance

try:
    from airflow.sdk.io import attach
except ImportError:
    from airflow.io.store import attach

START = datetime(2026, 11, 23, tzinfo=UTC)
END = START + timedelta(days=1)
NOW = END + timedelta(days=5, hours=9)
INTERVAL = {"data_interval_start": START, "data_interval_end": END, "logical_date": START}


def run(context: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", **arguments)
    usual = {"ti": TaskInstance(), "run_id": "scheduled__2026"}
    return operator.execute({**usual, **(INTERVAL if context is None else context)})  # type: ignore[arg-type]


def at(moment: datetime, **fields: Any) -> dict[str, Any]:
    return {"task_id": str(moment.timestamp()), "status": 2, "create_time": int(moment.timestamp() * 1000), **fields}


def qs(requests_mock: Mocker) -> dict[str, list[str]]:
    """Return the query of the last request."""
    found: dict[str, list[str]] = requests_mock.request_history[-1].qs
    return found


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


# The window, see also test_audit_window.py

NEXT_RUN = {"run_id": "next", "logical_date": END + timedelta(hours=12), "ti": TaskInstance()}


def test_an_audit_that_found_a_broken_rule_has_ended(one_failure: None) -> None:
    with pytest.raises(ModelArtsAuditFailed):
        run(fail_on_broken_rules=True)
    assert run(NEXT_RUN)["window"] == {"start": "2026-11-24T00:00:00+00:00", "end": "2026-11-24T12:00:00+00:00"}


@pytest.mark.usefixtures("pauses")
def test_an_audit_that_raised_an_error_has_not_ended(requests_mock: Mocker, tmp_path: Path) -> None:
    requests_mock.get(LIST_URL, status_code=503)
    with pytest.raises(ModelArtsTransientError):
        run()
    requests_mock.get(LIST_URL, json={"count": 0, "tasks": []})
    (tmp_path / "file").touch()
    with pytest.raises(ModelArtsReportNotWritten):
        run(report_path=str(tmp_path / "file" / "report.html"))
    assert run({**NEXT_RUN, "logical_date": END})["window"]["start"] == "2026-11-23T00:00:00+00:00"


def test_with_nothing_left_it_sends_no_request_and_the_report_says_why(
    requests_mock: Mocker, tmp_path: Path, printed_log: Callable[[], str]
) -> None:
    requests_mock.get(LIST_URL, json={"count": 1, "tasks": [at(START)]})
    assert run()["total"] == 1
    again = {**NEXT_RUN, "logical_date": END}
    summary = run(again, report_path=str(tmp_path / "report.html"), fail_on_broken_rules=True)
    assert requests_mock.call_count == 1
    assert (summary["total"], summary["broken_rules"]) == (0, {})
    (why,) = summary["notes"]
    assert why.startswith("Earlier audits of this Airflow task have covered everything until 2026-11-24 00:00")
    assert why in printed_log()
    assert why in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["notes"] == [why]


# The list


@pytest.mark.parametrize("statuses", [["failed", "Stopped"], (3, 4), "['failed', 'stopped']", {3, "stopped"}])
def test_it_audits_the_tasks_of_some_statuses_by_name_or_number(requests_mock: Mocker, statuses: Any) -> None:
    tasks = [at(START + timedelta(seconds=status)) | {"status": status} for status in range(5)]
    requests_mock.get(LIST_URL, json={"count": 5, "tasks": tasks})
    summary = run(statuses=statuses)
    assert (summary["total"], summary["by_status"]) == (2, {"failed": 1, "stopped": 1})
    assert summary["filters"]["statuses"] == "failed, stopped"
    assert "status" not in qs(requests_mock)


def test_the_service_filters_by_one_status(requests_mock: Mocker) -> None:
    requests_mock.get(LIST_URL, json={"count": 0, "tasks": []})
    run(statuses="failed")
    assert qs(requests_mock)["status"] == ["3"]


def test_without_statuses_the_filters_are_those_of_earlier_reports(requests_mock: Mocker) -> None:
    requests_mock.get(LIST_URL, json={"count": 0, "tasks": []})
    assert "statuses" not in run()["filters"]


def test_it_lists_newest_first_without_results_and_with_the_filters(requests_mock: Mocker) -> None:
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


def answer_with_pages(requests_mock: Mocker, tasks: list[dict[str, Any]]) -> None:
    for page in range(len(tasks) // 100 + 1):
        listed = tasks[100 * page : 100 * page + 100]
        requests_mock.get(f"{LIST_URL}?offset={page}", json={"count": len(tasks), "tasks": listed})


def test_it_stops_reading_after_a_page_of_older_tasks(requests_mock: Mocker) -> None:
    newer = [at(END + timedelta(minutes=1))]
    within = [at(START + timedelta(seconds=number)) for number in reversed(range(98))]
    older = [at(START - timedelta(seconds=number)) for number in range(1, 1000)]
    answer_with_pages(requests_mock, newer + within + older)
    summary = run()
    assert (summary["total"], summary["order_held"]) == (98, True)
    assert requests_mock.call_count == 2


def test_it_reads_the_whole_list_without_an_order(requests_mock: Mocker, printed_log: Callable[[], str]) -> None:
    within = [at(START + timedelta(seconds=number), status=3) for number in reversed(range(300))]
    older = [at(START - timedelta(seconds=number)) for number in range(1, 700)]
    answer_with_pages(requests_mock, [*within[:50], older[0], *within[50:100], *older[1:], *within[100:]])
    summary = run()
    assert (summary["total"], summary["order_held"]) == (300, False)
    assert "The service did not list the tasks newest first" in printed_log()
    assert "The service did not list the tasks newest first" in summary["notes"][-1]


@pytest.mark.parametrize("order", ["straggler", "oldest first"])
def test_the_page_says_that_the_order_did_not_hold(requests_mock: Mocker, tmp_path: Path, order: str) -> None:
    tasks = [at(START), at(START - timedelta(hours=1)), at(START + timedelta(hours=1))]
    tasks = tasks if order == "straggler" else sorted(tasks, key=lambda task: task["create_time"])
    answer_with_pages(requests_mock, tasks)
    assert run(report_path=str(tmp_path / "report.html"))["total"] == 2
    assert "The service did not list the tasks newest first" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["order_held"] is False


def test_tasks_without_create_time_are_counted_apart(requests_mock: Mocker, printed_log: Callable[[], str]) -> None:
    requests_mock.get(LIST_URL, json={"count": 2, "tasks": [{"task_id": "undated", "status": 3}, at(START)]})
    summary = run()
    assert (summary["total"], summary["undated"], summary["by_status"]) == (1, 1, {"completed": 1})
    assert "Listed tasks without create_time, which are excluded: 1." in printed_log()


def test_an_odd_task_does_not_end_the_audit(
    requests_mock: Mocker, printed_log: Callable[[], str], tmp_path: Path
) -> None:
    odd = [
        at(START, task_id="a", duration_seconds=12.5),
        at(START, task_id="b", status=3, create_time="2026-11-23T08:00:00Z", template="cleaning", inputs={}),
        {**at(START), "task_id": None, "status": 3},
        at(START, task_id="d", create_time="yesterday", status=3),
        "e",
        at(START, task_id="f", error_msg="half \ud83d", status=3),
    ]
    requests_mock.get(LIST_URL, json={"count": 6, "tasks": odd})
    summary = run(report_path=str(tmp_path / "a.html"))
    assert (summary["total"], summary["by_status"]) == (3, {"failed": 2, "completed": 1})
    assert (summary["undated"], summary["findings"]["failed"]["task_ids"]) == (1, ["b", "f"])
    unreadable = {
        "items": 2,
        "first_items": ["page 1, item 3: no readable task_id", "page 1, item 5: no object"],
        "tasks": 2,
        "fields": {"template": 1, "inputs": 1, "create_time": 1},
        "first_tasks": {"b": ["template", "inputs"], "d": ["create_time"]},
    }
    assert summary["unreadable"] == unreadable
    assert json.loads((tmp_path / "a.json").read_text())["unreadable"] == unreadable
    items = "2 listed items cannot be read and are excluded (page 1, item 3: no readable task_id; page 1, item 5: no"
    fields = "Fields that cannot be read count as missing: template of 1 task, inputs of 1 task, create_time of 1 task"
    for text in (printed_log(), (tmp_path / "a.html").read_text()):
        assert items in text
        assert f"{fields} (b: template and inputs; d: create_time)." in text


@pytest.mark.parametrize("moment", [0, -1, 1, int(START.timestamp()), int(START.timestamp() * 1_000_000), 2**62])
def test_a_task_whose_time_is_no_time_of_this_century_is_not_skipped_in_silence(
    requests_mock: Mocker, moment: int
) -> None:
    odd = at(START, task_id="odd", create_time=moment, name=[])
    requests_mock.get(LIST_URL, json={"count": 2, "tasks": [odd, at(START, status=3)]})
    summary = run()
    assert (summary["total"], summary["undated"]) == (1, 1)
    assert summary["unreadable"]["first_tasks"] == {"odd": ["name", "create_time"]}


def test_the_first_unreadable_items_and_tasks_are_named(requests_mock: Mocker, printed_log: Callable[[], str]) -> None:
    odd = [at(START, task_id=f"t{number}", name=[]) for number in range(30)]
    requests_mock.get(LIST_URL, json={"count": 50, "tasks": [*odd, *([None] * 20)]})
    unreadable = run()["unreadable"]
    assert (unreadable["items"], len(unreadable["first_items"])) == (20, 10)
    assert (unreadable["tasks"], len(unreadable["first_tasks"])) == (30, 10)
    log = printed_log()
    assert "page 1, item 40: no object and 10 more)" in log
    assert "t9: name and 20 more)" in log


def test_tasks_that_are_deleted_while_the_list_is_read_are_noted(
    requests_mock: Mocker, printed_log: Callable[[], str], tmp_path: Path
) -> None:
    tasks = [at(START + timedelta(seconds=1000 - number), task_id=f"t{number}") for number in range(250)]
    answers = [
        {"count": 250, "tasks": tasks[:100]},
        {"count": 247, "tasks": tasks[103:203]},
        {"count": 249, "tasks": tasks[203:250]},
    ]
    requests_mock.get(LIST_URL, [{"json": answer} for answer in answers])
    summary = run(report_path=str(tmp_path / "a.html"))
    assert (summary["total"], summary["deleted_while_listing"]) == (247, 3)
    assert json.loads((tmp_path / "a.json").read_text())["deleted_while_listing"] == 3
    sentence = "At least 3 tasks were deleted while the list was read: as many others can be missing here."
    assert sentence in printed_log()
    assert sentence in (tmp_path / "a.html").read_text()


def test_by_default_no_report_is_written(
    requests_mock: Mocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    requests_mock.get(LIST_URL, json={"count": 0, "tasks": []})
    assert not {"report_path", "json_path"} & set(run())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answers", "listed", "missing"),
    [
        ([0], 0, 250),
        ([100, 0], 100, 150),
        ([100, 100, 0], 200, 50),
        ([100, 100, 49, 0], 249, 1),
        ([100, 100, 50], 250, 0),
    ],
)
def test_a_list_that_is_shorter_than_its_count_is_noted(
    requests_mock: Mocker, printed_log: Callable[[], str], answers: list[int], listed: int, missing: int
) -> None:
    tasks = iter([at(START + timedelta(seconds=1000 - number)) for number in range(250)])
    pages = [{"json": {"count": 250, "tasks": list(islice(tasks, size))}} for size in answers]
    requests_mock.get(LIST_URL, pages)
    summary = run()
    assert (summary["total"], summary["not_listed"]) == (listed, missing)
    assert (f"The service counted {missing:,} more task" in printed_log()) is bool(missing)
    assert (f"{missing} not listed" in summary["markdown"]) is bool(missing)


def test_a_list_that_is_not_read_to_its_end_lacks_nothing(requests_mock: Mocker) -> None:
    answer_with_pages(requests_mock, [at(START - timedelta(seconds=number)) for number in range(1, 1000)])
    assert run()["not_listed"] == 0


# The report


@pytest.mark.usefixtures("one_failure")
def test_the_report_is_an_html_page_and_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "yet.html"
    summary = run(report_path=str(path))
    assert (summary["report_path"], summary["json_path"]) == (str(path), str(path.with_suffix(".json")))
    html, content = path.read_text(), json.loads(path.with_suffix(".json").read_text())
    assert "the bucket is full" in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert content["findings"]["failed"]["tasks"][0]["detail"] == "the bucket is full"
    assert (content["project_id"], content["run_id"]) == (PROJECT_ID, "scheduled__2026")
    assert sorted(file.name for file in path.parent.iterdir()) == ["yet.html", "yet.json"]


@pytest.mark.usefixtures("one_failure")
def test_the_report_path_can_be_a_url(tmp_path: Path) -> None:
    run(report_path=f"file://{tmp_path}/report.html")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json"]


@pytest.mark.usefixtures("one_failure")
def test_the_report_is_written_to_an_object_store_with_its_connection(store: ObjectStoragePath) -> None:
    attach("memory", conn_id="the_store", fs=store.fs)
    summary = run(report_path="memory://audits/2026.html", object_storage_conn_id="the_store")
    assert summary["report_path"].endswith("audits/2026.html")
    assert sorted(name.rpartition("/")[2] for name in store.fs.ls(store.path, detail=False)) == [
        "2026.html",
        "2026.json",
    ]


@pytest.mark.parametrize("path", ["s3://bucket/audits/", "/tmp/audits", "/tmp/audit.HTML.txt"])
def test_a_path_that_does_not_end_in_html_is_rejected_before_any_request(requests_mock: Mocker, path: str) -> None:
    with pytest.raises(ValueError, match=r"name a file that ends in \.html"):
        run(report_path=path)
    assert not requests_mock.called


def test_if_the_page_cannot_be_made_neither_file_is_written(
    requests_mock: Mocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests_mock.get(LIST_URL, json={"count": 0, "tasks": []})

    def fail(*_: Any) -> str:
        raise OSError("no page")

    monkeypatch.setattr("airflow_modelarts.audit.html.page", fail)
    with pytest.raises(ModelArtsReportNotWritten, match="no page"):
        run(report_path=str(tmp_path / "report.html"))
    assert list(tmp_path.iterdir()) == []


def test_a_retry_removes_the_partial_files_of_a_killed_try(requests_mock: Mocker, tmp_path: Path) -> None:
    requests_mock.get(LIST_URL, json={"count": 0, "tasks": []})
    for name in ("report.html", "report.json"):
        Path(clean_up_partials(ObjectStoragePath(str(tmp_path / name)), TaskInstance())).write_text("half a pa")
    run({"ti": TaskInstance(try_number=2), **INTERVAL}, report_path=str(tmp_path / "report.html"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json"]


# The verdict


@pytest.mark.usefixtures("one_failure")
def test_by_default_a_broken_rule_is_logged_and_does_not_fail(printed_log: Callable[[], str]) -> None:
    assert run()["broken_rules"] == {"failures_allowed": "1 task has failed"}
    assert "Rule failures_allowed is broken: 1 task has failed." in printed_log()


@pytest.mark.usefixtures("one_failure")
def test_it_fails_after_writing_the_report_and_pushing_the_summary(tmp_path: Path) -> None:
    task_instance, path = TaskInstance(), tmp_path / "report.html"
    with pytest.raises(ModelArtsAuditFailed, match="1 audit rule is broken by tasks created from 2026-11-23 00:00 to"):
        run({"ti": task_instance, **INTERVAL}, report_path=str(path), fail_on_broken_rules=True)
    assert path.exists()
    assert task_instance.xcoms["return_value"]["broken_rules"] == {"failures_allowed": "1 task has failed"}


def test_the_failure_names_each_broken_rule_and_its_first_tasks(requests_mock: Mocker) -> None:
    tasks = [at(START, task_id=f"f{number}", status=3, duration_seconds=90) for number in range(5)]
    requests_mock.get(LIST_URL, json={"count": 5, "tasks": tasks})
    rules = AuditRules(longest_seconds=60)
    with pytest.raises(ModelArtsAuditFailed) as failure:
        run(rules=rules, fail_on_broken_rules=True, do_xcom_push=False)
    message = str(failure.value)
    assert message.startswith("2 audit rules are broken by tasks created from ")
    assert "failures_allowed: 5 tasks have failed (f0, f1, f2 and 2 more)" in message
    assert "longest_seconds: 5 tasks lasted longer than 1 min (f0, f1, f2 and 2 more)" in message


def test_airflow_does_not_retry_the_failure() -> None:
    assert issubclass(ModelArtsAuditFailed, AirflowFailException)


@pytest.mark.usefixtures("one_failure")
def test_rules_that_hold_do_not_fail() -> None:
    assert run(rules={"failures_allowed": "1"}, fail_on_broken_rules=True)["broken_rules"] == {}


def test_rules_can_be_templated() -> None:
    operator = ModelArtsAuditProcessorTasksOperator(
        task_id="audit",
        rules={"longest_seconds": "{{ params.seconds }}", "allowed_output_prefixes": ["obs://{{ params.bucket }}"]},
    )
    operator.render_template_fields({"params": {"seconds": 60, "bucket": "b"}})  # type: ignore[typeddict-item]
    assert operator.rules == {"longest_seconds": "60", "allowed_output_prefixes": ["obs://b"]}


def test_rules_given_as_audit_rules_survive_rendering() -> None:
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", rules=AuditRules(longest_seconds=60))
    operator.render_template_fields({})
    assert operator.rules == AuditRules(longest_seconds=60)


def test_the_template_fields() -> None:
    names = {"window_start", "window_end", "rules", "template_id", "source_type", "source", "workspace_id", "statuses"}
    files = {"report_path", "rows_path", "object_storage_conn_id", "timezone"}
    connection = {"modelarts_conn_id", "project_id"}
    assert set(ModelArtsAuditProcessorTasksOperator.template_fields) == names | files | connection
