"""What can go wrong between a caller and the service: faults that wait for the calls they are meant for."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable
from concurrent.futures import Future
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from airflow_modelarts.testing.emulator.http.responses import HttpResponse, ServiceError

When = Literal["before", "after"]
MalformedKind = Literal["html", "truncated_json", "wrong_content_type", "empty", "not_an_object"]
FaultT = TypeVar("FaultT", bound="Fault")


class Call(Protocol):
    """A request that has met a fault, and what can be done with it; the front provides it."""

    request_id: str
    #: The gateway's clock, in seconds since the epoch.
    now: float

    def proceed(self) -> Awaitable[HttpResponse]:
        """Let the gateway and the service act, and return the answer without sending it."""

    def send(self, answer: HttpResponse) -> Awaitable[None]:
        """Send an answer."""

    def send_slowly(self, answer: HttpResponse, bytes_per_second: float) -> Awaitable[None]:
        """Send an answer's body drop by drop."""

    def cut_off(self, answer: HttpResponse, body_bytes: int) -> Awaitable[None]:
        """Send the head of an answer and a part of its body, and end the connection."""

    def reset(self) -> Awaitable[None]:
        """End the connection at once, so that the caller sees it reset."""

    def pause(self, seconds: float) -> Awaitable[None]:
        """Let time pass."""


@dataclass(eq=False, kw_only=True)
class Fault:
    """
    Something that goes wrong.

    :param times: how many calls it is for; None for all until it is removed.
    :param skip: how many calls that match it lets pass first.
    :param method: for calls with this HTTP method only.
    :param path: for calls whose path contains this only.
    :param operation: for calls of this operation only, for example ``DescribeProcessorTask``.
    """

    kind: ClassVar[str]
    times: int | None = 1
    skip: int = 0
    method: str | None = None
    path: str | None = None
    operation: str | None = None
    #: Names it in the control API.
    fault_id: int = field(default_factory=itertools.count(1).__next__)
    #: How many calls it has been applied to.
    hits: int = 0

    def matches(self, method: str, path: str, operation: str | None) -> bool:
        """Whether it is meant for a call."""
        return (
            self.method in (None, method)
            and (self.path is None or self.path in path)
            and self.operation in (None, operation)
        )

    @property
    def is_over(self) -> bool:
        """Whether it does nothing any more, whatever calls come."""
        return False

    def applies(self) -> bool:
        """Whether it is for the call that has come now and matches."""
        return True

    async def apply(self, call: Call) -> None:
        """Do to a call what it does."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Let go of the calls it holds, if it holds any."""


@dataclass(eq=False, kw_only=True)
class AnswerInstead(Fault):
    """Answer in the place of the service, which does not see the call."""

    kind: ClassVar[str] = "answer"
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    async def apply(self, call: Call) -> None:
        """Send the answer."""
        await call.send(HttpResponse(self.status, self.body, self.headers))


@dataclass(eq=False, kw_only=True)
class Refuse(Fault):
    """
    Refuse in the place of the service, with one of its codes.

    :param retry_after: seconds or an HTTP date, for the header ``Retry-After``.
    """

    kind: ClassVar[str] = "refuse"
    code: str
    message: str | None = None
    status: int | None = None
    retry_after: str | None = None

    @classmethod
    def expired_token(cls, **match: Any) -> Refuse:
        """Refuse as the gateway refuses a token that has expired."""
        return cls(code="APIGW.0301", message="Incorrect IAM authentication information: token expires", **match)

    async def apply(self, call: Call) -> None:
        """Send the refusal."""
        answer = ServiceError(self.code, self.message, status=self.status).answer(call.request_id)
        if self.retry_after is not None:
            answer.headers["Retry-After"] = self.retry_after
        await call.send(answer)


