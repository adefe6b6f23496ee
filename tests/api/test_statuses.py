"""Statuses, the documented ones and the others."""

from __future__ import annotations

import pytest

from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus, status_name


@pytest.mark.parametrize(
    ("status", "name"), [(0, "initialized"), (1, "running"), (2, "completed"), (3, "failed"), (4, "stopped")]
)
def test_a_documented_status_has_its_name(status: int, name: str) -> None:
    assert status_name(status) == name


@pytest.mark.parametrize("status", [-1, 5, 99, 2**80])
def test_an_undocumented_status_is_named_by_its_number(status: int) -> None:
    assert status_name(status) == f"unknown ({status})"


def test_a_missing_status_is_named_as_well() -> None:
    assert status_name(None) == "unknown (None)"


def test_completed_failed_and_stopped_are_terminal_and_no_others() -> None:
    assert set(TERMINAL_STATUSES) == {2, 3, 4}


@pytest.mark.parametrize("status", ProcessorTaskStatus)
def test_a_status_says_whether_it_is_terminal(status: ProcessorTaskStatus) -> None:
    assert status.is_terminal is (status >= 2)
