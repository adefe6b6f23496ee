"""The vocabulary of the core: values that keep their secrets to themselves."""

from __future__ import annotations

import pytest

from airflow_modelarts.api.http import Request, Response, TransportError, send
from tests.support.flows import TIMEOUT, answer, run_flow


def test_a_request_shows_neither_its_headers_nor_its_body() -> None:
    assert "S3CRET" not in repr(Request("POST", "https://h/", {"X-Auth-Token": "S3CRET"}, b"S3CRET"))


def test_an_answer_shows_neither_its_headers_nor_its_body() -> None:
    assert "S3CRET" not in repr(Response(201, {"x-subject-token": "S3CRET"}, b"S3CRET"))


def test_sending_returns_the_answer() -> None:
    response = answer({})
    assert run_flow(send(Request("GET", "https://h/")), [response]).value is response


def test_a_fault_comes_out_of_sending() -> None:
    flow = send(Request("GET", "https://h/"))
    next(flow)
    with pytest.raises(TransportError, match="read timed out"):
        flow.throw(TIMEOUT)


def test_a_fault_says_what_happened_and_whether_the_request_was_sent() -> None:
    fault = TransportError("reset", kind="broken", sent=True)
    assert (str(fault), fault.reason, fault.kind, fault.sent) == ("reset", "reset", "broken", True)
