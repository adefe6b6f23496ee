"""The window of an audit: explicit, by its kind, and over a year of runs in which each task is audited once."""

from __future__ import annotations

import itertools
import json
import random
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_3_PLUS
from airflow.timetables.base import TimeRestriction, Timetable
from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable, DeltaTriggerTimetable
from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.audit import Window, milliseconds
from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator
from airflow_modelarts.operators.audit_window import AuditHistory, AuditWindow, choose_window, merge, subtract
from tests.support.fixtures import Variables
from tests.support.task_instances import TaskInstance

START = datetime(2026, 11, 23, tzinfo=UTC)
END = START + timedelta(days=1)
NOW = END + timedelta(days=5, hours=9)
INTERVAL = {"data_interval_start": START, "data_interval_end": END, "logical_date": START}
HALF_A_DAY = timedelta(hours=12)
PROJECT = "project"


class RunState(dict[str, Any]):
    """The state store of a task instance (Airflow 3.3), which keeps JSON."""

    def set(self, key: str, value: Any, *, retention: timedelta) -> None:
        """Store a value that never expires."""
        assert retention == timedelta.max
        self[key] = json.loads(json.dumps(value))

    def __bool__(self) -> bool:
        return True


def choose(context: dict[str, Any], *, now: datetime = NOW, project: str = PROJECT, **arguments: Any) -> AuditWindow:
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", **arguments)
    return choose_window(operator, {"ti": TaskInstance(), "run_id": "run", **context}, now, project)


def window(context: dict[str, Any], **arguments: Any) -> list[str]:
    chosen = choose(context, **arguments).window
    return [f"{moment:%Y-%m-%d %H:%M}" for moment in (chosen.start, chosen.end)]


def audit(run_id: str, moment: datetime, **arguments: Any) -> AuditWindow:
    """Choose the window of a run and let the audit end."""
    run_type = arguments.pop("run_type", "scheduled")
    context = {"run_id": run_id, "logical_date": moment, "dag_run": SimpleNamespace(run_type=run_type)}
    chosen = choose(context, **arguments)
    chosen.mark_ended()
    return chosen


# Explicit bounds, the data interval, the day before


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-11-20T08:00:00+08:00", "2026-11-20T01:00:00"),
        (datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 20, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["since_last", "data_interval", "day"])
def test_explicit_bounds_override_the_kind_of_window(start: Any, end: Any, kind: str) -> None:
    found = window(INTERVAL, window_start=start, window_end=end, window=kind)
    assert found == ["2026-11-20 00:00", "2026-11-20 01:00"]


def test_a_window_with_a_start_alone_ends_with_the_run() -> None:
    assert window(INTERVAL, window_start="2026-11-20", window_end="") == ["2026-11-20 00:00", "2026-11-24 00:00"]


def test_a_window_with_an_end_alone_begins_24_hours_before() -> None:
    assert window(INTERVAL, window_end="2026-11-20") == ["2026-11-19 00:00", "2026-11-20 00:00"]


@pytest.mark.parametrize("end", ["2026-11-20", "2026-11-19T23:00:00"])
def test_explicit_bounds_must_not_be_empty(end: str) -> None:
    with pytest.raises(ValueError, match=r"(not after|before) its start at 2026-11-20"):
        window(INTERVAL, window_start="2026-11-20", window_end=end)


def test_an_invalid_datetime_is_rejected_by_its_name() -> None:
    with pytest.raises(ValueError, match="window_start is 'yesterday': give a datetime such as"):
        window(INTERVAL, window_start="yesterday")


def test_the_data_interval() -> None:
    assert window(INTERVAL, window="data_interval") == ["2026-11-23 00:00", "2026-11-24 00:00"]
    found = window(INTERVAL, window="data_interval", lag=HALF_A_DAY)
    assert found == ["2026-11-22 12:00", "2026-11-23 12:00"]


