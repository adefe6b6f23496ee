"""Drives flows by hand: a script answers the steps, and what happened is recorded. No sockets, no sleeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from airflow_modelarts.api.client import ClientConfig
from airflow_modelarts.api.credentials import AccessKey, Credentials, TokenCache
from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.http import (
    ConnectionReadError,
    ReadConnection,
    Request,
    Response,
    Sleep,
    TransportError,
)
from airflow_modelarts.api.retry import RetryPolicy

T = TypeVar("T")

CONTRACT = Path(__file__).parents[1] / "data" / "contract"

#: 2026-01-31T12:00:00Z
NOON = 1769860800.0
ENDPOINT = "https://modelarts.example"
PROJECT_ID = "0123456789abcdef0123456789abcdef"
SECRET_KEY = "the-secret-key"
ACCESS_KEY = AccessKey("AK", SECRET_KEY)

#: What makes up the answer to any request.
Service: TypeAlias = Callable[[Request], Response | TransportError]
#: What a script says to one request.
Answer: TypeAlias = Response | TransportError


class Clock:
    """A clock that moves by pauses, and by one second a request, so that two attempts never share a moment."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def no_jitter() -> float:
    """Draw the upper bound of every pause."""
    return 1.0


@dataclass
class Played(Generic[T]):
    """What a flow did, and how it ended."""

    steps: list[Any] = field(default_factory=list)
    pages: list[Any] = field(default_factory=list)
    error: ModelArtsError | None = None
    result: T | None = None

    @property
    def value(self) -> T | None:
        """The value, of a flow that did not fail."""
        if self.error is not None:
            raise self.error
        return self.result

    @property
    def refusal(self) -> ModelArtsError:
        """The error, of a flow that failed."""
        assert self.error is not None, f"it returned {self.result!r}"
        return self.error

    @property
    def requests(self) -> list[Request]:
        return [step for step in self.steps if isinstance(step, Request)]

    @property
    def pauses(self) -> list[float]:
        return [step.seconds for step in self.steps if isinstance(step, Sleep)]

    @property
    def readings(self) -> list[ReadConnection]:
        return [step for step in self.steps if isinstance(step, ReadConnection)]


def play(
    flow: Generator[Any, Any, T],
    answers: Iterable[Answer] | Service = (),
    *,
    clients: Iterable[ClientConfig | ConnectionReadError] | ClientConfig = (),
    clock: Clock | None = None,
    at_most: int = 1000,
) -> Played[T]:
    """
    Run a flow to its end.

    :param answers: one for each request, in order, and all of them are to be used; or a service for all requests.
    :param clients: one for each reading of the connection, likewise, or that it cannot be read; or one client for all
        readings.
    :param clock: is moved forward as the steps take time.
    :param at_most: the number of steps after which a flow counts as endless.
    """
    clock = clock or Clock()
    played: Played[T] = Played()
    scripts: dict[type, Iterator[Any]] = {
        Request: repeat(answers) if callable(answers) else iter(answers),
        ReadConnection: repeat(clients) if isinstance(clients, ClientConfig) else iter(clients),
    }
    reply: Any = None
    while True:
        try:
            step = flow.throw(reply) if isinstance(reply, BaseException) else flow.send(reply)
        except StopIteration as end:
            played.result = end.value
            break
        except ModelArtsError as error:
            played.error = error
            break
        reply = _reply(step, scripts, clock, played)
        assert len(played.steps) <= at_most, "the flow does not end"
    for script in scripts.values():
        assert isinstance(script, repeat) or next(script, None) is None, "the flow asked for less than the script has"
    return played


def _reply(step: Any, scripts: dict[type, Iterator[Any]], clock: Clock, played: Played[Any]) -> Any:
    if not isinstance(step, Request | ReadConnection | Sleep):
        played.pages.append(step)
        return None
    played.steps.append(step)
    if isinstance(step, Sleep):
        clock.now += step.seconds
        return None
    reply = next(scripts[type(step)], None)
    assert reply is not None, f"the script has no answer for {step}"
    if isinstance(step, ReadConnection):
        return reply
    clock.now += 1
    return reply(step) if callable(reply) else reply


def answer(content: Any = None, status: int = 200, **headers: str) -> Response:
    """Answer with JSON; header names are given with underscores."""
    body = b"" if content is None else json.dumps(content).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, {"content-type": "application/json", **named}, body)


def refuse(status: int, code: str | None = None, message: str = "no", **headers: str) -> Response:
    """Refuse in the API's own shape, or with an empty body where there is no code."""
    return answer({"error_code": code, "error_msg": message} if code else None, status, **headers)


def client(
    credentials: Credentials = ACCESS_KEY,
    *,
    cache: TokenCache | None = None,
    clock: Clock | None = None,
    random: Callable[[], float] = no_jitter,
    project_id: str = PROJECT_ID,
) -> ClientConfig:
    """Return a client with a cache and a clock of its own, unless they are given."""
    return ClientConfig(ENDPOINT, project_id, credentials, cache or TokenCache(), clock or Clock(), random)


ONCE = RetryPolicy(attempts=1)
FIVE_TIMES = RetryPolicy(attempts=5, initial_delay=1.0, max_delay=30.0, max_retry_after=60.0)

REFUSED_CONNECTION = TransportError("connection refused", kind="connect", sent=False)
UNKNOWN_NAME = TransportError("no such host", kind="name", sent=False)
PLAIN_HTTP = TransportError("wrong version number", kind="tls", sent=False)
BAD_CERTIFICATE = TransportError("self-signed", kind="certificate", sent=False)
BROKEN = TransportError("reset by peer", kind="broken", sent=True)
TIMEOUT = TransportError("read timed out", kind="timeout", sent=True)
TOO_LARGE = TransportError("more than 64 MiB", kind="too_large", sent=True)
