"""Who gets temporary keys without a password: an identity provider's users, agencies, a pod and a server. All fakes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

from airflow_modelarts.testing.emulator.service.settings import Name, StrictFields

IDP_ID = "emulator-idp"
#: The client of the identity provider for which ID tokens must be issued.
IDP_AUDIENCE = "emulator-client"
PROVIDER_URN = f"iam::emulator-domain:oidcProvider:{IDP_ID}"
OIDC_AGENCY_URN = "iam::emulator-domain:agency:emulator-oidc-agency"
AGENCY_NAME = "emulator-agency"
AGENCY_DOMAIN_NAME = "emulator-other-domain"
POD_TOKEN = "emulator-pod-token-which-is-no-secret"  # noqa: S105  # nosec B105 - a fake
METADATA_TOKEN = "emulator-metadata-token-which-is-no-secret"  # noqa: S105  # nosec B105 - a fake
_SIGNING_KEY = b"emulator-idp-key-which-is-no-secret"


@dataclass(frozen=True)
class Agency(StrictFields):
    """An agency in another account, which any caller may assume, and the ids of the projects it may use; None for all.

    The emulator has one of each name and domain.
    """

    name: Name
    domain_name: Name
    projects: frozenset[str] | None = None


class InvalidIdTokenError(ValueError):
    """An ID token is refused; the message says why."""


def issue_id_token(*, now: float, lifetime: float = 3600.0, audience: str = IDP_AUDIENCE, issuer: str = IDP_ID) -> str:
    """Return an ID token of the identity provider, a JSON Web Token."""
    claims = {"iss": issuer, "aud": audience, "sub": "emulator-workload", "iat": int(now), "exp": int(now + lifetime)}
    content = ".".join(_encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{content}.{_signature(content)}"


def check_id_token(token: str, *, now: float) -> None:
    """Check an ID token's signature, issuer, audience and expiry.

    :raises InvalidIdTokenError: one of them is wrong.
    """
    content, _, signature = token.rpartition(".")
    if not hmac.compare_digest(_signature(content).encode(), signature.encode("utf-8", "surrogatepass")):
        raise InvalidIdTokenError("the ID token's signature does not match")
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(content.split(".")[1] + "=="))
    if claims["iss"] != IDP_ID:
        raise InvalidIdTokenError("the ID token is of another issuer")
    if claims["aud"] != IDP_AUDIENCE:
        raise InvalidIdTokenError("the ID token is for another audience")
    if claims["exp"] <= now:
        raise InvalidIdTokenError("the ID token has expired")


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _signature(content: str) -> str:
    return _encode(hmac.digest(_SIGNING_KEY, content.encode("utf-8", "surrogatepass"), hashlib.sha256))
