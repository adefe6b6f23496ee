"""The geometry of the page's charts: from the counts of a report to the numbers that its template draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from itertools import pairwise

from airflow_modelarts.audit.report import DURATION_BOUNDS, Window
from airflow_modelarts.audit.text import format_duration

#: The order in which statuses are stacked. All statuses that the API reference does not document are one kind.
KINDS = ("completed", "running", "initialized", "stopped", "failed", "unknown")
#: Templates with a bar or a histogram of their own; the last one stands for all others.
TEMPLATES = 6
OTHERS = "others"
#: The most labels on the time axis.
TICKS = 6
DAY_SECONDS = 24 * 60 * 60
#: The names of the duration groups that DURATION_BOUNDS delimits.
DURATION_GROUPS = (
    f"< {format_duration(DURATION_BOUNDS[0])}",
    *(f"{format_duration(lower)} to {format_duration(upper)}" for lower, upper in pairwise(DURATION_BOUNDS)),
    f"≥ {format_duration(DURATION_BOUNDS[-1])}",
)


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a status in a donut or a stacked bar: where it starts and how long it is, from 0 to 1."""

    status: str
    kind: str
    count: int
    start: float
    length: float


def kind(status: str) -> str:
    """Return the kind of a status, which is also the CSS class of its colour."""
    return status if status in KINDS else "unknown"


def by_kind(by_status: Mapping[str, int]) -> Counter[str]:
    """Return the counts of all kinds that occur, in the order in which they are stacked."""
    counts = Counter[str]()
    for status, count in sorted(by_status.items(), key=lambda item: KINDS.index(kind(item[0]))):
        counts[kind(status)] += count
    return counts


def stack(by_status: Mapping[str, int], full: int) -> Iterator[Part]:
    """Yield the parts of a donut or a bar that is complete at ``full`` tasks."""
    start = 0.0
    for status, count in sorted(by_status.items(), key=lambda item: (KINDS.index(kind(item[0])), item[0])):
        yield Part(status, kind(status), count, start, count / full)
        start += count / full


def ticks(window: Window, zone: tzinfo = UTC) -> Iterator[tuple[float, str]]:
    """Yield the labels of the time axis, each after its position in percent: times, or days beyond two days."""
    count, step = window.step_count, window.step_seconds
    is_day = count * step > 2 * DAY_SECONDS
    # If the window begins at midnight, so does the column of each day's label.
    unit = max(DAY_SECONDS // step, 1) if is_day else 1
    for index in range(0, count, math.ceil(count / TICKS / unit) * unit):
        moment = window.step_start(index).astimezone(zone)
        yield 100 * index / count, f"{moment.day} {moment:%b}" if is_day else f"{moment:%H:%M}"


def largest(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, Counter[str]]]:
    """Return the counts of the largest templates, and the sum of the others if there are more than TEMPLATES."""
    counters = [(template, Counter(found)) for template, found in counts.items()]
    ordered = sorted(counters, key=lambda item: (-item[1].total(), item[0]))
    if len(ordered) <= TEMPLATES:
        return ordered
    return [*ordered[: TEMPLATES - 1], (OTHERS, sum((found for _, found in ordered[TEMPLATES - 1 :]), Counter()))]


def round_up(number: int) -> int:
    """Return the next number at which a scale can end: round, and even so that it has a middle."""
    size: int = 10 ** max(len(str(number)) - 2, 0)
    ends = (2, 4, 6, 8, 10, 12, 16, 20, 24, 30, 40, 50, 60, 80, 100)
    return next(end * size for end in ends if end * size >= number)