@pytest.mark.parametrize("context", [{"data_interval_start": END, "data_interval_end": END}, {"logical_date": END}])
def test_a_run_without_a_data_interval_cannot_audit_it(context: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="run 'run' has no data interval: set window to 'since_last' or 'day'"):
        window(context, window="data_interval")


@pytest.mark.parametrize(
    "context",
    [
        {"data_interval_start": END, "data_interval_end": END, "logical_date": END},
        {"data_interval_start": NOW, "data_interval_end": NOW, "logical_date": END},
        {"data_interval_end": END},
        {"logical_date": END},
        {"logical_date": None, "dag_run": SimpleNamespace(run_after=END)},
        INTERVAL,
        {**INTERVAL, "data_interval_end": START + HALF_A_DAY, "logical_date": END},
    ],
    ids=["empty interval", "an earlier day again", "half", "no interval", "no logical date", "interval", "by hand"],
)
@pytest.mark.parametrize("kind", ["day", "since_last"])
def test_a_day_or_a_first_audit_is_the_day_before_the_runs_moment(context: dict[str, Any], kind: str) -> None:
    assert window(context, window=kind) == ["2026-11-23 00:00", "2026-11-24 00:00"]
    assert window(context, window=kind, lag=HALF_A_DAY) == ["2026-11-22 12:00", "2026-11-23 12:00"]


def test_a_run_without_any_date_is_for_now() -> None:
    found = choose({"dag_run": SimpleNamespace(run_after=None)}).window
    assert (found.start, found.end) == (NOW - timedelta(days=1), NOW)


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 30, 23), (10, 26, 25), (11, 24, 24)])
def test_a_day_is_as_long_as_in_the_dags_time_zone(month: int, day: int, hours: int) -> None:
    zone = pendulum.timezone("Europe/Berlin")
    end = pendulum.datetime(2026, month, day, tz=zone)
    context = {"logical_date": end.in_timezone("UTC"), "dag": SimpleNamespace(timezone=zone)}
    found = choose(context, window="day").window
    assert (found.start, found.end) == (end - timedelta(hours=hours), end)


def test_a_lag_does_not_move_explicit_bounds() -> None:
    given = {"lag": HALF_A_DAY, "window_start": "2026-11-20", "window_end": "2026-11-21"}
    assert window(INTERVAL, **given) == ["2026-11-20 00:00", "2026-11-21 00:00"]
    assert window(INTERVAL, **{**given, "window_start": None}) == ["2026-11-20 00:00", "2026-11-21 00:00"]
    assert window(INTERVAL, **{**given, "window_end": None}) == ["2026-11-20 00:00", "2026-11-23 12:00"]


@pytest.mark.parametrize("nothing", [None, "", "None", "\n ", " None\n"])
def test_an_empty_rendered_bound_is_none(nothing: str | None) -> None:
    assert window(INTERVAL, window_start=nothing, window_end=nothing) == ["2026-11-23 00:00", "2026-11-24 00:00"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": "yesterday"}, "window is 'yesterday': choose 'since_last', 'data_interval', 'day'"),
        ({"window": None}, "window is None: choose"),
        ({"lag": timedelta(seconds=-1)}, "lag is .*: give a timedelta that is not negative"),
        ({"lag": 3600}, "lag is 3600: give a timedelta"),
        ({"window_start": "yesterday"}, "window_start is 'yesterday': give a datetime such as"),
        ({"window_end": timedelta(days=1)}, "window_end is .*timedelta.*: give a datetime such as"),
        ({"window_end": END.date()}, r"window_end is datetime\.date.*: give a datetime such as"),
        ({"rules": {"failures_allowed": True}}, "failures_allowed is True: give a whole number"),
        ({"timezone": "Mars"}, "timezone is 'Mars'"),
        ({"timezone": None}, "timezone is None: give the name of a zone"),
        ({"report_path": "/tmp/a.txt"}, "report_path is '/tmp/a.txt': name a file that ends in .html"),
    ],
)
def test_a_wrong_argument_is_an_error_when_the_dag_is_parsed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelArtsAuditProcessorTasksOperator(task_id="audit", **arguments)
    with pytest.raises(ValueError, match=message):
        ModelArtsAuditProcessorTasksOperator.partial(task_id="audit", **arguments)


