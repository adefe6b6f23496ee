"""What stands before the service, as ASGI: the log, the faults, the gateway; and the sending of what they decide."""

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

from airflow_modelarts.testing.emulator.http.gateway import RawRequest, authorize
from airflow_modelarts.testing.emulator.http.log import RequestSeen
from airflow_modelarts.testing.emulator.http.responses import HttpResponse, ServiceError
from airflow_modelarts.testing.emulator.service.state import EmulatorState

#: Bytes; the largest body that is read.
LARGEST_BODY = 64 * 1024 * 1024
#: Seconds between two drops of a slow answer, at most.
DROP_INTERVAL = 0.1
#: Where the server puts the connection's transport, so that a fault can end it.
TRANSPORT = "airflow_modelarts.transport"
#: Paths that are not the service's, and meet neither faults nor gateway.
OWN_PATHS = ("/docs", "/openapi.json", "/emulator")


class GatewayMiddleware:
    """
    The middleware around the service.

    :param app: the routes.
    """

    def __init__(self, app: ASGIApp, state: EmulatorState) -> None:
        self.app = app
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] == "/" or scope["path"].startswith(OWN_PATHS):
            await self.app(scope, receive, send)
            return
        request = _Call(self, scope, receive, send)
        # Cancelled when the emulator stops, whose server has no use for knowing: the connection has ended by then.
        with contextlib.suppress(asyncio.CancelledError):
            await request.serve()


class _Call:
    """One request on its way through the front; a :class:`~airflow_modelarts.testing.emulator.control.faults.Call`."""

    def __init__(self, front: GatewayMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self.front, self.state = front, front.state
        self.scope, self._receive, self._send = scope, receive, send
        self.request_id = secrets.token_hex(16)
        self.now = self.state.gateway_time
        self.operation, self.project_id = _find_operation(scope["app"].routes, scope)
        self.path = scope["raw_path"].decode("latin-1")
        self.query = scope["query_string"].decode("latin-1")
        self.body = b""
        self.seen = RequestSeen(self.now, scope["method"], self.path, self.query, self.operation, self.request_id)

    async def serve(self) -> None:
        """Meet a fault or none, and be answered or not."""
        self.state.log.add(self.seen)
        fault = self.state.faults.take(self.scope["method"], self.path, self.operation)
        if not await self._read_body():
            return
        if fault is None:
            await self.send(await self.proceed())
            return
        self.seen.fault = fault.kind
        await fault.apply(self)

    async def proceed(self) -> HttpResponse:
        try:
            if len(self.body) > LARGEST_BODY:
                raise ServiceError("ModelArts.0104", "the request body is too large", status=413)
            if self.operation is None:
                raise ServiceError("APIGW.0101", "The API does not exist or has not been published")
            if self.project_id is not None:
                self._authorize(self.project_id)
            return await self._ask_service()
        except ServiceError as refusal:
            return refusal.answer(self.request_id)

    async def send(self, answer: HttpResponse) -> None:
        await self._start(answer)
        await self._send({"type": "http.response.body", "body": answer.body})
        self.seen.status = answer.status

    async def send_slowly(self, answer: HttpResponse, bytes_per_second: float) -> None:
        await self._start(answer)
        size = max(1, int(bytes_per_second * DROP_INTERVAL))
        for start in range(0, len(answer.body), size):
            drop = answer.body[start : start + size]
            await self._send({"type": "http.response.body", "body": drop, "more_body": True})
            await self.pause(len(drop) / bytes_per_second)
        await self._send({"type": "http.response.body", "body": b""})
        self.seen.status = answer.status

    async def cut_off(self, answer: HttpResponse, body_bytes: int) -> None:
        await self._start(answer)
        part = answer.body[: min(body_bytes, max(0, len(answer.body) - 1))]
        await self._send({"type": "http.response.body", "body": part, "more_body": True})
        self.scope[TRANSPORT].close()  # sends what is buffered first
        await self._until_disconnected()

    async def reset(self) -> None:
        reset_connection(self.scope[TRANSPORT])
        await self._until_disconnected()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _read_body(self) -> bool:
        """Read the body; return False when the caller has gone. No more is kept than is needed to refuse it."""
        parts, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return False
            if size <= LARGEST_BODY:
                parts.append(message.get("body", b""))
                size += len(parts[-1])
            if not message.get("more_body", False):
                self.body = b"".join(parts)
                return True

    def _authorize(self, project_id: str) -> None:
        headers: dict[str, list[str]] = {}
        for name, value in self.scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(_decode(value))
        arrival = RawRequest(self.scope["method"], self.path, self.query, headers, self.body)
        authorize(
            arrival,
            project_id,
            projects=self.state.projects,
            accounts=self.state.accounts,
            now=self.now,
            refused_token=self.state.settings.refused_token,
            refused_key=self.state.settings.refused_key,
        )

    async def _ask_service(self) -> HttpResponse:
        """Run the routes and catch their answer."""
        start: Message = {}
        body: list[bytes] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": self.body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.append(message.get("body", b""))

        await self.front.app({**self.scope, "request_id": self.request_id}, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        headers.pop("content-length", None)
        return HttpResponse(start["status"], b"".join(body), headers)

    async def _start(self, answer: HttpResponse) -> None:
        headers = {
            **answer.headers,
            "Content-Length": str(len(answer.body)),
            "Date": formatdate(self.now, usegmt=True),
            "X-Request-Id": self.request_id,
        }
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": answer.status, "headers": encoded})

    async def _until_disconnected(self) -> None:
        """Wait until the server knows that the connection has ended: it then misses no answer."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _find_operation(routes: Iterable[BaseRoute], scope: Scope) -> tuple[str | None, str | None]:
    """Return the operation's name and the project in the path; two Nones for a path that is none's."""
    for route in routes:
        match, child = route.matches(scope)
        if match is Match.FULL:
            parameters: dict[str, Any] = child["path_params"]
            return getattr(route, "operation_id", None), parameters.get("project_id")
    return None, None


def _decode(value: bytes) -> str:
    """Decode a header: the vendor's client sends UTF-8, and covers that by the signature."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def reset_connection(transport: asyncio.Transport) -> None:
    """End a connection so that the other side sees a reset instead of an end."""
    with contextlib.suppress(OSError):  # it may have ended already
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