@dataclass(eq=False, kw_only=True)
class LimitRate(Refuse):
    """
    Refuse calls that come faster than a rate, by default with 429; the others pass. A token bucket.

    :param times: how many calls it refuses; None for all until it is removed.
    :param rate: calls a second that pass.
    :param burst: calls that pass at once.
    """

    kind: ClassVar[str] = "limit_rate"
    times: int | None = None
    code: str = "APIGW.0308"
    rate: float
    burst: int = 1

    def __post_init__(self) -> None:
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
    """
    Answer late, or drop by drop.

    :param seconds: before the answer begins.
    :param bytes_per_second: of the answer's body; None for no limit.
    """

    kind: ClassVar[str] = "slow"
    seconds: float = 0.0
    bytes_per_second: float | None = None

    async def apply(self, call: Call) -> None:
        """Act at once, and let the answer wait."""
        answer = await call.proceed()
        await call.pause(self.seconds)
        if self.bytes_per_second is None:
            await call.send(answer)
        else:
            await call.send_slowly(answer, self.bytes_per_second)


@dataclass(eq=False, kw_only=True)
class Hold(Fault):
    """
    Hold calls until they are released: before the service acts, or after it has acted and before it answers.

    A caller can be killed meanwhile, so that the point of its death is exact.
    """

    kind: ClassVar[str] = "hold"
    when: When = "before"

    def __post_init__(self) -> None:
        self._someone_is_held = threading.Event()
        self._go_on: Future[bool] = Future()

    @property
    def is_over(self) -> bool:
        """Whether it has been released or dropped."""
        return self._go_on.done()

    async def apply(self, call: Call) -> None:
        """Hold the call."""
        answer = await call.proceed() if self.when == "after" else None
        self._someone_is_held.set()
        # Not the future itself: cancelling this call must not cancel what the others wait for.
        if not await asyncio.shield(asyncio.wrap_future(self._go_on)):
            await call.reset()
            return
        await call.send(answer or await call.proceed())

    def wait(self, timeout: float = 30.0) -> bool:
        """Wait until a call is held; return False when none is after ``timeout`` seconds."""
        return self._someone_is_held.wait(timeout)

    def release(self) -> None:
        """Let the calls go on that it holds, and hold no more; one held before acting is acted upon now."""
        if not self._go_on.done():
            self._go_on.set_result(True)

    def drop(self) -> None:
        """End the connections of the calls held, and hold no more; one held before acting is never acted upon."""
        if not self._go_on.done():
            self._go_on.set_result(False)

    def cancel(self) -> None:
        """Drop what is held."""
        self.drop()


@dataclass(eq=False, kw_only=True)
class CutOff(Fault):
    """Act, and send only the beginning of the answer before the connection ends."""

    kind: ClassVar[str] = "cut_off"
    body_bytes: int = 10

    async def apply(self, call: Call) -> None:
        """Cut the answer off."""
        await call.cut_off(await call.proceed(), self.body_bytes)


@dataclass(eq=False, kw_only=True)
class Reset(Fault):
    """Reset the connection before the service acts, or after it has acted and before it answers."""

    kind: ClassVar[str] = "reset"
    when: When = "before"

    async def apply(self, call: Call) -> None:
        """Reset the connection."""
        if self.when == "after":
            await call.proceed()
        await call.reset()


