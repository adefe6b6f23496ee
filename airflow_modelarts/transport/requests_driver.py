"""The driver of workers: requests, and ``time.sleep``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar, cast

import requests
from urllib3 import exceptions as urllib3_errors

from airflow_modelarts.api.client import call, pages
from airflow_modelarts.api.http import Flow, ReadConnection, Request, Response, Sleep, TransportError
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.transport import answers, faults
from airflow_modelarts.transport.flows import AnyFlow, Returned, as_outcome, log_unreadable, resume
from airflow_modelarts.transport.proxies import find_proxy
from airflow_modelarts.transport.requests_adapter import Adapter
from airflow_modelarts.transport.settings import Settings

T = TypeVar("T")

#: Bytes of a body to read at once.
CHUNK_BYTES = 64 * 1024


class Driver:
    """
    Carries out flows on the current thread.

    :param read_settings: reads the Airflow connection.
    """

    def __init__(self, read_settings: Callable[[], Settings]) -> None:
        self._read_settings = read_settings
        self._settings: Settings | None = None
        self._session: requests.Session | None = None
        self._answered: set[str] = set()

    def call(self, operation: Operation[T], retries: RetryPolicy) -> T:
        """Carry out one operation, see :func:`airflow_modelarts.api.client.call`."""
        return self.run(call(operation, retries))

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow that yields no pages: a call, or a procedure of several."""
        return cast("Returned[T]", self._advance(flow)).value

    def pages(self, operation: ListOperation[T], retries: RetryPolicy) -> Iterator[Page[T]]:
        """Carry out a list operation page by page; each is requested when the one before it is used up."""
        flow = pages(operation, retries)
        while isinstance(page := self._advance(flow), Page):
            yield page

    def iterate(self, operation: ListOperation[T], retries: RetryPolicy) -> Iterator[T]:
        """Carry out a list operation item by item."""
        for page in self.pages(operation, retries):
            log_unreadable(operation, page)
            yield from page.items

    def settings(self, refused: object = None) -> Settings:
        """Return the settings of the connection; it is read again if ``refused`` are its current ones."""
        if self._settings is None or self._settings.client == refused:
            self._settings = self._read_settings()
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

    def _advance(self, flow: AnyFlow) -> Page[Any] | Returned[Any]:
        """Carry out a flow up to its next page or its end."""
        outcome: Any = None
        try:
            while True:
                step = resume(flow, outcome)
                try:
                    match step:
                        case Request():
                            outcome = self._exchange(step)
                        case Sleep(seconds):
                            time.sleep(seconds)
                            outcome = None
                        case ReadConnection(refused):
                            outcome = self.settings(refused).client
                        case _:
                            return step
                except Exception as error:
                    outcome = as_outcome(error, step)
        except BaseException:
            flow.close()  # releases what the flow holds at once, such as a token renewal
            raise

    def _exchange(self, request: Request) -> Response:
        settings = self.settings()
        proxy = find_proxy(request.url)
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
                headers = answers.read_headers(
                    (name, _as_utf_8(value)) for name, value in answer.raw.headers.iteritems()
                )
                return Response(answer.status_code, headers, _read_body(answer, headers.get("content-encoding", "")))
        except (requests.RequestException, urllib3_errors.HTTPError, OSError, UnicodeError) as error:
            raise faults.for_host(_to_transport_error(error), request.url, proxy, self._answered) from error

    def _open_session(self) -> requests.Session:
        if self._session is None:
            self._session = requests.Session()
            self._session.headers.update(answers.REQUEST_HEADERS)
            # Otherwise a ~/.netrc would replace the Authorization header. Each request has its proxy as an argument.
            self._session.trust_env = False
            for scheme in ("http", "https"):
                self._session.mount(f"{scheme}://", Adapter())
            self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return self._session


def _with_own_state(settings: Settings) -> Settings:
    client = settings.client
    limiter = client.limiter and client.limiter.copy()
    return replace(settings, client=replace(client, cache=client.cache.copy(), limiter=limiter))


def _as_utf_8(header: str) -> str:
    """Decode a header as aiohttp does; http.client decodes it as Latin-1."""
    return header.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def _read_body(answer: requests.Response, content_encoding: str) -> bytes:
    body = answers.Body(content_encoding)
    deadline = time.monotonic() + answers.TOTAL_TIMEOUT
    # read1 returns the bytes that have arrived; read would wait for the whole chunk, beyond the deadline.
    while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=False):
        body.feed(chunk)
        if time.monotonic() > deadline:
            raise TransportError(f"no end after {answers.TOTAL_TIMEOUT:.0f} seconds", kind="timeout", sent=True)
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
