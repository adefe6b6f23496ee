"""The protocols of credentials, the cache of what they obtain, and what several kinds use to read an answer."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, cast

from airflow_modelarts.api.errors import (
    ModelArtsAuthenticationError,
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.http import FileReadError, Flow, ReadFile, Request, Sleep
from airflow_modelarts.api.retry import Idempotency, RetryingRequest, RetryPolicy

T = TypeVar("T")

#: Seconds before its expiry at which a token or temporary key is renewed.
RENEWAL_MARGIN = 300.0
#: Seconds between two checks whether another caller's renewal has ended.
RENEWAL_POLL = 0.05


class NotConfiguredError(ModelArtsConfigurationError):
    """A kind of credentials is not set up here; a chain tries the next kind."""


class Authorizer(Protocol):
    """Adds the headers that authorize a request."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts to mask in messages and logs."""

    def authorize(self, request: Request, *, project_id: str, now: float) -> Request:
        """Return the request with the headers that authorize it. Nothing may change it afterwards.

        :param project_id: "" for a request that concerns no project, as most of IAM's.
        """


class Credentials(Protocol):
    """Obtains an authorizer. Implementations are values without state: equal credentials obtain equal authorizers."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts to mask in messages and logs."""

    def identity(self, cache: TokenCache) -> str:
        """Return a text that says who calls, without a secret; ``cache`` has what was obtained until now."""

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Obtain an authorizer.

        :param refused: an authorizer that the service refused, so that the cached one is not returned if it is equal.
        :raises ModelArtsError: none could be obtained.
        """


@dataclass(frozen=True, slots=True)
class AuthContext:
    """What credentials need to obtain an authorizer.

    :param project_id: the project to which a token is scoped; "" for the whole account.
    :param now: the clock, in seconds since the epoch.
    :param random: draws from [0, 1).
    """

    project_id: str
    cache: TokenCache
    retries: RetryPolicy
    now: Callable[[], float]
    random: Callable[[], float]

    def retrying_request(
        self, operation: str, target: str, address: str, secrets: tuple[str, ...], **others: Any
    ) -> RetryingRequest:
        """Return a request to IAM or the metadata service, which may be repeated."""
        return RetryingRequest(
            operation,
            target,
            address,
            Idempotency.ALWAYS,
            secrets,
            self.retries,
            self.now,
            self.random,
            suspect=f"that {address} is right and can be reached from here",
            **others,
        )


def authorized(credentials: Credentials, context: AuthContext, send: Callable[[Authorizer], Flow[T]]) -> Flow[T]:
    """Send a request that credentials authorize, and again with renewed ones if the service refuses those."""
    authorizer = yield from credentials.obtain(context, refused=None)
    try:
        return (yield from send(authorizer))
    except ModelArtsAuthenticationError as error:
        if not error.asks_for_new_credentials:
            raise
        renewed = yield from credentials.obtain(context, refused=authorizer)
        if renewed == authorizer:
            raise
    return (yield from send(renewed))


class _Renewal:
    """A renewal in progress, and the error it ended with."""

    done = False
    error: ModelArtsError | None = None


class TokenCache:
    """Caches tokens and temporary keys until shortly before expiry, and the ids of projects that IAM has named.

    Concurrent callers share one renewal by polling, so threads and event loops can mix. The lock is never held during
    a request or a sleep.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, tuple[Any, float]] = {}
        self._renewals: dict[str, _Renewal] = {}

    def copy(self) -> TokenCache:
        """Return a cache with the same content that does not wait for renewals of this one.

        It takes no lock: a signal handler may call it while the interrupted code holds the lock.
        """
        clone = TokenCache()
        clone._values = dict(self._values)
        return clone

    def has(self, key: str) -> bool:
        """Whether a value was cached under this key, expired or not."""
        return key in self._values

    def obtain(
        self, key: str, renew: Callable[[], Flow[tuple[T, float]]], now: Callable[[], float], refused: object
    ) -> Flow[T]:
        """Return the cached value, such as an authorizer, or a new one.

        :param key: identifies the credentials, see :func:`cache_key`.
        :param renew: obtains a new value and the time at which to renew it, in seconds since the epoch.
        :param refused: a value that must not be returned.
        """
        while True:
            with self._lock:
                value, renew_at = self._values.get(key, (None, 0.0))
                if value is not None and value != refused and now() < renew_at:
                    return cast("T", value)
                is_mine = key not in self._renewals
                renewal = self._renewals.setdefault(key, _Renewal())
            if is_mine:
                return (yield from self._renew(key, renewal, renew))
            while not renewal.done:
                yield Sleep(RENEWAL_POLL)
            if renewal.error is not None:
                raise copy.copy(renewal.error)

    def _renew(self, key: str, renewal: _Renewal, renew: Callable[[], Flow[tuple[T, float]]]) -> Flow[T]:
        try:
            value, renew_at = yield from renew()
            self._values[key] = value, renew_at
            return value
        except ModelArtsError as error:
            renewal.error = error
            raise
        finally:  # also when the flow is closed before its end: the next caller then starts a renewal of its own
            with self._lock:
                renewal.done = True
                del self._renewals[key]


