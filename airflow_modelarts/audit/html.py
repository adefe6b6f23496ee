"""The HTML page of a report: one file that loads nothing else. ``page.html.jinja`` is its template, autoescaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from airflow_modelarts.audit import change, charts
from airflow_modelarts.audit.findings import CHECKS
from airflow_modelarts.audit.report import AuditReport
from airflow_modelarts.audit.text import format_datetime, format_duration, percent
from airflow_modelarts.audit.verdicts import RULES

#: Findings of a check on the page, and how many of them are visible before the table is expanded.
ROWS, VISIBLE_ROWS = 100, 6


def page(report: AuditReport, facts: Mapping[str, str] | None = None) -> str:
    """Return the report as an HTML page.

    :param facts: what the footer says besides, such as the project, by name.
    """
    templates = charts.largest(report.by_template)
    durations = charts.largest(
        {
            template: dict(zip(charts.DURATION_GROUPS, groups, strict=True))
            for template, groups in report.durations.items()
        }
    )
    return _template().render(
        report=report,
        facts=facts or {},
        zone=report.zone,
        title=f"Processing tasks, {report.window.title(report.zone)}",
        checks=CHECKS,
        rules=RULES,
        broken={broken.rule: broken.message for broken in report.broken_rules},
        broken_checks={rule.check for rule in RULES if rule.name in {broken.rule for broken in report.broken_rules}},
        kinds=charts.by_kind(report.by_status),
        templates=templates,
        longest_bar=max((by_status.total() for _, by_status in templates), default=0),
        scale=charts.round_up(max((sum(counts.values()) for counts in report.timeline.values()), default=0)),
        durations=durations,
        longest_group=max((max(groups.values()) for _, groups in durations), default=0),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("airflow_modelarts.audit", ""),  # which reads UTF-8 in any locale
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda number: f"{number:,}",
        "duration": lambda seconds: None if seconds is None else format_duration(seconds),
        "datetime": format_datetime,
        "change": change.describe,
        "day_and_time": _format_day_and_time,
        "create_time": _format_create_time,
    }
    environment.globals |= {"charts": charts, "percent": percent, "ROWS": ROWS, "VISIBLE_ROWS": VISIBLE_ROWS}
    return environment.get_template("page.html.jinja")


def _format_day_and_time(moment: datetime, zone: tzinfo) -> str:
    moment = moment.astimezone(zone)
    return f"{moment.day} {moment:%b %H:%M}"


def _format_create_time(milliseconds: int | None, zone: tzinfo) -> str | None:
    if milliseconds is None:
        return None
    return f"{datetime.fromtimestamp(milliseconds // 1000, UTC).astimezone(zone):%Y-%m-%d %H:%M}"
