"""A service without HTTP."""

import pytest

from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.service.tasks import Clock
from tests.support.service import NOON


@pytest.fixture
def state() -> EmulatorState:
    """A service whose clock is frozen, and whose tasks take ten seconds."""
    return EmulatorState(clock=Clock(lambda: NOON))
