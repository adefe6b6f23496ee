"""Errors quote no secrets of a service that quotes the request."""

import json
from urllib.parse import quote

import pytest

from airflow_modelarts.api import operations
from airflow_modelarts.api.client import call
from airflow_modelarts.api.credentials import StaticToken
from airflow_modelarts.api.http import Response
from airflow_modelarts.api.redaction import redact
from tests.support.flows import ONCE, client, refuse, run_flow

DESCRIBE = operations.describe_processor_task("abc")
SECRET = 'se"cret\\of/a=usér+'


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        json.dumps(json.dumps({"password": SECRET})),
        quote(SECRET),
        quote(SECRET, safe=""),
    ],
    ids=["plain", "JSON", "JSON in UTF-8", "JSON in JSON", "URL", "URL parameter"],
)
def test_a_secret_is_redacted_in_every_escaped_form(spelling: str) -> None:
    text = redact(f"you sent {spelling}, did you?", [SECRET])
    assert "***" in text
    assert "cret" not in text


def test_a_signature_is_not_quoted() -> None:
    answers = []

    def quoting(request: object) -> Response:
        answers.append(refuse(401, "APIGW.0301", str(request.headers)))  # type: ignore[attr-defined]  # a Request
        return answers[-1]

    result = run_flow(call(DESCRIBE, ONCE), quoting, clients=client())
    signature = result.requests[-1].headers["Authorization"].split("Signature=")[1]
    assert signature.encode() in answers[-1].body
    assert signature not in str(result.error)


def test_a_secret_in_the_content_type_of_an_unreadable_answer_is_not_quoted() -> None:
    page = Response(200, {"content-type": "text/html; you=the-token"}, b"<html>")
    result = run_flow(call(DESCRIBE, ONCE), [page], clients=[client(StaticToken("the-token"))])
    assert "text/html; you=***" in str(result.error)
    assert "the-token" not in str(result.error)
