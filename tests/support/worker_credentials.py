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

AGENCY = {"agency_name": trust.AGENCY_NAME, "agency_domain_name": trust.AGENCY_DOMAIN_NAME}
USER = {"login": accounts.USER_NAME, "password": accounts.PASSWORD}
KEY = {"login": accounts.ACCESS_KEY, "password": accounts.SECRET_KEY}
OTHER = {"project_id": accounts.OTHER_PROJECT_ID}


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
        self._monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", self.connection(auth, extra, **fields))

    def connection(self, auth: str, extra: dict[str, Any] | None = None, **fields: Any) -> str:
        """Return the JSON of a connection to the emulator and its object store."""
        extras = {"auth": auth, "project_id": accounts.PROJECT_ID, "obs_endpoint": self.emulator.obs_url}
        connection = {"conn_type": "modelarts", "host": self.emulator.url, **fields, "extra": extras | (extra or {})}
        return json.dumps(connection)


def set_up(worker: Worker, kind: str) -> dict[str, Any]:
    """Give a worker what a kind of credentials needs, and return the fields of the connection."""
    worker.use_metadata_service()
    worker.write("id-token", worker.id_token())
    worker.write("pod-token", trust.POD_TOKEN)
    key = f"ak = {accounts.ACCESS_KEY}\nsk = {accounts.SECRET_KEY}\n"
    worker.write(".huaweicloud/credentials", f"[basic]\n{key}")
    match kind:
        case "access_key":
            return KEY
        case "password":
            return {**USER, "extra": {"domain_name": accounts.DOMAIN_NAME, "iam_endpoint": worker.emulator.url}}
        case "token":
            state = worker.emulator.state
            token = state.accounts.issue_token(accounts.PROJECT_ID, now=state.gateway_time, lifetime=3600)
            return {"password": token.value}
        case "environment":
            worker.setenv(**{f"{SDK}AK": accounts.ACCESS_KEY, f"{SDK}SK": accounts.SECRET_KEY})
        case "oidc":
            urns = {f"{OIDC}PROVIDER_URN": trust.PROVIDER_URN, f"{OIDC}AGENCY_URN": trust.OIDC_AGENCY_URN}
            worker.setenv(**urns, **{f"{OIDC}TOKEN_FILE": "{home}/id-token"})
        case "pod_identity":
            worker.setenv(
                HC_CONTAINER_CREDENTIALS_FULL_URI="{url}/pod-identity/credentials",
                HC_CONTAINER_AUTHORIZATION_TOKEN_FILE="{home}/pod-token",
            )
        case "assume_agency":
            return {"extra": {**AGENCY, **OTHER}}
    return {}


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
