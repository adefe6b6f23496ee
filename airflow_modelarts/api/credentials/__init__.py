"""Who calls: the kinds of credentials, each a way to obtain a grant, and the grants that let a request in."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from airflow_modelarts.api import signing
from airflow_modelarts.api.errors import (
    ADVICE,
    ModelArtsAuthenticationError,
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsNotFoundError,
    ModelArtsRequestError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.http import Flow, Request, Response, Sleep, TransportError, send
from airflow_modelarts.api.retry import Idempotency, RetryingRequest, RetryPolicy

METADATA_SERVICE = "http://169.254.169.254"
#: Seconds; on a machine without a metadata service nobody answers, and nobody shall wait long for it.
METADATA_TIMEOUT = 3.0
#: How often both requests to the metadata service are made before an answer that a moment can cause is believed.
METADATA_ROUNDS = 3
#: Seconds between them.
METADATA_DELAY = 1.0
NO_AGENCY = (
    "This server has no temporary key: give it an agency that may use ModelArts, in the console of the Elastic Cloud "
    "Server, or choose another auth in the connection's extras"
)
#: Seconds for which a token of the metadata service is asked; it is used once, at once.
METADATA_TOKEN_TTL = 60
#: Seconds before its end at which a grant is renewed, at most; a short-lived one is used for nine tenths of its life.
RENEWAL_MARGIN = 300.0
#: Seconds between two looks at whether somebody else's renewal is done.
RENEWAL_POLL = 0.05


def is_header_safe(text: str) -> bool:
    """Whether a text can be part of a header: ASCII that can be seen, and not nothing."""
    return re.fullmatch(r"[\x21-\x7e]+", text) is not None


class Authorizer(Protocol):
    """What lets a request in."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts that must not be shown."""

    def authorize(self, request: Request, *, project_id: str, now: float) -> Request:
        """Return the request with the headers that let it in, final to the byte."""


class Credentials(Protocol):
    """A way to obtain a grant. Equal credentials obtain the same; they are values and hold no state."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts that must not be shown."""

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """
        Obtain a grant.

        :param refused: a grant that the service did not accept, so that one out of a cache will not do.
        :raises ModelArtsError: it could not be obtained.
        """


@dataclass(frozen=True, slots=True)
class AuthContext:
    """
    What obtaining a grant needs beside the credentials.

    :param project_id: the project to which a token is scoped.
    :param cache: shared by everything in the process.
    :param retries: how patient each request is.
    :param now: the clock, in seconds since the epoch.
    :param random: draws from [0, 1).
    """

    project_id: str
    cache: TokenCache
    retries: RetryPolicy
    now: Callable[[], float]
    random: Callable[[], float]

    def exchange(self, operation: str, target: str, address: str, secrets: tuple[str, ...]) -> RetryingRequest:
        """Return an exchange with IAM or the metadata service; asking twice does no harm there."""
        return RetryingRequest(
            operation, target, address, Idempotency.ALWAYS, secrets, self.retries, self.now, self.random
        )


@dataclass(frozen=True, slots=True)
class AccessKey:
    """
    An access key pair, permanent or temporary, that signs every request. It is its own grant.

    :param security_token: of a temporary key; it is signed too.
    """

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret key and the security token."""
        return tuple(filter(None, (self.secret_key, self.security_token)))

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Return the key itself: there is nothing to ask for, and nothing to renew."""
        yield from ()
        return self

    def authorize(self, request: Request, *, project_id: str, now: float) -> Request:
        """Sign the request."""
        headers = {**request.headers, "X-Project-Id": project_id}
        if self.security_token:
            headers["X-Security-Token"] = self.security_token
        signed = signing.sign(
            self.access_key,
            self.secret_key,
            method=request.method,
            url=request.url,
            headers=headers,
            body=request.body,
            now=now,
        )
        return replace(request, headers=signed)


@dataclass(frozen=True, slots=True)
class StaticToken:
    """A ready IAM token, used as it is until the service refuses it. It is its own grant."""

    token: str = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The token."""
        return (self.token,)

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Return the token itself: nobody here knows how to renew it."""
        yield from ()
        return self

    def authorize(self, request: Request, *, project_id: str, now: float) -> Request:
        """Add the token."""
        return replace(request, headers={**request.headers, "X-Auth-Token": self.token})


