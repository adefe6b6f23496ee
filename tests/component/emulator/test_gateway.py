"""The gateway and IAM over HTTP: signatures and tokens, valid and changed in each part."""

import hashlib
import http.client
import json
import math
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_modelarts.api import signing
from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.accounts import KeyPair, User
from tests.support.calling import FEATURE_ANALYSIS, Caller, error_of, token_request

QUARTER = 15 * 60  # seconds
TEMPORARY = {"access_key": accounts.TEMPORARY_ACCESS_KEY, "secret_key": accounts.TEMPORARY_SECRET_KEY}
WITH_TOKEN = {"headers": {"X-Security-Token": accounts.SECURITY_TOKEN}}
REFUSED = (401, "APIGW.0301")


def token_of(call: Caller, **changes: Any) -> str:
    return str(call.create_token(**changes).headers["X-Subject-Token"])


def with_token(call: Caller, token: str, project_id: str = accounts.PROJECT_ID) -> tuple[int, str | None]:
    response = call.send("GET", call.url("", project_id), headers={"X-Auth-Token": token})
    return response.status_code, response.json().get("error_code")


# Signatures


def test_a_signed_request_is_authorized(call: Caller) -> None:
    assert call("GET").json() == {"count": 0, "tasks": []}


def test_a_request_without_credentials_is_refused(call: Caller) -> None:
    response = call.send("GET", call.url(""))
    assert error_of(response) == REFUSED
    assert response.json()["request_id"] == response.headers["X-Request-Id"]


def replace(old: str, new: str) -> Any:
    return lambda headers: headers.update(Authorization=headers["Authorization"].replace(old, new))


@pytest.mark.parametrize(
    "change",
    [
        lambda headers: headers.update(Authorization=headers["Authorization"][:-1] + "g"),
        lambda headers: headers.update(Authorization=headers["Authorization"][:-64] + "0" * 64),
        *(replace("SDK-HMAC-SHA256", "Basic"), replace("EMULATOR", "UNKNOWN"), replace("content-type;", "")),
        *(replace("host;", ""), replace("x-project-id;", ""), replace(";x-sdk-date", "")),
        *(replace("host;", "host;host;"), replace("host;", "host;missing;")),
        lambda headers: headers.update({"Content-Type": "text/plain"}),
        lambda headers: headers.update({"X-Project-Id": accounts.OTHER_PROJECT_ID}),
        lambda headers: headers.update({"X-Sdk-Date": time.strftime("%Y%m%dT%H%M00Z", time.gmtime(time.time() - 120))}),
        lambda headers: headers.update({"X-Sdk-Date": "yesterday"}),
        lambda headers: headers.update({"Host": "modelarts.example.com"}),
        lambda headers: headers.update({"X-Security-Token": accounts.SECURITY_TOKEN}),
        lambda headers: headers.pop("X-Sdk-Date"),
    ],
)
def test_a_signed_request_that_was_changed_is_refused(call: Caller, change: Any) -> None:
    url = call.url("/items")
    headers = call.signed("GET", url)
    change(headers)
    assert error_of(call.send("GET", url, headers=headers)) == REFUSED


def test_the_signature_covers_method_path_query_and_body(call: Caller, state: EmulatorState) -> None:
    body = b'{"description": "mine"}'
    task = state.add_task(status=1)
    url = call.url(f"/{task.task_id}")
    headers = call.signed("PUT", url, body)
    assert error_of(call.send("PUT", url, b'{"description": "other"}', headers)) == REFUSED
    assert error_of(call.send("DELETE", url, body, headers)) == REFUSED
    assert error_of(call.send("PUT", call.url("/other"), body, headers)) == REFUSED
    assert error_of(call.send("PUT", url + "?a=1", body, headers)) == REFUSED
    assert call.send("PUT", url, body, headers).status_code == 200


@pytest.mark.parametrize(
    ("difference", "expected"), [(0, 200), (QUARTER - 30, 200), (QUARTER + 30, 401), (20 * 60, 401)]
)
def test_a_callers_clock_can_differ_by_a_quarter_of_an_hour(call: Caller, difference: float, expected: int) -> None:
    for direction in (1, -1):
        response = call("GET", now=time.time() + direction * difference)
        assert response.status_code == expected
        assert expected == 200 or response.json()["error_code"] == "APIGW.0303"


def test_the_offset_of_the_gateways_clock_is_in_its_date_header(call: Caller, state: EmulatorState) -> None:
    state.settings.clock_offset = 20 * 60
    before = math.floor(time.time())
    response = call("GET")
    assert error_of(response) == (401, "APIGW.0303")
    assert before <= parsedate_to_datetime(response.headers["Date"]).timestamp() - 20 * 60 <= time.time()
    assert call("GET", now=time.time() + 20 * 60).status_code == 200


def test_advancing_the_clock_of_the_tasks_does_not_affect_signatures(call: Caller, state: EmulatorState) -> None:
    state.clock.advance(7 * 24 * 3600)
    assert call("GET").status_code == 200


