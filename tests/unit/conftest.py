"""What the unit tests share: a connection in the environment, and the answers of a ModelArts that is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_modelarts import connection

PROJECT_ID = "0123456789abcdef0123456789abcdef"
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
def no_grant_is_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "GRANTS", connection.GrantCache())


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect the pauses instead of sleeping them."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept
