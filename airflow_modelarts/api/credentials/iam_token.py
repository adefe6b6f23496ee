"""IAM tokens: a ready one, and those that IAM issues for a user name and a password."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace

from airflow_modelarts.api import errors
from airflow_modelarts.api.credentials import base
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer, TokenCache
from airflow_modelarts.api.error_mapping import project_id_hint
from airflow_modelarts.api.http import Flow, Request, Response


@dataclass(frozen=True, slots=True)
class StaticToken:
    """A ready IAM token, used until the service refuses it. Implements both Credentials and Authorizer."""

    token: str = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The token."""
        return (self.token,)

    def identity(self, cache: TokenCache) -> str:
        """Say that it is a token: it does not tell whose."""
        return "the IAM token of the connection"

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Return the token itself; it cannot be renewed."""
        yield from ()
        return self

    def authorize(self, request: Request, *, project_id: str, now: float) -> Request:
        """Add the token."""
        return replace(request, headers={**request.headers, "X-Auth-Token": self.token})


@dataclass(frozen=True, slots=True)
class PasswordToken:
    """An IAM user and password. IAM exchanges them for a token, which is cached.

    :param iam_endpoint: URL of IAM, without a path.
    :param user_name: the IAM user's name.
    :param domain_name: the account to which the user belongs.
    :param project_name: scopes the token by the project's name. By default the project id scopes it, and without
        one the account.
    :param unresolved: begins the error if IAM's host name does not exist: what the user wrote, and what to change.
    """

    iam_endpoint: str
    user_name: str
    password: str = field(repr=False)
    domain_name: str
    project_name: str | None = None
    unresolved: str = field(default="", repr=False, compare=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The password."""
        return (self.password,)

    def identity(self, cache: TokenCache) -> str:
        """Name the user."""
        return f"IAM user '{self.user_name}' of account '{self.domain_name}'"

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Return the cached token, or request one (KeystoneCreateUserTokenByPassword)."""
        user = (self.iam_endpoint, self.user_name, self.password, self.domain_name, self.project_name or "")
        key = base.cache_key("password", *user, context.project_id)
        return (yield from context.cache.obtain(key, lambda: self._renew(context), context.now, refused))

    def _renew(self, context: AuthContext) -> Flow[tuple[Authorizer, float]]:
        target = f"user '{self.user_name}' of domain '{self.domain_name}'"
        operation = "KeystoneCreateUserTokenByPassword"
        retrying_request = context.retrying_request(
            operation, target, self.iam_endpoint, self.secrets, unresolved=self.unresolved
        )
        request = self._request(context.project_id)
        try:
            token, renew_at, project_id = yield from retrying_request.run(
                lambda: request, lambda response: _read_token(response, context.now())
            )
        except errors.ModelArtsError as error:
            if error.temporary:
                raise
            raise self._with_advice(error, context.project_id) from None
        if self.project_name and project_id and context.project_id and project_id.lower() != context.project_id.lower():
            raise errors.ModelArtsConfigurationError(
                f"project_name '{self.project_name}' is the project {project_id}, according to IAM at "
                f"{self.iam_endpoint}, but project_id is '{context.project_id}': let both name one project, or remove "
                "project_name.",
                operation=operation,
            )
        return token, renew_at

    def _with_advice(self, error: errors.ModelArtsError, project_id: str) -> errors.ModelArtsError:
        """Return IAM's error with the settings that can cause it, since IAM does not name the wrong one."""
        if error.http_status is None:  # IAM did not answer, or its answer was too large
            if isinstance(error, errors.ModelArtsRequestError):
                advice = "Give this user fewer roles, or choose auth 'access_key'"
            elif self.unresolved:
                return error
            else:
                advice = "Check iam_endpoint in the connection's extras"
        else:
            project = "the rights of the user"
            if self.project_name:
                project = f"project_name '{self.project_name}' (a project of that account and region)"
            elif project_id:
                project = f"project_id '{project_id}' (32 hex digits, of the region of that IAM)"
            advice = (
                f"Check in the connection: domain_name '{self.domain_name}' (the account's name, not the user's), "
                f"login '{self.user_name}' (the IAM user), its password, {project}, and iam_endpoint. IAM may return "
                "the same error for each of them"
            )
        return base.with_advice(
            error,
            f"This was IAM at {self.iam_endpoint}. {advice}.{project_id_hint('' if self.project_name else project_id)}",
        )

    def _request(self, project_id: str) -> Request:
        user = {"name": self.user_name, "password": self.password, "domain": {"name": self.domain_name}}
        scope: dict[str, object] = {"project": {"name": self.project_name} if self.project_name else {"id": project_id}}
        if not (self.project_name or project_id):
            scope = {"domain": {"name": self.domain_name}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        headers = {"Content-Type": "application/json;charset=utf8", "Accept": "application/json"}
        return Request("POST", f"{self.iam_endpoint}/v3/auth/tokens", headers, json.dumps(body).encode())


def _read_token(response: Response, now: float) -> tuple[Authorizer, float, str | None]:
    """Return the token, the time at which to renew it, and the id of its project if the answer has one."""
    token = response.headers.get("x-subject-token", "")
    if not base.is_header_safe(token):
        raise ValueError("no X-Subject-Token, or one that no header can hold")
    description = base.read_object(response.body, "token")
    project = description.get("project")
    project_id = project.get("id") if isinstance(project, dict) else None
    is_id = isinstance(project_id, str) and re.fullmatch(r"[0-9A-Za-z_-]{1,64}", project_id)
    expiry = base.parse_expiry(description.get("expires_at"))
    return StaticToken(token), base.renewal_time(expiry, now), project_id if is_id else None
