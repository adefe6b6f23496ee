"""The checks of an audit: each looks for one fault in a task. ``verdicts`` judges how many tasks may have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from airflow_modelarts.api.places import data_sources, obs_uri, output_uri, typed_uri
from airflow_modelarts.api.statuses import ProcessorTaskStatus
from airflow_modelarts.audit.rules import AuditRules
from airflow_modelarts.audit.text import format_duration, sanitize

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorTask

#: Characters of a finding's detail that a report keeps.
MAX_DETAIL = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """A task in which a check found a fault.

    :param create_time: milliseconds since the epoch.
    :param detail: the fault: the error message of a failure, the place of an output; may be empty.
    :param source: where the task reads: places in OBS, ids of datasets and tasks, separated by commas.
    :param work_path: where it writes: a place in OBS as a URI, or the id of a dataset.
    :param console_url: the https address of the task in the web console.
    """

    task_id: str
    name: str | None
    template_id: str | None
    status_name: str
    create_time: int | None
    duration_seconds: int | None
    detail: str
    source: str | None = None
    work_path: str | None = None
    workspace_id: str | None = None
    console_url: str | None = None

    @classmethod
    def of(cls, task: ProcessorTask, detail: str, console_url: str | None = None) -> Self:
        """Describe a task with text that can be shown. A console that is not reached by https is left out."""
        return cls(
            task_id=sanitize(task.task_id),
            name=None if task.name is None else sanitize(task.name),
            template_id=template_id(task),
            status_name=task.status_name,
            create_time=task.create_time,
            duration_seconds=task.duration_seconds,
            detail=sanitize(detail, MAX_DETAIL),
            source=source(task),
            work_path=work_path(task),
            workspace_id=None if task.workspace_id is None else sanitize(task.workspace_id),
            console_url=console_url if console_url and console_url.startswith("https://") else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of a check: all are counted, the first KEPT_FINDINGS are kept.

    :param by_template: the number of findings of each template that has rules of its own.
    """

    count: int
    kept: Sequence[Finding]
    by_template: Mapping[str, int] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """How many findings the report does not keep; the file of rows has all of them."""
        return self.count - len(self.kept)


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """A rule that is broken, a message about it, and the tasks that broke it, if it is about single tasks."""

    rule: str
    message: str
    findings: Findings


@dataclass(frozen=True)
class Check:
    """A check, which every task of the window undergoes.

    :param name: the key of its findings in a report.
    :param title: the heading of its findings.
    :param column: the heading of their details.
    :param find: returns the fault of a task, given the rules and the time in milliseconds since the epoch; else None.
    """

    name: str
    title: str
    column: str
    find: Callable[[ProcessorTask, AuditRules, int], str | None]


def template_id(task: ProcessorTask) -> str | None:
    """Return the id of a task's template as it can be shown; None if the task has none."""
    return sanitize(task.template.id) if task.template and task.template.id else None


def source(task: ProcessorTask) -> str | None:
    """Return where a task reads as it can be shown; None if that is unknown."""
    places = [typed_uri(one.type, one.source) or one.source for one in data_sources(task) if one.source]
    return sanitize(", ".join(places)) or None


def work_path(task: ProcessorTask) -> str | None:
    """Return where a task writes as it can be shown; None if that is unknown."""
    place = output_uri(task) or (task.work_path and (task.work_path.path or task.work_path.output_path))
    return sanitize(place) if place else None


def _failed(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    return (task.error_msg or "") if task.status == ProcessorTaskStatus.FAILED else None


def _stopped(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    is_finding = task.status == ProcessorTaskStatus.STOPPED and rules.stopped_allowed is not None
    return (task.error_msg or "") if is_finding else None


def _long(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    seconds, limit = task.duration_seconds, rules.limit("longest_seconds")
    if seconds is None or limit is None or seconds <= limit:
        return None
    return f"by {format_duration(seconds - int(limit))}"


def _stuck(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    if task.status not in (ProcessorTaskStatus.INITIALIZED, ProcessorTaskStatus.RUNNING):
        return None
    seconds: float | None = task.duration_seconds
    # With several versions, the creation of the task does not say when the newest version began.
    if task.create_time is not None and (task.version_count or 0) <= 1:
        seconds = (now - task.create_time) / 1000
    limit = rules.limit("stuck_after_seconds")
    return None if seconds is None or limit is None or seconds <= limit else format_duration(seconds)


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


def _without_output(task: ProcessorTask, rules: AuditRules, now: int) -> str | None:
    from airflow_modelarts.api.models import FEATURE_ANALYSIS

    # The output of a feature analysis is its result, which lists omit; a task without a template may be one.
    if task.status != ProcessorTaskStatus.COMPLETED or template_id(task) in (None, FEATURE_ANALYSIS):
        return None
    work_path = task.work_path
    if work_path and (work_path.path or work_path.output_path):
        return None
    return "work_path names no place" if work_path else "no work_path"


CHECKS = (
    Check("failed", "Failures", "Message", _failed),
    Check("stopped", "Stopped", "Message", _stopped),
    Check("long", "Longer than allowed", "Over the limit", _long),
    Check("stuck", "Stuck", "For", _stuck),
    Check("outside", "Outputs outside", "Place", _outside),
    Check("without_output", "Missing outputs", "Missing", _without_output),
)
