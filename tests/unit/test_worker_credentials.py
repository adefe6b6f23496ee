"""Credentials in the environment and in files of a worker: what a connection cannot change, and where tokens go."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_modelarts.api.addresses import local_or_https_url
from airflow_modelarts.api.credentials import (
    AccessKey,
    AssumeAgency,
    DefaultChain,
    FederatedUser,
    OidcAgency,
    PasswordToken,
)
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.connection import reading
from airflow_modelarts.connection.values import Overrides
from airflow_modelarts.transport import Settings

EVIL = "https://evil.example"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set up no credentials."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AK", "SK", "IAM_ENDPOINT", "STS_ENDPOINT", "PROJECT_ID"):
        monkeypatch.delenv(f"HUAWEICLOUD_SDK_{name}", raising=False)


def read(auth: str, extra: dict[str, Any] | None = None, host: str | None = "modelarts.example") -> Settings:
    fields = {"host": host, "login": "AK", "password": "SK", "schema": None, "port": None, "conn_id": "mine"}
    return reading.read(SimpleNamespace(**fields), {"auth": auth, "project_id": "p", **(extra or {})}, Overrides())


def set_oidc(monkeypatch: pytest.MonkeyPatch, **others: str) -> None:
    variables = {"PROVIDER_URN": "p", "AGENCY_URN": "a", "ID_TOKEN": "the-id-token", **others}
    for name, value in variables.items():
        monkeypatch.setenv(f"HUAWEICLOUD_OIDC_{name}", value)


def set_idp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_IDP_ID", "idp")
    monkeypatch.setenv("HUAWEICLOUD_SDK_ID_TOKEN_FILE", "/var/run/token")


# Where tokens go


@pytest.mark.parametrize("auth", ["oidc", "environment", "default"])
def test_a_connection_does_not_choose_where_an_id_token_goes(monkeypatch: pytest.MonkeyPatch, auth: str) -> None:
    set_idp(monkeypatch)
    with pytest.raises(ModelArtsConfigurationError, match=r"^HUAWEICLOUD_SDK_IAM_ENDPOINT is missing.*not apply"):
        read(auth, {"iam_endpoint": EVIL})
    monkeypatch.setenv("HUAWEICLOUD_SDK_IAM_ENDPOINT", "iam.env.example")
    assert "evil" not in repr(read(auth, {"iam_endpoint": EVIL}).client.credentials)


def test_a_connection_does_not_choose_sts(monkeypatch: pytest.MonkeyPatch) -> None:
    set_oidc(monkeypatch)
    with pytest.raises(ModelArtsConfigurationError, match=r"^HUAWEICLOUD_SDK_STS_ENDPOINT is missing"):
        read("oidc", {"iam_endpoint": EVIL, "sts_endpoint": EVIL}, host="modelarts.eu-de.evil.example")


@pytest.mark.parametrize("region", ["cn-north-4", "ap-southeast-1"])
def test_a_public_region_has_its_own_sts_and_iam(monkeypatch: pytest.MonkeyPatch, region: str) -> None:
    set_oidc(monkeypatch)
    agency = read("oidc", {"region": region}, host="").client.credentials
    assert isinstance(agency, OidcAgency)
    assert agency.sts_endpoint == f"https://sts.{region}.myhuaweicloud.com"
    monkeypatch.delenv("HUAWEICLOUD_OIDC_PROVIDER_URN")
    set_idp(monkeypatch)
    user = read("oidc", {"region": region}, host="").client.credentials
    assert isinstance(user, FederatedUser)
    assert user.iam_endpoint == f"https://iam.{region}.myhuaweicloud.com"


@pytest.mark.parametrize(
    "url",
    [
        *("https://pod.example/v1/credentials?x=1", "http://127.0.0.1:9/v1", "http://localhost/v1", "http://[::1]/v1"),
        *("http://169.254.170.23/v1", "http://[fe80::1]/v1"),
    ],
)
def test_a_pods_token_goes_to_https_or_to_an_address_that_no_router_forwards(url: str) -> None:
    assert local_or_https_url("X", url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("http://pod.example/v1", "http://10.0.0.1/v1", "http://192.168.0.1/v1", "http://[2001:db8::1]/v1"),
        *("http://127.0.0.1.example/v1", "http://169.254.170.23.example/", "http://169.254.1/", "http://2852039166/"),
        *(
            "http://127.0.0.1@evil.example/",
            "https://user:secret@pod.example/",
            "https://pod.example/#x",
            "ftp://127.0.0.1",
        ),
        *("file:///etc/passwd", "pod.example", "", "//127.0.0.1/", "http:///v1", "https://pod.example:99999/"),
        *("https://pod.example/a b", "https://pod.example\\@evil/", "https://pod.example/\n", "https://pöd.example/"),
    ],
)
def test_a_pods_token_goes_nowhere_else(url: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^X is .*: it must be an https URL") as caught:
        local_or_https_url("X", url)
    assert "secret" not in str(caught.value)


def test_a_plain_http_address_of_pod_identity_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HC_CONTAINER_CREDENTIALS_FULL_URI", "http://10.0.0.1/v1")
    monkeypatch.setenv("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/var/run/token")
    with pytest.raises(ModelArtsConfigurationError, match=r"^HC_CONTAINER_CREDENTIALS_FULL_URI in the environment is"):
        read("pod_identity")
    chain = read("default").client.credentials
    assert isinstance(chain, DefaultChain)
    assert chain.candidates[-1].missing.startswith("HC_CONTAINER_CREDENTIALS_FULL_URI in the environment is"), (
        "it does not matter while the metadata service issues keys"
    )


# Files and variables


def test_a_connection_names_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("[basic]\nak = A\nsk = S\n")
    for name in ("profile_file", "credentials_file", "id_token_file", "token_file"):
        with pytest.raises(ModelArtsConfigurationError, match="does not exist"):
            read("profile", {name: str(file)})


@pytest.mark.parametrize(
    "text", ["ak = the-secret", "[basic]\nthe-secret\n", "[basic]\nak = %(the-secret", "[the-secret"]
)
def test_a_malformed_profile_quotes_no_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / ".huaweicloud").mkdir()
    (tmp_path / ".huaweicloud/credentials").write_text(text)
    with pytest.raises(ModelArtsConfigurationError, match="malformed") as caught:
        read("profile")
    shown = [str(caught.value), str(caught.value.__cause__)]
    assert caught.value.__suppress_context__
    assert not [line for line in shown if "the-secret" in line]


def test_a_profile_names_its_section(tmp_path: Path) -> None:
    (tmp_path / ".huaweicloud").mkdir()
    (tmp_path / ".huaweicloud/credentials").write_text("[basic]\nak=A\nsk=S\n[Team]\nak=B\nsk=S\n")
    assert read("profile").client.credentials == AccessKey("A", "S")
    assert read("profile", {"profile_name": "Team"}).client.credentials == AccessKey("B", "S")
    with pytest.raises(ModelArtsConfigurationError, match=r"^profile 'nobody' is not in the credentials file"):
        read("profile", {"profile_name": "nobody"})


@pytest.mark.parametrize("auth", ["access_key", "token", "agency", "assume_agency"])
def test_the_environment_does_not_configure_the_other_kinds(monkeypatch: pytest.MonkeyPatch, auth: str) -> None:
    for name, value in {
        "PROJECT_ID": "other",
        "REGION": "cn-north-4",
        "REGION_MODELARTS_EU_DE": EVIL,
        "IAM_ENDPOINT": EVIL,
    }.items():
        monkeypatch.setenv(f"HUAWEICLOUD_SDK_{name}", value)
    agency = {"agency_name": "a", "agency_domain_name": "b", "source_auth": "access_key"}
    settings = read(auth, {"region": "eu-de", **agency}, host="")
    assert settings.client.endpoint == "https://modelarts.eu-de.otc.t-systems.com"
    assert "evil" not in repr(settings.client)
    lookup = read(auth, {"project_id": "", "region": "eu-de", **agency}, host="").project_lookup
    assert lookup is not None
    assert lookup.iam_endpoint == "https://iam.eu-de.otc.t-systems.com"


def test_an_assumed_agency_has_a_source_without_project(monkeypatch: pytest.MonkeyPatch) -> None:
    agency = {"agency_name": "a", "agency_domain_name": "b", "project_name": "eu-de", "iam_endpoint": "iam.example"}
    found = read("assume_agency", {**agency, "source_auth": "password", "domain_name": "d"}).client.credentials
    assert found == AssumeAgency(PasswordToken("https://iam.example", "AK", "SK", "d"), "https://iam.example", "a", "b")
    assert found.secrets == ("SK",)
    with pytest.raises(ModelArtsConfigurationError, match="source_auth of connection 'mine' is 'assume_agency'"):
        read("assume_agency", {**agency, "source_auth": "assume_agency"})
    with pytest.raises(ModelArtsConfigurationError, match=r"^agency_name is missing"):
        read("assume_agency", {**agency, "agency_name": " "})


@pytest.mark.parametrize(
    ("extra", "host", "name", "iam"),
    [
        ({"region": "eu-de"}, "", "eu-de", "https://iam.eu-de.otc.t-systems.com"),
        ({}, "modelarts.cn-north-4.myhuaweicloud.com", "cn-north-4", "https://iam.cn-north-4.myhuaweicloud.com"),
        ({"region": "mine", "iam_endpoint": "iam.example"}, "modelarts.example", "mine", "https://iam.example"),
    ],
)
def test_a_missing_project_is_looked_up_by_the_region(extra: dict[str, str], host: str, name: str, iam: str) -> None:
    lookup = read("access_key", {"project_id": "", **extra}, host).project_lookup
    assert lookup is not None
    assert (lookup.name, lookup.iam_endpoint) == (name, iam)


def test_a_project_that_cannot_be_looked_up_is_missing() -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^project_id is missing: .*, or set region"):
        read("access_key", {"project_id": ""})
    with pytest.raises(ModelArtsConfigurationError, match=r"^project_id is missing: .*iam_endpoint is missing"):
        read("access_key", {"project_id": "", "region": "mine"})


def test_no_repr_shows_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    set_oidc(monkeypatch)
    monkeypatch.setenv("HUAWEICLOUD_SDK_STS_ENDPOINT", "sts.example")
    for auth in ("oidc", "default"):
        credentials = read(auth).client.credentials
        assert "the-id-token" not in repr(credentials)
        assert credentials.secrets == ("the-id-token",)
