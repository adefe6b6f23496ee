"""The emulator as a server: uvicorn in a thread, on a port of this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from airflow_modelarts.testing.emulator.control.faults import Faults
from airflow_modelarts.testing.emulator.http.app import create_app
from airflow_modelarts.testing.emulator.http.middleware import TRANSPORT
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.state import EmulatorState, Settings

#: Seconds.
START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
#: Bytes of a request's head where uvicorn reads it with h11, whose own 64 KiB a token can exceed.
LARGEST_HEAD = 256 * 1024
#: Connections that may wait to be accepted: a thousand callers can come at once.
BACKLOG = 4096


class EmulatorServer:
    """
    ModelArts and IAM on a port of this machine; a context manager.

    :param host: the address to listen on.
    :param port: 0 for a free one.
    :param task_duration: seconds a processing task takes.
    :param state: the service; by default a new one, with ``task_duration``. Give one to serve it again after a stop.
    :param allow_remote: listen on an address that other machines reach. Everything here is a fake, but whoever reaches
        the control API can do with it as they like.
    :raises ValueError: the host is not this machine's own address.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        task_duration: float = 10.0,
        state: EmulatorState | None = None,
        allow_remote: bool = False,
    ) -> None:
        if not allow_remote and not _is_loopback(host):
            raise ValueError(f"host is {host!r}: the emulator listens on loopback addresses alone, such as 127.0.0.1")
        self.host = host
        self.port = port
        self.state = state or EmulatorState(Settings(task_duration=task_duration))
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def faults(self) -> Faults:
        """The faults that calls can meet."""
        return self.state.faults

    @property
    def url(self) -> str:
        """Scheme, host and port, of ModelArts as of IAM."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def airflow_connection(self) -> str:
        """Return the JSON of an Airflow connection to it, for ``AIRFLOW_CONN_MODELARTS_DEFAULT``."""
        extra = {"project_id": accounts.PROJECT_ID, "region": accounts.REGION, "iam_endpoint": self.url}
        return json.dumps(
            {
                "conn_type": "modelarts",
                "host": self.url,
                "login": accounts.ACCESS_KEY,
                "password": accounts.SECRET_KEY,
                "extra": extra,
            }
        )

    def start(self) -> None:
        """
        Listen and serve; the port is known from here on, and stays the same when it is started again.

        :raises OSError: the port cannot be had.
        """
        listener = self._bind()
        config = uvicorn.Config(
            create_app(self.state),
            loop="asyncio",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            date_header=False,  # the gateway's clock need not be this machine's
            server_header=False,
            backlog=BACKLOG,
            h11_max_incomplete_event_size=LARGEST_HEAD,
        )
        self._server = server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(server, listener)), name="modelarts-emulator", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the emulator did not start; see its error above")
            time.sleep(0.002)

    def stop(self) -> None:
        """End every connection, held and slow ones included, and stop serving; safe to call twice."""
        server, thread, loop = self._server, self._thread, self._loop
        if server is None or thread is None or loop is None:
            return
        self._server = self._thread = self._loop = None
        self.state.faults.release_all()
        asyncio.run_coroutine_threadsafe(_end(server), loop)
        thread.join(STOP_TIMEOUT)
        if thread.is_alive():
            server.force_exit = True
            thread.join(STOP_TIMEOUT)

    async def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        await server.serve(sockets=[listener])

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # The protocol is named because asyncio switches Nagle's delay off (40 ms an answer) only where it is.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        return listener


class _Protocol(AutoHTTPProtocol):  # type: ignore[valid-type, misc]  # which class it is depends on what is installed
    """uvicorn's protocol, which shows the application its connection's transport so that a fault can end it."""

    app: ASGIApp

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wrap the application for this connection."""
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport


async def _end(server: uvicorn.Server) -> None:
    """Let the server exit, with nothing left for which it would wait."""
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    await asyncio.sleep(0)  # the server learns of it
    for task in list(server.server_state.tasks):
        task.cancel()
    server.should_exit = True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
