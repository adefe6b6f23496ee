"""The audit: which tasks are in the window, what the checks find, and what the report says."""

from __future__ import annotations

import json
import math
import weakref
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.audit import AuditReport, AuditRules, Window, audit, milliseconds
from airflow_modelarts.audit.report import MAX_STEPS
from airflow_modelarts.audit.text import format_duration
from airflow_modelarts.audit.verdicts import RULES

START = datetime(2026, 11, 23, tzinfo=UTC)
DAY = Window(START, START + timedelta(days=1))
NOW = START + timedelta(hours=26)
MORNING = milliseconds(START) + 8 * 3600 * 1000


def task(**fields: Any) -> ProcessorTask:
    usual = {"task_id": "abc", "status": 2, "create_time": MORNING, "template": {"id": "sys_data_cleaning"}}
    return ProcessorTask.model_validate({**usual, "work_path": {"type": "OBS", "path": "obs://b/out/"}, **fields})


def report_on(*tasks: ProcessorTask, **rules: Any) -> AuditReport:
    return audit(tasks, window=DAY, now=NOW, rules=AuditRules(**rules))


def details(check: str, *tasks: ProcessorTask, **rules: Any) -> list[str]:
    return [finding.detail for finding in report_on(*tasks, **rules).findings[check].kept]


moments = st.none() | st.integers(milliseconds(START) - 100_000_000, milliseconds(DAY.end) + 100_000_000)
numbers = st.none() | st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-1, 5)
texts = st.none() | st.text() | st.sampled_from(["sys_data_analyse", "obs://b/out", "s3://b/else", "/b/out/x", "../x"])
tasks_of_any_kind = st.builds(
    lambda **fields: ProcessorTask.model_validate({name: field for name, field in fields.items() if field is not None}),
    task_id=st.text(min_size=1),
    name=texts,
    status=numbers,
    create_time=moments,
    duration_seconds=numbers,
    error_msg=texts,
    version_count=numbers,
    template=st.none() | st.fixed_dictionaries({"id": texts}),
    work_path=st.none() | st.fixed_dictionaries({"type": texts, "path": texts, "output_path": texts}),
)
any_rules = st.builds(
    AuditRules,
    failures_allowed=st.none() | st.integers(0, 5),
    longest_seconds=st.none() | st.floats(0, 1e9),
    stuck_after_seconds=st.none() | st.floats(0, 1e9),
    allowed_output_prefixes=st.none() | st.lists(st.sampled_from(["obs://b/out", "s3://c/", "/b"])),
    outputs_required=st.booleans(),
)


# Any tasks


@given(st.lists(tasks_of_any_kind, max_size=30), any_rules)
def test_every_task_of_the_window_counts_once_in_each_breakdown(tasks: list[ProcessorTask], rules: AuditRules) -> None:
    report = audit(iter(tasks), window=DAY, now=NOW, rules=rules)
    within = [one for one in tasks if DAY.contains(one)]
    assert report.total == len(within)
    assert report.undated == sum(one.create_time is None for one in tasks)
    assert report.by_status == Counter(one.status_name for one in within)
    assert sum(sum(counts.values()) for counts in report.by_template.values()) == len(within)
    assert sum((Counter(counts) for counts in report.timeline.values()), Counter()) == report.by_status
    ended = sum(one.is_terminal and one.duration_seconds is not None for one in within)
    assert sum(sum(groups) for groups in report.durations.values()) == ended


@given(st.lists(tasks_of_any_kind, max_size=30), any_rules)
def test_the_report_and_the_summary_are_strict_json(tasks: list[ProcessorTask], rules: AuditRules) -> None:
    report = audit(tasks, window=DAY, now=NOW, rules=rules)
    for value in (report.to_json(), report.summary()):
        assert json.loads(json.dumps(value, allow_nan=False)) == value


@given(st.lists(tasks_of_any_kind, max_size=30), any_rules)
def test_a_rule_is_broken_exactly_if_there_are_too_many_findings(tasks: list[ProcessorTask], rules: AuditRules) -> None:
    report = audit(tasks, window=DAY, now=NOW, rules=rules)
    broken = {rule.rule: rule.findings.count for rule in report.broken_rules}
    assert all(broken.values())
    found = {rule.name: report.findings[rule.check].count for rule in RULES if rule.check}
    del found["failure_rate_allowed"], found["stopped_allowed"]  # they are not among these rules
    failed = found.pop("failures_allowed")
    if not rules.outputs_required:
        found.pop("outputs_required")
    allowed = math.inf if rules.failures_allowed is None else rules.failures_allowed
    assert set(broken) == {rule for rule, count in found.items() if count} | (
        {"failures_allowed"} if failed > allowed else set()
    )


