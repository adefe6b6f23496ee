"""Decodes the body of an answer piece by piece, since the HTTP libraries decode different encodings."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from airflow_modelarts.api.http import MAX_ANSWER_BYTES, TransportError

#: The encodings that a request accepts. The libraries would add others if certain packages are installed.
ACCEPT_ENCODING = "gzip, deflate"
#: Bytes to decompress at once, at most: some kilobytes can become gigabytes.
PIECE_BYTES = 256 * 1024
#: Encodings of one answer, at most.
MAX_CODINGS = 5


class Body:
    """The body of an answer, which is decoded while it arrives.

    A body with an unknown encoding is left as it is, so it is reported as an answer that is not JSON.

    :param content_encoding: the header, such as ``gzip`` or ``deflate, gzip``, in the order of encoding.
    :raises TransportError: there are too many encodings.
    """

    def __init__(self, content_encoding: str) -> None:
        self._bytes = bytearray()
        names = (part.strip().lower() for part in content_encoding.split(","))
        codings = [name for name in names if name not in ("", "identity")]
        if len(codings) > MAX_CODINGS:
            raise _broken()
        is_known = all(coding in _WINDOW_BITS for coding in codings)
        self._stages = [_Inflater(coding) for coding in reversed(codings)] if is_known else []

    def feed(self, data: bytes) -> None:
        """Decode and add the next bytes; raise TransportError for a wrong encoding and for too large a body."""
        pieces = iter([data])
        for stage in self._stages:
            pieces = stage.inflate(pieces)
        for piece in pieces:
            self._bytes += piece
            if len(self._bytes) > MAX_ANSWER_BYTES:
                raise TransportError(f"more than {MAX_ANSWER_BYTES} bytes", kind="too_large", sent=True)

    def finish(self) -> bytes:
        """Return the whole body; raise TransportError if it ended too early."""
        for stage in self._stages:
            stage.finish()
        return bytes(self._bytes)


#: zlib's window bits, which select the format.
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class _Inflater:
    """Decodes one encoding."""

    def __init__(self, coding: str) -> None:
        self._window_bits = _WINDOW_BITS[coding]
        self._inflate = zlib.decompressobj(self._window_bits)
        # Some servers send "deflate" without zlib's header. These bytes are kept until the header is found.
        self._begin: bytes | None = b"" if coding == "deflate" else None
        self._fed = False

    def inflate(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            try:
                yield from self._inflate_one(piece)
            except zlib.error:
                raise _broken() from None

    def finish(self) -> None:
        if self._fed and not self._inflate.eof:
            raise _broken()

    def _inflate_one(self, data: bytes) -> Iterator[bytes]:
        self._fed = self._fed or bool(data)
        while True:
            if self._inflate.eof:
                if not data.startswith(b"\x1f\x8b"):
                    return  # padding
                self._inflate = zlib.decompressobj(self._window_bits)  # a gzip file can have several members
            piece = self._try(data)
            if piece:
                yield piece
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if not data and len(piece) < PIECE_BYTES:
                return

    def _try(self, data: bytes) -> bytes:
        try:
            piece = self._inflate.decompress(data, PIECE_BYTES)
        except zlib.error:
            if self._begin is None:
                raise
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            data, self._begin = self._begin + data, None
            return self._inflate.decompress(data, PIECE_BYTES)
        if self._begin is not None:
            self._begin = None if piece else self._begin + data
        return piece


def _broken() -> TransportError:
    return TransportError("its compression is not valid", kind="broken", sent=True)
