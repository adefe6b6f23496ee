"""The access key that signs requests to the object store: the credentials' own, or one that IAM gives for a token."""

from __future__ import annotations

from collections.abc import Callable

from airflow_modelarts.api import errors
from airflow_modelarts.api.credentials import base
from airflow_modelarts.api.credentials.access_key import AccessKey
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer, Credentials
from airflow_modelarts.api.credentials.iam_token import StaticToken
from airflow_modelarts.api.credentials.temporary_keys import request_key, security_token_request
from airflow_modelarts.api.http import Flow

#: Seconds for which IAM is asked for a key; it allows 900 to 86,400.
KEY_LIFETIME = 3600


def obtain_access_key(
    credentials: Credentials, context: AuthContext, iam: Callable[[], tuple[str, str]], *, refused: AccessKey | None
) -> Flow[AccessKey]:
    """Return an access key of any credentials. An IAM token cannot sign, so IAM exchanges it for a temporary key.

    :param iam: returns the URL of IAM, and the beginning of the error if its host name does not exist; called only if
        it is needed.
    :param refused: a key that the object store refused, so that another one is requested if possible.
    :raises ModelArtsError: none could be obtained.
    """
    authorizer = yield from credentials.obtain(context, refused=refused)
    if isinstance(authorizer, StaticToken):
        authorizer = yield from _exchange(credentials, authorizer, context, iam(), refused)
    if not isinstance(authorizer, AccessKey):
        raise errors.ModelArtsConfigurationError(
            "These credentials give no access key, which the object store needs: choose another auth in the "
            "connection's extras"
        )
    return authorizer


def _exchange(
    credentials: Credentials,
    token: StaticToken,
    context: AuthContext,
    iam: tuple[str, str],
    refused: AccessKey | None,
) -> Flow[Authorizer]:
    """Return the cached key of the credentials' token, or request one; a token that IAM refuses is renewed once."""

    def renew(current: StaticToken) -> Callable[[], Flow[tuple[Authorizer, float]]]:
        return lambda: _request_key(current, context, *iam)

    def obtain(current: StaticToken) -> Flow[Authorizer]:
        key = base.cache_key("object store", iam[0], current.token)
        return (yield from context.cache.obtain(key, renew(current), context.now, refused))

    try:
        return (yield from obtain(token))
    except errors.ModelArtsAuthenticationError as error:
        if not error.asks_for_new_credentials:
            raise
        renewed = yield from credentials.obtain(context, refused=token)
        if renewed == token or not isinstance(renewed, StaticToken):
            raise
    return (yield from obtain(renewed))


def _request_key(
    token: StaticToken, context: AuthContext, endpoint: str, unresolved: str
) -> Flow[tuple[Authorizer, float]]:
    """Request a temporary key for a token (CreateTemporaryAccessKeyByToken)."""
    request = security_token_request(endpoint, "token", {"duration_seconds": KEY_LIFETIME})
    return request_key(
        context,
        "CreateTemporaryAccessKeyByToken",
        "the connection's token",
        lambda: token.authorize(request, project_id=context.project_id, now=context.now()),
        secrets=token.secrets,
        advice="IAM was asked for a temporary key, which the object store needs. Check iam_endpoint and the token or "
        "user in the connection, and that the user may use IAM; or choose auth 'access_key'",
        unresolved=unresolved,
    )
