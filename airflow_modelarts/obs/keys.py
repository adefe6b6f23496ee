"""The access keys with which s3fs signs: the connection's, obtained and renewed as for calls to ModelArts."""

from __future__ import annotations

import os
from typing import Any

from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession
from botocore.credentials import ReadOnlyCredentials

from airflow_modelarts.airflow_calls import call_airflow
from airflow_modelarts.api.credentials import AccessKey, AuthContext
from airflow_modelarts.api.credentials.object_store_key import obtain_access_key
from airflow_modelarts.api.http import Flow
from airflow_modelarts.api.retry import DEFAULT_RETRIES
from airflow_modelarts.compat import mask_secret
from airflow_modelarts.connection.reading import ObjectStore
from airflow_modelarts.transport import AsyncDriver, Driver

#: Settings of botocore that must not come from files and variables for Amazon's services.
_WITHOUT_AWS_CONFIGURATION = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


class Keys(AioCredentials):  # type: ignore[misc]  # aiobotocore has no types
    """Credentials for aiobotocore, which asks for them before each request. The token cache renews them.

    Airflow must mask a new key, and may be called on the thread of the caller only: :meth:`prepare` does both, so that
    :meth:`get_frozen_credentials` normally finds the key in the cache.

    :param store: the object store of the connection.
    """

    def __init__(self, store: ObjectStore) -> None:
        super().__init__("", "")
        self._store = store
        self.key: AccessKey | None = None

    def prepare(self) -> None:
        """Obtain the key on this thread, if it is not in the cache; it blocks."""
        driver = Driver(lambda: self._store.settings)
        try:
            key = driver.run(self._flow(None))
        finally:
            driver.close()
        self._mask(key)

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the key for the next request."""
        key = await self._obtain(None)
        return ReadOnlyCredentials(key.access_key, key.secret_key, key.security_token)

    async def renew(self, refused: AccessKey | None) -> bool:
        """Obtain another key than one that the object store refused; return whether there is one."""
        return refused is not None and await self._obtain(refused) != refused

    async def _obtain(self, refused: AccessKey | None) -> AccessKey:
        driver = AsyncDriver(self._settings)
        try:
            key = await driver.run(self._flow(refused))
        finally:
            await driver.close()
        if key != self.key:
            await call_airflow(lambda: self._mask(key))
        return key

    def _flow(self, refused: AccessKey | None) -> Flow[AccessKey]:
        client = self._store.settings.client
        context = AuthContext(client.project_id, client.cache, DEFAULT_RETRIES, client.now, client.random)
        return obtain_access_key(client.credentials, context, self._store.iam, refused=refused)

    async def _settings(self) -> Any:
        return self._store.settings

    def _mask(self, key: AccessKey) -> None:
        if key != self.key:
            self.key = key
            for secret in key.secrets:
                mask_secret(secret)


class _Provider:
    """Gives a session of botocore the keys, in place of those that it would look for."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def load_credentials(self) -> Keys:
        return self._keys


def session(keys: Keys) -> AioSession:
    """Return a session that signs with the keys and ignores the configuration of Amazon's tools."""
    made = AioSession(session_vars=_WITHOUT_AWS_CONFIGURATION)
    made.register_component("credential_provider", _Provider(keys))
    made.register("before-call.s3", _stay_in_region)
    return made


def _stay_in_region(context: dict[str, Any], **_: Any) -> None:
    """Keep botocore from looking for a bucket's region: without a header of Amazon's it would never stop."""
    context.get("s3_redirect", {})["redirected"] = True
