"""Which failures a retry cannot mend."""

from __future__ import annotations

import pytest

from airflow_modelarts.api import errors
from airflow_modelarts.api.arguments import ArgumentError
from airflow_modelarts.api.error_codes import CODES
from airflow_modelarts.api.permanence import CODES_WITHOUT_REASON, is_permanent, is_permanent_reason


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (errors.ModelArtsRequestError, True),
        (errors.ModelArtsConfigurationError, True),
        (errors.ModelArtsAuthenticationError, True),
        (errors.ModelArtsNotFoundError, True),
        (errors.ModelArtsAlreadyExistsError, True),
        (errors.ModelArtsThrottledError, False),
        (errors.ModelArtsBusyError, False),
        (errors.ModelArtsTransientError, False),
        (errors.ModelArtsError, False),
    ],
)
def test_the_kind_of_an_error_decides(kind: type[errors.ModelArtsError], *, expected: bool) -> None:
    assert is_permanent(kind("refused")) is expected


def test_a_submission_that_may_have_been_accepted_is_retried() -> None:
    assert not is_permanent(errors.ModelArtsAuthenticationError("refused", outcome_unknown=True))


def test_an_argument_that_cannot_be_right_is_permanent_and_a_foreign_error_is_not() -> None:
    assert is_permanent(ArgumentError("wrong"))
    assert not is_permanent(ValueError("wrong"))
    assert not is_permanent(TimeoutError())


@pytest.mark.parametrize(
    ("error_msg", "expected"),
    [
        (None, False),
        ("", False),
        ("something happened", False),
        ("The OBS path does not exist.", True),
        ("the operator doesn't exist", True),
        ("Bucket not found", True),
        ("Invalid parameter: size", True),
        ("the dataset format is not supported", True),
        ("No permission to access obs://b/k", True),
        ("Access denied", True),
        ("the quota of versions is used up", True),
        ("the bucket is full", True),
        ("Internal error: file not found, try again later", False),
        ("connection to the database timed out", False),
        ("resources are sold out", False),
        ("ModelArts.4312: sold out", True),
        ("failed (ModelArts.4992): invalid flavor", False),
        ("ModelArts.4614: internal error", False),
        ("ModelArts.4614: the OBS path does not exist", True),
        ("ModelArts.0001: access denied", True),
    ],
)
def test_the_reason_of_a_failed_task_decides(error_msg: str | None, *, expected: bool) -> None:
    assert is_permanent_reason(error_msg) is expected


def test_the_codes_without_reason_are_known() -> None:
    assert CODES.keys() >= CODES_WITHOUT_REASON
