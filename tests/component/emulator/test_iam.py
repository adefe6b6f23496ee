"""The emulator's IAM, STS, pod identity and metadata service: what they issue, refuse and let expire."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests

from airflow_modelarts.api import signing
from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from airflow_modelarts.testing.emulator.service import accounts, trust

KEYS = "/v3.0/OS-CREDENTIAL/securitytokens"


def post(
    emulator: EmulatorServer, path: str, body: Any, key: tuple[str, str] | None = None, **headers: str
) -> requests.Response:
    """Send JSON, signed with a key if one is given."""
    request = requests.Request("POST", emulator.url + path, json=body, headers=headers).prepare()
    if key is not None:
        content = request.body if isinstance(request.body, bytes) else b""
        request.headers.update(
            signing.sign(*key, method="POST", url=emulator.url + path, headers={}, body=content, now=time.time())
        )
    with requests.Session() as session:
        session.trust_env = False
        return session.send(request, timeout=60)


def token_body(**details: Any) -> dict[str, Any]:
    return {"auth": {"identity": {"methods": ["token"], "token": details}}}


def agency_body(**changes: Any) -> dict[str, Any]:
    agency = {"agency_name": trust.AGENCY_NAME, "domain_name": trust.AGENCY_DOMAIN_NAME, **changes}
    return {"auth": {"identity": {"methods": ["assume_role"], "assume_role": agency}}}


KEY = (accounts.ACCESS_KEY, accounts.SECRET_KEY)


def token_of(state: EmulatorState, project_id: str | None = accounts.PROJECT_ID, lifetime: float = 60) -> str:
    return state.accounts.issue_token(project_id, now=state.gateway_time, lifetime=lifetime).value


def test_a_key_for_a_token_is_limited_to_its_project(emulator: EmulatorServer, state: EmulatorState) -> None:
    answer = post(emulator, KEYS, token_body(id=token_of(state), duration_seconds=900))
    assert answer.status_code == 201
    issued = answer.json()["credential"]
    key = state.accounts.find_key(issued["access"])
    assert key is not None
    assert (key.secret_key, key.security_token) == (issued["secret"], issued["securitytoken"])
    assert key.projects == {accounts.PROJECT_ID}


def test_the_token_can_be_in_the_header_alone(emulator: EmulatorServer, state: EmulatorState) -> None:
    body = {"auth": {"identity": {"methods": ["token"]}}}
    issued = post(emulator, KEYS, body, **{"X-Auth-Token": token_of(state)}).json()["credential"]
    key = state.accounts.find_key(issued["access"])
    assert key is not None
    assert key.projects == {accounts.PROJECT_ID}
    assert post(emulator, KEYS, body).status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (token_body(id="unknown"), 401),
        (token_body(id=7), 400),
        (token_body(id="unknown", duration_seconds=899), 400),
        (token_body(id="unknown", duration_seconds=86401), 400),
        (token_body(id="unknown", duration_seconds="soon"), 400),
        (agency_body(agency_name="nobody"), 403),
        (agency_body(domain_name="nowhere"), 403),
        (agency_body(domain_name=""), 400),
        (agency_body(duration_seconds=10**9), 400),
        ({"auth": {"identity": {"methods": ["password"]}}}, 400),
        ({"auth": []}, 400),
        ([], 400),
    ],
)
def test_iam_refuses_a_key(emulator: EmulatorServer, body: Any, status: int) -> None:
    answer = post(emulator, KEYS, body, KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, status)


def test_an_expired_token_gets_no_key(emulator: EmulatorServer, state: EmulatorState) -> None:
    assert post(emulator, KEYS, token_body(id=token_of(state, lifetime=-1))).status_code == 401


@pytest.mark.parametrize("key", [None, (accounts.ACCESS_KEY, "wrong"), ("UNKNOWN", "x")])
def test_an_agency_is_for_known_callers(emulator: EmulatorServer, key: tuple[str, str] | None) -> None:
    assert post(emulator, KEYS, agency_body(), key).status_code == 401
    assert post(emulator, KEYS, agency_body(), KEY).status_code == 201


@pytest.mark.parametrize(("asked", "longest", "lifetime"), [(900, 86400, 900), (3600, 60, 60), (86400, 86400, 86400)])
def test_a_setting_limits_how_long_keys_are_valid(
    emulator: EmulatorServer, state: EmulatorState, asked: int, longest: int, lifetime: int
) -> None:
    state.settings.temporary_key_lifetime = longest
    before = state.gateway_time
    issued = post(emulator, KEYS, agency_body(duration_seconds=asked), KEY).json()["credential"]
    key = state.accounts.find_key(issued["access"])
    assert key is not None
    assert key.expires_at is not None
    assert before + lifetime <= key.expires_at <= state.gateway_time + lifetime
    assert issued["expires_at"] == accounts.keystone_time(key.expires_at)


def test_the_control_api_issues_id_tokens(emulator: EmulatorServer) -> None:
    def exchange(**control: Any) -> tuple[int, int]:
        token = post(emulator, "/emulator/id-tokens", control).json()["id_token"]
        older = post(
            emulator,
            "/v3.0/OS-AUTH/id-token/tokens",
            {"auth": {"id_token": {"id": token}}},
            **{"X-Idp-Id": trust.IDP_ID},
        )
        names = {"provider_urn": trust.PROVIDER_URN, "agency_urn": trust.OIDC_AGENCY_URN}
        body = {**names, "agency_session_name": "s", "id_token": token, "duration_seconds": 900}
        return older.status_code, post(emulator, "/v5/agencies/assume-with-oidc", body).status_code

    assert exchange() == (201, 200)
    assert exchange(audience="other") == (401, 401)
    assert exchange(lifetime=0) == (401, 401)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "\ud800.x.y", "漢.漢.漢"])
def test_any_other_id_token_is_refused(emulator: EmulatorServer, token: str) -> None:
    body = {"auth": {"id_token": {"id": token}}}
    answer = post(emulator, "/v3.0/OS-AUTH/id-token/tokens", body, **{"X-Idp-Id": trust.IDP_ID})
    assert answer.status_code == (401 if token else 400)


def test_another_issuer_is_refused(state: EmulatorState) -> None:
    token = trust.issue_id_token(now=state.gateway_time, issuer="elsewhere")
    with pytest.raises(trust.InvalidIdTokenError, match="another issuer"):
        trust.check_id_token(token, now=state.gateway_time)


def test_the_control_api_adds_an_agency(emulator: EmulatorServer) -> None:
    agency = {"name": "mine", "domain_name": "yours", "projects": [accounts.PROJECT_ID]}
    assert post(emulator, "/emulator/agencies", agency).status_code == 200
    assert post(emulator, KEYS, agency_body(agency_name="mine", domain_name="yours"), KEY).status_code == 201


def test_projects_are_listed_by_name_for_known_callers(emulator: EmulatorServer, state: EmulatorState) -> None:
    url, headers = f"{emulator.url}/v3/projects", {"X-Auth-Token": token_of(state)}
    assert requests.get(url, timeout=60).status_code == 401
    assert len(requests.get(url, headers=headers, timeout=60).json()["projects"]) == 2
    named = requests.get(f"{url}?name={accounts.REGION}", headers=headers, timeout=60).json()["projects"]
    assert [project["id"] for project in named] == [accounts.PROJECT_ID]
    assert requests.get(f"{url}?name=x", headers=headers, timeout=60).json()["projects"] == []


@pytest.mark.parametrize("lifetime", ["", "0", "21601", "soon", "²"])
def test_a_session_token_of_the_metadata_service_needs_a_lifetime(emulator: EmulatorServer, lifetime: str) -> None:
    headers = {"X-Metadata-Token-Ttl-Seconds": lifetime.encode()}
    answer = requests.put(f"{emulator.url}/meta-data/latest/api/token", headers=headers, timeout=60)
    assert answer.status_code == 400


def test_the_metadata_service_requires_its_session_token(emulator: EmulatorServer) -> None:
    url = f"{emulator.url}/openstack/latest/securitykey"
    for given in ({}, {"X-Metadata-Token": "wrong"}):
        assert requests.get(url, headers=given, timeout=60).status_code == 401
