"""Audits: from a stream of processing tasks to a report on them. Pure: no calls, no files and no clock of its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Self

from airflow_modelarts.api.statuses import ProcessorTaskStatus
from airflow_modelarts.assets import obs_uri

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorTask

#: What a report keeps of each kind of finding; more are counted.
KEPT_FINDINGS = 10_000
#: Characters of a text of the service's that a report keeps; names and ids are shorter anyway.
LONGEST_MESSAGE, LONGEST_NAME = 1000, 200
#: What an XCom holds: findings of a kind, templates as well as statuses, characters of a message.
SUMMARY_FINDINGS, SUMMARY_GROUPS, SUMMARY_MESSAGE = 10, 20, 200
#: Where the groups of durations end, in seconds.
DURATION_BOUNDS = (60, 5 * 60, 15 * 60, 60 * 60, 4 * 3600, 12 * 3600, 24 * 3600)
#: The steps of a timeline, in seconds, of which it has at most so many; beyond them it goes by weeks.
TIMELINE_STEPS = (60, 300, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600)
MOST_STEPS = 60
WEEK = 7 * 24 * 3600
#: A template that a task does not tell.
UNKNOWN_TEMPLATE = "unknown"

_NUMBERS = ("failures_allowed", "longest_seconds", "stuck_after_seconds")
_ACTIVE = (ProcessorTaskStatus.INITIALIZED, ProcessorTaskStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class Window:
    """
    From when to when the audited tasks were created: the start belongs to it, the end does not.

    :raises ValueError: a moment has no time zone, or the end is not after the start.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name, moment in (("start", self.start), ("end", self.end)):
            if moment.tzinfo is None:
                raise ValueError(f"the window's {name} is {moment}: give it a time zone")
        if self.start >= self.end:
            raise ValueError(f"the window ends at {self.end}, which is not after its start at {self.start}")

    def holds(self, task: ProcessorTask) -> bool:
        """Whether a task was created in it; one that does not say when was not."""
        return task.create_time is not None and milliseconds(self.start) <= task.create_time < milliseconds(self.end)

    @property
    def step_seconds(self) -> int:
        """How much of it a column of the timeline stands for."""
        seconds = (self.end - self.start).total_seconds()
        weeks = math.ceil(seconds / MOST_STEPS / WEEK)
        return next((step for step in TIMELINE_STEPS if seconds <= step * MOST_STEPS), weeks * WEEK)

    def __str__(self) -> str:
        return f"{format_datetime(self.start)} to {format_datetime(self.end)} UTC"


@dataclass(frozen=True, kw_only=True)
class AuditRules:
    """
    What tasks have to comply with. A rule that is None is not checked.

    :param failures_allowed: how many tasks may have failed, default 0.
    :param longest_seconds: how long a task may take, by its ``duration_seconds``, in seconds; default any time.
    :param stuck_after_seconds: how long a task may be initialized or running, in seconds; default any time.
    :param allowed_output_prefixes: the folders in OBS, or whole buckets, below which tasks may write, such as
        ``obs://bucket/team``; it is not the beginning of a name, so ``obs://bucket/team-2`` is not below that. Default
        anywhere. What a task writes into a dataset is not in its sight.
    :param outputs_required: whether a completed task has to name an output, default true. It is not asked of feature
        analyses, whose output is their result.
    :raises ValueError: a prefix is no place in OBS, or a number is negative or none.
    """

    failures_allowed: int | None = 0
    longest_seconds: float | None = None
    stuck_after_seconds: float | None = None
    allowed_output_prefixes: Sequence[str] | None = None
    outputs_required: bool = True

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ValueError(f"{name} is {value!r}: give a number that is not negative, or None")
        if not isinstance(self.outputs_required, bool):
            raise ValueError(f"outputs_required is {self.outputs_required!r}: give True or False")
        if self.allowed_output_prefixes is not None:
            prefixes = self.allowed_output_prefixes
            listed = [prefixes] if isinstance(prefixes, str) else prefixes
            object.__setattr__(self, "allowed_output_prefixes", tuple(map(_prefix, listed)))

    @classmethod
    def of(cls, rules: Mapping[str, Any]) -> Self:
        """
        Read rules by their names; numbers may be text, as templates make it.

        :raises ValueError: there is no such rule, or it is not like that.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(rules) - set(known)):
            raise ValueError(f"there is no rule {', '.join(unknown)}, but {', '.join(known)}")
        return cls(**{name: _number(value) if name in _NUMBERS else value for name, value in rules.items()})

    def to_json(self) -> dict[str, Any]:
        """Return the rules by their names, the places in OBS under their URIs."""
        prefixes = self.allowed_output_prefixes
        return {**asdict(self), "allowed_output_prefixes": None if prefixes is None else list(prefixes)}


def _number(value: Any) -> Any:
    """Read a number from text; what is none is left for the rules to refuse."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _prefix(place: str) -> str:
    uri = obs_uri(place, is_in_obs=True)
    if uri is None:
        raise ValueError(f"allowed_output_prefixes has {place!r}: write places in OBS as obs://bucket/folder")
    return uri


