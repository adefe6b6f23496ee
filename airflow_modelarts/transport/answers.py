"""The headers and the body of an answer within their limits: the same for both drivers."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_modelarts import __version__
from airflow_modelarts.api.decoding import ACCEPT_ENCODING, Decoder
from airflow_modelarts.api.http import MAX_ANSWER_BYTES, MAX_HEAD_BYTES, MAX_HEADER_BYTES, MAX_HEADERS, TransportError

#: Bytes of one line of an answer's head up to which the libraries read; ``read_headers`` then checks the limits.
MAX_LINE_BYTES = 2 * MAX_HEADER_BYTES
#: Seconds for an answer, since every byte resets the read timeout. On a worker the head and the body have this time
#: each; in a triggerer it includes the request. A longer read timeout has no effect.
TOTAL_TIMEOUT = 300.0
#: The headers that every request has.
REQUEST_HEADERS = {"User-Agent": f"airflow-modelarts/{__version__}", "Accept-Encoding": ACCEPT_ENCODING}


def read_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """
    Return the headers of an answer, names in lower case. A repeated header has all its values.

    :raises TransportError: they are too large or too many.
    """
    found = [(name.lower(), value.strip()) for name, value in pairs]
    size = sum(len(name) + len(value) for name, value in found)
    if len(found) > MAX_HEADERS or size > MAX_HEAD_BYTES or any(len(value) > MAX_HEADER_BYTES for _, value in found):
        raise head_too_large()
    headers: dict[str, str] = {}
    for name, value in found:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def head_too_large() -> TransportError:
    """Return the error of an answer with too large or too many headers."""
    return TransportError(
        f"headers of more than {MAX_HEADER_BYTES} bytes each, {MAX_HEAD_BYTES} in all, or more than {MAX_HEADERS}",
        kind="too_large",
        sent=True,
    )


class Body:
    """
    Collects and decompresses the body of an answer.

    :param content_encoding: the header of this name.
    """

    def __init__(self, content_encoding: str) -> None:
        self._decoder = Decoder(content_encoding)
        self._bytes = bytearray()

    def feed(self, chunk: bytes) -> None:
        """
        Add the next bytes.

        :raises TransportError: they cannot be decompressed, or the body is too large.
        """
        for piece in self._decoder.feed(chunk):
            self._bytes += piece
            if len(self._bytes) > MAX_ANSWER_BYTES:
                raise TransportError(f"more than {MAX_ANSWER_BYTES} bytes", kind="too_large", sent=True)

    def finish(self) -> bytes:
        """
        Return the whole body.

        :raises TransportError: it is incomplete.
        """
        self._decoder.finish()
        return bytes(self._bytes)
