"""The JSON of a report as types, and as a JSON Schema: ``report_schema()``.

A later report of the same ``schema_version`` can have more fields, and never fewer. It imports pydantic, so an audit
itself does not load it.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic refuses that of typing before Python 3.12

#: Counts by the name of what is counted.
Counts = dict[str, int]


class WindowJson(TypedDict):
    """When the audited tasks were created: ISO 8601 in UTC, the end exclusive.

    ``covered`` has the starts and ends of what earlier audits have covered in it, whose tasks are left out.
    """

    start: str
    end: str
    covered: NotRequired[list[list[str]]]


class FiltersJson(TypedDict):
    """The filters of the list, under the operator's names; null if not given, and ``statuses`` then absent."""

    template_id: str | None
    source_type: str | None
    source: str | None
    workspace_id: str | None
    statuses: NotRequired[str]


class UnreadableJson(TypedDict):
    """What of the list could not be read.

    ``items`` listed items are in no other count; ``first_items`` says where the first ten are. ``tasks`` tasks have
    fields that count as missing: ``fields`` counts them by field, ``first_tasks`` has those of the first ten tasks.
    """

    items: int
    first_items: list[str]
    tasks: int
    fields: Counts
    first_tasks: dict[str, list[str]]


class StepJson(TypedDict):
    """The tasks created in one step of the timeline; a step without tasks is left out."""

    start: str
    by_status: Counts


class TimelineJson(TypedDict):
    """The tasks by the time of their creation."""

    step_seconds: int
    steps: list[StepJson]


class DurationsJson(TypedDict):
    """Ended tasks by template and duration: one number for each group that the bounds delimit."""

    bounds_seconds: list[int]
    by_template: dict[str, list[int]]


class GroupJson(TypedDict):
    """The durations of a group of ended tasks, in seconds. ``p50`` and ``p95`` are exact to 5 %."""

    count: int
    seconds: float
    p50: float
    p95: float
    longest: float


class StatisticsJson(TypedDict):
    """The durations of the ended tasks: of all, and of the groups with the largest sums. The rest is ``(others)``."""

    total: GroupJson | None
    by_template: dict[str, GroupJson]
    by_name: dict[str, GroupJson]
    by_source: dict[str, GroupJson]


class ChangeJson(TypedDict):
    """What has changed since the audit of the window ``since``: tasks, failures, and the sum of durations."""

    since: WindowJson
    total: int
    failed: int
    seconds: float


class FindingJson(TypedDict):
    """A task in which a check found something. A field without a value is left out.

    ``create_time`` is in milliseconds since the epoch, as in the API. ``detail`` is the fault.
    """

    task_id: str
    name: NotRequired[str]
    template_id: NotRequired[str]
    status_name: str
    create_time: NotRequired[int]
    duration_seconds: NotRequired[int]
    detail: str
    source: NotRequired[str]
    work_path: NotRequired[str]
    workspace_id: NotRequired[str]
    console_url: NotRequired[str]


class FindingsJson(TypedDict):
    """The findings of a check: how many there are, how many ``tasks`` leaves out, and the first 10,000."""

    count: int
    left_out: int
    tasks: list[FindingJson]


class ReportJson(TypedDict):
    """The report of an audit.

    ``deleted_while_listing`` is a lower bound. The service counted ``not_listed`` tasks and did not list them.
    ``rows_path`` is the file with a row for each task, or null. ``map_index`` is there for a mapped audit only.
    ``change`` is null if no report of an earlier audit was found.
    """

    schema_version: Literal[1]
    made_at: str
    window: WindowJson
    verdict: str
    project_id: str | None
    region: str | None
    host: str | None
    filters: FiltersJson
    dag_id: str | None
    run_id: str | None
    map_index: NotRequired[int]
    total: int
    undated: int
    unreadable: UnreadableJson
    deleted_while_listing: int
    not_listed: int
    order_held: bool
    notes: list[str]
    rows_path: str | None
    by_status: Counts
    by_template: dict[str, Counts]
    timeline: TimelineJson
    durations: DurationsJson
    statistics: StatisticsJson
    change: ChangeJson | None
    rules: dict[str, Any]
    broken_rules: dict[str, str]
    findings: dict[str, FindingsJson]


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a report's JSON file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **TypeAdapter(ReportJson).json_schema(),
        "title": "ModelArts audit report",
    }
