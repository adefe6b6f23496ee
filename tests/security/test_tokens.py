"""Tokens and keys of IAM and the metadata service are used only if a header can hold them."""

import pytest

from airflow_modelarts.api import operations
from airflow_modelarts.api.client import call
from airflow_modelarts.api.credentials import InstanceAgency, PasswordToken
from airflow_modelarts.api.credentials.instance_agency import METADATA_ROUNDS
from airflow_modelarts.api.errors import ModelArtsAuthenticationError, ModelArtsTransientError
from airflow_modelarts.api.http import Response
from tests.support.flows import ONCE, answer, client, run_flow

DESCRIBE = operations.describe_processor_task("abc")
AGENCY = InstanceAgency()
EXPIRES_AT = "2026-02-01T12:00:00.000000Z"
TASK = answer({"task_id": "abc"})
UNSENDABLE = ["a\r\nX-Evil: 1", "a b", "é", "漢", "\x00", "\ud800"]


@pytest.mark.parametrize("token", UNSENDABLE)
def test_a_token_that_cannot_be_sent_is_an_unreadable_answer(token: str) -> None:
    given = answer({"token": {"expires_at": EXPIRES_AT}}, 201, x_subject_token=token)
    user = PasswordToken("https://iam.example", "user", "the-password", "domain")
    result = run_flow(call(DESCRIBE, ONCE), [given], clients=[client(user)])
    assert isinstance(result.error, ModelArtsTransientError)


@pytest.mark.parametrize("field", ["access", "secret", "securitytoken"])
@pytest.mark.parametrize("value", UNSENDABLE)
def test_a_temporary_key_that_cannot_be_sent_is_an_unreadable_answer(field: str, value: str) -> None:
    credential = {"access": "AK", "secret": "SK", "securitytoken": "T", "expires_at": EXPIRES_AT, field: value}
    rounds = [Response(404), answer({"credential": credential})] * METADATA_ROUNDS
    # Without a key the connection is read again; the metadata service gets another request only if it changed.
    result = run_flow(call(DESCRIBE, ONCE), rounds, clients=[client(AGENCY)] * 2)
    assert isinstance(result.error, ModelArtsAuthenticationError)
    assert {request.url.split("/")[2] for request in result.requests} == {"169.254.169.254"}
    assert not any(value in str(header) for request in result.requests for header in request.headers.values())


@pytest.mark.parametrize("token", [b"a\r\nX-Evil: 1", b"a b", b"\x00", b"<html> </html>"])
def test_a_session_token_that_cannot_be_sent_is_ignored(token: bytes) -> None:
    credential = {"access": "AK", "secret": "SK", "securitytoken": "T", "expires_at": EXPIRES_AT}
    answers = [Response(200, {}, token), answer({"credential": credential}), TASK]
    result = run_flow(call(DESCRIBE, ONCE), answers, clients=[client(AGENCY)])
    assert result.value is not None
    assert "X-Metadata-Token" not in result.requests[1].headers
