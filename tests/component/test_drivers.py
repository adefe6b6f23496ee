"""Tests of both drivers against servers on loopback: faults, TLS, names, limits of time, sessions."""

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Callable
from errno import ECONNRESET
from pathlib import Path
from typing import Any

import pytest

from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import ModelArtsConfigurationError, ModelArtsError, ModelArtsTransientError
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.hooks import ModelArtsAsyncHook, ModelArtsHook
from airflow_modelarts.transport import exchange, faults, requests_adapter
from tests.support.loopback import (
    DESCRIBE,
    ONCE,
    TASK,
    Carry,
    Serve,
    call_asynchronously,
    call_synchronously,
    hang,
    http,
    read_request,
    send_slowly,
)
from tests.support.waiting import wait_until


def reset(connection: socket.socket, _: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def trickle(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    send_slowly(connection, b" ")


def cut_chunked(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"task_id": "abc"')


def close(_connection: socket.socket, _request: bytes) -> None:
    """Close the connection without an answer."""


def tls_alert(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46")


NGINX = b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>"
GO = b"Client sent an HTTP request to an HTTPS server.\n"
APACHE = b"<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />"


FAULTS: dict[str, tuple[Callable[[socket.socket, bytes], None], type[ModelArtsError], str]] = {
    "reset": (reset, ModelArtsTransientError, "no answer from http://127.0.0.1"),
    "closed without an answer": (close, ModelArtsTransientError, "no answer from"),
    "hangs": (hang, ModelArtsTransientError, "timed out|Timeout"),
    "cut": (http("200 OK", b'{"task_id"', Content_Length="400"), ModelArtsTransientError, "no answer from"),
    "cut in a chunk": (cut_chunked, ModelArtsTransientError, "no answer from"),
    "not http": (lambda c, _: c.sendall(b"SSH-2.0-OpenSSH\r\n"), ModelArtsTransientError, "no answer from"),
    "html": (http("200 OK", b"<html>", Content_Type="text/html"), ModelArtsTransientError, "text/html"),
    "false gzip": (http("200 OK", b"{}", Content_Encoding="gzip"), ModelArtsTransientError, "no answer from"),
    "http to a port for https": (tls_alert, ModelArtsConfigurationError, "speaks TLS, not plain http.*write https://"),
    "http to nginx's port for https": (http("400 Bad", NGINX), ModelArtsConfigurationError, "speaks TLS, not plain"),
    "http to Go's port for https": (http("400 Bad", GO), ModelArtsConfigurationError, "speaks TLS, not plain http"),
    "http to Apache's port for https": (http("400 Bad", APACHE), ModelArtsConfigurationError, "speaks TLS, not plain"),
    "redirect": (http("302 Found", Location="http://127.0.0.1:1/"), ModelArtsConfigurationError, "redirect"),
    "503": (http("503 Busy", b"<html>"), ModelArtsTransientError, "HTTP 503"),
}


@pytest.mark.parametrize(("behave", "kind", "text"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_the_same_error_in_both_drivers(
    serve: Serve, set_connection: Any, carry_out: Carry, behave: Any, kind: type[ModelArtsError], text: str
) -> None:
    server = serve(behave)
    # Only one of them times out; the others are answered, also on a slow machine.
    extra = {"read_timeout": "1" if behave is hang else "30"}
    set_connection(host=f"http://127.0.0.1:{server.port}", extra=extra)
    with pytest.raises(kind, match=text) as caught:
        carry_out(DESCRIBE, ONCE)
    wait_until(lambda: server.requests, "the request")  # the client can time out before the server has read it
    # aiohttp sends a GET once more if the connection breaks before there is an answer.
    repeats = carry_out is call_asynchronously and behave in (reset, close)
    assert len(server.requests) == 1 + repeats, "the driver repeats nothing else by itself, and follows no redirect"
    assert caught.value.outcome_unknown == (kind is ModelArtsTransientError)


def test_a_refused_connection_was_certainly_not_sent(set_connection: Callable[..., None], carry_out: Carry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    set_connection(host=f"http://127.0.0.1:{port}")
    with pytest.raises(ModelArtsTransientError, match="Connect") as caught:
        carry_out(DESCRIBE, ONCE)
    assert not caught.value.outcome_unknown


def answer_once(lost: list[bytes]) -> Callable[[socket.socket, bytes], None]:
    """Answer the first request of a connection, and close it at the second one, as if that crossed the closing."""

    def behave(connection: socket.socket, request: bytes) -> None:
        http("200 OK", json.dumps(TASK).encode(), Connection="keep-alive")(connection, request)
        lost.append(read_request(connection))

    return behave


def test_a_get_whose_connection_the_server_closes_meanwhile_is_sent_again(serve: Serve) -> None:
    lost: list[bytes] = []
    server = serve(answer_once(lost))

    async def describe_twice() -> None:
        async with ModelArtsAsyncHook(retries=ONCE) as hook:
            for _ in range(2):
                assert (await hook.call(DESCRIBE)).task_id == "abc"

    asyncio.run(describe_twice())
    assert len(server.requests) == 2
    assert lost[0].startswith(b"GET ")


@pytest.mark.parametrize(
    "change",
    [
        operations.create_processor_task(
            name="check", template={"id": "sys_data_validation"}, inputs=[{"type": "DATASET", "source": "abc"}]
        ),
        operations.update_processor_task("abc", description="checked"),
        operations.delete_processor_task("abc"),
    ],
    ids=lambda operation: operation.method,
)
def test_a_change_whose_connection_the_server_closes_meanwhile_is_not_sent_again(serve: Serve, change: Any) -> None:
    lost: list[bytes] = []
    server = serve(answer_once(lost))

    async def change_twice() -> None:
        async with ModelArtsAsyncHook(retries=ONCE) as hook:
            await hook.call(change)
            with pytest.raises(ModelArtsTransientError) as caught:
                await hook.call(change)
            assert caught.value.outcome_unknown

    asyncio.run(change_twice())
    assert len(server.requests) == 1
    assert lost[0].startswith(change.method.encode())


@pytest.mark.parametrize(
    ("extra", "service"),
    [({}, "ModelArts"), ({"auth": "password", "domain_name": "account"}, "IAM")],
    ids=["access key", "password"],
)
def test_a_misspelt_region_is_named_after_a_second_lookup(
    set_connection: Any, monkeypatch: pytest.MonkeyPatch, carry_out: Carry, extra: dict[str, str], service: str
) -> None:
    looked_up: list[Any] = []

    def resolve(host: Any, *_: Any, **__: Any) -> None:
        looked_up.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "no luck with that name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    set_connection(host=None, extra={"region": "cn-nort-4", **extra})
    words = (
        f"^region 'cn-nort-4' of connection 'modelarts_default' has no {service} endpoint that resolves: check its "
        "spelling, or set host"
    )
    with pytest.raises(ModelArtsConfigurationError, match=words):
        carry_out(DESCRIBE, RetryPolicy(initial_delay=0.01))
    assert len(looked_up) == 2


def test_a_host_that_has_answered_before_and_does_not_resolve_is_a_temporary_error(
    serve: Serve, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one failed name lookup would end all waits of a triggerer."""

    def resolve(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no luck with that name")

    server = serve(http("200 OK", json.dumps(TASK).encode()))
    set_connection(host=f"http://localhost:{server.port}")
    with ModelArtsHook(retries=ONCE) as hook, monkeypatch.context() as patch:
        hook.call(DESCRIBE)
        patch.setattr(socket, "getaddrinfo", resolve)
        with pytest.raises(ModelArtsTransientError, match="no luck with that name"):
            hook.call(DESCRIBE)

    async def run() -> None:
        async with ModelArtsAsyncHook(retries=ONCE) as hook:
            await hook.call(DESCRIBE)
            await hook.close()  # it caches the address for ten seconds
            with monkeypatch.context() as patch:
                patch.setattr(socket, "getaddrinfo", resolve)
                with pytest.raises(ModelArtsTransientError, match="no luck with that name"):
                    await hook.call(DESCRIBE)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (socket.EAI_NONAME, ModelArtsConfigurationError),
        (socket.EAI_NODATA, ModelArtsConfigurationError),
        (socket.EAI_AGAIN, ModelArtsTransientError),
        (socket.EAI_FAIL, ModelArtsTransientError),
    ],
    ids=["no such host", "no address of that host", "resolver outage", "resolver fails"],
)
def test_an_unknown_host_name_and_a_failing_resolver_are_different_errors(
    monkeypatch: pytest.MonkeyPatch, carry_out: Carry, code: int, kind: type[ModelArtsError]
) -> None:
    def resolve(*_: Any, **__: Any) -> None:
        raise socket.gaierror(code, "no luck with that name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(kind, match="no luck with that name") as caught:
        carry_out(DESCRIBE, ONCE)
    assert not caught.value.outcome_unknown


def test_the_time_for_a_slow_body_is_limited(serve: Serve, carry_out: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "TOTAL_TIMEOUT", 0.3)
    serve(trickle)
    with pytest.raises(ModelArtsTransientError, match=r"timed out|no end after"):
        carry_out(DESCRIBE, ONCE)


def trickle_after(beginning: bytes) -> Callable[[socket.socket, bytes], None]:
    """Send the beginning of an answer, then a byte at a time, until the caller closes the connection."""

    def behave(connection: socket.socket, _: bytes) -> None:
        connection.sendall(beginning)
        send_slowly(connection, b"x")

    return behave


@pytest.mark.parametrize(
    "beginning",
    [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 ", b"HTTP/1.1 103 Early Hints\r\nLink: "],
    ids=["header", "reason", "interim answer"],
)
def test_the_time_for_a_slow_head_is_limited(
    serve: Serve, carry_out: Carry, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(exchange, "TOTAL_TIMEOUT", 0.3)
    serve(trickle_after(beginning))
    with pytest.raises(ModelArtsTransientError, match="timed out"):
        carry_out(DESCRIBE, ONCE)


def test_a_head_that_takes_too_long_timed_out_whatever_the_closed_socket_says() -> None:
    class Reset:
        def getresponse(self) -> None:
            self._shut_down()  # type: ignore[attr-defined]  # of the class that this is mixed into
            raise ConnectionResetError(ECONNRESET, "Connection reset by peer")

    class Connection(requests_adapter._HeadDeadline, Reset):
        sock = None

    with pytest.raises(TimeoutError) as raised:
        Connection().getresponse()
    assert faults.describe(raised.value) == "timed out"


def test_the_time_for_a_slow_head_over_tls_is_limited(
    serve: Serve, set_connection: Any, certificate: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "TOTAL_TIMEOUT", 0.3)
    server = serve(trickle_after(b"HTTP/1.1 200 OK\r\nX-Slow: "), tls=certificate[0])
    set_connection(host=f"127.0.0.1:{server.port}", extra={"verify": str(certificate[1])})
    with pytest.raises(ModelArtsTransientError, match="timed out"):
        call_synchronously(DESCRIBE, ONCE)


def test_the_signed_request_is_sent_unchanged(
    serve: Serve, carry_out: Carry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A ~/.netrc could replace the Authorization header, and both libraries could rewrite URLs."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    task_id = "a b?ü~%41'\"<"
    server = serve(http("200 OK", json.dumps({"task_id": task_id}).encode()))
    carry_out(operations.describe_processor_task(task_id), ONCE)
    head = server.requests[0].decode()
    assert "/processor-tasks/a%20b%3F%C3%BC~%2541%27%22%3C HTTP/1.1" in head
    assert "Authorization: SDK-HMAC-SHA256 Access=FAKEACCESSKEY" in head
    assert f"Host: 127.0.0.1:{server.port}\r\n" in head


def test_cookies_are_not_kept(serve: Serve) -> None:
    server = serve(http("200 OK", json.dumps(TASK).encode(), Set_Cookie="session=1; Path=/"))
    with ModelArtsHook() as hook:
        hook.describe_processor_task("abc")
        hook.describe_processor_task("abc")
    assert b"session" not in server.requests[1]


def test_an_unknown_certificate_is_an_error_that_names_the_verify_extra(
    serve: Serve, set_connection: Callable[..., None], carry_out: Carry, certificate: tuple[ssl.SSLContext, Path]
) -> None:
    server = serve(http("200 OK", json.dumps(TASK).encode()), tls=certificate[0])
    set_connection(host=f"https://127.0.0.1:{server.port}")
    with pytest.raises(ModelArtsConfigurationError, match="verify extra"):
        carry_out(DESCRIBE, ONCE)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("is_verified", [True, False])
def test_a_certificate_authority_can_be_trusted_and_verification_turned_off(
    serve: Serve, set_connection: Any, carry_out: Carry, certificate: tuple[ssl.SSLContext, Path], is_verified: bool
) -> None:
    server = serve(http("200 OK", json.dumps(TASK).encode()), tls=certificate[0])
    set_connection(host=f"127.0.0.1:{server.port}", extra={"verify": is_verified and str(certificate[1])})
    assert carry_out(DESCRIBE, ONCE).status == 2


def test_a_driver_sleeps_between_attempts(serve: Serve, carry_out: Carry) -> None:
    behaviours = iter([http("503 Busy", Retry_After="0"), http("200 OK", json.dumps(TASK).encode())])
    serve(lambda connection, request: next(behaviours)(connection, request))
    assert carry_out(DESCRIBE, RetryPolicy(attempts=2)).status == 2


def test_a_list_requests_a_page_when_it_is_needed(serve: Serve) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        page = int(request.split(b"offset=")[1].split(b" ")[0])
        tasks = [{"task_id": f"task-{page}-{number}"} for number in range(2)]
        http("200 OK", json.dumps({"count": 4, "tasks": tasks}).encode())(connection, request)

    server = serve(answer)
    with ModelArtsHook() as hook:
        tasks = hook.list_processor_tasks(limit=2)
        assert [next(tasks).task_id, next(tasks).task_id] == ["task-0-0", "task-0-1"]
        assert len(server.requests) == 1
        assert [task.task_id for task in tasks] == ["task-1-0", "task-1-1"]

    async def run() -> list[str]:
        async with ModelArtsAsyncHook() as hook:
            return [task.task_id async for task in hook.list_processor_tasks(limit=2)]

    assert asyncio.run(run()) == ["task-0-0", "task-0-1", "task-1-0", "task-1-1"]


def test_both_hooks_log_what_a_list_leaves_out(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    items = [{"task_id": "a"}, None, {"task_id": {}}, "b", 7, {"task_id": "c"}]
    serve(http("200 OK", json.dumps({"count": 6, "tasks": items}).encode()))
    with ModelArtsHook() as hook:
        assert [task.task_id for task in hook.list_processor_tasks()] == ["a", "c"]

    async def run() -> list[str]:
        async with ModelArtsAsyncHook() as hook:
            return [task.task_id async for task in hook.list_processor_tasks()]

    assert asyncio.run(run()) == ["a", "c"]
    logged = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert (
        logged
        == [
            "ListProcessorTasks left out what it could not read on page 1: item 2 (no object), "
            "item 3 (no readable task_id), item 4 (no object) and 1 more."
        ]
        * 2
    )


def test_a_missing_airflow_connection_is_a_configuration_error() -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^Airflow connection 'not_there' does not exist: create it"):
        ModelArtsHook("not_there").describe_processor_task("abc")

    async def run() -> None:
        async with ModelArtsAsyncHook("not_there") as hook:
            await hook.describe_processor_task("abc")

    with pytest.raises(ModelArtsConfigurationError, match=r"^Airflow connection 'not_there' does not exist: create it"):
        asyncio.run(run())


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n"], ids=["empty", "broken"])
def test_an_invalid_file_of_certificate_authorities_is_a_configuration_error(
    serve: Serve, set_connection: Any, carry_out: Carry, certificate: tuple[ssl.SSLContext, Path], content: str
) -> None:
    server = serve(http("200 OK", json.dumps(TASK).encode()), tls=certificate[0])
    certificate[1].write_text(content)
    set_connection(host=f"127.0.0.1:{server.port}", extra={"verify": str(certificate[1])})
    with pytest.raises(ModelArtsConfigurationError, match="verify extra") as caught:
        carry_out(DESCRIBE, ONCE)
    assert not caught.value.outcome_unknown


def test_a_cancelled_call_releases_its_token_renewal(
    serve: Serve, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise that token could never be renewed again in this process."""
    has_arrived = threading.Event()

    def hang_visibly(connection: socket.socket, request: bytes) -> None:
        has_arrived.set()
        hang(connection, request)

    server = serve(hang_visibly)
    extra = {"auth": "password", "domain_name": "account", "iam_endpoint": f"http://127.0.0.1:{server.port}"}
    set_connection(host=f"http://127.0.0.1:{server.port}", extra=extra)

    async def run() -> None:
        async with ModelArtsAsyncHook(retries=ONCE) as hook:
            calling = asyncio.create_task(hook.call(DESCRIBE))
            assert await asyncio.to_thread(has_arrived.wait, 60)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            set_connection(host=f"http://127.0.0.1:{server.port}", extra={**extra, "read_timeout": "0.1"})
            with pytest.raises(ModelArtsTransientError, match="KeystoneCreateUserTokenByPassword"):
                async with ModelArtsAsyncHook(retries=ONCE) as another:
                    await another.call(DESCRIBE)

    asyncio.run(run())
