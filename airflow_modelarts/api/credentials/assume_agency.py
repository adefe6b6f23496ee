"""An agency in another account: temporary keys that IAM issues to those who may assume it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from airflow_modelarts.api.credentials import base
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer, Credentials, TokenCache
from airflow_modelarts.api.credentials.temporary_keys import request_key, security_token_request
from airflow_modelarts.api.http import Flow, Request

#: Seconds; IAM allows 900 to 86,400.
ASSUMED_DURATION = 3600


@dataclass(frozen=True, slots=True)
class AssumeAgency:
    """An agency that the source's account may assume.

    :param source: the credentials that ask for the agency's keys, of any other kind.
    :param iam_endpoint: URL of IAM, without a path.
    :param agency_name: the agency's name in the account that delegates.
    :param domain_name: that account.
    :param unresolved: begins the error if IAM's host name does not exist.
    """

    source: Credentials
    iam_endpoint: str
    agency_name: str
    domain_name: str
    unresolved: str = field(default="", repr=False, compare=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Those of the source."""
        return self.source.secrets

    @property
    def cache_key(self) -> str:
        """The key of the temporary key in the token cache."""
        return base.cache_key("assume_agency", repr(self), *self.source.secrets)

    def identity(self, cache: TokenCache) -> str:
        """Name the agency, and who assumes it."""
        return f"agency '{self.agency_name}' of account '{self.domain_name}', assumed by {self.source.identity(cache)}"

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Return the cached temporary key, or request one (CreateTemporaryAccessKeyByAgency)."""
        return (yield from context.cache.obtain(self.cache_key, lambda: self._renew(context), context.now, refused))

    def _renew(self, context: AuthContext) -> Flow[tuple[Authorizer, float]]:
        # The project is one of the other account, so the source gets none.
        own = replace(context, project_id="")
        return (yield from base.authorized(self.source, own, lambda authorizer: self._request(own, authorizer)))

    def _request(self, context: AuthContext, authorizer: Authorizer) -> Flow[tuple[Authorizer, float]]:
        details = {
            "agency_name": self.agency_name,
            "domain_name": self.domain_name,
            "duration_seconds": ASSUMED_DURATION,
        }
        request = security_token_request(self.iam_endpoint, "assume_role", details)

        def build() -> Request:
            return authorizer.authorize(request, project_id="", now=context.now())

        return (
            yield from request_key(
                context,
                "CreateTemporaryAccessKeyByAgency",
                f"agency '{self.agency_name}' of account '{self.domain_name}'",
                build,
                secrets=(*self.source.secrets, *authorizer.secrets),
                advice="Check agency_name and agency_domain_name in the connection's extras, that the agency delegates "
                f"to the account of {self.source.identity(context.cache)}, and that this identity has the right 'Agent "
                "Operator'",
                unresolved=self.unresolved,
            )
        )
