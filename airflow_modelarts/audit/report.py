"""The audit itself: from a stream of tasks to a report on those of a time window."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_modelarts.api.newest_first import NewestFirst
from airflow_modelarts.audit.change import Previous
from airflow_modelarts.audit.findings import CHECKS, BrokenRule, Finding, Findings, template_id
from airflow_modelarts.audit.markdown import to_markdown
from airflow_modelarts.audit.reading import Unreadable, UnreadableFields
from airflow_modelarts.audit.rules import AuditRules
from airflow_modelarts.audit.scope import Scope
from airflow_modelarts.audit.statistics import Statistics, StatisticsCounter
from airflow_modelarts.audit.text import format_datetime, from_milliseconds, iso, milliseconds, sanitize, shorten
from airflow_modelarts.audit.verdicts import RULES, Tally, broken_rules

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorTask

#: The version of the report's JSON. It grows when a field is renamed or removed, or changes its meaning.
SCHEMA_VERSION = 1
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
    """The time in which the audited tasks were created, in UTC. The start is inclusive, the end exclusive.

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

    def title(self, zone: tzinfo = UTC) -> str:
        """Return the day that the window is; else start and end."""
        start, end = self.start.astimezone(zone), self.end.astimezone(zone)
        if start.time() == end.time() == time() and start.date() + timedelta(days=1) == end.date():
            return f"{start.day} {start:%B %Y}"
        return f"{start.day} {start:%b %Y %H:%M} to {end.day} {end:%b %Y %H:%M}"

    def format(self, zone: tzinfo = UTC) -> str:
        """Return start and end in a time zone, and its name."""
        return f"{format_datetime(self.start, zone)} to {format_datetime(self.end, zone)} {zone}"

    def __str__(self) -> str:
        return self.format()


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """The result of an audit.

    :param made_at: the moment that the report describes.
    :param total: the number of tasks created in the window; all other counts are of these.
    :param undated: the number of listed tasks without ``create_time``.
    :param by_template: for each template, the number of tasks of each status.
    :param timeline: for each step of the window with tasks, the number of tasks of each status.
    :param durations: for each template, the number of terminal tasks in each group that DURATION_BOUNDS delimits.
    :param findings: by the name of their check.
    :param statistics: the durations of terminal tasks by template, name and source.
    :param previous: the audit before; None if no report of it was found.
    :param zone: the time zone in which the page and the Markdown show times. JSON has UTC.
    :param scope: whose tasks were audited, with which filters, and by which run.
    :param unreadable: what of the list could not be read.
    :param deleted_while_listing: at least so many tasks were deleted while the list was read. A deletion moves the
        rest of the list up, so the audit can have missed as many tasks that still exist.
    :param not_listed: so many tasks the service counted and did not list, although the list was read to its end.
    :param rows_path: the file with a row for each task of the window; None if there is none.
    :param order_held: whether the list was sorted newest first, as far as it was read.
    :param notes: sentences on what the window and the list leave open.
    """

    window: Window
    made_at: datetime
    rules: AuditRules
    scope: Scope = field(default_factory=Scope)
    unreadable: Unreadable = field(default_factory=Unreadable)
    deleted_while_listing: int = 0
    not_listed: int = 0
    rows_path: str | None = None
    total: int
    undated: int
    by_status: Mapping[str, int]
    by_template: Mapping[str, Mapping[str, int]]
    timeline: Mapping[int, Mapping[str, int]]
    durations: Mapping[str, Sequence[int]]
    findings: Mapping[str, Findings]
    statistics: Statistics = field(default_factory=Statistics)
    previous: Previous | None = None
    zone: tzinfo = UTC
    order_held: bool = True
    notes: Sequence[str] = ()

    @cached_property
    def broken_rules(self) -> tuple[BrokenRule, ...]:
        """The rules that are broken, in the order of RULES; none if the window is empty."""
        if self.window.is_empty:
            return ()
        tallies = {template: self._tally(template) for template in self.rules.templates}
        messages = broken_rules(self.tally, tallies, self.rules)
        return tuple(
            BrokenRule(rule.name, messages[rule.name], self.findings[rule.check] if rule.check else Findings(0, ()))
            for rule in RULES
            if rule.name in messages
        )

    @property
    def tally(self) -> Tally:
        """The counts of all tasks and findings."""
        found = Counter({name: findings.count for name, findings in self.findings.items()})
        return Tally(Counter(self.by_status), found)

    @property
    def change(self) -> dict[str, Any] | None:
        """What has changed since the audit before; None if it is not known."""
        if self.previous is None:
            return None
        seconds = self.statistics.total.seconds if self.statistics.total else 0
        return self.previous.change(self.total, self.by_status.get("failed", 0), seconds)

    def to_markdown(self) -> str:
        """Return the main facts in at most ten lines of Markdown, in which texts of the service cannot break out."""
        return to_markdown(self)

    @property
    def verdict(self) -> str:
        """One sentence: how many rules are broken, that all hold, or that there was nothing to check."""
        checked = sum(self.rules.is_checked(rule.name) for rule in RULES)
        if broken := len(self.broken_rules):
            return f"{broken} of {checked} rules {'is' if broken == 1 else 'are'} broken"
        if not checked:
            return "No rule was checked"
        if not self.total:
            return "There was no task to check"
        return f"All {checked} rules hold" if checked > 1 else "The rule holds"

    def _tally(self, template: str) -> Tally:
        found = Counter({name: findings.by_template.get(template, 0) for name, findings in self.findings.items()})
        return Tally(Counter(self.by_template.get(template, {})), found)

    @property
    def gaps(self) -> tuple[str, ...]:
        """Sentences on what of the list could not be read, or can be missing."""
        sentences = self.unreadable.describe()
        if deleted := self.deleted_while_listing:
            sentences.append(
                f"At least {deleted:,} {'task was' if deleted == 1 else 'tasks were'} deleted while the list was read: "
                "as many others can be missing here."
            )
        if missing := self.not_listed:
            sentences.append(
                f"The service counted {missing:,} more {'task' if missing == 1 else 'tasks'} than it listed: "
                f"{'it' if missing == 1 else 'they'} can be missing here."
            )
        return tuple(sentences)

    def to_json(self) -> dict[str, Any]:
        """Return the whole report as JSON: times in ISO 8601, durations in seconds.

        :mod:`airflow_modelarts.audit.schema` describes it.
        """
        return {
            "schema_version": SCHEMA_VERSION,
            **self._head(),
            "dag_id": self.scope.dag_id,
            "run_id": self.scope.run_id,
            "rows_path": self.rows_path,
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
            "statistics": self.statistics.to_json(),
            "rules": self.rules.to_json(),
            "findings": {
                name: {
                    "count": findings.count,
                    "left_out": findings.left_out,
                    "tasks": [finding.to_json() for finding in findings.kept],
                }
                for name, findings in self.findings.items()
            },
        }

    def summary(self) -> dict[str, Any]:
        """Return the main facts as JSON of a few kilobytes, for an XCom."""
        templates = Counter({template: sum(counts.values()) for template, counts in self.by_template.items()})
        return {
            **self._head(),
            "markdown": self.to_markdown(),
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
            "verdict": self.verdict,
            **self.scope.to_json(),
            "total": self.total,
            "undated": self.undated,
            "unreadable": self.unreadable.to_json(),
            "deleted_while_listing": self.deleted_while_listing,
            "not_listed": self.not_listed,
            "order_held": self.order_held,
            "notes": list(self.notes),
            "broken_rules": {broken.rule: broken.message for broken in self.broken_rules},
            "change": self.change,
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
    console_url: Callable[[str], str | None] = lambda task_id: None,
    scope: Scope | None = None,
    on_task: Callable[[ProcessorTask, Sequence[str]], None] | None = None,
    notes: Sequence[str] = (),
) -> AuditReport:
    """Audit the tasks that were created in the window, reading one task at a time.

    No task is kept: memory grows with the findings only, and their number is limited.

    :param tasks: a list sorted newest first; it is not read far beyond the window's start.
    :param now: the moment at which active tasks are checked for being stuck.
    :param rules: default ``AuditRules()``.
    :param console_url: returns the address of a task in the web console.
    :param scope: whose tasks they are; the report repeats it. With its ``statuses``, tasks of others are left out.
    :param on_task: called with each task of the window, and the names of the checks that found something in it.
    :param notes: sentences for the readers of the report.
    """
    rules = rules or AuditRules()
    unreadable = UnreadableFields()
    seconds, found_by_template = StatisticsCounter(), {check.name: Counter[str]() for check in CHECKS}
    undated, by_status = 0, Counter[str]()
    by_template, timeline = dict[str, Counter[str]](), dict[int, Counter[str]]()
    durations: dict[str, list[int]] = {}
    found, kept = Counter[str](), {check.name: list[Finding]() for check in CHECKS}
    start, step, at = milliseconds(window.start), window.step_seconds * 1000, milliseconds(now)
    listed = NewestFirst(tasks, start)
    statuses = scope.statuses if scope else ()
    for task in listed:
        if statuses and task.status not in statuses:
            continue
        undated += task.create_time is None
        if task.create_time is None or window.contains(task):
            unreadable.add(task)
        if task.create_time is None or not window.contains(task):
            continue
        template, status = template_id(task) or UNKNOWN_TEMPLATE, task.status_name
        by_status[status] += 1
        by_template.setdefault(template, Counter())[status] += 1
        timeline.setdefault((task.create_time - start) // step, Counter())[status] += 1
        if task.is_terminal and task.duration_seconds is not None:
            groups = durations.setdefault(template, [0] * (len(DURATION_BOUNDS) + 1))
            groups[sum(task.duration_seconds >= bound for bound in DURATION_BOUNDS)] += 1
            seconds.add(task, template)
        found_in_task = []
        for check in CHECKS:
            if (detail := check.find(task, rules.of(template), at)) is not None:
                found_in_task.append(check.name)
                found[check.name] += 1
                if template in rules.templates:
                    found_by_template[check.name][template] += 1
                if found[check.name] <= KEPT_FINDINGS:
                    kept[check.name].append(Finding.of(task, detail, console_url(sanitize(task.task_id))))
        if on_task is not None:
            on_task(task, found_in_task)
    return AuditReport(
        window=window,
        made_at=now,
        rules=rules,
        scope=scope or Scope(),
        unreadable=unreadable.result(),
        total=by_status.total(),
        undated=undated,
        by_status=by_status,
        by_template=by_template,
        timeline=timeline,
        durations=durations,
        findings={
            name: Findings(found[name], tuple(findings), found_by_template[name]) for name, findings in kept.items()
        },
        statistics=seconds.result(),
        order_held=listed.order_held,
        notes=(*notes, *([] if listed.order_held else [OUT_OF_ORDER])),
    )
