"""Whole calls, and whole lists, played with arbitrary answers: what may come of them, and what may not."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Generator, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_modelarts.api import errors, operations
from airflow_modelarts.api.client import ClientConfig, call, pages
from airflow_modelarts.api.credentials import (
    AccessKey,
    Credentials,
    InstanceAgency,
    PasswordToken,
    StaticToken,
    TokenCache,
)
from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.http import ReadConnection, Request, Response, Sleep, TransportError
from airflow_modelarts.api.models import ApiModel, ProcessorTask
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.retry import RetryPolicy
from tests.security.answers import LINK_SIGNATURE, SECRET_HEADERS, answer
from tests.security.draws import Draws, one_in, pick

#: 2026-01-31T12:00:00Z
NOON = 1769860800.0
ENDPOINT, IAM, METADATA = "https://modelarts.example", "https://iam.example", "http://169.254.169.254"
#: With what JSON and URLs write in another way.
SECRETS = ('secret"key\\of/a+user=', "security/token+with==signs", 'ready"token/+==', 'pass"wörd\\ /+&')
SECRET_KEY, SECURITY_TOKEN, TOKEN, PASSWORD = SECRETS
CREDENTIALS: tuple[Credentials, ...] = (
    AccessKey("AK", SECRET_KEY),
    AccessKey("AK", SECRET_KEY, SECURITY_TOKEN),
    StaticToken(TOKEN),
    PasswordToken(IAM, "user", PASSWORD, "domain"),
    PasswordToken(IAM, "user", PASSWORD, "domain", "project"),
    InstanceAgency(METADATA),
)
RETRIES = (RetryPolicy(attempts=1), RetryPolicy(attempts=2), RetryPolicy(attempts=4))
_SOURCE = {"type": "OBS", "source": "obs://b/k"}
CALLS: tuple[Operation[Any], ...] = (
    operations.create_processor_task(name="n", template={"id": "sys_data_cleaning"}, data_source=_SOURCE),
    operations.create_processor_task_version("t", name="n", template={"id": "sys_data_cleaning"}, inputs=[_SOURCE]),
    *(operations.describe_processor_task("t"),) * 4,
    operations.describe_processor_task_version("t", "v"),
    operations.update_processor_task("t", description="d"),
    operations.delete_processor_task("a?b c"),
    operations.delete_processor_task_version("t", "v"),
    operations.stop_processor_task_version("t", "v"),
    *(operations.list_processor_tasks(return_result=True).page(0),) * 2,
    operations.list_processor_task_version_results("t", "v").page(0),
)
LISTS: tuple[ListOperation[Any], ...] = (
    operations.list_processor_tasks(limit=2, return_result=True),
    operations.list_processor_tasks(),
    operations.list_processor_task_items(limit=2),
    operations.list_processor_task_versions("t", limit=2),
    operations.list_processor_task_version_results("t", "v", limit=2),
)
#: Every error that a caller may meet.
ERRORS = frozenset({*errors.ADVICE, ModelArtsError} - {ModelArtsError})
#: What can be sent as a header's value, whatever library sends it.
_SENDABLE = re.compile(r"[\t\x20-\x7e]*")
_SIGNATURE = re.compile(r"Signature=([0-9a-f]{64})")
#: As far as bytes that were cut have left it a link.
_SIGNED_LINK = re.compile(rf"(?i)://[^\s\"'<>]*[?&;](x-amz-)?signature={LINK_SIGNATURE}")
#: Answers after which a list is let end, whatever it would go on to ask for.
MANY_ANSWERS = 300
#: One in so many cases is looked at with the slow checks too.
LOOK_CLOSELY = 32


class BrokenPromiseError(AssertionError):
    """A promise that was not kept."""


@dataclass
class Case:
    """
    One flow and what it met.

    :param outcome: how it ended: ``returned``, or the error's name.
    :param secrets: what its credentials, grants and signatures must not be quoted.
    """

    draws: Draws
    operation: Operation[Any]
    credentials: Credentials
    steps: list[Any] = field(default_factory=list)
    answers: int = 0
    outcome: str = "returned"
    error: ModelArtsError | None = None
    secrets: set[str] = field(default_factory=lambda: set(SECRETS))

    def fail(self, reason: str) -> None:
        """Say which promise was broken."""
        raise BrokenPromiseError(f"{reason}\n{self}")


class Clock:
    """A clock that moves by pauses and answers."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def one_call(draws: Draws) -> Case:
    """Play one call to its end."""
    case = Case(draws, pick(draws, CALLS), pick(draws, CREDENTIALS))
    value = _play(case, call(case.operation, pick(draws, RETRIES)), pick(draws, _NOWHERE))
    if case.error is None:
        _check_value(case, value)
    return case


def one_answer(draws: Draws, text: bytes) -> Case:
    """Play one call whose requests are all answered with this text."""
    case = Case(draws, pick(draws, CALLS), pick(draws, CREDENTIALS[:3]))
    given = Response(pick(draws, (200, 200, 200, 400, 401, 404, 429, 500)), {"content-type": "application/json"}, text)
    value = _play(case, call(case.operation, pick(draws, RETRIES)), lambda request: given)
    if case.error is None:
        _check_value(case, value)
    return case


