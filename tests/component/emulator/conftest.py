"""One emulator for all these tests, as new at the beginning of each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from tests.support.calling import Caller


@pytest.fixture(scope="session")
def running() -> Iterator[EmulatorServer]:
    with EmulatorServer() as server:
        yield server


@pytest.fixture
def server(running: EmulatorServer) -> EmulatorServer:
    running.state.reset()
    return running


@pytest.fixture
def state(server: EmulatorServer) -> EmulatorState:
    return server.state


@pytest.fixture
def call(server: EmulatorServer) -> Iterator[Caller]:
    caller = Caller(server)
    with caller.session:
        yield caller
