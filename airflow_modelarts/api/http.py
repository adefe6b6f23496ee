"""The steps that a flow can yield (Request, Sleep, ReadConnection, ReadFile), and their results and errors."""

from __future__ import annotations

import copyreg
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeAlias, TypeVar

#: Bytes of an answer's decompressed body; the largest known result of a task has some 20 MB.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
#: Bytes of one header's value: an IAM token is one, and other services of the same clouds accept 102,400 bytes.
MAX_HEADER_BYTES = 128 * 1024
#: Bytes of all headers of an answer, names and values.
MAX_HEAD_BYTES = 256 * 1024
#: Headers of an answer.
MAX_HEADERS = 100


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, complete and signed. Drivers send it unchanged, and do not follow redirects.

    :param method: the HTTP method, upper case.
    :param url: absolute, percent-encoded, query included.
    :param headers: absent from the ``repr``, since they can contain credentials.
    :param body: the bytes to send; the signature covers them.
    :param timeout: seconds for connecting and for each read; None for the connection's own settings.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """One complete HTTP answer, decompressed.

    :param status: the HTTP status.
    :param headers: names in lower case. Absent from the ``repr``, since they can contain a token.
    :param body: at most ``MAX_ANSWER_BYTES``.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def served_at(self) -> float | None:
        """The service's time in seconds since the epoch; None without a valid ``Date`` header."""
        return read_http_date(self.headers.get("date", ""))


def read_http_date(text: str) -> float | None:
    """Return the seconds since the epoch of an HTTP date; None if it is not one."""
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp()


@dataclass(frozen=True, slots=True)
class Sleep:
    """Ask the driver to sleep."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ReadConnection:
    """Ask the driver for the :class:`~airflow_modelarts.api.client.ClientConfig`.

    :param refused: the ClientConfig whose credentials the service refused; the driver compares it with its own. If
        they are equal, the driver reads the Airflow connection again first, since a key may have been rotated. If it
        cannot, the ``yield`` raises :class:`ConnectionReadError`.
    """

    refused: object = None


@dataclass(frozen=True, slots=True)
class ReadFile:
    """Ask the driver for the text of a file. If it cannot, the ``yield`` raises :class:`FileReadError`.

    :param path: it comes from the environment of the process, or from a file there; never from a connection.
    """

    path: str


class TransportError(Exception):
    """No usable answer came.

    :param reason: what happened, without secrets.
    :param kind: ``connect`` (no connection was made), ``name`` (the host name does not exist), ``proxy`` (the proxy's
        host name does not exist), ``tls`` (one side speaks TLS, the other plain http), ``certificate`` (it could not
        be verified), ``broken`` (the connection ended early), ``timeout``, ``too_large``.
    :param sent: False only if the request certainly did not reach the service.
    """

    def __init__(
        self,
        reason: str,
        *,
        kind: Literal["connect", "name", "proxy", "tls", "certificate", "broken", "timeout", "too_large"],
        sent: bool,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.sent = sent

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle without calling ``__init__``, which requires more than the message."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]  # typeshed lacks it


class ConnectionReadError(Exception):
    """The Airflow connection could not be read again; ``error`` is what reading it raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class FileReadError(Exception):
    """A file could not be read; the message says why, without its content.

    :param was_opened: whether the fault is in the content.
    """

    def __init__(self, reason: str, *, was_opened: bool = False) -> None:
        super().__init__(reason)
        self.was_opened = was_opened


T = TypeVar("T")
Step: TypeAlias = Request | Sleep | ReadConnection | ReadFile
#: A call in progress. It yields steps, receives their results or a TransportError, and returns its value.
Flow: TypeAlias = Generator[Step, Any, T]


def send(request: Request) -> Flow[Response]:
    """Send one request and return its answer; raise TransportError if no usable answer came."""
    response: Response = yield request
    return response
