"""Every fault in every mode: the outcome, the number of requests and processing tasks, and no leaked secret."""

import os
from collections.abc import Callable, Iterable

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from tests.integration.faults.cases import FAULTS, Fault
from tests.integration.faults.matrix import FaultCase, FaultMatrix

MODES = ("poke", "reschedule", "deferrable", "trigger only", "create", "create deferrable")
#: Airflow 2.11 runs one task at a time on SQLite, and a worker takes seconds to start: a few cases are enough there.
SOME_FAULTS = ("reset after the request", "503", "401, a token")
SOME_MODES = ("poke", "deferrable", "create", "create deferrable")
#: The most calls before an error fails a task: a token is renewed once, and a worker calls after the trigger.
FEW_CALLS = 4


def wanted() -> tuple[list[Fault], list[str]]:
    """Return the faults and modes to test. The environment variables FAULTS and MODES select some."""
    faults = [fault for fault in FAULTS if AIRFLOW_V_3_3_PLUS or fault.name in SOME_FAULTS]
    modes = MODES if AIRFLOW_V_3_3_PLUS else SOME_MODES
    only_faults, only_modes = (os.environ.get(name, "") for name in ("FAULTS", "MODES"))
    return (
        [fault for fault in faults if not only_faults or fault.name in only_faults.split(";")],
        [mode for mode in modes if not only_modes or mode in only_modes.split(";")],
    )


FAULTS_HERE, MODES_HERE = wanted()


def in_each_mode(faults: Iterable[Fault]) -> pytest.MarkDecorator:
    cases = [pytest.param(fault, mode, id=f"{fault.name}-{mode}") for fault in faults for mode in MODES_HERE]
    return pytest.mark.parametrize(("fault", "mode"), cases)


#: The most cases that Airflow itself may lose; on an idle machine it loses none.
MOST_LOST = 5

each = in_each_mode(FAULTS_HERE)
each_that_lasts = in_each_mode(fault for fault in FAULTS_HERE if fault.error)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, publish: Callable[[str, str], None]) -> FaultMatrix:
    """The matrix, run to its end before the tests read it."""
    run = FaultMatrix(FAULTS_HERE, MODES_HERE, tmp_path_factory.mktemp("certificates"))
    publish("fault matrix", run.table())
    return run


def case_of(matrix: FaultMatrix, fault: Fault, mode: str) -> FaultCase:
    case = matrix.cases[fault.name, mode]
    if case.losses and case.state == "failed":
        pytest.skip(f"Airflow lost this task: {case.losses[0]}")  # before our code ran; the next test limits how many
    return case


def test_hardly_any_task_is_lost_by_airflow_itself(matrix: FaultMatrix) -> None:
    lost = [name for name, case in matrix.cases.items() if case.losses and case.state == "failed"]
    assert len(lost) <= MOST_LOST, lost


@each
def test_a_task_outlasts_a_temporary_fault_and_fails_on_any_other(matrix: FaultMatrix, fault: Fault, mode: str) -> None:
    case = case_of(matrix, fault, mode)
    assert case.state == ("failed" if fault.error else "success"), case.log
    assert fault.error in case.log
    assert fault.advice in case.log


@each_that_lasts
def test_a_permanent_error_fails_the_task_after_a_few_calls(matrix: FaultMatrix, fault: Fault, mode: str) -> None:
    case = case_of(matrix, fault, mode)
    assert max(case.requests, case.injected.hits or 0) <= FEW_CALLS


@each
def test_each_task_met_its_fault(matrix: FaultMatrix, fault: Fault, mode: str) -> None:
    """Otherwise its outcome would prove nothing."""
    case = case_of(matrix, fault, mode)
    if fault.error:
        assert case.injected.hits != 0
    else:
        assert case.injected.is_over
        assert case.injected.hits != 0 or fault.name.startswith("none")


@each
def test_a_task_returns_the_final_status_unless_it_fails(matrix: FaultMatrix, fault: Fault, mode: str) -> None:
    case = case_of(matrix, fault, mode)
    if case.creates or fault.error:
        assert (case.xcoms.get("return_value") or {}).get("status") == (None if fault.error else 2)
        return
    assert case.xcoms["return_value"] == {"task_id": case.processor_task_id, "status": 2, "status_name": "completed"}


@each
def test_a_create_leaves_at_most_one_processing_task(matrix: FaultMatrix, fault: Fault, mode: str) -> None:
    case = case_of(matrix, fault, mode)
    assert len(case.processing_tasks) == (fault.tasks_created if case.creates else 1)


@each
def test_no_fault_costs_an_airflow_task_a_second_try(matrix: FaultMatrix, fault: Fault, mode: str) -> None:
    case = case_of(matrix, fault, mode)
    assert case.tries == 1 + len(case.losses)


def test_a_redirect_is_never_followed(matrix: FaultMatrix) -> None:
    assert matrix.trapped == 0


def test_airflow_writes_no_secret_to_logs_or_database(matrix: FaultMatrix) -> None:
    assert matrix.secrets_found == []
