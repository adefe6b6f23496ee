"""What the unit tests share: a connection in the environment, to a ModelArts that is not there or to a local one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_modelarts import connection
from airflow_modelarts.testing.emulator import EmulatorServer
from tests.support.values import PROJECT_ID

ENDPOINT = "https://modelarts.example.com"
TASKS = f"{ENDPOINT}/v2/{PROJECT_ID}/processor-tasks"
SECRET_KEY = "fake-secret-key"


@pytest.fixture
def set_connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the connection ``modelarts_default``: keyword arguments change the usual one, extras by ``extra=``."""

    def set_it(*, extra: dict[str, Any] | None = None, **fields: Any) -> None:
        usual: dict[str, Any] = {
            "conn_type": "modelarts",
            "host": "modelarts.example.com",
            "login": "FAKEACCESSKEY",
            "password": SECRET_KEY,
        }
        described = {**usual, **fields, "extra": {"project_id": PROJECT_ID, **(extra or {})}}
        monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", json.dumps(described))

    return set_it


@pytest.fixture(autouse=True)
def usual_connection(set_connection: Callable[..., None]) -> None:
    set_connection()


@pytest.fixture(autouse=True)
def fresh_token_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TOKEN_CACHE", connection.TokenCache())


@pytest.fixture(autouse=True)
def fresh_rate_limiters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LIMITERS", connection.RateLimiters(time.monotonic))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect the pauses instead of sleeping them; for what paces requests, time has gone by."""
    slept: list[float] = []
    monkeypatch.setattr(connection, "LIMITERS", connection.RateLimiters(lambda: sum(slept)))
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.fixture(scope="module")
def server() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=0) as running:
        yield running


@pytest.fixture
def emulator(server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> EmulatorServer:
    """A local ModelArts without tasks, which the usual connection leads to; tasks that are created end at once."""
    server.state.reset()
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", server.airflow_connection())
    return server


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return what was logged since it was last called: outside of tasks, Airflow prints it."""
    return lambda: capsys.readouterr().out
