"""The audit before, as the JSON of its report has it, to tell what has changed since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Self

from airflow_modelarts.audit.text import format_datetime, format_duration, iso

#: The fields of a report's JSON that say how to read it, which tasks it is about, and which DAG made it.
SCOPE_FIELDS = ("schema_version", "project_id", "region", "host", "filters", "map_index", "dag_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """The totals of an earlier audit.

    :param start: the start of its window.
    :param end: the end of its window.
    :param made_at: the moment that its report describes.
    :param seconds: the sum of the durations of its ended tasks.
    """

    start: datetime
    end: datetime
    made_at: datetime
    total: int
    failed: int
    seconds: float

    @classmethod
    def read(cls, report: Any) -> Self | None:
        """Read the totals of a report's JSON; None if it is something else, or of another version of this package."""
        try:
            start, end, made_at = (
                datetime.fromisoformat(text)
                for text in (report["window"]["start"], report["window"]["end"], report["made_at"])
            )
            total, failed = report["total"], report["by_status"].get("failed", 0)
            seconds = (report["statistics"]["total"] or {"seconds": 0})["seconds"]
            is_valid = all(type(number) in (int, float) for number in (total, failed, seconds))
            if not is_valid or None in (start.tzinfo, end.tzinfo, made_at.tzinfo):
                return None
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return cls(start=start, end=end, made_at=made_at, total=total, failed=failed, seconds=seconds)

    def change(self, total: int, failed: int, seconds: float) -> dict[str, Any]:
        """Return the differences of an audit's totals to these, as JSON."""
        return {
            "since": {"start": iso(self.start), "end": iso(self.end)},
            "total": total - self.total,
            "failed": failed - self.failed,
            "seconds": round(seconds - self.seconds, 3),
        }


def describe(change: Mapping[str, Any], zone: tzinfo) -> str:
    """Return a change in one sentence, with times in a zone."""
    total, failed, seconds = change["total"], change["failed"], change["seconds"]
    duration = f"{'-' if seconds < 0 else '+'}{format_duration(abs(seconds))}"
    start, end = (format_datetime(datetime.fromisoformat(moment), zone) for moment in change["since"].values())
    return f"{total:+,} tasks, {failed:+,} failed, {duration} in total since the audit of {start} to {end} {zone}"


def newest_before(reports: Iterable[Any], scope: Mapping[str, Any], end: datetime) -> Previous | None:
    """Return the newest earlier audit with the same scope; None if there is none.

    :param reports: the JSON of reports, or of anything else.
    :param scope: the SCOPE_FIELDS of this audit.
    :param end: the end of its window.
    """
    earlier = [
        previous
        for one in reports
        if isinstance(one, Mapping)
        and all(one.get(name) == scope.get(name) for name in SCOPE_FIELDS)
        and (previous := Previous.read(one))
        and previous.start < previous.end < end  # an audit with nothing left says nothing about a change
    ]
    return max(earlier, key=lambda previous: (previous.end, previous.made_at), default=None)