# Since the last audit


def test_an_audit_begins_where_the_last_one_ended() -> None:
    audit("first", START)
    audit("last", END)
    chosen = choose({"run_id": "next", "logical_date": END + timedelta(days=4)}).window
    assert (chosen.start, chosen.end) == (END, END + timedelta(days=4))


def test_an_audit_that_did_not_end_is_made_up_for_by_the_next() -> None:
    audit("first", START)
    choose({"run_id": "raises", "logical_date": END})
    assert audit("next", END + HALF_A_DAY).window == Window(START, END + HALF_A_DAY)


def test_a_first_audit_says_so_and_the_next_does_not() -> None:
    assert audit("first", START).notes == ["This is the first audit by this Airflow task: it reaches back a day."]
    assert audit("next", END).notes == []


def test_an_audit_is_never_of_the_future() -> None:
    audit("first", START)
    assert audit("by hand", NOW + timedelta(days=365)).window == Window(START, NOW)


def test_a_run_that_is_tried_or_cleared_again_audits_its_window_again() -> None:
    audit("first", START)
    before = audit("second", END).window
    audit("third", END + HALF_A_DAY)
    assert audit("second", END, lag=HALF_A_DAY).window == before
    assert audit("fourth", NOW).window == Window(END + HALF_A_DAY, NOW)


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow has no task state store")
def test_a_run_of_long_ago_audits_its_window_again_where_airflow_keeps_state_with_the_run() -> None:
    state = RunState()
    choose({"run_id": "old", "logical_date": START, "task_state_store": state}).mark_ended()
    for number in range(1, 300):
        audit(f"later {number}", START + timedelta(minutes=number))
    assert choose({"run_id": "old", "logical_date": START}).window.is_empty
    again = choose({"run_id": "old", "logical_date": START, "task_state_store": state})
    assert again.window == Window(START - timedelta(days=1), START)
    again.mark_ended()
    assert audit("next", NOW).window == Window(START + timedelta(minutes=299), NOW)


def test_a_run_with_nothing_left_audits_an_empty_window_and_says_why() -> None:
    audit("first", END)
    chosen = audit("again", END)
    assert chosen.window == Window(END, END)
    assert chosen.notes[0].startswith("Earlier audits of this Airflow task have covered everything until 2026-11-24")
    assert audit("next", END + HALF_A_DAY).window == Window(END, END + HALF_A_DAY)


def test_a_run_for_a_date_before_the_first_audit_audits_the_day_before_it() -> None:
    audit("first", END)
    a_week_ago = END - timedelta(days=7)
    assert audit("backfill", a_week_ago, run_type="backfill").window == Window(
        a_week_ago - timedelta(days=1), a_week_ago
    )


def test_what_lies_between_a_backfill_and_the_first_audit_is_audited_by_the_next_run() -> None:
    audit("first", END)
    a_week_ago = END - timedelta(days=7)
    audit("backfill", a_week_ago, run_type="backfill")
    chosen = audit("next", NOW)
    covered = (milliseconds(START), milliseconds(END))
    assert chosen.window == Window(a_week_ago, NOW, (covered,))
    assert chosen.notes == ["Earlier audits have covered a part of this window: the tasks of that part are left out."]


def test_what_lies_between_a_run_by_hand_for_long_ago_and_the_first_audit_is_not_audited() -> None:
    audit("first", END)
    audit("by hand", datetime(2020, 1, 1, tzinfo=UTC), run_type="manual")
    audit("next", END + HALF_A_DAY)
    assert audit("last", NOW).window == Window(END + HALF_A_DAY, NOW)