def test_a_temporary_key_is_valid_only_with_its_token(call: Caller) -> None:
    assert call("GET", **TEMPORARY, **WITH_TOKEN).status_code == 200
    assert error_of(call("GET", **TEMPORARY)) == REFUSED
    assert error_of(call("GET", **TEMPORARY, headers={"X-Security-Token": "other"})) == REFUSED
    assert error_of(call("GET", **WITH_TOKEN)) == REFUSED


def test_a_security_token_must_be_signed(call: Caller) -> None:
    url = call.url("")
    headers = call.signed("GET", url, **TEMPORARY)
    headers["X-Security-Token"] = accounts.SECURITY_TOKEN
    assert error_of(call.send("GET", url, headers=headers)) == REFUSED


def test_a_temporary_key_expires(call: Caller, state: EmulatorState) -> None:
    key = KeyPair("EXPIRING", "secret", expires_at=time.time() - 1)
    state.accounts.add_key(key)
    assert error_of(call("GET", access_key="EXPIRING", secret_key="secret")) == REFUSED


@pytest.mark.parametrize("declared", ["UNSIGNED-PAYLOAD", hashlib.sha256(b'{"description": ""}').hexdigest()])
def test_a_declared_body_hash_must_be_correct_or_unsigned(call: Caller, state: EmulatorState, declared: str) -> None:
    url = call.url(f"/{state.add_task().task_id}")
    body = b'{"description": ""}'
    headers = signed_with_hash(url, declared)
    assert call.send("PUT", url, body, headers).status_code == 200
    other = call.send("PUT", url, b'{"description": "x"}', headers)
    assert other.status_code == (200 if declared == "UNSIGNED-PAYLOAD" else 401)


def test_an_empty_body_is_hashed_even_when_declared_unsigned(call: Caller) -> None:
    url = call.url("")
    headers = call.signed("GET", url, headers={"X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD"})
    assert call.send("GET", url, headers=headers).status_code == 200


def signed_with_hash(url: str, declared: str) -> dict[str, str]:
    headers = {"Host": url.split("/")[2], "X-Project-Id": accounts.PROJECT_ID, "X-Sdk-Content-Sha256": declared}
    headers["X-Sdk-Date"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    lower = {name.lower(): value for name, value in headers.items()}
    path = "/" + url.split("/", 3)[3]
    canonical = signing.canonical_request("PUT", path, "", lower, sorted(lower), declared)
    value = signing.signature(accounts.SECRET_KEY, headers["X-Sdk-Date"], canonical)
    names = ";".join(sorted(lower))
    authorization = f"SDK-HMAC-SHA256 Access={accounts.ACCESS_KEY}, SignedHeaders={names}, Signature={value}"
    return {**headers, "Authorization": authorization}


def test_signed_headers_can_be_utf_8(call: Caller) -> None:
    url = call.url("")
    headers = call.signed("GET", url, headers={"X-Note": "größer"})
    sent = {name: value.encode() for name, value in headers.items()}
    response = call.session.get(url, headers=sent, timeout=60)
    assert response.status_code == 200
    sent["X-Note"] = b"gr\xf6\xdfer"
    assert call.session.get(url, headers=sent, timeout=60).status_code == 200
    sent["X-Note"] = b"gr\xf6\xdfe"
    assert call.session.get(url, headers=sent, timeout=60).status_code == 401


# Projects


def test_a_project_that_does_not_exist_is_refused(call: Caller) -> None:
    for project_id in ("f" * 32, "no-project", "%00"):
        headers = {"X-Project-Id": project_id if project_id.isascii() and "%" not in project_id else "x"}
        assert error_of(call("GET", project_id=project_id, headers=headers)) == (400, "ModelArts.0210")


def test_a_request_signed_for_one_project_has_no_access_to_another(call: Caller) -> None:
    assert error_of(call("GET", project_id=accounts.OTHER_PROJECT_ID)) == (403, "APIGW.0302")
    headers = {"X-Project-Id": accounts.OTHER_PROJECT_ID}
    assert call("GET", project_id=accounts.OTHER_PROJECT_ID, headers=headers).status_code == 200


def test_a_key_can_be_limited_to_projects(call: Caller, state: EmulatorState) -> None:
    key = KeyPair("LIMITED", "secret", projects=frozenset({accounts.OTHER_PROJECT_ID}))
    state.accounts.add_key(key)
    assert error_of(call("GET", access_key="LIMITED", secret_key="secret")) == (403, "APIGW.0302")


def test_a_signature_without_a_project_has_no_scope(call: Caller) -> None:
    url = call.url("")
    headers = signing.sign(
        accounts.ACCESS_KEY, accounts.SECRET_KEY, method="GET", url=url, headers={}, body=b"", now=time.time()
    )
    assert error_of(call.send("GET", url, headers=headers)) == (400, "ModelArts.0204")


# Tokens


def test_a_token_of_iam_is_valid_until_it_expires(call: Caller, state: EmulatorState) -> None:
    token = token_of(call)
    assert with_token(call, token) == (200, None)
    state.settings.clock_offset = 24 * 3600 + 1
    assert with_token(call, token) == REFUSED


def test_an_unknown_token_is_refused(call: Caller) -> None:
    assert with_token(call, "MIIfake") == REFUSED


def test_a_token_gives_access_to_its_scopes_project_only(call: Caller) -> None:
    token = token_of(call, scope={"project": {"name": accounts.OTHER_PROJECT_NAME}})
    assert with_token(call, token) == (403, "APIGW.0302")
    assert with_token(call, token, accounts.OTHER_PROJECT_ID) == (200, None)


@pytest.mark.parametrize("scope", [{"domain": {"name": accounts.DOMAIN_NAME}}, None])
def test_a_token_without_a_project_is_refused(call: Caller, state: EmulatorState, scope: Any) -> None:
    if scope is None:
        token = state.accounts.issue_token(None, now=time.time(), lifetime=60).value
    else:
        token = token_of(call, scope=scope)
    assert with_token(call, token) == (400, "ModelArts.0204")


def test_a_repeated_header_is_refused(call: Caller) -> None:
    token = token_of(call)
    connection = http.client.HTTPConnection(urlsplit(call.server.url).netloc, timeout=60)
    connection.putrequest("GET", f"/v2/{accounts.PROJECT_ID}/processor-tasks")
    for _ in range(2):
        connection.putheader("X-Auth-Token", token)
    connection.endheaders()
    with connection.getresponse() as response:
        assert response.status == 401
    connection.close()


# IAM


def test_iam_issues_a_token_of_three_kilobytes_for_a_day(call: Caller) -> None:
    response = call.create_token()
    assert response.status_code == 201
    assert 3000 <= len(response.headers["X-Subject-Token"]) <= 4096
    token = response.json()["token"]
    assert token["expires_at"].endswith("Z")
    assert token["project"]["id"] == accounts.PROJECT_ID
    assert response.headers["X-Subject-Token"] not in response.text


def test_a_setting_changes_the_lifetime_of_tokens(call: Caller, state: EmulatorState) -> None:
    state.settings.token_lifetime = 60
    call.create_token()
    state.settings.clock_offset = 61
    token = token_of(call)
    assert with_token(call, token) == (200, None)
    state.settings.clock_offset = 125
    assert with_token(call, token) == REFUSED


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "wrong"},
        {"password": "ü\ud800"},
        {"name": "unknown"},
        {"domain": "nowhere"},
        {"scope": {"project": {"id": "f" * 32}}},
        {"scope": {"project": {"name": "nowhere"}}},
    ],
)
def test_iam_refuses_a_wrong_user_password_domain_or_project(call: Caller, changes: dict[str, Any]) -> None:
    response = call.create_token(**changes)
    assert response.status_code == 401
    error = response.json()["error"]
    assert (error["code"], error["title"], bool(error["message"])) == (401, "Unauthorized", True)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{", b'{"auth": {}}', b'{"auth": {"identity": {"methods": ["token"]}}}'),
        json.dumps(token_request(name=None)).encode(),
    ],
)
def test_iam_refuses_a_malformed_request(call: Caller, body: bytes) -> None:
    response = call.create_token(body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, 400)


