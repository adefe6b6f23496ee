"""The vendor's own client with the emulator: the emulator verifies the vendor's signatures."""

import json
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials  # type: ignore[import-untyped]  # it has no stubs
from huaweicloudsdkcore.client import Client, ClientBuilder  # type: ignore[import-untyped]  # it has no stubs
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException  # type: ignore[import-untyped]  # it has no stubs
from huaweicloudsdkcore.http.http_config import HttpConfig  # type: ignore[import-untyped]  # it has no stubs
from huaweicloudsdkcore.sdk_response import SdkResponse  # type: ignore[import-untyped]  # it has no stubs

from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from airflow_modelarts.testing.emulator.service import accounts
from tests.support.calling import DATA_VALIDATION, FEATURE_ANALYSIS

Vendor = Callable[..., Any]


class VendorResponse(SdkResponse):  # type: ignore[misc]  # the vendor's package has no types
    """A response class as the vendor generates it, without fields, since the tests read the bytes."""

    openapi_types: ClassVar[dict[str, str]] = {}


class VendorClient(Client):  # type: ignore[misc]  # the vendor's package has no types
    """A client class as the vendor generates it for each service."""

    def call(self, method: str, path: str, body: Any, query: list[tuple[str, Any]]) -> Any:
        response = self.do_http_request(
            method,
            "/v2/{project_id}/processor-tasks" + path,
            query_params=query,
            header_params={"Content-Type": "application/json"},
            body=body,
            response_type=VendorResponse,
        )
        return json.loads(response.raw_content)


def connect(server: EmulatorServer, credentials: BasicCredentials) -> Vendor:
    config = HttpConfig.get_default_config()
    config.retry_times = 0
    client = (
        ClientBuilder(VendorClient)
        .with_http_config(config)
        .with_credentials(credentials)
        .with_endpoint(server.url)
        .build()
    )

    def call(method: str, path: str = "", body: Any = None, query: list[tuple[str, Any]] | None = None) -> Any:
        return client.call(method, path, body, query or [])

    return call


@pytest.fixture
def vendor(emulator: EmulatorServer) -> Vendor:
    return connect(emulator, BasicCredentials(accounts.ACCESS_KEY, accounts.SECRET_KEY, accounts.PROJECT_ID))


def test_the_vendors_client_creates_describes_updates_and_deletes(vendor: Vendor, state: EmulatorState) -> None:
    task_id = vendor("POST", body=FEATURE_ANALYSIS)["task_id"]
    assert vendor("GET", f"/{task_id}")["name"] == FEATURE_ANALYSIS["name"]
    assert vendor("PUT", f"/{task_id}", {"description": "größer als zuvor ~ 中文"}) == {}
    assert state.find_task(task_id).body["description"] == "größer als zuvor ~ 中文"
    state.clock.advance(10)
    assert vendor("DELETE", f"/{task_id}") == {}


def test_the_vendors_client_lists_with_every_kind_of_parameter(vendor: Vendor, state: EmulatorState) -> None:
    for name in ("ein Name mit Leerzeichen ü~+&=%/", "中文", "x"):
        state.add_task(name, status=1)
    for part in ("ü~+&=%/", "中文", "Name mit"):
        query = [("task_name", part), ("limit", 100), ("return_result", False), ("status", 1), ("source", "")]
        assert vendor("GET", query=query[:-1])["count"] == 1
        assert vendor("GET", query=query)["count"] == 0


def test_the_vendors_client_stops_a_version(vendor: Vendor, state: EmulatorState) -> None:
    task_id = vendor("POST", body=DATA_VALIDATION)["task_id"]
    state.clock.advance(5)
    version_id = vendor("GET", f"/{task_id}/versions")["versions"][0]["task_version_id"]
    assert vendor("POST", f"/{task_id}/versions/{version_id}/stop") == {}
    assert state.status(task_id) == 4


def test_the_vendors_client_is_authorized_with_a_temporary_key(emulator: EmulatorServer) -> None:
    credentials = BasicCredentials(
        accounts.TEMPORARY_ACCESS_KEY, accounts.TEMPORARY_SECRET_KEY, accounts.PROJECT_ID
    ).with_security_token(accounts.SECURITY_TOKEN)
    assert connect(emulator, credentials)("POST", body=FEATURE_ANALYSIS)["task_id"]


def test_the_vendors_client_reads_the_emulators_errors(emulator: EmulatorServer, vendor: Vendor) -> None:
    with pytest.raises(ClientRequestException) as missing:
        vendor("GET", "/gone")
    assert (missing.value.status_code, missing.value.error_code) == (400, "ModelArts.4700")
    assert missing.value.request_id
    wrong = connect(emulator, BasicCredentials(accounts.ACCESS_KEY, "wrong", accounts.PROJECT_ID))
    with pytest.raises(ClientRequestException) as refused:
        wrong("GET")
    assert (refused.value.status_code, refused.value.error_code) == (401, "APIGW.0301")
