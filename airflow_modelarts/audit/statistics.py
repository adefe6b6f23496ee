"""Durations of ended tasks in groups: sums and percentiles, in a memory that does not grow with the number of tasks."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from airflow_modelarts.audit.findings import source
from airflow_modelarts.audit.text import sanitize

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorTask

#: The buckets of durations are longer by 5 % from one to the next: percentiles are exact to 5 %.
_GROWTH = math.log(1.05)
#: Groups that are counted apart, and how many of them a report has. All other tasks are one group.
MAX_GROUPS, REPORTED_GROUPS = 1000, 20
OTHERS = "(others)"
#: The group of tasks without a name or a source.
UNKNOWN = "unknown"
_LATER_PART = re.compile(r"[\s._-]+(?P<part>[^\s._-]+)")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Durations:
    """The durations of a group of ended tasks.

    :param count: the number of tasks whose duration is known.
    :param seconds: the sum of their durations.
    :param p50: the median in seconds. It and ``p95`` are exact to 5 %.
    :param p95: what 95 % of the tasks did not exceed.
    :param longest: the longest duration in seconds.
    """

    count: int
    seconds: float
    p50: float
    p95: float
    longest: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields, rounded to milliseconds."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


class DurationCounter:
    """Counts durations in buckets, each 5 % wide, with the sum of each bucket."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._counts = Counter[int]()
        self._sums = defaultdict[int, float](float)

    @property
    def count(self) -> int:
        """The number of durations."""
        return self._counts.total()

    @property
    def seconds(self) -> float:
        """The sum of the durations."""
        return math.fsum(self._sums.values())

    def add(self, seconds: float) -> None:
        """Count a duration; a negative one is zero."""
        seconds = max(seconds, 0)
        self._add(round(math.log(seconds) / _GROWTH) if seconds >= 1 else -1, 1, seconds, seconds)

    def merge(self, other: DurationCounter) -> None:
        """Count the durations of another one, too."""
        for bucket, count in other._counts.items():
            self._add(bucket, count, other._sums[bucket], other.longest)

    def result(self) -> Durations:
        """Return the statistics of at least one duration."""
        return Durations(self.count, self.seconds, self._percentile(0.5), self._percentile(0.95), self.longest)

    def _add(self, bucket: int, count: int, seconds: float, longest: float) -> None:
        self._counts[bucket] += count
        self._sums[bucket] += seconds
        self.longest = max(self.longest, longest)

    def _percentile(self, share: float) -> float:
        """Return the mean of the bucket that has the percentile."""
        rank = math.ceil(share * self.count)
        ordered = sorted(self._counts)
        seen = accumulate(self._counts[bucket] for bucket in ordered)
        bucket = next(bucket for bucket, count in zip(ordered, seen, strict=True) if count >= rank)
        return self._sums[bucket] / self._counts[bucket]


class Groups:
    """Counts durations by the name of a group. When there are MAX_GROUPS, tasks of further groups are one."""

    def __init__(self) -> None:
        self._counters = dict[str, DurationCounter]()

    def add(self, name: str, seconds: float) -> None:
        """Count a duration in a group."""
        if name not in self._counters:
            name = name if len(self._counters) < MAX_GROUPS else OTHERS
            self._counters.setdefault(name, DurationCounter())
        self._counters[name].add(seconds)

    def result(self) -> dict[str, Durations]:
        """Return the statistics of the groups with the largest sums, and of all others together."""
        others = self._counters.pop(OTHERS, DurationCounter())
        ordered = sorted(self._counters.items(), key=lambda item: (-item[1].seconds, item[0]))
        for _, counter in ordered[REPORTED_GROUPS:]:
            others.merge(counter)
        groups = {name: counter.result() for name, counter in ordered[:REPORTED_GROUPS]}
        return {**groups, OTHERS: others.result()} if others.count else groups


@dataclass(frozen=True, slots=True)
class Statistics:
    """The durations of the ended tasks of an audit, in total and in groups, the largest sums first.

    :param total: of all tasks; None if no duration is known.
    :param by_name: by what :func:`name_prefix` returns.
    :param by_source: by where the tasks read: a dataset, a place in OBS.
    """

    total: Durations | None = None
    by_template: Mapping[str, Durations] = field(default_factory=dict)
    by_name: Mapping[str, Durations] = field(default_factory=dict)
    by_source: Mapping[str, Durations] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        groups = {"by_template": self.by_template, "by_name": self.by_name, "by_source": self.by_source}
        return {
            "total": self.total and self.total.to_json(),
            **{name: {key: one.to_json() for key, one in group.items()} for name, group in groups.items()},
        }


class StatisticsCounter:
    """Counts the durations of ended tasks for the statistics of a report."""

    def __init__(self) -> None:
        self._total = DurationCounter()
        self._templates, self._names, self._sources = Groups(), Groups(), Groups()

    def add(self, task: ProcessorTask, template: str) -> None:
        """Count a task, whose duration is known."""
        seconds = task.duration_seconds or 0
        self._total.add(seconds)
        self._templates.add(template, seconds)
        self._names.add(name_prefix(sanitize(task.name or "")) or UNKNOWN, seconds)
        self._sources.add(source(task) or UNKNOWN, seconds)

    def result(self) -> Statistics:
        """Return the statistics of all tasks that were counted."""
        total = self._total.result() if self._total.count else None
        return Statistics(total, self._templates.result(), self._names.result(), self._sources.result())


def name_prefix(name: str) -> str:
    """Return what the names of one pipeline's tasks have in common, for example ``ingest`` of ``ingest-2026-11-23-7``.

    That is the name up to its first part with a digit. The first part itself stays, without digits at its end.
    Hyphens, underscores, periods and spaces separate parts. A date or number at the beginning is skipped.
    """
    name = re.sub(r"^[\W\d_]+", "", name)
    later = (found for found in _LATER_PART.finditer(name) if _DIGIT.search(found["part"]))
    end = next(later, None)
    return (name[: end.start()] if end else name.rstrip("-_. ")).rstrip("0123456789")
