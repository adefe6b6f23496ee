"""The audit itself: from a stream of tasks to a report on those of a time window."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_modelarts.api.newest_first import NewestFirst
from airflow_modelarts.audit.findings import CHECKS, Finding, template_id
from airflow_modelarts.audit.rules import AuditRules
from airflow_modelarts.audit.text import format_datetime, from_milliseconds, iso, milliseconds, shorten

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorTask

#: Findings of each check that a report keeps; the others are only counted.
KEPT_FINDINGS = 10_000
#: Limits of a summary: findings of a check, templates or statuses, characters of a message.
SUMMARY_FINDINGS, SUMMARY_GROUPS, SUMMARY_MESSAGE = 10, 20, 200
#: The bounds of the duration groups, in seconds.
DURATION_BOUNDS = (60, 5 * 60, 15 * 60, 60 * 60, 4 * 3600, 12 * 3600, 24 * 3600)
#: The steps that a timeline may have, in seconds. A longer window has steps of whole weeks.
TIMELINE_STEPS = (60, 300, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600)
MAX_STEPS = 60
WEEK = 7 * 24 * 3600
OUT_OF_ORDER = "The service did not list the tasks newest first, so the whole list was read."
#: The name under which tasks without a template are counted.
UNKNOWN_TEMPLATE = "unknown"


@dataclass(frozen=True, slots=True)
class Window:
    """
    The time in which the audited tasks were created, in UTC. The start is inclusive, the end exclusive.

    :param start: the end as well if the window is empty.
    :param covered: ranges in it that earlier audits have covered, in milliseconds since the epoch, in order. Their
        tasks are left out.
    :raises ValueError: a moment has no time zone, or the end is before the start.
    """

    start: datetime
    end: datetime
    covered: Sequence[tuple[int, int]] = ()

    def __post_init__(self) -> None:
        for name, moment in (("start", self.start), ("end", self.end)):
            if moment.tzinfo is None:
                raise ValueError(f"the window's {name} is {moment}: give it a time zone")
            object.__setattr__(self, name, moment.astimezone(UTC))  # differences within a zone ignore clock changes
        if self.start > self.end:
            raise ValueError(f"the window ends at {self.end}, which is before its start at {self.start}")

    @property
    def is_empty(self) -> bool:
        """Whether no task can be in it."""
        return self.start == self.end

    def contains(self, task: ProcessorTask) -> bool:
        """Return whether a task was created in the window; false if its ``create_time`` is unknown."""
        created = task.create_time
        if created is None or not milliseconds(self.start) <= created < milliseconds(self.end):
            return False
        return not any(start <= created < end for start, end in self.covered)

    @property
    def step_seconds(self) -> int:
        """The length of a step of the timeline."""
        seconds = (self.end - self.start).total_seconds()
        weeks = math.ceil(seconds / MAX_STEPS / WEEK)
        return next((step for step in TIMELINE_STEPS if seconds <= step * MAX_STEPS), weeks * WEEK)

    @property
    def step_count(self) -> int:
        """The number of steps that cover the window."""
        return math.ceil((self.end - self.start).total_seconds() / self.step_seconds)

    def step_start(self, index: int) -> datetime:
        """Return the start of a step in UTC, counted from zero."""
        return self.start + timedelta(seconds=index * self.step_seconds)

    def to_json(self) -> dict[str, Any]:
        """Return the bounds in ISO 8601; ``covered`` only if there is such a range."""
        bounds: dict[str, Any] = {"start": iso(self.start), "end": iso(self.end)}
        covered = [[iso(from_milliseconds(moment)) for moment in pair] for pair in self.covered]
        return {**bounds, "covered": covered} if covered else bounds

    def __str__(self) -> str:
        return f"{format_datetime(self.start)} to {format_datetime(self.end)} UTC"


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of a check: all are counted, the first KEPT_FINDINGS are kept."""

    count: int
    kept: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """A rule that tasks broke, a message about it, and the tasks."""

    rule: str
    message: str
    findings: Findings


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """
    The result of an audit.

    :param made_at: the moment that the report describes.
    :param total: the number of tasks created in the window; all other counts are of these.
    :param undated: the number of listed tasks without ``create_time``.
    :param by_template: for each template, the number of tasks of each status.
    :param timeline: for each step of the window with tasks, the number of tasks of each status.
    :param durations: for each template, the number of terminal tasks in each group that DURATION_BOUNDS delimits.
    :param findings: by the name of their check.
    :param order_held: whether the list was sorted newest first, as far as it was read.
    :param notes: sentences on what the window and the list leave open.
    """

    window: Window
    made_at: datetime
    rules: AuditRules
    total: int
    undated: int
    by_status: Mapping[str, int]
    by_template: Mapping[str, Mapping[str, int]]
    timeline: Mapping[int, Mapping[str, int]]
    durations: Mapping[str, Sequence[int]]
    findings: Mapping[str, Findings]
    order_held: bool = True
    notes: Sequence[str] = ()

    @property
    def broken_rules(self) -> tuple[BrokenRule, ...]:
        """The rules that tasks broke, in the order of the checks."""
        found = ((check, self.findings[check.name]) for check in CHECKS)
        verdicts = ((check, findings, check.verdict(findings.count, self.rules)) for check, findings in found)
        return tuple(BrokenRule(check.rule, message, findings) for check, findings, message in verdicts if message)

    def to_json(self) -> dict[str, Any]:
        """Return the whole report as JSON: times in ISO 8601, durations in seconds."""
        return {
            **self._head(),
            "by_status": dict(self.by_status),
            "made_at": iso(self.made_at),
            "by_template": {template: dict(counts) for template, counts in self.by_template.items()},
            "timeline": {
                "step_seconds": self.window.step_seconds,
                "steps": [
                    {"start": iso(self.window.step_start(index)), "by_status": dict(counts)}
                    for index, counts in sorted(self.timeline.items())
                ],
            },
            "durations": {
                "bounds_seconds": list(DURATION_BOUNDS),
                "by_template": {template: list(counts) for template, counts in self.durations.items()},
            },
            "rules": self.rules.to_json(),
            "findings": {
                name: {"count": findings.count, "tasks": [finding.to_json() for finding in findings.kept]}
                for name, findings in self.findings.items()
            },
        }

    def summary(self) -> dict[str, Any]:
        """Return the main facts as JSON of a few kilobytes, for an XCom."""
        templates = Counter({template: sum(counts.values()) for template, counts in self.by_template.items()})
        return {
            **self._head(),
            "by_status": dict(_top(Counter(self.by_status))),
            "by_template": dict(_top(templates)),
            "findings": {name: _outline(findings) for name, findings in self.findings.items()},
            "failures": [
                {
                    "task_id": finding.task_id,
                    "name": finding.name,
                    "error_msg": shorten(finding.detail, SUMMARY_MESSAGE) or None,
                }
                for finding in self.findings["failed"].kept[:SUMMARY_FINDINGS]
            ],
        }

    def _head(self) -> dict[str, Any]:
        return {
            "window": self.window.to_json(),
            "total": self.total,
            "undated": self.undated,
            "order_held": self.order_held,
            "notes": list(self.notes),
            "broken_rules": {broken.rule: broken.message for broken in self.broken_rules},
        }


