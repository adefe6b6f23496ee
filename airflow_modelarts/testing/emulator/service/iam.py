"""IAM issues a token for a user's password, and a temporary access key for a token.

These are the operations KeystoneCreateUserTokenByPassword and CreateTemporaryAccessKeyByToken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_modelarts.testing.emulator.service.accounts import Accounts, keystone_time, token_document
from airflow_modelarts.testing.emulator.service.errors import KeystoneError

#: Seconds that a temporary access key is valid: at least, by default, and at most.
KEY_LIFETIMES = (900, 900, 86_400)


def create_temporary_key(body: Any, token: str | None, accounts: Accounts, *, now: float) -> dict[str, Any]:
    """Return the document of a new temporary access key, which the object store accepts.

    :param body: the request's JSON.
    :param token: the token of the request's header.
    :param now: the gateway's time, in seconds since the epoch.
    :raises KeystoneError: the request is malformed, or the token is not valid.
    """
    known = accounts.find_token(token or "")
    if known is None or known.expires_at <= now:
        raise KeystoneError(401, "The token is not valid or has expired.")
    identity = _object(_object(body, "auth"), "identity")
    if identity.get("methods") != ["token"]:
        raise KeystoneError(400, "auth.identity.methods must be ['token'].")
    least, default, most = KEY_LIFETIMES
    lifetime = _object(identity, "token").get("duration_seconds", default) if "token" in identity else default
    if isinstance(lifetime, bool) or not isinstance(lifetime, int) or not least <= lifetime <= most:
        raise KeystoneError(400, f"duration_seconds must be an integer from {least} to {most}.")
    key = accounts.issue_key(known.project_id, now=now, lifetime=lifetime)
    return {
        "credential": {
            "access": key.access_key,
            "secret": key.secret_key,
            "securitytoken": key.security_token,
            "expires_at": keystone_time(now + lifetime),
        }
    }


def create_token(
    body: Any, accounts: Accounts, project_names: Mapping[str, str], *, now: float, lifetime: float
) -> tuple[str, dict[str, Any]]:
    """Return a new token's value and the document that describes it.

    :param body: the request's JSON.
    :param project_names: project names by id.
    :param now: the gateway's time, in seconds since the epoch.
    :param lifetime: seconds.
    :raises KeystoneError: the request is malformed, or the user has no access.
    """
    auth = _object(body, "auth")
    identity = _object(auth, "identity")
    if identity.get("methods") != ["password"]:
        raise KeystoneError(400, "auth.identity.methods must be ['password'].")
    login = _object(_object(identity, "password"), "user")
    domain_name = _text(_object(login, "domain"), "name")
    user = accounts.check_password(_text(login, "name"), _text(login, "password"), domain_name)
    project_id = _scope(auth, project_names)
    if project_id is not None and user.projects is not None and project_id not in user.projects:
        raise KeystoneError(401, f"User {user.name} has no access to project {project_id}.")
    token = accounts.issue_token(project_id, now=now, lifetime=lifetime)
    project = None if project_id is None else (project_id, project_names[project_id])
    return token.value, token_document(token, user, project, now)


def _scope(auth: dict[str, Any], project_names: Mapping[str, str]) -> str | None:
    """Return the id of the project in the scope; None for a token without a project, which ModelArts refuses."""
    if "scope" not in auth:
        return None
    scope = _object(auth, "scope")
    if "domain" in scope and "project" not in scope:
        return None
    project = _object(scope, "project")
    field = "id" if "id" in project else "name"
    wanted = _text(project, field)
    for project_id, name in project_names.items():
        if wanted == (project_id if field == "id" else name):
            return project_id
    # Keystone answers 401 for a missing project as for a forbidden one.
    raise KeystoneError(401, f"Could not find project: {wanted}.")


def _object(parent: Any, name: str) -> dict[str, Any]:
    value = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(value, dict):
        raise KeystoneError(400, f"Expecting to find {name} in the request body. It must be an object.")
    return value


def _text(parent: dict[str, Any], name: str) -> str:
    value = parent.get(name)
    if not isinstance(value, str) or not value:
        raise KeystoneError(400, f"Expecting to find {name} in the request body. It must be a string.")
    return value
