"""The fault proxy: what a caller sees of each fault."""

import gzip
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509

from tests.support import fault_proxy as proxy
from tests.support.certificates import server_context
from tests.support.fault_proxy import FaultProxy, ProxyRoute
from tests.support.waiting import wait_until

BODY = b'{"task_id": "abc"}'


class Service:
    """Answers every request with the same JSON, and records the request bodies."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                requests.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", str(len(BODY)))
                self.end_headers()
                self.wfile.write(BODY)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.close()


@pytest.fixture
def faults() -> Iterator[FaultProxy]:
    with FaultProxy() as running:
        yield running


def post(route: ProxyRoute, *, timeout: float = 60.0, tls: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    """Send one request on a connection of its own; return status and body."""
    if tls is None:
        connection = http.client.HTTPConnection("127.0.0.1", route.port, timeout=timeout)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", route.port, timeout=timeout, context=tls)
    try:
        connection.request("POST", "/tasks", body=b"create")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_without_a_fault_everything_is_forwarded(service: Service, faults: FaultProxy) -> None:
    assert post(faults.open(service.url)) == (200, BODY)
    assert service.requests == [b"create"]


def test_one_connection_can_carry_several_requests(service: Service, faults: FaultProxy) -> None:
    route = faults.open(service.url)
    connection = http.client.HTTPConnection("127.0.0.1", route.port, timeout=60)
    for _ in range(3):
        connection.request("POST", "/tasks", body=b"create")
        assert connection.getresponse().read() == BODY
    connection.close()
    assert route.connections == 1


def test_a_fault_affects_the_given_number_of_connections(service: Service, faults: FaultProxy) -> None:
    route = faults.open(service.url, proxy.time_out_after, times=2)
    assert [post(route)[0] for _ in range(3)] == [504, 504, 200]
    assert route.hits == 2
    assert route.is_restored


def test_a_fault_without_a_number_lasts_until_the_route_is_restored(service: Service, faults: FaultProxy) -> None:
    route = faults.open(service.url, proxy.time_out_after)
    assert [post(route)[0] for _ in range(3)] == [504, 504, 504]
    faults.restore(route)
    assert post(route) == (200, BODY)


def test_a_refusing_port_listens_once_the_route_is_restored(service: Service, faults: FaultProxy) -> None:
    route = faults.refuse(service.url)
    with pytest.raises(ConnectionRefusedError):
        post(route)
    faults.restore(route)
    assert post(route) == (200, BODY)


def test_a_reset_before_the_request_hides_it_from_the_service(service: Service, faults: FaultProxy) -> None:
    with pytest.raises(ConnectionError):
        post(faults.open(service.url, proxy.reset_before))
    assert service.requests == []


def test_a_reset_after_the_request_loses_the_answer_only(service: Service, faults: FaultProxy) -> None:
    with pytest.raises(ConnectionResetError):
        post(faults.open(service.url, proxy.reset_after))
    assert service.requests == [b"create"]


def test_a_black_hole_accepts_the_request_and_answers_nothing(service: Service, faults: FaultProxy) -> None:
    with pytest.raises(TimeoutError):
        post(faults.open(service.url, proxy.black_hole), timeout=0.2)
    assert service.requests == []


def test_a_cut_answer_ends_within_its_body(service: Service, faults: FaultProxy) -> None:
    with pytest.raises(http.client.IncompleteRead) as caught:
        post(faults.open(service.url, proxy.cut))
    assert caught.value.partial == BODY[: len(BODY) // 2]


def test_a_trickle_sends_single_bytes_until_the_route_is_restored(service: Service, faults: FaultProxy) -> None:
    route = faults.open(service.url, proxy.trickle)
    with socket.create_connection(("127.0.0.1", route.port), timeout=60) as connection:
        connection.sendall(b"POST /tasks HTTP/1.1\r\nContent-Length: 6\r\n\r\ncreate")
        answer = b""
        while len(answer) < 2:
            answer += connection.recv(100)
        assert not answer.endswith(BODY), "most of the answer is still to come"
        faults.restore(route)
        answer += b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(BODY)


def test_a_gzip_bomb_is_small_until_it_is_decompressed(service: Service, faults: FaultProxy) -> None:
    status, body = post(faults.open(service.url, proxy.gzip_bomb))
    assert status == 200
    assert len(body) < 1_000_000
    assert len(gzip.decompress(body)) == proxy.FLOOD


def test_a_flood_is_as_large_as_its_content_length(service: Service, faults: FaultProxy) -> None:
    status, body = post(faults.open(service.url, proxy.flood))
    assert (status, len(body)) == (200, proxy.FLOOD)


def test_a_route_can_require_tls(service: Service, faults: FaultProxy, tmp_path: Path) -> None:
    context, file = server_context(tmp_path)
    route = faults.open(service.url, tls=context)
    assert post(route, tls=ssl.create_default_context(cafile=file)) == (200, BODY)
    assert route.url.startswith("https://")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"subject": x509.DNSName("modelarts.example.com")}, "IP address mismatch"),
        ({"valid_for": timedelta(days=-1)}, "has expired"),
    ],
    ids=["of another name", "expired"],
)
def test_a_route_can_have_an_invalid_certificate(
    service: Service, faults: FaultProxy, tmp_path: Path, options: dict[str, object], reason: str
) -> None:
    context, file = server_context(tmp_path, **options)
    route = faults.open(service.url, proxy.pass_on, tls=context)
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        post(route, tls=ssl.create_default_context(cafile=file))
    assert route.hits == 1
    assert service.requests == []


def test_closing_the_proxy_ends_its_open_connections(service: Service) -> None:
    with FaultProxy() as running:
        route = running.open(service.url, proxy.black_hole)
        connection = socket.create_connection(("127.0.0.1", route.port), timeout=60)
        connection.sendall(b"POST")
        wait_until(lambda: route.hits, "the connection")
    with connection:
        assert ended(connection)


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionError:
        return True