def test_fractions_of_a_millisecond_are_in_the_next_window() -> None:
    moment = END + timedelta(microseconds=1999)
    assert milliseconds(audit("first", moment).window.end) == milliseconds(END) + 1


@pytest.mark.parametrize(
    "other",
    [
        {"project": "other"},
        {"template_id": "sys_data_cleaning"},
        {"workspace_id": "7"},
        {"source_type": "OBS"},
        {"source": "obs://bucket/"},
    ],
    ids=lambda other: str(next(iter(other))),
)
def test_another_project_or_filter_has_a_history_of_its_own(other: dict[str, Any]) -> None:
    audit("first", END)
    assert audit("other", NOW, **other).window == Window(NOW - timedelta(days=1), NOW)
    assert audit("next", NOW).window == Window(END, NOW)


def test_mapped_instances_with_the_same_filters_audit_the_same_window() -> None:
    audit("first", START)
    context = {"run_id": "run", "logical_date": END}
    one, other = (choose({**context, "ti": TaskInstance(map_index=index)}) for index in (0, 1))
    one.mark_ended()
    again = choose({**context, "ti": TaskInstance(map_index=2)})
    assert one.window == other.window == again.window == Window(START, END)


def test_the_default_workspace_is_workspace_0() -> None:
    audit("first", END)
    assert audit("next", NOW, workspace_id="0").window == Window(END, NOW)


@pytest.mark.parametrize("kind", ["day", "data_interval"])
def test_another_kind_of_window_neither_reads_nor_writes_the_history(kind: str, airflow_variables: Variables) -> None:
    choose(INTERVAL, window=kind).mark_ended()
    choose(INTERVAL, window_start=START).mark_ended()
    assert airflow_variables == {}


def test_the_variables_key_has_only_characters_that_secrets_backends_accept(airflow_variables: Variables) -> None:
    task_instance = TaskInstance(dag_id="dag.with-ünlaut" + "x" * 250, task_id="group.audit")
    choose({"logical_date": END, "ti": task_instance}).mark_ended()
    (key,) = airflow_variables
    assert key.startswith("modelarts_audit_dag_with_nlaut")
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
    assert len(key) <= 250


@pytest.mark.parametrize("text", ["", "yesterday", "[]", '{"since": null}', '{"since": 1, "audited": 2, "runs": {}}'])
def test_a_variable_with_another_content_is_an_error_that_names_it(text: str, airflow_variables: Variables) -> None:
    audit("first", END)
    (key,) = airflow_variables
    airflow_variables[key] = text
    with pytest.raises(ValueError, match=f"the Airflow variable '{key}' is not a history of audits"):
        audit("next", NOW)


def test_a_variable_that_exists_and_cannot_be_read_is_an_error(
    airflow_variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit("first", END)
    monkeypatch.setattr(airflow_variables, "get", lambda key, default: default)  # as Airflow does in an outage
    with pytest.raises(ValueError, match="exists but cannot be read"):
        audit("next", NOW)


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 keeps its variables outside of tasks too")
def test_outside_of_an_airflow_task_an_audit_is_a_first_one_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()  # Airflow's own variables, which need a supervisor
    for _ in range(2):
        assert audit("run", END).window == Window(START, END)
    assert "This is not an Airflow task: the next audit will not know about this one." in caplog.text


def test_a_history_keeps_the_windows_of_the_last_100_runs() -> None:
    history = AuditHistory()
    for number in range(300):
        history.add(f"run {number}", [(number, number + 1)], keeps_since=False)
    read = AuditHistory.from_json(history.to_json())
    assert read == history
    assert (read.since, read.audited, len(read.runs)) == (0, [(0, 300)], 100)
    assert len(history.to_json()) < 10_000


def test_only_one_task_instance_audits_at_a_time_unless_the_user_says_otherwise() -> None:
    def limit(**arguments: Any) -> int | None:
        found: int | None = ModelArtsAuditProcessorTasksOperator(task_id="a", **arguments).max_active_tis_per_dag
        return found

    assert (limit(), limit(max_active_tis_per_dag=3)) == (1, 3)
    assert (limit(window="day"), limit(window_start=START)) == (None, None)


ranges = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda pair: (min(pair), max(pair) + 1))


