"""The verdicts of an audit: which rules are broken, given the counts of tasks and findings. It sees no task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from airflow_modelarts.api.statuses import ProcessorTaskStatus
from airflow_modelarts.audit.rules import AuditRules
from airflow_modelarts.audit.text import format_duration, percent

_ENDED = tuple(status.name.lower() for status in ProcessorTaskStatus if status.is_terminal)


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts that a rule is judged by.

    :param by_status: the number of tasks of each status.
    :param found: the number of findings of each check.
    """

    by_status: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.by_status - other.by_status, self.found - other.found)

    @property
    def ended(self) -> int:
        """The number of tasks that have ended."""
        return sum(self.by_status[status] for status in _ENDED)


@dataclass(frozen=True, slots=True)
class Rule:
    """How a rule is judged.

    :param name: the field of :class:`AuditRules`.
    :param check: the check whose findings break it; None if it is about all tasks.
    :param judge: returns what is wrong, given the counts and the rules; None if the rule holds or is not checked.
    """

    name: str
    check: str | None
    judge: Callable[[Tally, AuditRules], str | None]


def broken_rules(total: Tally, by_template: Mapping[str, Tally], rules: AuditRules) -> dict[str, str]:
    """Return what is wrong for each rule that is broken, in the order of RULES.

    :param total: the counts of all tasks.
    :param by_template: those of the tasks of each template that has rules of its own.
    """
    broken = {}
    for rule in RULES:
        own = {template: by_template.get(template, Tally()) for template in rules.templates}
        own = {template: tally for template, tally in own.items() if rules.is_own(rule.name, template)}
        others = total
        for tally in own.values() if rule.name != "tasks_required" else ():
            others -= tally
        messages = [rule.judge(others, rules)]
        for template, tally in own.items():
            message = rule.judge(tally, rules.of(template))
            messages.append(message and f"{template}: {message}")
        if any(messages):
            broken[rule.name] = "; ".join(filter(None, messages))
    return broken


def _failures(tally: Tally, rules: AuditRules) -> str | None:
    return _more_than(tally.found["failed"], rules.limit("failures_allowed"), "failed")


def _stopped(tally: Tally, rules: AuditRules) -> str | None:
    return _more_than(tally.found["stopped"], rules.limit("stopped_allowed"), "been stopped")


def _more_than(count: int, allowed: float | None, what: str) -> str | None:
    if allowed is None or count <= allowed:
        return None
    return f"{_tasks(count, 'has', 'have')} {what}" + (f", more than the {allowed:,} allowed" if allowed else "")


def _failure_rate(tally: Tally, rules: AuditRules) -> str | None:
    failed, allowed = tally.found["failed"], rules.limit("failure_rate_allowed")
    if allowed is None or not failed or failed / tally.ended <= allowed:
        return None
    share = percent(failed, tally.ended)
    return f"{share} of {_tasks(tally.ended)} that ended failed, more than the {100 * allowed:.4g} % allowed"


def _too_few(tally: Tally, rules: AuditRules) -> str | None:
    count, required = tally.by_status.total(), rules.limit("tasks_required")
    if required is None or count >= required:
        return None
    return f"{_tasks(count, 'was', 'were')} created, fewer than the {required:,} required"


def _long(tally: Tally, rules: AuditRules) -> str | None:
    limit = rules.limit("longest_seconds")
    if limit is None or not (count := tally.found["long"]):
        return None
    return f"{_tasks(count)} lasted longer than {format_duration(limit)}"


def _stuck(tally: Tally, rules: AuditRules) -> str | None:
    limit = rules.limit("stuck_after_seconds")
    if limit is None or not (count := tally.found["stuck"]):
        return None
    return f"{_tasks(count, 'is', 'are')} still initialized or running after {format_duration(limit)}"


def _outside(tally: Tally, rules: AuditRules) -> str | None:
    if rules.allowed_output_prefixes is None or not (count := tally.found["outside"]):
        return None
    return f"{_tasks(count, 'writes', 'write')} outside the allowed places in OBS"


def _without_output(tally: Tally, rules: AuditRules) -> str | None:
    count = tally.found["without_output"]
    return f"{_tasks(count)} completed and named no output" if count and rules.outputs_required else None


def _tasks(count: int, one: str = "", many: str = "") -> str:
    return f"{count:,} {'task' if count == 1 else 'tasks'} {one if count == 1 else many}".rstrip()


RULES = (
    Rule("failures_allowed", "failed", _failures),
    Rule("failure_rate_allowed", "failed", _failure_rate),
    Rule("stopped_allowed", "stopped", _stopped),
    Rule("tasks_required", None, _too_few),
    Rule("longest_seconds", "long", _long),
    Rule("stuck_after_seconds", "stuck", _stuck),
    Rule("allowed_output_prefixes", "outside", _outside),
    Rule("outputs_required", "without_output", _without_output),
)
