"""Credentials, the request authorizers they yield, and the cache of tokens and temporary keys.

One module a kind of credentials; :mod:`.base` has the protocols and the cache, :mod:`.temporary_keys` what IAM's kinds
share. ``docs/contributing.md`` tells how to add a kind. What expires is obtained through ``context.cache``, see
:class:`InstanceAgency`.
"""

from airflow_modelarts.api.credentials.access_key import AccessKey, from_environment
from airflow_modelarts.api.credentials.assume_agency import AssumeAgency
from airflow_modelarts.api.credentials.base import (
    AuthContext,
    Authorizer,
    Credentials,
    NotConfiguredError,
    TokenCache,
    is_header_safe,
)
from airflow_modelarts.api.credentials.default_chain import Candidate, DefaultChain
from airflow_modelarts.api.credentials.federated_user import FederatedUser
from airflow_modelarts.api.credentials.iam_token import PasswordToken, StaticToken
from airflow_modelarts.api.credentials.instance_agency import InstanceAgency
from airflow_modelarts.api.credentials.oidc import IdToken, OidcAgency
from airflow_modelarts.api.credentials.pod_identity import PodIdentity
from airflow_modelarts.api.credentials.profile import Profile, read_profile

__all__ = [
    "AccessKey",
    "AssumeAgency",
    "AuthContext",
    "Authorizer",
    "Candidate",
    "Credentials",
    "DefaultChain",
    "FederatedUser",
    "IdToken",
    "InstanceAgency",
    "NotConfiguredError",
    "OidcAgency",
    "PasswordToken",
    "PodIdentity",
    "Profile",
    "StaticToken",
    "TokenCache",
    "from_environment",
    "is_header_safe",
    "read_profile",
]