@dataclass(frozen=True, slots=True)
class PasswordToken:
    """
    An IAM user whose password is exchanged for a token, which is then kept until shortly before it expires.

    :param iam_endpoint: URL of IAM, without a path.
    :param user_name: the IAM user's name.
    :param domain_name: the account to which the user belongs.
    :param project_name: scopes the token by the project's name; by default it is scoped by project id.
    :param unresolved: said first where the host name of IAM does not exist: what the user wrote, and the way out.
    """

    iam_endpoint: str
    user_name: str
    password: str = field(repr=False)
    domain_name: str
    project_name: str | None = None
    unresolved: str = field(default="", repr=False, compare=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The password."""
        return (self.password,)

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Take the token out of the cache, or ask IAM for one (KeystoneCreateUserTokenByPassword)."""
        identity = _identity("password", *_fields(self), context.project_id)
        return (yield from context.cache.obtain(identity, lambda: self._ask(context), context.now, refused))

    def _ask(self, context: AuthContext) -> Flow[tuple[Authorizer, float]]:
        target = f"user '{self.user_name}' of domain '{self.domain_name}'"
        exchange = context.exchange("KeystoneCreateUserTokenByPassword", target, self.iam_endpoint, self.secrets)
        exchange = replace(exchange, unresolved=self.unresolved)
        request = self._request(context.project_id)
        try:
            authorizer, renew_at, project_id = yield from exchange.run(
                lambda: request, lambda response: _read_token(response, context.now())
            )
        except (
            ModelArtsAuthenticationError,
            ModelArtsConfigurationError,
            ModelArtsNotFoundError,
            ModelArtsRequestError,
        ) as error:
            raise self._explained(error, context.project_id) from None
        if self.project_name and project_id and project_id.lower() != context.project_id.lower():
            raise ModelArtsConfigurationError(
                f"project_name '{self.project_name}' is the project {project_id}, says IAM at {self.iam_endpoint}, and "
                f"project_id is '{context.project_id}': give the two of one project, or leave project_name out.",
                operation=exchange.operation,
            )
        return authorizer, renew_at

    def _explained(self, error: ModelArtsError, project_id: str) -> ModelArtsError:
        """Return IAM's refusal with what can be its cause, since IAM itself tells little of that."""
        if error.http_status is None:  # no answer of IAM's
            if isinstance(error, ModelArtsRequestError):  # too large a one
                advice = "Give this user fewer roles, or choose auth 'access_key'"
            elif self.unresolved:
                return error
            else:
                advice = "Check iam_endpoint in the connection's extras"
        else:
            project = (
                f"project_name '{self.project_name}' (a project of that account and region)"
                if self.project_name
                else f"project_id '{project_id}' (32 hex digits, of the region of that IAM)"
            )
            advice = (
                f"Check in the connection: domain_name '{self.domain_name}' (the account's name, not the user's), "
                f"login '{self.user_name}' (the IAM user), its password, {project}, and iam_endpoint. IAM may give one "
                "answer for all of them"
            )
        kind = type(error) if isinstance(error, ModelArtsAuthenticationError) else ModelArtsConfigurationError
        return kind(
            f"{_without_advice(error)} This was IAM at {self.iam_endpoint}. {advice}."
            f"{about_project_id('' if self.project_name else project_id)}",
            error_code=error.error_code,
            http_status=error.http_status,
            request_id=error.request_id,
            operation=error.operation,
        )

    def _request(self, project_id: str) -> Request:
        user = {"name": self.user_name, "password": self.password, "domain": {"name": self.domain_name}}
        project = {"name": self.project_name} if self.project_name else {"id": project_id}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": project},
            }
        }
        headers = {"Content-Type": "application/json;charset=utf8", "Accept": "application/json"}
        return Request("POST", f"{self.iam_endpoint}/v3/auth/tokens", headers, json.dumps(body).encode())


