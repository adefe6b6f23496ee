"""The fixtures of unit and component tests: a connection in the environment, and an emulator behind it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_modelarts.connection import reading
from airflow_modelarts.testing.emulator import EmulatorServer
from tests.support.values import PROJECT_ID

ENDPOINT = "https://modelarts.example.com"
TASKS = f"{ENDPOINT}/v2/{PROJECT_ID}/processor-tasks"
SECRET_KEY = "fake-secret-key"


@pytest.fixture
def set_connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the connection ``modelarts_default``. Keyword arguments replace its fields, ``extra=`` adds extras."""

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
    monkeypatch.setattr(reading, "TOKEN_CACHE", reading.TokenCache())


@pytest.fixture(autouse=True)
def fresh_rate_limiters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LIMITERS", reading.RateLimiters(time.monotonic))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect the arguments of ``time.sleep`` instead of sleeping. The clock of the rate limiters advances by them."""
    slept: list[float] = []
    monkeypatch.setattr(reading, "LIMITERS", reading.RateLimiters(lambda: sum(slept)))
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.fixture(scope="module")
def task_duration(request: pytest.FixtureRequest) -> float:
    """Return the seconds that a task of the emulator takes: the module's TASK_DURATION, by default 0."""
    return float(getattr(request.module, "TASK_DURATION", 0))


@pytest.fixture(scope="module")
def server(task_duration: float) -> Iterator[EmulatorServer]:
    """Start an emulator for the module."""
    with EmulatorServer(task_duration=task_duration) as running:
        yield running


@pytest.fixture
def emulator(server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> EmulatorServer:
    """A local ModelArts in its initial state; the usual connection points to it."""
    server.state.reset()
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", server.airflow_connection())
    return server


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return what was logged since the last call. Outside of tasks, Airflow prints its log."""
    return lambda: capsys.readouterr().out


class Variables(dict[str, str]):
    """Airflow's ``Variable``, whose store is this dict."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a variable; the default if there is none."""
        return super().get(key, default)

    def set(self, key: str, value: str, description: str | None = None) -> None:
        """Set a variable."""
        self[key] = value

    def keys(self, prefix: str = "") -> list[str]:  # type: ignore[override]  # as Airflow 3.3 has it
        """Return the keys of the variables that begin with a prefix."""
        return [key for key in self if key.startswith(prefix)]


@pytest.fixture(autouse=True)
def airflow_variables(monkeypatch: pytest.MonkeyPatch) -> Variables:
    """Keep Airflow's variables in memory, since no Airflow runs."""
    variables = Variables()
    monkeypatch.setattr("airflow.providers.common.compat.sdk.Variable", variables)
    return variables