@dataclass(frozen=True, slots=True)
class Finding:
    """
    A task that a check has found.

    :param create_time: milliseconds since the epoch.
    :param detail: what was found: the error message of a failure, the place of an output; may be empty.
    """

    task_id: str
    name: str | None
    template_id: str | None
    status_name: str
    create_time: int | None
    duration_seconds: int | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check has found: all of it counted, the first KEPT_FINDINGS kept."""

    count: int
    kept: Sequence[Finding]


@dataclass(frozen=True)
class Check:
    """
    What is looked at in every task.

    :param name: of its findings.
    :param rule: the field of :class:`AuditRules` that says how much of it is allowed.
    :param title: over its findings.
    :param column: over their details.
    :param find: says what is there to say about a task; None when nothing is.
    :param verdict: says what is wrong with so many findings; None when nothing is.
    """

    name: str
    rule: str
    title: str
    column: str
    find: Callable[[ProcessorTask, AuditRules, int], str | None]
    verdict: Callable[[int, AuditRules], str | None]


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """A rule that tasks have broken, what it says about them, and which they are."""

    rule: str
    message: str
    findings: Findings


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """
    What an audit has found.

    :param made_at: the moment it stands for.
    :param total: tasks that were created in the window; all other numbers are about those.
    :param undated: tasks that were listed, but do not say when they were created.
    :param by_template: how many tasks of a template have which status.
    :param timeline: how many tasks of each status were created in each step of the window, where there are any.
    :param durations: of the tasks of a template that have ended, how many lie between which DURATION_BOUNDS.
    :param findings: by the name of their check.
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

    @property
    def broken_rules(self) -> tuple[BrokenRule, ...]:
        """The rules that are broken, each with what broke it."""
        found = ((check, self.findings[check.name]) for check in CHECKS)
        verdicts = ((check, findings, check.verdict(findings.count, self.rules)) for check, findings in found)
        return tuple(BrokenRule(check.rule, message, findings) for check, findings, message in verdicts if message)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON: times as in ISO 8601, durations in seconds."""
        start, step = self.window.start.timestamp(), self.window.step_seconds
        return {
            **self._head(),
            "by_status": dict(self.by_status),
            "made_at": _iso(self.made_at),
            "by_template": {template: dict(counts) for template, counts in self.by_template.items()},
            "timeline": {
                "step_seconds": step,
                "steps": [
                    {"start": _iso(datetime.fromtimestamp(start + number * step, UTC)), "by_status": dict(counts)}
                    for number, counts in sorted(self.timeline.items())
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
        """Return what matters as JSON of a few kilobytes, whatever was found: for an XCom."""
        templates = Counter({template: sum(counts.values()) for template, counts in self.by_template.items()})
        return {
            **self._head(),
            "by_status": dict(_top(Counter(self.by_status), SUMMARY_GROUPS)),
            "by_template": dict(_top(templates, SUMMARY_GROUPS)),
            "findings": {name: _outline(findings) for name, findings in self.findings.items()},
            "failures": [_failure(finding) for finding in self.findings["failed"].kept[:SUMMARY_FINDINGS]],
        }

    def _head(self) -> dict[str, Any]:
        return {
            "window": {"start": _iso(self.window.start), "end": _iso(self.window.end)},
            "total": self.total,
            "undated": self.undated,
            "broken_rules": {broken.rule: broken.message for broken in self.broken_rules},
        }


def newest_first(tasks: Iterable[ProcessorTask], window: Window) -> Iterator[ProcessorTask]:
    """
    Read a list of tasks, newest first, until it is older than the window.

    A task without ``create_time`` does not end it: where the service sorts those is not documented. Nor do tasks that
    were created at the very start of the window, in whatever order those come.
    """
    start = milliseconds(window.start)
    return takewhile(lambda task: task.create_time is None or task.create_time >= start, tasks)


def audit(
    tasks: Iterable[ProcessorTask], *, window: Window, now: datetime, rules: AuditRules | None = None
) -> AuditReport:
    """
    Look at tasks, one after the other, and report on those that were created in the window.

    No task is held: memory grows with what is found, and that is limited.

    :param now: the moment by which tasks are stuck.
    :param rules: default :class:`AuditRules` as it is.
    """
    rules = rules or AuditRules()
    undated, by_status = 0, Counter[str]()
    by_template, timeline = dict[str, Counter[str]](), dict[int, Counter[str]]()
    durations: dict[str, list[int]] = {}
    found, kept = Counter[str](), {check.name: list[Finding]() for check in CHECKS}
    start, step, at = milliseconds(window.start), window.step_seconds * 1000, milliseconds(now)
    for task in tasks:
        undated += task.create_time is None
        if not window.holds(task):
            continue
        template, status = _template_id(task) or UNKNOWN_TEMPLATE, task.status_name
        by_status[status] += 1
        by_template.setdefault(template, Counter())[status] += 1
        timeline.setdefault(((task.create_time or 0) - start) // step, Counter())[status] += 1
        if task.is_terminal and task.duration_seconds is not None:
            groups = durations.setdefault(template, [0] * (len(DURATION_BOUNDS) + 1))
            groups[sum(task.duration_seconds >= bound for bound in DURATION_BOUNDS)] += 1
        for check in CHECKS:
            if (detail := check.find(task, rules, at)) is not None:
                found[check.name] += 1
                if found[check.name] <= KEPT_FINDINGS:
                    kept[check.name].append(_finding(task, detail))
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
    )


def _finding(task: ProcessorTask, detail: str) -> Finding:
    return Finding(
        task_id=sanitize(task.task_id),
        name=None if task.name is None else sanitize(task.name),
        template_id=_template_id(task),
        status_name=task.status_name,
        create_time=task.create_time,
        duration_seconds=task.duration_seconds,
        detail=sanitize(detail, LONGEST_MESSAGE),
    )


# The checks


def _failed(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    return (task.error_msg or "") if task.status == ProcessorTaskStatus.FAILED else None


def _long(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    seconds, bound = task.duration_seconds, rules.longest_seconds
    return (
        None if seconds is None or bound is None or seconds <= bound else f"by {format_duration(seconds - int(bound))}"
    )


def _stuck(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    if task.status not in _ACTIVE:
        return None
    # The creation says nothing about when the second version of a task began.
    again = (task.version_count or 0) > 1 or task.create_time is None
    seconds = task.duration_seconds if again else (now - (task.create_time or 0)) / 1000
    bound = rules.stuck_after_seconds
    return None if seconds is None or bound is None or seconds <= bound else format_duration(seconds)


def _outside(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    if rules.allowed_output_prefixes is None:
        return None
    outside = [
        place for place in _places(task) if not _is_below(obs_uri(place, is_in_obs=True), rules.allowed_output_prefixes)
    ]
    return ", ".join(obs_uri(place, is_in_obs=True) or place for place in outside) or None


def _places(task: ProcessorTask) -> Iterator[str]:
    """Yield the places in OBS where a task works and writes, as they are written; a dataset is none."""
    work_path = task.work_path
    if work_path is None:
        return
    # The reference does not tell whether "/datasets/demo" begins with a bucket.
    if work_path.output_path and "://" in work_path.output_path:
        yield work_path.output_path
    # No dataset's id has a slash.
    if work_path.path and (work_path.type == "OBS" or (work_path.type is None and "/" in work_path.path)):
        yield work_path.path


def _is_below(uri: str | None, prefixes: Sequence[str]) -> bool:
    return uri is not None and any(f"{uri}/".startswith(f"{prefix}/") for prefix in prefixes)


def _without_output(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    from airflow_modelarts.api.models import FEATURE_ANALYSIS

    work_path = task.work_path
    # A feature analysis leaves its result, which lists do not carry; one that does not tell its template may be one.
    if task.status != ProcessorTaskStatus.COMPLETED or _template_id(task) in (None, FEATURE_ANALYSIS):
        return None
    if work_path and (work_path.path or work_path.output_path):
        return None
    return "work_path names no place" if work_path else "no work_path"


def _too_many_failed(count: int, rules: AuditRules) -> str | None:
    allowed = rules.failures_allowed
    if allowed is None or count <= allowed:
        return None
    return f"{_tasks(count, 'has', 'have')} failed" + (f", more than the {allowed} allowed" if allowed else "")


def _too_long(count: int, rules: AuditRules) -> str | None:
    return f"{_tasks(count)} lasted longer than {format_duration(rules.longest_seconds or 0)}" if count else None


def _too_stuck(count: int, rules: AuditRules) -> str | None:
    bound = format_duration(rules.stuck_after_seconds or 0)
    return f"{_tasks(count, 'is', 'are')} still initialized or running after {bound}" if count else None


def _too_far_outside(count: int, rules: AuditRules) -> str | None:
    return f"{_tasks(count, 'writes', 'write')} outside the allowed places in OBS" if count else None


def _too_many_without_output(count: int, rules: AuditRules) -> str | None:
    return f"{_tasks(count)} completed and named no output" if count and rules.outputs_required else None


CHECKS = (
    Check("failed", "failures_allowed", "Failures", "Message", _failed, _too_many_failed),
    Check("long", "longest_seconds", "Longer than allowed", "Over the bound", _long, _too_long),
    Check("stuck", "stuck_after_seconds", "Stuck", "For", _stuck, _too_stuck),
    Check("outside", "allowed_output_prefixes", "Outputs outside", "Place", _outside, _too_far_outside),
    Check(
        "without_output", "outputs_required", "Missing outputs", "Missing", _without_output, _too_many_without_output
    ),
)


# Words and numbers


def milliseconds(moment: datetime) -> int:
    """Return a moment as the API counts it, since the epoch."""
    return round(moment.timestamp() * 1000)


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units, for example ``2 h 5 min``."""
    left, parts = max(int(seconds), 0), []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number:,} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def format_datetime(moment: datetime) -> str:
    """Return a moment in UTC to the minute, and to the second where it has some."""
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment.second else f"{moment:%Y-%m-%d %H:%M}"