@dataclass(frozen=True, slots=True)
class InstanceAgency:
    """
    The identity of the Elastic Cloud Server this runs on: temporary keys from its metadata service.

    :param metadata_service: URL of the service; it is link-local, and the one place where plain http is right.
    """

    metadata_service: str = METADATA_SERVICE

    @property
    def secrets(self) -> tuple[str, ...]:
        """None: the machine itself is the secret."""
        return ()

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Take the temporary key out of the cache, or ask the metadata service for one."""
        return (yield from context.cache.obtain(self._identity, lambda: self._ask(context), context.now, refused))

    @property
    def _identity(self) -> str:
        return _identity("agency", self.metadata_service)

    def _ask(self, context: AuthContext) -> Flow[tuple[Authorizer, float]]:
        """Ask, and again where the answer can be that of a moment: the poll of a wait is a single attempt."""
        for number in range(1, METADATA_ROUNDS + 1):
            token = yield from self._session_token()
            try:
                return (yield from self._security_key(context, token))
            except ModelArtsError as error:
                # An empty answer of a success is as good as none.
                is_unanswered = error.temporary and error.http_status in (None, 200)
                if str(error).startswith(NO_AGENCY) or (error.temporary and not is_unanswered):
                    raise
                can_be_of_a_moment = (
                    context.retries.attempts < METADATA_ROUNDS  # or it has been repeated already
                    if is_unanswered
                    else token is None and error.http_status == 401
                )
                if not can_be_of_a_moment or number == METADATA_ROUNDS:
                    # Where there has been a key before, the machine has an agency and a way to the service.
                    raise self._explained(error, token, is_outage=context.cache.has(self._identity)) from None
            yield Sleep(METADATA_DELAY)
        raise AssertionError("the last round returns or raises")

    def _security_key(self, context: AuthContext, token: str | None) -> Flow[tuple[Authorizer, float]]:
        headers = {"X-Metadata-Token": token} if token else {}
        url = f"{self.metadata_service}/openstack/latest/securitykey"
        request = Request("GET", url, headers, timeout=METADATA_TIMEOUT)
        exchange = context.exchange("GetSecurityKey", "this server's agency", self.metadata_service, (token or "",))
        exchange = replace(exchange, explain=_no_agency)
        return (yield from exchange.run(lambda: request, _read_security_key))

    def _explained(self, error: ModelArtsError, token: str | None, *, is_outage: bool) -> ModelArtsError:
        """Return what it means that there is no temporary key."""
        if error.temporary:
            if is_outage:
                return error
            if error.http_status is not None:
                return ModelArtsAuthenticationError(
                    f"{NO_AGENCY}. (The metadata service answered HTTP {error.http_status} and gave none.)",
                    http_status=error.http_status,
                    operation=error.operation,
                )
            return ModelArtsConfigurationError(
                "The metadata service does not answer: auth 'agency' works on an Elastic Cloud Server only, and in a "
                "container there only if that reaches the service. Choose another auth in the connection's extras.",
                operation=error.operation,
            )
        if token is None and error.http_status == 401:
            if is_outage:
                return ModelArtsTransientError(
                    "The metadata service wants a token, and was out of order when it was asked for one. Try again "
                    "later.",
                    http_status=error.http_status,
                    operation=error.operation,
                )
            return ModelArtsConfigurationError(
                "The metadata service gives no token, and no temporary key without one. In a container behind another "
                "network hop auth 'agency' does not work: use the host's network, or raise the server's hop limit for "
                "metadata. Elsewhere, give the server an agency that may use ModelArts. Or choose another auth in the "
                "connection's extras.",
                http_status=error.http_status,
                operation=error.operation,
            )
        return ModelArtsAuthenticationError(
            f"{NO_AGENCY}. ({_without_advice(error)})", http_status=error.http_status, operation=error.operation
        )

    def _session_token(self) -> Flow[str | None]:
        """
        Ask for the token of the newer service; the older one works without, and says so in various ways.

        Return "" where there is none, and None where the service did not get to say so.
        """
        headers = {"X-Metadata-Token-Ttl-Seconds": str(METADATA_TOKEN_TTL)}
        url = f"{self.metadata_service}/meta-data/latest/api/token"
        try:
            response = yield from send(Request("PUT", url, headers, timeout=METADATA_TIMEOUT))
        except TransportError:
            return None  # if it lasts, the next request meets it too, and reports it
        if response.status == 429 or response.status >= 500:
            return None
        token = response.body.decode("ascii", "ignore").strip()
        return token if response.status == 200 and is_header_safe(token) else ""


def from_environment(environment: Mapping[str, str]) -> AccessKey:
    """
    Read an access key under the vendor SDK's names, ``HUAWEICLOUD_SDK_AK`` and its sisters.

    :raises ModelArtsConfigurationError: one of the two is missing.
    """
    # What was read from a file tends to end with a line feed.
    access_key, secret_key, security_token = (
        environment.get(f"HUAWEICLOUD_SDK_{name}", "").strip() for name in ("AK", "SK", "SECURITY_TOKEN")
    )
    found = {"HUAWEICLOUD_SDK_AK": access_key, "HUAWEICLOUD_SDK_SK": secret_key}
    missing = [name for name, value in found.items() if not value]
    if missing:
        raise ModelArtsConfigurationError(
            f"{' and '.join(missing)} missing: auth 'environment' reads them from the environment variables of "
            "workers and triggerers"
        )
    return AccessKey(access_key, secret_key, security_token or None)


class _Renewal:
    """One renewal under way, and how it ended."""

    done = False
    error: ModelArtsError | None = None


class TokenCache:
    """
    Grants by identity until shortly before they expire, with one renewal of each at a time.

    Safe to share between threads and event loops: a lock is held for moments only, and whoever finds a renewal under
    way pauses until it is done, whatever drives either of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._authorizers: dict[str, tuple[Authorizer, float]] = {}
        self._renewals: dict[str, _Renewal] = {}

    def copy(self) -> TokenCache:
        """
        Return a cache with the same grants that waits for no renewal of this one.

        It takes no lock, so it is fit for a signal handler, which may have interrupted whoever holds the lock.
        """
        clone = TokenCache()
        clone._authorizers = dict(self._authorizers)
        return clone

    def has(self, identity: str) -> bool:
        """Whether there has been a grant of this identity, expired or not."""
        return identity in self._authorizers

    def obtain(
        self,
        identity: str,
        ask: Callable[[], Flow[tuple[Authorizer, float]]],
        now: Callable[[], float],
        refused: Authorizer | None,
    ) -> Flow[Authorizer]:
        """
        Return the kept grant, or a new one.

        :param identity: whose grant; a hash, so that the cache holds no password.
        :param ask: obtains a new grant and the time at which to renew it, in seconds since the epoch.
        :param refused: a grant that will not do.
        """
        while True:
            with self._lock:
                authorizer, renew_at = self._authorizers.get(identity, (None, 0.0))
                if authorizer is not None and authorizer != refused and now() < renew_at:
                    return authorizer
                renewal = self._renewals.get(identity)
                is_mine = renewal is None
                if renewal is None:
                    renewal = self._renewals[identity] = _Renewal()
            if is_mine:
                return (yield from self._renew(identity, renewal, ask))
            while not renewal.done:
                yield Sleep(RENEWAL_POLL)
            if renewal.error is not None:
                raise copy.copy(renewal.error)

    def _renew(
        self, identity: str, renewal: _Renewal, ask: Callable[[], Flow[tuple[Authorizer, float]]]
    ) -> Flow[Authorizer]:
        try:
            self._authorizers[identity] = yield from ask()
            return self._authorizers[identity][0]
        except ModelArtsError as error:
            renewal.error = error
            raise
        finally:  # also when the flow is closed half way: the next one then tries for itself
            with self._lock:
                renewal.done = True
                del self._renewals[identity]


