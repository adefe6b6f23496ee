"""The fixtures of these tests, see ``tests/support``."""

import sys
from collections.abc import Iterator

import pytest

from tests.support.fixtures import *  # noqa: F403
from tests.support.loopback import carry_out, certificate, serve  # noqa: F401
from tests.support.sensor_modes import simulation  # noqa: F401


@pytest.fixture(autouse=True)
def forget_file_systems() -> Iterator[None]:
    """Make Airflow open the file system of each connection anew in each test."""
    yield
    for name in ("airflow.sdk.io.store", "airflow.io.store"):  # before Airflow 3.0, the second is the module
        getattr(sys.modules.get(name), "_STORE_CACHE", {}).clear()
