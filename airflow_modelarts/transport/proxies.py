"""The proxy that the environment sets for a URL."""

from __future__ import annotations

from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from airflow_modelarts.api.errors import ModelArtsConfigurationError


def find_proxy(url: str) -> str | None:
    """
    Return the URL of the proxy that the environment sets for this one; None for a direct connection.

    :raises ModelArtsConfigurationError: it is not a proxy that both libraries can use.
    """
    if url.startswith("http:"):
        return None  # plain http is for loopback and link-local addresses, which a proxy would reach on its own machine
    found = select_proxy(url, get_environ_proxies(url))
    if not found:
        return None
    proxy = found if "://" in found else f"http://{found}"
    try:
        parts = parse_url(proxy)
    except LocationParseError:
        parts = None
    if parts is None or not parts.host or parts.scheme not in ("http", "https"):
        raise ModelArtsConfigurationError(  # without the value, which can contain a password
            "HTTPS_PROXY or ALL_PROXY in the environment cannot be used: it must be the URL of an http or https proxy "
            "(SOCKS is not supported), or NO_PROXY must exempt the host"
        )
    return proxy
