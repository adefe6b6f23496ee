"""The Markdown summary of an audit: at most ten lines, and no text of the service becomes markup."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.audit import AuditReport, AuditRules, Scope, Window, audit, milliseconds
from airflow_modelarts.audit.change import Previous

START = datetime(2026, 11, 23, tzinfo=UTC)
DAY = Window(START, START + timedelta(days=1))
HOSTILE = (
    "`` ` | [click](https://x.example) ![x](y) <b>bold</b> <!channel> @here **bold** https://x.example \\` # h\n- x"
)
PREVIOUS = Previous(start=START - timedelta(days=1), end=START, made_at=START, total=7, failed=1, seconds=4000)


def task(**fields: Any) -> ProcessorTask:
    usual = {"task_id": "t", "status": 2, "create_time": milliseconds(START), "duration_seconds": 30}
    return ProcessorTask.model_validate({**usual, **fields})


def report_on(*tasks: ProcessorTask, scope: Scope | None = None, **rules: Any) -> AuditReport:
    return audit(tasks, window=DAY, now=DAY.end, rules=AuditRules(**rules), scope=scope)


def hostile_report(text: str) -> AuditReport:
    found = [
        task(task_id=text, name=text, error_msg=text, status=3, template={"id": text}, duration_seconds=3600),
        *(task(status=100 + number) for number in range(20)),
    ]
    template = found[0].template.id if found[0].template else ""
    scope = Scope(**dict.fromkeys(("project_id", "region", "template_id", "source", "workspace_id"), text))
    rules = {"longest_seconds": 1, "by_template": {template: {"failures_allowed": 0}}, "failure_rate_allowed": 0}
    return replace(report_on(*found, scope=scope, tasks_required=100, **rules), previous=PREVIOUS)


def test_the_summary_has_verdict_window_counts_durations_change_and_failures() -> None:
    failed = task(task_id="t9", name="ingest-9", status=3, error_msg="the bucket is full", duration_seconds=600)
    report = replace(report_on(task(), task(), failed), previous=PREVIOUS)
    assert report.to_markdown().splitlines() == [
        "**ModelArts audit: 1 of 2 rules is broken**",
        "Tasks created from 2026-11-23 00:00 to 2026-11-24 00:00 UTC",
        "3 tasks: 2 completed, 1 failed",
        "Durations: 11 min in total, median 30 s, 95 % within 10 min, longest 10 min",
        "-4 tasks, +0 failed, -55 min 40 s in total since the audit of 2026-11-22 00:00 to 2026-11-23 00:00 UTC",
        "- `failures_allowed`: 1 task has failed",
        "Failures: `ingest-9` `the bucket is full`",
    ]
    assert report.summary()["markdown"] == report.to_markdown()


def test_the_summary_names_project_region_and_filters() -> None:
    scope = Scope(project_id="p-1", region="eu-de", workspace_id="7", source="PYc9")
    line = report_on(scope=scope).to_markdown().splitlines()[1]
    assert line.endswith("UTC; project `p-1`, region `eu-de`, source `PYc9`, workspace `7`")


def test_times_are_in_the_zone_that_was_chosen() -> None:
    line = replace(report_on(), zone=ZoneInfo("Asia/Shanghai")).to_markdown().splitlines()[1]
    assert line == "Tasks created from 2026-11-23 08:00 to 2026-11-24 08:00 Asia/Shanghai"


def test_odd_items_of_the_list_are_counted() -> None:
    found = report_on(task(), task(create_time=None))
    report = replace(found, unreadable=replace(found.unreadable, items=3), deleted_while_listing=2, notes=["A note."])
    assert report.to_markdown().splitlines()[2] == (
        "1 task: 1 completed; 1 more without a creation time, 3 unreadable, 2 deleted while listing"
    )


def test_a_template_that_looks_like_an_address_is_no_link() -> None:
    failed = task(status=3, template={"id": "www.example.com"})
    lines = report_on(failed, by_template={"www.example.com": {"failures_allowed": 0}}).to_markdown().splitlines()
    assert "- `failures_allowed`: `www.example.com: 1 task has failed`" in lines


@given(st.text())
def test_the_summary_has_at_most_ten_lines(text: str) -> None:
    assert len(hostile_report(text or "x").to_markdown().splitlines()) <= 10


@given(st.text(alphabet="`|[]()<>!@*_#\\-~ \n&:/ab") | st.just(HOSTILE))
def test_no_text_of_the_service_becomes_markup(text: str) -> None:
    markdown = hostile_report(text or "x").to_markdown()
    assert "@" not in markdown
    assert "|" not in markdown
    kinds = {
        inline.type
        for block in MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
        for inline in [block, *(block.children or [])]
    }
    assert kinds <= {
        *("inline", "text", "softbreak", "code_inline", "strong_open", "strong_close"),
        *("paragraph_open", "paragraph_close", "bullet_list_open", "bullet_list_close"),
        *("list_item_open", "list_item_close"),
    }
