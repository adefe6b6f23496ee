"""The credentials of a connection: a builder for each value of the extra ``auth``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from airflow_modelarts.api.credentials import (
    AccessKey,
    Credentials,
    InstanceAgency,
    PasswordToken,
    StaticToken,
    from_environment,
)
from airflow_modelarts.connection.endpoints import iam_endpoint
from airflow_modelarts.connection.fields import AUTH_KINDS
from airflow_modelarts.connection.values import VARIABLES, Values, check_header, missing, wrong


def read_credentials(values: Values, modelarts: str) -> Credentials:
    """Build the credentials that a connection describes; ``modelarts`` is the base URL of ModelArts."""
    build = BUILDERS.get(values.auth)
    if build is None:
        *others, last = AUTH_KINDS
        raise wrong(values.label("auth"), values.auth, f"it must be {', '.join(others)} or {last}")
    return build(values, modelarts)


def _access_key(values: Values, modelarts: str) -> AccessKey:
    # A key that was read from a file often ends with a line feed.
    access_key = values.required("login", "the access key").strip()
    secret_key = values.required("password", "the secret key").strip()
    key = AccessKey(access_key, secret_key, values.text("security_token"))
    return _checked(key, *map(values.label, ("the access key", "the secret key", "security_token")))


def _environment(values: Values, modelarts: str) -> AccessKey:
    labels = (f"{VARIABLES}{name} in the environment" for name in ("AK", "SK", "SECURITY_TOKEN"))
    return _checked(from_environment(values.environment), *labels)


def _checked(key: AccessKey, *labels: str) -> AccessKey:
    for label, value in zip(labels, (key.access_key, key.secret_key, key.security_token), strict=True):
        if value is not None:
            check_header(label, value)
    return key


def _password(values: Values, modelarts: str) -> PasswordToken:
    domain_name = values.text("domain_name")
    if not domain_name:
        raise missing("domain_name", f"set the account's name in the extras of {values.name}")
    iam = iam_endpoint(values, modelarts)
    return PasswordToken(
        iam_endpoint=iam.url,
        user_name=values.required("login", "the IAM user").strip(),
        password=values.required("password", "the user's password").strip("\r\n"),  # it may begin or end with spaces
        domain_name=domain_name,
        project_name=values.text("project_name"),
        unresolved=iam.unresolved,
    )


def _token(values: Values, modelarts: str) -> StaticToken:
    return StaticToken(check_header(values.label("password"), values.required("password", "the token").strip()))


#: A builder for each of AUTH_KINDS; it takes the connection's values and the base URL of ModelArts.
BUILDERS: Mapping[str, Callable[[Values, str], Credentials]] = {
    "access_key": _access_key,
    "password": _password,
    "token": _token,
    "agency": lambda values, modelarts: InstanceAgency(),
    "environment": _environment,
}
