"""The gateway: verifies a request's token or signature over its raw bytes. Pure functions."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_modelarts.api import signing
from airflow_modelarts.testing.emulator.service.accounts import Accounts, KeyPair, Token
from airflow_modelarts.testing.emulator.service.errors import ServiceError
from airflow_modelarts.testing.emulator.service.settings import AccessKeyErrorCode, Settings

#: Seconds by which a caller's clock may be off.
CLOCK_WINDOW = 15 * 60
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

_AUTHORIZATION = re.compile(
    rf"{signing.ALGORITHM} Access=(?P<key>[^,\s]+), ?SignedHeaders=(?P<names>[^,\s]+), ?"
    r"Signature=(?P<value>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class RawRequest:
    """A request as received.

    :param path: raw, percent-encoded.
    :param query: raw, without the question mark.
    :param headers: values by lower-case name; a repeated header has several.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, list[str]] = field(repr=False)
    body: bytes = field(repr=False)

    @classmethod
    def of(cls, scope: Mapping[str, Any], body: bytes) -> RawRequest:
        """Return the request of an ASGI scope and a body."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(_decode(value))
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        return cls(scope["method"], path, query, headers, body)

    def header(self, name: str) -> str | None:
        """Return a header's value, None when it is absent; refuse a header that the request has more than once."""
        values = self.headers.get(name, [])
        if len(values) > 1:
            raise _unauthorized(f"the request has the header {name} more than once")
        return values[0] if values else None


def authenticate(request: RawRequest, *, accounts: Accounts, settings: Settings, now: float) -> KeyPair | Token:
    """Return the token or the key pair that a request was made with.

    :param now: the gateway's time, in seconds since the epoch.
    :raises ServiceError: it is not valid; the message gives the reason, more clearly than the real gateway's.
    """
    token = request.header("x-auth-token")
    if token is None:
        return verify_signature(request, accounts, now, settings.refused_key)
    known = accounts.find_token(token)
    if known is None or known.expires_at <= now:
        raise _unauthorized("the token is not valid or has expired", settings.refused_token)
    return known


def authorize(
    request: RawRequest,
    project_id: str,
    *,
    projects: Collection[str],
    accounts: Accounts,
    settings: Settings,
    now: float,
) -> None:
    """Check that a request's credentials give access to a project.

    :param project_id: the project in the request's path.
    :param projects: ids of the existing projects.
    :param now: the gateway's time, in seconds since the epoch.
    :raises ServiceError: they do not; the message gives the reason, more clearly than the real gateway's.
    """
    caller = authenticate(request, accounts=accounts, settings=settings, now=now)
    if isinstance(caller, KeyPair):
        allowed, scope = caller.projects, request.header("x-project-id")
    else:
        allowed, scope = None, caller.project_id
    if scope is None:
        raise ServiceError("ModelArts.0204")
    if project_id not in projects:
        raise ServiceError("ModelArts.0210")
    if scope != project_id or (allowed is not None and project_id not in allowed):
        raise ServiceError("APIGW.0302", "these credentials do not permit the use of this project")


def verify_signature(
    request: RawRequest, accounts: Accounts, now: float, refused_key: AccessKeyErrorCode = "APIGW.0301"
) -> KeyPair:
    """Return the key pair that signed a request; ``refused_key`` is the code for an unknown or expired access key."""
    authorization = request.header("authorization")
    if authorization is None:
        raise _unauthorized("the request has neither an X-Auth-Token nor an Authorization header")
    parsed = _AUTHORIZATION.fullmatch(authorization)
    if parsed is None:
        raise _unauthorized("the Authorization header is malformed")
    key = accounts.find_key(parsed["key"])
    if key is None or (key.expires_at is not None and key.expires_at <= now):
        raise _unauthorized("the access key does not exist or has expired", refused_key)
    names = parsed["names"].split(";")
    date = request.header(signing.DATE_HEADER.lower()) or ""
    _check_clock(date, now)
    _check_names(request, names)
    if request.header("x-security-token") != key.security_token:
        raise _unauthorized("the security token is not the one of this access key")
    canonical = signing.canonical_request(
        request.method,
        request.path,
        request.query,
        {name: request.header(name) or "" for name in names},
        names,
        _payload_hash(request),
    )
    if not hmac.compare_digest(signing.signature(key.secret_key, date, canonical), parsed["value"]):
        raise _unauthorized("the signature does not match the request")
    return key


def _check_clock(date: str, now: float) -> None:
    try:
        signed_at = datetime.strptime(date, signing.DATE_FORMAT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise _unauthorized(f"{signing.DATE_HEADER} is missing or malformed") from None
    if abs(signed_at - now) > CLOCK_WINDOW:
        # The real gateway answers 0301 or 0303; only 0303 is specific to this family of causes.
        raise ServiceError("APIGW.0303", f"{signing.DATE_HEADER} is more than 15 minutes off")


def _check_names(request: RawRequest, names: list[str]) -> None:
    """Check that every signed header was sent, and that the headers which give the request its meaning are signed."""
    if names != sorted({name.lower() for name in names}):
        raise _unauthorized("SignedHeaders are not lower-case, sorted and unique")
    for name in names:
        if request.header(name) is None:
            raise _unauthorized(f"the header {name} is signed but was not sent")
    needed = ["host", signing.DATE_HEADER.lower()]
    needed += [name for name in ("x-project-id", "x-security-token") if request.header(name) is not None]
    for name in needed:
        if name not in names:
            raise _unauthorized(f"the header {name} must be signed")


def _payload_hash(request: RawRequest) -> str:
    """Return the body's hash, or ``UNSIGNED-PAYLOAD`` if declared; the vendor always hashes an empty body."""
    actual = hashlib.sha256(request.body).hexdigest()
    declared = request.header("x-sdk-content-sha256")
    if declared is None or not request.body or declared == actual:
        return actual
    if declared == UNSIGNED_PAYLOAD:
        return declared
    raise _unauthorized("X-Sdk-Content-Sha256 is not the hash of the body")


def _decode(value: bytes) -> str:
    """Decode a header: the vendor's client sends and signs UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _unauthorized(reason: str, code: str = "APIGW.0301") -> ServiceError:
    return ServiceError(code, f"Incorrect IAM authentication information: {reason}")
