"""Fixtures of the emulator's tests, besides those of ``tests/support``."""

from collections.abc import Iterator

import pytest

from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from tests.support.calling import Caller


@pytest.fixture(scope="module")
def task_duration() -> float:
    return 10.0


@pytest.fixture
def state(emulator: EmulatorServer) -> EmulatorState:
    return emulator.state


@pytest.fixture
def call(emulator: EmulatorServer) -> Iterator[Caller]:
    caller = Caller(emulator)
    with caller.session:
        yield caller
