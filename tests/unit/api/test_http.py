"""Tests of requests, responses and transport errors."""

import pytest

from airflow_modelarts.api.http import Request, Response, TransportError, send
from tests.support.flows import TIMEOUT, answer, run_flow


def test_the_repr_of_requests_and_responses_has_neither_headers_nor_body() -> None:
    request = Request("POST", "https://h/", {"X-Auth-Token": "S3CRET"}, b"S3CRET")
    assert "S3CRET" not in repr([request, Response(201, {"x-subject-token": "S3CRET"}, b"S3CRET")])


def test_send_returns_the_response() -> None:
    response = answer({})
    assert run_flow(send(Request("GET", "https://h/")), [response]).value is response


def test_send_raises_the_transport_error() -> None:
    flow = send(Request("GET", "https://h/"))
    next(flow)
    with pytest.raises(TransportError, match="read timed out"):
        flow.throw(TIMEOUT)


@pytest.mark.parametrize(
    ("date", "served_at"),
    [
        ("Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000.0),
        ("Wed, 15 Nov 2023 00:13:20 +0200", 1_700_000_000.0),
        ("", None),
        ("yesterday", None),
        ("Tue, 14 Nov 99999 22:13:20 GMT", None),
    ],
)
def test_a_response_tells_when_it_was_served(date: str, served_at: float | None) -> None:
    assert Response(200, {"date": date}).served_at == served_at
    assert Response(200).served_at is None
