"""Runs whole calls and whole lists with random answers, and checks their requests, errors, values and messages."""

import json
import re
import sys
import traceback
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_modelarts.api import operations
from airflow_modelarts.api.client import ClientConfig, call
from airflow_modelarts.api.credentials import (
    AccessKey,
    AssumeAgency,
    Candidate,
    Credentials,
    DefaultChain,
    IdToken,
    InstanceAgency,
    OidcAgency,
    PasswordToken,
    PodIdentity,
    StaticToken,
    TokenCache,
)
from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.http import ReadConnection, Request, Response
from airflow_modelarts.api.models import ApiModel, ProcessorTask
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.retry import RetryPolicy
from tests.security.answers import LINK_SIGNATURE, SECRET_HEADERS, answer
from tests.security.draws import Draws, one_in, pick
from tests.support.flows import ENDPOINT, Answer, Clock, Service, pages, run_flow

IAM, METADATA = "https://iam.example", "http://169.254.169.254"
#: They contain characters that JSON and URLs escape.
SECRETS = ('secret"key\\of/a+user=', "security/token+with==signs", 'ready"token/+==', 'pass"wörd\\ /+&')
SECRET_KEY, SECURITY_TOKEN, TOKEN, PASSWORD = SECRETS
CREDENTIALS: tuple[Credentials, ...] = (
    AccessKey("AK", SECRET_KEY),
    AccessKey("AK", SECRET_KEY, SECURITY_TOKEN),
    StaticToken(TOKEN),
    PasswordToken(IAM, "user", PASSWORD, "domain"),
    PasswordToken(IAM, "user", PASSWORD, "domain", "project"),
    InstanceAgency(METADATA),
    OidcAgency(IAM, "provider", "agency", IdToken("VARIABLE", TOKEN), "session", 900),
    AssumeAgency(AccessKey("AK", SECRET_KEY, SECURITY_TOKEN), IAM, "agency", "account"),
    AssumeAgency(InstanceAgency(METADATA), IAM, "agency", "account"),
    DefaultChain(
        (
            Candidate("agency", InstanceAgency(METADATA)),
            Candidate("pod_identity", PodIdentity(f"{METADATA}/pod/securitykey", "/token")),
        )
    ),
)
FILES = {"/token": TOKEN}
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
#: Every error that a call may raise.
ERRORS = frozenset(ModelArtsError.__subclasses__())
#: Values of headers that every library can send.
_SENDABLE = re.compile(r"[\t\x20-\x7e]*")
_SIGNATURE = re.compile(r"Signature=([0-9a-f]{64})")
#: A signed link, unless bytes were cut out of it.
_SIGNED_LINK = re.compile(rf"(?i)://[^\s\"'<>]*[?&;](x-amz-)?signature={LINK_SIGNATURE}")
#: Answers of one case after which its flow counts as endless.
MAX_ANSWERS = 300
#: Seconds of the longest sleep that the retry policies allow.
MAX_SLEEP = 60
#: One of this number of cases gets the slow checks too.
SLOW_CHECKS_ONE_IN = 32


class PropertyViolationError(AssertionError):
    """A flow did what no answer may cause."""