def one_list(draws: Draws) -> Case:
    """
    Play one list to its end, with the few answers that a shuffled deck holds.

    A service that has a new item for every page is read for ever, so from some answer on it has no more.
    """
    operation = pick(draws, LISTS)
    case = Case(draws, operation, pick(draws, CREDENTIALS[:3]))
    deck: list[Response | TransportError] = []
    seen: set[Hashable] = set()

    def from_deck(request: Request) -> Response | TransportError:
        if len(deck) < 6 and one_in(draws, 2):
            deck.append(answer(draws, request, operation.name))
            return deck[-1]
        return pick(draws, deck) if deck else Response(200, {}, b"{}")

    def look(page: Page[Any]) -> None:
        if not page.items:
            case.fail("a page without items was handed on")
        for item in page.items:
            identity = operation.identify(item)
            if identity is not None and identity in seen:
                case.fail(f"{identity} came twice")
            seen.add(identity)
        _check_value(case, page)

    _play(case, pages(operation, pick(draws, RETRIES)), from_deck, look)
    return case


_NOWHERE = (None,)


def _play(case: Case, flow: Generator[Any, Any, Any], service: Any, look: Any = None) -> Any:
    clock = Clock()
    client = ClientConfig(ENDPOINT, "0123456789abcdef", case.credentials, TokenCache(), clock, lambda: 0.5)
    reply: Any = None
    try:
        while True:
            step = flow.throw(reply) if isinstance(reply, Exception) else flow.send(reply)
            match step:
                case Request():
                    _check_request(case, step)
                    case.answers += 1
                    clock.now += 1
                    reply = service(step) if service else answer(case.draws, step, _kind(case, step))
                    _remember_secrets(case, step)
                    case.steps += [step, reply]
                case Sleep(seconds):
                    if not 0 <= seconds <= 60:
                        case.fail(f"a pause of {seconds} seconds")
                    clock.now += seconds
                    reply = None
                case ReadConnection():
                    # A list is played with answers that came before, and can quote a key that is out of use by now.
                    changed = step.refused is not None and look is None and one_in(case.draws, 2)
                    reply = _with_other_key(client) if changed else client
                case Page():
                    look(step)
                    reply = None
                case _:
                    case.fail(f"an unknown step: {step!r}")
            if case.answers > MANY_ANSWERS:
                case.fail("it does not end")
    except StopIteration as end:
        return end.value
    except ModelArtsError as error:
        case.outcome, case.error = type(error).__name__, error
        _check_error(case, error)
    return None


def _with_other_key(client: ClientConfig) -> ClientConfig:
    return replace(client, credentials=AccessKey("AK2", SECRET_KEY))


def _kind(case: Case, request: Request) -> str:
    if request.url.startswith(ENDPOINT):
        return case.operation.name
    if request.url.startswith(IAM):
        return "token"
    return "key" if request.url.endswith("/securitykey") else "metadata token"


def _check_request(case: Case, request: Request) -> None:
    if not request.url.isascii() or any(character <= " " for character in request.url):
        case.fail(f"a URL that cannot be sent: {request.url!r}")
    for name, value in request.headers.items():
        if not _SENDABLE.fullmatch(value):
            case.fail(f"a header that cannot be sent: {name}: {value!r}")


def _remember_secrets(case: Case, request: Request) -> None:
    for name in SECRET_HEADERS:
        # What a service has made up itself can be a word that any message has, or the address it was asked at.
        if len(value := request.headers.get(name, "")) > 8 and not any(value in step for step in _addresses(case)):
            case.secrets.add(value)
    if found := _SIGNATURE.search(request.headers.get("Authorization", "")):
        case.secrets.add(found[1])


def _addresses(case: Case) -> list[str]:
    return [step.url for step in case.steps if isinstance(step, Request)]


def _check_error(case: Case, error: ModelArtsError) -> None:
    if type(error) not in ERRORS:
        case.fail(f"an error of no kind: {type(error).__name__}")
    facts = [error.error_code, error.request_id, error.operation]
    if any(fact is not None and not isinstance(fact, str) for fact in facts):
        case.fail(f"facts that are no text: {facts}")
    if error.retry_after is not None and not error.retry_after >= 0:
        case.fail(f"retry_after is {error.retry_after}")
    text = f"{error} {facts}"
    if len(text) > 4000:
        case.fail(f"a message of {len(text)} characters")
    if one_in(case.draws, LOOK_CLOSELY):
        text += repr(error) + "".join(traceback.format_exception(error)) + repr(case.steps) + repr(case.credentials)
    _check_quotes(case, text)
    text.encode()


def _check_quotes(case: Case, text: str) -> None:
    for secret in case.secrets:
        if secret in text:
            case.fail(f"{secret!r} is quoted: {text}")
    if _SIGNED_LINK.search(text):
        case.fail(f"a signed link is quoted: {text}")


def _check_value(case: Case, value: Any) -> None:
    """Check that what was read can be kept: it is JSON as every database takes it, and holds no signed link."""
    items = value.items if isinstance(value, Page) else [value]
    if isinstance(value, Page) and not (value.count is None or isinstance(value.count, int)):
        case.fail(f"count is {value.count!r}")
    for item in items:
        if not isinstance(item, ApiModel):
            case.fail(f"not a model: {item!r}")
        kept = [item.to_json(), item.result if isinstance(item, ProcessorTask) else None]
        text = json.dumps(kept, allow_nan=False, ensure_ascii=False)
        if _SIGNED_LINK.search(text):
            case.fail(f"a signed link is left: {text}")
        text.encode()
