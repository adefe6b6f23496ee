"""The identity of a pod on CCE, Huawei's Kubernetes: temporary keys from an endpoint that its environment names."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_modelarts.api.credentials import base
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer, TokenCache
from airflow_modelarts.api.credentials.temporary_keys import JSON_HEADERS, request_key
from airflow_modelarts.api.http import Flow, Request

URI_VARIABLE = "HC_CONTAINER_CREDENTIALS_FULL_URI"
TOKEN_FILE_VARIABLE = "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE"  # noqa: S105  # nosec B105 - a variable's name
#: Seconds, as in the vendor's SDK: the endpoint is on the node.
POD_IDENTITY_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """The identity of the pod in which this runs.

    :param uri: the endpoint: https, or plain http to a loopback or link-local address.
    :param token_file: the path of the pod's token, which is read anew at each renewal.
    """

    uri: str
    token_file: str

    @property
    def secrets(self) -> tuple[str, ...]:
        """Empty: the token is in a file."""
        return ()

    @property
    def cache_key(self) -> str:
        """The key of the temporary key in the token cache."""
        return base.cache_key("pod_identity", self.uri, self.token_file)

    def identity(self, cache: TokenCache) -> str:
        """Say that it is the pod; the endpoint knows its agency."""
        return "the identity of this pod"

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Return the cached temporary key, or request one."""
        return (yield from context.cache.obtain(self.cache_key, lambda: self._renew(context), context.now, refused))

    def _renew(self, context: AuthContext) -> Flow[tuple[Authorizer, float]]:
        is_outage = context.cache.has(self.cache_key)
        token = yield from base.read_token_file(self.token_file, TOKEN_FILE_VARIABLE, is_outage=is_outage)
        headers = {**JSON_HEADERS, "Authorization": token}
        request = Request("POST", self.uri, headers, b"{}", timeout=POD_IDENTITY_TIMEOUT)
        return (
            yield from request_key(
                context,
                "GetPodIdentityCredentials",
                "this pod",
                lambda: request,
                secrets=(token,),
                advice="Check that the pod's service account has a pod identity association with an agency, and "
                f"{URI_VARIABLE} and {TOKEN_FILE_VARIABLE}",
                unresolved=f"{URI_VARIABLE} in the environment has a host that does not resolve: check its spelling",
            )
        )
