"""From an Airflow connection to settings: every field, and what is said of each that is missing or wrong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_modelarts import connection
from airflow_modelarts.api.auth import AccessKey, InstanceAgency, PasswordToken, StaticToken
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.connection import Overrides, Settings

HOST = "modelarts.example.com"


def read(
    extra: dict[str, Any] | None = None, *, overrides: Overrides | None = None, bare: bool = False, **fields: Any
) -> Settings:
    """Read a connection that is complete but for what the test changes."""
    usual = {"host": HOST, "login": "AK", "password": "SK", "schema": None, "port": None, "conn_id": "mine"}
    extras = (extra or {}) if bare else {"project_id": "p1", **(extra or {})}
    return connection.read(SimpleNamespace(**{**usual, **fields}), extras, overrides or Overrides())


@pytest.mark.parametrize(
    ("fields", "endpoint"),
    [
        ({"host": "modelarts.example.com"}, "https://modelarts.example.com"),
        ({"host": " modelarts.example.com/ "}, "https://modelarts.example.com"),
        ({"host": "https://modelarts.example.com:8443/"}, "https://modelarts.example.com:8443"),
        ({"host": "modelarts.example.com", "port": 8443}, "https://modelarts.example.com:8443"),
        ({"host": "127.0.0.1:5080"}, "https://127.0.0.1:5080"),
        ({"host": "http://127.0.0.1:5080"}, "http://127.0.0.1:5080"),
        ({"host": "localhost", "port": 5080, "schema": "http"}, "http://localhost:5080"),
        ({"host": "http://[::1]:5080"}, "http://[::1]:5080"),
    ],
)
def test_the_host_can_be_bare_or_a_url(fields: dict[str, Any], endpoint: str) -> None:
    assert read(**fields).client.endpoint == endpoint


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("cn-north-4", "https://modelarts.cn-north-4.myhuaweicloud.com"),
        ("ap-southeast-1", "https://modelarts.ap-southeast-1.myhuaweicloud.com"),
        ("eu-de", "https://modelarts.eu-de.otc.t-systems.com"),
        ("eu-nl", "https://modelarts.eu-nl.otc.t-systems.com"),
    ],
)
def test_the_region_tells_the_endpoint_where_host_is_empty(region: str, endpoint: str) -> None:
    assert read({"region": region}, host=None).client.endpoint == endpoint


@pytest.mark.parametrize("region", ["eu-west-101", "cn north", "evil.com/", "CN-NORTH-4"])
def test_a_region_that_does_not_tell_its_endpoint_is_said_so(region: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^region of connection 'mine' is"):
        read({"region": region}, host=None)


@pytest.mark.parametrize(
    "host",
    [
        "ftp://modelarts.example.com",
        "https://modelarts.example.com/v2",
        "https://modelarts.example.com?x=1",
        "https://user:secret@modelarts.example.com",
        "https://user:secret@two words",
        "http://modelarts.example.com",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "https://",
        "https://host:99999",
        "https://[::1",
        "two words",
        "back\\slash",
    ],
)
def test_a_host_that_is_none_is_refused_without_quoting_a_password(host: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^host of connection 'mine' is") as caught:
        read(host=host)
    assert "secret" not in str(caught.value)


def test_what_the_hook_was_told_goes_before_the_connection() -> None:
    settings = read(overrides=Overrides(project_id="p2", endpoint="other.example.com"))
    assert settings.client.endpoint == "https://other.example.com"
    assert settings.client.project_id == "p2"
    assert read(overrides=Overrides(region="eu-de")).client.endpoint == "https://modelarts.eu-de.otc.t-systems.com"


@pytest.mark.parametrize(
    ("extra", "fields", "missing"),
    [
        ({}, {}, "project_id is missing: set it in the extras of connection 'mine', or pass project_id="),
        ({"project_id": "p"}, {"host": ""}, "host is missing"),
        ({"project_id": "p"}, {"login": None}, "login .the access key. is missing"),
        ({"project_id": "p"}, {"password": None}, "password .the secret key. is missing"),
        ({"project_id": "p", "auth": "token"}, {"password": ""}, "password .the token. is missing"),
        ({"project_id": "p", "auth": "password"}, {}, "domain_name is missing"),
        ({"project_id": "p", "auth": "password", "domain_name": "d"}, {}, "iam_endpoint is missing"),
        (
            {"project_id": "p", "auth": "password", "domain_name": "d", "iam_endpoint": "iam.example.com"},
            {"login": ""},
            "login .the IAM user. is missing",
        ),
    ],
)
def test_a_missing_piece_is_named(extra: dict[str, Any], fields: dict[str, Any], missing: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=missing):
        read(extra, bare=True, **fields)


def test_login_and_password_are_an_access_key_by_default() -> None:
    assert read({"security_token": "T"}).client.credentials == AccessKey("AK", "SK", "T")
    assert read({"auth": "access_key"}).client.credentials == AccessKey("AK", "SK")


def test_they_are_a_user_and_a_password_for_auth_password() -> None:
    extra = {"auth": "password", "domain_name": "account", "iam_endpoint": "iam.example.com", "project_name": "eu-de"}
    assert read(extra).client.credentials == PasswordToken("https://iam.example.com", "AK", "SK", "account", "eu-de")


@pytest.mark.parametrize(
    ("host", "iam"),
    [
        ("modelarts.cn-north-4.myhuaweicloud.com", "https://iam.cn-north-4.myhuaweicloud.com"),
        ("modelarts.eu-west-101.myhuaweicloud.eu", "https://iam.eu-west-101.myhuaweicloud.eu"),
        ("modelarts.eu-de.otc.t-systems.com", "https://iam.eu-de.otc.t-systems.com"),
    ],
)
def test_a_public_clouds_host_tells_its_iam(host: str, iam: str) -> None:
    credentials = read({"auth": "password", "domain_name": "account"}, host=host).client.credentials
    assert isinstance(credentials, PasswordToken)
    assert credentials.iam_endpoint == iam


def test_the_other_kinds_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read({"auth": "token"}).client.credentials == StaticToken("SK")
    assert read({"auth": "agency"}, login=None, password=None).client.credentials == InstanceAgency()
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", "ENVAK")
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "ENVSK")
    monkeypatch.setenv("HUAWEICLOUD_SDK_PROJECT_ID", "envproject")
    client = read({"auth": "environment"}, bare=True, login=None, password=None).client
    assert client.credentials == AccessKey("ENVAK", "ENVSK")
    assert client.project_id == "envproject"


def test_the_environment_does_not_change_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_PROJECT_ID", "envproject")
    with pytest.raises(ModelArtsConfigurationError, match="project_id is missing"):
        read(bare=True)


def test_an_environment_without_keys_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUAWEICLOUD_SDK_AK", raising=False)
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "x")
    with pytest.raises(ModelArtsConfigurationError, match="HUAWEICLOUD_SDK_AK missing"):
        read({"auth": "environment"})


def test_an_unknown_kind_is_refused_with_the_choice() -> None:
    with pytest.raises(ModelArtsConfigurationError, match="access_key, password, token, agency or environment"):
        read({"auth": "magic"})


@pytest.mark.parametrize(
    ("value", "verify"),
    [(None, True), (True, True), ("true", True), ("", True), (False, False), ("False", False), ("false ", False)],
)
def test_verify_reads_booleans_and_their_names(monkeypatch: pytest.MonkeyPatch, value: object, verify: bool) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    assert read({"verify": value}).verify is verify


def test_verify_can_be_a_file_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(ModelArtsConfigurationError, match="not there"):
        read({"verify": str(file)})
    file.touch()
    assert read({"verify": str(file)}).verify == str(file)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_machines_own_bundle_is_used_where_the_connection_is_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    file = tmp_path / "bundle.pem"
    file.touch()
    monkeypatch.setenv(name, str(file))
    assert read().verify == str(file)
    assert read({"verify": False}).verify is False


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_machines_own_bundle_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(name, "/nowhere/bundle.pem")
    with pytest.raises(ModelArtsConfigurationError, match=f"^{name} in the environment is '/nowhere/bundle.pem'"):
        read()
    assert read({"verify": False}).verify is False


def test_timeouts_are_seconds() -> None:
    assert (read().connect_timeout, read().read_timeout) == (10.0, 60.0)
    settings = read({"connect_timeout": "2.5", "read_timeout": 7})
    assert (settings.connect_timeout, settings.read_timeout) == (2.5, 7.0)


@pytest.mark.parametrize("value", ["soon", 0, -1, "inf", "nan"])
def test_a_timeout_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ModelArtsConfigurationError, match="read_timeout of connection 'mine'"):
        read({"read_timeout": value})


def test_nothing_that_is_read_shows_a_secret() -> None:
    secrets = {"password": "fake-secret-one", "extra": "fake-secret-two"}
    settings = read({"security_token": secrets["extra"]}, password=secrets["password"])
    assert not any(secret in repr(settings) for secret in secrets.values())
