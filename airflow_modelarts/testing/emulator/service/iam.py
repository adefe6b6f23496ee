"""IAM and STS: tokens for a user's password or an ID token, temporary keys, and projects by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_modelarts.testing.emulator.service import trust
from airflow_modelarts.testing.emulator.service.accounts import Accounts, KeyPair, keystone_time, token_document
from airflow_modelarts.testing.emulator.service.errors import KeystoneError, ServiceError

#: Seconds that a temporary key of IAM may be asked for, and one of STS.
KEY_DURATIONS = (900, 24 * 3600)
STS_DURATIONS = (900, 12 * 3600)
#: The ends of pod identity and of the metadata service choose the lifetime themselves.
UNASKED_LIFETIME = 24 * 3600.0


@dataclass(frozen=True)
class Issuer:
    """What issues temporary keys: the accounts, the gateway's time, and the longest lifetime in seconds."""

    accounts: Accounts
    now: float
    max_lifetime: float

    def issue(self, owner: str, lifetime: float, projects: frozenset[str] | None = None) -> KeyPair:
        """Issue a temporary key; see :meth:`Accounts.issue_key`."""
        lifetime = min(lifetime, self.max_lifetime)
        return self.accounts.issue_key(owner, now=self.now, lifetime=lifetime, projects=projects)


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


def create_token_of_id_token(body: Any, idp_id: str | None, accounts: Accounts, *, now: float, lifetime: float) -> str:
    """Return a token without a project for the ID token of an identity provider's user.

    :raises KeystoneError: the request is malformed, the provider is unknown, or it did not issue the token.
    """
    id_token = _text(_object(_object(body, "auth"), "id_token"), "id")
    if idp_id != trust.IDP_ID:
        raise KeystoneError(404, f"Could not find Identity Provider: {idp_id}.")
    try:
        trust.check_id_token(id_token, now=now)
    except trust.InvalidIdTokenError as error:
        raise KeystoneError(401, f"The request you have made requires authentication: {error}.") from None
    return accounts.issue_token(None, now=now, lifetime=lifetime).value


#: Returns the projects of the caller in the request's headers, None for all; raises a ServiceError if it is unknown.
Authenticate = Callable[[], frozenset[str] | None]


def create_security_token(body: Any, issuer: Issuer, authenticate: Authenticate) -> dict[str, Any]:
    """Return a temporary key (CreateTemporaryAccessKeyByToken, CreateTemporaryAccessKeyByAgency).

    :raises ServiceError: the request is malformed, or the caller gets no key.
    """
    identity = _object(_object(body, "auth"), "identity")
    match identity.get("methods"):
        case ["token"]:
            key = _issue_for_token(identity, issuer, authenticate)
        case ["assume_role"]:
            key = _issue_for_agency(identity, issuer, authenticate)
        case _:
            raise KeystoneError(400, "auth.identity.methods must be ['token'] or ['assume_role'].")
    return key_document(key)


def _issue_for_token(identity: dict[str, Any], issuer: Issuer, authenticate: Authenticate) -> KeyPair:
    """Issue a key for a token in the body, or for the one in the headers if the body has none."""
    details = _object(identity, "token") if "token" in identity else {}
    duration = _duration(details)
    if "id" not in details:
        return issuer.issue("token", duration, authenticate())
    token = issuer.accounts.find_token(_text(details, "id"))
    if token is None or token.expires_at <= issuer.now:
        raise KeystoneError(401, "The token is not valid or has expired.")
    return issuer.issue("token", duration, None if token.project_id is None else frozenset({token.project_id}))


def _issue_for_agency(identity: dict[str, Any], issuer: Issuer, authenticate: Authenticate) -> KeyPair:
    details = _object(identity, "assume_role")
    agency_name, domain_name = _text(details, "agency_name"), _text(details, "domain_name")
    duration = _duration(details)
    authenticate()
    agency = issuer.accounts.find_agency(agency_name, domain_name)
    if agency is None:
        raise KeystoneError(
            403, f"You may not assume agency {agency_name} of {domain_name}: action iam:agencies:assume."
        )
    return issuer.issue("agency", duration, agency.projects)


def assume_agency_with_oidc(body: Any, issuer: Issuer) -> dict[str, Any]:
    """Return the temporary key of an agency for an ID token (STS, AssumeAgencyWithOIDC).

    :raises ServiceError: the request is malformed, or provider, agency or token are refused.
    """
    # STS5.1106 is documented; the other code is the emulator's own.
    invalid = "STS5.1001"
    body = body if isinstance(body, dict) else {}
    wanted = ("provider_urn", "agency_urn", "agency_session_name", "id_token")
    if not all(isinstance(body.get(name), str) and body[name] for name in wanted):
        raise ServiceError(invalid, f"{', '.join(wanted)} must be strings that are not empty", status=400)
    duration = body.get("duration_seconds", 3600)
    low, high = STS_DURATIONS
    if not isinstance(duration, int) or not low <= duration <= high:
        raise ServiceError(invalid, f"duration_seconds must be between {low} and {high}", status=400)
    if body["agency_urn"] != trust.OIDC_AGENCY_URN:
        raise ServiceError("STS5.1106", f"the agency '{body['agency_urn']}' cannot be found", status=404)
    if body["provider_urn"] != trust.PROVIDER_URN:
        raise ServiceError(invalid, f"the agency does not trust '{body['provider_urn']}'", status=403)
    try:
        trust.check_id_token(body["id_token"], now=issuer.now)
    except trust.InvalidIdTokenError as error:
        raise ServiceError(invalid, str(error), status=401) from None
    key = issuer.issue("oidc", duration)
    session = f"emulator-oidc-agency/{body['agency_session_name']}"
    return {
        "assumed_agency": {"urn": f"sts::emulator-domain:assumed-agency:{session}", "id": f"emulator:{session}"},
        "credentials": {
            "access_key_id": key.access_key,
            "secret_access_key": key.secret_key,
            "security_token": key.security_token,
            "expiration": keystone_time(key.expires_at or 0.0),
        },
    }


def issue_for_pod(authorization: str | None, issuer: Issuer) -> dict[str, Any]:
    """Return the temporary key of a pod; raise ServiceError for a wrong token."""
    if authorization != trust.POD_TOKEN:
        raise ServiceError("PodIdentity.0001", "the token of the pod is not valid", status=401)
    return key_document(issuer.issue("pod", UNASKED_LIFETIME))


def list_projects(names: Mapping[str, str], name: str | None) -> dict[str, Any]:
    """Return projects by id, all or those of one name (KeystoneListProjects)."""
    projects = [
        {"id": project_id, "name": found, "domain_id": "0d" + "0" * 30, "enabled": True, "is_domain": False}
        for project_id, found in names.items()
        if name in (None, found)
    ]
    return {"projects": projects, "links": {"self": "", "next": None, "previous": None}}


def key_document(key: KeyPair) -> dict[str, Any]:
    """Return the body with which IAM and the metadata service answer a temporary key."""
    return {
        "credential": {
            "access": key.access_key,
            "secret": key.secret_key,
            "securitytoken": key.security_token,
            "expires_at": keystone_time(key.expires_at or 0.0),
        }
    }


def _duration(details: dict[str, Any]) -> int:
    low, high = KEY_DURATIONS
    duration = details.get("duration_seconds", low)
    if isinstance(duration, str) and duration.isascii() and duration.isdecimal() and len(duration) < 10:
        duration = int(duration)
    if not isinstance(duration, int) or not low <= duration <= high:
        raise KeystoneError(400, f"duration_seconds must be between {low} and {high}.")
    return duration


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
