"""The places where a worker has credentials: variables, files, and the local services that issue keys."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_modelarts.api.credentials import AuthContext, Authorizer, instance_agency
from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts, trust
from tests.support.flows import ONCE

SDK = "HUAWEICLOUD_SDK_"
OIDC = "HUAWEICLOUD_OIDC_"
PREFIXES = ("HUAWEICLOUD_", "HC_CONTAINER_")


class Worker:
    """A worker with nothing but a home folder, which is the working directory too; tests give it credentials."""

    def __init__(self, home: Path, emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.emulator, self._monkeypatch = home, emulator, monkeypatch
        for name in [name for name in os.environ if name.startswith(PREFIXES)]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.chdir(home)
        self.setenv(**{f"{SDK}IAM_ENDPOINT": emulator.url, f"{SDK}STS_ENDPOINT": emulator.url})
        self.use_metadata_service(f"http://127.0.0.1:{closed_port()}")

    def setenv(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value.replace("{url}", self.emulator.url).replace("{home}", str(self.home)))

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def use_metadata_service(self, url: str | None = None) -> None:
        """Set the address of the metadata service; by default the emulator has it."""
        self._monkeypatch.setattr(instance_agency, "METADATA_SERVICE", url or self.emulator.url)

    def id_token(self, **changes: Any) -> str:
        return trust.issue_id_token(now=time.time(), **changes)

    def connect(self, auth: str, extra: dict[str, Any] | None = None, **fields: Any) -> None:
        """Set the connection ``modelarts_default`` to the emulator."""
        extras = {"auth": auth, "project_id": accounts.PROJECT_ID, **(extra or {})}
        connection = {"conn_type": "modelarts", "host": self.emulator.url, **fields, "extra": extras}
        self._monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", json.dumps(connection))


def obtain(hook: ModelArtsHook | None = None) -> Authorizer:
    """Obtain an authorizer with a hook, by default one of the connection ``modelarts_default``."""
    if hook is None:
        with ModelArtsHook(retries=ONCE) as hook:
            return obtain(hook)
    client = hook.get_conn().client
    context = AuthContext(client.project_id, client.cache, ONCE, client.now, client.random)
    return hook.run(client.credentials.obtain(context, refused=None))


def closed_port() -> int:
    """Return a port of loopback on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def worker(tmp_path: Path, emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Worker:
    return Worker(tmp_path, emulator, monkeypatch)
