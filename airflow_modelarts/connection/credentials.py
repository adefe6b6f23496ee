"""The credentials of a connection: a builder for each value of the extra ``auth``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from airflow_modelarts.api.credentials import AccessKey, AssumeAgency, PasswordToken, StaticToken
from airflow_modelarts.connection import discovery
from airflow_modelarts.connection.discovery import Found
from airflow_modelarts.connection.endpoints import iam_endpoint
from airflow_modelarts.connection.fields import AUTH_KINDS, DEFAULT_SOURCE, SOURCE_KINDS
from airflow_modelarts.connection.values import Values, check_header, missing, wrong


def read_credentials(values: Values, modelarts: str) -> Found:
    """Build the credentials that a connection describes; ``modelarts`` is the base URL of ModelArts."""
    build = BUILDERS.get(values.auth)
    if build is None:
        raise wrong(values.label("auth"), values.auth, f"it must be {_one_of(tuple(AUTH_KINDS))}")
    return build(values, modelarts)


def _one_of(kinds: tuple[str, ...]) -> str:
    return f"{', '.join(kinds[:-1])} or {kinds[-1]}"


def _access_key(values: Values, modelarts: str) -> Found:
    # A key that was read from a file often ends with a line feed.
    access_key = values.required("login", "the access key").strip()
    secret_key = values.required("password", "the secret key").strip()
    key = AccessKey(access_key, secret_key, values.text("security_token"))
    return Found(discovery.checked(key, *map(values.label, ("the access key", "the secret key", "security_token"))))


def _password(values: Values, modelarts: str) -> Found:
    domain_name = values.text("domain_name")
    if not domain_name:
        raise missing("domain_name", f"set the account's name in the extras of {values.name}")
    iam = iam_endpoint(values, modelarts)
    user = PasswordToken(
        iam_endpoint=iam.url,
        user_name=values.required("login", "the IAM user").strip(),
        password=values.required("password", "the user's password").strip("\r\n"),  # it may begin or end with spaces
        domain_name=domain_name,
        project_name=values.text("project_name"),
        unresolved=iam.unresolved,
    )
    return Found(user)


def _token(values: Values, modelarts: str) -> Found:
    token = check_header(values.label("password"), values.required("password", "the token").strip())
    return Found(StaticToken(token))


def _assume_agency(values: Values, modelarts: str) -> Found:
    source_kind = values.text("source_auth") or DEFAULT_SOURCE
    if source_kind not in SOURCE_KINDS:
        raise wrong(values.label("source_auth"), source_kind, f"it must be {_one_of(SOURCE_KINDS)}")
    names = {name: values.text(name) for name in ("agency_name", "agency_domain_name")}
    for name, value in names.items():
        if not value:
            raise missing(name, f"set it in the extras of {values.name}, whose auth is 'assume_agency'")
    source = BUILDERS[source_kind](values.with_auth(source_kind), modelarts).credentials
    if isinstance(source, PasswordToken):  # the project is one of the other account
        source = replace(source, project_name=None)
    iam = iam_endpoint(values, modelarts)
    return Found(
        AssumeAgency(
            source, iam.url, names["agency_name"] or "", names["agency_domain_name"] or "", unresolved=iam.unresolved
        )
    )


#: A builder for each of AUTH_KINDS; it takes the connection's values and the base URL of ModelArts.
BUILDERS: Mapping[str, Callable[[Values, str], Found]] = {
    "access_key": _access_key,
    "password": _password,
    "token": _token,
    "agency": discovery.agency,
    "environment": discovery.environment,
    "profile": discovery.profile,
    "oidc": discovery.oidc,
    "pod_identity": discovery.pod_identity,
    "assume_agency": _assume_agency,
    "default": discovery.default,
}
