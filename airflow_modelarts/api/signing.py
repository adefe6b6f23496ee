"""SDK-HMAC-SHA256, the signature of Huawei Cloud's API gateway, as pure functions."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote, urlsplit

ALGORITHM = "SDK-HMAC-SHA256"
DATE_HEADER = "X-Sdk-Date"
DATE_FORMAT = "%Y%m%dT%H%M%SZ"
#: Paths and queries whose canonical form is kept: polls send the same ones again and again.
KEPT_FORMS = 256


def encode(text: str) -> str:
    """Percent-encode every character except RFC 3986's unreserved ones."""
    return quote(text, safe="~")


@lru_cache(KEPT_FORMS)
def canonical_path(path: str) -> str:
    """Return the path in its canonical encoding, with a slash at its end."""
    canonical = "/".join(encode(segment) for segment in unquote(path).split("/"))
    return canonical if canonical.endswith("/") else canonical + "/"


@lru_cache(KEPT_FORMS)
def canonical_query(query: str) -> str:
    """Return the query with its parameters sorted by name and value, in their canonical encoding."""
    parameters = parse_qsl(query, keep_blank_values=True)
    return "&".join(f"{encode(name)}={encode(value)}" for name, value in sorted(parameters))


def canonical_request(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    signed_names: Iterable[str],
    payload_hash: str,
) -> str:
    """Return the text whose hash is signed.

    :param path: as it is sent, without the query.
    :param query: as it is sent.
    :param headers: under lower-case names.
    :param signed_names: the lower-case names of the signed headers, in order.
    :param payload_hash: hex SHA-256 of the body.
    """
    names = list(signed_names)
    return "\n".join(
        [
            method.upper(),
            canonical_path(path),
            canonical_query(query),
            *(f"{name}:{headers[name].strip()}" for name in names),
            "",
            ";".join(names),
            payload_hash,
        ]
    )


def signature(secret_key: str, date: str, canonical: str) -> str:
    """Sign a canonical request; ``date`` is the value of the X-Sdk-Date header."""
    to_sign = f"{ALGORITHM}\n{date}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.digest(secret_key.encode(), to_sign.encode(), "sha256").hex()


def sign(
    access_key: str, secret_key: str, *, method: str, url: str, headers: Mapping[str, str], body: bytes, now: float
) -> dict[str, str]:
    """Return the headers of a signed request: the given ones, Host, X-Sdk-Date and Authorization.

    The signature covers every given header. The headers of a project or a temporary key must be among them.

    :param url: absolute and percent-encoded, query included.
    :param now: seconds since the epoch; the gateway refuses a clock more than 15 minutes off.
    """
    parts = urlsplit(url)
    date = time.strftime(DATE_FORMAT, time.gmtime(now))
    sent = {**headers, "Host": parts.netloc, DATE_HEADER: date}
    covered = {name.lower(): value for name, value in sent.items()}
    names = sorted(covered)
    canonical = canonical_request(
        method,
        parts.path,
        parts.query,
        covered,
        names,
        hashlib.sha256(body).hexdigest(),
    )
    value = signature(secret_key, date, canonical)
    return {
        **sent,
        "Authorization": f"{ALGORITHM} Access={access_key}, SignedHeaders={';'.join(names)}, Signature={value}",
    }
