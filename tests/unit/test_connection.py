"""Reading an Airflow connection: every field, and the error for each that is missing or wrong."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_modelarts.api.credentials import AccessKey, InstanceAgency, PasswordToken, StaticToken
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.connection import reading
from airflow_modelarts.connection.credentials import BUILDERS
from airflow_modelarts.connection.fields import AUTH_KINDS, EXTRAS
from airflow_modelarts.connection.values import Overrides
from airflow_modelarts.transport import Settings

HOST = "modelarts.example.com"


def read(
    extra: dict[str, Any] | None = None, *, overrides: Overrides | None = None, bare: bool = False, **fields: Any
) -> Settings:
    """Read a complete connection with the changes of the test."""
    extras = (extra or {}) if bare else {"project_id": "p1", **(extra or {})}
    return reading.read(complete(**fields), extras, overrides or Overrides())


PASSWORD = {"auth": "password", "domain_name": "account"}


def iam_endpoint(extra: dict[str, Any], **fields: Any) -> str:
    credentials = read(extra, **fields).client.credentials
    assert isinstance(credentials, PasswordToken)
    return credentials.iam_endpoint


def complete(**fields: Any) -> SimpleNamespace:
    usual = {"host": HOST, "login": "AK", "password": "SK", "schema": None, "port": None, "conn_id": "mine"}
    return SimpleNamespace(**{**usual, **fields})


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
def test_the_host_can_be_a_host_name_or_a_url(fields: dict[str, Any], endpoint: str) -> None:
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
def test_the_region_gives_the_endpoint_if_host_is_empty(region: str, endpoint: str) -> None:
    assert read({"region": region}, host=None).client.endpoint == endpoint


@pytest.mark.parametrize("region", ["eu-west-101", "cn north", "evil.com/", "CN-NORTH-4"])
def test_a_region_without_a_known_endpoint_is_rejected(region: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^region of connection 'mine' is"):
        read({"region": region}, host=None)


@pytest.mark.parametrize(
    "host",
    [
        *("ftp://modelarts.example.com", "https://modelarts.example.com/v2", "https://modelarts.example.com?x=1"),
        *("https://user:secret@modelarts.example.com", "https://user:secret@two words", "http://modelarts.example.com"),
        *("http://10.0.0.1", "http://127.0.0.1.example.com", "https://", "https://host:99999", "https://[::1"),
        *("two words", "back\\slash", "modelarts..example", "https://a..b", f"{'a' * 64}.example", "a\x00b", "a\x7fb"),
        "\u202e.x",
    ],
)
def test_an_invalid_host_is_rejected_without_showing_a_password(host: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^host of connection 'mine' is") as caught:
        read(host=host)
    assert "secret" not in str(caught.value)


def test_the_hooks_arguments_override_the_connection() -> None:
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
            {**PASSWORD, "project_id": "p", "iam_endpoint": "i.example"},
            {"login": ""},
            "login .the IAM user. is missing",
        ),
    ],
)
def test_a_missing_field_is_named(extra: dict[str, Any], fields: dict[str, Any], missing: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=missing):
        read(extra, bare=True, **fields)


def test_login_and_password_are_an_access_key_by_default() -> None:
    assert read({"security_token": "T"}).client.credentials == AccessKey("AK", "SK", "T")
    assert read({"auth": "access_key"}).client.credentials == AccessKey("AK", "SK")


def test_login_and_password_are_a_user_and_a_password_for_auth_password() -> None:
    extra = {"auth": "password", "domain_name": "account", "iam_endpoint": "iam.example.com", "project_name": "eu-de"}
    assert read(extra).client.credentials == PasswordToken("https://iam.example.com", "AK", "SK", "account", "eu-de")


@pytest.mark.parametrize("suffix", ["", "/", "/v3", "/v3/", "/v3.0", "/V3", "/v3/auth/tokens", ":443/v3/auth/tokens/"])
@pytest.mark.parametrize("scheme", ["", "https://"])
def test_the_iam_endpoint_can_include_the_version(scheme: str, suffix: str) -> None:
    extra = {**PASSWORD, "iam_endpoint": f" {scheme}iam.example.com{suffix}\n"}
    assert iam_endpoint(extra) == f"https://iam.example.com{':443' if ':443' in suffix else ''}"


@pytest.mark.parametrize("path", ["/v2.0", "/v3/users", "/x/v3", "/v3?x=1", "/v33"])
def test_any_other_path_of_iam_is_rejected(path: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^iam_endpoint of connection 'mine' is"):
        read({**PASSWORD, "iam_endpoint": f"https://iam.example.com{path}"})


@pytest.mark.parametrize("value", ["iam.env.example", " https://iam.env.example/v3\n"])
def test_the_environment_gives_the_default_iam_endpoint(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_IAM_ENDPOINT", value)
    assert iam_endpoint(PASSWORD) == "https://iam.env.example"


@pytest.mark.parametrize(
    ("extra", "host", "iam"),
    [
        ({"iam_endpoint": "iam.example.com"}, HOST, "https://iam.example.com"),
        ({}, "modelarts.eu-de.otc.t-systems.com", "https://iam.eu-de.otc.t-systems.com"),
        ({"region": "eu-nl"}, None, "https://iam.eu-nl.otc.t-systems.com"),
    ],
)
def test_the_environment_does_not_change_where_a_connection_sends_its_password(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, str], host: str, iam: str
) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_IAM_ENDPOINT", "https://evil.example")
    assert iam_endpoint({**PASSWORD, **extra}, host=host) == iam


def test_an_invalid_iam_endpoint_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_IAM_ENDPOINT", "http://user:secret@iam.example")
    with pytest.raises(ModelArtsConfigurationError, match=r"^HUAWEICLOUD_SDK_IAM_ENDPOINT in the envi.* is") as caught:
        read(PASSWORD)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "iam"),
    [
        ("modelarts.cn-north-4.myhuaweicloud.com", "https://iam.cn-north-4.myhuaweicloud.com"),
        ("modelarts.eu-west-101.myhuaweicloud.eu", "https://iam.eu-west-101.myhuaweicloud.eu"),
        ("modelarts.eu-de.otc.t-systems.com", "https://iam.eu-de.otc.t-systems.com"),
    ],
)
def test_the_iam_endpoint_is_derived_from_a_public_host(host: str, iam: str) -> None:
    assert iam_endpoint(PASSWORD, host=host) == iam


@pytest.mark.parametrize(
    ("extra", "host", "endpoint", "region"),
    [
        ({}, "modelarts.cn-north-4.myhuaweicloud.com", "https://obs.cn-north-4.myhuaweicloud.com", "cn-north-4"),
        ({}, "modelarts.eu-west-101.myhuaweicloud.eu", "https://obs.eu-west-101.myhuaweicloud.eu", "eu-west-101"),
        ({"region": "eu-de"}, None, "https://obs.eu-de.otc.t-systems.com", "eu-de"),
        ({"obs_endpoint": "obs.eu-nl.otc.t-systems.com"}, HOST, "https://obs.eu-nl.otc.t-systems.com", "eu-nl"),
        ({"obs_endpoint": "https://s3.example:9000/", "region": "r1"}, HOST, "https://s3.example:9000", "r1"),
        ({"obs_endpoint": "s3.example"}, HOST, "https://s3.example", None),
    ],
)
def test_the_object_store_is_given_or_derived_from_a_public_host(
    extra: dict[str, str], host: str | None, endpoint: str, region: str | None
) -> None:
    store = reading.read_object_store(complete(host=host), {"project_id": "p", **extra}, Overrides())
    assert (store.endpoint.url, store.region) == (endpoint, region)


@pytest.mark.parametrize(
    "given", [0.0, True, ["x"], "{{ var.value.endpoint }}", "ftp://obs.example.com", "a.obs.example"]
)
def test_a_wrong_endpoint_of_the_object_store_is_named(given: object) -> None:
    extra = {"project_id": "p", "obs_endpoint": given}
    with pytest.raises(ModelArtsConfigurationError, match=r"^obs_endpoint of connection 'mine' is"):
        reading.read_object_store(complete(), extra, Overrides())
    assert reading.read(complete(), extra, Overrides()), "it matters for files only"


def test_the_other_kinds_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read({"auth": "token"}).client.credentials == StaticToken("SK")
    assert read({"auth": "agency"}, login=None, password=None).client.credentials == InstanceAgency()
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", "ENVAK")
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "ENVSK")
    monkeypatch.setenv("HUAWEICLOUD_SDK_PROJECT_ID", "envproject")
    client = read({"auth": "environment"}, bare=True, login=None, password=None).client
    assert client.credentials == AccessKey("ENVAK", "ENVSK")
    assert client.project_id == "envproject"


def test_white_space_around_values_is_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AK": "ENVAK", "SK": "ENVSK", "SECURITY_TOKEN": "ENVT", "PROJECT_ID": "envproject"}.items():
        monkeypatch.setenv(f"HUAWEICLOUD_SDK_{name}", f" {value}\r\n")
    client = read({"auth": " environment\n"}, bare=True, login=None, password=None).client
    assert (client.credentials, client.project_id) == (AccessKey("ENVAK", "ENVSK", "ENVT"), "envproject")
    client = read(overrides=Overrides(project_id=" p2\n", endpoint=" other.example.com\n")).client
    assert (client.project_id, client.endpoint) == ("p2", "https://other.example.com")
    assert read(login="AK\n", password="SK\n").client.credentials == AccessKey("AK", "SK")
    assert read({"auth": "token"}, password="T\n").client.credentials == StaticToken("T")
    assert read(overrides=Overrides(region=" eu-de\n")).client.endpoint.startswith("https://modelarts.eu-de.")
    extra = {**PASSWORD, "iam_endpoint": "iam.example.com", "domain_name": " account\n", "project_name": "\tname "}
    assert read(extra, login=" user\n", password=" pass word \r\n").client.credentials == PasswordToken(
        "https://iam.example.com", "user", " pass word ", "account", "name"
    )


@pytest.mark.parametrize("given", ["", " \n"])
def test_an_empty_project_id_argument_is_rejected(given: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^project_id= is .*, which is no value: leave it out"):
        read(overrides=Overrides(project_id=given))


@pytest.mark.parametrize("field", ["login", "password"])
def test_a_blank_field_is_missing(field: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=f"^{field} .* is missing"):
        read(**{field: " \n"})


def test_the_environment_does_not_change_other_kinds_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_PROJECT_ID", "envproject")
    with pytest.raises(ModelArtsConfigurationError, match="project_id is missing"):
        read(bare=True)


def test_every_kind_of_credentials_has_a_builder() -> None:
    assert set(BUILDERS) == set(AUTH_KINDS)


def test_every_extra_of_the_form_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            names.add(name)
            return super().get(name, default)

    names: set[str] = set()
    for auth in AUTH_KINDS:
        monkeypatch.setenv("HUAWEICLOUD_SDK_AK", "AK")
        monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "SK")
        extra = Recorder(auth=auth, project_id="p", domain_name="account", iam_endpoint="iam.example.com")
        extra["obs_endpoint"] = "obs.example.com"
        reading.read_object_store(complete(), extra, Overrides())
    assert names == set(EXTRAS)


def test_an_unknown_auth_is_rejected_with_the_choices() -> None:
    with pytest.raises(ModelArtsConfigurationError, match="access_key, password, token, agency or environment"):
        read({"auth": "magic"})


@pytest.mark.parametrize(
    ("value", "verify"),
    [(None, True), (True, True), ("true", True), ("", True), (False, False), ("False", False), ("false ", False)],
)
def test_verify_can_be_a_boolean_or_its_text(monkeypatch: pytest.MonkeyPatch, value: object, verify: bool) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    assert read({"verify": value}).verify is verify


def test_verify_can_be_a_file_that_exists(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(ModelArtsConfigurationError, match="a file of certificates that exists"):
        read({"verify": str(file)})
    file.touch()
    assert read({"verify": str(file)}).verify == str(file)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_bundle_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    file = tmp_path / "bundle.pem"
    file.touch()
    monkeypatch.setenv(name, str(file))
    assert read().verify == str(file)
    assert read({"verify": False}).verify is False


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_of_the_environment_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
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
def test_an_invalid_timeout_is_rejected(value: object) -> None:
    with pytest.raises(ModelArtsConfigurationError, match="read_timeout of connection 'mine'"):
        read({"read_timeout": value})


def test_the_repr_of_the_settings_shows_no_secret() -> None:
    secrets = {"password": "fake-secret-one", "extra": "fake-secret-two"}
    settings = read({"security_token": secrets["extra"]}, password=secrets["password"])
    assert not any(secret in repr(settings) for secret in secrets.values())


TEXTS = ["project_id", "region", "auth", "iam_endpoint", "domain_name", "project_name", "security_token", "console_url"]


@pytest.mark.parametrize("value", [0.0, 1e5, float("inf"), float("nan"), True, False, ["x"], {"a": 1}], ids=repr)
@pytest.mark.parametrize("name", TEXTS)
def test_an_extra_that_is_not_text_is_rejected_by_its_name(name: str, value: object) -> None:
    """Airflow reads the extras of a connection's URI as JSON, where 0e00 is a number."""
    extra = {**PASSWORD, "iam_endpoint": "iam.example.com", "project_id": "p", name: value}
    if name == "security_token":
        del extra["auth"]
    words = f"^{name} of connection 'mine' is .*not text.*__extra__"
    with pytest.raises(ModelArtsConfigurationError, match=words) as caught:
        read(extra, host=None if name == "region" else HOST)
    assert name != "security_token" or repr(value) not in str(caught.value)


