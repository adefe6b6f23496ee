"""Runs flows without sockets and sleeps: a script answers their steps, and the result records them."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from airflow_modelarts.api import operations
from airflow_modelarts.api.client import ClientConfig, Pager, call
from airflow_modelarts.api.credentials import AccessKey, Credentials, TokenCache
from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.http import (
    ConnectionReadError,
    FileReadError,
    ReadConnection,
    ReadFile,
    Request,
    Response,
    Sleep,
    TransportError,
)
from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.api.operations import ListOperation
from airflow_modelarts.api.retry import RetryPolicy
from tests.support.values import PROJECT_ID

T = TypeVar("T")

CONTRACT = Path(__file__).parents[1] / "data" / "contract"

#: 2026-01-31T12:00:00Z
NOON = 1769860800.0
ENDPOINT = "https://modelarts.example"
SECRET_KEY = "the-secret-key"
ACCESS_KEY = AccessKey("AK", SECRET_KEY)

#: The answer to one request.
Answer: TypeAlias = Response | TransportError
#: Answers every request.
Service: TypeAlias = Callable[[Request], Answer]


class Clock:
    """A clock that moves by each sleep, and by one second a request, so that no two attempts are simultaneous."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def no_jitter() -> float:
    """Draw the upper bound of every delay."""
    return 1.0


@dataclass
class FlowResult(Generic[T]):
    """The steps and pages of a flow, and its value or error."""

    steps: list[Any] = field(default_factory=list)
    pages: list[Any] = field(default_factory=list)
    raised: ModelArtsError | None = None
    returned: T | None = None

    @property
    def value(self) -> T | None:
        """The value of a flow that returned; the error of one that raised is raised again."""
        if self.raised is not None:
            raise self.raised
        return self.returned

    @property
    def error(self) -> ModelArtsError:
        """The error of a flow that raised."""
        assert self.raised is not None, f"it returned {self.returned!r}"
        return self.raised

    @property
    def requests(self) -> list[Request]:
        return [step for step in self.steps if isinstance(step, Request)]

    @property
    def sleeps(self) -> list[float]:
        """The seconds of each sleep."""
        return [step.seconds for step in self.steps if isinstance(step, Sleep)]

    @property
    def readings(self) -> list[ReadConnection]:
        return [step for step in self.steps if isinstance(step, ReadConnection)]


def run_flow(
    flow: Generator[Any, Any, T],
    answers: Iterable[Answer] | Service = (),
    *,
    clients: Iterable[ClientConfig | ConnectionReadError] | ClientConfig | Callable[[ReadConnection], Any] = (),
    files: Mapping[str, str] = {},
    on_page: Callable[[Any], None] | None = None,
    clock: Clock | None = None,
    max_steps: int = 1000,
) -> FlowResult[T]:
    """Run a flow to its end.

    :param answers: one for each request, in order, and all of them must be used; or a function that answers each.
    :param clients: the result of each reading of the connection, likewise; or one client for all readings.
    :param files: the texts of the files that exist, by path.
    :param on_page: is called with each page; by default the result collects them.
    :param clock: the clock that the flow moves.
    :param max_steps: the number of steps after which a flow counts as endless.
    """
    clock = clock or Clock()
    result: FlowResult[T] = FlowResult()
    scripts: dict[type, Iterator[Any]] = {
        Request: repeat(answers) if callable(answers) else iter(answers),
        ReadConnection: repeat(clients) if callable(clients) or isinstance(clients, ClientConfig) else iter(clients),
        ReadFile: repeat(lambda step: files.get(step.path, FileReadError("does not exist"))),
    }
    outcome: Any = None
    while True:
        try:
            step = flow.throw(outcome) if isinstance(outcome, BaseException) else flow.send(outcome)
        except StopIteration as end:
            result.returned = end.value
            break
        except ModelArtsError as error:
            result.raised = error
            break
        if not isinstance(step, Request | ReadConnection | ReadFile | Sleep):
            (on_page or result.pages.append)(step)
            outcome = None
            continue
        result.steps.append(step)
        assert len(result.steps) <= max_steps, "the flow does not end"
        outcome = _outcome(step, scripts, clock)
    for script in scripts.values():
        assert isinstance(script, repeat) or next(script, None) is None, "the flow did not use the whole script"
    return result


def pages(operation: ListOperation[Any], retries: RetryPolicy) -> Generator[Any, Any, None]:
    """Return a flow that yields the pages of a list operation between its steps."""
    pager = Pager(operation, retries)
    while page := (yield from pager.next_page()):
        yield page


def _outcome(step: Any, scripts: dict[type, Iterator[Any]], clock: Clock) -> Any:
    if isinstance(step, Sleep):
        clock.now += step.seconds
        return None
    outcome = next(scripts[type(step)], None)
    assert outcome is not None, f"the script has no answer for {step}"
    clock.now += isinstance(step, Request)
    return outcome(step) if callable(outcome) else outcome


def answer(content: Any = None, status: int = 200, **headers: str) -> Response:
    """Return an answer with JSON; header names are given with underscores."""
    body = b"" if content is None else json.dumps(content).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, {"content-type": "application/json", **named}, body)


def refuse(status: int, code: str | None = None, message: str = "no", **headers: str) -> Response:
    """Return an error in the API's own form, or an answer without body if there is no code."""
    return answer({"error_code": code, "error_msg": message} if code else None, status, **headers)


def client(
    credentials: Credentials = ACCESS_KEY,
    *,
    cache: TokenCache | None = None,
    clock: Clock | None = None,
    random: Callable[[], float] = no_jitter,
    project_id: str = PROJECT_ID,
) -> ClientConfig:
    """Return a client; by default with a cache and a clock of its own."""
    return ClientConfig(ENDPOINT, project_id, credentials, cache or TokenCache(), clock or Clock(), random)


ONCE = RetryPolicy(attempts=1)
FIVE_TIMES = RetryPolicy(attempts=5, initial_delay=1.0, max_delay=30.0, max_retry_after=60.0)

DESCRIBE = operations.describe_processor_task("abc")
DELETE = operations.delete_processor_task("abc")
CREATE = operations.create_processor_task(name="n", template={"id": "t"}, data_source={"type": "OBS"})
TASK = answer({"task_id": "abc", "status": 1})
OTHER_KEY = AccessKey("AK2", "another-secret-key")

REFUSED_CONNECTION = TransportError("connection refused", kind="connect", sent=False)
UNKNOWN_NAME = TransportError("no such host", kind="name", sent=False)
PLAIN_HTTP = TransportError("wrong version number", kind="tls", sent=False)
BAD_CERTIFICATE = TransportError("self-signed", kind="certificate", sent=False)
BROKEN = TransportError("reset by peer", kind="broken", sent=True)
TIMEOUT = TransportError("read timed out", kind="timeout", sent=True)
TOO_LARGE = TransportError("more than 64 MiB", kind="too_large", sent=True)


def describe(*answers: Answer, clients: tuple[ClientConfig, ...]) -> FlowResult[ProcessorTask]:
    """Run a call that describes a processing task, without retries."""
    return run_flow(call(DESCRIBE, ONCE), answers, clients=clients)
