"""One local ModelArts and one running Airflow for all integration tests; starting them costs some fifteen seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_modelarts.emulator import EmulatorServer
from airflow_modelarts.sandbox import Sandbox

HERE = Path(__file__).parent
DAGS = HERE / "dags"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def emulator() -> Iterator[EmulatorServer]:
    """A local ModelArts whose processing tasks take two seconds."""
    with EmulatorServer(task_duration=2.0) as server:
        yield server


@pytest.fixture(scope="session")
def sandbox(emulator: EmulatorServer) -> Iterator[Sandbox]:
    """A running Airflow with every DAG of `dags/` and the connection `modelarts_default` to the emulator.

    It is shared: a test that kills a component restarts it.
    """
    with Sandbox(DAGS, connections={"modelarts_default": emulator.airflow_connection()}) as running:
        yield running


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory for whatever a test starts; its path is short, as sockets in it need."""
    with tempfile.TemporaryDirectory(prefix="am-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