@given(st.lists(ranges))
def test_merged_ranges_have_the_same_moments_and_gaps_between_them(given_ranges: list[tuple[int, int]]) -> None:
    merged = merge(given_ranges)
    assert moments(merged) == moments(given_ranges)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(merged))


@given(ranges, st.lists(ranges))
def test_subtracted_ranges_are_the_rest(whole: tuple[int, int], given_ranges: list[tuple[int, int]]) -> None:
    assert moments(subtract(whole, given_ranges)) == moments([whole]) - moments(given_ranges)


def moments(of: Sequence[tuple[int, int]]) -> set[int]:
    return {moment for start, end in of for moment in range(start, end)}


# A year of runs

YEAR_START = pendulum.datetime(2026, 1, 1, tz="UTC")
YEAR_END = YEAR_START.add(years=1)
BERLIN, NEW_YORK, LORD_HOWE = (
    pendulum.timezone(f) for f in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
)
TIMETABLES: dict[str, Timetable] = {
    "weekdays": CronTriggerTimetable("0 6 * * 1-5", timezone=BERLIN),
    "hourly when clocks change": CronTriggerTimetable("0 * * 3,11 *", timezone=NEW_YORK),
    "daily": CronTriggerTimetable("30 2 * * *", timezone=BERLIN),  # 02:30 is missing in March and twice in October
    "weekly": CronTriggerTimetable("0 0 * * 0", timezone=LORD_HOWE),  # whose summer time is half an hour
    "monthly": CronTriggerTimetable("0 0 1 * *", timezone="UTC"),
    "with an interval": CronTriggerTimetable("0 6 * * *", timezone=NEW_YORK, interval=timedelta(hours=3)),
    "data intervals": CronDataIntervalTimetable("0 6 * * 1-5", timezone=BERLIN),
    "monthly data intervals": CronDataIntervalTimetable("0 0 1 * *", timezone=NEW_YORK),
    "deltas": DeltaDataIntervalTimetable(timedelta(hours=31)),
    "delta triggers": DeltaTriggerTimetable(timedelta(hours=7, minutes=13)),
}
try:
    from airflow.timetables.trigger import MultipleCronTriggerTimetable
except ImportError:  # Airflow 2.11
    pass
else:
    TIMETABLES["several crons"] = MultipleCronTriggerTimetable(
        "0 6 * * *", "30 1-3 * * *", "0 6 * * 1", timezone=BERLIN
    )


@dataclass(frozen=True)
class Run:
    """A run: the moment at which its task executes, and the part of its context that the window depends on."""

    at: datetime
    run_id: str
    context: dict[str, Any]


def scheduled(timetable: Timetable) -> Iterator[Run]:
    """Yield all runs of the year."""
    restriction = TimeRestriction(YEAR_START, YEAR_END, True)
    interval = None
    while info := timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction):
        interval = info.data_interval
        if info.run_after >= YEAR_END:
            return
        context = {
            "logical_date": info.logical_date,
            "data_interval_start": interval.start,
            "data_interval_end": interval.end,
            "dag_run": SimpleNamespace(run_type="scheduled", run_after=info.run_after),
        }
        yield Run(info.run_after, f"scheduled {info.run_after}", context)