@dataclass(eq=False, kw_only=True)
class Malformed(Fault):
    """Act, and answer 200 with something that is not the operation's JSON."""

    kind: ClassVar[str] = "malformed"
    form: MalformedKind = "html"

    async def apply(self, call: Call) -> None:
        """Spoil the answer."""
        body = (await call.proceed()).body
        spoilt, content_type = {
            "html": (b"<!DOCTYPE html><html><title>Maintenance</title><body>Back soon.</body></html>", "text/html"),
            "truncated_json": (body[: max(1, len(body) // 2)], "application/json"),
            "wrong_content_type": (body, "application/octet-stream"),
            "empty": (b"", "application/json"),
            "not_an_object": (b"[[1, 2], null]", "application/json"),
        }[self.form]
        await call.send(HttpResponse(200, spoilt, {"Content-Type": content_type}))


class Faults:
    """The faults that wait for their calls; each call meets at most one, the one that was added first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []
        self._holding: list[Hold] = []

    def add(self, fault: FaultT) -> FaultT:
        """Add a fault, and return it."""
        with self._lock:
            self._waiting.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Take a fault back, and let go of what it holds."""
        fault.cancel()
        with self._lock:
            self._waiting = [other for other in self._waiting if other is not fault]
            self._holding = [other for other in self._holding if other is not fault]

    def clear(self) -> None:
        """Take all faults back, and drop what they hold."""
        with self._lock:
            known, self._waiting, self._holding = [*self._waiting, *self._holding], [], []
        for fault in known:
            fault.cancel()

    def release_all(self) -> None:
        """Drop what is held, and leave the faults that wait for calls: the emulator stops."""
        with self._lock:
            holding, self._holding = self._holding, []
        for hold in holding:
            hold.drop()

    def all(self) -> list[Fault]:
        """Return the faults that wait for calls, and those that hold some."""
        with self._lock:
            known = [*self._waiting, *(hold for hold in self._holding if hold not in self._waiting)]
        return [fault for fault in known if not fault.is_over]

    def take(self, method: str, path: str, operation: str | None) -> Fault | None:
        """Return the fault that a call meets, None for none."""
        with self._lock:
            for fault in self._waiting:
                if fault.is_over or not fault.matches(method, path, operation):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.applies():
                    self._count(fault)
                    return fault
        return None

    def _count(self, fault: Fault) -> None:
        fault.hits += 1
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self._waiting.remove(fault)
        if isinstance(fault, Hold) and fault not in self._holding:
            self._holding.append(fault)

    # Shorthands; ``match`` are the fields of Fault: times, skip, method, path, operation

    def throttle(self, times: int | None = 1, *, retry_after: int | str | None = None, **match: Any) -> Refuse:
        """Answer 429; ``retry_after`` in seconds or as an HTTP date."""
        header = None if retry_after is None else str(retry_after)
        return self.add(Refuse(code="APIGW.0308", retry_after=header, times=times, **match))

    def throttle_until(self, moment: float, times: int | None = 1, **match: Any) -> Refuse:
        """Answer 429 with a date in ``Retry-After``; ``moment`` in seconds since the epoch."""
        return self.throttle(times, retry_after=formatdate(moment, usegmt=True), **match)

    def limit_rate(
        self, rate: float, burst: int = 1, *, retry_after: int | str | None = None, **match: Any
    ) -> LimitRate:
        """Answer 429 to calls that come faster than ``rate`` a second, or what ``code`` and ``status`` say."""
        header = None if retry_after is None else str(retry_after)
        return self.add(LimitRate(rate=rate, burst=burst, retry_after=header, **match))

    def answer(
        self, status: int, body: bytes | str = b"", headers: dict[str, str] | None = None, **match: Any
    ) -> AnswerInstead:
        """Answer in the place of the service."""
        data = body.encode() if isinstance(body, str) else body
        return self.add(AnswerInstead(status=status, body=data, headers=headers or {}, **match))

    def refuse(self, code: str, message: str | None = None, *, status: int | None = None, **match: Any) -> Refuse:
        """Refuse with a code of the contract, and by default with its status and meaning."""
        return self.add(Refuse(code=code, message=message, status=status, **match))

    def expire_token(self, **match: Any) -> Refuse:
        """Answer as to a token that has expired."""
        return self.add(Refuse.expired_token(**match))

    def redirect(self, location: str, **match: Any) -> AnswerInstead:
        """Redirect to another address."""
        return self.answer(307, headers={"Location": location}, **match)

    def slow(self, seconds: float, **match: Any) -> Slow:
        """Answer late."""
        return self.add(Slow(seconds=seconds, **match))

    def trickle(self, bytes_per_second: float, **match: Any) -> Slow:
        """Answer drop by drop."""
        return self.add(Slow(bytes_per_second=bytes_per_second, **match))

    def hold(self, when: When = "before", **match: Any) -> Hold:
        """Hold the call until it is released, before or after the service acts."""
        return self.add(Hold(when=when, **match))

    def cut_off(self, body_bytes: int = 10, **match: Any) -> CutOff:
        """Act, send the beginning of the answer, and end the connection."""
        return self.add(CutOff(body_bytes=body_bytes, **match))

    def reset(self, when: When = "before", **match: Any) -> Reset:
        """Reset the connection, before or after the service acts."""
        return self.add(Reset(when=when, **match))

    def malformed(self, form: MalformedKind = "html", **match: Any) -> Malformed:
        """Act, and answer 200 with something that is not the operation's JSON."""
        return self.add(Malformed(form=form, **match))
