"""Any connection is read into usable settings, or rejected by an error that names the field and shows no secret."""

import re
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_modelarts.api import operations
from airflow_modelarts.api.client import call
from airflow_modelarts.api.credentials import AccessKey, StaticToken
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.connection import reading
from airflow_modelarts.connection.fields import AUTH_KINDS
from airflow_modelarts.connection.values import Overrides
from airflow_modelarts.transport import AsyncDriver, Driver, Settings
from tests.support.flows import ONCE, answer, run_flow

SECRET = "the-s3cret/key"
TEXTS = st.text(st.sampled_from("aZ09.-_~/:@?#%[]\\ \t\r\n\x00é漢"), max_size=12) | st.text(max_size=8)
PLACES = st.one_of(
    TEXTS,
    st.builds(
        "{}{}:{}@{}{}".format, st.sampled_from(["", "https://", "http://"]), TEXTS, st.just(SECRET), TEXTS, TEXTS
    ),
    st.builds("{}{}:{}".format, st.sampled_from(["https://", "http://", ""]), TEXTS, st.integers(-1, 99999)),
    st.sampled_from(["modelarts.example", "http://127.0.0.1:1", "https://[::1]", "https://[::1", "modelarts.eu-de.x"]),
)
KINDS = st.sampled_from([*AUTH_KINDS, "", "x"])
EXTRAS = st.fixed_dictionaries(
    {"auth": KINDS},
    optional={
        "project_id": TEXTS | st.just("p"),
        "region": TEXTS | st.sampled_from(["eu-de", "cn-north-4"]),
        "iam_endpoint": PLACES,
        "domain_name": TEXTS,
        "profile_name": TEXTS,
        "source_auth": KINDS,
        "agency_name": TEXTS,
        "agency_domain_name": TEXTS,
        "security_token": TEXTS | st.just(SECRET),
        "verify": TEXTS | st.booleans() | st.none(),
        "read_timeout": TEXTS | st.floats() | st.integers(),
        "console_url": PLACES,
    },
)


def read(extra: dict[str, Any], **fields: Any) -> Settings:
    usual = {"host": "modelarts.example", "login": "AK", "password": SECRET, "schema": None, "port": None}
    found = SimpleNamespace(**{"conn_id": "mine", **usual, **fields})
    return reading.read(found, {"project_id": "p", **extra}, Overrides())


@settings(deadline=None, max_examples=500)
@given(
    EXTRAS,
    st.fixed_dictionaries(
        {},
        optional={"host": PLACES, "login": TEXTS, "schema": TEXTS, "port": st.integers(), "password": st.just(SECRET)},
    ),
)
def test_a_connection_is_read_or_rejected_and_no_secret_shown(extra: dict[str, Any], fields: dict[str, Any]) -> None:
    found, message = None, ""
    try:
        found = read(extra, **fields)
    except ModelArtsConfigurationError as error:
        message = str(error)
    assert SECRET not in message
    if found is None:
        return
    assert SECRET not in repr(found.client)
    assert re.fullmatch(r"https?://[^\s/?#@\\]+", found.client.endpoint)
    if found.client.credentials.__class__ in (AccessKey, StaticToken):
        result = run_flow(
            call(operations.describe_processor_task("a"), ONCE), [answer({"task_id": "a"})], clients=found.client
        )
        (request,) = result.requests
        sent = {name: value for name, value in request.headers.items() if name != "Host"}
        assert all(re.fullmatch(r"[\x20-\x7e]*", value) for value in sent.values())


@pytest.mark.parametrize(
    ("extra", "fields", "field"),
    [
        ({}, {"login": "A\nK"}, "the access key"),
        ({}, {"password": "sec rét"}, "the secret key"),
        ({"security_token": "a\nb"}, {}, "security_token"),
        ({"auth": "token"}, {"password": "a\r\nX-Evil: 1"}, "password"),
        ({"project_id": "漢"}, {}, "project_id"),
    ],
)
def test_an_unsendable_field_is_named_and_not_shown(extra: dict[str, Any], fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=f"^{field} of connection 'mine' holds a space") as caught:
        read(extra, **fields)
    assert not [value for value in fields.values() if value in str(caught.value)]


@pytest.mark.parametrize(
    "place", ["user:pass/word@iam.example/x", "https://user:pass/word@iam.example/x", "u:pass@x@y/z"]
)
def test_a_password_in_a_url_is_not_quoted(place: str) -> None:
    with pytest.raises(ModelArtsConfigurationError, match="iam_endpoint of connection 'mine' is") as caught:
        read({"auth": "password", "domain_name": "d", "iam_endpoint": place})
    assert "pass" not in str(caught.value).removesuffix(" path, query and user").split(":")[0]


PROXY = "http://proxy..example:3128"
RETRIES = RetryPolicy(attempts=1)


@pytest.fixture
def unusable_proxy(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    return read({})


def test_an_invalid_proxy_is_a_configuration_error_on_a_worker(unusable_proxy: Settings) -> None:
    driver = Driver(lambda: unusable_proxy)
    with pytest.raises(ModelArtsConfigurationError), closing(driver):
        driver.call(operations.describe_processor_task("a"), RETRIES)


async def test_an_invalid_proxy_is_a_configuration_error_in_a_triggerer(unusable_proxy: Settings) -> None:
    async def read_settings() -> Settings:
        return unusable_proxy

    driver = AsyncDriver(read_settings)
    try:
        with pytest.raises(ModelArtsConfigurationError):
            await driver.call(operations.describe_processor_task("a"), RETRIES)
    finally:
        await driver.close()
