"""Tests of statuses."""

from typing import Any

import pytest

from airflow_modelarts.api import operations
from airflow_modelarts.api.statuses import (
    TERMINAL_STATUSES,
    ProcessorTaskStatus,
    read_ends,
    read_status,
    read_statuses,
    status_name,
)

NAMES = {0: "initialized", 1: "running", 2: "completed", 3: "failed", 4: "stopped"}


@pytest.mark.parametrize("status", [*NAMES, -1, 5, 99, 2**80, None])
def test_a_documented_status_has_its_name_and_any_other_its_number(status: int | None) -> None:
    assert status_name(status) == NAMES.get(status, f"unknown ({status})")


def test_completed_failed_and_stopped_are_terminal_and_no_others() -> None:
    assert set(TERMINAL_STATUSES) == {status for status in ProcessorTaskStatus if status.is_terminal} == {2, 3, 4}


@pytest.mark.parametrize("given", [3, "3", " 3 ", "failed", "FAILED", " Failed\n", ProcessorTaskStatus.FAILED, 3.0])
def test_a_status_is_read_from_its_number_or_its_name(given: Any) -> None:
    assert read_status("status", given) is ProcessorTaskStatus.FAILED
    assert read_ends("failed_statuses", [given, 4]) == (3, 4)
    assert operations.list_processor_tasks(status=given).query["status"] == "3"


@pytest.mark.parametrize(
    "given", ["", "finished", "fail", "-", "7", "33", 7, -1, 2.5, float("nan"), True, None, [3], "³"]
)
def test_an_invalid_status_is_an_error_that_names_the_argument(given: Any) -> None:
    with pytest.raises(ValueError, match=r"^status is .*: it must be 0 \(initialized\), .* or 4 \(stopped\)$"):
        read_status("status", given)
    with pytest.raises(ValueError, match=r"^statuses has .*: it must contain only 0 \(initialized\)"):
        read_statuses("statuses", [2, given])


@pytest.mark.parametrize("given", [0, 1, "running", "initialized", 5])
def test_a_status_that_is_not_terminal_is_refused_as_an_end(given: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"has {given!r}: it must contain only 2 \(completed\), 3 \(failed\) or 4 \(stopped\)$"
    ):
        read_ends("failed_statuses", [3, given])


@pytest.mark.parametrize(
    "given", [3, "failed", ProcessorTaskStatus.FAILED, "failed,stopped", b"3", None, {"failed": 1}]
)
def test_a_single_status_instead_of_a_list_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"failed_statuses is .*: give a list of statuses, for example \['failed'"):
        read_ends("failed_statuses", given)


def test_an_iterator_is_refused_since_airflow_reads_arguments_more_than_once() -> None:
    with pytest.raises(ValueError, match=r"failed_statuses is .*: give a list of statuses"):
        read_ends("failed_statuses", iter([3]))


def test_equal_lists_of_statuses_are_stored_equally() -> None:
    for given in (["stopped", 3], {4, "failed"}, [3, "4", 3], ("FAILED", "stopped", "failed")):
        read = read_ends("failed_statuses", given)
        assert read == (3, 4)
        assert [type(status) for status in read] == [int, int]
    assert read_ends("failed_statuses", ()) == ()
