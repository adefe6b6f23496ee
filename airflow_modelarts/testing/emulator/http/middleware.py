"""ASGI middleware: logs requests, applies faults, authorizes, and sends the responses."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from collections.abc import Iterable
from email.utils import formatdate
from typing import Any

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_modelarts.testing.emulator.control.faults import HttpResponse
from airflow_modelarts.testing.emulator.control.log import LoggedRequest
from airflow_modelarts.testing.emulator.control.state import EmulatorState
from airflow_modelarts.testing.emulator.http.gateway import RawRequest, authorize
from airflow_modelarts.testing.emulator.http.responses import error_response
from airflow_modelarts.testing.emulator.service.errors import ServiceError

#: Bytes of the largest body that is accepted.
MAX_BODY = 64 * 1024 * 1024
#: Seconds between two chunks of a slow response, at most.
CHUNK_INTERVAL = 0.1
#: The key of the ASGI scope where the server stores the connection's transport, so that a fault can close it.
TRANSPORT = "airflow_modelarts.transport"
#: Prefixes of the paths that the emulator adds; neither faults nor the gateway apply to them.
OWN_PATHS = ("/docs", "/openapi.json", "/emulator")


class GatewayMiddleware:
    """The middleware around the routes of a service."""

    def __init__(self, app: ASGIApp, state: EmulatorState) -> None:
        self.app = app
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] == "/" or scope["path"].startswith(OWN_PATHS):
            await self.app(scope, receive, send)
            return
        # A call is cancelled when the emulator stops; its connection is closed by then, so the server need not know.
        with contextlib.suppress(asyncio.CancelledError):
            await _Call(self.app, self.state, scope, receive, send).serve()


class _Call:
    """One request; implements :class:`~airflow_modelarts.testing.emulator.control.faults.Call`."""

    def __init__(self, app: ASGIApp, state: EmulatorState, scope: Scope, receive: Receive, send: Send) -> None:
        self.app, self.state = app, state
        self.scope, self._receive, self._send = scope, receive, send
        self.request_id = secrets.token_hex(16)
        self.now = self.state.gateway_time
        self.operation, self.project_id = _find_operation(scope["app"].routes, scope)
        self.path = scope["raw_path"].decode("latin-1")
        self.query = scope["query_string"].decode("latin-1")
        self.body = b""
        self.logged = LoggedRequest(self.now, scope["method"], self.path, self.query, self.operation, self.request_id)

    async def serve(self) -> None:
        """Log the request, and answer it: by a fault if one applies."""
        self.state.log.add(self.logged)
        fault = self.state.faults.take(self.scope["method"], self.path, self.operation)
        if not await self._read_body():
            return
        if fault is None:
            await self.send(await self.proceed())
            return
        self.logged.fault = fault.kind
        await fault.apply(self)

    async def proceed(self) -> HttpResponse:
        try:
            if len(self.body) > MAX_BODY:
                raise ServiceError("ModelArts.0104", "the request body is too large", status=413)
            if self.operation is None:
                raise ServiceError("APIGW.0101", "The API does not exist or has not been published")
            if self.project_id is not None:
                self._authorize(self.project_id)
            return await self._call_routes()
        except ServiceError as error:
            return self._refuse(error)

    async def send_error(self, error: ServiceError, headers: dict[str, str]) -> None:
        await self.send(self._refuse(error, headers))

    async def send(self, response: HttpResponse) -> None:
        await self._start(response)
        await self._send({"type": "http.response.body", "body": response.body})
        self.state.log.answered(self.logged, response.status)

    async def send_slowly(self, response: HttpResponse, bytes_per_second: float) -> None:
        await self._start(response)
        size = max(1, int(bytes_per_second * CHUNK_INTERVAL))
        for start in range(0, len(response.body), size):
            chunk = response.body[start : start + size]
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(len(chunk) / bytes_per_second)
        await self._send({"type": "http.response.body", "body": b""})
        self.state.log.answered(self.logged, response.status)

    async def cut_off(self, response: HttpResponse, body_bytes: int) -> None:
        await self._start(response)
        part = response.body[: min(body_bytes, max(0, len(response.body) - 1))]
        await self._send({"type": "http.response.body", "body": part, "more_body": True})
        self.scope[TRANSPORT].close()  # it sends buffered bytes first
        await self._until_disconnected()

    async def reset(self) -> None:
        reset_connection(self.scope[TRANSPORT])
        await self._until_disconnected()

    def _refuse(self, error: ServiceError, headers: dict[str, str] | None = None) -> HttpResponse:
        self.logged.error_code = error.code
        return error_response(error, self.request_id, self.state.settings.not_found, headers)

    async def _read_body(self) -> bool:
        """Read the body; return False when the caller has disconnected. A body that is too large is not kept."""
        parts, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return False
            if size <= MAX_BODY:
                parts.append(message.get("body", b""))
                size += len(parts[-1])
            if not message.get("more_body", False):
                self.body = b"".join(parts)
                return True

    def _authorize(self, project_id: str) -> None:
        headers: dict[str, list[str]] = {}
        for name, value in self.scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(_decode(value))
        authorize(
            RawRequest(self.scope["method"], self.path, self.query, headers, self.body),
            project_id,
            projects=self.state.projects,
            accounts=self.state.accounts,
            settings=self.state.settings,
            now=self.now,
        )

    async def _call_routes(self) -> HttpResponse:
        """Call the routes, and return their response without sending it."""
        start: Message = {}
        body: list[bytes] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": self.body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.append(message.get("body", b""))

        await self.app(self.scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        headers.pop("content-length", None)
        return HttpResponse(start["status"], b"".join(body), headers)

    async def _start(self, response: HttpResponse) -> None:
        headers = {
            **response.headers,
            "Content-Length": str(len(response.body)),
            "Date": formatdate(self.state.clock.now() + self.state.settings.clock_offset, usegmt=True),
            "X-Request-Id": self.request_id,
        }
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": response.status, "headers": encoded})

    async def _until_disconnected(self) -> None:
        """Wait until the server has seen the disconnect; otherwise it would report a missing response."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _find_operation(routes: Iterable[BaseRoute], scope: Scope) -> tuple[str | None, str | None]:
    """Return the operation's name and the project in the path; None twice when the path is not an operation's."""
    for route in routes:
        match, child = route.matches(scope)
        if match is Match.FULL:
            parameters: dict[str, Any] = child["path_params"]
            return getattr(route, "operation_id", None), parameters.get("project_id")
    return None, None


def _decode(value: bytes) -> str:
    """Decode a header: the vendor's client sends and signs UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def reset_connection(transport: asyncio.Transport) -> None:
    """Close a connection so that the other side sees a reset."""
    with contextlib.suppress(OSError):  # it may be closed already
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
