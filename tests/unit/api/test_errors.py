"""Tests of the exceptions: default advice and kinds."""

import pytest

from airflow_modelarts.api import errors

KINDS = errors.ModelArtsError.__subclasses__()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_default_advice(kind: type[errors.ModelArtsError]) -> None:
    assert kind.default_advice


@pytest.mark.parametrize("kind", KINDS)
def test_only_throttled_busy_and_transient_are_temporary(kind: type[errors.ModelArtsError]) -> None:
    temporary = (errors.ModelArtsThrottledError, errors.ModelArtsBusyError, errors.ModelArtsTransientError)
    assert kind.temporary is (kind in temporary)
