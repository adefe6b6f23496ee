"""A worker that is killed, at any point, leaves one processing task and a retry that succeeds."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from tests.integration.exactly_once.crashes import Case, CrashTable
from tests.integration.exactly_once.points import PATHS, Point

pytestmark = pytest.mark.skipif(
    not AIRFLOW_V_3_3_PLUS, reason="the task state store, by which a retry knows what was sent, came with Airflow 3.3"
)
#: What is tested here; the environment variable POINTS narrows it down: POINTS="before CreateProcessorTask".
WANTED = [
    (path, point) for path, points in PATHS.items() for point in points if os.environ.get("POINTS", "") in str(point)
]
each = pytest.mark.parametrize(
    ("path", "point"), WANTED, ids=[f"{path}: {point} ({point.victims}, {point.hits})" for path, point in WANTED]
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, publish: Callable[[str, str], None]) -> CrashTable:
    """The table, run to its end before the tests look at it."""
    run = CrashTable(WANTED, tmp_path_factory.mktemp("crashes"))
    publish("crash table", run.table())
    return run


def case_of(table: CrashTable, path: str, point: Point) -> Case:
    return table.cases[path, point]


@each
def test_a_crash_leaves_one_processing_task_and_a_run_that_succeeds(table: CrashTable, path: str, point: Point) -> None:
    case = case_of(table, path, point)
    assert (case.outcome, len(case.processing_tasks), case.runs) == ("success", 1, 1), case.log


@each
def test_each_crash_happened_and_cost_a_try(table: CrashTable, path: str, point: Point) -> None:
    """Or the outcome would prove nothing."""
    case = case_of(table, path, point)
    assert case.kills == len(point.kills)
    assert case.tries >= 1 + (len(point.kills) if point.needs_retry else 0)


@each
def test_what_is_handed_on_is_that_one_task(table: CrashTable, path: str, point: Point) -> None:
    case = case_of(table, path, point)
    (task,) = case.processing_tasks
    assert case.xcoms["return_value"]["task_id"] == task.task_id == case.xcoms["processor_task_id"]
    assert case.xcoms["return_value"]["status_name"] == "completed"
    assert case.xcoms["version"]["task_version_id"] == task.versions[0].version_id
    assert case.xcoms["work_path"] == {"type": "OBS", "path": "obs://bucket/work/"}


def test_the_points_are_many_enough() -> None:
    retried = [(path, point) for path, points in PATHS.items() for point in points if point.needs_retry]
    assert len(retried) >= 30
    assert {point.phase for _, point in retried} == {"submit", "persist", "defer", "wait", "conclude"}
    assert all(sum(path == other for other, _ in retried) >= 16 for path in PATHS)
    assert sum("worker" in point.victims for _, point in retried) >= 6
