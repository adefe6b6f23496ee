"""From an operation to a flow: authorization, renewal of credentials, paging. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from airflow_modelarts.api import errors
from airflow_modelarts.api.credentials import AuthContext, Authorizer, Credentials, TokenCache
from airflow_modelarts.api.error_bodies import is_error_alone
from airflow_modelarts.api.error_mapping import project_id_hint
from airflow_modelarts.api.http import ConnectionReadError, Flow, ReadConnection, Request, Response, Sleep
from airflow_modelarts.api.operations import ListOperation, Operation, Page
from airflow_modelarts.api.rate import RateLimiter
from airflow_modelarts.api.retry import RetryingRequest, RetryPolicy
from airflow_modelarts.api.signing import encode

T = TypeVar("T")

#: Seconds between attempts to read the Airflow connection again: one minute in all, and with jitter at least half.
READ_AGAIN_DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
#: Items of a list whose identity is remembered, some 150 bytes each: a hundred full pages.
KEPT_IDS = 10_000


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Immutable call settings: endpoint, project, credentials, token cache, clock, random source.

    :param endpoint: URL of ModelArts, without a path.
    :param project_id: the project of the processing tasks.
    :param now: the clock, in seconds since the epoch.
    :param random: draws from [0, 1), for jitter.
    :param unresolved: begins the error if the endpoint's host name does not exist: what the user wrote, and what to
        change.
    :param limiter: paces the requests of this connection in the process; None for no limit.
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
    """Carry out one operation.

    If the service refuses the token or temporary key, it is renewed once. If it still refuses the credentials, the
    Airflow connection is read again once, since it may have a new key by now.

    :raises ModelArtsError: the service refused the request, or no attempt returned a usable answer.
    """
    client: ClientConfig = yield ReadConnection()
    try:
        return (yield from _Call(operation, client, retries).run())
    except errors.ModelArtsAuthenticationError as error:
        changed = yield from _read_connection_again(client, error)
        if changed == client:
            raise
        outcome_unknown = error.outcome_unknown
    return (yield from _Call(operation, changed, retries, outcome_unknown).run())


def _read_connection_again(refused: ClientConfig, refusal: errors.ModelArtsAuthenticationError) -> Flow[ClientConfig]:
    """Return the current settings of the Airflow connection.

    The connection could be read before, so a failure now is probably an outage of the secrets backend, which Airflow
    reports as a missing connection. Therefore it is read several times.
    """
    delays = iter(READ_AGAIN_DELAYS)
    while True:
        try:
            changed: ClientConfig = yield ReadConnection(refused=refused)
            return changed
        except ConnectionReadError as failure:
            if (delay := next(delays, None)) is None:
                error = _connection_error(failure, refusal)
                error.outcome_unknown = refusal.outcome_unknown
                raise error from None
        yield Sleep(delay * (0.5 + refused.random() / 2))


def _connection_error(failure: ConnectionReadError, refusal: errors.ModelArtsError) -> errors.ModelArtsError:
    if isinstance(failure.error, errors.ModelArtsError):
        return failure.error
    # Without the text of a foreign error, which can contain a password.
    return errors.ModelArtsTransientError(
        f"{refusal} The Airflow connection could not be read again ({type(failure.error).__name__}): check where "
        "Airflow keeps it, for example its secrets backend.",
        operation=refusal.operation,
    )


@dataclass(slots=True)
class _Call(Generic[T]):
    """One operation with one state of the connection, and whether an earlier request of it may have taken effect."""

    operation: Operation[T]
    client: ClientConfig
    retries: RetryPolicy
    outcome_unknown: bool = False

    def run(self) -> Flow[T]:
        """Send the request, and again with a new token or temporary key if the service refuses the current one."""
        authorizer = yield from self._obtain_authorizer(refused=None)
        try:
            return (yield from self._send(authorizer))
        except errors.ModelArtsAuthenticationError as error:
            if not error.asks_for_new_credentials:
                raise
            self.outcome_unknown = error.outcome_unknown
            renewed = yield from self._obtain_authorizer(refused=authorizer)
            if renewed == authorizer:
                raise
        return (yield from self._send(renewed))

    def _obtain_authorizer(self, *, refused: Authorizer | None) -> Flow[Authorizer]:
        client = self.client
        context = AuthContext(client.project_id, client.cache, self.retries, client.now, client.random)
        try:
            return (yield from client.credentials.obtain(context, refused=refused))
        except errors.ModelArtsError as error:
            error.outcome_unknown = self.outcome_unknown  # of the operation, not of the request for a token
            raise

    def _send(self, authorizer: Authorizer) -> Flow[T]:
        operation, client = self.operation, self.client
        request = RetryingRequest(
            operation=operation.name,
            target=operation.target,
            address=urlsplit(client.endpoint).geturl(),
            idempotency=operation.idempotency,
            secrets=(*client.credentials.secrets, *authorizer.secrets),
            retries=self.retries,
            now=client.now,
            random=client.random,
            outcome_unknown=self.outcome_unknown,
            unresolved=client.unresolved,
            limiter=client.limiter,
        )
        try:
            return (yield from request.run(lambda: self._build_request(authorizer), self._read_response))
        except (
            errors.ModelArtsAuthenticationError,
            errors.ModelArtsConfigurationError,
            errors.ModelArtsNotFoundError,
        ) as error:
            is_gone = isinstance(error, errors.ModelArtsNotFoundError) and 400 <= (error.http_status or 0) < 500
            if operation.method == "DELETE" and error.outcome_unknown and is_gone:
                return operation.read(b"")  # an earlier attempt, whose answer was lost, has deleted it
            if error.http_status is not None:
                error.args = (f"{error}{project_id_hint(client.project_id)}",)
            raise

    def _build_request(self, authorizer: Authorizer) -> Request:
        client = self.client
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        url = f"{client.endpoint}/v2/{encode(client.project_id)}{self.operation.path_and_query}"
        request = Request(self.operation.method, url, headers, self.operation.body)
        return authorizer.authorize(request, project_id=client.project_id, now=client.now())

    def _read_response(self, response: Response) -> T:
        # Most answers may lack every field, so the models would accept an error.
        if is_error_alone(response.body):
            raise ValueError("an error with the status of a success")
        answer = self.operation.read(response.body)
        self.operation.observe(response)
        return answer


class Pager(Generic[T]):
    """Carries out a list operation page by page. No page that it returns repeats an item of an earlier one.

    The list ends when ``count`` items were read, or at an empty page; without a ``count``, at a short page too. A
    service may limit its pages to fewer items than were requested. ``has_more`` is ignored, since the reference
    contradicts itself about its meaning.

    The list shifts while it is read: an item can come twice, and an existing item can be missed. So a full page
    without a new item does not end it at once. An item comes twice as many places later as items were created
    meanwhile. So the ids of the last KEPT_IDS items are enough, and memory does not grow with the list.
    """

    def __init__(self, operation: ListOperation[T], retries: RetryPolicy) -> None:
        self._operation = operation
        self._retries = retries
        self._next_number: int | None = 0
        self._received = 0  # items, with those that came twice: a shifting list repeats some at its end
        self._seen = _RecentSet()
        self._seen_pages = _RecentSet()  # of items without identity: a service could repeat such pages endlessly
        self._seen_unreadable = _RecentSet()
        self._previous: Page[T] = Page([])
        self._pages_without_new_items = 0

    def next_page(self) -> Flow[Page[T] | None]:
        """Return the next page that has new items; None after the last one."""
        operation, seen = self._operation, self._seen
        while self._next_number is not None:
            number, self._next_number = self._next_number, None
            page = yield from call(operation.page(number), self._retries)
            self._received += page.size
            seen_before = seen.count
            new = seen.add_new(page.items, operation.identify)
            unreadable = tuple(self._seen_unreadable.add_new(page.unreadable, lambda item: item.identity))
            if not page.size or page == self._previous:  # past the end, or its last page again
                if page.count != self._previous.count and (number or page.count):
                    return replace(page, items=[], unreadable=(), number=number)  # says how many items there are
                return None
            if new and seen.count == seen_before and not self._seen_pages.add_new([repr(new)], str):
                return None
            is_new = bool(new or unreadable)
            self._previous = page
            self._pages_without_new_items = 0 if is_new else self._pages_without_new_items + 1
            if page.size < operation.limit:
                is_last = page.count is None or self._received >= page.count
            else:  # a count below the number of items on this page cannot be the count of the whole list
                is_last = page.count is not None and seen.count >= page.count >= page.size
            # However far the list shifts, the items that were read cannot fill more pages than this.
            is_stuck = self._pages_without_new_items * operation.limit > seen_before
            if not (is_last or is_stuck):
                self._next_number = number + 1
            if is_new:
                return replace(page, items=new, unreadable=unreadable, number=number)
        return None


class _RecentSet:
    """The identities of the last KEPT_IDS items that were added.

    :ivar count: how many were added, those that are forgotten included.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kept: dict[Hashable, None] = {}  # the oldest first

    def add_new(self, items: Iterable[T], identify: Callable[[T], Hashable | None]) -> list[T]:
        """Add the new items, and return them. An item without an identity is always new, and not added."""
        kept, new = self._kept, []
        for item in items:
            identity = identify(item)
            if identity in kept:
                continue
            new.append(item)
            if identity is not None:
                kept[identity] = None
                self.count += 1
        for oldest in list(islice(kept, max(len(kept) - KEPT_IDS, 0))):
            del kept[oldest]
        return new
