"""The gateway's check of who calls: a token or a signature, verified over the bytes that arrived. Pure functions."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import parse_qsl

from airflow_modelarts.api import signing
from airflow_modelarts.testing.emulator.http.responses import ServiceError
from airflow_modelarts.testing.emulator.service.accounts import Accounts, KeyPair

#: Seconds that a caller's clock may be off.
CLOCK_WINDOW = 15 * 60
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

#: With which code a token or an access key is refused that is not valid (any more); the reference has several.
TokenRefusal = Literal["APIGW.0301", "APIGW.0307", "ModelArts.0202", "ModelArts.0203", "ModelArts.4127"]
KeyRefusal = Literal["APIGW.0301", "ModelArts.0206"]

_AUTHORIZATION = re.compile(
    rf"{signing.ALGORITHM} Access=(?P<key>[^,\s]+), ?SignedHeaders=(?P<names>[^,\s]+), ?"
    r"Signature=(?P<value>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class RawRequest:
    """
    A request as it arrived.

    :param path: raw, percent-encoded.
    :param query: raw, without the question mark.
    :param headers: values by lower-case name; a name that came twice has two values.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, list[str]] = field(repr=False)
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """
        Return a header's value, None when it is absent.

        :raises Refusal: it came more than once, so that nobody knows which one was meant.
        """
        values = self.headers.get(name, [])
        if len(values) > 1:
            raise _refused(f"header {name} came more than once")
        return values[0] if values else None


def authorize(
    arrival: RawRequest,
    project_id: str,
    *,
    projects: Collection[str],
    accounts: Accounts,
    now: float,
    refused_token: TokenRefusal = "APIGW.0301",  # noqa: S107  # nosec B107 - a code
    refused_key: KeyRefusal = "APIGW.0301",
) -> None:
    """
    Let a request in, or not.

    :param project_id: the project in the request's path.
    :param projects: ids of the projects that exist.
    :param now: the gateway's clock, in seconds since the epoch.
    :param refused_token: the code for a token that is not valid or has expired.
    :param refused_key: the code for an access key that does not exist or has expired.
    :raises Refusal: the caller is not let in; the message says why, which the real gateway does less plainly.
    """
    token = arrival.header("x-auth-token")
    if token is None:
        key = verify_signature(arrival, accounts, now, refused_key)
        allowed, scope = key.projects, arrival.header("x-project-id")
    else:
        known = accounts.find_token(token)
        if known is None or known.expires_at <= now:
            raise _refused("the token is not valid or has expired", refused_token)
        allowed, scope = None, known.project_id
    if scope is None:
        raise ServiceError("ModelArts.0204")
    if project_id not in projects:
        raise ServiceError("ModelArts.0210")
    if scope != project_id or (allowed is not None and project_id not in allowed):
        raise ServiceError("APIGW.0302", "these credentials do not permit the use of this project")


def verify_signature(
    arrival: RawRequest, accounts: Accounts, now: float, refused_key: KeyRefusal = "APIGW.0301"
) -> KeyPair:
    """
    Return the key pair that has signed the request.

    :raises Refusal: nothing or somebody else has.
    """
    authorization = arrival.header("authorization")
    if authorization is None:
        raise _refused("the request has neither an X-Auth-Token nor an Authorization header")
    parsed = _AUTHORIZATION.fullmatch(authorization)
    if parsed is None:
        raise _refused("the Authorization header is malformed")
    key = accounts.find_key(parsed["key"])
    if key is None or (key.expires_at is not None and key.expires_at <= now):
        raise _refused("the access key does not exist or has expired", refused_key)
    names = parsed["names"].split(";")
    date = arrival.header(signing.DATE_HEADER.lower()) or ""
    _check_clock(date, now)
    _check_names(arrival, names)
    if arrival.header("x-security-token") != key.security_token:
        raise _refused("the security token is not the one of this access key")
    canonical = signing.canonical_request(
        arrival.method,
        arrival.path,
        parse_qsl(arrival.query, keep_blank_values=True),
        {name: arrival.header(name) or "" for name in names},
        names,
        _payload_hash(arrival),
    )
    if not hmac.compare_digest(signing.signature(key.secret_key, date, canonical), parsed["value"]):
        raise _refused("the signature does not match the request")
    return key


def _check_clock(date: str, now: float) -> None:
    try:
        signed_at = datetime.strptime(date, signing.DATE_FORMAT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise _refused(f"{signing.DATE_HEADER} is missing or malformed") from None
    if abs(signed_at - now) > CLOCK_WINDOW:
        # Both 0301 and 0303 are seen for this; 0303 is the one that only this family of causes has.
        raise ServiceError("APIGW.0303", f"{signing.DATE_HEADER} is more than 15 minutes off")


def _check_names(arrival: RawRequest, names: list[str]) -> None:
    """Refuse names that were not sent, and ones left out that decide what the request means."""
    if names != sorted({name.lower() for name in names}):
        raise _refused("SignedHeaders are not lower-case, sorted and unique")
    for name in names:
        if arrival.header(name) is None:
            raise _refused(f"header {name} is signed, but was not sent")
    needed = ["host", signing.DATE_HEADER.lower()]
    needed += [name for name in ("x-project-id", "x-security-token") if arrival.header(name) is not None]
    for name in needed:
        if name not in names:
            raise _refused(f"header {name} must be signed")


def _payload_hash(arrival: RawRequest) -> str:
    """Hash the body; as with the vendor, one may be declared unsigned, and an empty one's hash is always its own."""
    actual = hashlib.sha256(arrival.body).hexdigest()
    declared = arrival.header("x-sdk-content-sha256")
    if declared is None or not arrival.body or declared == actual:
        return actual
    if declared == UNSIGNED_PAYLOAD:
        return declared
    raise _refused("X-Sdk-Content-Sha256 is not the hash of the body")


def _refused(reason: str, code: str = "APIGW.0301") -> ServiceError:
    return ServiceError(code, f"Incorrect IAM authentication information: {reason}")
