"""From an operation to a flow: authorization, its renewal, attempts, paging. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar
from urllib.parse import urlsplit

from airflow_modelarts.api.credentials import AuthContext, Authorizer, Credentials, TokenCache, about_project_id
from airflow_modelarts.api.error_bodies import is_error_alone
from airflow_modelarts.api.errors import (
    ModelArtsAuthenticationError,
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsNotFoundError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.http import ConnectionReadError, Flow, ReadConnection, Request, Response, Sleep, Step
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.rate import RateLimiter
from airflow_modelarts.api.retry import RetryingRequest, RetryPolicy
from airflow_modelarts.api.signing import encode

T = TypeVar("T")

#: Seconds between readings of a connection that could be read before; a minute in all, and at least half of it.
READ_AGAIN_DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """
    Everything a call needs to know, and nothing it does.

    :param endpoint: URL of ModelArts, without a path.
    :param project_id: the project whose tasks these are.
    :param credentials: who calls.
    :param cache: of grants; shared by everything in the process.
    :param now: the clock, in seconds since the epoch.
    :param random: draws from [0, 1), for the jitter of pauses.
    :param unresolved: said first where the endpoint's host name does not exist: what the user wrote, and the way out.
    :param limiter: paces the requests to ModelArts; shared by everything of the connection in the process.
    """

    endpoint: str
    project_id: str
    credentials: Credentials
    cache: TokenCache = field(repr=False, compare=False)
    now: Callable[[], float] = field(repr=False, compare=False)
    random: Callable[[], float] = field(repr=False, compare=False)
    unresolved: str = field(default="", repr=False, compare=False)
    limiter: RateLimiter | None = field(default=None, repr=False, compare=False)


def call(operation: Operation[T], retries: RetryPolicy) -> Flow[T]:
    """
    Carry out one operation.

    A refused token or temporary key is renewed once; if that does not help, the Airflow connection is read again once.
    Where it cannot be read then, it is waited for.

    :raises ModelArtsError: the service refused, or no attempt got a usable answer.
    """
    client: ClientConfig = yield ReadConnection()
    try:
        return (yield from _renewing(operation, client, retries, outcome_unknown=False))
    except ModelArtsAuthenticationError as error:
        changed = yield from _read_again(client, error)
        if changed == client:
            raise
        outcome_unknown = error.outcome_unknown
    return (yield from _renewing(operation, changed, retries, outcome_unknown=outcome_unknown))


def _read_again(refused: ClientConfig, refusal: ModelArtsError) -> Flow[ClientConfig]:
    """
    Return what the Airflow connection says now.

    It could be read before, so that it cannot now is rather a secrets backend out of order than a mistake: that is
    waited for. Airflow itself reports such a backend as a connection that does not exist.
    """
    for pause in (*READ_AGAIN_DELAYS, None):
        try:
            changed: ClientConfig = yield ReadConnection(refused=refused)
            return changed
        except ConnectionReadError as failure:
            if pause is None:
                error = _unread(failure, refusal)
                error.outcome_unknown = refusal.outcome_unknown
                raise error from None
        yield Sleep(pause * (0.5 + refused.random() / 2))
    raise AssertionError("the last reading returns or raises")


def _unread(failure: ConnectionReadError, refusal: ModelArtsError) -> ModelArtsError:
    if isinstance(failure.error, ModelArtsError):
        return failure.error
    return ModelArtsTransientError(  # without the text of an error that is not ours, which can hold a password
        f"{refusal} The Airflow connection could not be read again ({type(failure.error).__name__}): check where "
        "Airflow keeps it, for example its secrets backend.",
        operation=refusal.operation,
    )


def pages(operation: ListOperation[T], retries: RetryPolicy) -> Generator[Step | Page[T], Any, None]:
    """
    Carry out a list operation page by page; each page is yielded, with no item that an earlier one had.

    The list ends when ``count`` items are in hand, or at a short or empty page. ``has_more`` decides nothing, since the
    reference contradicts itself about its meaning.

    The list shifts while it is read: an item can come twice, and one that is there all along can be missed. So a full
    page on which nothing is new does not end it at once.
    """
    seen: set[Hashable] = set()
    seen_pages: set[str] = set()  # of items that have no identity, which alone would let the service go in circles
    previous: tuple[list[T], int | None] = [], None
    stale = 0  # pages in a row on which nothing was new
    for number in count():
        page = yield from call(operation.page(number), retries)
        in_hand = len(seen)
        new = [item for item in page.items if _is_new(operation.identify(item), seen)]
        told = page.items, page.count
        if not page.items or told == previous:
            return  # past the end, or the service repeats itself
        if new and len(seen) == in_hand and not _is_new(repr(new), seen_pages):
            return
        previous, stale = told, 0 if new else stale + 1
        # However far the list shifts, what is in hand fills no more pages than this.
        if stale * operation.limit > in_hand:
            return
        if new:
            yield Page(new, page.count, page.has_more)
        if _is_last(page, operation.limit, len(seen)):
            return


def _is_new(identity: Hashable | None, seen: set[Any]) -> bool:
    if identity is None:
        return True
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _is_last(page: Page[T], limit: int, in_hand: int) -> bool:
    if len(page.items) < limit:
        return True
    # A count of fewer items than are on this page cannot be that of the whole list.
    return page.count is not None and in_hand >= page.count >= len(page.items)


def _renewing(operation: Operation[T], client: ClientConfig, retries: RetryPolicy, *, outcome_unknown: bool) -> Flow[T]:
    authorizer = yield from _authorizer(client, retries, refused=None, outcome_unknown=outcome_unknown)
    try:
        return (yield from _authorized(operation, client, retries, authorizer, outcome_unknown=outcome_unknown))
    except ModelArtsAuthenticationError as error:
        if not error.asks_for_new_credentials:
            raise
        outcome_unknown = error.outcome_unknown
        renewed = yield from _authorizer(client, retries, refused=authorizer, outcome_unknown=outcome_unknown)
        if renewed == authorizer:
            raise
    return (yield from _authorized(operation, client, retries, renewed, outcome_unknown=outcome_unknown))


def _authorizer(
    client: ClientConfig, retries: RetryPolicy, *, refused: Authorizer | None, outcome_unknown: bool
) -> Flow[Authorizer]:
    context = AuthContext(client.project_id, client.cache, retries, client.now, client.random)
    try:
        return (yield from client.credentials.obtain(context, refused=refused))
    except ModelArtsError as error:
        error.outcome_unknown = outcome_unknown  # what counts is the operation, not the request for a grant
        raise


def _authorized(
    operation: Operation[T],
    client: ClientConfig,
    retries: RetryPolicy,
    authorizer: Authorizer,
    *,
    outcome_unknown: bool,
) -> Flow[T]:
    def build() -> Request:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        url = f"{client.endpoint}/v2/{encode(client.project_id)}{operation.path_and_query}"
        request = Request(operation.method, url, headers, operation.body)
        return authorizer.authorize(request, project_id=client.project_id, now=client.now())

    def read(response: Response) -> T:
        if is_error_alone(response.body):  # most answers may lack every field, so that it would be read as one
            raise ValueError("an error that came as a success")
        return operation.read(response.body)

    exchange = RetryingRequest(
        operation=operation.name,
        target=operation.target,
        address=urlsplit(client.endpoint).geturl(),
        idempotency=operation.idempotency,
        secrets=(*client.credentials.secrets, *authorizer.secrets),
        retries=retries,
        now=client.now,
        random=client.random,
        outcome_unknown=outcome_unknown,
        unresolved=client.unresolved,
        limiter=client.limiter,
    )
    try:
        return (yield from exchange.run(build, read))
    except (ModelArtsAuthenticationError, ModelArtsConfigurationError, ModelArtsNotFoundError) as error:
        is_gone = isinstance(error, ModelArtsNotFoundError) and 400 <= (error.http_status or 0) < 500
        if operation.method == "DELETE" and error.outcome_unknown and is_gone:
            return operation.read(b"")  # an earlier attempt whose answer was lost has deleted it
        if error.http_status is not None:
            error.args = (f"{error}{about_project_id(client.project_id)}",)
        raise
