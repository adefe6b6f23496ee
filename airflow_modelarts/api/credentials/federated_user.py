"""The older way with a provider's ID token: IAM exchanges it for a token without a project, and that for a key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from airflow_modelarts.api.credentials import base
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer, TokenCache
from airflow_modelarts.api.credentials.oidc import IdToken
from airflow_modelarts.api.credentials.temporary_keys import JSON_HEADERS, ask, request_key, security_token_request
from airflow_modelarts.api.http import Flow, Request, Response

#: Seconds; the vendor's SDK requests the same.
FEDERATED_DURATION = 6 * 3600


@dataclass(frozen=True, slots=True)
class FederatedUser:
    """A user of an identity provider.

    :param iam_endpoint: URL of IAM, without a path.
    :param idp_id: the identity provider's id in IAM.
    :param origin: where the settings were found, for people.
    :param unresolved: begins the error if IAM's host name does not exist.
    """

    iam_endpoint: str
    idp_id: str
    id_token: IdToken
    origin: str = field(default="", compare=False)
    unresolved: str = field(default="", repr=False, compare=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Empty: the ID token is in a file."""
        return ()

    @property
    def cache_key(self) -> str:
        """The key of the temporary key in the token cache."""
        return base.cache_key("federated", self.iam_endpoint, self.idp_id, self.id_token.path)

    def identity(self, cache: TokenCache) -> str:
        """Name the identity provider."""
        return f"a user of identity provider '{self.idp_id}'{self.origin and f' of {self.origin}'}"

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Return the cached temporary key, or request one."""
        return (yield from context.cache.obtain(self.cache_key, lambda: self._renew(context), context.now, refused))

    def _renew(self, context: AuthContext) -> Flow[tuple[Authorizer, float]]:
        id_token = yield from self.id_token.read(is_outage=context.cache.has(self.cache_key))
        target = f"identity provider '{self.idp_id}'"
        advice = (
            f"Check the identity provider's id, and that the token of {self.id_token.label} is current and has its "
            "audience"
        )
        headers = {**JSON_HEADERS, "X-Idp-Id": self.idp_id}
        body = json.dumps({"auth": {"id_token": {"id": id_token}}}).encode()
        request = Request("POST", f"{self.iam_endpoint}/v3.0/OS-AUTH/id-token/tokens", headers, body)
        operation = "CreateUnscopedTokenByIdToken"
        token = yield from ask(
            context,
            operation,
            target,
            lambda: request,
            _read_token,
            secrets=(id_token,),
            advice=advice,
            unresolved=self.unresolved,
        )
        details = {"id": token, "duration_seconds": FEDERATED_DURATION}
        key_request = security_token_request(self.iam_endpoint, "token", details)
        return (
            yield from request_key(
                context,
                "CreateTemporaryAccessKeyByToken",
                target,
                lambda: key_request,
                secrets=(token, id_token),
                advice=advice,
                unresolved=self.unresolved,
            )
        )


def _read_token(response: Response) -> str:
    token = response.headers.get("x-subject-token", "")
    if not base.is_header_safe(token):
        raise ValueError("no X-Subject-Token, or one that no header can hold")
    return token
