"""
The two ways to carry out a flow: requests and sleeping on a worker, aiohttp and asyncio in a triggerer.

What is decided here is only whether a request can have reached the service; all else goes back into the flow, as an
answer or as a :class:`TransportError`.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from http.client import BadStatusLine
from http.client import HTTPResponse as StandardResponse
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

import certifi
import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse
from urllib3.util import parse_url

from airflow_modelarts import __version__
from airflow_modelarts.api.client import ClientConfig, call, pages
from airflow_modelarts.api.decoding import ACCEPT_ENCODING, Decoder
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.api.http import (
    MAX_ANSWER_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    ConnectionReadError,
    Flow,
    ReadConnection,
    Request,
    Response,
    Sleep,
    Step,
    TransportError,
)
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.transport.settings import Settings

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")
AnyFlow: TypeAlias = Generator[Step | Page[Any], Any, Any]

CHUNK_BYTES = 64 * 1024
#: Bytes of one line of an answer's head after which neither library reads on; what is allowed is checked afterwards.
LONGEST_LINE = 2 * MAX_HEADER_BYTES
#: Bytes, which is http.client's own limit.
LONGEST_STATUS_LINE = 64 * 1024
#: Seconds for an answer, since one that trickles resets the read timeout with every byte: on a worker for its head and
#: its body each, in a triggerer from the request to its end. So a longer read timeout has no effect.
TOTAL_TIMEOUT = 300.0
#: What OpenSSL says of an answer that is not TLS.
PLAIN_HTTP_REASONS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
USER_AGENT = f"airflow-modelarts/{__version__}"
HEADERS = {"User-Agent": USER_AGENT, "Accept-Encoding": ACCEPT_ENCODING}


@dataclass(frozen=True, slots=True)
class Returned(Generic[T]):
    """The end of a flow."""

    value: T


class Driver:
    """
    Carries out calls on the current thread.

    :param read_settings: reads the Airflow connection.
    """

    def __init__(self, read_settings: Callable[[], Settings]) -> None:
        self._read_settings = read_settings
        self._settings: Settings | None = None
        self._session: requests.Session | None = None
        self._reached: set[str] = set()

    def call(self, operation: Operation[T], retries: RetryPolicy) -> T:
        """Carry out one operation, see :func:`airflow_modelarts.api.client.call`."""
        return self.run(call(operation, retries))

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow that yields no pages: a call, or a procedure of several."""
        return cast("Returned[T]", self._advance(flow)).value

    def iterate(self, operation: ListOperation[T], retries: RetryPolicy) -> Iterator[T]:
        """Carry out a list operation; a page is asked for when the one before it is used up."""
        flow = pages(operation, retries)
        while isinstance(page := self._advance(flow), Page):
            yield from page.items

    def settings(self, refused: ClientConfig | None = None) -> Settings:
        """Return what the connection says, read again if it was refused."""
        if self._settings is None or self._settings.client == refused:
            self._settings = self._read_settings()
        return self._settings

    def clone(self) -> Driver:
        """Return a driver that knows what this one has read, and shares no sockets, renewals or turns with it."""
        clone = Driver(lambda: _with_own_tokens(self._read_settings()))
        clone._settings = self._settings and _with_own_tokens(self._settings)
        return clone

    def close(self) -> None:
        """Close the sockets. A later call opens new ones."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _advance(self, flow: AnyFlow) -> Page[Any] | Returned[Any]:
        """Carry out a flow up to its next page or its end."""
        proceed: Callable[[Any], Step | Page[Any]] = flow.send
        value: Any = None
        try:
            while True:
                step = proceed(value)
                proceed, value = flow.send, None
                match step:
                    case Request():
                        try:
                            value = self._exchange(step)
                        except TransportError as error:
                            proceed, value = flow.throw, error
                    case Sleep(seconds):
                        time.sleep(seconds)
                    case ReadConnection(refused):
                        try:
                            value = self.settings(refused).client
                        except Exception as error:
                            if refused is None:
                                raise
                            proceed, value = flow.throw, ConnectionReadError(error)
                    case Page():
                        return step
        except StopIteration as end:
            return Returned(end.value)
        except BaseException:
            flow.close()  # so that it gives back at once whatever it holds
            raise

    def _exchange(self, request: Request) -> Response:
        settings = self.settings()
        proxy = _proxy(request.url)
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
                self._reached.add(_host(request.url))
                headers = _headers((name, _as_utf_8(value)) for name, value in answer.raw.headers.iteritems())
                return Response(answer.status_code, headers, _read(answer, headers.get("content-encoding", "")))
        except (requests.RequestException, urllib3_errors.HTTPError, OSError, UnicodeError) as error:
            raise _told_apart(_requests_fault(error), request.url, proxy, self._reached) from error

    def _open_session(self) -> requests.Session:
        if self._session is None:
            self._session = requests.Session()
            self._session.headers.update(HEADERS)
            # Otherwise a ~/.netrc would replace the Authorization header. Proxies are given with each request.
            self._session.trust_env = False
            for scheme in POOLS:
                self._session.mount(f"{scheme}://", _Adapter())
            self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return self._session


def _with_own_tokens(settings: Settings) -> Settings:
    client = settings.client
    limiter = client.limiter and client.limiter.copy()
    return replace(settings, client=replace(client, cache=client.cache.copy(), limiter=limiter))


class _Head:
    """
    Reads the heads of one answer for http.client, whose own limit of 64 KiB a line a token can exceed.

    It looks for the end of the head itself, and hands out in short pieces what http.client only puts together again.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._pieces: list[bytes] | None = None

    def readline(self, limit: int) -> bytes:
        """Return the status line, then the headers in pieces, then the empty line; and so on for the next head."""
        if self._pieces is None:
            self._pieces = []
            status_line: bytes = self._file.readline(limit)
            if len(status_line) > LONGEST_STATUS_LINE and status_line.startswith(b"HTTP/"):
                raise _too_large_a_head()
            return status_line
        if not self._pieces:
            self._pieces = self._read_headers(limit)
        piece = self._pieces.pop(0)
        if not self._pieces:
            self._pieces = None
        return piece

    def close(self) -> None:
        self._file.close()

    def _read_headers(self, limit: int) -> list[bytes]:
        lines: list[bytes] = []
        size = 0
        while (line := self._file.readline(LONGEST_LINE + 1)) not in (b"\r\n", b"\n", b""):
            lines.append(line)
            size += len(line)
            # Not exactly the limits, which say nothing of colons and line ends.
            if len(line) > LONGEST_LINE or len(lines) > 2 * MAX_HEADERS or size > 2 * MAX_HEAD_BYTES:
                raise _too_large_a_head()
        block = b"".join(lines)
        # In equal parts, so that none is an empty line.
        length = -(-len(block) // -(-len(block) // (limit - 1))) if block else 1
        return [*(block[start : start + length] for start in range(0, len(block), length)), line]


class _Answer(StandardResponse):
    """An answer with a head of any length, after those that announce it, such as ``103 Early Hints``."""

    fp: Any

    def begin(self) -> None:
        file, head = self.fp, _Head(self.fp)
        self.fp = head
        try:
            super().begin()
        finally:
            if self.fp is head:
                self.fp = file

    def _read_status(self) -> tuple[Any, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # private, as there is no other place
            if not 100 < status < 200 or status == 101:
                return version, status, reason
            while self.fp.readline(LONGEST_STATUS_LINE) not in (b"\r\n", b"\n", b""):  # its headers
                pass


class _HeadDeadline:
    """A connection that gives up on an answer whose head trickles, since each byte resets the read timeout."""

    response_class = _Answer
    sock: Any
    _gave_up = False

    def getresponse(self) -> HTTPResponse:
        watchdog = threading.Timer(TOTAL_TIMEOUT, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            response: HTTPResponse = super().getresponse()  # type: ignore[misc]  # of what it is mixed into
        finally:
            watchdog.cancel()
        if self._gave_up:  # the head looks complete to the library
            response.close()
            raise TimeoutError("timed out")
        return response

    def _give_up(self) -> None:
        self._gave_up = True
        with suppress(OSError, AttributeError, TypeError):  # it may be closed by now
            # Not the method of a TLS socket, which would go on in plain text.
            socket.socket.shutdown(getattr(self.sock, "socket", self.sock), socket.SHUT_RDWR)


class _HTTPConnection(_HeadDeadline, HTTPConnection):  # type: ignore[misc]  # two classes for answers
    pass


class _HTTPSConnection(_HeadDeadline, HTTPSConnection):  # type: ignore[misc]
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager


class AsyncDriver:
    """
    Carries out calls on the running event loop, which it never blocks.

    :param read_settings: reads the Airflow connection.
    """

    def __init__(self, read_settings: Callable[[], Awaitable[Settings]]) -> None:
        self._read_settings = read_settings
        self._settings: Settings | None = None
        self._session: aiohttp.ClientSession | None = None
        self._reached: set[str] = set()
        self._opening = asyncio.Lock()

    async def call(self, operation: Operation[T], retries: RetryPolicy) -> T:
        """Carry out one operation, see :func:`airflow_modelarts.api.client.call`."""
        return await self.run(call(operation, retries))

    async def run(self, flow: Flow[T]) -> T:
        """Carry out a flow that yields no pages: a call, or a procedure of several."""
        return cast("Returned[T]", await self._advance(flow)).value

    async def pages(self, operation: ListOperation[T], retries: RetryPolicy) -> AsyncGenerator[Page[T], None]:
        """Carry out a list operation page by page."""
        flow = pages(operation, retries)
        while isinstance(page := await self._advance(flow), Page):
            yield page

    async def iterate(self, operation: ListOperation[T], retries: RetryPolicy) -> AsyncGenerator[T, None]:
        """Carry out a list operation; a page is asked for when the one before it is used up."""
        async with aclosing(self.pages(operation, retries)) as found:
            async for page in found:
                for item in page.items:
                    yield item

    async def settings(self, refused: ClientConfig | None = None) -> Settings:
        """Return what the connection says, read again if it was refused."""
        if self._settings is None or self._settings.client == refused:
            self._settings = await self._read_settings()
        return self._settings

    async def close(self) -> None:
        """Close the sockets. A later call opens new ones."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _advance(self, flow: AnyFlow) -> Page[Any] | Returned[Any]:
        """Carry out a flow up to its next page or its end."""
        proceed: Callable[[Any], Step | Page[Any]] = flow.send
        value: Any = None
        try:
            while True:
                step = proceed(value)
                proceed, value = flow.send, None
                match step:
                    case Request():
                        try:
                            value = await self._exchange(step)
                        except TransportError as error:
                            proceed, value = flow.throw, error
                    case Sleep(seconds):
                        await asyncio.sleep(seconds)
                    case ReadConnection(refused):
                        try:
                            value = (await self.settings(refused)).client
                        except Exception as error:
                            if refused is None:
                                raise
                            proceed, value = flow.throw, ConnectionReadError(error)
                    case Page():
                        return step
        except StopIteration as end:
            return Returned(end.value)
        except BaseException:
            flow.close()  # so that it gives back at once whatever it holds
            raise

    async def _exchange(self, request: Request) -> Response:
        import aiohttp
        from yarl import URL

        settings = await self.settings()
        timeout = aiohttp.ClientTimeout(
            total=TOTAL_TIMEOUT,
            connect=request.timeout or settings.connect_timeout,
            sock_read=request.timeout or settings.read_timeout,
        )
        proxy = _proxy(request.url)
        try:
            session = await self._open_session(settings)
            async with session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                data=request.body or None,
                timeout=timeout,
                proxy=proxy,
                allow_redirects=False,
            ) as answer:
                self._reached.add(_host(request.url))
                headers = _headers(answer.headers.items())
                body = await _read_async(answer.content, headers.get("content-encoding", ""))
                return Response(answer.status, headers, body)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # a timeout is an OSError too
            raise _told_apart(_aiohttp_fault(error), request.url, proxy, self._reached) from error

    async def _open_session(self, settings: Settings) -> aiohttp.ClientSession:
        import aiohttp

        async with self._opening:
            if self._session is None:
                # Reading the certificate authorities takes tens of milliseconds.
                context = await asyncio.to_thread(_tls_context, settings.verify)
                self._session = aiohttp.ClientSession(
                    # Not longer: a server closes idle connections too (uvicorn after 5 s), and a request that meets
                    # the closing is lost.
                    connector=aiohttp.TCPConnector(
                        ssl=context,
                        keepalive_timeout=2.0,
                        # As a worker looks names up, and fails to, whatever else is installed here.
                        resolver=aiohttp.ThreadedResolver(),
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers=HEADERS,
                    auto_decompress=False,
                    max_line_size=LONGEST_LINE,
                    max_field_size=LONGEST_LINE,
                )
                # aiohttp would send a PUT or DELETE again by itself, and a lost answer would look like a task that
                # never was. There is no public switch; the drivers' tests fail should this one go.
                self._session._retry_connection = False
        return self._session


def _headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers of an answer, names in lower case; one that came several times has all its values."""
    found = [(name.lower(), value.strip()) for name, value in pairs]
    size = sum(len(name) + len(value) for name, value in found)
    if len(found) > MAX_HEADERS or size > MAX_HEAD_BYTES or any(len(value) > MAX_HEADER_BYTES for _, value in found):
        raise _too_large_a_head()
    headers: dict[str, str] = {}
    for name, value in found:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _too_large_a_head() -> TransportError:
    return TransportError(
        f"headers of more than {MAX_HEADER_BYTES} bytes each, {MAX_HEAD_BYTES} in all, or more than {MAX_HEADERS}",
        kind="too_large",
        sent=True,
    )


def _as_utf_8(header: str) -> str:
    """Read a header as aiohttp does; http.client reads it as Latin-1."""
    return header.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def _read(answer: requests.Response, content_encoding: str) -> bytes:
    body, decoder = bytearray(), Decoder(content_encoding)
    give_up_at = time.monotonic() + TOTAL_TIMEOUT
    # read1 returns what has arrived, where read would wait for the whole chunk and never see the time pass.
    while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=False):
        _add(body, decoder.feed(chunk))
        if time.monotonic() > give_up_at:
            raise TransportError(f"no end after {TOTAL_TIMEOUT:.0f} seconds", kind="timeout", sent=True)
    decoder.finish()
    return bytes(body)


async def _read_async(content: aiohttp.StreamReader, content_encoding: str) -> bytes:
    body, decoder = bytearray(), Decoder(content_encoding)
    async for chunk in content.iter_any():
        _add(body, decoder.feed(chunk))
    decoder.finish()
    return bytes(body)


def _add(body: bytearray, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise TransportError(f"more than {MAX_ANSWER_BYTES} bytes", kind="too_large", sent=True)


def _tls_context(verify: bool | str) -> ssl.SSLContext | bool:
    if verify is False:
        return False
    authorities = certifi.where() if verify is True else verify
    if os.path.isdir(authorities):
        return ssl.create_default_context(capath=authorities)
    return ssl.create_default_context(cafile=authorities)


def _proxy(url: str) -> str | None:
    """
    Return the URL of the proxy that the environment names for this one.

    :raises ModelArtsConfigurationError: it is none that both libraries can use.
    """
    if url.startswith("http:"):
        return None  # such a URL leads to this machine or its metadata service, and from a proxy to another machine's
    named = select_proxy(url, get_environ_proxies(url))
    if not named:
        return None
    proxy = named if "://" in named else f"http://{named}"
    try:
        parts = parse_url(proxy)
    except urllib3_errors.LocationParseError:
        parts = None
    if parts is None or not parts.host or parts.scheme not in ("http", "https"):
        raise ModelArtsConfigurationError(  # without its value, which can carry a password
            "HTTPS_PROXY or ALL_PROXY in the environment cannot be used: it must be the URL of an http or https proxy "
            "(SOCKS is not supported), or NO_PROXY must exempt the host"
        )
    return proxy


def _host(url: str) -> str:
    return url.split("/", 3)[2]


def _told_apart(fault: TransportError, url: str, proxy: str | None, reached: set[str]) -> TransportError:
    """Return the fault as it is for this host: where one has answered before, its name and its scheme are right."""
    if fault.kind in ("name", "tls") and _host(url) in reached:
        return TransportError(fault.reason, kind="connect", sent=fault.sent)
    if fault.kind == "name" and proxy:  # which then looks up the name of the host
        return TransportError(fault.reason, kind="proxy", sent=False)
    if fault.kind == "tls" and (proxy or "").startswith("https:"):
        reason = f"{fault.reason}; or the proxy in the environment does not, so that its URL must begin with http://"
        return TransportError(reason, kind="tls", sent=fault.sent)
    return fault


def _requests_fault(error: Exception) -> TransportError:
    reason = _reason(error)
    # Of a proxy too: an empty label is a UnicodeError, when the name is looked up.
    if isinstance(error, requests.exceptions.InvalidURL | urllib3_errors.LocationParseError | UnicodeError):
        return TransportError("the host name is not valid", kind="name", sent=False)
    if _is_about_certificates(error):
        return TransportError(reason, kind="certificate", sent=False)
    if _is_about_schemes(error):
        return TransportError(reason, kind="tls", sent=False)
    if answered := _refused_tunnel(error):
        return TransportError(answered, kind="connect", sent=False)
    # No ProxyError: urllib3 wraps whatever happens behind a proxy in it, a lost answer too.
    if _find(error, urllib3_errors.NewConnectionError, urllib3_errors.ConnectTimeoutError):
        return TransportError(reason, kind="name" if _is_unknown_name(error) else "connect", sent=False)
    if _find(error, requests.Timeout, urllib3_errors.TimeoutError, TimeoutError):
        return TransportError(reason, kind="timeout", sent=True)
    return TransportError(reason, kind="broken", sent=True)


def _aiohttp_fault(error: Exception) -> TransportError:
    import aiohttp
    from aiohttp.http_exceptions import LineTooLong

    reason = _reason(error)
    if isinstance(error, aiohttp.InvalidURL | UnicodeError):
        return TransportError("the host name is not valid", kind="name", sent=False)
    if _is_about_certificates(error):
        return TransportError(reason, kind="certificate", sent=False)
    if _is_about_schemes(error):
        return TransportError(reason, kind="tls", sent=False)
    if _find(error, LineTooLong) or any("Too many headers" in str(inner) for inner in _chain(error)):
        return _too_large_a_head()
    if isinstance(error, aiohttp.ClientHttpProxyError):  # raised for CONNECT alone
        return TransportError(_proxy_answered(error.status), kind="connect", sent=False)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return TransportError(reason, kind="name" if _is_unknown_name(error) else "connect", sent=False)
    if isinstance(error, TimeoutError):
        return TransportError(reason, kind="timeout", sent=True)
    return TransportError(reason, kind="broken", sent=True)


def _is_about_certificates(error: Exception) -> bool:
    """Tell a certificate that is not trusted, and a file of authorities that holds none, from another fault of TLS."""
    found = _find(error, ssl.SSLError)
    return isinstance(found, ssl.SSLCertVerificationError) or getattr(found, "library", None) == "X509"


def _is_about_schemes(error: Exception) -> bool:
    """Tell https to a port that speaks plain http, and the other way round, from another fault."""
    # aiohttp's own kind of SSLError has no reason; the one that it wraps does.
    tls_errors = (inner for inner in _chain(error) if isinstance(inner, ssl.SSLError))
    if any(getattr(inner, "reason", None) in PLAIN_HTTP_REASONS for inner in tls_errors):
        return True
    # Both libraries show how an answer begins that is not HTTP; aiohttp escapes it.
    alert = ("\x15\x03", r"b'\x15\x03")
    return any(
        any(start in str(inner) for start in alert)
        for inner in _chain(error)
        if isinstance(inner, BadStatusLine) or "Bad status line" in str(inner)
    )


def _refused_tunnel(error: Exception) -> str | None:
    """Return what a proxy answered that did not connect to the service; http.client says it in a text alone."""
    for inner in _chain(error):
        if isinstance(inner, OSError) and (said := re.match(r"Tunnel connection failed: (\d+)", str(inner))):
            return _proxy_answered(int(said[1]))
    return None


def _proxy_answered(status: int) -> str:
    return f"the proxy answered HTTP {status}"


def _is_unknown_name(error: Exception) -> bool:
    """Tell a name that does not exist from a resolver that does not answer."""
    found = _find(error, socket.gaierror)
    # The second is of a name that exists without an address, where the platform tells the two apart.
    return found is not None and found.args[:1] in ((socket.EAI_NONAME,), (getattr(socket, "EAI_NODATA", None),))


def _find(error: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    """Find an exception of one of these kinds among those that this one wraps."""
    for inner in _chain(error):
        if isinstance(inner, kinds):
            return inner
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        inner = waiting.pop(0)
        if not isinstance(inner, BaseException) or id(inner) in seen:
            continue
        seen.add(id(inner))
        yield inner
        # requests and urllib3 wrap in the arguments and in ``reason``, aiohttp in ``os_error``. Not ``__context__``: it
        # is also what the caller was handling when it called.
        attributes = (getattr(inner, name, None) for name in ("reason", "os_error", "__cause__"))
        waiting += [*inner.args, *attributes]


def _reason(error: BaseException) -> str:
    """Say in the system's own words what happened; the libraries' texts quote URLs."""
    for inner in _chain(error):
        if message := getattr(inner, "verify_message", None):  # a certificate's
            return str(message)
        if isinstance(inner, OSError) and inner.strerror and not isinstance(inner, requests.RequestException):
            return str(inner.strerror)
    kinds = {type(inner).__name__ for inner in _chain(error)}
    return "timed out" if any("Timeout" in kind for kind in kinds) else f"connection broken: {type(error).__name__}"