def test_the_steps_of_a_timeline_are_equally_long_across_a_change_of_the_clock() -> None:
    zone = ZoneInfo("Europe/Berlin")
    window = Window(datetime(2026, 10, 24, tzinfo=zone), datetime(2026, 10, 27, tzinfo=zone))
    starts = [window.step_start(index) for index in range(window.step_count)]
    assert {(after - before).total_seconds() for before, after in pairwise(starts)} == {window.step_seconds}


@given(st.timedeltas(timedelta(seconds=1), timedelta(days=3000)))
def test_a_timeline_has_few_steps_for_any_window(length: timedelta) -> None:
    assert Window(START, START + length).step_count <= MAX_STEPS


# The window


def test_the_start_of_the_window_is_inclusive_and_the_end_exclusive() -> None:
    start, end = milliseconds(DAY.start), milliseconds(DAY.end)
    ids = {"first": start, "last": end - 1, "before": start - 1, "next": end}
    tasks = [task(task_id=name, create_time=created, status=3) for name, created in ids.items()]
    assert [finding.task_id for finding in report_on(*tasks).findings["failed"].kept] == ["first", "last"]


def test_a_window_that_ends_before_it_starts_is_rejected() -> None:
    with pytest.raises(ValueError, match="before its start"):
        Window(START, START - timedelta(seconds=1))


def test_an_empty_window_contains_no_task() -> None:
    start = milliseconds(START)
    report = audit([task(create_time=start), task(create_time=start - 1)], window=Window(START, START), now=NOW)
    assert (report.total, report.to_json()["timeline"]["steps"]) == (0, [])


def test_a_window_leaves_out_what_earlier_audits_have_covered() -> None:
    start = milliseconds(START)
    window = Window(START, DAY.end, covered=[(start + 5, start + 10)])
    tasks = [task(create_time=start + offset) for offset in (4, 5, 9, 10)]
    assert [window.contains(one) for one in tasks] == [True, False, False, True]
    assert window.to_json()["covered"] == [["2026-11-23T00:00:00.005000+00:00", "2026-11-23T00:00:00.010000+00:00"]]


def test_a_window_without_time_zone_is_rejected() -> None:
    with pytest.raises(ValueError, match="the window's end is 2026-11-24 00:00:00: give it a time zone"):
        Window(START, datetime(2026, 11, 24))


def test_a_window_is_written_in_utc() -> None:
    east = timezone(timedelta(hours=8))
    window = Window(datetime(2026, 11, 23, 8, tzinfo=east), datetime(2026, 11, 23, 9, 30, 5, tzinfo=east))
    assert str(window) == "2026-11-23 00:00 to 2026-11-23 01:30:05 UTC"


# The checks


def test_a_failure_has_its_message_without_signed_links() -> None:
    message = "403 for\nhttps://b.obs.example.com/a.jpg?AccessKeyId=T&Signature=SECRET"
    assert details("failed", task(status=3, error_msg=message)) == ["403 for https://b.obs.example.com/a.jpg"]


def test_a_failure_without_a_message_is_a_finding() -> None:
    report = report_on(task(status=3))
    assert report.findings["failed"].count == 1
    assert report.summary()["failures"] == [{"task_id": "abc", "name": None, "error_msg": None}]


def test_undocumented_statuses_are_counted_as_unknown() -> None:
    assert report_on(task(status=7), task(status=None)).by_status == {"unknown (7)": 1, "unknown (None)": 1}


@pytest.mark.parametrize(("seconds", "found"), [(3600, []), (3661, ["by 1 min 1 s"]), (None, [])])
def test_a_task_is_long_beyond_the_limit(seconds: int | None, found: list[str]) -> None:
    assert details("long", task(duration_seconds=seconds), longest_seconds=3600) == found


@pytest.mark.parametrize("status", [0, 1])
def test_a_task_is_stuck_if_it_is_active_for_longer_than_the_limit(status: int) -> None:
    assert details("stuck", task(status=status), stuck_after_seconds=3600) == ["18 h"]
    assert details("stuck", task(status=status), stuck_after_seconds=18 * 3600) == []


@pytest.mark.parametrize("status", [2, 3, 4, 7, None])
def test_a_task_with_a_terminal_or_unknown_status_is_not_stuck(status: int | None) -> None:
    assert details("stuck", task(status=status), stuck_after_seconds=0) == []


