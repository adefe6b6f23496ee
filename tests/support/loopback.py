"""Servers on loopback with a given behaviour, and the calls of both drivers."""

import asyncio
import json
import re
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_modelarts.api import operations
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.hooks import ModelArtsAsyncHook, ModelArtsHook
from tests.support.certificates import server_context
from tests.support.fixtures import PROJECT_ID

ONCE = RetryPolicy(attempts=1)
TASK = {"task_id": "abc", "status": 2, "result": {"ü": 1}}

#: Seconds that a server waits for its next client and for the rest of a request: a busy machine can be slow.
PATIENCE = 60.0


class Server:
    """A server on loopback that calls a behaviour with each connection and its request."""

    def __init__(
        self, behave: Callable[[socket.socket, bytes], None], *, tls: ssl.SSLContext | None = None, until: bytes = b""
    ) -> None:
        """Call ``behave`` after a complete request, or after bytes that begin with ``until``, which are not HTTP."""
        self.requests: list[bytes] = []
        self._until = until
        self._behave = behave
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE)
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
                    connection.settimeout(PATIENCE)
                    if self._tls:
                        connection = self._tls.wrap_socket(connection, server_side=True)
                    with connection:
                        request = read_request(connection, self._until)
                        self.requests.append(request)
                        self._behave(connection, request)
            except OSError:  # the client has disconnected, as some tests intend
                continue


def read_request(connection: socket.socket, until: bytes = b"") -> bytes:
    """Read a complete request from any number of segments: unread bytes would cause a reset."""
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


def hang(connection: socket.socket, _: bytes) -> None:
    connection.recv(1)  # returns when the client gives up


def send_slowly(connection: socket.socket, byte: bytes) -> None:
    """Send a byte every 50 ms until the client disconnects, for a minute at most."""
    with suppress(OSError):
        for _number in range(1200):
            connection.sendall(byte)
            threading.Event().wait(0.05)


@pytest.fixture
def serve(set_connection: Callable[..., None]) -> Iterator[Callable[..., Server]]:
    """Start servers; the connection leads to the last one that was started."""
    servers: list[Server] = []

    def start(behave: Callable[[socket.socket, bytes], None], **options: Any) -> Server:
        servers.append(Server(behave, **options))
        set_connection(host=f"http://127.0.0.1:{servers[-1].port}")
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


def zipped(body: bytes, *codings: str) -> bytes:
    """Apply codings in order."""
    for coding in codings:
        bits = {"gzip": 31, "deflate": 15, "raw deflate": -15}[coding]
        packer = zlib.compressobj(wbits=bits)
        body = packer.compress(body) + packer.flush()
    return body


JSON = json.dumps(TASK).encode()


def raw(answer: bytes) -> Callable[[socket.socket, bytes], None]:
    return lambda connection, _: connection.sendall(answer)


def token_answer(token: str, **headers: str) -> Callable[[socket.socket, bytes], None]:
    document = {"token": {"expires_at": "2099-01-01T00:00:00.000000Z", "project": {"id": PROJECT_ID}}}
    return http("201 Created", json.dumps(document).encode(), X_Subject_Token=token, **headers)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context with a self-signed certificate for 127.0.0.1, and the file of the certificate."""
    return server_context(tmp_path)
