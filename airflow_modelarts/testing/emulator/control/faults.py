"""The kinds of faults, what can go wrong between a caller and the service, and the calls that they apply to."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

from pydantic import Field, WithJsonSchema

from airflow_modelarts.testing.emulator.service.errors import ServiceError
from airflow_modelarts.testing.emulator.service.settings import StrictFields

#: Text that is valid in an HTTP header.
HeaderText = Annotated[str, Field(pattern=r"^[\x20-\x7e]*$", max_length=4096)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$", max_length=128)]
HttpStatus = Annotated[int, Field(ge=200, le=599)]
PositiveCount = Annotated[int, Field(ge=1)]
PositiveRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[int, Field(ge=0)]
When = Literal["before", "after"]
#: The form of an error: the API's JSON, or a gateway's web page without a code.
ErrorForm = Literal["json", "html"]
MalformedKind = Literal["html", "truncated_json", "wrong_content_type", "empty", "not_an_object"]

#: The page of a gateway whose backend takes no more requests.
GATEWAY_PAGE = (
    b"<html><head><title>503 Service Temporarily Unavailable</title></head>"
    b"<body><h1>503 Service Temporarily Unavailable</h1></body></html>"
)

_next_id = itertools.count(1).__next__


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


@dataclass(eq=False, kw_only=True)
class Fault(StrictFields):
    """A fault. The fields of its subclasses are those of the control API.

    ``fault_id`` is its id in the control API; ``hits`` counts the calls that it was applied to.

    :param times: number of calls it applies to; None for all until it is removed.
    :param skip: number of matching calls that pass first.
    :param method: applies only to calls with this HTTP method.
    :param path: applies only to calls whose path contains this text.
    :param operation: applies only to calls of this operation, for example ``DescribeProcessorTask``.
    """

    kind: str = ""
    times: PositiveCount | None = 1
    skip: NonNegative = 0
    method: str | None = None
    path: str | None = None
    operation: str | None = None

    def __post_init__(self) -> None:
        self.fault_id = _next_id()
        self.hits = 0

    def matches(self, method: str, path: str, operation: str | None) -> bool:
        """Whether its filters match a call."""
        return (
            self.method in (None, method)
            and (self.path is None or self.path in path)
            and self.operation in (None, operation)
        )

    @property
    def is_over(self) -> bool:
        """Whether it applies to no more calls and holds none."""
        return self.times == 0

    def applies(self) -> bool:
        """Whether it applies to a matching call that has just arrived."""
        return True

    async def apply(self, call: Call) -> None:
        """Answer a call with the fault."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Drop the calls that it holds, if any."""


@dataclass(eq=False, kw_only=True)
class AnswerInstead(Fault):
    """Answer without calling the service. ``redirect`` is short for an answer with the header ``Location``.

    :param status: by default 200, and 307 for a redirect.
    :param location: target of a redirect.
    """

    kind: Literal["answer", "redirect"] = "answer"
    status: HttpStatus | None = None
    body: Annotated[bytes | str, WithJsonSchema({"type": "string"})] = b""
    headers: dict[HeaderName, HeaderText] = field(default_factory=dict)
    location: HeaderText = "http://emulator.invalid/"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "redirect":
            self.kind, self.status, self.headers = "answer", self.status or 307, {"Location": self.location}

    async def apply(self, call: Call) -> None:
        """Send the response."""
        body = self.body.encode("utf-8", "surrogatepass") if isinstance(self.body, str) else self.body
        await call.send(HttpResponse(self.status or 200, body, self.headers))


