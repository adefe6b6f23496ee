"""An access key pair, which signs every request; it can come from environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from airflow_modelarts.api import signing
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer, NotConfiguredError, TokenCache
from airflow_modelarts.api.http import Flow, Request


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key pair, permanent, or temporary with a security token. Implements both Credentials and Authorizer.

    :param origin: where it was found, for people: "the environment", for example; "" for the connection itself.
    """

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    origin: str = field(default="", repr=False, compare=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret key and the security token."""
        return tuple(filter(None, (self.secret_key, self.security_token)))

    def identity(self, cache: TokenCache) -> str:
        """Name the access key, which is no secret."""
        kind = "temporary access key" if self.security_token else "access key"
        return f"{kind} '{self.access_key}'{self.origin and f' of {self.origin}'}"

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Return the key itself; it cannot be renewed."""
        yield from ()
        return self

    def authorize(self, request: Request, *, project_id: str, now: float) -> Request:
        """Sign the request."""
        headers = {**request.headers, **({"X-Project-Id": project_id} if project_id else {})}
        if self.security_token:
            headers["X-Security-Token"] = self.security_token
        signed = signing.sign(
            self.access_key,
            self.secret_key,
            method=request.method,
            url=request.url,
            headers=headers,
            body=request.body,
            now=now,
        )
        return replace(request, headers=signed)


def from_environment(environment: Mapping[str, str]) -> AccessKey:
    """Read an access key from the variables of the vendor's SDK.

    ``HUAWEICLOUD_SDK_AK`` and ``HUAWEICLOUD_SDK_SK`` are required, ``HUAWEICLOUD_SDK_SECURITY_TOKEN`` is for a
    temporary key.

    :raises NotConfiguredError: the access key or the secret key is missing.
    """
    # A value that was read from a file often ends with a line feed.
    access_key, secret_key, security_token = (
        environment.get(f"HUAWEICLOUD_SDK_{name}", "").strip() for name in ("AK", "SK", "SECURITY_TOKEN")
    )
    required = {"HUAWEICLOUD_SDK_AK": access_key, "HUAWEICLOUD_SDK_SK": secret_key}
    missing = [name for name, value in required.items() if not value]
    if missing:
        raise NotConfiguredError(
            f"{' and '.join(missing)} missing: auth 'environment' reads them from the environment variables of "
            "workers and triggerers"
        )
    return AccessKey(access_key, secret_key, security_token or None, "the environment")
