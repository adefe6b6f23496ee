"""A TCP proxy on loopback that spoils what passes: faults of the way to a service rather than of the service."""

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
#: Seconds for anything that is asked of the proxy's thread.
PATIENCE = 10.0


@dataclass
class Passage:
    """One connection that meets a fault, and what can be done with it."""

    way: Way
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def forward(self) -> bytes:
        """Hand one request on, so that the service acts, and return its answer without sending it."""
        request = await _read_message(self.reader)
        reader, writer = await asyncio.open_connection(*self.way.target)
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


#: What happens to a connection; it is closed in the end.
Spoil = Callable[[Passage], Awaitable[None]]


async def pass_on(passage: Passage) -> None:
    """Pass everything on: where the certificate is the fault, nobody comes so far who looks at it."""
    await _relay(passage.way, passage.reader, passage.writer)


async def reset_before(passage: Passage) -> None:
    """Reset the connection before anything is read."""
    passage.reset()


async def reset_after(passage: Passage) -> None:
    """Reset the connection after the service has acted: its answer is lost."""
    await passage.forward()
    passage.reset()


async def time_out_after(passage: Passage) -> None:
    """Answer 504 as a gateway that gave up on a service which has acted all the same."""
    await passage.forward()
    await passage.send(_answer(b"<html>Gateway Timeout</html>", "504 Gateway Timeout", "Content-Type: text/html"))


async def black_hole(passage: Passage) -> None:
    """Take everything and answer nothing, until the caller gives up."""
    while await passage.reader.read(CHUNK):
        pass


async def trickle(passage: Passage) -> None:
    """Answer one byte a second, head included, until the way is mended."""
    answer = await passage.forward()
    sent = 0
    while sent < len(answer) and not passage.way.mended.is_set():
        await passage.send(answer[sent : sent + 1])
        sent += 1
        await _within(1.0, passage.way.mended.wait())
    await passage.send(answer[sent:])


async def cut(passage: Passage) -> None:
    """End the connection in the middle of the answer's body."""
    head, _, body = (await passage.forward()).partition(b"\r\n\r\n")
    await passage.send(head + b"\r\n\r\n" + body[: len(body) // 2])


async def gzip_bomb(passage: Passage) -> None:
    """Answer with a hundred megabytes of nothing in a hundred kilobytes of gzip."""
    await passage.forward()
    await passage.send(_answer(_bomb(), "200 OK", "Content-Type: application/json", "Content-Encoding: gzip"))


async def flood(passage: Passage) -> None:
    """Answer with a hundred megabytes."""
    await passage.forward()
    await passage.send(_head(FLOOD, "200 OK", "Content-Type: application/json"))
    for _ in range(FLOOD // CHUNK):
        await passage.send(b" " * CHUNK)


@dataclass(eq=False)
class Way:
    """
    One port of the proxy; what comes there meets the fault, or goes on to the target.

    :param target: host and port of the service.
    :param spoil: the fault; None for none.
    :param times: how many connections meet it; None for all, until it is mended.
    :param tls: with which certificate the proxy speaks TLS to callers; None for plain TCP.
    """

    target: tuple[str, int]
    spoil: Spoil | None
    times: int | None
    tls: ssl.SSLContext | None
    listener: socket.socket
    port: int
    #: None as long as the port refuses connections.
    server: asyncio.Server | None = None
    mended: asyncio.Event = field(default_factory=asyncio.Event)
    #: Connections that met the fault, and all of them.
    hits: int = 0
    connections: int = 0

    @property
    def url(self) -> str:
        """Scheme, host and port for callers."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def is_mended(self) -> bool:
        """Whether whoever comes now meets no fault."""
        if self.server is None:
            return False
        return self.mended.is_set() or self.spoil is None or (self.times is not None and self.hits >= self.times)


class FaultProxy:
    """The proxy: any number of ways on one thread with one event loop; a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._ways: list[Way] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(
        self, target: str, spoil: Spoil | None = None, *, times: int | None = None, tls: ssl.SSLContext | None = None
    ) -> Way:
        """
        Open a way to a service.

        :param target: the service's URL.
        """
        way = self._reserve(target, spoil, times, tls)
        self._do(self._listen(way))
        return way

    def refuse(self, target: str) -> Way:
        """Reserve a port that refuses connections until the way is mended."""
        return self._reserve(target, None, None, None)

    def mend(self, way: Way) -> None:
        """End the fault of a way, and open it if it was closed."""
        self._do(self._mend(way))

    def close(self) -> None:
        """End every connection and the thread; safe to call twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
        for way in self._ways:
            way.listener.close()

    def _reserve(self, target: str, spoil: Spoil | None, times: int | None, tls: ssl.SSLContext | None) -> Way:
        """Bind a port; as long as nobody listens on it, the system refuses connections to it."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        parts = urlsplit(target)
        way = Way((str(parts.hostname), int(parts.port or 80)), spoil, times, tls, listener, listener.getsockname()[1])
        self._ways.append(way)
        return way

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._end())
            self._loop.close()

    async def _end(self) -> None:
        for way in self._ways:
            if way.server is not None:
                way.server.close()
        ours = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)

    async def _listen(self, way: Way) -> None:
        serve = functools.partial(self._serve, way)
        way.server = await asyncio.start_server(serve, sock=way.listener)

    async def _mend(self, way: Way) -> None:
        way.mended.set()
        if way.server is None:
            await self._listen(way)

    async def _serve(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way.connections += 1
        spoil = None if way.is_mended else way.spoil
        if spoil is not None:
            way.hits += 1
        try:
            if way.tls is not None:
                await writer.start_tls(way.tls)
            if spoil is None:
                await _relay(way, reader, writer)
            else:
                await spoil(Passage(way, reader, writer))
        except (OSError, EOFError):
            pass  # one of the two sides has gone, or does not trust the certificate
        except asyncio.CancelledError:
            writer.transport.abort()  # the proxy closes, and whoever waits must not be left hanging
        finally:
            writer.close()


async def _relay(way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    onward_reader, onward_writer = await asyncio.open_connection(*way.target)
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
    """Read an HTTP request or answer whose length its head tells."""
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
