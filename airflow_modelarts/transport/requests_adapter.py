"""The adapter of the requests driver: urllib3 and http.client with larger heads and with a deadline for each head."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from errno import ETIMEDOUT
from http.client import HTTPResponse as StandardResponse
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

from airflow_modelarts.api.http import MAX_HEAD_BYTES, MAX_HEADERS
from airflow_modelarts.transport import exchange

#: Bytes; http.client's own limit.
MAX_STATUS_LINE_BYTES = 64 * 1024


class Adapter(HTTPAdapter):
    """Opens the connections of this module instead of urllib3's own, directly and through a proxy."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pool manager, with the pools of this module."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        """Create a proxy's pool manager, with the pools of this module."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _HeadReader:
    """Reads the heads of one answer for http.client, whose limit of 64 KiB a line is less than a token can have.

    It finds the end of the head itself, and returns the headers in short pieces, which http.client joins again.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._pieces: list[bytes] | None = None

    def readline(self, limit: int) -> bytes:
        """Return the status line, then the headers in pieces, then the empty line; then the next head likewise."""
        if self._pieces is None:
            self._pieces = []
            status_line: bytes = self._file.readline(limit)
            if len(status_line) > MAX_STATUS_LINE_BYTES and status_line.startswith(b"HTTP/"):
                raise exchange.head_too_large()
            return status_line
        if not self._pieces:
            self._pieces = self._read_headers(limit)
        piece = self._pieces.pop(0)
        if not self._pieces:
            self._pieces = None
        return piece

    def close(self) -> None:
        self._file.close()

    def _read_headers(self, limit: int) -> list[bytes]:
        lines: list[bytes] = []
        size = 0
        while (line := self._file.readline(exchange.MAX_LINE_BYTES + 1)) not in (b"\r\n", b"\n", b""):
            lines.append(line)
            size += len(line)
            # Larger than the limits themselves, which do not count colons and line ends.
            if len(line) > exchange.MAX_LINE_BYTES or len(lines) > 2 * MAX_HEADERS or size > 2 * MAX_HEAD_BYTES:
                raise exchange.head_too_large()
        block = b"".join(lines)
        # In equal parts, so that none is an empty line.
        length = -(-len(block) // -(-len(block) // (limit - 1))) if block else 1
        return [*(block[start : start + length] for start in range(0, len(block), length)), line]


class _Response(StandardResponse):
    """A response with a head of any length; interim responses such as ``103 Early Hints`` are skipped."""

    fp: Any

    def begin(self) -> None:
        file, head = self.fp, _HeadReader(self.fp)
        self.fp = head
        try:
            super().begin()
        finally:
            if self.fp is head:
                self.fp = file

    def _read_status(self) -> tuple[Any, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # private; there is no public hook
            if not 100 < status < 200 or status == 101:
                return version, status, reason
            while self.fp.readline(MAX_STATUS_LINE_BYTES) not in (b"\r\n", b"\n", b""):  # its headers
                pass


class _HeadDeadline:
    """A connection that closes when the head of an answer takes too long; each byte resets the read timeout."""

    response_class = _Response
    sock: Any
    _timed_out = False

    def getresponse(self) -> HTTPResponse:
        timer = threading.Timer(exchange.TOTAL_TIMEOUT, self._shut_down)
        timer.daemon = True
        timer.start()
        try:
            response: HTTPResponse = super().getresponse()  # type: ignore[misc]  # of the class that this is mixed into
        except Exception as error:
            if self._timed_out:  # the library takes the truncated status line for a broken connection
                raise TimeoutError(ETIMEDOUT, "timed out") from error
            raise
        finally:
            timer.cancel()
        if self._timed_out:  # the library takes the truncated head for a complete one
            response.close()
            raise TimeoutError(ETIMEDOUT, "timed out")
        return response

    def _shut_down(self) -> None:
        self._timed_out = True
        with suppress(OSError, AttributeError, TypeError):  # the socket may be closed already
            # Not the TLS socket's own method, which would continue in plain text.
            socket.socket.shutdown(getattr(self.sock, "socket", self.sock), socket.SHUT_RDWR)


class _HTTPConnection(_HeadDeadline, HTTPConnection):  # type: ignore[misc]  # two response classes
    pass


class _HTTPSConnection(_HeadDeadline, HTTPSConnection):  # type: ignore[misc]  # two response classes
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}