@dataclass
class Case:
    """One flow, its requests and its outcome.

    :param steps: each request, followed by its answer.
    :param outcome: ``returned``, or the name of the error.
    :param secrets: texts of credentials, tokens and signatures that no message may quote.
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
        """Raise an error that shows the case."""
        raise PropertyViolationError(f"{reason}\n{self}")


def one_call(draws: Draws) -> Case:
    """Run one call."""
    case = Case(draws, pick(draws, CALLS), pick(draws, CREDENTIALS))
    value = _run(case, call(case.operation, pick(draws, RETRIES)))
    if case.error is None:
        _check_value(case, value)
    return case


def one_answer(draws: Draws, text: bytes) -> Case:
    """Run one call whose requests are all answered with this text."""
    case = Case(draws, pick(draws, CALLS), pick(draws, CREDENTIALS[:3]))
    given = Response(pick(draws, (200, 200, 200, 400, 401, 404, 429, 500)), {"content-type": "application/json"}, text)
    value = _run(case, call(case.operation, pick(draws, RETRIES)), lambda request: given)
    if case.error is None:
        _check_value(case, value)
    return case


def one_list(draws: Draws) -> Case:
    """Run one list operation with a few random answers that repeat.

    A service that returned a new item on every page would be read endlessly.
    """
    operation = pick(draws, LISTS)
    case = Case(draws, operation, pick(draws, CREDENTIALS[:3]))
    deck: list[Answer] = []
    seen: set[Hashable] = set()
    is_over = False

    def from_deck(request: Request) -> Answer:
        if len(deck) < 6 and one_in(draws, 2):
            deck.append(answer(draws, request, operation.name))
            return deck[-1]
        return pick(draws, deck) if deck else Response(200, {}, b"{}")

    def check_page(page: Page[Any]) -> None:
        if not isinstance(page, Page):
            case.fail(f"an unknown step: {page!r}")
        nonlocal is_over
        if is_over:
            case.fail("a page follows the one that only tells the last count")
        is_over = not page.items and not page.unreadable
        for item in page.items:
            identity = operation.identify(item)
            if identity is not None and identity in seen:
                case.fail(f"{identity} came twice")
            seen.add(identity)
        _check_value(case, page)

    _run(case, pages(operation, pick(draws, RETRIES)), from_deck, check_page)
    return case


def _run(
    case: Case,
    flow: Generator[Any, Any, Any],
    service: Service | None = None,
    on_page: Callable[[Any], None] | None = None,
) -> Any:
    """Run a flow, check its steps and its error, and return its value; by default random answers are sent."""
    clock = Clock()
    client = ClientConfig(ENDPOINT, "0123456789abcdef", case.credentials, TokenCache(), clock, lambda: 0.5)

    def serve(request: Request) -> Answer:
        _check_request(case, request)
        case.answers += 1
        if case.answers > MAX_ANSWERS:
            case.fail("it does not end")
        reply = service(request) if service else answer(case.draws, request, _kind(case, request))
        _remember_secrets(case, request)
        case.steps += [request, reply]
        return reply

    def read_connection(step: ReadConnection) -> ClientConfig:
        # A list is run with earlier answers, which can quote a key that is no longer in use.
        changed = step.refused is not None and on_page is None and one_in(case.draws, 2)
        return replace(client, credentials=AccessKey("AK2", SECRET_KEY)) if changed else client

    result = run_flow(
        flow, serve, clients=read_connection, files=FILES, on_page=on_page, clock=clock, max_steps=sys.maxsize
    )
    if on_page is None and result.pages:
        case.fail(f"unknown steps: {result.pages}")
    if not all(0 <= seconds <= MAX_SLEEP for seconds in result.sleeps):
        case.fail(f"it sleeps for {result.sleeps} seconds")
    if result.raised is not None:
        case.outcome, case.error = type(result.raised).__name__, result.raised
        _check_error(case, result.raised)
    return result.returned


def _kind(case: Case, request: Request) -> str:
    if request.url.startswith(ENDPOINT):
        return case.operation.name
    if request.url.endswith(("/securitykey", "/securitytokens", "/assume-with-oidc")):
        return "key"
    return "token" if request.url.startswith(IAM) else "metadata token"


def _check_request(case: Case, request: Request) -> None:
    if not request.url.isascii() or any(character <= " " for character in request.url):
        case.fail(f"a URL that cannot be sent: {request.url!r}")
    for name, value in request.headers.items():
        if not _SENDABLE.fullmatch(value):
            case.fail(f"a header that cannot be sent: {name}: {value!r}")


def _remember_secrets(case: Case, request: Request) -> None:
    for name in SECRET_HEADERS:
        # A random token can be a word that any message contains, or the address of the request.
        if len(value := request.headers.get(name, "")) > 8 and not any(value in step for step in _addresses(case)):
            case.secrets.add(value)
    if found := _SIGNATURE.search(request.headers.get("Authorization", "")):
        case.secrets.add(found[1])


def _addresses(case: Case) -> list[str]:
    return [step.url for step in case.steps if isinstance(step, Request)]


def _check_error(case: Case, error: ModelArtsError) -> None:
    if type(error) not in ERRORS:
        case.fail(f"an error of no known class: {type(error).__name__}")
    facts = [error.error_code, error.request_id, error.operation]
    if any(fact is not None and not isinstance(fact, str) for fact in facts):
        case.fail(f"attributes that are not text: {facts}")
    if error.retry_after is not None and not error.retry_after >= 0:
        case.fail(f"retry_after is {error.retry_after}")
    text = f"{error} {facts}"
    if len(text) > 4000:
        case.fail(f"a message of {len(text)} characters")
    if one_in(case.draws, SLOW_CHECKS_ONE_IN):
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
    """Check that a value can be stored: it is JSON that every database accepts, and contains no signed link."""
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
