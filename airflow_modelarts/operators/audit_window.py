"""The time window of an audit, and what earlier audits of the same Airflow task have covered.

Moments are milliseconds since the epoch, as in the API. A range includes its start and excludes its end.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from airflow_modelarts.api.statuses import status_name
from airflow_modelarts.audit import Window, from_milliseconds, milliseconds
from airflow_modelarts.operators.arguments import read_status_filter
from airflow_modelarts.operators.base import in_utc, parse_datetime

if TYPE_CHECKING:
    from airflow_modelarts.operators.audit import ModelArtsAuditProcessorTasksOperator

log = logging.getLogger(__name__)

A_DAY = timedelta(days=1)
#: Runs whose ranges are kept, so that a run that is cleared audits them again.
KEPT_RUNS = 100
#: Characters of an Airflow variable's key that name the DAG and the task; Airflow accepts 250 in all.
MAX_NAME = 200

Range = tuple[int, int]


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Return sorted ranges that neither overlap nor touch."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def subtract(whole: Range, ranges: Iterable[Range]) -> list[Range]:
    """Return the parts of a range that are in none of the others."""
    start, end = whole
    parts: list[Range] = []
    for covered_start, covered_end in merge(ranges):
        if start < (until := min(covered_start, end)):
            parts.append((start, until))
        start = max(start, covered_end)
    if start < end:
        parts.append((start, end))
    return parts


@dataclass
class AuditHistory:
    """The ranges that the audits of one Airflow task have covered.

    :param since: the moment from which on every range is to be audited; None before the first audit.
    :param audited: what was audited; normally one range.
    :param runs: what each of the last runs has audited, by run id, the latest last.
    """

    since: int | None = None
    audited: list[Range] = field(default_factory=list)
    runs: dict[str, list[Range]] = field(default_factory=dict)

    def find_ranges(self, run_id: str, end: int, day_before: int) -> list[Range]:
        """Return what a run is to audit: what it has audited before, or what no run has audited until ``end``.

        :param end: where the run's window ends.
        :param day_before: where it begins if it is the first audit, or if it is for a date before the first audit.
        """
        if run_id in self.runs:
            return self.runs[run_id]
        start = day_before if self.since is None or end <= self.since else self.since
        return subtract((start, end), self.audited)

    def add(self, run_id: str, ranges: Sequence[Range], *, keeps_since: bool) -> None:
        """Record what a run has audited.

        :param keeps_since: do not have the time between these ranges and the first audit audited. This is for a run
            by hand for a date of long ago.
        """
        if self.since is None:
            self.since = ranges[0][0]
        elif not keeps_since:
            self.since = min(self.since, ranges[0][0])
        self.audited = merge([*self.audited, *ranges])
        self.runs.pop(run_id, None)
        self.runs[run_id] = list(ranges)
        for oldest in list(self.runs)[:-KEPT_RUNS]:
            del self.runs[oldest]

    @classmethod
    def from_json(cls, text: str) -> AuditHistory:
        """Read a history.

        :raises ValueError: it is not one.
        """
        try:
            stored = json.loads(text)
            runs = {str(run_id): _read_ranges(ranges) for run_id, ranges in stored["runs"].items()}
            return cls(int(stored["since"]), _read_ranges(stored["audited"]), runs)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a history of audits ({type(error).__name__})") from None

    def to_json(self) -> str:
        """Return the history as JSON."""
        return json.dumps({"since": self.since, "audited": self.audited, "runs": self.runs})


def _read_ranges(stored: Any) -> list[Range]:
    return [(int(start), int(end)) for start, end in stored]


class HistoryStore:
    """Keeps an audit's history in an Airflow variable, and what a run has audited also in its task state store (3.3).

    Of what Airflow keeps, only a variable fits all its versions and all runs. A task's state store belongs to one run.
    An asset's state store needs an asset and Airflow 3.3. XComs are deleted with their run or when it is cleared, and
    those of runs for later dates cannot be read.

    :param context: of the Airflow task.
    :param scope: what is audited: project, workspace and filters. Each scope has a history of its own.
    """

    def __init__(self, context: Mapping[str, Any], scope: Mapping[str, str | None]) -> None:
        dag_id, task_id = context["ti"].dag_id, context["ti"].task_id
        identity = json.dumps([dag_id, task_id, sorted(scope.items())])
        digest = blake2b(identity.encode(), digest_size=6).hexdigest()
        # Only characters that all secrets backends accept, since Airflow asks them for the variable too.
        name = re.sub("[^A-Za-z0-9_]+", "_", f"{dag_id}_{task_id}")[:MAX_NAME]
        self.key = f"modelarts_audit_{name}_{digest}"
        filters = ", ".join(f"{name} {value}" for name, value in scope.items() if value is not None)
        self._description = (
            f"What the task {task_id} of the DAG {dag_id} has audited ({filters}), in milliseconds since the epoch. "
            "Delete it, and the next audit is a first one."
        )
        self._run_id = str(context["run_id"])
        self._run_state = context.get("task_state_store")
        self._run_key = f"modelarts_audit_{digest}"

    def find_ranges(self, history: AuditHistory, end: int, day_before: int) -> list[Range]:
        """Return what the run is to audit, see :meth:`AuditHistory.find_ranges`."""
        audited_before = self._run_state.get(self._run_key) if self._run_state else None
        return _read_ranges(audited_before) if audited_before else history.find_ranges(self._run_id, end, day_before)

    def load(self) -> AuditHistory:
        """Return the history; an empty one before the first audit.

        :raises ValueError: the variable has another content, or it exists and cannot be read.
        """
        from airflow.providers.common.compat.sdk import Variable

        text = None
        with suppress(ImportError):  # outside of an Airflow task, see record
            text = Variable.get(self.key, None)
            # Airflow takes a variable that it cannot read for an absent one; its list of keys (3.3) raises instead.
            if text is None and hasattr(Variable, "keys") and self.key in Variable.keys(prefix=self.key):
                raise ValueError(f"the Airflow variable {self.key!r} exists but cannot be read: see the log above")
        if text is None:
            return AuditHistory()
        try:
            return AuditHistory.from_json(text)
        except ValueError as error:
            raise ValueError(
                f"the Airflow variable {self.key!r} is {error}: restore it, or delete it to begin anew"
            ) from None

    def record(self, ranges: Sequence[Range], *, keeps_since: bool) -> None:
        """Add to the history, which is read again, since another run may have ended meanwhile."""
        from airflow.providers.common.compat.sdk import Variable

        history = self.load()
        history.add(self._run_id, ranges, keeps_since=keeps_since)
        if self._run_state:  # first: without it, another try would find nothing left
            from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]  # missing in its stub

            self._run_state.set(self._run_key, [list(each) for each in ranges], retention=NEVER_EXPIRE)
        try:
            Variable.set(self.key, history.to_json(), self._description)
        except ImportError:  # Airflow 3 keeps nothing for what is called outside of its tasks
            log.warning("This is not an Airflow task: the next audit will not know about this one.")


@dataclass(frozen=True)
class AuditWindow:
    """What a run audits.

    :param notes: sentences for readers of the report, if the window is not the usual one.
    :param mark_ended: records that the audit has ended, whether or not it found a broken rule.
    """

    window: Window
    notes: Sequence[str] = ()
    mark_ended: Callable[[], None] = lambda: None


def choose_window(
    operator: ModelArtsAuditProcessorTasksOperator, context: Mapping[str, Any], now: datetime, project_id: str
) -> AuditWindow:
    """Return what a run audits: explicit bounds, or what the operator's ``window`` says.

    :param project_id: the ModelArts project, which the connection may name.
    :raises ValueError: a bound is invalid, or the run has no data interval and ``window`` is ``data_interval``.
    """
    start = parse_datetime("window_start", operator.window_start)
    end = parse_datetime("window_end", operator.window_end)
    moment = _moment(context, now)
    if end is not None:
        return AuditWindow(_window(start or _day_before(end, context), end))
    if start is not None:
        return AuditWindow(_window(start, moment - operator.lag))
    if operator.window == "since_last":
        return _since_last(operator, context, min(moment, now), project_id)
    if operator.window == "day":
        return AuditWindow(_window(_day_before(moment, context) - operator.lag, moment - operator.lag))
    if (interval := _data_interval(context)) is None:
        raise ValueError(
            f"run {context['run_id']!r} has no data interval: set window to 'since_last' or 'day', or give the DAG a "
            "timetable with data intervals, such as CronDataIntervalTimetable"
        )
    return AuditWindow(_window(*(in_utc(bound) - operator.lag for bound in interval)))


def _since_last(
    operator: ModelArtsAuditProcessorTasksOperator, context: Mapping[str, Any], moment: datetime, project_id: str
) -> AuditWindow:
    end, day_before = (milliseconds(bound - operator.lag) for bound in (moment, _day_before(moment, context)))
    filters = {"template_id": operator.template_id, "source_type": operator.source_type, "source": operator.source}
    if statuses := read_status_filter("statuses", operator.statuses):  # else an earlier version's history is not found
        filters["statuses"] = ", ".join(map(status_name, statuses))
    scope = {"project_id": project_id, "workspace_id": operator.workspace_id or "0", **filters}
    store = HistoryStore(context, scope)
    history = store.load()
    ranges = store.find_ranges(history, end, day_before)
    if not ranges:
        note = (
            f"Earlier audits of this Airflow task have covered everything until {from_milliseconds(end)}: nothing is "
            "left. Set window_start and window_end to audit it again."
        )
        return AuditWindow(Window(from_milliseconds(end), from_milliseconds(end)), [note])
    start, end = ranges[0][0], ranges[-1][1]
    covered = tuple(subtract((start, end), ranges))
    notes = []
    if history.since is None:
        notes.append("This is the first audit by this Airflow task: it reaches back a day.")
    elif covered:
        notes.append("Earlier audits have covered a part of this window: the tasks of that part are left out.")
    window = Window(from_milliseconds(start), from_milliseconds(end), covered)
    by_hand = getattr(context.get("dag_run"), "run_type", None) == "manual"
    return AuditWindow(window, notes, partial(store.record, ranges, keeps_since=by_hand))


def _window(start: datetime, end: datetime) -> Window:
    window = Window(in_utc(start), in_utc(end))
    if window.is_empty:
        raise ValueError(f"the window ends at {window.end}, which is not after its start at {window.start}")
    return window


def _data_interval(context: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    return (start, end) if start and end and start < end else None


def _moment(context: Mapping[str, Any], now: datetime) -> datetime:
    """Return the moment that the run is for."""
    logical_date: datetime | None = context.get("logical_date")
    if interval := _data_interval(context):
        # That of a run by hand is the last one that was complete, before the logical date.
        return in_utc(max(interval[1], logical_date or interval[1]))
    # An empty interval lies at the moment of triggering, even if the run has another logical date.
    run_after = getattr(context.get("dag_run"), "run_after", None)
    return in_utc(logical_date or context.get("data_interval_end") or run_after or now)


def _day_before(moment: datetime, context: Mapping[str, Any]) -> datetime:
    """Return the same time on the day before in the DAG's time zone, where a day can have 23 or 25 hours."""
    zone = getattr(context.get("dag"), "timezone", UTC)
    return in_utc(in_utc(moment).astimezone(zone) - A_DAY)
