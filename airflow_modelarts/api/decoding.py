"""Undoes the Content-Encoding of an answer, piece by piece, since the HTTP libraries differ in what they undo."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from airflow_modelarts.api.http import TransportError

#: What a request says it can read. The libraries say more where other packages are installed.
ACCEPT_ENCODING = "gzip, deflate"
#: Bytes, at most, that come out at once: some kilobytes can become gigabytes.
PIECE_BYTES = 256 * 1024
#: Codings in a row, at most.
MOST_CODINGS = 5


class Decoder:
    """
    Takes an answer's body as it arrives, and gives it as it was meant.

    A coding that this does not know is left as it is; what then is no JSON is an answer that cannot be read.

    :param content_encoding: the header, such as ``gzip`` or ``deflate, gzip``; codings in the order they were applied.
    :raises TransportError: there are too many codings.
    """

    def __init__(self, content_encoding: str) -> None:
        codings = [
            name for part in content_encoding.split(",") if (name := part.strip().lower()) not in ("", "identity")
        ]
        if len(codings) > MOST_CODINGS:
            raise _broken()
        is_known = all(coding in _WINDOW_BITS for coding in codings)
        self._stages = [_Inflater(coding) for coding in reversed(codings)] if is_known else []

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        Take the next bytes, and yield what they stand for, at most ``PIECE_BYTES`` at once.

        :raises TransportError: the bytes are not what the header says.
        """
        pieces = iter([data])
        for stage in self._stages:
            pieces = stage.inflate(pieces)
        yield from pieces

    def finish(self) -> None:
        """
        Take note that the body has ended.

        :raises TransportError: it has ended too early.
        """
        for stage in self._stages:
            stage.finish()


#: By coding, as zlib tells the formats apart.
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class _Inflater:
    """One coding."""

    def __init__(self, coding: str) -> None:
        self._window_bits = _WINDOW_BITS[coding]
        self._inflate = zlib.decompressobj(self._window_bits)
        # Some servers send "deflate" without zlib's header; kept until it is known that there is one.
        self._begun: bytes | None = b"" if coding == "deflate" else None
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
                self._inflate = zlib.decompressobj(self._window_bits)  # a gzip file can be several ones
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
            if self._begun is None:
                raise
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            data, self._begun = self._begun + data, None
            return self._inflate.decompress(data, PIECE_BYTES)
        if self._begun is not None:
            self._begun = None if piece else self._begun + data
        return piece


def _broken() -> TransportError:
    return TransportError("its compression cannot be undone", kind="broken", sent=True)