@pytest.mark.parametrize("value", [12345678901234567890123456789012, 7])
def test_a_project_id_can_be_an_integer(value: int) -> None:
    assert read({"project_id": value}).client.project_id == str(value)
    assert read(overrides=Overrides(project_id=value)).client.project_id == str(value)  # type: ignore[arg-type]  # as native objects are


@pytest.mark.parametrize("value", [1.5, True, ["p"], {}], ids=repr)
def test_a_project_id_argument_that_is_not_text_is_rejected(value: Any) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^project_id= is .*, which is not text"):
        read(overrides=Overrides(project_id=value))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ([1], "a JSON list"),
        ('{"project_id": "p"}', "encoded twice"),
        ('"{}"', "encoded twice"),
        ("no JSON", "a JSON text"),
        (None, "null"),
        (17, "a JSON number"),
        (1.5, "a JSON number"),
        (True, "a JSON boolean"),
    ],
)
def test_extras_that_are_not_a_json_object_are_rejected(extra: Any, words: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=f"^the extras of connection 'mine' are .*{words}") as caught:
        reading.read(complete(), extra, Overrides())
    assert '{"project_id": "…"' in str(caught.value)


def test_extras_that_are_not_json_are_rejected_and_not_shown() -> None:
    raw = "{'project_id': 'p', 'security_token': 'fake-secret'}"
    with pytest.raises(ModelArtsConfigurationError, match=r"^the extras of connection 'mine' are not JSON") as caught:
        reading.read(SimpleNamespace(conn_id="mine", extra=raw), {}, Overrides())  # type: ignore[arg-type]  # nothing else is read
    assert "fake-secret" not in str(caught.value)


