"""A local ModelArts and a cluster of Airflow's processes that works against it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import TaskRule
from tests.cluster.services import what_is_missing

HERE = Path(__file__).parent

#: Seconds. A wait in a triggerer costs nothing, so it may be long; one on a worker keeps one of its eight places.
DURATION_DEFERRABLE = 30.0
DURATION_SYNCHRONOUS = 5.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def requirements() -> None:
    """Skip, and say why, where the cluster cannot be."""
    if not AIRFLOW_V_3_3_PLUS:  # what it shows is the task state store's, which came with 3.3
        pytest.skip("the cluster is one of Airflow 3.3")
    for module in ("airflow.providers.celery", "asyncpg", "psycopg", "redis"):
        pytest.importorskip(module, reason=f"{module} is missing: pip install '.[test,cluster]'")
    if missing := what_is_missing():
        pytest.skip(missing)  # where the servers can be installed, the gate takes a skip for a failure


@pytest.fixture(scope="session", autouse=True)
def ends_with_its_processes() -> Iterator[None]:
    """Make SIGTERM end the tests as Ctrl-C does: fixtures then stop what they have started."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def emulator() -> Iterator[EmulatorServer]:
    """A local ModelArts; how long a task takes is told by its name."""
    with EmulatorServer() as server:
        server.state.add_rule(TaskRule("deferrable-*", times=None, duration=DURATION_DEFERRABLE))
        server.state.add_rule(TaskRule("synchronous-*", times=None, duration=DURATION_SYNCHRONOUS))
        yield server
