"""What both drivers share: settings, the next step of a flow, a request's headers and proxy, limits of an answer."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from airflow_modelarts import __version__
from airflow_modelarts.api.client import ClientConfig
from airflow_modelarts.api.decoding import ACCEPT_ENCODING
from airflow_modelarts.api.errors import ModelArtsConfigurationError, ModelArtsError
from airflow_modelarts.api.http import (
    MAX_HEAD_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    ConnectionReadError,
    FileReadError,
    Flow,
    ReadConnection,
    Request,
    Step,
    TransportError,
)
from airflow_modelarts.api.operations import ListOperation, Page
from airflow_modelarts.api.project_lookup import ProjectLookup

log = logging.getLogger(__name__)

#: Bytes of one line of an answer's head up to which the libraries read; ``read_headers`` then checks the limits.
MAX_LINE_BYTES = 2 * MAX_HEADER_BYTES
#: Seconds for an answer, since every byte resets the read timeout. On a worker the head and the body have this time
#: each; in a triggerer it includes the request. A longer read timeout has no effect.
TOTAL_TIMEOUT = 300.0
#: The headers that every request has.
REQUEST_HEADERS = {"User-Agent": f"airflow-modelarts/{__version__}", "Accept-Encoding": ACCEPT_ENCODING}
#: Unreadable items of a page that the log names.
LOGGED_ITEMS = 3


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of an Airflow connection.

    :param client: the settings of calls.
    :param verify: False, True, or a file or folder of certificate authorities to trust.
    :param connect_timeout: seconds.
    :param read_timeout: seconds without a byte.
    :param console_url: URL of the web console; None if the connection has none.
    :param region: the region of the hook or the connection's extras; None if neither has one. The endpoint may be in
        another region.
    :param project_lookup: finds the client's project, whose id the connection does not give; None if it does.
    """

    client: ClientConfig
    verify: bool | str
    connect_timeout: float
    read_timeout: float
    console_url: str | None
    region: str | None = None
    project_lookup: ProjectLookup | None = None

    def with_project(self, project_id: str) -> Settings:
        """Return the settings with the id of the client's project."""
        return replace(self, client=replace(self.client, project_id=project_id), project_lookup=None)


def resume(flow: Flow[Any], outcome: Any) -> Step:
    """Resume a flow with the outcome of its last step, and return its next step.

    :param outcome: the result of the step, or the exception to raise in the flow; None at the beginning.
    :raises StopIteration: the flow has returned.
    """
    return flow.throw(outcome) if isinstance(outcome, BaseException) else flow.send(outcome)


def as_outcome(error: Exception, step: Step) -> Exception:
    """Return the error of a step for the flow to handle; raise an error that no flow handles."""
    # A procedure must learn of any error that this package explains, such as a proxy's address that is not valid.
    is_explained = isinstance(step, Request) and isinstance(error, ModelArtsError)
    if is_explained or isinstance(error, TransportError | FileReadError):
        return error
    if isinstance(step, ReadConnection) and step.refused is not None:
        return ConnectionReadError(error)
    raise error


def log_unreadable(operation: ListOperation[Any], page: Page[Any]) -> None:
    """Log the items of a page that could not be read, since whoever iterates over the items does not see them."""
    if page.unreadable:
        items = ", ".join(f"item {item.index + 1} ({item.reason})" for item in page.unreadable[:LOGGED_ITEMS])
        more = f" and {len(page.unreadable) - LOGGED_ITEMS} more" if len(page.unreadable) > LOGGED_ITEMS else ""
        text = "%s left out what it could not read on page %s: %s%s."
        log.warning(text, operation.name, page.number + 1, items, more)


def read_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers by lower-case name, repeated ones joined; raise TransportError for too large or too many."""
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


def find_proxy(url: str) -> str | None:
    """Return the URL of the environment's proxy for this one, None without; one that is not usable is an error."""
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