def _top(counts: Counter[str]) -> Iterator[tuple[str, int]]:
    """Yield the largest counts, and the sum of the others."""
    top = counts.most_common(SUMMARY_GROUPS)
    yield from top
    if others := counts.total() - sum(count for _, count in top):
        yield "(others)", others


def _outline(findings: Findings) -> dict[str, Any]:
    ids = [finding.task_id for finding in findings.kept[:SUMMARY_FINDINGS]]
    return {"count": findings.count, "task_ids": ids, "more": findings.count - len(ids)}


def audit(
    tasks: Iterable[ProcessorTask],
    *,
    window: Window,
    now: datetime,
    rules: AuditRules | None = None,
    notes: Sequence[str] = (),
) -> AuditReport:
    """
    Audit the tasks that were created in the window, reading one task at a time.

    No task is kept: memory grows with the findings only, and their number is limited.

    :param tasks: a list sorted newest first; it is not read far beyond the window's start.
    :param now: the moment at which active tasks are checked for being stuck.
    :param rules: default ``AuditRules()``.
    :param notes: sentences for the readers of the report.
    """
    rules = rules or AuditRules()
    undated, by_status = 0, Counter[str]()
    by_template, timeline = dict[str, Counter[str]](), dict[int, Counter[str]]()
    durations: dict[str, list[int]] = {}
    found, kept = Counter[str](), {check.name: list[Finding]() for check in CHECKS}
    start, step, at = milliseconds(window.start), window.step_seconds * 1000, milliseconds(now)
    listed = NewestFirst(tasks, start)
    for task in listed:
        undated += task.create_time is None
        if task.create_time is None or not window.contains(task):
            continue
        template, status = template_id(task) or UNKNOWN_TEMPLATE, task.status_name
        by_status[status] += 1
        by_template.setdefault(template, Counter())[status] += 1
        timeline.setdefault((task.create_time - start) // step, Counter())[status] += 1
        if task.is_terminal and task.duration_seconds is not None:
            groups = durations.setdefault(template, [0] * (len(DURATION_BOUNDS) + 1))
            groups[sum(task.duration_seconds >= bound for bound in DURATION_BOUNDS)] += 1
        for check in CHECKS:
            if (detail := check.find(task, rules, at)) is not None:
                found[check.name] += 1
                if found[check.name] <= KEPT_FINDINGS:
                    kept[check.name].append(Finding.of(task, detail))
    return AuditReport(
        window=window,
        made_at=now,
        rules=rules,
        total=by_status.total(),
        undated=undated,
        by_status=by_status,
        by_template=by_template,
        timeline=timeline,
        durations=durations,
        findings={name: Findings(found[name], tuple(findings)) for name, findings in kept.items()},
        order_held=listed.order_held,
        notes=(*notes, *([] if listed.order_held else [OUT_OF_ORDER])),
    )
