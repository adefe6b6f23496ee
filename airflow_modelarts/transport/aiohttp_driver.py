"""The driver of triggerers: aiohttp and asyncio. It imports aiohttp when it sends a request, so workers never do."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import certifi

from airflow_modelarts.api.client import Pager, call
from airflow_modelarts.api.decoding import Body
from airflow_modelarts.api.http import Flow, ReadConnection, ReadFile, Request, Response, Sleep, TransportError
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.project_lookup import ProjectLookup, find_project
from airflow_modelarts.api.retry import DEFAULT_RETRIES, RetryPolicy
from airflow_modelarts.transport import exchange, faults
from airflow_modelarts.transport.exchange import Settings
from airflow_modelarts.transport.files import read_file

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

#: Seconds for which an idle connection is kept. A server closes it too (uvicorn after 5 seconds), and a request that is
#: sent in that moment is lost. aiohttp then sends a GET again, so its connections are kept from one poll to the next.
KEEPALIVE_TIMEOUT = 2.0
KEEPALIVE_TIMEOUT_OF_GET = 15.0


class AsyncDriver:
    """Carries out flows on the running event loop, which it never blocks; ``read_settings`` reads the connection."""

    def __init__(self, read_settings: Callable[[], Awaitable[Settings]]) -> None:
        self._read_settings = read_settings
        self._settings: Settings | None = None
        #: By the keepalive timeout of their connections.
        self._sessions: dict[float, aiohttp.ClientSession] = {}
        self._answered: set[str] = set()
        self._opening = asyncio.Lock()

    async def call(self, operation: Operation[T], retries: RetryPolicy) -> T:
        """Carry out one operation, see :func:`airflow_modelarts.api.client.call`."""
        return await self.run(call(operation, retries))

    async def run(self, flow: Flow[T]) -> T:
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
                            outcome = await self._exchange(step)
                        case Sleep(seconds):
                            await asyncio.sleep(seconds)
                            outcome = None
                        case ReadConnection(refused):
                            outcome = (await self.settings(refused)).client
                        case ReadFile(path):
                            outcome = await asyncio.to_thread(read_file, path)
                except Exception as error:
                    outcome = exchange.as_outcome(error, step)
        except BaseException:
            flow.close()  # releases what the flow holds at once, such as a token renewal
            raise

    async def pages(self, operation: ListOperation[T], retries: RetryPolicy) -> AsyncGenerator[Page[T], None]:
        """Carry out a list operation page by page."""
        pager = Pager(operation, retries)
        while page := await self.run(pager.next_page()):
            yield page

    async def iterate(self, operation: ListOperation[T], retries: RetryPolicy) -> AsyncGenerator[T, None]:
        """Carry out a list operation; each page is requested when the one before it is used up."""
        async with aclosing(self.pages(operation, retries)) as found:
            async for page in found:
                exchange.log_unreadable(operation, page)
                for item in page.items:
                    yield item

    async def settings(self, refused: object = None) -> Settings:
        """Return the settings of the connection; it is read again if ``refused`` are its current ones."""
        if self._settings is None or self._settings.client == refused:
            settings = await self._read_settings()
            if settings.project_lookup is not None:
                settings = await _with_project(settings, settings.project_lookup)
            self._settings = settings
        return self._settings

    async def close(self) -> None:
        """Close the sockets. A later call opens new ones."""
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()

    async def _exchange(self, request: Request) -> Response:
        import aiohttp
        from yarl import URL

        settings = await self.settings()
        timeout = aiohttp.ClientTimeout(
            total=exchange.TOTAL_TIMEOUT,
            connect=request.timeout or settings.connect_timeout,
            sock_read=request.timeout or settings.read_timeout,
        )
        proxy = exchange.find_proxy(request.url)
        try:
            keepalive = KEEPALIVE_TIMEOUT_OF_GET if request.method == "GET" else KEEPALIVE_TIMEOUT
            session = self._sessions.get(keepalive) or await self._open_session(settings, keepalive)
            async with session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                data=request.body or None,
                timeout=timeout,
                proxy=proxy,
                allow_redirects=False,
            ) as answer:
                self._answered.add(faults.host_of(request.url))
                return await _read(answer)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # a timeout is an OSError too
            raise faults.for_host(_to_transport_error(error), request.url, proxy, self._answered) from error

    async def _open_session(self, settings: Settings, keepalive_timeout: float) -> aiohttp.ClientSession:
        import aiohttp

        async with self._opening:
            if keepalive_timeout not in self._sessions:
                # Reading the certificate authorities takes tens of milliseconds.
                context = await asyncio.to_thread(_tls_context, settings.verify)
                session = self._sessions[keepalive_timeout] = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(
                        ssl=context,
                        keepalive_timeout=keepalive_timeout,
                        # Looks names up as a worker does, whichever resolver is installed.
                        resolver=aiohttp.ThreadedResolver(),
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers=exchange.REQUEST_HEADERS,
                    auto_decompress=False,
                    max_line_size=exchange.MAX_LINE_BYTES,
                    max_field_size=exchange.MAX_LINE_BYTES,
                )
                # aiohttp sends a GET once more by itself if its connection breaks, but also a PUT or DELETE: after a
                # lost answer the task would look as if it had never existed. There is no public switch; the tests of
                # the drivers fail if this one disappears.
                session._retry_connection = keepalive_timeout == KEEPALIVE_TIMEOUT_OF_GET
        return self._sessions[keepalive_timeout]


async def _read(answer: aiohttp.ClientResponse) -> Response:
    headers = exchange.read_headers(answer.headers.items())
    body = Body(headers.get("content-encoding", ""))
    async for chunk in answer.content.iter_any():
        body.feed(chunk)
    return Response(answer.status, headers, body.finish())


async def _with_project(settings: Settings, lookup: ProjectLookup) -> Settings:
    found = replace(settings, project_lookup=None)

    async def read() -> Settings:
        return found

    driver = AsyncDriver(read)
    try:
        project_id = await driver.run(find_project(found.client, lookup, DEFAULT_RETRIES))
    finally:
        await driver.close()
    return found.with_project(project_id)


def _to_transport_error(error: Exception) -> TransportError:
    import aiohttp
    from aiohttp.http_exceptions import LineTooLong

    if isinstance(error, aiohttp.ClientHttpProxyError):  # raised for CONNECT only
        return faults.refused_by_proxy(error.status)
    if any(
        isinstance(inner, LineTooLong) or "Too many headers" in str(inner) for inner in faults.wrapped_errors(error)
    ):
        return exchange.head_too_large()
    return faults.to_transport_error(
        error,
        invalid_url=(aiohttp.InvalidURL,),
        not_connected=(aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError),
        timeout=(TimeoutError,),
    )


def _tls_context(verify: bool | str) -> ssl.SSLContext | bool:
    if verify is False:
        return False
    authorities = certifi.where() if verify is True else verify
    if os.path.isdir(authorities):
        return ssl.create_default_context(capath=authorities)
    return ssl.create_default_context(cafile=authorities)
