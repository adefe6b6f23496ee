"""Fixtures of the emulator's tests, besides those of ``tests/support``."""

from collections.abc import Iterator

import pytest

from airflow_modelarts.testing.emulator import EmulatorServer
from tests.support.calling import Caller


@pytest.fixture(scope="module")
def server() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=10.0) as running:
        yield running


@pytest.fixture
def call(emulator: EmulatorServer) -> Iterator[Caller]:
    caller = Caller(emulator)
    with caller.session:
        yield caller
