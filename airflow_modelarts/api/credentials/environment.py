"""An access key from environment variables."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_modelarts.api.credentials.access_key import AccessKey
from airflow_modelarts.api.errors import ModelArtsConfigurationError


def from_environment(environment: Mapping[str, str]) -> AccessKey:
    """
    Read an access key from the variables of the vendor's SDK.

    ``HUAWEICLOUD_SDK_AK`` and ``HUAWEICLOUD_SDK_SK`` are required, ``HUAWEICLOUD_SDK_SECURITY_TOKEN`` is for a
    temporary key.

    :raises ModelArtsConfigurationError: the access key or the secret key is missing.
    """
    # A value that was read from a file often ends with a line feed.
    access_key, secret_key, security_token = (
        environment.get(f"HUAWEICLOUD_SDK_{name}", "").strip() for name in ("AK", "SK", "SECURITY_TOKEN")
    )
    required = {"HUAWEICLOUD_SDK_AK": access_key, "HUAWEICLOUD_SDK_SK": secret_key}
    missing = [name for name, value in required.items() if not value]
    if missing:
        raise ModelArtsConfigurationError(
            f"{' and '.join(missing)} missing: auth 'environment' reads them from the environment variables of "
            "workers and triggerers"
        )
    return AccessKey(access_key, secret_key, security_token or None)