def sanitize(text: str, limit: int = LONGEST_NAME) -> str:
    """Return a text of the service's as it can be shown: of limited length, without signed links and line breaks."""
    from airflow_modelarts.api.redaction import printable, without_signed_links

    return _cut(printable(without_signed_links(text)), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _template_id(task: ProcessorTask) -> str | None:
    return sanitize(task.template.id) if task.template and task.template.id else None


def _tasks(count: int, one: str = "", many: str = "") -> str:
    return f"{count:,} {'task' if count == 1 else 'tasks'} {one if count == 1 else many}".rstrip()


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _top(counts: Counter[str], limit: int) -> Iterator[tuple[str, int]]:
    """Yield the largest counts, and the others together."""
    yield from counts.most_common(limit)
    if others := counts.total() - sum(count for _, count in counts.most_common(limit)):
        yield "(others)", others


def _outline(findings: Findings) -> dict[str, Any]:
    ids = [finding.task_id for finding in findings.kept[:SUMMARY_FINDINGS]]
    return {"count": findings.count, "task_ids": ids, "more": findings.count - len(ids)}


def _failure(finding: Finding) -> dict[str, Any]:
    message = _cut(finding.detail, SUMMARY_MESSAGE) or None
    return {"task_id": finding.task_id, "name": finding.name, "error_msg": message}
