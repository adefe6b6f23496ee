"""Tests of both drivers against servers on loopback: encodings, headers and sizes of answers."""

import gzip
import json
import socket
from collections.abc import Callable

import pytest

from airflow_modelarts.api import decoding
from airflow_modelarts.api.errors import ModelArtsConfigurationError, ModelArtsRequestError, ModelArtsTransientError
from airflow_modelarts.api.http import MAX_HEADER_BYTES
from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.api.retry import RetryPolicy
from tests.support.loopback import DESCRIBE, JSON, ONCE, TASK, Carry, Serve, http, raw, token_answer, zipped


def test_an_answer_is_read_completely(serve: Serve, carry_out: Carry) -> None:
    serve(http("200 OK", json.dumps(TASK).encode()))
    task = carry_out(DESCRIBE, ONCE)
    assert isinstance(task, ProcessorTask)
    assert task.result == {"ü": 1}


ENCODED: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", zipped(JSON, "gzip")),
    "gzip, gzip": ("gzip, gzip", zipped(JSON, "gzip", "gzip")),
    "x-gzip": ("x-gzip", zipped(JSON, "gzip")),
    "upper case": ("GZip", zipped(JSON, "gzip")),
    "deflate": ("deflate", zipped(JSON, "deflate")),
    "deflate without a header": ("deflate", zipped(JSON, "raw deflate")),
    "deflate, gzip": ("deflate,gzip", zipped(JSON, "deflate", "gzip")),
    "identity": ("identity", JSON),
    "identity, gzip": ("identity, gzip", zipped(JSON, "gzip")),
    "gzip in two parts": ("gzip", zipped(JSON[:9], "gzip") + zipped(JSON[9:], "gzip")),
    "gzip with padding": ("gzip", zipped(JSON, "gzip") + b"\0" * 100),
    "empty": ("", JSON),
}


@pytest.mark.parametrize("case", ENCODED)
def test_both_drivers_decode_every_encoding(serve: Serve, carry_out: Carry, case: str) -> None:
    coding, body = ENCODED[case]
    server = serve(http("200 OK", body, Content_Encoding=coding))
    assert carry_out(DESCRIBE, ONCE).result == {"ü": 1}
    assert b"accept-encoding: gzip, deflate\r\n" in server.requests[0].lower()


UNDECODABLE: dict[str, tuple[str, bytes, str]] = {
    "br": ("br", b"\x0b\x02\x80{}\x03", "not this operation's JSON"),
    "zstd": ("zstd", b"(\xb5/\xfd\x04", "not this operation's JSON"),
    "unknown": ("rot13", b"{}", "not this operation's JSON"),
    "gzip that is cut": ("gzip", zipped(JSON, "gzip")[:-9], "compression"),
    "too many": (", ".join(["gzip"] * 6), zipped(JSON, *["gzip"] * 6), "compression"),
    "twice for once": ("gzip, gzip", zipped(JSON, "gzip"), "compression"),
}


@pytest.mark.parametrize("case", UNDECODABLE)
def test_an_answer_that_cannot_be_decoded_is_a_temporary_error(serve: Serve, carry_out: Carry, case: str) -> None:
    coding, body, text = UNDECODABLE[case]
    serve(http("200 OK", body, Content_Encoding=coding))
    with pytest.raises(ModelArtsTransientError, match=text):
        carry_out(DESCRIBE, ONCE)


def test_a_body_compressed_twice_is_limited(serve: Serve, carry_out: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_ANSWER_BYTES", 1_000_000)
    bomb = zipped(b" " * 50_000_000, "gzip", "gzip")
    serve(http("200 OK", bomb, Content_Encoding="gzip, gzip"))
    with pytest.raises(ModelArtsRequestError, match="more than this client takes"):
        carry_out(DESCRIBE, ONCE)


def test_early_hints_before_an_answer_are_skipped(serve: Serve, carry_out: Carry) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    body = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(JSON), JSON)
    serve(raw(hints + body))
    assert carry_out(DESCRIBE, ONCE).status == 2


def test_both_drivers_read_the_same_headers(serve: Serve, carry_out: Carry) -> None:
    head = "X-Request-Id: first \r\nX-Request-Id: sécond\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    serve(raw(f"HTTP/1.1 400\r\n{head}".encode()))
    with pytest.raises(ModelArtsRequestError) as caught:
        carry_out(DESCRIBE, ONCE)
    assert caught.value.request_id == "first, sécond"


