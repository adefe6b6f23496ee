"""Credentials, the request authorizers they yield, and the cache of tokens and temporary keys.

One module a kind of credentials; :mod:`.base` has the protocols and the cache. ``docs/contributing.md`` tells how to
add a kind. What expires is obtained through ``context.cache``, see :class:`InstanceAgency`.
"""

from airflow_modelarts.api.credentials.access_key import AccessKey, from_environment
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer, Credentials, TokenCache, is_header_safe
from airflow_modelarts.api.credentials.iam_token import PasswordToken, StaticToken
from airflow_modelarts.api.credentials.instance_agency import InstanceAgency

__all__ = [
    "AccessKey",
    "AuthContext",
    "Authorizer",
    "Credentials",
    "InstanceAgency",
    "PasswordToken",
    "StaticToken",
    "TokenCache",
    "from_environment",
    "is_header_safe",
]
