"""The retry policy: what it decides for which exception, and what an Airflow without policies says of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.api import errors
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.retry_policy import ModelArtsRetryPolicy

needs_policies = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="retry policies came with Airflow 3.3")


def decide(error: BaseException) -> tuple[str, Any]:
    decision = ModelArtsRetryPolicy().evaluate(error, 1, 3)
    return decision.action.value, decision.retry_delay


@needs_policies
@pytest.mark.parametrize(
    ("error", "action"),
    [
        (errors.ModelArtsRequestError("refused"), "fail"),
        (errors.ModelArtsNotFoundError("gone"), "fail"),
        (ModelArtsProcessorTaskFailed("failed", is_permanent=True), "fail"),
        (ModelArtsProcessorTaskFailed("failed"), "default"),
        (errors.ModelArtsTransientError("down"), "default"),
        (errors.ModelArtsAuthenticationError("refused", outcome_unknown=True), "default"),
        (ZeroDivisionError(), "default"),
    ],
)
def test_what_a_retry_cannot_mend_fails_and_the_rest_is_left_to_the_task(error: Exception, action: str) -> None:
    assert decide(error) == (action, None)


@needs_policies
@pytest.mark.parametrize(
    ("seconds", "delay"),
    [(30.0, timedelta(seconds=30)), (0.0, timedelta(seconds=1)), (1e12, timedelta(days=1))],
)
def test_the_retry_comes_when_the_service_asks_for_it(seconds: float, delay: timedelta) -> None:
    assert decide(errors.ModelArtsThrottledError("slow down", retry_after=seconds)) == ("retry", delay)


@needs_policies
def test_a_permanent_error_fails_although_it_has_a_retry_after() -> None:
    assert decide(errors.ModelArtsRequestError("refused", retry_after=5.0)) == ("fail", None)


@needs_policies
def test_the_cause_of_an_exception_decides() -> None:
    error = RuntimeError("could not list")
    error.__cause__ = errors.ModelArtsAuthenticationError("refused")
    assert decide(error) == ("fail", None)


@needs_policies
def test_the_reason_is_the_message_of_the_error() -> None:
    decision = ModelArtsRetryPolicy().evaluate(errors.ModelArtsNotFoundError("no task 'abc'"), 1, 3)
    assert decision.reason == "a retry cannot mend this: no task 'abc'"


@needs_policies
def test_a_stored_policy_is_read_again() -> None:
    assert isinstance(ModelArtsRetryPolicy.deserialize(ModelArtsRetryPolicy().serialize()), ModelArtsRetryPolicy)


@pytest.mark.skipif(AIRFLOW_V_3_3_PLUS, reason="it has retry policies")
def test_an_older_airflow_names_the_way_out() -> None:
    with pytest.raises(RuntimeError, match="fail_fast=True"):
        ModelArtsRetryPolicy()
