"""The rules of an audit: how their values are read, when mistakes are told, and what each rule judges."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.audit import AuditReport, AuditRules, Window, audit, milliseconds
from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator

START = datetime(2026, 11, 23, tzinfo=UTC)
DAY = Window(START, START + timedelta(days=1))


def tasks(count: int, **fields: Any) -> list[ProcessorTask]:
    usual = {"status": 2, "create_time": milliseconds(START), "duration_seconds": 30, "template": {"id": "cleaning"}}
    usual["work_path"] = {"type": "OBS", "path": "obs://b/out/"}
    return [ProcessorTask.model_validate({**usual, "task_id": f"t{number}", **fields}) for number in range(count)]


def report_on(*tasks: ProcessorTask, **rules: Any) -> AuditReport:
    return audit(tasks, window=DAY, now=DAY.end, rules=AuditRules(**rules))


def messages(*tasks: ProcessorTask, **rules: Any) -> dict[str, str]:
    return {broken.rule: broken.message for broken in report_on(*tasks, **rules).broken_rules}


# Values


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (43200, 43200),
        (0.5, 0.5),
        ("43200", 43200),
        (" 1e3 ", 1000),
        (timedelta(hours=12), 43200),
        (timedelta(milliseconds=500), 0.5),
        ("12h", 43200),
        ("12 hours", 43200),
        ("90 min", 5400),
        ("1.5h", 5400),
        ("2 h 5 min", 7500),
        ("1d12h", 129600),
        ("1 week, 1 day", 691200),
        ("10S", 10),
        ("PT12H", 43200),
        ("P1DT1H30M", 91800),
        ("p1w", 604800),
        (str(timedelta(hours=12)), 43200),
        (str(timedelta(days=2, minutes=3)), 172980),
    ],
)
def test_a_duration_is_a_number_a_timedelta_or_text(value: Any, seconds: float) -> None:
    assert AuditRules(longest_seconds=value, stuck_after_seconds=value).longest_seconds == seconds


@given(st.timedeltas(timedelta(), timedelta(days=10_000)))
def test_a_timedelta_and_its_text_are_the_same_duration(duration: timedelta) -> None:
    given_as_value = AuditRules(longest_seconds=duration).longest_seconds
    assert AuditRules(longest_seconds=str(duration)).longest_seconds == given_as_value == duration.total_seconds()


@pytest.mark.parametrize(
    "value",
    [
        *(True, -1, timedelta(seconds=-1), math.nan, math.inf, [1], {}),
        *("nan", "inf", "-5h", "3 months", "P1Y", "12 x", "h", "PT", "99999999999 weeks"),
    ],
)
def test_a_value_that_is_no_duration_is_told(value: Any) -> None:
    with pytest.raises(ValueError, match=r"longest_seconds is .*: give seconds, a timedelta or a text such as '12h'"):
        AuditRules(longest_seconds=value)


@pytest.mark.parametrize("rule", ["failures_allowed", "stopped_allowed", "tasks_required"])
@pytest.mark.parametrize("value", [True, False, 0.5, "0.5", -1, "-1", math.nan, "many", [1]])
def test_a_number_of_tasks_is_a_whole_number(rule: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{rule} is .*: give a whole number that is not negative, or None"):
        AuditRules.read({rule: value})


@pytest.mark.parametrize(
    ("value", "share"), [(0.05, 0.05), ("0.05", 0.05), ("5%", 0.05), ("5 %", 0.05), (1, 1), (0, 0)]
)
def test_a_rate_is_a_share_or_text_in_percent(value: Any, share: float) -> None:
    assert AuditRules(failure_rate_allowed=value).failure_rate_allowed == share


@pytest.mark.parametrize("value", [5, "5", "500 %", -0.1, True, math.nan, "some"])
def test_a_rate_beyond_1_is_told(value: Any) -> None:
    with pytest.raises(ValueError, match=r"failure_rate_allowed is .*: give a share from 0 to 1 such as 0.05"):
        AuditRules(failure_rate_allowed=value)


@pytest.mark.parametrize(
    ("value", "required"), [("false", False), ("False", False), ("0", False), (0, False), ("yes", True), ("on", True)]
)
def test_a_truth_value_may_be_text(value: Any, required: bool) -> None:
    assert AuditRules(outputs_required=value).outputs_required is required


@pytest.mark.parametrize(
    "value",
    ["obs://b/out", "/b/out", ["obs://b/out/"], ("s3://b/out",), {"obs://b/out"}, '["obs://b/out"]', "['obs://b/out']"],
)
def test_places_may_be_a_list_the_text_of_one_or_one_text(value: Any) -> None:
    assert AuditRules(allowed_output_prefixes=value).allowed_output_prefixes == ("obs://b/out",)


@pytest.mark.parametrize("value", [5, True, {"obs://b": 1}, b"obs://b", [5], ["dataset"], "[5]"])
def test_what_is_no_place_is_told(value: Any) -> None:
    with pytest.raises(ValueError, match=r"allowed_output_prefixes (is|has) .*obs://bucket/folder"):
        AuditRules(allowed_output_prefixes=value)


@pytest.mark.parametrize("nothing", ["", "  ", "None", "null"])
def test_a_text_without_a_value_means_the_default(nothing: str) -> None:
    names = ["failures_allowed", "longest_seconds", "allowed_output_prefixes", "outputs_required", "by_template"]
    assert AuditRules.read(dict.fromkeys(names, nothing)) == AuditRules()


def test_none_turns_a_rule_off() -> None:
    rules = AuditRules(failures_allowed=None, outputs_required=None)
    assert not rules.is_checked("failures_allowed")
    assert not rules.is_checked("outputs_required")
    assert AuditRules(failures_allowed=0).is_checked("failures_allowed")


def test_rules_may_be_json_text_as_of_a_variable() -> None:
    text = json.dumps({"longest_seconds": "12h", "outputs_required": "false", "allowed_output_prefixes": ["obs://b"]})
    rules = AuditRules(longest_seconds=43200, outputs_required=False, allowed_output_prefixes=["obs://b"])
    assert AuditRules.read(text) == rules
    assert AuditRules.read(rules) is rules
    assert AuditRules.read(None) == AuditRules()


@pytest.mark.parametrize("value", ["few", "[1]", "5", 5, ["longest_seconds"], ""])
def test_rules_that_are_no_object_are_told(value: Any) -> None:
    with pytest.raises(ValueError, match=r"rules is .*: give the rules as an object, such as"):
        AuditRules.read(value)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"failures_alowed": 1}, r"unknown audit rule failures_alowed \(did you mean failures_allowed\?\): the rules"),
        ({5: 1}, "unknown audit rule 5: the rules are failures_allowed, "),
        ({"by_template": {"t": {"longest": 1}}}, r"longest \(did you mean longest_seconds\?\) in by_template\['t'\]"),
        ({"by_template": {"t": {"longest_seconds": True}}}, r"by_template\['t'\]\.longest_seconds is True: give secon"),
        ({"by_template": {"t": {"by_template": {}}}}, r"unknown audit rule by_template in by_template\['t'\]"),
        ({"by_template": {"t": 5}}, r"by_template\['t'\] is 5: give the rules as an object"),
        ({"by_template": 5}, "by_template is 5: give the rules as an object, such as {'sys_data_cleaning': "),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest_right_one(rules: dict[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AuditRules.read(rules)


def test_a_template_in_audit_rules_is_told() -> None:
    with pytest.raises(
        ValueError, match=r"longest_seconds is '{{ params.x }}': give the rules as a dict, which Airflo"
    ):
        AuditRules(longest_seconds="{{ params.x }}")


def test_rules_are_strict_json_and_can_be_read_again() -> None:
    rules = AuditRules(
        longest_seconds="12h", by_template={"t": {"allowed_output_prefixes": "obs://b", "failures_allowed": "3"}}
    )
    described = rules.to_json()
    assert json.loads(json.dumps(described)) == described
    assert AuditRules.read(described) == rules


# When the DAG is parsed


@pytest.mark.parametrize(
    "rules",
    [
        {"failures_allowed": True},
        {"longest": 1},
        {"longest_seconds": "{{ params.x }}", "failures_allowed": 0.5},
        {"allowed_output_prefixes": ["obs://{{ params.bucket }}", "dataset"]},
        {"by_template": {"t": {"longest_seconds": "soon", "failures_allowed": "{{ params.x }}"}}},
        '{"longest_seconds": "soon"}',
        "few",
    ],
)
def test_a_literal_mistake_is_told_when_the_dag_is_parsed(rules: Any) -> None:
    with pytest.raises(ValueError, match=r"failures_allowed|longest|allowed_output_prefixes|rules is 'few'"):
        ModelArtsAuditProcessorTasksOperator(task_id="audit", rules=rules)


@pytest.mark.parametrize(
    "rules",
    [
        "{{ var.value.rules }}",
        "{% if x %}{}{% endif %}",
        {"longest_seconds": "{{ params.x }}", "allowed_output_prefixes": ["obs://{{ params.bucket }}"]},
        {"by_template": "{{ var.json.by_template }}"},
        {"by_template": {"t": {"longest_seconds": "{{ params.x }}"}}},
    ],
)
def test_what_is_templated_is_not_judged_when_the_dag_is_parsed(rules: Any) -> None:
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", rules=rules)
    assert operator.rules is rules


def test_what_another_task_pushes_is_not_judged_when_the_dag_is_parsed() -> None:
    with DAG("audits", schedule=None):
        other = ModelArtsAuditProcessorTasksOperator(task_id="other").output
        ModelArtsAuditProcessorTasksOperator(task_id="whole", rules=other)
        ModelArtsAuditProcessorTasksOperator(task_id="part", rules={"longest_seconds": other["total"]})
        with pytest.raises(ValueError, match="unknown audit rule longest "):
            ModelArtsAuditProcessorTasksOperator(task_id="wrong", rules={"longest": other["total"]})


# Verdicts


def test_too_many_stopped_tasks_break_a_rule() -> None:
    stopped = tasks(3, status=4)
    assert messages(*stopped, stopped_allowed=2) == {
        "stopped_allowed": "3 tasks have been stopped, more than the 2 allowed"
    }
    assert messages(*stopped, stopped_allowed=3) == {}
    assert messages(*stopped) == {}
    assert report_on(*stopped).findings["stopped"].count == 0


def test_too_few_tasks_break_a_rule() -> None:
    assert messages(tasks_required=1) == {"tasks_required": "0 tasks were created, fewer than the 1 required"}
    assert messages(*tasks(1), tasks_required=2) == {"tasks_required": "1 task was created, fewer than the 2 required"}
    assert messages(*tasks(2), tasks_required=2) == {}


@pytest.mark.parametrize(("failed", "allowed", "broken"), [(29, 0.29, False), (30, 0.29, True), (1, 0, True)])
def test_a_rate_of_failures_is_of_the_ended_tasks(failed: int, allowed: float, broken: bool) -> None:
    found = [*tasks(failed, status=3), *tasks(100 - failed), *tasks(50, status=1)]
    judged = messages(*found, failures_allowed=None, failure_rate_allowed=allowed)
    share = f"{failed} % of 100 tasks that ended failed, more than the {100 * allowed:.4g} % allowed"
    assert judged == ({"failure_rate_allowed": share} if broken else {})


def test_a_rate_holds_while_no_task_has_ended() -> None:
    assert messages(*tasks(2, status=1), failure_rate_allowed=0) == {}


def test_a_template_has_rules_of_its_own() -> None:
    found = [
        *tasks(3, status=3),
        *tasks(2, status=3, template={"id": "noisy"}),
        *tasks(4, duration_seconds=600, template={"id": "slow"}),
        *tasks(1, duration_seconds=600),
    ]
    rules = {
        "failures_allowed": 2,
        "longest_seconds": 60,
        "by_template": {"noisy": {"failures_allowed": 1}, "slow": {"longest_seconds": "1h", "tasks_required": 5}},
    }
    assert messages(*found, **rules) == {
        "failures_allowed": "3 tasks have failed, more than the 2 allowed; "
        "noisy: 2 tasks have failed, more than the 1 allowed",
        "tasks_required": "slow: 4 tasks were created, fewer than the 5 required",
        "longest_seconds": "1 task lasted longer than 1 min",
    }


def test_findings_of_a_template_count_for_its_own_rule_alone() -> None:
    found = [*tasks(2, status=3), *tasks(5, status=3, template={"id": "noisy"})]
    assert messages(*found, failures_allowed=2, by_template={"noisy": {"failures_allowed": 5}}) == {}
    assert report_on(*found, by_template={"noisy": {"failures_allowed": 5}}).findings["failed"].count == 7


def test_all_tasks_count_for_the_minimum_without_a_template() -> None:
    found = [*tasks(2), *tasks(3, template={"id": "other"})]
    assert messages(*found, tasks_required=5, by_template={"other": {"tasks_required": 3}}) == {}


def test_a_rule_of_a_template_alone_is_checked() -> None:
    rules = AuditRules(by_template={"slow": {"stuck_after_seconds": 60}})
    assert rules.is_checked("stuck_after_seconds")
    active = tasks(1, status=1, template={"id": "slow"}) + tasks(1, status=1)
    assert audit(active, window=DAY, now=DAY.end, rules=rules).broken_rules[0].message.startswith("slow: 1 task is")


@pytest.mark.parametrize(
    ("found", "rules", "verdict"),
    [
        ([], {}, "There was no task to check"),
        ([], {"tasks_required": 1}, "1 of 3 rules is broken"),
        ([], {"failures_allowed": None, "outputs_required": False}, "No rule was checked"),
        (tasks(1), {}, "All 2 rules hold"),
        (tasks(1), {"failures_allowed": None}, "The rule holds"),
        (tasks(1, status=3), {"failure_rate_allowed": 0}, "2 of 3 rules are broken"),
    ],
)
def test_the_verdict_says_when_there_was_nothing_to_check(
    found: list[ProcessorTask], rules: dict[str, Any], verdict: str
) -> None:
    report = report_on(*found, **rules)
    assert report.verdict == report.summary()["verdict"] == report.to_json()["verdict"] == verdict


def test_an_empty_window_breaks_no_rule() -> None:
    report = audit([], window=Window(START, START), now=DAY.end, rules=AuditRules(tasks_required=1))
    assert report.broken_rules == ()
    assert report.verdict == "There was no task to check"
