"""IAM: a user's password for a token (KeystoneCreateUserTokenByPassword)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_modelarts.testing.emulator.http.responses import HttpResponse, KeystoneError, json_answer
from airflow_modelarts.testing.emulator.service.accounts import Accounts, token_document


def create_token(
    body: Any, accounts: Accounts, project_names: Mapping[str, str], *, now: float, lifetime: float
) -> HttpResponse:
    """
    Answer a request for a token.

    :param body: the request's JSON.
    :param project_names: the names of the projects by id.
    :param lifetime: of the token, in seconds.
    :raises KeystoneError: the request is malformed, or the user is not let in.
    """
    auth = _object(body, "auth")
    identity = _object(auth, "identity")
    if identity.get("methods") != ["password"]:
        raise KeystoneError(400, "auth.identity.methods must be ['password'].")
    given = _object(_object(identity, "password"), "user")
    domain_name = _text(_object(given, "domain"), "name")
    user = accounts.check_password(_text(given, "name"), _text(given, "password"), domain_name)
    project_id = _scope(auth, project_names)
    if project_id is not None and user.projects is not None and project_id not in user.projects:
        raise KeystoneError(401, f"User {user.name} has no access to project {project_id}.")
    token = accounts.issue_token(project_id, now=now, lifetime=lifetime)
    project = None if project_id is None else (project_id, project_names[project_id])
    return json_answer(token_document(token, user, project, now), 201, {"X-Subject-Token": token.value})


def _scope(auth: dict[str, Any], project_names: Mapping[str, str]) -> str | None:
    """Return the project that a token shall be scoped to; None for a token of the domain, which ModelArts refuses."""
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
    # Keystone does not tell a missing project from a forbidden one: it answers 401 to both.
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
