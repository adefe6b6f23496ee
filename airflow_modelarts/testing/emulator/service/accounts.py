"""Who may call the emulator: access keys, IAM users, tokens. All of them are fakes, and can change at run time."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_modelarts.testing.emulator.http.responses import KeystoneError

REGION = "emulator-1"
DOMAIN_NAME = "emulator-domain"
# Not ids that JSON could take for a number, as it does in a connection's URI: 0e01 is 0.
PROJECT_ID = "ee000000000000000000000000000001"
PROJECT_NAME = REGION
OTHER_PROJECT_ID = "ee000000000000000000000000000002"
OTHER_PROJECT_NAME = "emulator-2"
WORKSPACE_ID = "0"
OTHER_WORKSPACE_ID = "e0000000000000000000000000000001"

ACCESS_KEY = "EMULATORACCESSKEY000"
SECRET_KEY = "emulator-secret-key-which-is-no-secret-0"  # noqa: S105  # nosec B105 - a fake
TEMPORARY_ACCESS_KEY = "EMULATORTEMPORARY000"
TEMPORARY_SECRET_KEY = "emulator-temporary-secret-which-is-none0"  # noqa: S105  # nosec B105 - a fake
SECURITY_TOKEN = "emulator-security-token-" + "which-is-no-secret-" * 40
USER_NAME = "emulator-user"
PASSWORD = "emulator-password-which-is-no-secret"  # noqa: S105  # nosec B105 - a fake

#: Bytes; tokens of the real IAM run to several KiB.
TOKEN_BYTES = 3 * 1024


@dataclass(frozen=True)
class KeyPair:
    """
    An access key pair.

    :param security_token: makes it a temporary key, which is valid with this token only.
    :param projects: ids of the projects it may use; None for all.
    :param expires_at: seconds since the epoch; None for never.
    """

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    projects: frozenset[str] | None = None
    expires_at: float | None = None


@dataclass(frozen=True)
class User:
    """
    An IAM user.

    :param projects: ids of the projects the user may use; None for all.
    """

    name: str
    password: str = field(repr=False)
    domain_name: str = DOMAIN_NAME
    projects: frozenset[str] | None = None


@dataclass(frozen=True)
class Token:
    """
    An IAM token.

    :param project_id: the project it is scoped to; None for none.
    :param expires_at: seconds since the epoch.
    """

    value: str = field(repr=False)
    project_id: str | None
    expires_at: float


class Accounts:
    """The credentials that the emulator knows; safe to change from any thread while it runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Return to the fakes that this module names, and forget all tokens."""
        temporary = KeyPair(TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY, SECURITY_TOKEN)
        with self._lock:
            self._keys = {key.access_key: key for key in (KeyPair(ACCESS_KEY, SECRET_KEY), temporary)}
            self._users = {(DOMAIN_NAME, USER_NAME): User(USER_NAME, PASSWORD)}
            self._tokens: dict[str, Token] = {}

    def add_key(self, key: KeyPair) -> None:
        """Let a key pair in, in the place of one with the same access key."""
        with self._lock:
            self._keys[key.access_key] = key

    def remove_key(self, access_key: str) -> bool:
        """Let a key pair in no more; return whether it was there."""
        with self._lock:
            return self._keys.pop(access_key, None) is not None

    def find_key(self, access_key: str) -> KeyPair | None:
        """Return the key pair of an access key."""
        return self._keys.get(access_key)

    def add_user(self, user: User) -> None:
        """Let a user in, in the place of one with the same name: that is how a password changes."""
        with self._lock:
            self._users[(user.domain_name, user.name)] = user

    def remove_user(self, name: str, domain_name: str = DOMAIN_NAME) -> bool:
        """Let a user in no more; tokens already issued stay valid. Return whether the user was there."""
        with self._lock:
            return self._users.pop((domain_name, name), None) is not None

    def check_password(self, name: str, password: str, domain_name: str) -> User:
        """
        Return the user who logs in.

        :raises KeystoneError: the name, the password or the domain is wrong; it does not say which.
        """
        user = self._users.get((domain_name, name))
        given = password.encode("utf-8", "surrogatepass")
        if user is None or not secrets.compare_digest(user.password.encode(), given):
            raise KeystoneError(401, "The username or password is wrong.")
        return user

    def issue_token(self, project_id: str | None, *, now: float, lifetime: float) -> Token:
        """
        Issue a token without asking for a password.

        :param project_id: the project it is scoped to; None for none.
        :param lifetime: seconds.
        """
        token = Token("MII" + secrets.token_hex(TOKEN_BYTES // 2)[3:], project_id, now + lifetime)
        with self._lock:
            self._tokens[token.value] = token
        return token

    def find_token(self, value: str) -> Token | None:
        """Return a token by its value, expired or not."""
        return self._tokens.get(value)

    def expire_tokens(self) -> int:
        """Make every token that has been issued invalid at once; return how many there were."""
        with self._lock:
            count = len(self._tokens)
            self._tokens.clear()
            return count


def token_document(token: Token, user: User, project: tuple[str, str] | None, now: float) -> dict[str, Any]:
    """
    Return the body that IAM answers with; the token itself goes into a header.

    :param project: id and name of the project the token is scoped to.
    """
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
    """Write a moment as Keystone does, for example ``2026-01-31T12:00:00.000000Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
