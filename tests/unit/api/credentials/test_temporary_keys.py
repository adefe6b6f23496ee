"""Tests of the kinds that exchange a token or a key for a temporary key: their requests, answers and errors."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_modelarts.api import errors
from airflow_modelarts.api.client import ClientConfig
from airflow_modelarts.api.credentials import (
    AccessKey,
    AssumeAgency,
    Candidate,
    Credentials,
    DefaultChain,
    FederatedUser,
    IdToken,
    InstanceAgency,
    OidcAgency,
    PasswordToken,
    PodIdentity,
)
from airflow_modelarts.api.http import FileReadError, ReadFile
from airflow_modelarts.api.project_lookup import ProjectLookup, find_project
from airflow_modelarts.transport.files import MAX_FILE_BYTES, read_file
from tests.support.credentials import DAY, Process, at, security_key, session_token, token
from tests.support.flows import (
    ACCESS_KEY,
    BROKEN,
    NOON,
    ONCE,
    REFUSED_CONNECTION,
    SECRET_KEY,
    Answer,
    answer,
    client,
    refuse,
    run_flow,
)

IAM, STS, POD_URI = "https://iam.example", "https://sts.example", "http://169.254.170.2/v1"
FILE = "/var/run/token"
FILES = {FILE: "F1LE-T0KEN\n"}
OIDC = OidcAgency(STS, "provider", "agency", IdToken("VARIABLE", path=FILE), "session", 900)
FEDERATED = FederatedUser(IAM, "idp", IdToken("VARIABLE", path=FILE))
POD = PodIdentity(POD_URI, FILE)
ASSUMED = AssumeAgency(ACCESS_KEY, IAM, "agency", "account")
KEY = AccessKey("AK1", "S3CRET", "T0KEN")

one_request = pytest.mark.parametrize(
    "credentials", [OIDC, POD, ASSUMED], ids=["oidc", "pod_identity", "assume_agency"]
)


def test_sts_gets_the_id_token_and_what_limits_the_key(process: Process) -> None:
    limited = replace(OIDC, policy="{}", policy_ids=("a", "b"))
    (request,) = process.obtain(limited, security_key(), files=FILES).requests
    assert (request.method, request.url) == ("POST", f"{STS}/v5/agencies/assume-with-oidc")
    assert json.loads(request.body) == {
        "provider_urn": "provider",
        "agency_urn": "agency",
        "agency_session_name": "session",
        "id_token": "F1LE-T0KEN",
        "duration_seconds": 900,
        "policy": "{}",
        "policy_ids": ["a", "b"],
    }
    assert "Authorization" not in request.headers


def test_iam_exchanges_the_id_token_for_a_token_and_that_for_a_key(process: Process) -> None:
    first, second = process.obtain(FEDERATED, token("UNSC0PED"), security_key(), files=FILES).requests
    assert first.url == f"{IAM}/v3.0/OS-AUTH/id-token/tokens"
    assert first.headers["X-Idp-Id"] == "idp"
    assert json.loads(first.body) == {"auth": {"id_token": {"id": "F1LE-T0KEN"}}}
    assert second.url == f"{IAM}/v3.0/OS-CREDENTIAL/securitytokens"
    details = {"id": "UNSC0PED", "duration_seconds": 21600}
    assert json.loads(second.body) == {"auth": {"identity": {"methods": ["token"], "token": details}}}


def test_pod_identity_gets_the_pods_token(process: Process) -> None:
    (request,) = process.obtain(POD, security_key(), files=FILES).requests
    assert (request.method, request.url, request.body) == ("POST", POD_URI, b"{}")
    assert request.headers["Authorization"] == "F1LE-T0KEN"
    assert request.timeout == 5


def test_iam_gets_a_signed_request_for_an_agencys_key(process: Process) -> None:
    (request,) = process.obtain(ASSUMED, security_key()).requests
    assert request.url == f"{IAM}/v3.0/OS-CREDENTIAL/securitytokens"
    details = {"agency_name": "agency", "domain_name": "account", "duration_seconds": 3600}
    assert json.loads(request.body) == {"auth": {"identity": {"methods": ["assume_role"], "assume_role": details}}}
    assert request.headers["Authorization"].startswith("SDK-HMAC-SHA256 Access=AK,")
    assert "X-Project-Id" not in request.headers


def test_a_user_who_assumes_an_agency_gets_a_token_of_the_account(process: Process) -> None:
    user = PasswordToken(IAM, "user", "the-password", "domain")
    first, second = process.obtain(replace(ASSUMED, source=user), token("T1"), security_key()).requests
    assert json.loads(first.body)["auth"]["scope"] == {"domain": {"name": "domain"}}
    assert second.headers["X-Auth-Token"] == "T1"


@pytest.mark.parametrize("wrapper", ["credential", "credentials", None])
@pytest.mark.parametrize(
    "names",
    [
        ("access", "secret", "securitytoken", "expires_at"),
        ("accessKeyId", "secretAccessKey", "securityToken", "expiration"),
        ("access_key_id", "secret_access_key", "security_token", "expires_at"),
    ],
)
def test_every_form_that_the_vendor_reads_is_read(
    process: Process, wrapper: str | None, names: tuple[str, ...]
) -> None:
    key = dict(zip(names, ("AK1", "S3CRET", "T0KEN", at(NOON + DAY)), strict=True))
    assert process.obtain(POD, answer({wrapper: key} if wrapper else key), files=FILES).value == KEY


@one_request
def test_a_key_is_cached_and_renewed_before_it_expires(process: Process, credentials: Credentials) -> None:
    process.obtain(credentials, security_key("AK1"), files=FILES)
    assert process.obtain(credentials).value == KEY, "no file is read, and no request made"
    process.clock.now = NOON + DAY - 299
    renewed = process.obtain(credentials, security_key("AK2"), files=FILES).value
    assert renewed == AccessKey("AK2", "S3CRET", "T0KEN")


@one_request
def test_a_short_lived_key_is_used_for_nine_tenths_of_its_life(process: Process, credentials: Credentials) -> None:
    process.obtain(credentials, security_key(expires_at=NOON + 101), files=FILES)
    process.clock.now = NOON + 89
    assert process.obtain(credentials).value == KEY
    process.clock.now = NOON + 92
    assert process.obtain(credentials, security_key("AK2"), files=FILES).value != KEY


@one_request
def test_a_refused_key_is_renewed(process: Process, credentials: Credentials) -> None:
    first = process.obtain(credentials, security_key("AK1"), files=FILES).value
    assert process.obtain(credentials, security_key("AK2"), refused=first, files=FILES).value != first


@one_request
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_names_what_to_check_and_no_secret(process: Process, credentials: Credentials, status: int) -> None:
    secret = SECRET_KEY if credentials is ASSUMED else "F1LE-T0KEN"
    error = process.obtain(credentials, refuse(status, "STS5.1106", f"not {secret}"), files=FILES).error
    assert isinstance(error, errors.ModelArtsAuthenticationError | errors.ModelArtsConfigurationError)
    assert (error.http_status, error.temporary) == (status, False)
    assert "Check " in str(error)
    assert secret not in str(error)


@one_request
@pytest.mark.parametrize("fault", [refuse(500), refuse(503), refuse(429), REFUSED_CONNECTION, BROKEN, answer({})])
def test_an_outage_is_temporary(process: Process, credentials: Credentials, fault: Answer) -> None:
    assert process.obtain(credentials, fault, files=FILES).error.temporary


@pytest.mark.parametrize("fault", [REFUSED_CONNECTION, BROKEN, answer({})])
@pytest.mark.parametrize(
    ("credentials", "address"),
    [
        (OIDC, STS),
        (FEDERATED, IAM),
        (POD, "http://169.254.170.2"),
        (ASSUMED, IAM),
        (PasswordToken(IAM, "user", "pass", "account", None), IAM),
    ],
)
def test_the_advice_of_an_outage_is_about_the_service_that_failed(
    process: Process, credentials: Credentials, address: str, fault: Answer
) -> None:
    message = str(process.obtain(credentials, fault, files=FILES).error)
    assert f"check that {address} is right and can be reached from here" in message
    assert "connection's host" not in message


@pytest.mark.parametrize("missing", ["access", "secret", "securitytoken", "expires_at"])
@pytest.mark.parametrize("value", [None, "", 7, "a b\n"])
def test_an_incomplete_key_is_an_error_that_quotes_nothing(process: Process, missing: str, value: Any) -> None:
    key = {"access": "AK1", "secret": "S3CRET", "securitytoken": "T0KEN", "expires_at": at(NOON + DAY), missing: value}
    error = process.obtain(POD, answer({"credential": key}), files=FILES).error
    assert error.temporary
    assert not [secret for secret in ("S3CRET", "T0KEN") if secret in str(error)]


@pytest.mark.parametrize("credentials", [OIDC, FEDERATED, POD], ids=["oidc", "federated", "pod_identity"])
@pytest.mark.parametrize(
    ("files", "reason"),
    [({}, "does not exist"), ({FILE: " \n"}, "is empty"), ({FILE: "two tokens"}, "holds more than a token")],
)
def test_an_unusable_token_file_is_named(
    process: Process, credentials: Credentials, files: dict[str, str], reason: str
) -> None:
    result = process.obtain(credentials, files=files)
    assert isinstance(result.error, errors.ModelArtsConfigurationError)
    assert f"the file '{FILE}' {reason}" in str(result.error)
    assert "two tokens" not in str(result.error)
    assert result.steps == [ReadFile(FILE)]


@pytest.mark.parametrize(("source", "same"), [(AccessKey("AK", SECRET_KEY), True), (AccessKey("AK", "other"), False)])
def test_agencies_share_a_key_only_if_the_source_is_the_same(process: Process, source: AccessKey, same: bool) -> None:
    process.obtain(ASSUMED, security_key("AK1"))
    result = process.obtain(replace(ASSUMED, source=source), *([] if same else [security_key("AK1")]))
    assert len(result.requests) == (0 if same else 1)


# The chain


def chain(*candidates: tuple[str, Credentials | None, str]) -> DefaultChain:
    return DefaultChain(tuple(Candidate(*candidate) for candidate in candidates))


def test_a_kind_that_is_set_up_is_taken_and_its_error_is_final(process: Process) -> None:
    first = chain(("oidc", OIDC, ""), ("pod_identity", POD, ""))
    error = process.obtain(first, refuse(403), files=FILES).error
    assert "agency 'agency'" in str(error)
    assert first.identity(process.cache).startswith("auth 'default' took 'oidc': agency 'agency'")


def test_a_metadata_service_with_another_kind_behind_it_is_tried_once(process: Process) -> None:
    trial = chain(("agency", InstanceAgency(), ""), ("pod_identity", POD, ""))
    assert trial.identity(process.cache) == "none of auth 'default' yet"
    result = process.obtain(trial, REFUSED_CONNECTION, REFUSED_CONNECTION, security_key("POD"), files=FILES)
    assert result.value == AccessKey("POD", "S3CRET", "T0KEN")
    assert result.sleeps == []
    assert trial.identity(process.cache) == "auth 'default' took 'pod_identity': the identity of this pod"
    process.clock.now = NOON + DAY
    assert len(process.obtain(trial, security_key("POD2"), files=FILES).requests) == 1, "the pod is kept"


def test_a_server_that_issued_a_key_is_kept_in_an_outage(process: Process) -> None:
    trial = chain(("agency", InstanceAgency(), ""), ("pod_identity", POD, ""))
    key = process.obtain(trial, session_token(), security_key()).value
    error = process.obtain(trial, *[REFUSED_CONNECTION] * 6, refused=key, files=FILES).error
    assert error.temporary
    assert "pod_identity" not in str(error)


# The project


def lookup(answers: list[Answer], one: ClientConfig | None = None) -> Any:
    return run_flow(find_project(one or client(project_id=""), ProjectLookup(IAM, "eu-de"), ONCE), answers)


def projects(*ids: str, name: str = "eu-de") -> Answer:
    return answer({"projects": [{"id": project_id, "name": name} for project_id in ids]})


def test_iam_is_asked_for_the_project_of_the_name() -> None:
    result = lookup([projects("f" * 32)])
    assert result.value == "f" * 32
    (request,) = result.requests
    assert (request.method, request.url) == ("GET", f"{IAM}/v3/projects?name=eu-de")
    assert request.headers["Authorization"].startswith("SDK-HMAC-SHA256 Access=AK,")
    assert "X-Project-Id" not in request.headers


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (projects(), "has no project of the name 'eu-de'"),
        (projects("a", name="eu-de_sub"), "has no project of the name 'eu-de'"),
        (projects("b", "a"), "has several projects (a, b) of the name 'eu-de'"),
        (refuse(403), "Set project_id"),
        (refuse(404), "Set project_id"),
    ],
)
def test_no_project_or_several_are_an_error(found: Answer, words: str) -> None:
    error = lookup([found]).error
    assert words in str(error)
    assert not error.temporary


@pytest.mark.parametrize("found", [refuse(503), answer({}), answer({"projects": [{"id": 7, "name": "eu-de"}]})])
def test_an_outage_of_iam_is_a_temporary_error(found: Answer) -> None:
    assert lookup([found]).error.temporary


# Files


def test_a_file_is_read_as_utf_8(tmp_path: Any) -> None:
    file = tmp_path / "file"
    file.write_text("tökén\n", "utf-8")
    assert read_file(str(file)) == "tökén\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xff", "is not UTF-8 text"), (b"x" * (MAX_FILE_BYTES + 1), "has more than"), (None, "does")],
)
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Any, content: bytes | None, reason: str) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FileReadError, match=f"^{reason}") as caught:
        read_file(str(file))
    assert caught.value.was_opened is (content is not None)


@pytest.mark.parametrize("path", ["/", "a\0b", "x" * 10_000])
def test_a_path_that_is_no_file_is_an_error(path: str) -> None:
    with pytest.raises(FileReadError, match=r"^cannot be read"):
        read_file(path)