@pytest.mark.parametrize("body", [b"\xef\xbb\xbf" + JSON, JSON.decode().encode("ascii")], ids=["mark", "plain"])
def test_json_may_begin_with_a_byte_order_mark(serve: Serve, carry_out: Carry, body: bytes) -> None:
    serve(http("200 OK", body))
    assert carry_out(DESCRIBE, ONCE).status == 2


def test_the_size_of_an_answer_is_limited(serve: Serve, carry_out: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_ANSWER_BYTES", 1_000_000)
    bomb = gzip.compress(b" " * 20_000_000)
    serve(http("200 OK", bomb, Content_Encoding="gzip"))
    with pytest.raises(ModelArtsRequestError, match="more than this client takes"):
        carry_out(DESCRIBE, ONCE)


LINE = 65536  # bytes; http.client's limit
SIZES = [8_190, 8_191, LINE - 19, LINE - 18, LINE - 17, LINE, LINE + 1, 102_400, MAX_HEADER_BYTES]


@pytest.mark.parametrize("size", SIZES)
def test_a_token_of_any_size_up_to_128_kib_works(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, size: int
) -> None:
    """The default limits are 8,190 bytes a header (aiohttp) and 65,536 bytes a line (http.client)."""
    token = "M" * size
    iam = serve(token_answer(token))
    server = serve(http("200 OK", json.dumps(TASK).encode()))
    extra = {"auth": "password", "domain_name": "account", "iam_endpoint": f"http://127.0.0.1:{iam.port}"}
    set_connection(host=f"http://127.0.0.1:{server.port}", extra=extra)
    assert carry_out(DESCRIBE, ONCE).status == 2
    assert f"X-Auth-Token: {token}\r\n".encode() in server.requests[0]


TOO_LARGE_HEADS: dict[str, dict[str, str]] = {
    "one byte more": {"X_Subject_Token": "M" * (MAX_HEADER_BYTES + 1)},
    "twice as long": {"X_Subject_Token": "M" * 2 * MAX_HEADER_BYTES},
    "ten times as long": {"X_Subject_Token": "M" * 10 * MAX_HEADER_BYTES},
    "another header": {"X_Other": "x" * (MAX_HEADER_BYTES + 1)},
    "too much in all": {f"X_{number}": "x" * 100_000 for number in range(3)},
    "98 more headers": {f"X_{number}": "x" for number in range(98)},
    "129 headers": {f"X_{number}": "x" for number in range(129)},
    "1000 headers": {f"X_{number}": "x" for number in range(1000)},
}


@pytest.mark.parametrize("headers", TOO_LARGE_HEADS.values(), ids=TOO_LARGE_HEADS)
def test_a_too_large_head_is_an_error_without_retries(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, headers: dict[str, str]
) -> None:
    iam = serve(token_answer(**{"token": "T", **headers} if "X_Subject_Token" not in headers else subject(headers)))
    extra = {"auth": "password", "domain_name": "account", "iam_endpoint": f"http://127.0.0.1:{iam.port}"}
    set_connection(host="http://127.0.0.1:1", extra=extra)
    with pytest.raises(ModelArtsConfigurationError, match=r"131072 bytes each.*fewer roles"):
        carry_out(DESCRIBE, RetryPolicy(attempts=3, initial_delay=0.0))
    assert len(iam.requests) == 1


def subject(headers: dict[str, str]) -> dict[str, str]:
    return {"token": headers["X_Subject_Token"]}


def test_a_head_of_the_maximum_size_is_read(serve: Serve, carry_out: Carry) -> None:
    # With Content-Length and Connection: 100 headers.
    headers = {f"X_{number}": "x" * 1000 for number in range(98)}
    serve(http("200 OK", json.dumps(TASK).encode(), **headers))
    assert carry_out(DESCRIBE, ONCE).status == 2


def test_interim_answers_are_skipped(serve: Serve, carry_out: Carry) -> None:
    def behave(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        http("200 OK", json.dumps(TASK).encode())(connection, request)

    serve(behave)
    assert carry_out(DESCRIBE, ONCE).status == 2


@pytest.mark.parametrize("scheme", ["", "https://"])
def test_https_to_a_port_for_plain_http_is_an_error_without_retries(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, scheme: str
) -> None:
    connections: list[bytes] = []

    def behave(connection: socket.socket, request: bytes) -> None:
        connections.append(request)
        http("400 Bad Request")(connection, request)

    server = serve(behave, until=b"\x16\x03")
    set_connection(host=f"{scheme}127.0.0.1:{server.port}")
    with pytest.raises(ModelArtsConfigurationError, match=r"does not speak TLS .*http://") as caught:
        carry_out(DESCRIBE, RetryPolicy(attempts=3, initial_delay=0.0))
    assert len(connections) == 1
    assert not caught.value.outcome_unknown
