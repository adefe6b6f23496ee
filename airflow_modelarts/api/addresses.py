"""The base URLs of services, checked before anything is sent to them."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from airflow_modelarts.api.errors import ModelArtsConfigurationError


def base_url(label: str, value: str) -> str:
    """Return a host or a URL as a base URL: https, or plain http to a loopback address, with host and port only.

    :param label: names the value in errors, for example ``host of connection 'x'``.
    :raises ModelArtsConfigurationError: it is not such a URL; the message shows no password.
    """
    value = value.strip()

    def error(way_out: str) -> ModelArtsConfigurationError:
        return ModelArtsConfigurationError(f"{label} is {without_user(value)!r}: {way_out}")

    try:
        parts = urlsplit(with_scheme(value))
        host, port = parts.hostname, parts.port
        if not host or port == 0 or re.search(r"[\s\\\x00-\x1f\x7f]", value):
            raise error("it must be a host or a URL")
        host.encode("idna")  # name resolution does the same, and not every client says what fails
    except ValueError:  # an invalid port, IP address or label
        raise error("it must be a host or a URL") from None
    if parts.scheme not in ("https", "http"):
        raise error("it must be a host or an https URL")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise error("it must be a host or a URL without path, query and user")
    if parts.scheme == "http" and not is_loopback(host):
        raise error("plain http is allowed to a loopback address only; use https")
    return f"{parts.scheme}://{parts.netloc}"


def with_scheme(value: str, scheme: str = "https") -> str:
    """Return a host or a URL as a URL."""
    return value if "://" in value else f"{scheme}://{value}"


def without_user(value: str) -> str:
    """Return a host or a URL without the user and the password that it can hold."""
    return re.sub(r"(?s)(^|//).*@", r"\1", value)


def is_loopback(host: str) -> bool:
    """Return whether a host is ``localhost`` or a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
