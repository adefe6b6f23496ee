"""The token of an OpenID Connect provider, which STS exchanges for temporary keys of an agency."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from airflow_modelarts.api.credentials import base
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer, TokenCache
from airflow_modelarts.api.credentials.temporary_keys import JSON_HEADERS, request_key
from airflow_modelarts.api.http import Flow, Request


@dataclass(frozen=True, slots=True)
class IdToken:
    """An ID token: a text that stays, or the path of a file that is read anew at each renewal.

    :param label: names it in errors, for example its variable.
    """

    label: str
    text: str = field(default="", repr=False)
    path: str = ""

    def read(self, *, is_outage: bool) -> Flow[str]:
        """Return the token; see :func:`base.read_token_file`."""
        if self.text:
            return self.text
        return (yield from base.read_token_file(self.path, self.label, is_outage=is_outage))


@dataclass(frozen=True, slots=True)
class OidcAgency:
    """An agency that trusts an OpenID Connect provider; STS issues its temporary keys.

    :param sts_endpoint: URL of STS, without a path.
    :param provider_urn: the identity provider, as an URN.
    :param agency_urn: the agency, as an URN.
    :param session_name: appears in the agency's audit trail.
    :param duration: seconds for which a key is requested.
    :param policy: limits the rights of the keys further; None for no limit. ``policy_ids`` names policies for that.
    :param unresolved: begins the error if the host name of STS does not exist.
    """

    sts_endpoint: str
    provider_urn: str
    agency_urn: str
    id_token: IdToken
    session_name: str
    duration: int
    policy: str | None = None
    policy_ids: tuple[str, ...] = ()
    unresolved: str = field(default="", repr=False, compare=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The ID token, if it is no file."""
        return (self.id_token.text,) if self.id_token.text else ()

    @property
    def cache_key(self) -> str:
        """The key of the temporary key in the token cache."""
        return base.cache_key("oidc", repr(self), self.id_token.text)

    def identity(self, cache: TokenCache) -> str:
        """Name the agency and the provider."""
        return f"agency '{self.agency_urn}' through identity provider '{self.provider_urn}'"

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Return the cached temporary key, or request one (AssumeAgencyWithOIDC)."""
        return (yield from context.cache.obtain(self.cache_key, lambda: self._renew(context), context.now, refused))

    def _renew(self, context: AuthContext) -> Flow[tuple[Authorizer, float]]:
        token = yield from self.id_token.read(is_outage=context.cache.has(self.cache_key))
        body: dict[str, object] = {
            "provider_urn": self.provider_urn,
            "agency_urn": self.agency_urn,
            "agency_session_name": self.session_name,
            "id_token": token,
            "duration_seconds": self.duration,
        }
        if self.policy:
            body["policy"] = self.policy
        if self.policy_ids:
            body["policy_ids"] = list(self.policy_ids)
        url = f"{self.sts_endpoint}/v5/agencies/assume-with-oidc"
        request = Request("POST", url, JSON_HEADERS, json.dumps(body).encode())
        return (
            yield from request_key(
                context,
                "AssumeAgencyWithOIDC",
                f"agency '{self.agency_urn}'",
                lambda: request,
                secrets=(token,),
                advice="Check HUAWEICLOUD_OIDC_PROVIDER_URN and HUAWEICLOUD_OIDC_AGENCY_URN, that the agency trusts "
                f"the provider, and that the token of {self.id_token.label} is current and has the provider's audience",
                unresolved=self.unresolved,
            )
        )
