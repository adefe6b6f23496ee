"""Credentials that workers and triggerers have by themselves, where the vendor's SDK looks for them.

Paths, the address of pod identity and the endpoints that get an ID token come from the environment or from the profile
file only. Otherwise whoever edits a connection could read files of a worker, or have its tokens sent elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from airflow_modelarts.api.addresses import local_or_https_url
from airflow_modelarts.api.credentials import (
    AccessKey,
    Candidate,
    Credentials,
    DefaultChain,
    FederatedUser,
    IdToken,
    InstanceAgency,
    NotConfiguredError,
    OidcAgency,
    PodIdentity,
    Profile,
    from_environment,
    instance_agency,
    read_profile,
)
from airflow_modelarts.api.credentials.pod_identity import TOKEN_FILE_VARIABLE, URI_VARIABLE
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.api.http import FileReadError
from airflow_modelarts.connection.endpoints import iam_endpoint, sts_endpoint
from airflow_modelarts.connection.fields import EXTRAS
from airflow_modelarts.connection.values import VARIABLES, Values, check_header, wrong
from airflow_modelarts.transport.files import read_file

OIDC_VARIABLES = "HUAWEICLOUD_OIDC_"
#: The vendor's defaults.
OIDC_SESSION_NAME = "oidc-sts-session"
OIDC_DURATION = 3600


@dataclass(frozen=True, slots=True)
class Found:
    """The credentials of a connection, and the profile that they come from, if any."""

    credentials: Credentials
    profile: Profile | None = None


def environment(values: Values, modelarts: str) -> Found:
    """Find an identity provider in the environment, else an access key."""
    idp_id, path = values.variable(f"{VARIABLES}IDP_ID"), values.variable(f"{VARIABLES}ID_TOKEN_FILE")
    if idp_id and path:
        iam = iam_endpoint(values, modelarts, for_id_token=True)
        token = IdToken(f"{VARIABLES}ID_TOKEN_FILE", path=path)
        return Found(FederatedUser(iam.url, idp_id, token, "the environment", iam.unresolved))
    labels = (f"{VARIABLES}{name} in the environment" for name in ("AK", "SK", "SECURITY_TOKEN"))
    return Found(checked(from_environment(values.environment), *labels))


def profile(values: Values, modelarts: str) -> Found:
    """Find a profile in the credentials file."""
    path = values.variable(f"{VARIABLES}CREDENTIALS_FILE")
    if not path:
        home = values.variable("HOME")
        path = os.path.join(home, ".huaweicloud", "credentials") if home else ""
    try:
        text = read_file(path) if path else ""
    except FileReadError as error:
        kind = ModelArtsConfigurationError if error.was_opened else NotConfiguredError
        hint = ", whose ~ is not expanded," if path.startswith("~") else ""
        raise kind(
            f"the credentials file '{path}'{hint} {error}: create it for workers and triggerers, or set "
            f"{VARIABLES}CREDENTIALS_FILE in their environment"
        ) from None
    if not path:
        raise NotConfiguredError(f"{VARIABLES}CREDENTIALS_FILE is missing, and there is no HOME in the environment")
    section = values.text("profile_name") or str(EXTRAS["profile_name"].default)
    found = read_profile(text, section, path)
    if found.key is not None:
        labels = (f"{name} of profile '{section}'" for name in ("ak", "sk", "security_token"))
        return Found(checked(found.key, *labels), found)
    iam = iam_endpoint(values, modelarts, found.iam_endpoint, for_id_token=True)
    token = IdToken(f"id_token_file of profile '{section}'", path=found.id_token_file)
    return Found(FederatedUser(iam.url, found.idp_id, token, f"profile '{section}'", iam.unresolved), found)


def oidc(values: Values, modelarts: str) -> Found:
    """Find an OpenID Connect provider in the environment: for STS, else the older way for IAM."""
    try:
        return _oidc_agency(values, modelarts)
    except NotConfiguredError as error:
        if values.variable(f"{VARIABLES}IDP_ID") and values.variable(f"{VARIABLES}ID_TOKEN_FILE"):
            return environment(values, modelarts)
        raise NotConfiguredError(
            f"{error} For the older way, set {VARIABLES}IDP_ID and {VARIABLES}ID_TOKEN_FILE."
        ) from None


def _oidc_agency(values: Values, modelarts: str) -> Found:
    given = {
        name: values.variable(OIDC_VARIABLES + name)
        for name in (
            *("PROVIDER_URN", "AGENCY_URN", "ID_TOKEN", "TOKEN_FILE", "SESSION_NAME"),
            *("DURATION_SECONDS", "POLICY", "POLICY_IDS"),
        )
    }
    missing = [OIDC_VARIABLES + name for name in ("PROVIDER_URN", "AGENCY_URN") if not given[name]]
    if not (given["ID_TOKEN"] or given["TOKEN_FILE"]):
        missing.append(f"{OIDC_VARIABLES}TOKEN_FILE (or {OIDC_VARIABLES}ID_TOKEN)")
    if missing:
        raise NotConfiguredError(f"{' and '.join(missing)} missing in the environment of workers and triggerers.")
    token = _id_token(given["ID_TOKEN"], given["TOKEN_FILE"])
    sts = sts_endpoint(values, modelarts)
    try:
        duration = int(given["DURATION_SECONDS"] or 0) or OIDC_DURATION
    except ValueError:
        label = f"{OIDC_VARIABLES}DURATION_SECONDS in the environment"
        raise wrong(label, given["DURATION_SECONDS"], "it must be a whole number of seconds") from None
    agency = OidcAgency(
        sts_endpoint=sts.url,
        provider_urn=given["PROVIDER_URN"],
        agency_urn=given["AGENCY_URN"],
        id_token=token,
        session_name=given["SESSION_NAME"] or OIDC_SESSION_NAME,
        duration=duration,
        policy=given["POLICY"] or None,
        policy_ids=tuple(filter(None, (name.strip() for name in given["POLICY_IDS"].split(",")))),
        unresolved=sts.unresolved,
    )
    return Found(agency)


def _id_token(text: str, path: str) -> IdToken:
    """Return the token; a file that does not exist or is empty leaves the next kind of a chain its turn."""
    if text:
        label = f"{OIDC_VARIABLES}ID_TOKEN in the environment"
        return IdToken(label, check_header(label, text))
    label = f"{OIDC_VARIABLES}TOKEN_FILE"
    if not os.path.exists(path):
        raise NotConfiguredError(f"{label}: the file '{path}' does not exist.")
    try:
        if not read_file(path).strip():
            raise NotConfiguredError(f"{label}: the file '{path}' is empty.")
    except FileReadError as error:
        raise ModelArtsConfigurationError(
            f"{label}: the file '{path}' {error}: make it readable for workers and triggerers"
        ) from None
    return IdToken(label, path=path)


def pod_identity(values: Values, modelarts: str) -> Found:
    """Find the endpoint and the token file of CCE's pod identity in the environment."""
    uri, path = values.variable(URI_VARIABLE), values.variable(TOKEN_FILE_VARIABLE)
    missing = [name for name, value in ((URI_VARIABLE, uri), (TOKEN_FILE_VARIABLE, path)) if not value]
    if missing:
        raise NotConfiguredError(
            f"{' and '.join(missing)} missing: CCE sets them in a pod whose service account has a pod identity "
            "association"
        )
    return Found(PodIdentity(local_or_https_url(f"{URI_VARIABLE} in the environment", uri), path))


