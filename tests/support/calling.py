"""A client for tests of the emulator: it sends signed HTTP requests, without the hook."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from airflow_modelarts.api import signing
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts

CONTRACT = Path(__file__).parent.parent / "data" / "contract"
#: Seconds; long enough for a busy machine.
TIMEOUT = 60.0


def contract_example(name: str) -> dict[str, Any]:
    example: dict[str, Any] = json.loads((CONTRACT / "examples" / f"{name}.json").read_text(encoding="utf-8"))
    return example


FEATURE_ANALYSIS = contract_example("create-feature-analysis")
DATA_VALIDATION = contract_example("create-data-validation")


@dataclass
class Caller:
    """Calls the emulator, by default with its access key."""

    server: EmulatorServer
    session: requests.Session = field(default_factory=requests.Session)

    def url(self, path: str, project_id: str = accounts.PROJECT_ID) -> str:
        return f"{self.server.url}/v2/{project_id}/processor-tasks{path}"

    def signed(self, method: str, url: str, body: bytes = b"", **changes: Any) -> dict[str, str]:
        """Return the headers of a signed request; ``changes`` are ``headers`` and the arguments of ``sign``."""
        headers = {"X-Project-Id": accounts.PROJECT_ID, "Content-Type": "application/json"}
        headers |= changes.pop("headers", {})
        key = {"access_key": accounts.ACCESS_KEY, "secret_key": accounts.SECRET_KEY}
        arguments: dict[str, Any] = {**key, "now": time.time(), **changes}
        return signing.sign(method=method, url=url, headers=headers, body=body, **arguments)

    def __call__(self, method: str, path: str = "", body: Any = None, **changes: Any) -> requests.Response:
        """Send a signed request; ``path`` is below ``/processor-tasks``, and a body is encoded as JSON."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        url = self.url(path, changes.pop("project_id", accounts.PROJECT_ID))
        return self.send(method, url, data, self.signed(method, url, data, **changes))

    def send(
        self, method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> requests.Response:
        """Send a request unchanged."""
        return self.session.request(method, url, data=body, headers=headers, timeout=TIMEOUT, allow_redirects=False)

    def create_token(self, body: Any = None, **changes: Any) -> requests.Response:
        """Request a token; ``changes`` are the arguments of :func:`token_request`, for the default body."""
        data = body if isinstance(body, bytes) else json.dumps(body or token_request(**changes)).encode()
        return self.send("POST", f"{self.server.url}/v3/auth/tokens", data)

    def control(self, method: str, path: str, body: Any = None) -> requests.Response:
        return self.session.request(method, f"{self.server.url}/emulator{path}", json=body, timeout=TIMEOUT)


def token_request(
    name: str | None = accounts.USER_NAME,
    password: str = accounts.PASSWORD,
    domain: str = accounts.DOMAIN_NAME,
    scope: Any = None,
) -> dict[str, Any]:
    user = {"name": name, "password": password, "domain": {"name": domain}}
    return {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"id": accounts.PROJECT_ID}} if scope is None else scope,
        }
    }


def error_of(response: requests.Response) -> tuple[int, str]:
    """Return a response's HTTP status and error code."""
    return response.status_code, response.json()["error_code"]
