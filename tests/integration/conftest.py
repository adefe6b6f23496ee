"""One emulator and one running Airflow for each module: an idle Airflow costs the other modules CPU time."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.sandbox import Sandbox
from tests.support.waiting import TIMEOUT

HERE = Path(__file__).parent
DAGS = HERE / "dags"


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorServer]:
    """An emulator whose processing tasks take two seconds."""
    with EmulatorServer(task_duration=2.0) as server:
        yield server


@pytest.fixture(scope="module")
def sandbox(emulator: EmulatorServer) -> Iterator[Sandbox]:
    """A running Airflow with every DAG of ``dags/`` and two connections to the emulator.

    ``modelarts_default`` has an access key, ``modelarts_password`` an IAM user's password. Tests share the Airflow:
    one that kills a component restarts it.
    """
    by_key = json.loads(emulator.airflow_connection())
    extra = {**by_key["extra"], "auth": "password", "domain_name": accounts.DOMAIN_NAME}
    by_password = {**by_key, "login": accounts.USER_NAME, "password": accounts.PASSWORD, "extra": extra}
    connections = {"modelarts_default": json.dumps(by_key), "modelarts_password": json.dumps(by_password)}
    with Sandbox(DAGS, connections=connections) as running:
        # Airflow 2 triggers only DAGs that it has parsed.
        names = "bodies export inputs many one_timeout outputs patience tidy_up timeouts waits"
        running.wait_for_dags(*names.split(), timeout=TIMEOUT)
        yield running


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory for the processes that a test starts. Its path is short, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="am-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
