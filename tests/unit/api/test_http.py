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
