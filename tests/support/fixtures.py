"""The fixtures of unit and component tests: a connection in the environment, and an emulator behind it."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_modelarts.connection import reading
from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from tests.support.values import PROJECT_ID

ENDPOINT = "https://modelarts.example.com"
TASKS = f"{ENDPOINT}/v2/{PROJECT_ID}/processor-tasks"
SECRET_KEY = "fake-secret-key"


@pytest.fixture
def set_connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the connection ``modelarts_default``. Keyword arguments replace its fields, ``extra=`` adds extras."""

    def set_it(*, extra: dict[str, Any] | None = None, **fields: Any) -> None:
        usual = {"host": "modelarts.example.com", "login": "FAKEACCESSKEY", "password": SECRET_KEY, **fields}
        described = {"conn_type": "modelarts", **usual, "extra": {"project_id": PROJECT_ID, **(extra or {})}}
        monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", json.dumps(described))

    return set_it


@pytest.fixture(autouse=True)
def usual_connection(set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the connection, with no token and no rate limit of an earlier test."""
    set_connection()
    monkeypatch.setattr(reading, "TOKEN_CACHE", reading.TokenCache())
    monkeypatch.setattr(reading, "LIMITERS", reading.RateLimiters(time.monotonic))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect the arguments of ``time.sleep`` instead of sleeping. The clock of the rate limiters advances by them."""
    slept: list[float] = []
    monkeypatch.setattr(reading, "LIMITERS", reading.RateLimiters(lambda: sum(slept)))
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[EmulatorServer]:
    """Start an emulator for the module. A task takes the seconds of the module's TASK_DURATION, by default 0."""
    with EmulatorServer(task_duration=getattr(request.module, "TASK_DURATION", 0)) as running:
        yield running


@pytest.fixture
def emulator(server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> EmulatorServer:
    """A local ModelArts in its initial state; the usual connection points to it."""
    server.state.reset()
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", server.airflow_connection())
    return server


@pytest.fixture
def state(emulator: EmulatorServer) -> EmulatorState:
    return emulator.state


@pytest.fixture
def printed_log(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
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
