"""What a call asks of the outside world and what it is told: the only vocabulary shared by the core and its drivers."""

from __future__ import annotations

import copyreg
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from airflow_modelarts.api.client import ClientConfig

#: No answer of this family should come near it; a result of some 20 MB is the largest that has been seen.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
#: Of one header of an answer: an IAM token comes in one, and other services of the same clouds admit 102,400 bytes.
MAX_HEADER_BYTES = 128 * 1024
#: Of all headers of an answer together, names and values.
MAX_HEAD_BYTES = 256 * 1024
MAX_HEADERS = 100


@dataclass(frozen=True, slots=True)
class Request:
    """
    One HTTP request, complete and signed. Drivers send it as it is, and do not follow redirects.

    :param method: the HTTP method, upper case.
    :param url: absolute, percent-encoded, query included.
    :param headers: they can carry credentials, so they are absent from the ``repr``.
    :param body: what is sent; the signature covers exactly these bytes.
    :param timeout: seconds for connecting and for each read, where the connection's own settings do not fit.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """
    One HTTP answer, read to its end and decompressed.

    :param status: the HTTP status.
    :param headers: names in lower case. They can carry a token, so they are absent from the ``repr``.
    :param body: at most ``MAX_ANSWER_BYTES``.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Sleep:
    """A wish to be left alone for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ReadConnection:
    """
    A wish for the :class:`ClientConfig` to call with.

    :param refused: the one whose credentials the service refused. The driver then reads the Airflow connection again,
        since a key may have been rotated, and answers with what it finds, changed or not. If it cannot be read this
        time, a :class:`ConnectionReadError` comes out of the ``yield``.
    """

    refused: ClientConfig | None = None


class TransportError(Exception):
    """
    No usable answer came.

    :param reason: what happened, in words that hold no secret.
    :param kind: ``connect`` (the connection was not made), ``name`` (the host name does not exist), ``proxy``
        (that of the proxy does not), ``tls`` (one side
        speaks TLS and the other plain http), ``certificate`` (TLS could not be verified), ``broken`` (the connection
        ended early), ``timeout``, ``too_large``.
    :param sent: False only when the request certainly did not reach the service.
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
        """Copy and pickle without another call of ``__init__``, which wants more than the message."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]  # typeshed lacks it


class ConnectionReadError(Exception):
    """
    The Airflow connection could not be read again.

    :param error: what the reading ended with.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


T = TypeVar("T")
Step: TypeAlias = Request | Sleep | ReadConnection
#: A call in progress: yields steps, is sent their answers (or has a TransportError thrown in), returns its value.
Flow: TypeAlias = Generator[Step, Any, T]


def send(request: Request) -> Flow[Response]:
    """Send one request and return its answer; a :class:`TransportError` comes out of the ``yield``."""
    response: Response = yield request
    return response
