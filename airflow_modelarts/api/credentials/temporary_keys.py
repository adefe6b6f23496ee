"""Temporary keys: how answers hold them, and how IAM issues them (``/v3.0/OS-CREDENTIAL/securitytokens``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from airflow_modelarts.api import errors
from airflow_modelarts.api.credentials import base
from airflow_modelarts.api.credentials.access_key import AccessKey
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer
from airflow_modelarts.api.http import Flow, Request, Response

T = TypeVar("T")

JSON_HEADERS = {"Content-Type": "application/json;charset=utf8", "Accept": "application/json"}
SECURITY_TOKENS = "/v3.0/OS-CREDENTIAL/securitytokens"

#: The names of each part in the answers of IAM, STS and pod identity, as the vendor's SDK reads them.
NAMES = (
    ("access", "accessKeyId", "access_key_id"),
    ("secret", "secretAccessKey", "secret_access_key"),
    ("securitytoken", "securityToken", "security_token"),
    ("expires_at", "expiration"),
)


def read_key(response: Response) -> tuple[AccessKey, float]:
    """Return the temporary key of an answer, and its expiry in seconds since the epoch.

    :raises ValueError: it is incomplete; the text quotes nothing.
    """
    document = base.read_document(response.body)
    for wrapper in ("credential", "credentials"):
        if wrapper in document:
            document = document[wrapper]
            break
    if not isinstance(document, dict):
        raise ValueError("no object credential")
    *parts, expires_at = (next(filter(None, map(document.get, names)), None) for names in NAMES)
    texts = [part for part in parts if isinstance(part, str) and base.is_header_safe(part)]
    if len(texts) != len(parts):
        raise ValueError("an incomplete credential, or one that no header can hold")
    return AccessKey(*texts), base.parse_expiry(expires_at)


def renewable_key(response: Response, now: float) -> tuple[Authorizer, float]:
    """Return the temporary key of an answer, and the time at which to renew it."""
    key, expiry = read_key(response)
    return key, base.renewal_time(expiry, now)


def request_key(
    context: AuthContext,
    operation: str,
    target: str,
    build: Callable[[], Request],
    *,
    secrets: tuple[str, ...],
    advice: str,
    unresolved: str = "",
) -> Flow[tuple[Authorizer, float]]:
    """Request a temporary key, and return it with the time at which to renew it.

    :param advice: what to check if the key is refused for good.
    """
    return (
        yield from ask(
            context,
            operation,
            target,
            build,
            lambda response: renewable_key(response, context.now()),
            secrets=secrets,
            advice=advice,
            unresolved=unresolved,
        )
    )


def ask(
    context: AuthContext,
    operation: str,
    target: str,
    build: Callable[[], Request],
    parse: Callable[[Response], T],
    *,
    secrets: tuple[str, ...],
    advice: str,
    unresolved: str = "",
) -> Flow[T]:
    """Send a request to a service that issues credentials; a lasting refusal gets ``advice``."""
    address = "/".join(build().url.split("/")[:3])
    retrying_request = context.retrying_request(operation, target, address, secrets, unresolved=unresolved)
    try:
        return (yield from retrying_request.run(build, parse))
    except errors.ModelArtsError as error:
        if error.temporary or error.http_status is None:
            raise
        raise base.with_advice(error, f"This was {address}. {advice}.") from None


def security_token_request(iam_endpoint: str, method: str, details: dict[str, Any]) -> Request:
    """Return the request to IAM for a temporary key, without authorization.

    :param method: ``token`` or ``assume_role``; ``details`` describes it.
    """
    body = {"auth": {"identity": {"methods": [method], method: details}}}
    return Request("POST", f"{iam_endpoint}{SECURITY_TOKENS}", JSON_HEADERS, json.dumps(body).encode())
