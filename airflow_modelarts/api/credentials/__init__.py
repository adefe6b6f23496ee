"""
Credentials, the request authorizers they yield, and the cache of tokens and temporary keys.

One module a kind of credentials; :mod:`.base` has the protocols and the cache. To add a kind:

1. write a module here with a frozen dataclass that implements :class:`Credentials`. ``obtain`` is a flow that returns
   an :class:`Authorizer`: reuse :class:`AccessKey` or :class:`StaticToken`, or write one that adds other headers.
   What expires is obtained through ``context.cache`` (see :class:`InstanceAgency`);
2. export the dataclass here;
3. name it in :mod:`airflow_modelarts.connection`, which builds the credentials that the extra ``auth`` selects.
"""

from airflow_modelarts.api.credentials.access_key import AccessKey
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer, Credentials, TokenCache, is_header_safe
from airflow_modelarts.api.credentials.environment import from_environment
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
