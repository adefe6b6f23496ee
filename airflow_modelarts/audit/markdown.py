"""The summary of a report in at most ten lines of Markdown, for a log, a mail or a chat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_modelarts.audit.change import describe
from airflow_modelarts.audit.text import format_duration, shorten

if TYPE_CHECKING:
    from airflow_modelarts.audit.report import AuditReport

#: Characters of a text of the service, and how many broken rules, statuses and failures have their place.
MAX_TEXT, MAX_RULES, MAX_STATUSES, MAX_FAILURES = 120, 3, 6, 2
#: Within a code span nothing is a link or a mention. These characters could end the span, or mean something in a table
#: or in a chat that reads Markdown of its own.
_HARMLESS = str.maketrans({"`": "'", "|": "/", "<": "(", ">": ")", "@": "(at)", "\\": "/"})


def to_markdown(report: AuditReport) -> str:
    """Return the summary of a report."""
    return "\n".join(_lines(report))


def code(text: str) -> str:
    """Return text of the service as a code span that it cannot leave."""
    return f"`{shorten(' '.join(text.split()), MAX_TEXT).translate(_HARMLESS) or '-'}`"


def _lines(report: AuditReport) -> Iterator[str]:
    yield f"**ModelArts audit: {report.verdict}**"
    scope = report.scope
    named = {
        "project": scope.project_id,
        "region": scope.region,
        **{name.removesuffix("_id").replace("_", " "): value for name, value in scope.filters.items()},
    }
    places = ", ".join(f"{name} {code(value)}" for name, value in named.items() if value)
    yield f"Tasks created from {report.window.format(report.zone)}" + (f"; {places}" if places else "")
    statuses = [f"{count:,} {_plain(status)}" for status, count in report.by_status.items()]
    odd = {
        "more without a creation time": report.undated,
        "unreadable": report.unreadable.items,
        "deleted while listing": report.deleted_while_listing,
        "not listed": report.not_listed,
    }
    counts = f"{report.total:,} {'task' if report.total == 1 else 'tasks'}"
    counts += f": {_some(statuses, MAX_STATUSES)}" if statuses else ""
    yield "; ".join(filter(None, [counts, ", ".join(f"{count:,} {what}" for what, count in odd.items() if count)]))
    if durations := report.statistics.total:
        values = (durations.seconds, durations.p50, durations.p95, durations.longest)
        total, half, most, longest = map(format_duration, values)
        yield f"Durations: {total} in total, median {half}, 95 % within {most}, longest {longest}"
    if change := report.change:
        yield describe(change, report.zone)
    broken = [f"`{one.rule}`: {_plain(one.message)}" for one in report.broken_rules]
    yield from (f"- {line}" for line in broken[:MAX_RULES])
    if more := len(broken) - MAX_RULES if len(broken) > MAX_RULES else 0:
        yield f"- {more} more"
    failed = report.findings["failed"]
    if failed.count:
        texts = [(one.name or one.task_id, one.detail) for one in failed.kept[:MAX_FAILURES]]
        shown = [" ".join(code(text) for text in pair if text) for pair in texts]
        yield f"Failures: {_some(shown, MAX_FAILURES, failed.count)}"


def _plain(text: str) -> str:
    """Return text of this package, in which a name of the service is a reason for a code span."""
    return text if all(character.isalnum() or character in " ,;:%" for character in text) else code(text)


def _some(texts: list[str], limit: int, count: int | None = None) -> str:
    more = (len(texts) if count is None else count) - min(len(texts), limit)
    return ", ".join([*texts[:limit], *([f"{more:,} more"] if more else [])])
