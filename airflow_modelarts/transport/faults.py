"""What the exceptions of the HTTP libraries mean: the same for both drivers."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from http.client import BadStatusLine
from typing import Any, TypeAlias

from requests import RequestException

from airflow_modelarts.api.http import TransportError

ErrorTypes: TypeAlias = tuple[type[BaseException], ...]

#: OpenSSL's reasons for an answer that is not TLS.
PLAIN_HTTP_REASONS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
#: The beginning of a TLS alert, as it is and as aiohttp escapes it.
TLS_ALERTS = ("\x15\x03", r"b'\x15\x03")


def to_transport_error(
    error: Exception, *, invalid_url: ErrorTypes, not_connected: ErrorTypes, timeout: ErrorTypes
) -> TransportError:
    """Return the TransportError of an exception: its kind, and whether the request can have reached the service.

    :param invalid_url: the library's exceptions for a URL of the service or the proxy that is not valid.
    :param not_connected: those for a connection that was not made, so that the request was not sent.
    :param timeout: those for an answer that did not come in time.
    """
    reason = describe(error)
    # Looking up a name with an empty label raises UnicodeError, also for a proxy.
    if isinstance(error, (*invalid_url, UnicodeError)):
        return TransportError("the host name is not valid", kind="name", sent=False)
    if _is_certificate_error(error):
        return TransportError(reason, kind="certificate", sent=False)
    if _is_scheme_error(error):
        return TransportError(reason, kind="tls", sent=False)
    if find_error(error, *not_connected):
        return TransportError(reason, kind="name" if _is_unknown_name(error) else "connect", sent=False)
    if find_error(error, *timeout):
        return TransportError(reason, kind="timeout", sent=True)
    return TransportError(reason, kind="broken", sent=True)


def refused_by_proxy(status: int) -> TransportError:
    """Return the error of a proxy that did not connect to the service."""
    return TransportError(f"the proxy answered HTTP {status}", kind="connect", sent=False)


def for_host(fault: TransportError, url: str, proxy: str | None, answered: set[str]) -> TransportError:
    """Return the fault with what is known about the proxy; the names of hosts that have ``answered`` are right."""
    if fault.kind in ("name", "tls") and host_of(url) in answered:
        return TransportError(fault.reason, kind="connect", sent=fault.sent)
    if fault.kind == "name" and proxy:  # the proxy looks up the name of the service, so this is the proxy's name
        return TransportError(fault.reason, kind="proxy", sent=False)
    if fault.kind == "tls" and (proxy or "").startswith("https:"):
        reason = f"{fault.reason}; or the proxy in the environment does not, so that its URL must begin with http://"
        return TransportError(reason, kind="tls", sent=fault.sent)
    return fault


def host_of(url: str) -> str:
    """Return the host and the port of a URL."""
    return url.split("/", 3)[2]


def find_error(error: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    """Return the first exception of these kinds among an exception and those that it wraps."""
    return next((inner for inner in wrapped_errors(error) if isinstance(inner, kinds)), None)


def wrapped_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it wraps."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        inner = waiting.pop(0)
        if not isinstance(inner, BaseException) or id(inner) in seen:
            continue
        seen.add(id(inner))
        yield inner
        # requests and urllib3 wrap in the arguments and in ``reason``, aiohttp in ``os_error``. ``__context__`` is left
        # out: it can be an exception that the caller was handling.
        attributes = (getattr(inner, name, None) for name in ("reason", "os_error", "__cause__"))
        waiting += [*inner.args, *attributes]


def describe(error: BaseException) -> str:
    """Return what happened in the operating system's words, since the texts of the libraries quote URLs."""
    for inner in wrapped_errors(error):
        if message := getattr(inner, "verify_message", None):  # of a certificate
            return str(message)
        if isinstance(inner, OSError) and inner.strerror and not isinstance(inner, RequestException):
            return str(inner.strerror)
    kinds = {type(inner).__name__ for inner in wrapped_errors(error)}
    return "timed out" if any("Timeout" in kind for kind in kinds) else f"connection broken: {type(error).__name__}"


def _is_certificate_error(error: Exception) -> bool:
    """Whether a certificate is not trusted, or the file of certificate authorities is not valid."""
    found = find_error(error, ssl.SSLError)
    return isinstance(found, ssl.SSLCertVerificationError) or getattr(found, "library", None) == "X509"


def _is_scheme_error(error: Exception) -> bool:
    """Whether one side speaks TLS and the other plain http."""
    # aiohttp's own kind of SSLError has no reason; the one that it wraps does.
    tls_errors = (inner for inner in wrapped_errors(error) if isinstance(inner, ssl.SSLError))
    if any(getattr(inner, "reason", None) in PLAIN_HTTP_REASONS for inner in tls_errors):
        return True
    # Both libraries quote the beginning of an answer that is not HTTP.
    return any(
        any(alert in str(inner) for alert in TLS_ALERTS)
        for inner in wrapped_errors(error)
        if isinstance(inner, BadStatusLine) or "Bad status line" in str(inner)
    )


def _is_unknown_name(error: Exception) -> bool:
    """Whether a host name does not exist; a resolver that fails does not count."""
    found = find_error(error, socket.gaierror)
    # EAI_NODATA: the name exists, but has no address. Not every platform has this code.
    return found is not None and found.args[:1] in ((socket.EAI_NONAME,), (getattr(socket, "EAI_NODATA", None),))
