"""A call that a fault applies to: the protocol that the HTTP middleware implements."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol

from airflow_modelarts.testing.emulator.service.errors import ServiceError


@dataclass(frozen=True)
class HttpResponse:
    """A complete HTTP response; the middleware adds ``Date``, ``X-Request-Id`` and the length."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Call(Protocol):
    """A request that a fault applies to, and the ways to answer it."""

    def proceed(self) -> Awaitable[HttpResponse]:
        """Let the gateway and the service handle the request; return their response without sending it."""

    def send(self, response: HttpResponse) -> Awaitable[None]:
        """Send a response."""

    def send_error(self, error: ServiceError, headers: dict[str, str]) -> Awaitable[None]:
        """Send an error of the service, with additional headers."""

    def send_slowly(self, response: HttpResponse, bytes_per_second: float) -> Awaitable[None]:
        """Send a response's body at a limited rate."""

    def cut_off(self, response: HttpResponse, body_bytes: int) -> Awaitable[None]:
        """Send the head of a response and the first bytes of its body, then close the connection."""

    def reset(self) -> Awaitable[None]:
        """Reset the connection."""