def agency(values: Values, modelarts: str) -> Found:
    """Return the agency of the server."""
    return Found(InstanceAgency(instance_agency.METADATA_SERVICE))


def default(values: Values, modelarts: str) -> Found:
    """Find the first kind that is set up, in the order of the vendor's SDK.

    A kind that is incomplete is passed over. One that is complete and wrong is an error, not a reason to call as
    somebody else.
    """
    candidates: list[Candidate] = []
    certain: tuple[tuple[str, Callable[[Values, str], Found]], ...] = (
        ("oidc", _oidc_agency),
        ("environment", environment),
        ("profile", profile),
    )
    for kind, find in certain:
        try:
            found = find(values, modelarts)
        except NotConfiguredError as error:
            candidates.append(Candidate(kind, None, str(error)))
            continue
        return Found(DefaultChain((*candidates, Candidate(kind, found.credentials))), found.profile)
    candidates.append(Candidate("agency", agency(values, modelarts).credentials))
    try:
        candidates.append(Candidate("pod_identity", pod_identity(values, modelarts).credentials))
    except ModelArtsConfigurationError as error:  # it matters only if the metadata service issues no key
        candidates.append(Candidate("pod_identity", None, str(error)))
    return Found(DefaultChain(tuple(candidates)))


def checked(key: AccessKey, *labels: str) -> AccessKey:
    """Return an access key whose parts a header can hold; the labels name them in the error."""
    for label, value in zip(labels, (key.access_key, key.secret_key, key.security_token), strict=True):
        if value is not None:
            check_header(label, value)
    return key
