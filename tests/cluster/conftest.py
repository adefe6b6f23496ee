"""The emulator of the cluster tests, and what the cluster needs."""

from collections.abc import Iterator

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import TaskRule
from tests.cluster.services import what_is_missing

#: Seconds. A wait in a triggerer costs nothing and may be long; a wait on a worker occupies one of eight slots.
DURATION_DEFERRABLE = 30.0
DURATION_SYNCHRONOUS = 5.0


@pytest.fixture(scope="session")
def requirements() -> None:
    """Skip where the cluster cannot run, and say why."""
    if not AIRFLOW_V_3_3_PLUS:
        pytest.skip("needs the task state store of Airflow 3.3")  # the cluster tests recovery after crashes
    for module in ("airflow.providers.celery", "asyncpg", "psycopg", "redis"):
        pytest.importorskip(module, reason=f"{module} is missing: pip install '.[test,cluster]'")
    if missing := what_is_missing():
        pytest.skip(missing)  # where the gate can install the servers, a skip fails it


@pytest.fixture(scope="session")
def emulator() -> Iterator[EmulatorServer]:
    """An emulator in which the name of a task decides its duration."""
    with EmulatorServer() as server:
        server.state.add_rule(TaskRule("deferrable-*", times=None, duration=DURATION_DEFERRABLE))
        server.state.add_rule(TaskRule("synchronous-*", times=None, duration=DURATION_SYNCHRONOUS))
        yield server
