"""Tests of the errors of unreadable answers and transport errors."""

from typing import Any

import pytest

from airflow_modelarts.api import error_mapping
from airflow_modelarts.api.errors import ModelArtsConfigurationError, ModelArtsRequestError, ModelArtsTransientError
from airflow_modelarts.api.http import Response, TransportError
from tests.support.flows import (
    BAD_CERTIFICATE,
    BROKEN,
    NOON,
    REFUSED_CONNECTION,
    TIMEOUT,
    TOO_LARGE,
    UNKNOWN_NAME,
    answer,
    refuse,
)


@pytest.mark.parametrize(
    ("fault", "kind", "advice"),
    [
        (REFUSED_CONNECTION, ModelArtsTransientError, "check the connection's host"),
        (BROKEN, ModelArtsTransientError, "check the connection's host"),
        (TIMEOUT, ModelArtsTransientError, "check the connection's host"),
        (UNKNOWN_NAME, ModelArtsConfigurationError, "host name does not exist"),
        (BAD_CERTIFICATE, ModelArtsConfigurationError, "verify extra"),
        (TOO_LARGE, ModelArtsRequestError, "Request less"),
    ],
    ids=lambda case: getattr(case, "kind", ""),
)
def test_a_transport_error_has_its_kind_and_advice(fault: TransportError, kind: type[Exception], advice: str) -> None:
    error = error_mapping.from_transport(fault, operation="CreateX", target="task 'x'", address="https://h.example")
    assert type(error) is kind
    assert all(part in str(error) for part in ("CreateX of task 'x'", "https://h.example", fault.reason, advice))


@pytest.mark.parametrize("sent", [True, False])
def test_the_outcome_is_unknown_if_the_request_may_have_been_sent(sent: bool) -> None:
    fault = TransportError("x", kind="broken", sent=sent)
    assert error_mapping.from_transport(fault, operation="X", target="x", address="https://h").outcome_unknown is sent


def test_an_unreadable_answer_is_described_and_not_quoted() -> None:
    error = error_mapping.unreadable(Response(200, {"content-type": "text/html"}, b"S3CRET"), operation="X", target="x")
    assert all(part in str(error) for part in ("HTTP 200", "text/html", "6 bytes"))
    assert "S3CRET" not in str(error)
    assert error.outcome_unknown


def test_an_unreadable_answer_without_a_type_is_described_too() -> None:
    assert "no content type" in str(error_mapping.unreadable(Response(200), operation="X", target="x"))


@pytest.mark.parametrize(
    "body",
    [
        {"error_code": "ModelArts.0010", "error_msg": "broken inside"},
        {"is_success": False, "error_code": "ModelArts.0010", "error_message": "broken inside"},
        {"error": {"code": "ModelArts.0010", "message": "broken inside"}},
    ],
)
def test_an_error_with_the_status_of_a_success_is_quoted(body: dict[str, Any]) -> None:
    error = error_mapping.unreadable(answer(body), operation="X", target="x", secrets=("inside",))
    assert error.error_code == "ModelArts.0010"
    assert 'the error ModelArts.0010: "broken ***"' in str(error)


@pytest.mark.parametrize("body", [{"code": "S3CRET", "message": "m"}, {"status": 2, "message": "S3CRET"}])
def test_an_unreadable_answer_without_an_error_code_is_not_quoted(body: dict[str, Any]) -> None:
    error = error_mapping.unreadable(answer(body), operation="X", target="x")
    assert error.error_code is None
    assert "S3CRET" not in str(error)


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("certificate has expired", "renewed"),
        ("certificate is not yet valid", "set this machine's clock"),
        ("Hostname mismatch, certificate is not valid for '127.0.0.1'.", "Check the host of the connection"),
        ("self-signed certificate", "Set the verify extra"),
    ],
)
def test_the_advice_for_a_certificate_depends_on_its_fault(reason: str, advice: str) -> None:
    fault = TransportError(reason, kind="certificate", sent=False)
    error = error_mapping.from_transport(
        fault, operation="Describe", target="it", address="https://modelarts.example.com"
    )
    assert isinstance(error, ModelArtsConfigurationError)
    assert reason in str(error)
    assert advice in str(error)


@pytest.mark.parametrize("character", ["\n", "\x1b[2J", "\u2028", "\u202e", "\ud800"])
def test_no_message_has_unprintable_characters(character: str) -> None:
    target = f"processing task 'a{character}b'"
    assert character not in str(
        error_mapping.from_response(refuse(404), operation="DescribeX", target=target, secrets=(), now=NOON)
    )
    assert character not in str(error_mapping.unreadable(Response(200), operation="DescribeX", target=target))
    assert character not in str(
        error_mapping.from_transport(TIMEOUT, operation="X", target=target, address="https://h")
    )
