"""A worker or a triggerer that is killed at any point leaves one processing task, and the run succeeds."""

import os
from collections.abc import Callable

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from tests.integration.exactly_once.crashes import CrashCase, CrashTable
from tests.integration.exactly_once.points import MODES, Point

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="needs the task state store of Airflow 3.3")


def name_of(mode: str, point: Point) -> str:
    return f"{mode}: {point} ({point.victims}, {point.task_at_retry})"


#: The environment variable POINTS selects points, such as POINTS="before CreateProcessorTask" or POINTS=triggerer.
WANTED = [
    (mode, point)
    for mode, points in MODES.items()
    for point in points
    if os.environ.get("POINTS", "") in name_of(mode, point)
]
each = pytest.mark.parametrize(("mode", "point"), WANTED, ids=[name_of(mode, point) for mode, point in WANTED])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, publish: Callable[[str, str], None]) -> CrashTable:
    """The table, run to its end before the tests read it."""
    run = CrashTable(WANTED, tmp_path_factory.mktemp("crashes"))
    publish("crash table", run.table())
    return run


@pytest.fixture
def case(table: CrashTable, mode: str, point: Point) -> CrashCase:
    return table.cases[mode, point]


@each
def test_a_crash_leaves_one_processing_task_and_a_run_that_succeeds(case: CrashCase) -> None:
    assert (case.state, len(case.processing_tasks), case.runs) == ("success", 1, 1), case.log


@each
def test_each_crash_happened_and_cost_a_try(case: CrashCase, point: Point) -> None:
    """Otherwise the outcome would prove nothing."""
    assert case.kills == len(point.kills)
    assert case.tries >= 1 + (len(point.kills) if point.needs_retry else 0)


@each
def test_the_xcoms_are_those_of_the_one_processing_task(case: CrashCase) -> None:
    (task,) = case.processing_tasks
    assert case.xcoms["return_value"]["task_id"] == task.task_id == case.xcoms["processor_task_id"]
    assert case.xcoms["return_value"]["status_name"] == "completed"
    assert case.xcoms["version"]["task_version_id"] == task.versions[0].version_id
    assert case.xcoms["work_path"] == {"type": "OBS", "path": "obs://bucket/work/"}


def test_the_table_covers_each_phase_in_each_mode() -> None:
    every = [(mode, point) for mode, points in MODES.items() for point in points]
    retried = [(mode, point) for mode, point in every if point.needs_retry]
    assert len(retried) >= 30
    assert {point.phase for _, point in every} == {"submit", "persist", "defer", "queue", "wait", "conclude"}
    assert all(sum(mode == other for other, _ in retried) >= 15 for mode in MODES)
    assert sum("worker" in point.victims for _, point in retried) >= 6
    assert sum("triggerer" in point.victims for _, point in every) >= 10
