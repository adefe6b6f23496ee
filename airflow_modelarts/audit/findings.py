"""The checks of an audit: each looks for one fault in a task, and judges by the rules how many may have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from airflow_modelarts.api.places import obs_uri
from airflow_modelarts.api.statuses import ProcessorTaskStatus
from airflow_modelarts.audit.rules import AuditRules
from airflow_modelarts.audit.text import format_duration, sanitize

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorTask

#: Characters of a finding's detail that a report keeps.
MAX_DETAIL = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """
    A task in which a check found a fault.

    :param create_time: milliseconds since the epoch.
    :param detail: the fault: the error message of a failure, the place of an output; may be empty.
    """

    task_id: str
    name: str | None
    template_id: str | None
    status_name: str
    create_time: int | None
    duration_seconds: int | None
    detail: str

    @classmethod
    def of(cls, task: ProcessorTask, detail: str) -> Self:
        """Describe a task with text that can be shown."""
        return cls(
            task_id=sanitize(task.task_id),
            name=None if task.name is None else sanitize(task.name),
            template_id=template_id(task),
            status_name=task.status_name,
            create_time=task.create_time,
            duration_seconds=task.duration_seconds,
            detail=sanitize(detail, MAX_DETAIL),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Check:
    """
    A check, which every task of the window undergoes.

    :param name: the key of its findings in a report.
    :param rule: the field of :class:`AuditRules` that it checks.
    :param title: the heading of its findings.
    :param column: the heading of their details.
    :param find: returns the fault of a task, given the rules and the time in milliseconds since the epoch; else None.
    :param describe: says what is wrong, given the number of findings and the rules.
    """

    name: str
    rule: str
    title: str
    column: str
    find: Callable[[ProcessorTask, AuditRules, int], str | None]
    describe: Callable[[int, AuditRules], str]

    def verdict(self, count: int, rules: AuditRules) -> str | None:
        """Return what is wrong with this number of findings; None if the rule holds or is not checked."""
        allowed = (rules.failures_allowed or 0) if self.rule == "failures_allowed" else 0
        return self.describe(count, rules) if rules.is_checked(self.rule) and count > allowed else None


def template_id(task: ProcessorTask) -> str | None:
    """Return the id of a task's template as it can be shown; None if the task has none."""
    return sanitize(task.template.id) if task.template and task.template.id else None


def _failed(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    return (task.error_msg or "") if task.status == ProcessorTaskStatus.FAILED else None


def _describe_failed(count: int, rules: AuditRules) -> str:
    allowed = rules.failures_allowed
    return f"{_tasks(count, 'has', 'have')} failed" + (f", more than the {allowed} allowed" if allowed else "")


def _long(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    seconds, limit = task.duration_seconds, rules.longest_seconds
    if seconds is None or limit is None or seconds <= limit:
        return None
    return f"by {format_duration(seconds - int(limit))}"


def _describe_long(count: int, rules: AuditRules) -> str:
    return f"{_tasks(count)} lasted longer than {format_duration(rules.longest_seconds or 0)}"


def _stuck(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    if task.status not in (ProcessorTaskStatus.INITIALIZED, ProcessorTaskStatus.RUNNING):
        return None
    seconds: float | None = task.duration_seconds
    # With several versions, the creation of the task does not say when the newest version began.
    if task.create_time is not None and (task.version_count or 0) <= 1:
        seconds = (now - task.create_time) / 1000
    limit = rules.stuck_after_seconds
    return None if seconds is None or limit is None or seconds <= limit else format_duration(seconds)


def _describe_stuck(count: int, rules: AuditRules) -> str:
    limit = format_duration(rules.stuck_after_seconds or 0)
    return f"{_tasks(count, 'is', 'are')} still initialized or running after {limit}"


def _outside(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    prefixes = rules.allowed_output_prefixes
    if prefixes is None:
        return None
    outside = []
    for place in _output_places(task):
        uri = obs_uri(place, is_in_obs=True)
        if uri is None or not any(f"{uri}/".startswith(f"{prefix}/") for prefix in prefixes):
            outside.append(uri or place)
    return ", ".join(outside) or None


def _output_places(task: ProcessorTask) -> Iterator[str]:
    """Yield the places in OBS where a task writes, as the API writes them; a dataset is not one."""
    work_path = task.work_path
    if work_path is None:
        return
    # The API reference does not say whether "/datasets/demo" begins with a bucket.
    if work_path.output_path and "://" in work_path.output_path:
        yield work_path.output_path
    # A dataset's id has no slash.
    if work_path.path and (work_path.type == "OBS" or (work_path.type is None and "/" in work_path.path)):
        yield work_path.path


def _describe_outside(count: int, rules: AuditRules) -> str:
    return f"{_tasks(count, 'writes', 'write')} outside the allowed places in OBS"


def _without_output(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    from airflow_modelarts.api.models import FEATURE_ANALYSIS

    # The output of a feature analysis is its result, which lists omit; a task without a template may be one.
    if task.status != ProcessorTaskStatus.COMPLETED or template_id(task) in (None, FEATURE_ANALYSIS):
        return None
    work_path = task.work_path
    if work_path and (work_path.path or work_path.output_path):
        return None
    return "work_path names no place" if work_path else "no work_path"


def _describe_without_output(count: int, rules: AuditRules) -> str:
    return f"{_tasks(count)} completed and named no output"


def _tasks(count: int, one: str = "", many: str = "") -> str:
    return f"{count:,} {'task' if count == 1 else 'tasks'} {one if count == 1 else many}".rstrip()


CHECKS = (
    Check("failed", "failures_allowed", "Failures", "Message", _failed, _describe_failed),
    Check("long", "longest_seconds", "Longer than allowed", "Over the limit", _long, _describe_long),
    Check("stuck", "stuck_after_seconds", "Stuck", "For", _stuck, _describe_stuck),
    Check("outside", "allowed_output_prefixes", "Outputs outside", "Place", _outside, _describe_outside),
    Check(
        *("without_output", "outputs_required", "Missing outputs", "Missing"),
        find=_without_output,
        describe=_describe_without_output,
    ),
)
