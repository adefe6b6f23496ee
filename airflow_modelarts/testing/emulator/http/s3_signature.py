"""The check of Signature Version 4 in front of the object store; moto itself accepts any signature.

The signature covers the hash of the body that a client declares. The hash is compared with the body, the signatures of
the chunks of a streamed body are not. A signature for any region is accepted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn
from urllib.parse import quote, unquote_to_bytes

from airflow_modelarts.testing.emulator.service.accounts import Accounts, KeyPair

ALGORITHM = "AWS4-HMAC-SHA256"
DATE_FORMAT = "%Y%m%dT%H%M%SZ"
#: Seconds by which a caller's clock may be off.
CLOCK_WINDOW = 15 * 60
#: Seconds for which a presigned link can be valid, at most.
LONGEST_LINK = 7 * 24 * 3600
UNSIGNED = "UNSIGNED-PAYLOAD"

_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} +Credential=(?P<credential>[^,\s]+), *SignedHeaders=(?P<names>[^,\s]+), *Signature=(?P<value>\w+)"
)
_CREDENTIAL = re.compile(r"(?P<key>.+)/(?P<scope>(?P<day>\d{8})/(?P<region>[^/]+)/s3/aws4_request)")


class StoreError(Exception):
    """The object store refuses a request.

    :param status: the HTTP status.
    :param code: the S3 protocol's, for example ``AccessDenied``.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        # Exception.__init__ is not called: copies and pickles need args to stay those of this constructor.
        self.status, self.code, self.message = status, code, message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(frozen=True)
class StoreRequest:
    """A request to the object store as received.

    :param path: raw, percent-encoded.
    :param query: raw, without the question mark.
    :param headers: by lower-case name; the values of a repeated header are joined by commas.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def parameters(self) -> list[tuple[str, str]]:
        """Return the names and values of the query, decoded; a plus sign is one, and no space."""
        pairs = (part.partition("=") for part in self.query.split("&") if part)
        return [(_decode(name), _decode(value)) for name, _, value in pairs]


@dataclass(frozen=True)
class _Claim:
    """What a request says about its signature, in its headers or, if ``expires`` is set, in its query."""

    credential: str
    names: str
    value: str
    date: str
    token: str | None
    expires: str | None = None


def verify(request: StoreRequest, accounts: Accounts, now: float) -> KeyPair:
    """Return the key pair that signed a request.

    :param now: seconds since the epoch.
    :raises StoreError: the request is not signed, or not by a key that is valid now.
    """
    claim = _read_claim(request)
    parsed = _CREDENTIAL.fullmatch(claim.credential)
    if parsed is None:
        raise StoreError(400, "AuthorizationHeaderMalformed", "the credential is not KEY/DAY/REGION/s3/aws4_request")
    key = accounts.find_key(parsed["key"])
    if key is None:
        raise StoreError(403, "InvalidAccessKeyId", "the access key does not exist")
    _check_time(claim, parsed["day"], now)
    if key.expires_at is not None and key.expires_at <= now:
        raise StoreError(400, "ExpiredToken", "the temporary access key has expired")
    if claim.token != key.security_token:
        raise StoreError(400, "InvalidToken", "the security token is not the one of this access key")
    canonical = _canonical_request(request, claim)
    to_sign = "\n".join([ALGORITHM, claim.date, parsed["scope"], hashlib.sha256(canonical.encode()).hexdigest()])
    signing_key = f"AWS4{key.secret_key}".encode()
    for part in parsed["scope"].split("/"):
        signing_key = _hmac(signing_key, part)
    if not hmac.compare_digest(_hmac(signing_key, to_sign).hex().encode(), claim.value.encode()):
        raise StoreError(403, "SignatureDoesNotMatch", "the signature does not match the request: check the secret key")
    return key


def _read_claim(request: StoreRequest) -> _Claim:
    query = {name.lower(): value for name, value in request.parameters()}
    if query.get("x-amz-algorithm") == ALGORITHM:
        names = ("credential", "signedheaders", "signature", "date")
        credential, signed, value, date = (query.get(f"x-amz-{name}", "") for name in names)
        expires = query.get("x-amz-expires", "")
        return _Claim(credential, signed, value, date, query.get("x-amz-security-token"), expires)
    authorization = request.headers.get("authorization")
    if authorization is None:
        raise StoreError(403, "AccessDenied", "the request is not signed")
    found = _AUTHORIZATION.fullmatch(authorization)
    if found is None:
        raise StoreError(400, "AuthorizationHeaderMalformed", f"a signature of the version {ALGORITHM} is needed")
    date, token = request.headers.get("x-amz-date", ""), request.headers.get("x-amz-security-token")
    return _Claim(found["credential"], found["names"], found["value"], date, token)


def _check_time(claim: _Claim, day: str, now: float) -> None:
    try:
        signed_at = datetime.strptime(claim.date, DATE_FORMAT).replace(tzinfo=UTC).timestamp()
        lifetime = None if claim.expires is None else int(claim.expires)
    except ValueError:
        raise StoreError(403, "AccessDenied", "X-Amz-Date or X-Amz-Expires is missing or malformed") from None
    if not claim.date.startswith(day):
        raise StoreError(403, "SignatureDoesNotMatch", "the day of the credential is not that of X-Amz-Date")
    if lifetime is not None and not (0 < lifetime <= LONGEST_LINK and now <= signed_at + lifetime):
        raise StoreError(403, "AccessDenied", "the presigned link has expired")
    if signed_at - now > CLOCK_WINDOW or (lifetime is None and now - signed_at > CLOCK_WINDOW):
        raise StoreError(403, "RequestTimeTooSkewed", "X-Amz-Date is more than 15 minutes off")


def _canonical_request(request: StoreRequest, claim: _Claim) -> str:
    names = claim.names.split(";")
    needed = {"host", *(name for name in request.headers if name.startswith("x-amz-"))}
    if missing := sorted(needed - set(names)):
        raise StoreError(403, "AccessDenied", f"the header {missing[0]} must be signed")
    query = sorted(
        (_encode(name), _encode(value)) for name, value in request.parameters() if name.lower() != "x-amz-signature"
    )
    return "\n".join(
        [
            request.method,
            quote(unquote_to_bytes(request.path), safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names),
            "",
            claim.names,
            _payload_hash(request, claim),
        ]
    )


def _payload_hash(request: StoreRequest, claim: _Claim) -> str:
    declared = request.headers.get("x-amz-content-sha256")
    if declared is None:
        return UNSIGNED if claim.expires is not None else _refuse_body("X-Amz-Content-SHA256 is missing")
    streamed = declared == UNSIGNED or declared.startswith("STREAMING-")
    if not streamed and declared != hashlib.sha256(request.body).hexdigest():
        _refuse_body("X-Amz-Content-SHA256 is not the hash of the body")
    return declared


def _refuse_body(reason: str) -> NoReturn:
    raise StoreError(400, "XAmzContentSHA256Mismatch", reason)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _encode(text: str) -> str:
    return quote(text, safe="-_.~", errors="surrogateescape")


def _decode(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape")
