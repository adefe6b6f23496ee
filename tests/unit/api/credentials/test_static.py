"""Tests of access keys, static tokens and keys of the environment, and of the secrets of all credentials."""

from dataclasses import replace
from typing import Any

import pytest

from airflow_modelarts.api.credentials import (
    AccessKey,
    Authorizer,
    Credentials,
    InstanceAgency,
    StaticToken,
    from_environment,
)
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.api.http import Request
from tests.support.credentials import AGENCY, USER, Process, security_key, session_token, token
from tests.support.flows import NOON, PROJECT_ID


def authorized(authorizer: Authorizer, request: Request | None = None) -> Request:
    request = request or Request("GET", "https://h.example/x", {"Accept": "application/json"})
    return authorizer.authorize(request, project_id=PROJECT_ID, now=NOON)


STATIC: list[AccessKey | StaticToken] = [AccessKey("AK", "SK"), StaticToken("T")]


@pytest.mark.parametrize("credentials", STATIC, ids=["key", "token"])
@pytest.mark.parametrize("is_refused", [False, True])
def test_static_credentials_are_their_own_authorizer(process: Process, credentials: Any, is_refused: bool) -> None:
    result = process.obtain(credentials, refused=credentials if is_refused else None)
    assert result.value is credentials
    assert result.steps == [], "no request"


def test_a_permanent_key_sends_the_project_id_and_no_security_token() -> None:
    headers = authorized(AccessKey("AK", "SK")).headers
    assert headers["X-Project-Id"] == PROJECT_ID
    assert "X-Security-Token" not in headers


def test_a_temporary_key_signs_its_security_token() -> None:
    headers = authorized(AccessKey("AK", "SK", "T0KEN")).headers
    assert headers["X-Security-Token"] == "T0KEN"
    assert "x-security-token" in headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")


@pytest.mark.parametrize("authorizer", STATIC, ids=["key", "token"])
def test_authorizing_changes_only_the_headers(authorizer: AccessKey | StaticToken) -> None:
    request = Request("POST", "https://h.example/x?y=1", {"Accept": "*/*"}, b"{}", 7.0)
    result = authorized(authorizer, request)
    assert replace(result, headers=request.headers) == request
    assert result.headers.items() >= request.headers.items()


def test_a_static_token_is_sent_unchanged() -> None:
    assert authorized(StaticToken("T0KEN")).headers == {"Accept": "application/json", "X-Auth-Token": "T0KEN"}


ENVIRONMENT = {"HUAWEICLOUD_SDK_AK": "AK", "HUAWEICLOUD_SDK_SK": "SK", "HUAWEICLOUD_SDK_SECURITY_TOKEN": "T0KEN"}


@pytest.mark.parametrize("missing", [{}, {"HUAWEICLOUD_SDK_SECURITY_TOKEN": ""}], ids=["absent", "empty"])
def test_the_security_token_of_the_environment_is_optional(missing: dict[str, str]) -> None:
    environment = {"HUAWEICLOUD_SDK_AK": "AK", "HUAWEICLOUD_SDK_SK": "SK", **missing}
    assert from_environment(environment) == AccessKey("AK", "SK", None)


@pytest.mark.parametrize("value", [None, "", " \n"], ids=["absent", "empty", "blank"])
@pytest.mark.parametrize("name", ["HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK"])
def test_a_missing_variable_is_named(name: str, value: str | None) -> None:
    environment = {key: text for key, text in {**ENVIRONMENT, name: value}.items() if text is not None}
    with pytest.raises(ModelArtsConfigurationError, match=f"^{name} missing"):
        from_environment(environment)


@pytest.mark.parametrize("around", ["{}", "{}\n", " {} ", "\t{}\r\n"])
def test_an_access_key_is_read_from_the_environment_without_white_space(around: str) -> None:
    environment = {name: around.format(value) for name, value in {**ENVIRONMENT, "OTHER": "x"}.items()}
    assert from_environment(environment) == AccessKey("AK", "SK", "T0KEN")


def test_both_missing_variables_are_named() -> None:
    with pytest.raises(ModelArtsConfigurationError, match="HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK missing"):
        from_environment({})


SECRETS = {"S3CRET", "T0KEN"}


@pytest.mark.parametrize(
    "one",
    [
        AccessKey("AK", "S3CRET", "T0KEN"),
        StaticToken("T0KEN"),
        replace(USER, password="S3CRET"),
        InstanceAgency(),
        from_environment({**ENVIRONMENT, "HUAWEICLOUD_SDK_SK": "S3CRET"}),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_repr_of_credentials_has_no_secret(one: Credentials) -> None:
    assert not any(secret in text for secret in SECRETS for text in (repr(one), str(one)))


def test_no_repr_while_obtaining_has_a_secret(process: Process) -> None:
    process.obtain(replace(USER, password="S3CRET"), token("T0KEN"))
    result = process.obtain(AGENCY, session_token("T0KEN"), security_key())
    shown = repr([result.steps, process.context(), process.cache])
    assert not any(secret in shown for secret in SECRETS)


@pytest.mark.parametrize(
    ("one", "secrets"),
    [
        (AccessKey("AK", "SK"), ("SK",)),
        (AccessKey("AK", "SK", "T"), ("SK", "T")),
        (StaticToken("T"), ("T",)),
        (USER, ("the-password",)),
        (AGENCY, ()),
    ],
    ids=["key", "temporary key", "token", "password", "agency"],
)
def test_credentials_list_their_secrets(one: Credentials, secrets: tuple[str, ...]) -> None:
    assert one.secrets == secrets
