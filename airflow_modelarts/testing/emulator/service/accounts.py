"""The emulator's access keys, IAM users and tokens: fakes that tests can change at run time."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field

from airflow_modelarts.testing.emulator.service.errors import KeystoneError
from airflow_modelarts.testing.emulator.service.settings import Name, StrictFields
from airflow_modelarts.testing.emulator.service.trust import AGENCY_DOMAIN_NAME, AGENCY_NAME, Agency

REGION = "emulator-1"
DOMAIN_NAME = "emulator-domain"
# In a connection's URI an id like 0e01 would be read as the number 0; these cannot be read as numbers.
PROJECT_ID = "ee000000000000000000000000000001"
PROJECT_NAME = REGION
OTHER_PROJECT_ID = "ee000000000000000000000000000002"
OTHER_PROJECT_NAME = "emulator-2"
#: The bucket that the object store has from the start.
BUCKET = "my-bucket"
WORKSPACE_ID = "0"
OTHER_WORKSPACE_ID = "e0000000000000000000000000000001"

ACCESS_KEY = "EMULATORACCESSKEY000"
SECRET_KEY = "emulator-secret-key-which-is-no-secret-0"  # noqa: S105  # nosec B105 - a fake
TEMPORARY_ACCESS_KEY = "EMULATORTEMPORARY000"
TEMPORARY_SECRET_KEY = "emulator-temporary-secret-which-is-none0"  # noqa: S105  # nosec B105 - a fake
SECURITY_TOKEN = "emulator-security-token-" + "which-is-no-secret-" * 40
#: The security tokens of all keys that the emulator issues begin with it.
ISSUED_TOKEN = "emulator-issued-token-"  # noqa: S105  # nosec B105 - a fake
USER_NAME = "emulator-user"
PASSWORD = "emulator-password-which-is-no-secret"  # noqa: S105  # nosec B105 - a fake

#: Bytes; tokens of the real IAM run to several KiB.
TOKEN_BYTES = 3 * 1024


@dataclass(frozen=True)
class KeyPair(StrictFields):
    """An access key pair.

    :param security_token: makes the key temporary: it is valid only together with this token.
    :param projects: ids of the projects it may use; None for all.
    :param expires_at: seconds since the epoch; None for never.
    """

    access_key: Name
    secret_key: Name = field(repr=False)
    security_token: Name | None = field(default=None, repr=False)
    projects: frozenset[str] | None = None
    expires_at: Annotated[float, Field(allow_inf_nan=False)] | None = None


@dataclass(frozen=True)
class User(StrictFields):
    """An IAM user, and the ids of the projects it may use; None for all."""

    name: Name
    password: Name = field(repr=False)
    domain_name: Name = DOMAIN_NAME
    projects: frozenset[str] | None = None


@dataclass(frozen=True)
class Token:
    """An IAM token, the project it is scoped to, if any, and its end in seconds since the epoch."""

    value: str = field(repr=False)
    project_id: str | None
    expires_at: float


class Accounts:
    """The credentials that the emulator accepts; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Restore this module's fake credentials and revoke all tokens."""
        temporary = KeyPair(TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY, SECURITY_TOKEN)
        with self._lock:
            self._keys = {key.access_key: key for key in (KeyPair(ACCESS_KEY, SECRET_KEY), temporary)}
            self._users = {(DOMAIN_NAME, USER_NAME): User(USER_NAME, PASSWORD)}
            self._tokens: dict[str, Token] = {}
            # It belongs to another account, so it has no access to the usual project.
            agency = Agency(AGENCY_NAME, AGENCY_DOMAIN_NAME, frozenset({OTHER_PROJECT_ID}))
            self._agencies = {(agency.domain_name, agency.name): agency}

    def add_key(self, key: KeyPair) -> None:
        """Accept a key pair; it replaces one with the same access key."""
        with self._lock:
            self._keys[key.access_key] = key

    def remove_key(self, access_key: str) -> bool:
        """Remove a key pair; return whether it existed."""
        with self._lock:
            return self._keys.pop(access_key, None) is not None

    def find_key(self, access_key: str) -> KeyPair | None:
        """Return the key pair of an access key, None when there is none."""
        return self._keys.get(access_key)

    def issue_key(self, owner: str, *, now: float, lifetime: float, projects: frozenset[str] | None = None) -> KeyPair:
        """Issue a temporary key for some seconds.

        :param owner: a word that the access key begins with.
        :param projects: None for all.
        """
        access_key = f"{owner.upper()}-{secrets.token_hex(6).upper()}"
        token = ISSUED_TOKEN + secrets.token_hex(300)
        key = KeyPair(access_key, secrets.token_hex(20), token, projects, expires_at=now + lifetime)
        self.add_key(key)
        return key

    def add_agency(self, agency: Agency) -> None:
        """Add an agency that may be assumed; it replaces one with the same name and domain."""
        with self._lock:
            self._agencies[(agency.domain_name, agency.name)] = agency

    def find_agency(self, name: str, domain_name: str) -> Agency | None:
        """Return an agency; None when there is none."""
        return self._agencies.get((domain_name, name))

    def add_user(self, user: User) -> None:
        """Accept a user; it replaces one with the same name, for example to change the password."""
        with self._lock:
            self._users[(user.domain_name, user.name)] = user

    def remove_user(self, name: str, domain_name: str = DOMAIN_NAME) -> bool:
        """Remove a user; tokens already issued stay valid. Return whether the user existed."""
        with self._lock:
            return self._users.pop((domain_name, name), None) is not None

    def check_password(self, name: str, password: str, domain_name: str) -> User:
        """Return the user with these credentials; a KeystoneError does not say which of them is wrong."""
        user = self._users.get((domain_name, name))
        sent = password.encode("utf-8", "surrogatepass")
        if user is None or not secrets.compare_digest(user.password.encode(), sent):
            raise KeystoneError(401, "The username or password is wrong.")
        return user

    def issue_token(self, project_id: str | None, *, now: float, lifetime: float) -> Token:
        """Issue a token for some seconds without asking for a password; its project may be None."""
        token = Token("MII" + secrets.token_hex(TOKEN_BYTES // 2)[3:], project_id, now + lifetime)
        with self._lock:
            self._tokens[token.value] = token
        return token

    def find_token(self, value: str) -> Token | None:
        """Return a token by its value, even an expired one; None when there is none."""
        return self._tokens.get(value)

    def expire_tokens(self) -> int:
        """Revoke all tokens; return how many there were."""
        with self._lock:
            count = len(self._tokens)
            self._tokens.clear()
            return count


def token_document(token: Token, user: User, project: tuple[str, str] | None, now: float) -> dict[str, Any]:
    """Return the body of IAM's answer; ``project`` is the id and the name of the token's project."""
    domain = {"id": "0d" + "0" * 30, "name": user.domain_name}
    document: dict[str, Any] = {
        "expires_at": keystone_time(token.expires_at),
        "issued_at": keystone_time(now),
        "methods": ["password"],
        "user": {
            "id": "0a" + "0" * 30,
            "name": user.name,
            "domain": domain,
            "password_expires_at": "",  # nosec B105 - never
        },
        "roles": [{"id": "0", "name": "modelarts_adm"}],
        "catalog": [],
    }
    if project is not None:
        document["project"] = {"id": project[0], "name": project[1], "domain": domain}
    return {"token": document}


def keystone_time(seconds: float) -> str:
    """Format a time as Keystone does, for example ``2026-01-31T12:00:00.000000Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
