"""The emulator's server: uvicorn in a thread, on a loopback address."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from airflow_modelarts.api.addresses import is_loopback
from airflow_modelarts.testing.emulator.control.fault_queue import Faults
from airflow_modelarts.testing.emulator.control.state import EmulatorState
from airflow_modelarts.testing.emulator.http.app import create_app
from airflow_modelarts.testing.emulator.http.middleware import TRANSPORT
from airflow_modelarts.testing.emulator.http.object_store import ObjectStore
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.settings import Settings

#: Seconds.
START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
#: Bytes of a request's head if uvicorn uses h11; a token can exceed h11's default of 64 KiB.
MAX_HEAD = 256 * 1024
#: Connections that wait to be accepted, enough for a thousand simultaneous callers.
BACKLOG = 4096


class EmulatorServer:
    """A local ModelArts with its IAM and its object store; a context manager.

    :param host: the address to listen on.
    :param port: of ModelArts and IAM; 0 for a free one.
    :param obs_port: of the object store; 0 for a free one.
    :param task_duration: seconds that a processing task takes.
    :param state: the service; by default a new one with ``task_duration``. Pass one to serve its tasks again.
    :param allow_remote: allow an address that other machines can reach. All data is fake, but anyone who can connect
        can use the control API.
    :raises ValueError: the host is not a loopback address, and ``allow_remote`` is not set.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        obs_port: int = 0,
        task_duration: float = 10.0,
        state: EmulatorState | None = None,
        allow_remote: bool = False,
    ) -> None:
        if not allow_remote and not is_loopback(host):
            raise ValueError(f"host {host!r} is not a loopback address: use one, such as 127.0.0.1")
        self.host = host
        self.port = port
        self.obs_port = obs_port
        self.state = state or EmulatorState(Settings(task_duration=task_duration))
        self._object_store = ObjectStore(self.state)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def faults(self) -> Faults:
        """The faults that apply to calls."""
        return self.state.faults

    @property
    def url(self) -> str:
        """Scheme, host and port of both ModelArts and IAM."""
        return self._url(self.port)

    @property
    def obs_url(self) -> str:
        """Scheme, host and port of the object store, which has a bucket ``my-bucket``."""
        return self._url(self.obs_port)

    def _url(self, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}"

    def airflow_connection(self) -> str:
        """Return the JSON of an Airflow connection to this server, for ``AIRFLOW_CONN_MODELARTS_DEFAULT``."""
        endpoints = {"iam_endpoint": self.url, "obs_endpoint": self.obs_url}
        extra = {"project_id": accounts.PROJECT_ID, "region": accounts.REGION, **endpoints}
        login = {"login": accounts.ACCESS_KEY, "password": accounts.SECRET_KEY}
        return json.dumps({"conn_type": "modelarts", "host": self.url, **login, "extra": extra})

    def start(self) -> None:
        """Start to serve. The ports are known afterwards, and stay the same at the next start.

        :raises OSError: the port is not available.
        :raises RuntimeError: the server did not start.
        """
        listeners = self._listen()
        config = uvicorn.Config(
            _ByPort(create_app(self.state, self._object_store), {self.obs_port: self._object_store}),
            loop="asyncio",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            date_header=False,  # the gateway's clock can differ from the machine's
            server_header=False,
            backlog=BACKLOG,
            h11_max_incomplete_event_size=MAX_HEAD,
        )
        self._server = server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(server, listeners)), name="modelarts-emulator", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the emulator did not start: see the error that its thread has printed")
            time.sleep(0.002)

    def stop(self) -> None:
        """Close all connections, also held and slow ones, and stop serving; safe to call twice."""
        server, thread, loop = self._server, self._thread, self._loop
        if server is None or thread is None or loop is None:
            return
        self._server = self._thread = self._loop = None
        self.state.faults.drop_held()
        asyncio.run_coroutine_threadsafe(_end(server), loop)
        thread.join(STOP_TIMEOUT)
        if thread.is_alive():
            server.force_exit = True
            thread.join(STOP_TIMEOUT)
        self._object_store.stop()

    async def _serve(self, server: uvicorn.Server, listeners: list[socket.socket]) -> None:
        self._loop = asyncio.get_running_loop()
        await server.serve(sockets=listeners)

    def _listen(self) -> list[socket.socket]:
        """Return the sockets of ModelArts and of the object store."""
        listener = self._bind(self.port)
        try:
            store = self._bind(self.obs_port)
        except OSError:
            listener.close()
            raise
        self.port, self.obs_port = listener.getsockname()[1], store.getsockname()[1]
        return [listener, store]

    def _bind(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # With the protocol given, asyncio sets TCP_NODELAY; without it each response takes 40 ms longer.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, port))
        except OSError as error:
            listener.close()
            raise OSError(error.errno, error.strerror, f"{self.host}:{port}") from None
        return listener


class _ByPort:
    """Sends each request to the application of the port that it came to; to the first one if the port has none."""

    def __init__(self, first: ASGIApp, others: Mapping[int, ASGIApp]) -> None:
        self._first, self._others = first, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._others.get(scope["server"][1], self._first)(scope, receive, send)


class _Protocol(AutoHTTPProtocol):  # type: ignore[valid-type, misc]  # its class depends on what is installed
    """uvicorn's protocol; it gives the application the connection's transport, so that a fault can close it."""

    app: ASGIApp

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wrap the application to add the transport to each scope."""
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport


async def _end(server: uvicorn.Server) -> None:
    """Make the server exit without waiting for connections or requests."""
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    await asyncio.sleep(0)  # the server processes the disconnects
    for task in list(server.server_state.tasks):
        task.cancel()
    server.should_exit = True