def _no_agency(response: Response) -> ModelArtsError | None:
    """Return the error of a server without an agency, whose metadata service says in a text that it needs one."""
    if response.status != 401 or not any(word in response.body.lower() for word in (b"agency", "委托".encode())):
        return None
    return ModelArtsAuthenticationError(f"{NO_AGENCY}.", http_status=response.status, operation="GetSecurityKey")


def _without_advice(error: ModelArtsError) -> str:
    return str(error).replace(f" {ADVICE[type(error)]}.", "")


def about_project_id(project_id: str) -> str:
    """Return a sentence on a project id that looks like none, to follow a refusal; "" for one that looks right."""
    if not project_id or re.fullmatch(r"[0-9a-fA-F]{32}", project_id):
        return ""
    looks_like = "looks like a project's name" if re.search(r"[-_]", project_id) else "does not look like one"
    return (
        f" project_id '{project_id}' {looks_like}: the ID of a project has 32 hex digits, see 'My Credentials' in the "
        "console."
    )


def _fields(credentials: PasswordToken) -> Iterator[str]:
    yield from (credentials.iam_endpoint, credentials.user_name, credentials.password, credentials.domain_name)
    yield credentials.project_name or ""


def _identity(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _read_token(response: Response, now: float) -> tuple[Authorizer, float, str | None]:
    """Return the token, the time at which to renew it, and the id of the project that it is for, if IAM tells."""
    token = response.headers.get("x-subject-token", "")
    if not is_header_safe(token):
        raise ValueError("no X-Subject-Token, or not one that can be sent")
    document = _json_object(response.body, "token")
    project = document.get("project")
    project_id = project.get("id") if isinstance(project, dict) else None
    is_id = isinstance(project_id, str) and re.fullmatch(r"[0-9A-Za-z_-]{1,64}", project_id)
    return StaticToken(token), _renewal_time(document.get("expires_at"), now), project_id if is_id else None


def _read_security_key(response: Response) -> tuple[Authorizer, float]:
    key = _json_object(response.body, "credential")
    parts = [key.get(name) for name in ("access", "secret", "securitytoken")]
    if not all(isinstance(part, str) and is_header_safe(part) for part in parts):
        raise ValueError("an incomplete credential, or not one that can be sent")
    # The margin is fixed here: the service renews the key itself, well before its end.
    return AccessKey(*parts), _epoch(key.get("expires_at")) - RENEWAL_MARGIN  # type: ignore[arg-type]  # checked above


def _json_object(body: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(body)[name]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no {name}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")  # to the caller it is an unreadable answer
    return value


def _renewal_time(expires_at: object, now: float) -> float:
    expiry = _epoch(expires_at)
    return expiry - min(RENEWAL_MARGIN, (expiry - now) / 10)


def _epoch(value: object) -> float:
    """Read IAM's ``2026-01-31T12:00:00.000000Z``."""
    if not isinstance(value, str):
        raise ValueError("expires_at is not a text")
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