@dataclass(eq=False, kw_only=True)
class _ErrorAnswer(Fault):
    message: str | None = None
    status: HttpStatus | None = None
    retry_after: NonNegative | HeaderText | None = None
    code: str = "ModelArts.0101"
    form: ErrorForm = "json"

    async def apply(self, call: Call) -> None:
        """Send the error."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.form == "html":
            await call.send(HttpResponse(self.status or 503, GATEWAY_PAGE, {"Content-Type": "text/html", **headers}))
        else:
            await call.send_error(ServiceError(self.code, self.message, status=self.status), headers)


@dataclass(eq=False, kw_only=True)
class Refuse(_ErrorAnswer):
    """Answer with one of the contract's codes, without calling the service.

    ``throttle`` is short for HTTP 429 (APIGW.0308), ``expired_token`` for the gateway's answer to an expired token.

    :param message: by default the contract's meaning of the code.
    :param status: by default the contract's HTTP status for the code.
    :param retry_after: seconds or an HTTP date, for the header ``Retry-After``.
    :param form: ``html`` for a gateway's web page, by default with HTTP 503, instead of the code and the message.
    """

    kind: Literal["refuse", "throttle", "expired_token"] = "refuse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "throttle":
            self.code = "APIGW.0308"
        elif self.kind == "expired_token":
            self.code, self.message = "APIGW.0301", "Incorrect IAM authentication information: token expires"
        self.kind = "refuse"


@dataclass(eq=False, kw_only=True)
class LimitRate(_ErrorAnswer):
    """Refuse calls that exceed a rate, by default with HTTP 429; other calls pass. A token bucket.

    :class:`Refuse` describes the fields of the answer.

    :param times: number of calls it refuses; None for all until it is removed.
    :param rate: calls a second that pass.
    :param burst: calls that pass at once.
    """

    kind: Literal["limit_rate"] = "limit_rate"
    times: PositiveCount | None = None
    code: str = "APIGW.0308"
    rate: PositiveRate = 1.0
    burst: PositiveCount = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tokens, self._filled_at = float(self.burst), time.monotonic()

    def applies(self) -> bool:
        """Take a token; without one, the call is refused."""
        now = time.monotonic()
        self._tokens = min(float(self.burst), self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if self._tokens < 1:
            return True
        self._tokens -= 1
        return False


@dataclass(eq=False, kw_only=True)
class Slow(Fault):
    """Delay the response, or send its body at a limited rate.

    :param seconds: delay of the response; the service acts at once.
    :param bytes_per_second: rate of the body; None for no limit.
    """

    kind: Literal["slow"] = "slow"
    seconds: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 0.0
    bytes_per_second: PositiveRate | None = None

    async def apply(self, call: Call) -> None:
        """Let the service act, then delay its response."""
        response = await call.proceed()
        await asyncio.sleep(self.seconds)
        if self.bytes_per_second is None:
            await call.send(response)
        else:
            await call.send_slowly(response, self.bytes_per_second)


@dataclass(eq=False, kw_only=True)
class Hold(Fault):
    """Hold calls until they are released or dropped.

    A test can kill the caller meanwhile, at an exact point. A hold that is never released is a black hole.

    :param when: ``before`` the service acts, or ``after`` it has acted and before it answers.
    """

    kind: Literal["hold"] = "hold"
    when: When = "before"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._has_call = threading.Event()
        self._released: Future[bool] = Future()

    @property
    def is_over(self) -> bool:
        """Whether it has been released or dropped."""
        return self._released.done()

    async def apply(self, call: Call) -> None:
        """Hold the call."""
        response = await call.proceed() if self.when == "after" else None
        self._has_call.set()
        # Shielded: cancelling this call must not cancel the future that other calls wait for.
        if not await asyncio.shield(asyncio.wrap_future(self._released)):
            await call.reset()
            return
        await call.send(response or await call.proceed())

    def wait(self, timeout: float = 30.0) -> bool:
        """Wait until it holds a call; return False if it holds none after ``timeout`` seconds."""
        return self._has_call.wait(timeout)

    def release(self) -> None:
        """Let the held calls continue, and hold no more. The service now acts on calls held before it acted."""
        if not self._released.done():
            self._released.set_result(True)

    def drop(self) -> None:
        """Reset the connections of the held calls, and hold no more. The service never acts on calls held before."""
        if not self._released.done():
            self._released.set_result(False)

    cancel = drop


@dataclass(eq=False, kw_only=True)
class CutOff(Fault):
    """Let the service act, then send only the beginning of its response and close the connection."""

    kind: Literal["cut_off"] = "cut_off"
    body_bytes: NonNegative = 10

    async def apply(self, call: Call) -> None:
        """Cut the response off."""
        await call.cut_off(await call.proceed(), self.body_bytes)


@dataclass(eq=False, kw_only=True)
class Reset(Fault):
    """Reset the connection, ``before`` the service acts, or ``after`` it has acted and before it answers."""

    kind: Literal["reset"] = "reset"
    when: When = "before"

    async def apply(self, call: Call) -> None:
        """Reset the connection."""
        if self.when == "after":
            await call.proceed()
        await call.reset()


@dataclass(eq=False, kw_only=True)
class Malformed(Fault):
    """Let the service act, then answer HTTP 200 with a body that is not the operation's JSON."""

    kind: Literal["malformed"] = "malformed"
    form: MalformedKind = "html"

    async def apply(self, call: Call) -> None:
        """Send the malformed response."""
        original = (await call.proceed()).body
        body, content_type = {
            "html": (b"<!DOCTYPE html><html><title>Maintenance</title><body>Back soon.</body></html>", "text/html"),
            "truncated_json": (original[: max(1, len(original) // 2)], "application/json"),
            "wrong_content_type": (original, "application/octet-stream"),
            "empty": (b"", "application/json"),
            "not_an_object": (b"[[1, 2], null]", "application/json"),
        }[self.form]
        await call.send(HttpResponse(200, body, {"Content-Type": content_type}))


#: Every fault, by ``kind``: the body with which the control API adds one.
AnyFault = Annotated[
    AnswerInstead | Refuse | LimitRate | Slow | Hold | CutOff | Reset | Malformed, Field(discriminator="kind")
]