def test_a_task_with_several_versions_is_judged_by_its_duration() -> None:
    rerun = {"status": 1, "version_count": 2}
    assert details("stuck", task(**rerun, duration_seconds=60), stuck_after_seconds=3600) == []
    assert details("stuck", task(**rerun, duration_seconds=7200), stuck_after_seconds=3600) == ["2 h"]
    assert details("stuck", task(**rerun), stuck_after_seconds=3600) == []  # its age is unknown


@pytest.mark.parametrize(
    ("place", "outside"),
    [
        ({"type": "OBS", "path": "obs://b/out/"}, None),
        ({"type": "OBS", "path": "s3://b/out/deep/er"}, None),
        ({"type": "OBS", "path": "/b/out"}, None),
        ({"type": "OBS", "path": "b/out/1"}, None),
        ({"type": "OBS", "path": "s3a://b/out/1"}, None),
        ({"type": "OBS", "path": "S3N://b/out-2/"}, "obs://b/out-2"),
        ({"type": "OBS", "path": "obs://b/out-2/"}, "obs://b/out-2"),
        ({"type": "OBS", "path": "s3://b/"}, "obs://b"),
        ({"type": "OBS", "path": "/c/out/"}, "obs://c/out"),
        ({"type": "OBS", "path": "obs://b/out/../else"}, "obs://b/out/../else"),
        ({"type": "OBS", "path": "obs://B!/x?Signature=SECRET"}, "obs://B!/x"),
        ({"path": "/c/x"}, "obs://c/x"),
        ({"type": "OBS", "path": "obs://b/out/", "output_path": "obs://c/x"}, "obs://c/x"),
        ({"type": "DATASET", "path": "PYc9H2HGv5BJNwBGXyK", "output_path": "s3://c/x"}, "obs://c/x"),
        # Not known to be a place in OBS:
        ({"type": "DATASET", "path": "PYc9H2HGv5BJNwBGXyK", "output_path": "/datasets/demo"}, None),
        ({"path": "PYc9H2HGv5BJNwBGXyK"}, None),
        ({"type": "SOMETHING_NEW", "path": "obs://c/x"}, None),
        (None, None),
    ],
)
def test_an_output_is_outside_if_no_allowed_place_is_above_it(
    place: dict[str, str] | None, outside: str | None
) -> None:
    prefixes = ["s3a://b/out/", "elsewhere/"]
    found = details("outside", task(work_path=place), allowed_output_prefixes=prefixes)
    assert found == ([outside] if outside else [])


def test_no_output_is_outside_without_the_rule_and_every_output_is_with_an_empty_one() -> None:
    assert details("outside", task()) == []
    assert details("outside", task(), allowed_output_prefixes=[]) == ["obs://b/out"]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"work_path": None}, ["no work_path"]),
        ({"work_path": {"type": "OBS"}}, ["work_path names no place"]),
        ({"work_path": {"output_path": "/datasets/demo"}}, []),
        ({"work_path": {"type": "DATASET", "path": "PYc9H2HGv5BJNwBGXyK"}}, []),
        ({"work_path": None, "status": 1}, []),
        ({"work_path": None, "status": 3}, []),
        ({"work_path": None, "template": {"id": "sys_data_analyse"}}, []),
        ({"work_path": None, "template": None}, []),
    ],
)
def test_an_output_is_missing_if_a_completed_task_names_none(fields: dict[str, Any], found: list[str]) -> None:
    assert details("without_output", task(**fields)) == found


# Rules and verdicts


def test_each_broken_rule_has_a_message_and_its_findings() -> None:
    tasks = [
        task(task_id="failed", status=3),
        task(task_id="long", duration_seconds=9000),
        task(task_id="stuck", status=1),
        task(task_id="outside", work_path={"type": "OBS", "path": "obs://c/"}),
        task(task_id="silent", work_path=None),
    ]
    report = report_on(*tasks, longest_seconds=7200, stuck_after_seconds=3600, allowed_output_prefixes=["obs://b"])
    assert [(broken.rule, broken.message, broken.findings.kept[0].task_id) for broken in report.broken_rules] == [
        ("failures_allowed", "1 task has failed", "failed"),
        ("longest_seconds", "1 task lasted longer than 2 h", "long"),
        ("stuck_after_seconds", "1 task is still initialized or running after 1 h", "stuck"),
        ("allowed_output_prefixes", "1 task writes outside the allowed places in OBS", "outside"),
        ("outputs_required", "1 task completed and named no output", "silent"),
    ]


