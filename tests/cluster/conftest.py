"""The emulator of the cluster tests, and what the cluster needs."""

from collections.abc import Iterator

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer
from tests.cluster.services import what_is_missing

#: Seconds.
DURATION = 5.0
#: The template of the deferrable runs, and how many tasks of it the service admits at once.
LIMITED_TEMPLATE, LIMIT = "sys_data_validation", 10


@pytest.fixture(scope="session")
def requirements() -> None:
    """Skip where the cluster cannot run, and say why."""
    if not AIRFLOW_V_3_3_PLUS:
        pytest.skip("needs the task state store of Airflow 3.3")  # recovery uses it; the gate runs this on 3.3
    for module in ("airflow.providers.celery", "asyncpg", "psycopg", "redis"):
        pytest.importorskip(module, reason=f"{module} is missing: pip install '.[test,cluster]'")
    if missing := what_is_missing():
        pytest.skip(missing)  # servers, which only some machines can install; a skip fails the gate where it can


@pytest.fixture(scope="session")
def emulator() -> Iterator[EmulatorServer]:
    """An emulator that admits few tasks of one template at once."""
    with EmulatorServer(task_duration=DURATION) as server:
        server.state.settings.template_limits[LIMITED_TEMPLATE] = LIMIT
        yield server
