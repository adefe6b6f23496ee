"""One local ModelArts and one running Airflow for all integration tests; starting them costs some fifteen seconds."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.sandbox import Sandbox

HERE = Path(__file__).parent
DAGS = HERE / "dags"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session", autouse=True)
def ends_with_its_processes() -> Iterator[None]:
    """Make SIGTERM end the tests as Ctrl-C does: fixtures then stop what they have started."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def emulator() -> Iterator[EmulatorServer]:
    """A local ModelArts whose processing tasks take two seconds."""
    with EmulatorServer(task_duration=2.0) as server:
        yield server


@pytest.fixture(scope="session")
def sandbox(emulator: EmulatorServer) -> Iterator[Sandbox]:
    """A running Airflow with every DAG of `dags/` and two connections to the emulator.

    `modelarts_default` has an access key, `modelarts_password` an IAM user's password. The sandbox is shared: a test
    that kills a component restarts it.
    """
    by_key = json.loads(emulator.airflow_connection())
    extra = {**by_key["extra"], "auth": "password", "domain_name": accounts.DOMAIN_NAME}
    by_password = {**by_key, "login": accounts.USER_NAME, "password": accounts.PASSWORD, "extra": extra}
    connections = {"modelarts_default": json.dumps(by_key), "modelarts_password": json.dumps(by_password)}
    with Sandbox(DAGS, connections=connections) as running:
        # Airflow 2 triggers only what it has parsed.
        names = ("bodies", "export", "inputs", "many", "outputs", "patience", "tidy_up", "timeouts", "waits")
        running.wait_for_dags(*names, timeout=180)
        yield running


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory for whatever a test starts; its path is short, as sockets in it need."""
    with tempfile.TemporaryDirectory(prefix="am-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