TEMPLATE = "{{ var.value.x }}"


@pytest.mark.parametrize("name", ["project_id", "region", "domain_name", "iam_endpoint", "project_name", "auth"])
def test_a_template_in_an_extra_is_rejected(name: str) -> None:
    extra = {**PASSWORD, "iam_endpoint": "iam.example.com", name: TEMPLATE}
    with pytest.raises(ModelArtsConfigurationError, match=f"^{name} of connection 'mine' is .*rendered"):
        read(extra, host=None if name == "region" else HOST)


def test_a_template_in_the_host_is_rejected() -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^host of connection 'mine' is .*rendered"):
        read(host=TEMPLATE)


@pytest.mark.parametrize("name", ["project_id", "region", "endpoint"])
def test_a_template_in_a_hooks_argument_is_rejected(name: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=f"^{name}= is .*rendered"):
        read(overrides=Overrides(**{name: TEMPLATE}))


@pytest.mark.parametrize("project_id", ["a/b", "../x", "https://console.example/p"])
def test_a_project_id_with_a_slash_is_rejected(project_id: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^project_id of connection 'mine' is .*holds no slash"):
        read({"project_id": project_id})


@pytest.mark.parametrize(
    ("extra", "fields", "overrides", "message"),
    [
        ({"region": "cn-nort-4"}, {"host": None}, Overrides(), "region 'cn-nort-4' of connection 'mine' has no Model"),
        ({}, {"host": "user:pass@x.example"}, Overrides(endpoint="e.example"), "endpoint='e.example' has a host name"),
        ({}, {}, Overrides(region="cn-nort-4"), "region='cn-nort-4' has no ModelArts endpoint that resolves: check"),
        ({"region": "eu-de"}, {}, Overrides(), f"host '{HOST}' of connection 'mine' does not resolve: check its"),
    ],
)
def test_the_message_for_an_unresolved_endpoint_names_the_given_value(
    extra: dict[str, Any], fields: dict[str, Any], overrides: Overrides, message: str
) -> None:
    assert read(extra, overrides=overrides, **fields).client.unresolved.startswith(message)


@pytest.mark.parametrize(
    ("extra", "host", "message"),
    [
        ({"region": "cn-nort-4"}, None, "region 'cn-nort-4' of connection 'mine' has no IAM endpoint that resolves"),
        ({"iam_endpoint": "iam.exmple.com"}, HOST, "iam_endpoint 'iam.exmple.com' of connection 'mine' does not"),
        ({}, "modelarts.eu-dee.otc.t-systems.com", "https://modelarts.eu-dee.otc.t-systems.com leads to https://iam."),
    ],
)
def test_the_message_for_an_unresolved_iam_endpoint_names_the_given_value(
    extra: dict[str, Any], host: str | None, message: str
) -> None:
    assert read({**PASSWORD, **extra}, host=host).client.credentials.unresolved.startswith(message)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AK", "A\nK"),
        ("SK", "{{ var.value.sk }}"),
        ("SECURITY_TOKEN", "to ken"),
        ("PROJECT_ID", "pro ject"),
        ("PROJECT_ID", "eu-de/p1"),
    ],
)
def test_an_invalid_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for usual in ("AK", "SK", "PROJECT_ID"):
        monkeypatch.setenv(f"HUAWEICLOUD_SDK_{usual}", "usual")
    monkeypatch.setenv(f"HUAWEICLOUD_SDK_{name}", value)
    with pytest.raises(ModelArtsConfigurationError, match=rf"^HUAWEICLOUD_SDK_{name} in the environment ") as caught:
        read({"auth": "environment"}, bare=True)
    assert name == "PROJECT_ID" or value not in str(caught.value)


def test_the_message_for_an_unresolved_iam_endpoint_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_IAM_ENDPOINT", "https://iam.exmple.com/v3")
    public = "modelarts.eu-dee.otc.t-systems.com"
    by_variable, by_host = (read(PASSWORD, host=host).client.credentials.unresolved for host in (HOST, public))
    assert by_variable.startswith("HUAWEICLOUD_SDK_IAM_ENDPOINT 'https://iam.exmple.com/v3' in the environ")
    assert by_host.startswith(f"https://{public} leads to https://iam.")
