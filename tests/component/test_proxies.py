"""Tests of both drivers behind a proxy of the environment."""

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import ModelArtsConfigurationError, ModelArtsTransientError
from airflow_modelarts.api.retry import RetryPolicy
from tests.support.loopback import DESCRIBE, ONCE, Carry, Server, call_asynchronously, read_request

THREE_TIMES = RetryPolicy(attempts=3, initial_delay=0.01)
CREATE = operations.create_processor_task(name="mine", template={"id": "t"}, inputs=[{"type": "OBS", "source": "b"}])
#: The service behind the proxy; nothing listens there.
SERVICE = "127.0.0.1:1"


class Proxy(Server):
    """A proxy that reads a request and disconnects, or refuses every tunnel.

    :param tls: the TLS context with which it answers instead of the service; None to refuse tunnels.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls_of_the_service = tls
        super().__init__(self._tunnel)
        self.address = f"127.0.0.1:{self.port}"

    def _tunnel(self, connection: socket.socket, first: bytes) -> None:
        if self._tls_of_the_service is None or not first.startswith(b"CONNECT"):
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with self._tls_of_the_service.wrap_socket(connection, server_side=True) as tunnel:
            self.requests.append(read_request(tunnel))


@pytest.fixture
def proxy() -> Iterator[Callable[..., Proxy]]:
    proxies: list[Proxy] = []

    def start(*arguments: Any) -> Proxy:
        proxies.append(Proxy(*arguments))
        return proxies[-1]

    yield start
    for each in proxies:
        each.close()


@pytest.fixture(autouse=True)
def service(
    set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, certificate: tuple[ssl.SSLContext, Path]
) -> ssl.SSLContext:
    """Let the connection name the service, and return the TLS context of the proxy in its place."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    set_connection(host=SERVICE, extra={"verify": str(certificate[1])})
    return certificate[0]


def test_a_post_whose_answer_a_proxy_loses_is_not_repeated(
    proxy: Callable[..., Proxy], service: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, carry_out: Carry
) -> None:
    """The service may have created a paid job."""
    losing = proxy(service)
    monkeypatch.setenv("HTTPS_PROXY", f"http://{losing.address}")
    with pytest.raises(ModelArtsTransientError) as caught:
        carry_out(CREATE, THREE_TIMES)
    assert [request.split()[0] for request in losing.requests] == [b"CONNECT", b"POST"]
    assert caught.value.outcome_unknown


def test_a_request_was_certainly_not_sent_if_the_proxy_refuses_the_tunnel(
    proxy: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch, carry_out: Carry
) -> None:
    refusing = proxy()
    monkeypatch.setenv("HTTPS_PROXY", f"http://{refusing.address}")
    with pytest.raises(ModelArtsTransientError, match=r"the proxy answered HTTP 407") as caught:
        carry_out(CREATE, THREE_TIMES)
    assert len(refusing.requests) == 3
    assert not caught.value.outcome_unknown


def test_a_request_was_certainly_not_sent_if_the_proxy_refuses_the_connection(
    monkeypatch: pytest.MonkeyPatch, carry_out: Carry
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with pytest.raises(ModelArtsTransientError, match="Connect") as caught:
        carry_out(CREATE, THREE_TIMES)
    assert not caught.value.outcome_unknown


def test_an_unknown_host_name_of_a_proxy_is_its_own_error(monkeypatch: pytest.MonkeyPatch, carry_out: Carry) -> None:
    def resolve(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no luck with that name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    with pytest.raises(ModelArtsConfigurationError, match="the host name of the proxy that HTTPS_PROXY") as caught:
        carry_out(DESCRIBE, ONCE)
    assert "does not resolve: check its spelling" not in str(caught.value)


def test_an_https_url_of_a_plain_http_proxy_is_its_own_error(
    proxy: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch, carry_out: Carry
) -> None:
    class Plain(Proxy):
        def _tunnel(self, connection: socket.socket, first: bytes) -> None:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    plain = Plain()
    plain._until = b"\x16\x03"
    monkeypatch.setenv("HTTPS_PROXY", f"https://{plain.address}")
    try:
        with pytest.raises(ModelArtsConfigurationError, match=r"the proxy in the environment.*begin with http://"):
            carry_out(DESCRIBE, ONCE)
    finally:
        plain.close()


def test_the_url_of_a_proxy_may_lack_the_scheme(
    proxy: Callable[..., Proxy], service: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, carry_out: Carry
) -> None:
    found = proxy(service)
    monkeypatch.setenv("HTTPS_PROXY", found.address)
    with pytest.raises(ModelArtsTransientError):
        carry_out(DESCRIBE, ONCE)
    times = 2 if carry_out is call_asynchronously else 1  # the proxy answers no GET, and aiohttp sends it once more
    assert [request.split()[0] for request in found.requests] == [b"CONNECT", b"GET"] * times


def test_plain_http_uses_no_proxy(
    proxy: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None], carry_out: Carry
) -> None:
    """A proxy would connect to its own machine instead."""
    unused = proxy()
    monkeypatch.setenv("HTTP_PROXY", f"http://{unused.address}")
    monkeypatch.setenv("http_proxy", f"http://{unused.address}")
    monkeypatch.setenv("ALL_PROXY", f"http://{unused.address}")
    set_connection(host=f"http://{SERVICE}")
    with pytest.raises(ModelArtsTransientError, match="Connect"):
        carry_out(DESCRIBE, ONCE)
    assert not unused.requests


@pytest.mark.parametrize("named", ["socks5://127.0.0.1:1", "SOCKS5h://user:fake-secret@127.0.0.1:1", "ftp://proxy"])
def test_an_unsupported_kind_of_proxy_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, carry_out: Carry, named: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", named)
    with pytest.raises(ModelArtsConfigurationError, match=r"an http or https proxy.*NO_PROXY") as caught:
        carry_out(DESCRIBE, THREE_TIMES)
    assert "fake-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        *(
            (url, "HTTPS_PROXY")
            for url in ("http://[bad", "http://127.0.0.1:x", "http://", "http://user:fake-secret@:80")
        ),
        ("http://proxy..example.com:3128", r"of the proxy.*the host name is not valid"),
    ],
)
def test_an_invalid_url_of_a_proxy_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, carry_out: Carry, named: str, words: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", named)
    with pytest.raises(ModelArtsConfigurationError, match=words) as caught:
        carry_out(DESCRIBE, THREE_TIMES)
    assert "fake-secret" not in str(caught.value)


def test_a_host_in_no_proxy_is_called_directly(
    proxy: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch, carry_out: Carry
) -> None:
    unused = proxy()
    monkeypatch.setenv("HTTPS_PROXY", unused.address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ModelArtsTransientError, match="Connect"):
        carry_out(DESCRIBE, ONCE)
    assert not unused.requests
