"""Tests of the exceptions: default advice, copying, pickling."""

from __future__ import annotations

import copy
import pickle

import pytest

from airflow_modelarts.api.errors import (
    ModelArtsAlreadyExistsError,
    ModelArtsAuthenticationError,
    ModelArtsBusyError,
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsNotFoundError,
    ModelArtsRequestError,
    ModelArtsThrottledError,
    ModelArtsTransientError,
)

KINDS = (
    ModelArtsAlreadyExistsError,
    ModelArtsAuthenticationError,
    ModelArtsBusyError,
    ModelArtsConfigurationError,
    ModelArtsNotFoundError,
    ModelArtsRequestError,
    ModelArtsThrottledError,
    ModelArtsTransientError,
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_default_advice(kind: type[ModelArtsError]) -> None:
    assert kind.default_advice


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_caught_as_a_modelarts_error(kind: type[ModelArtsError]) -> None:
    with pytest.raises(ModelArtsError):
        raise kind("what happened")


@pytest.mark.parametrize("kind", KINDS)
def test_only_throttled_busy_and_transient_are_temporary(kind: type[ModelArtsError]) -> None:
    assert kind.temporary is (kind in (ModelArtsThrottledError, ModelArtsBusyError, ModelArtsTransientError))


FACTS = {
    "error_code": "ModelArts.4700",
    "http_status": 400,
    "request_id": "r",
    "operation": "X",
    "retry_after": 3.0,
    "outcome_unknown": True,
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [ModelArtsError, *KINDS])
def test_an_error_survives_pickling(kind: type[ModelArtsError], protocol: int) -> None:
    error = kind("what happened", **FACTS)  # type: ignore[arg-type]  # each fact has its own type
    again = pickle.loads(pickle.dumps(error, protocol))
    assert (type(again), str(again), vars(again)) == (kind, "what happened", FACTS)


@pytest.mark.parametrize("kind", [ModelArtsError, *KINDS])
def test_an_error_can_be_copied(kind: type[ModelArtsError]) -> None:
    error = kind("what happened", **FACTS)  # type: ignore[arg-type]  # each fact has its own type
    again = copy.copy(error)
    assert again is not error
    assert (type(again), str(again), vars(again)) == (kind, "what happened", FACTS)