def by_hand(timetable: Timetable, moment: datetime, number: int) -> Run:
    """Return a run by hand with the logical date of Airflow 2, one without (Airflow 3), or one for an asset."""
    dag_run = SimpleNamespace(run_type="asset_triggered" if number % 3 == 2 else "manual", run_after=moment)
    context: dict[str, Any] = {"logical_date": None, "dag_run": dag_run}
    if number % 3 == 0:
        interval = timetable.infer_manual_data_interval(run_after=pendulum.instance(moment))
        bounds = {"data_interval_start": interval.start, "data_interval_end": interval.end}
        context |= {"logical_date": moment, **bounds}
    return Run(moment, f"by hand {number}", context)


def a_year_of_runs(timetable: Timetable, chance: random.Random) -> Iterator[Run]:
    """Yield runs in the order in which they execute.

    There are two pauses without catching up. Later come backfills, in any order, of dates without an audit and of
    others. Some runs are cleared and execute again.
    """

    def some_day(first: float, last: float) -> datetime:
        return YEAR_START + timedelta(days=chance.uniform(first, last))

    due = list(scheduled(timetable))
    pauses = [(YEAR_START, some_day(20, 50)), (some_day(150, 160), some_day(161, 240))]
    runs = [
        replace(run, at=run.at + timedelta(seconds=chance.expovariate(1 / 60)))
        for run in due
        if not any(start <= run.at < end for start, end in pauses)
    ]
    runs += [by_hand(timetable, some_day(60, 364), number) for number in range(30)]
    for start, end in ((some_day(1, 10), pauses[0][1]), (some_day(100, 140), some_day(150, 250))):
        again = [run for run in due if start <= run.at < end][-50:]
        at, context = some_day(260, 300), {"dag_run": SimpleNamespace(run_type="backfill")}
        for run in chance.sample(again, len(again)):
            runs.append(Run(at, f"backfill {run.run_id}", {**run.context, **context}))
    runs.sort(key=lambda run: run.at)
    for number, run in enumerate(runs):
        yield run
        if chance.random() < 20 / len(runs):
            yield replace(runs[max(number - chance.randrange(50), 0)], at=run.at)
    yield by_hand(timetable, YEAR_END, 100)


@pytest.mark.parametrize("name", TIMETABLES)
def test_each_task_of_a_year_is_in_exactly_one_window(name: str) -> None:
    chance = random.Random(name)
    lag = chance.choice([timedelta(), HALF_A_DAY])
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", lag=lag)
    outage = (YEAR_START + timedelta(days=80), YEAR_START + timedelta(days=84.5))
    windows: dict[str, Window] = {}
    for run in a_year_of_runs(TIMETABLES[name], chance):
        chosen = choose_window(operator, {"ti": TaskInstance(), "run_id": run.run_id, **run.context}, run.at, PROJECT)
        assert chosen.window.end <= run.at - lag
        if not outage[0] <= run.at < outage[1]:
            chosen.mark_ended()
            if not (before := windows.get(run.run_id, chosen.window)).is_empty:
                assert chosen.window == before
            windows[run.run_id] = chosen.window
    assert count_audits(windows.values(), chance) == {1}


def count_audits(windows: Collection[Window], chance: random.Random) -> set[int]:
    """Return in how many windows tasks are that were created around the bounds of windows and anywhere in between."""
    bounds = [(milliseconds(each.start), milliseconds(each.end)) for each in windows if not each.is_empty]
    first, last = min(start for start, _ in bounds), max(end for _, end in bounds)
    assert last == max(milliseconds(each.end) for each in windows)
    created = {chance.randrange(first, last) for _ in range(1000)}
    created |= {bound + offset for pair in bounds for bound in pair for offset in (-1, 0, 1)}
    tasks = sorted(moment for moment in created if first <= moment < last)
    audits = dict.fromkeys(tasks, 0)
    for window, (start, end) in zip((each for each in windows if not each.is_empty), bounds, strict=True):
        for moment in tasks[bisect_left(tasks, start) : bisect_left(tasks, end)]:
            audits[moment] += not any(covered[0] <= moment < covered[1] for covered in window.covered)
    return set(audits.values())