def cache_key(*parts: str) -> str:
    """Return the key of credentials in the token cache: a hash, so that the cache holds no password."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_header_safe(text: str) -> bool:
    """Whether a text can be a header's value: visible ASCII, not empty."""
    return re.fullmatch(r"[\x21-\x7e]+", text) is not None


def read_document(body: bytes) -> dict[str, Any]:
    """Return the JSON object that an answer is; raise ValueError if it is none."""
    with suppress(RecursionError):
        value = json.loads(body)
        if isinstance(value, dict):
            return value
    raise ValueError("no JSON object")


def read_object(body: bytes, name: str) -> dict[str, Any]:
    """Return the object in one field of a JSON object; raise ValueError if there is none."""
    value = read_document(body).get(name)
    if isinstance(value, dict):
        return value
    raise ValueError(f"no object {name}")


def parse_expiry(expires_at: object) -> float:
    """Return the time of an ``expires_at`` like ``2026-01-31T12:00:00.000000Z``; raise ValueError for anything else."""
    if not isinstance(expires_at, str):
        raise ValueError("expires_at is not a text")
    expiry = datetime.fromisoformat(expires_at)
    return (expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC)).timestamp()


def renewal_time(expiry: float, now: float) -> float:
    """Return when to renew what expires: a short-lived token is used for nine tenths of its life."""
    return expiry - min(RENEWAL_MARGIN, (expiry - now) / 10)


def read_token_file(path: str, label: str, *, is_outage: bool) -> Flow[str]:
    """Read a token from a file; whoever keeps the file replaces its content before the token expires.

    :param label: names the file in errors, for example its variable.
    :param is_outage: whether the file was usable before, so that its fault is probably temporary.
    """
    try:
        text: str = yield ReadFile(path)
    except FileReadError as error:
        problem = str(error)
    else:
        token = text.strip()
        if is_header_safe(token):
            return token
        problem = "holds more than a token" if token else "is empty"
    kind = ModelArtsTransientError if is_outage else ModelArtsConfigurationError
    raise kind(
        f"{label}: the file '{path}' {problem}: it must hold the token alone, readable for workers and triggerers"
    )


def with_advice(error: ModelArtsError, advice: str) -> ModelArtsError:
    """Return a lasting error of IAM or a similar service with advice that fits the credentials."""
    is_refusal = isinstance(error, ModelArtsAuthenticationError)
    return (type(error) if is_refusal else ModelArtsConfigurationError)(
        f"{without_default_advice(error)} {advice}",
        error_code=error.error_code,
        http_status=error.http_status,
        request_id=error.request_id,
        operation=error.operation,
    )


def without_default_advice(error: ModelArtsError) -> str:
    """Return an error's message without the advice of its class, to be followed by better advice."""
    return str(error).replace(f" {error.default_advice}.", "")