def test_allowed_failures_are_listed_and_break_no_rule() -> None:
    report = report_on(task(status=3), task(status=3), failures_allowed=2)
    assert report.broken_rules == ()
    assert report.findings["failed"].count == 2
    (broken,) = report_on(task(status=3), task(status=3), failures_allowed=1).broken_rules
    assert broken.message == "2 tasks have failed, more than the 1 allowed"


def test_rules_that_are_not_checked_are_not_broken() -> None:
    assert (
        report_on(task(status=3), task(work_path=None), failures_allowed=None, outputs_required=False).broken_rules
        == ()
    )


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"longest_seconds": -1}, "longest_seconds is -1: give seconds, a timedelta or a text such as '12h', or None"),
        ({"failures_allowed": False}, "failures_allowed is False: give a whole number that is not negative, or None"),
        ({"stuck_after_seconds": math.nan}, "stuck_after_seconds is nan"),
        ({"failures_allowed": "few"}, "failures_allowed is 'few'"),
        ({"allowed_output_prefixes": ["obs://b", "dataset"]}, "'dataset': write places in OBS as obs://bucket/folder"),
        ({"outputs_required": "maybe"}, "outputs_required is 'maybe': give True or False"),
        (
            {"longest": 1, "zzz": 1},
            r"unknown audit rule longest \(did you mean longest_seconds\?\), zzz: the rules are failures_allowed, ",
        ),
    ],
)
def test_an_invalid_rule_is_rejected_by_its_name(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AuditRules.read(rules)


def test_rules_can_be_rendered_text() -> None:
    rules = AuditRules.read(
        {
            "failures_allowed": "3",
            "longest_seconds": "0.5",
            "stuck_after_seconds": 7.0,
            "allowed_output_prefixes": "/b/",
        }
    )
    assert rules == AuditRules(
        failures_allowed=3, longest_seconds=0.5, stuck_after_seconds=7, allowed_output_prefixes=["obs://b"]
    )
    assert rules.to_json()["allowed_output_prefixes"] == ["obs://b"]


# Limits


def test_the_summary_is_small_and_counts_what_it_leaves_out() -> None:
    tasks = [
        task(task_id=f"{number}" * 500, name="n" * 500, status=3, error_msg="m" * 5000, template={"id": f"t-{number}"})
        for number in range(200)
    ]
    summary = report_on(*tasks).summary()
    assert len(json.dumps(summary)) < 15_000
    failed = summary["findings"]["failed"]
    assert (failed["count"], len(failed["task_ids"]), failed["more"]) == (200, 10, 190)
    assert len(summary["failures"]) == 10
    assert summary["by_template"]["(others)"] == 180


def test_only_the_summary_groups_rare_statuses() -> None:
    report = report_on(*(task(task_id=str(number), status=100 + number) for number in range(30)))
    assert len(report.to_json()["by_status"]) == 30
    assert report.summary()["by_status"]["(others)"] == 10


def test_all_findings_are_counted_and_a_limited_number_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_modelarts.audit.report.KEPT_FINDINGS", 2)
    findings = report_on(*(task(task_id=str(number), status=3) for number in range(5))).findings["failed"]
    assert (findings.count, [finding.task_id for finding in findings.kept]) == (5, ["0", "1"])


def test_no_task_is_kept_in_memory() -> None:
    alive: list[weakref.ref[ProcessorTask]] = []

    def stream() -> Iterator[ProcessorTask]:
        for number in range(100):
            one = task(task_id=str(number), status=3, duration_seconds=9)
            alive.append(weakref.ref(one))
            yield one
            del one

    audit(stream(), window=DAY, now=NOW)
    assert not any(reference() for reference in alive)


def test_control_characters_that_databases_reject_are_removed() -> None:
    report = report_on(task(status=3, name="a\x00b", error_msg="line\r\n\tline"))
    (failure,) = report.findings["failed"].kept
    assert (failure.name, failure.detail) == ("a b", "line line")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (3601, "1 h"), (3661, "1 h 1 min"), (1e6, "11 d 13 h")],
)
def test_durations_are_written_in_their_two_largest_units(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_the_json_has_times_in_iso_8601() -> None:
    described = report_on(task()).to_json()
    assert described["window"] == {"start": "2026-11-23T00:00:00+00:00", "end": "2026-11-24T00:00:00+00:00"}
    assert described["timeline"] == {
        "step_seconds": 1800,
        "steps": [{"start": "2026-11-23T08:00:00+00:00", "by_status": {"completed": 1}}],
    }
