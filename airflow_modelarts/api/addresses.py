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


def local_or_https_url(label: str, value: str) -> str:
    """Return a URL to which a token may be sent: https, or plain http to a loopback or link-local address.

    :raises ModelArtsConfigurationError: it is not such a URL; the message shows no password.
    """
    way_out = "it must be an https URL without user, or one with http and a loopback or link-local address"
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
        is_local = is_loopback(host) or is_link_local(host)
        if parts.scheme not in ("https", "http") or not host or parts.username is not None or parts.fragment:
            raise ValueError("no URL of a service")
        if re.search(r"[^\x21-\x7e]|\\", value) or (parts.scheme == "http" and not is_local):
            raise ValueError("an address that others reach")
    except ValueError:
        raise ModelArtsConfigurationError(f"{label} is {without_user(value)!r}: {way_out}") from None
    return value


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


def is_link_local(host: str) -> bool:
    """Return whether a host is a link-local address, which no router forwards."""
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False
