"""What the audit operator says besides its verdict: the change since the audit before, links, Markdown, time zone."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from requests_mock import Mocker

from airflow_modelarts.api.errors import ModelArtsRequestError
from airflow_modelarts.audit import Scope, Window, audit
from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator
from airflow_modelarts.operators.previous_audit import HEAD_BYTES, MAX_FILES, MAX_READ, find_previous
from tests.support.fixtures import PROJECT_ID
from tests.support.fixtures import TASKS as LIST_URL
from tests.support.task_instances import TaskInstance

try:
    from airflow.sdk.io import attach
except ImportError:
    from airflow.io.store import attach

START = datetime(2026, 11, 23, tzinfo=UTC)
A_DAY = timedelta(days=1)


def audit_of(day: int, report_path: str | None = None, **arguments: Any) -> dict[str, Any]:
    """Audit the day with this number, the first being 0."""
    start = START + day * A_DAY
    arguments = {"window_start": start, "window_end": start + A_DAY, "report_path": report_path, **arguments}
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", **arguments)
    context = {"ti": TaskInstance(), "run_id": f"run {day}"}
    return operator.execute(context)  # type: ignore[arg-type]  # the part of a context that it reads


@pytest.fixture
def tasks(requests_mock: Mocker) -> None:
    """One task on the first day, three on the second, of which one failed; then nothing."""
    tasks = [
        {
            "task_id": f"t{number}",
            "name": f"ingest-{number}",
            "status": 3 if number == 2 else 2,
            "create_time": int((START + (A_DAY if number else timedelta())).timestamp() * 1000),
            "duration_seconds": 60,
            "work_path": {"type": "OBS", "path": "obs://b/out/"},
            "data_source": {"type": "DATASET", "source": "PYc9"},
            "workspace_id": "7",
        }
        for number in (3, 2, 1, 0)
    ]
    requests_mock.get(LIST_URL, json={"count": 4, "tasks": tasks})


pytestmark = pytest.mark.usefixtures("tasks")
FIRST_DAY = {"start": "2026-11-23T00:00:00+00:00", "end": "2026-11-24T00:00:00+00:00"}
CHANGE = {"since": FIRST_DAY, "total": 2, "failed": 1, "seconds": 120}


# The audit before


def test_the_change_since_the_audit_before_is_in_xcom_json_and_page(tmp_path: Path) -> None:
    assert audit_of(0, f"{tmp_path}/first.html")["change"] is None
    summary = audit_of(1, f"{tmp_path}/second.html")
    assert summary["change"] == CHANGE
    assert json.loads((tmp_path / "second.json").read_text())["change"] == CHANGE
    sentence = "+2 tasks, +1 failed, +2 min in total since the audit of 2026-11-23 00:00 to 2026-11-24 00:00 UTC"
    assert sentence in summary["markdown"]
    page = (tmp_path / "second.html").read_text()
    assert sentence in page
    assert "<small>+2 since the audit before</small>" in page


def test_the_audit_before_is_found_in_an_object_store() -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    attach("memory", fs=MemoryFileSystem())
    bucket = ObjectStoragePath("memory://changes")
    bucket.fs.makedirs(bucket.path, exist_ok=True)
    try:
        audit_of(0, "memory://changes/first.html")
        assert audit_of(1, "memory://changes/second.html")["change"] == CHANGE
    finally:
        bucket.fs.rm(bucket.path, recursive=True)


def test_the_newest_earlier_audit_counts_whatever_the_files_are_called(tmp_path: Path) -> None:
    for day, name in [(3, "a"), (0, "z"), (1, "m"), (-5, "n")]:
        audit_of(day, f"{tmp_path}/{name}.html")
    since = audit_of(2, f"{tmp_path}/0.html")["change"]["since"]
    assert since == {"start": "2026-11-24T00:00:00+00:00", "end": "2026-11-25T00:00:00+00:00"}


def test_an_audit_is_not_its_own_predecessor(tmp_path: Path) -> None:
    audit_of(0, f"{tmp_path}/report.html")
    assert audit_of(1, f"{tmp_path}/report.html")["change"] is None
    assert audit_of(1, f"{tmp_path}/again.html")["change"] is None


def test_an_audit_with_nothing_left_has_no_change(tmp_path: Path) -> None:
    audit_of(0, f"{tmp_path}/first.html")
    path, end = ObjectStoragePath(f"{tmp_path}/second.json"), START + 3 * A_DAY
    scope = Scope(
        **{name: json.loads((tmp_path / "first.json").read_text())[name] for name in ("project_id", "host", "dag_id")}
    )
    for start, is_found in [(end - A_DAY, True), (end, False)]:
        report = audit([], window=Window(start, end), now=end, scope=scope)
        assert bool(find_previous(path, report)) is is_found


def test_an_audit_is_not_compared_with_one_that_had_nothing_left(tmp_path: Path) -> None:
    audit_of(0, f"{tmp_path}/first.html")
    report = json.loads((tmp_path / "first.json").read_text())
    report = {**report, "window": {**report["window"], "start": report["window"]["end"]}, "total": 0}
    (tmp_path / "nothing-left.json").write_text(json.dumps({**report, "made_at": "2099-01-01T00:00:00+00:00"}))
    assert audit_of(1, f"{tmp_path}/second.html")["change"] == CHANGE


def test_links_and_pipes_in_the_folder_are_no_error(tmp_path: Path) -> None:
    audit_of(0, f"{tmp_path}/first.html")
    (tmp_path / "broken.json").symlink_to(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    assert audit_of(1, f"{tmp_path}/second.html")["change"] == CHANGE


@pytest.mark.parametrize("other", [{"source": "ds"}, {"workspace_id": "7"}, {"project_id": "f" * 32}])
def test_an_audit_of_other_tasks_does_not_count(tmp_path: Path, other: dict[str, str], requests_mock: Mocker) -> None:
    requests_mock.get(LIST_URL.replace(PROJECT_ID, "f" * 32), json={"count": 0, "tasks": []})
    audit_of(0, f"{tmp_path}/first.html")
    assert audit_of(1, f"{tmp_path}/second.html", **other)["change"] is None


def broken() -> Iterator[bytes]:
    yield from (b"", b"{", b"[]", b"null", b'"text"', b"\xff", b"[" * 100_000, b"{}", b'{"window": 5}')
    yield b" " * (HEAD_BYTES + 1)


@pytest.mark.parametrize("content", broken(), ids=lambda content: repr(content[:9]))
def test_a_file_that_is_no_report_is_no_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.json").write_bytes(content)
    assert audit_of(1, f"{tmp_path}/report.html")["change"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 0},
        {"made_at": "yesterday"},
        {"total": "many"},
        {"total": True},
        {"statistics": None},
        {"by_status": []},
        {"window": {"start": "2026-11-23T00:00:00", "end": "2026-11-24T00:00:00"}},
    ],
)
def test_a_report_that_was_changed_does_not_count(tmp_path: Path, change: dict[str, Any]) -> None:
    audit_of(0, f"{tmp_path}/first.html")
    file = tmp_path / "first.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert audit_of(1, f"{tmp_path}/second.html")["change"] is None


def test_the_findings_of_the_audit_before_are_not_read(tmp_path: Path) -> None:
    audit_of(0, f"{tmp_path}/first.html")
    file = tmp_path / "first.json"
    head, mark, _ = file.read_text().partition('\n "findings": ')
    file.write_text(f"{head}{mark}" + "not JSON " * HEAD_BYTES)
    assert audit_of(1, f"{tmp_path}/second.html")["change"] == CHANGE


def test_of_a_full_folder_the_newest_files_are_read(tmp_path: Path) -> None:
    audit_of(0, f"{tmp_path}/first.html")
    for number in range(MAX_READ):
        file = tmp_path / f"{number}.json"
        file.write_text("{}")
        os.utime(file, (number, number))
    assert audit_of(1, f"{tmp_path}/second.html")["change"] == CHANGE
    os.utime(tmp_path / "first.json", (-1, -1))
    (tmp_path / "second.json").unlink()
    assert audit_of(1, f"{tmp_path}/second.html")["change"] is None


def test_a_huge_folder_in_s3_takes_few_requests() -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    class Huge(MemoryFileSystem):
        """A store with the one method of s3fs that lists page by page. There is always another page."""

        requests: ClassVar[list[dict[str, Any]]] = []

        def call_s3(self, method: str, **request: Any) -> dict[str, Any]:
            self.requests.append({"method": method, **request})
            number = len(self.requests)
            objects = [{"Key": f"audits/{number}-{one}.txt", "LastModified": START} for one in range(999)]
            report = {"Key": "audits/first.json", "LastModified": START + A_DAY}
            return {"Contents": [*objects, report], "IsTruncated": True, "NextContinuationToken": str(number)}

    store = Huge()
    attach("memory", conn_id="huge", fs=store)
    bucket = ObjectStoragePath("memory://huge/audits", conn_id="huge")
    store.makedirs(bucket.path, exist_ok=True)
    try:
        audit_of(0, "memory://huge/audits/first.html", object_storage_conn_id="huge")
        store.requests.clear()
        summary = audit_of(1, "memory://huge/audits/second.html", object_storage_conn_id="huge")
    finally:
        store.rm("/huge", recursive=True)
    assert summary["change"] == CHANGE
    assert len(store.requests) == MAX_FILES // 1000
    first = {"method": "list_objects_v2", "Bucket": "huge", "Prefix": "audits/", "Delimiter": "/"}
    assert store.requests[0] == first
    assert store.requests[1]["ContinuationToken"] == "1"


def test_a_folder_that_cannot_be_listed_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    class Unlisted(MemoryFileSystem):
        protocol = "unlisted"
        store: dict[str, Any] = {}  # noqa: RUF012  # as in the base class
        pseudo_dirs = [""]  # noqa: RUF012

        def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
            raise PermissionError("list of a bucket")

    attach("memory", conn_id="unlisted", fs=Unlisted())
    with caplog.at_level("INFO"):
        summary = audit_of(1, "memory://unlisted/report.html", object_storage_conn_id="unlisted")
    assert summary["change"] is None
    assert summary["report_path"].endswith("report.html")
    assert "cannot be listed, so the report has no change: list of a bucket" in caplog.text


# Findings, Markdown, time zone


def test_a_finding_has_source_work_path_workspace_and_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_MODELARTS_DEFAULT"])
    extra = connection["extra"] if isinstance(connection["extra"], dict) else json.loads(connection["extra"])
    extra["console_url"] = "https://console.example.com/tasks/{processor_task_id}"
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", json.dumps({**connection, "extra": extra}))
    audit_of(1, f"{tmp_path}/report.html")
    (finding,) = json.loads((tmp_path / "report.json").read_text())["findings"]["failed"]["tasks"]
    assert (finding["source"], finding["work_path"], finding["workspace_id"]) == ("PYc9", "obs://b/out", "7")
    assert finding["console_url"] == "https://console.example.com/tasks/t2"
    page = (tmp_path / "report.html").read_text()
    assert '<a href="https://console.example.com/tasks/t2" rel="noreferrer">t2</a>' in page
    assert "reads PYc9, writes obs://b/out, workspace 7" in page


def test_the_page_names_project_host_and_filters(tmp_path: Path) -> None:
    def facts(**filters: str) -> dict[str, str]:
        audit_of(0, f"{tmp_path}/report.html", **filters)
        page = (tmp_path / "report.html").read_text()
        return dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page))

    shown = facts()
    assert (shown["Project"], shown["Host"], shown["Filters"]) == (PROJECT_ID, "modelarts.example.com", "none")
    shown = facts(template_id="sys_data_cleaning", source_type="DATASET", source="PYc9", workspace_id="7")
    assert "Filters" not in shown
    names = ("Template", "Source type", "Source", "Workspace")
    assert [shown[name] for name in names] == ["sys_data_cleaning", "DATASET", "PYc9", "7"]


def test_the_summary_in_markdown_is_an_xcom_and_logged(printed_log: Callable[[], str]) -> None:
    markdown = audit_of(1)["markdown"]
    assert markdown.startswith("**ModelArts audit: 1 of 2 rules is broken**\n")
    logged = printed_log()
    assert all(line in logged for line in markdown.splitlines())


def test_times_are_shown_in_the_zone_that_was_chosen(tmp_path: Path) -> None:
    summary = audit_of(1, f"{tmp_path}/report.html", timezone="Asia/Shanghai")
    assert "from 2026-11-24 08:00 to 2026-11-25 08:00 Asia/Shanghai" in summary["markdown"]
    assert summary["window"]["start"] == "2026-11-24T00:00:00+00:00"
    page = (tmp_path / "report.html").read_text()
    assert "Created (Asia/Shanghai)" in page
    assert ">2026-11-24 08:00" in page


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "Europe", "../etc/passwd", "+08:00"])
def test_an_unknown_time_zone_is_told_when_the_dag_is_parsed(zone: str) -> None:
    with pytest.raises(ValueError, match=r"timezone is .*: give the name of a zone such as 'Europe/Berlin' or 'UTC'"):
        ModelArtsAuditProcessorTasksOperator(task_id="audit", timezone=zone)


def test_an_unknown_time_zone_of_a_template_is_told_when_the_task_runs(requests_mock: Mocker) -> None:
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", timezone="{{ params.zone }}")
    operator.render_template_fields({"params": {"zone": "Mars"}})  # type: ignore[typeddict-item]
    with pytest.raises(ValueError, match="timezone is 'Mars'"):
        operator.execute({"ti": TaskInstance(), "run_id": "run"})  # type: ignore[typeddict-item]
    assert not requests_mock.called


def test_values_of_rules_may_render_to_nothing_but_not_the_rules_as_a_whole(requests_mock: Mocker) -> None:
    params = {"params": {"empty": "", "rules": '{"failures_allowed": "1"}'}}
    for written, broken in [
        ("{{ params.rules }}", {}),
        ({"longest_seconds": "{{ params.empty }}"}, {"failures_allowed"}),
    ]:
        operator = ModelArtsAuditProcessorTasksOperator(
            task_id="audit", rules=written, window_start=START + A_DAY, window_end=START + 2 * A_DAY
        )
        operator.render_template_fields(params)  # type: ignore[arg-type]
        summary = operator.execute({"ti": TaskInstance(), "run_id": "run"})  # type: ignore[typeddict-item]
        assert set(summary["broken_rules"]) == set(broken)
    requests_mock.reset_mock()
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", rules="{{ params.empty }}")
    operator.render_template_fields(params)  # type: ignore[arg-type]
    with pytest.raises(ModelArtsRequestError, match="rules rendered to nothing"):
        operator.execute({"ti": TaskInstance(), "run_id": "run"})  # type: ignore[typeddict-item]
    assert not requests_mock.called