def test_iam_issues_a_token_without_scope_that_gives_no_access(call: Caller) -> None:
    body = token_request()
    del body["auth"]["scope"]
    response = call.create_token(body)
    assert response.status_code == 201
    assert with_token(call, response.headers["X-Subject-Token"]) == (400, "ModelArts.0204")


def test_users_and_passwords_can_be_changed_at_run_time(call: Caller, state: EmulatorState) -> None:
    state.accounts.add_user(User(accounts.USER_NAME, "new", projects=frozenset({accounts.OTHER_PROJECT_ID})))
    assert call.create_token().status_code == 401
    assert call.create_token(password="new").status_code == 401
    scope = {"project": {"id": accounts.OTHER_PROJECT_ID}}
    assert call.create_token(password="new", scope=scope).status_code == 201
    assert state.accounts.remove_user(accounts.USER_NAME)
    assert not state.accounts.remove_user(accounts.USER_NAME)
    assert call.create_token(password="new", scope=scope).status_code == 401


# Paths


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v2"), ("GET", "/v1/x/processor-tasks"), ("PATCH", "/v2/x/processor-tasks"), ("HEAD", "/v3/auth/tokens")],
)
def test_an_unknown_path_or_method_is_refused_before_authorization(call: Caller, method: str, path: str) -> None:
    response = call.send(method, call.server.url + path)
    assert response.status_code == 404
    assert method == "HEAD" or response.json()["error_code"] == "APIGW.0101"


def test_an_unexpected_path_segment_is_an_unknown_path(call: Caller) -> None:
    for path in ("//", "/a/b/c/d/e", "/a%2Fb/c", "/a/"):
        assert error_of(call("GET", path)) == (404, "APIGW.0101")


def test_every_response_has_its_own_request_id(call: Caller) -> None:
    answers = [call("GET"), call("GET", "/x"), call("POST", body=FEATURE_ANALYSIS), call.create_token()]
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 4
