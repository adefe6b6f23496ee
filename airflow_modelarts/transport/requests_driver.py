"""The driver of workers: requests, and ``time.sleep``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar, cast

import requests
from urllib3 import exceptions as urllib3_errors

from airflow_modelarts.api.client import Pager, call
from airflow_modelarts.api.decoding import Body
from airflow_modelarts.api.http import Flow, ReadConnection, ReadFile, Request, Response, Sleep, TransportError
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.project_lookup import ProjectLookup, find_project
from airflow_modelarts.api.retry import DEFAULT_RETRIES, RetryPolicy
from airflow_modelarts.transport import exchange, faults
from airflow_modelarts.transport.exchange import Settings
from airflow_modelarts.transport.files import read_file
from airflow_modelarts.transport.requests_adapter import Adapter

T = TypeVar("T")

#: Bytes of a body to read at once.
CHUNK_BYTES = 64 * 1024


class Driver:
    """Carries out flows on the current thread; ``read_settings`` reads the Airflow connection."""

    def __init__(self, read_settings: Callable[[], Settings]) -> None:
        self._read_settings = read_settings
        self._settings: Settings | None = None
        self._session: requests.Session | None = None
        self._answered: set[str] = set()

    def call(self, operation: Operation[T], retries: RetryPolicy) -> T:
        """Carry out one operation, see :func:`airflow_modelarts.api.client.call`."""
        return self.run(call(operation, retries))

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow: a call, or a procedure of several."""
        outcome: Any = None
        try:
            while True:
                try:
                    step = exchange.resume(flow, outcome)
                except StopIteration as end:
                    return cast("T", end.value)
                try:
                    match step:
                        case Request():
                            outcome = self._exchange(step)
                        case Sleep(seconds):
                            time.sleep(seconds)
                            outcome = None
                        case ReadConnection(refused):
                            outcome = self.settings(refused).client
                        case ReadFile(path):
                            outcome = read_file(path)
                except Exception as error:
                    outcome = exchange.as_outcome(error, step)
        except BaseException:
            flow.close()  # releases what the flow holds at once, such as a token renewal
            raise

    def pages(self, operation: ListOperation[T], retries: RetryPolicy) -> Iterator[Page[T]]:
        """Carry out a list operation page by page; each is requested when the one before it is used up."""
        pager = Pager(operation, retries)
        while page := self.run(pager.next_page()):
            yield page

    def iterate(self, operation: ListOperation[T], retries: RetryPolicy) -> Iterator[T]:
        """Carry out a list operation item by item."""
        for page in self.pages(operation, retries):
            exchange.log_unreadable(operation, page)
            yield from page.items

    def settings(self, refused: object = None) -> Settings:
        """Return the settings of the connection; it is read again if ``refused`` are its current ones."""
        if self._settings is None or self._settings.client == refused:
            settings = self._read_settings()
            if settings.project_lookup is not None:
                settings = _with_project(settings, settings.project_lookup)
            self._settings = settings
        return self._settings

    def clone(self) -> Driver:
        """Return a driver with the same settings, and with sockets, token renewals and rate limits of its own."""
        clone = Driver(lambda: _with_own_state(self._read_settings()))
        clone._settings = self._settings and _with_own_state(self._settings)
        return clone

    def close(self) -> None:
        """Close the sockets. A later call opens new ones."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _exchange(self, request: Request) -> Response:
        settings = self.settings()
        proxy = exchange.find_proxy(request.url)
        try:
            with self._open_session().request(
                request.method,
                request.url,
                headers=dict(request.headers),
                data=request.body or None,
                timeout=(request.timeout or settings.connect_timeout, request.timeout or settings.read_timeout),
                verify=settings.verify,
                proxies={"all": proxy} if proxy else None,
                allow_redirects=False,
                stream=True,
            ) as answer:
                self._answered.add(faults.host_of(request.url))
                headers = exchange.read_headers(
                    (name, _as_utf_8(value)) for name, value in answer.raw.headers.iteritems()
                )
                return Response(answer.status_code, headers, _read_body(answer, headers.get("content-encoding", "")))
        except (requests.RequestException, urllib3_errors.HTTPError, OSError, UnicodeError) as error:
            raise faults.for_host(_to_transport_error(error), request.url, proxy, self._answered) from error

    def _open_session(self) -> requests.Session:
        if self._session is None:
            self._session = requests.Session()
            self._session.headers.update(exchange.REQUEST_HEADERS)
            # Otherwise a ~/.netrc would replace the Authorization header. Each request has its proxy as an argument.
            self._session.trust_env = False
            for scheme in ("http", "https"):
                self._session.mount(f"{scheme}://", Adapter())
            self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return self._session


def _with_project(settings: Settings, lookup: ProjectLookup) -> Settings:
    found = replace(settings, project_lookup=None)
    with closing(Driver(lambda: found)) as driver:
        project_id = driver.run(find_project(found.client, lookup, DEFAULT_RETRIES))
    return found.with_project(project_id)


def _with_own_state(settings: Settings) -> Settings:
    client = settings.client
    limiter = client.limiter and client.limiter.copy()
    return replace(settings, client=replace(client, cache=client.cache.copy(), limiter=limiter))


def _as_utf_8(header: str) -> str:
    """Decode a header as aiohttp does; http.client decodes it as Latin-1."""
    return header.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def _read_body(answer: requests.Response, content_encoding: str) -> bytes:
    body = Body(content_encoding)
    deadline = time.monotonic() + exchange.TOTAL_TIMEOUT
    # read1 returns the bytes that have arrived; read would wait for the whole chunk, beyond the deadline.
    while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=False):
        body.feed(chunk)
        if time.monotonic() > deadline:
            raise TransportError(f"no end after {exchange.TOTAL_TIMEOUT:.0f} seconds", kind="timeout", sent=True)
    return body.finish()


def _to_transport_error(error: Exception) -> TransportError:
    for inner in faults.wrapped_errors(error):  # http.client has the status of a proxy that refused in a text only
        if isinstance(inner, OSError) and (found := re.match(r"Tunnel connection failed: (\d+)", str(inner))):
            return faults.refused_by_proxy(int(found[1]))
    return faults.to_transport_error(
        error,
        invalid_url=(requests.exceptions.InvalidURL, urllib3_errors.LocationParseError),
        # Not ProxyError: urllib3 wraps every fault behind a proxy in it, also a lost answer.
        not_connected=(urllib3_errors.NewConnectionError, urllib3_errors.ConnectTimeoutError),
        timeout=(requests.Timeout, urllib3_errors.TimeoutError, TimeoutError),
    )
