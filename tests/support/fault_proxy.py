"""A TCP proxy on loopback that injects network faults: resets, cut answers, silence, wrong certificates."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from airflow_modelarts.testing.emulator.http.middleware import reset_connection

T = TypeVar("T")

#: Bytes.
CHUNK = 64 * 1024
FLOOD = 100 * 1024 * 1024
#: Seconds that a command to the proxy's thread may take.
TIMEOUT = 60.0


@dataclass
class FaultyConnection:
    """A connection that meets a fault, with the operations that faults are built from."""

    route: ProxyRoute
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def forward(self) -> bytes:
        """Forward one request to the service, and return the answer without sending it."""
        request = await _read_message(self.reader)
        reader, writer = await asyncio.open_connection(*self.route.target)
        try:
            writer.write(request)
            return await _read_message(reader)
        finally:
            writer.close()

    async def send(self, data: bytes) -> None:
        """Send bytes to the caller."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection so that the caller sees it reset."""
        reset_connection(self.writer.transport)


#: A fault handles a connection. The proxy closes the connection afterwards.
ConnectionFault = Callable[[FaultyConnection], Awaitable[None]]


async def pass_on(connection: FaultyConnection) -> None:
    """Forward everything. For routes whose certificate is the fault: callers that check it send nothing."""
    await _relay(connection.route, connection.reader, connection.writer)


async def reset_before(connection: FaultyConnection) -> None:
    """Reset the connection before anything is read."""
    connection.reset()


async def reset_after(connection: FaultyConnection) -> None:
    """Reset the connection after the service has acted, so that its answer is lost."""
    await connection.forward()
    connection.reset()


async def time_out_after(connection: FaultyConnection) -> None:
    """Answer 504 after the service has acted, as a gateway does whose own timeout is too short."""
    await connection.forward()
    await connection.send(_answer(b"<html>Gateway Timeout</html>", "504 Gateway Timeout", "Content-Type: text/html"))


async def black_hole(connection: FaultyConnection) -> None:
    """Read everything and answer nothing until the caller closes the connection."""
    while await connection.reader.read(CHUNK):
        pass


async def trickle(connection: FaultyConnection) -> None:
    """Answer one byte a second, head included, until the route is restored."""
    answer = await connection.forward()
    sent = 0
    while sent < len(answer) and not connection.route.restored.is_set():
        await connection.send(answer[sent : sent + 1])
        sent += 1
        await _within(1.0, connection.route.restored.wait())
    await connection.send(answer[sent:])


async def cut(connection: FaultyConnection) -> None:
    """End the connection in the middle of the answer's body."""
    head, _, body = (await connection.forward()).partition(b"\r\n\r\n")
    await connection.send(head + b"\r\n\r\n" + body[: len(body) // 2])


async def gzip_bomb(connection: FaultyConnection) -> None:
    """Answer with a hundred megabytes of spaces, compressed to a hundred kilobytes."""
    await connection.forward()
    await connection.send(_answer(_bomb(), "200 OK", "Content-Type: application/json", "Content-Encoding: gzip"))


async def flood(connection: FaultyConnection) -> None:
    """Answer with a hundred megabytes."""
    await connection.forward()
    await connection.send(_head(FLOOD, "200 OK", "Content-Type: application/json"))
    for _ in range(FLOOD // CHUNK):
        await connection.send(b" " * CHUNK)


@dataclass(eq=False)
class ProxyRoute:
    """A port of the proxy. A connection to it meets the fault, or is forwarded to the target.

    :param target: host and port of the service.
    :param fault: the fault; None for none.
    :param times: how many connections meet it; None for all, until it is restored.
    :param tls: the TLS context with the certificate that callers see; None for plain TCP.
    """

    target: tuple[str, int]
    fault: ConnectionFault | None
    times: int | None
    tls: ssl.SSLContext | None
    listener: socket.socket
    port: int
    #: None as long as the port refuses connections.
    server: asyncio.Server | None = None
    restored: asyncio.Event = field(default_factory=asyncio.Event)
    #: Connections that met the fault, and all of them.
    hits: int = 0
    connections: int = 0

    @property
    def url(self) -> str:
        """The URL that callers use."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def is_restored(self) -> bool:
        """Whether the next connection meets no fault."""
        if self.server is None:
            return False
        return self.restored.is_set() or self.fault is None or (self.times is not None and self.hits >= self.times)


class FaultProxy:
    """The proxy, a context manager: any number of routes, served by one thread with one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._routes: list[ProxyRoute] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(
        self,
        target: str,
        fault: ConnectionFault | None = None,
        *,
        times: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> ProxyRoute:
        """Open a route to a service.

        :param target: the service's URL.
        """
        route = self._reserve(target, fault, times, tls)
        self._do(self._listen(route))
        return route

    def refuse(self, target: str) -> ProxyRoute:
        """Reserve a port that refuses connections until the route is restored."""
        return self._reserve(target, None, None, None)

    def restore(self, route: ProxyRoute) -> None:
        """End the fault of a route; a route that refused connections accepts them from now on."""
        self._do(self._restore(route))

    def close(self) -> None:
        """End every connection and the thread; safe to call twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(TIMEOUT)
        for route in self._routes:
            route.listener.close()

    def _reserve(
        self, target: str, fault: ConnectionFault | None, times: int | None, tls: ssl.SSLContext | None
    ) -> ProxyRoute:
        """Bind a port. Until something listens on it, the system refuses connections."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        parts = urlsplit(target)
        route = ProxyRoute(
            (str(parts.hostname), int(parts.port or 80)), fault, times, tls, listener, listener.getsockname()[1]
        )
        self._routes.append(route)
        return route

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(TIMEOUT)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._end())
            self._loop.close()

    async def _end(self) -> None:
        for route in self._routes:
            if route.server is not None:
                route.server.close()
        ours = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)

    async def _listen(self, route: ProxyRoute) -> None:
        serve = functools.partial(self._serve, route)
        route.server = await asyncio.start_server(serve, sock=route.listener)

    async def _restore(self, route: ProxyRoute) -> None:
        route.restored.set()
        if route.server is None:
            await self._listen(route)

    async def _serve(self, route: ProxyRoute, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        route.connections += 1
        fault = None if route.is_restored else route.fault
        if fault is not None:
            route.hits += 1
        try:
            if route.tls is not None:
                await writer.start_tls(route.tls)
            if fault is None:
                await _relay(route, reader, writer)
            else:
                await fault(FaultyConnection(route, reader, writer))
        except (OSError, EOFError):
            pass  # one side closed the connection or rejected the certificate
        except asyncio.CancelledError:
            writer.transport.abort()  # the proxy closes: end the connection for its caller too
        finally:
            writer.close()


async def _relay(route: ProxyRoute, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    onward_reader, onward_writer = await asyncio.open_connection(*route.target)
    try:
        there = asyncio.ensure_future(_pump(reader, onward_writer))
        back = asyncio.ensure_future(_pump(onward_reader, writer))
        _, pending = await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
    finally:
        onward_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    """Read an HTTP request or answer that has a Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + await reader.readexactly(int(lengths[0]) if lengths else 0)


async def _within(seconds: float, what: Awaitable[object]) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(what, seconds)


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(b" " * FLOOD)


def _head(length: int, status: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def _answer(body: bytes, status: str, *headers: str) -> bytes:
    return _head(len(body), status, *headers) + body
