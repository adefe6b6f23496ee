"""The essentials in a real Airflow: an example, each mode of waiting, and a create whose worker is killed."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from tests.integration.exactly_once.crashes import ENVIRONMENT, CrashCase
from tests.integration.exactly_once.points import LOST_ANSWER, Point
from tests.support.airflow_runs import pushed, states
from tests.support.case_table import DAGS, Case, airflow_with, run_cases
from tests.support.waiting import TIMEOUT

EXAMPLE = Path(__file__).parents[2] / "dags_examples" / "feature_analysis.py"
WAITS = ("poke", "reschedule", "deferrable", "trigger only")
CRASH = "create"


@dataclass
class Results:
    """The cases by mode, and the state and the XComs of the example."""

    cases: dict[str, Case]
    example: str
    xcoms: dict[tuple[str, str], object]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Everything run side by side in one Airflow, to save time."""
    folder, dags = tmp_path_factory.mktemp("crashes"), tmp_path_factory.mktemp("dags")
    for file in (DAGS / "cases.py", EXAMPLE):
        shutil.copy(file, dags)
    with EmulatorServer(task_duration=1.0) as emulator:
        cases: dict[str, Case] = {
            # Retries are for tasks that Airflow loses on a busy machine.
            mode: Case(number=number, mode=mode, emulator=emulator, retries=2)
            for number, mode in enumerate(WAITS, start=1)
        }
        if AIRFLOW_V_3_3_PLUS:  # it needs the task state store
            point = Point("submit", (LOST_ANSWER,))
            cases[CRASH] = CrashCase(number=9, mode=CRASH, emulator=emulator, point=point, folder=folder)
        all_cases = list(cases.values())
        settings = {
            **ENVIRONMENT,
            "CASE_FOLDER": str(folder),
            "AIRFLOW_CONN_MODELARTS_DEFAULT": emulator.airflow_connection(),
        }
        with airflow_with(all_cases, settings, dags_folder=dags) as sandbox:
            sandbox.wait_for_dags(EXAMPLE.stem, timeout=TIMEOUT)
            run_id = sandbox.trigger(EXAMPLE.stem)
            run_cases(sandbox, all_cases, timeout=TIMEOUT)
            example = sandbox.wait(EXAMPLE.stem, run_id, timeout=TIMEOUT)
            yield Results(
                cases, f"{example} {states(sandbox, EXAMPLE.stem, run_id)}", pushed(sandbox, EXAMPLE.stem, run_id)
            )


def test_the_example_succeeds_and_pushes_its_result(results: Results) -> None:
    assert results.example.startswith("success"), results.example
    assert [value for (_, key), value in results.xcoms.items() if key == "result"] != []


@pytest.mark.parametrize("mode", WAITS)
def test_a_wait_returns_the_final_status_in_this_mode(results: Results, mode: str) -> None:
    case = results.cases[mode]
    assert case.state == "success", case.log
    expected = {"task_id": case.processor_task_id, "status": 2, "status_name": "completed"}
    assert case.xcoms["return_value"] == expected


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="needs the task state store of Airflow 3.3")
def test_a_create_whose_worker_is_killed_before_the_answer_leaves_one_processing_task(results: Results) -> None:
    case = results.cases[CRASH]
    assert isinstance(case, CrashCase)
    assert (case.state, case.kills, case.runs) == ("success", 1, 1), case.log
    assert case.tries > 1
    (task,) = case.processing_tasks
    assert case.xcoms["return_value"]["task_id"] == task.task_id
