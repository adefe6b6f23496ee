"""Both drivers against the same small servers on loopback: what one makes of a fault, the other makes of it too."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_modelarts import transport as drivers
from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import (
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsRequestError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.http import MAX_HEADER_BYTES
from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.hooks import ModelArtsAsyncHook, ModelArtsHook
from tests.support.certificates import write_certificate
from tests.support.fixtures import PROJECT_ID

ONCE = RetryPolicy(attempts=1)
TASK = {"task_id": "abc", "status": 2, "result": {"ü": 1}}


class Server:
    """Accepts connections on loopback and hands each to a behaviour, with the request that came."""

    def __init__(
        self,
        behave: Callable[[socket.socket, bytes], None],
        *,
        tls: ssl.SSLContext | None = None,
        until: bytes = b"",
    ) -> None:
        """Behave when a request has come, or as soon as what came begins with ``until``, which is no HTTP."""
        self.requests: list[bytes] = []
        self._until = until
        self._behave = behave
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(5)
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            try:
                with connection:
                    connection.settimeout(5)
                    if self._tls:
                        connection = self._tls.wrap_socket(connection, server_side=True)
                    with connection:
                        request = read_request(connection, self._until)
                        self.requests.append(request)
                        self._behave(connection, request)
            except OSError:  # the client has gone, as some of the tests want it to
                continue


def read_request(connection: socket.socket, until: bytes = b"") -> bytes:
    """Read a request to its end, however many segments it comes in: what is left unread would become a reset."""
    request = b""
    while part := connection.recv(65536):
        request += part
        if until and request.startswith(until):
            break
        head, end_of_head, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"^content-length: *(\d+)", head, re.IGNORECASE | re.MULTILINE)
        if end_of_head and len(body) >= int(length[1] if length else 0):
            break
    return request


def http(status: str, body: bytes = b"", **headers: str) -> Callable[[socket.socket, bytes], None]:
    named = {"Content-Length": str(len(body)), "Connection": "close"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    answer = f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body
    return lambda connection, _: connection.sendall(answer)


def reset(connection: socket.socket, _: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def hang(connection: socket.socket, _: bytes) -> None:
    connection.recv(1)  # returns when the client gives up


def trickle(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _number in range(100):
        connection.sendall(b" ")
        threading.Event().wait(0.02)


def cut_chunked(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"task_id": "abc"')


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(behave: Callable[[socket.socket, bytes], None], **options: Any) -> Server:
        servers.append(Server(behave, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def call_synchronously(operation: operations.Operation[Any], retries: RetryPolicy) -> Any:
    with ModelArtsHook(retries=retries) as hook:
        return hook.call(operation)


def call_asynchronously(operation: operations.Operation[Any], retries: RetryPolicy) -> Any:
    async def run() -> Any:
        async with ModelArtsAsyncHook(retries=retries) as hook:
            return await hook.call(operation)

    return asyncio.run(run())


@pytest.fixture(params=[call_synchronously, call_asynchronously], ids=["requests", "aiohttp"])
def carry_out(request: pytest.FixtureRequest) -> Callable[[operations.Operation[Any], RetryPolicy], Any]:
    carry: Callable[[operations.Operation[Any], RetryPolicy], Any] = request.param
    return carry


Carry = Callable[[operations.Operation[Any], RetryPolicy], Any]
Serve = Callable[..., Server]
DESCRIBE = operations.describe_processor_task("abc")


def test_an_answer_arrives_whole(serve: Serve, set_connection: Callable[..., None], carry_out: Carry) -> None:
    server = serve(http("200 OK", json.dumps(TASK).encode()))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    task = carry_out(DESCRIBE, ONCE)
    assert isinstance(task, ProcessorTask)
    assert task.result == {"ü": 1}


def test_a_compressed_answer_is_decompressed(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry
) -> None:
    server = serve(http("200 OK", gzip.compress(json.dumps(TASK).encode()), Content_Encoding="gzip"))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    assert carry_out(DESCRIBE, ONCE).status == 2


def tls_alert(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46")


NGINX = b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>"
GO = b"Client sent an HTTP request to an HTTPS server.\n"
APACHE = b"<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />"


def zipped(body: bytes, *codings: str) -> bytes:
    """Apply codings in order."""
    for coding in codings:
        bits = {"gzip": 31, "deflate": 15, "raw deflate": -15}[coding]
        packer = zlib.compressobj(wbits=bits)
        body = packer.compress(body) + packer.flush()
    return body


JSON = json.dumps(TASK).encode()
ENCODED: dict[str, tuple[str, bytes]] = {
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
def test_an_answer_is_decompressed_alike_in_both(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, case: str
) -> None:
    coding, body = ENCODED[case]
    server = serve(http("200 OK", body, Content_Encoding=coding))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    assert carry_out(DESCRIBE, ONCE).result == {"ü": 1}
    assert b"accept-encoding: gzip, deflate\r\n" in server.requests[0].lower()


UNDECODABLE: dict[str, tuple[str, bytes, str]] = {
    "br": ("br", b"\x0b\x02\x80{}\x03", "not the JSON of this operation"),
    "zstd": ("zstd", b"(\xb5/\xfd\x04", "not the JSON of this operation"),
    "unknown": ("rot13", b"{}", "not the JSON of this operation"),
    "gzip that is cut": ("gzip", zipped(JSON, "gzip")[:-9], "compression"),
    "too many": (", ".join(["gzip"] * 6), zipped(JSON, *["gzip"] * 6), "compression"),
    "twice for once": ("gzip, gzip", zipped(JSON, "gzip"), "compression"),
}


@pytest.mark.parametrize("case", UNDECODABLE)
def test_an_answer_that_cannot_be_decompressed_is_temporary_in_both(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, case: str
) -> None:
    coding, body, text = UNDECODABLE[case]
    server = serve(http("200 OK", body, Content_Encoding=coding))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    with pytest.raises(ModelArtsTransientError, match=text):
        carry_out(DESCRIBE, ONCE)


def test_a_body_that_is_compressed_twice_cannot_fill_the_memory(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "MAX_ANSWER_BYTES", 1_000_000)
    bomb = zipped(b" " * 50_000_000, "gzip", "gzip")
    server = serve(http("200 OK", bomb, Content_Encoding="gzip, gzip"))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    with pytest.raises(ModelArtsRequestError, match="more than this client takes"):
        carry_out(DESCRIBE, ONCE)


def raw(answer: bytes) -> Callable[[socket.socket, bytes], None]:
    return lambda connection, _: connection.sendall(answer)


def test_an_answer_may_be_announced_by_others(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry
) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    body = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(JSON), JSON)
    server = serve(raw(hints + body))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    assert carry_out(DESCRIBE, ONCE).status == 2


def test_headers_are_read_alike_in_both(serve: Serve, set_connection: Callable[..., None], carry_out: Carry) -> None:
    head = "X-Request-Id: first \r\nX-Request-Id: sécond\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    server = serve(raw(f"HTTP/1.1 400\r\n{head}".encode()))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    with pytest.raises(ModelArtsRequestError) as caught:
        carry_out(DESCRIBE, ONCE)
    assert caught.value.request_id == "first, sécond"


@pytest.mark.parametrize("body", [b"\xef\xbb\xbf" + JSON, JSON.decode().encode("ascii")], ids=["mark", "plain"])
def test_json_may_begin_with_a_byte_order_mark(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, body: bytes
) -> None:
    server = serve(http("200 OK", body))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    assert carry_out(DESCRIBE, ONCE).status == 2


FAULTS: dict[str, tuple[Callable[[socket.socket, bytes], None], type[ModelArtsError], str]] = {
    "reset": (reset, ModelArtsTransientError, "no answer from http://127.0.0.1"),
    "closed without an answer": (lambda *_: None, ModelArtsTransientError, "no answer from"),
    "hangs": (hang, ModelArtsTransientError, "timed out|Timeout"),
    "cut": (http("200 OK", b'{"task_id"', Content_Length="400"), ModelArtsTransientError, "no answer from"),
    "cut in a chunk": (cut_chunked, ModelArtsTransientError, "no answer from"),
    "not http": (lambda c, _: c.sendall(b"SSH-2.0-OpenSSH\r\n"), ModelArtsTransientError, "no answer from"),
    "html": (http("200 OK", b"<html>", Content_Type="text/html"), ModelArtsTransientError, "text/html"),
    "false gzip": (http("200 OK", b"{}", Content_Encoding="gzip"), ModelArtsTransientError, "no answer from"),
    "http to a port for https": (tls_alert, ModelArtsConfigurationError, "speaks TLS, not plain http.*write https://"),
    "http to nginx's port for https": (http("400 Bad", NGINX), ModelArtsConfigurationError, "speaks TLS, not plain"),
    "http to Go's port for https": (http("400 Bad", GO), ModelArtsConfigurationError, "speaks TLS, not plain http"),
    "http to Apache's port for https": (http("400 Bad", APACHE), ModelArtsConfigurationError, "speaks TLS, not plain"),
    "redirect": (http("302 Found", Location="http://127.0.0.1:1/"), ModelArtsConfigurationError, "redirect"),
    "503": (http("503 Busy", b"<html>"), ModelArtsTransientError, "HTTP 503"),
}


@pytest.mark.parametrize(("behave", "kind", "text"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_the_same_error_in_both(
    serve: Serve,
    set_connection: Callable[..., None],
    carry_out: Carry,
    behave: Callable[[socket.socket, bytes], None],
    kind: type[ModelArtsError],
    text: str,
) -> None:
    server = serve(behave)
    # Only one of them is to time out; the others are answered, however slow the machine.
    extra = {"read_timeout": "1" if behave is hang else "30"}
    set_connection(host=f"http://127.0.0.1:{server.port}", extra=extra)
    with pytest.raises(kind, match=text) as caught:
        carry_out(DESCRIBE, ONCE)
    assert len(server.requests) == 1, "the driver repeats nothing by itself, and follows no redirect"
    assert caught.value.outcome_unknown == (kind is ModelArtsTransientError)


def test_a_refused_connection_is_known_not_to_have_reached_the_service(
    set_connection: Callable[..., None], carry_out: Carry
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    set_connection(host=f"http://127.0.0.1:{port}")
    with pytest.raises(ModelArtsTransientError, match="Connect") as caught:
        carry_out(DESCRIBE, ONCE)
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize(
    ("extra", "service"),
    [({}, "ModelArts"), ({"auth": "password", "domain_name": "account"}, "IAM")],
    ids=["access key", "password"],
)
def test_a_region_that_is_misspelt_is_named_after_one_more_look(
    set_connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    carry_out: Carry,
    extra: dict[str, str],
    service: str,
) -> None:
    looked_up: list[Any] = []

    def resolve(host: Any, *_: Any, **__: Any) -> None:
        looked_up.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "no luck with that name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    set_connection(host=None, extra={"region": "cn-nort-4", **extra})
    words = (
        f"^region 'cn-nort-4' of connection 'modelarts_default' has no {service} endpoint that resolves: check its "
        "spelling, or set host"
    )
    with pytest.raises(ModelArtsConfigurationError, match=words):
        carry_out(DESCRIBE, RetryPolicy(initial_delay=0.01))
    assert len(looked_up) == 2


def test_a_name_that_resolved_before_is_out_of_order_when_it_does_not(
    serve: Serve, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waits of a triggerer would all end with the first wrong answer of a resolver."""

    def resolve(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no luck with that name")

    server = serve(http("200 OK", json.dumps(TASK).encode()))
    set_connection(host=f"http://localhost:{server.port}")
    with ModelArtsHook(retries=ONCE) as hook, monkeypatch.context() as patch:
        hook.call(DESCRIBE)
        patch.setattr(socket, "getaddrinfo", resolve)
        with pytest.raises(ModelArtsTransientError, match="no luck with that name"):
            hook.call(DESCRIBE)

    async def run() -> None:
        async with ModelArtsAsyncHook(retries=ONCE) as hook:
            await hook.call(DESCRIBE)
            await hook.close()  # it would remember the address for ten seconds
            with monkeypatch.context() as patch:
                patch.setattr(socket, "getaddrinfo", resolve)
                with pytest.raises(ModelArtsTransientError, match="no luck with that name"):
                    await hook.call(DESCRIBE)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (socket.EAI_NONAME, ModelArtsConfigurationError),
        (socket.EAI_NODATA, ModelArtsConfigurationError),
        (socket.EAI_AGAIN, ModelArtsTransientError),
        (socket.EAI_FAIL, ModelArtsTransientError),
    ],
    ids=["no such host", "no address of that host", "resolver out of order", "resolver fails"],
)
def test_a_host_name_that_does_not_exist_is_told_from_a_resolver_that_fails(
    monkeypatch: pytest.MonkeyPatch, carry_out: Carry, code: int, kind: type[ModelArtsError]
) -> None:
    def resolve(*_: Any, **__: Any) -> None:
        raise socket.gaierror(code, "no luck with that name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(kind, match="no luck with that name") as caught:
        carry_out(DESCRIBE, ONCE)
    assert not caught.value.outcome_unknown


def test_an_answer_without_end_is_cut_off_by_its_size(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "MAX_ANSWER_BYTES", 1_000_000)
    bomb = gzip.compress(b" " * 20_000_000)
    server = serve(http("200 OK", bomb, Content_Encoding="gzip"))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    with pytest.raises(ModelArtsRequestError, match="more than this client takes"):
        carry_out(DESCRIBE, ONCE)


def test_an_answer_that_trickles_is_cut_off_by_its_time(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "TOTAL_TIMEOUT", 0.3)
    server = serve(trickle)
    set_connection(host=f"http://127.0.0.1:{server.port}")
    with pytest.raises(ModelArtsTransientError):
        carry_out(DESCRIBE, ONCE)


def trickle_head(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    with suppress(OSError):
        for _number in range(100):
            connection.sendall(b"x")
            threading.Event().wait(0.05)


def test_a_head_that_trickles_is_cut_off_by_its_time(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "TOTAL_TIMEOUT", 0.3)
    server = serve(trickle_head)
    set_connection(host=f"http://127.0.0.1:{server.port}")
    began = time.monotonic()
    with pytest.raises(ModelArtsTransientError):
        carry_out(DESCRIBE, ONCE)
    assert time.monotonic() - began < 4, "all of it would take five seconds"


def test_a_head_that_trickles_over_tls_is_cut_off_by_its_time(
    serve: Serve,
    set_connection: Callable[..., None],
    certificate: tuple[ssl.SSLContext, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drivers, "TOTAL_TIMEOUT", 0.3)
    server = serve(trickle_head, tls=certificate[0])
    set_connection(host=f"127.0.0.1:{server.port}", extra={"verify": str(certificate[1])})
    began = time.monotonic()
    with pytest.raises(ModelArtsTransientError, match="timed out"):
        call_synchronously(DESCRIBE, ONCE)
    assert time.monotonic() - began < 4, "all of it would take five seconds"


def test_what_is_signed_is_what_is_sent(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A ~/.netrc would replace the Authorization header, and both libraries like to rewrite URLs."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    task_id = "a b?ü~%41'\"<"
    server = serve(http("200 OK", json.dumps({"task_id": task_id}).encode()))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    carry_out(operations.describe_processor_task(task_id), ONCE)
    head = server.requests[0].decode()
    assert "/processor-tasks/a%20b%3F%C3%BC~%2541%27%22%3C HTTP/1.1" in head
    assert "Authorization: SDK-HMAC-SHA256 Access=FAKEACCESSKEY" in head
    assert f"Host: 127.0.0.1:{server.port}\r\n" in head


def test_cookies_are_not_kept(serve: Serve, set_connection: Callable[..., None]) -> None:
    server = serve(http("200 OK", json.dumps(TASK).encode(), Set_Cookie="session=1; Path=/"))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    with ModelArtsHook() as hook:
        hook.describe_processor_task("abc")
        hook.describe_processor_task("abc")
    assert b"session" not in server.requests[1]


def token_answer(token: str, **headers: str) -> Callable[[socket.socket, bytes], None]:
    document = {"token": {"expires_at": "2099-01-01T00:00:00.000000Z", "project": {"id": PROJECT_ID}}}
    return http("201 Created", json.dumps(document).encode(), X_Subject_Token=token, **headers)


LINE = 65536  # of http.client's
SIZES = [8_190, 8_191, LINE - 19, LINE - 18, LINE - 17, LINE, LINE + 1, 102_400, MAX_HEADER_BYTES]


@pytest.mark.parametrize("size", SIZES)
def test_a_token_of_any_size_up_to_128_kib_works(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, size: int
) -> None:
    """Aiohttp takes 8,190 bytes a header by itself, http.client 65,536 a line."""
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
def test_a_larger_head_is_refused_and_not_asked_for_again(
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


def test_a_head_with_as_much_as_is_allowed_is_read(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry
) -> None:
    # With Content-Length and Connection: 100 headers.
    headers = {f"X_{number}": "x" * 1000 for number in range(98)}
    server = serve(http("200 OK", json.dumps(TASK).encode(), **headers))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    assert carry_out(DESCRIBE, ONCE).status == 2


def test_an_interim_answer_is_passed_over(serve: Serve, set_connection: Callable[..., None], carry_out: Carry) -> None:
    def behave(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        http("200 OK", json.dumps(TASK).encode())(connection, request)

    server = serve(behave)
    set_connection(host=f"http://127.0.0.1:{server.port}")
    assert carry_out(DESCRIBE, ONCE).status == 2


@pytest.mark.parametrize("scheme", ["", "https://"])
def test_https_to_a_port_for_plain_http_is_told_at_once(
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


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context with a self-signed certificate for 127.0.0.1, and the file that vouches for it."""
    file, key_file = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return context, file


def test_an_unknown_certificate_is_refused_with_the_way_out(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, certificate: tuple[ssl.SSLContext, Path]
) -> None:
    server = serve(http("200 OK", json.dumps(TASK).encode()), tls=certificate[0])
    set_connection(host=f"https://127.0.0.1:{server.port}")
    with pytest.raises(ModelArtsConfigurationError, match="verify extra"):
        carry_out(DESCRIBE, ONCE)


def test_an_authority_named_in_the_connection_is_trusted(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, certificate: tuple[ssl.SSLContext, Path]
) -> None:
    server = serve(http("200 OK", json.dumps(TASK).encode()), tls=certificate[0])
    set_connection(host=f"127.0.0.1:{server.port}", extra={"verify": str(certificate[1])})
    assert carry_out(DESCRIBE, ONCE).status == 2


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verification_can_be_turned_off(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, certificate: tuple[ssl.SSLContext, Path]
) -> None:
    server = serve(http("200 OK", json.dumps(TASK).encode()), tls=certificate[0])
    set_connection(host=f"127.0.0.1:{server.port}", extra={"verify": False})
    assert carry_out(DESCRIBE, ONCE).status == 2


def test_pauses_between_attempts_are_slept(serve: Serve, set_connection: Callable[..., None], carry_out: Carry) -> None:
    answers = iter([http("503 Busy", Retry_After="0"), http("200 OK", json.dumps(TASK).encode())])
    server = serve(lambda connection, request: next(answers)(connection, request))
    set_connection(host=f"http://127.0.0.1:{server.port}")
    assert carry_out(DESCRIBE, RetryPolicy(attempts=2)).status == 2


def test_a_listing_asks_for_a_page_when_it_is_needed(serve: Serve, set_connection: Callable[..., None]) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        page = int(request.split(b"offset=")[1].split(b" ")[0])
        tasks = [{"task_id": f"task-{page}-{number}"} for number in range(2)]
        http("200 OK", json.dumps({"count": 4, "tasks": tasks}).encode())(connection, request)

    server = serve(answer)
    set_connection(host=f"http://127.0.0.1:{server.port}")
    with ModelArtsHook() as hook:
        tasks = hook.list_processor_tasks(limit=2)
        assert [next(tasks).task_id, next(tasks).task_id] == ["task-0-0", "task-0-1"]
        assert len(server.requests) == 1
        assert [task.task_id for task in tasks] == ["task-1-0", "task-1-1"]

    async def run() -> list[str]:
        async with ModelArtsAsyncHook() as hook:
            return [task.task_id async for task in hook.list_processor_tasks(limit=2)]

    assert asyncio.run(run()) == ["task-0-0", "task-0-1", "task-1-0", "task-1-1"]


def test_a_connection_that_airflow_does_not_have_is_a_setting_to_change() -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^Airflow connection 'not_there' does not exist: create it"):
        ModelArtsHook("not_there").describe_processor_task("abc")

    async def run() -> None:
        async with ModelArtsAsyncHook("not_there") as hook:
            await hook.describe_processor_task("abc")

    with pytest.raises(ModelArtsConfigurationError, match=r"^Airflow connection 'not_there' does not exist: create it"):
        asyncio.run(run())


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n"], ids=["empty", "broken"])
def test_a_file_of_authorities_that_holds_none_is_a_setting_to_change(
    serve: Serve,
    set_connection: Callable[..., None],
    carry_out: Carry,
    certificate: tuple[ssl.SSLContext, Path],
    content: str,
) -> None:
    server = serve(http("200 OK", json.dumps(TASK).encode()), tls=certificate[0])
    certificate[1].write_text(content)
    set_connection(host=f"127.0.0.1:{server.port}", extra={"verify": str(certificate[1])})
    with pytest.raises(ModelArtsConfigurationError, match="verify extra") as caught:
        carry_out(DESCRIBE, ONCE)
    assert not caught.value.outcome_unknown


def test_a_call_that_is_cancelled_gives_back_what_it_holds(
    serve: Serve, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nobody in the process could renew that token again."""
    server = serve(hang)
    extra = {"auth": "password", "domain_name": "account", "iam_endpoint": f"http://127.0.0.1:{server.port}"}
    set_connection(host=f"http://127.0.0.1:{server.port}", extra=extra)

    async def run() -> None:
        async with ModelArtsAsyncHook(retries=ONCE) as hook:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(hook.call(DESCRIBE), 0.2)
            set_connection(host=f"http://127.0.0.1:{server.port}", extra={**extra, "read_timeout": "0.1"})
            with pytest.raises(ModelArtsTransientError, match="KeystoneCreateUserTokenByPassword"):
                async with ModelArtsAsyncHook(retries=ONCE) as another:
                    await another.call(DESCRIBE)

    asyncio.run(run())
