"""The endpoints of ModelArts and IAM: given by the connection, or derived from its region or from each other."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from airflow_modelarts.api.addresses import base_url, with_scheme, without_user
from airflow_modelarts.connection.values import VARIABLES, Values, missing, wrong

#: Regions of Open Telekom Cloud; every other region outside the EU is one of Huawei Cloud.
OTC_REGIONS = ("eu-de", "eu-nl")
#: Domains in which the hosts of IAM and ModelArts differ in their first label only.
PUBLIC_DOMAINS = ("myhuaweicloud.com", "myhuaweicloud.eu", "otc.t-systems.com")
#: IAM's endpoint, for a connection that does not give one. The vendor's SDK reads the same variables.
IAM_ENDPOINT_VARIABLE = f"{VARIABLES}IAM_ENDPOINT"
STS_ENDPOINT_VARIABLE = f"{VARIABLES}STS_ENDPOINT"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The endpoint of a service.

    :param url: its base URL.
    :param unresolved: the error message for a host name that does not resolve: the value that was given, and the way
        out.
    """

    url: str
    unresolved: str


def modelarts_endpoint(values: Values) -> Endpoint:
    """Return the endpoint of ModelArts, from the hook's ``endpoint`` or ``region``, else the connection's."""
    if endpoint := values.argument("endpoint"):
        unresolved = f"endpoint={endpoint!r} has a host name that does not resolve: check its spelling"
        return Endpoint(base_url("endpoint= of the hook", endpoint), unresolved)
    if region := values.argument("region"):
        url = _regional_url(region, "region= of the hook", "pass endpoint= too")
        return Endpoint(url, _unresolved_region(f"region={region!r}", "ModelArts", "pass endpoint="))
    if host := values.host():
        return Endpoint(base_url(values.label("host"), _with_port(values, host)), _unresolved(values, "host", host))
    own_region, label = region_of(values)
    if not own_region:
        way_out = f"set it in {values.name} to the ModelArts endpoint, or set region in its extras, or pass endpoint="
        raise missing("host", way_out)
    # As the vendor's SDK names the endpoint of a service in a region; the first one if there are several.
    variable = f"{VARIABLES}REGION_MODELARTS_{own_region.replace('-', '_').upper()}"
    if given := values.variable(variable).split(",")[0].strip():
        return Endpoint(base_url(f"{variable} in the environment", given), _unresolved_variable(variable, given))
    url = _regional_url(own_region, label, "set host to the ModelArts endpoint")
    return Endpoint(url, _unresolved_region(f"region {own_region!r} of {values.name}", "ModelArts", "set host"))


def region_of(values: Values) -> tuple[str, str]:
    """Return the region of the hook, the connection or the environment, "" for none; and its name in errors."""
    if given := values.argument("region"):
        return given, "region= of the hook"
    if region := values.text("region"):
        return region, values.label("region")
    return values.variable(f"{VARIABLES}REGION"), f"{VARIABLES}REGION in the environment"


def iam_endpoint(values: Values, modelarts: str, profile_endpoint: str = "", *, for_id_token: bool = False) -> Endpoint:
    """Return the endpoint of IAM.

    :param modelarts: the base URL of ModelArts.
    :param profile_endpoint: the endpoint in the profile file, if that is in use.
    :param for_id_token: whether an ID token is sent there, which is the worker's and not the connection's. Then the
        connection does not choose the endpoint.
    """
    if (given := values.text("iam_endpoint")) and not for_id_token:
        url = base_url(values.label("iam_endpoint"), _without_version(given))
        return Endpoint(url, _unresolved(values, "iam_endpoint", given))
    if profile_endpoint:
        label = "iam_endpoint of the credentials file"
        url = base_url(label, _without_version(profile_endpoint))
        return Endpoint(url, f"{label} {without_user(profile_endpoint)!r} does not resolve: check its spelling")
    if values.variable(IAM_ENDPOINT_VARIABLE):
        return _from_environment(IAM_ENDPOINT_VARIABLE)
    if (derived := _derived(values, modelarts, "iam", "IAM")) is not None:
        return derived
    # Last, so that a stray variable does not change where another connection sends its password.
    if os.environ.get(IAM_ENDPOINT_VARIABLE, "").strip():
        return _from_environment(IAM_ENDPOINT_VARIABLE)
    host = urlsplit(modelarts).hostname or ""
    if for_id_token:
        raise missing(
            IAM_ENDPOINT_VARIABLE,
            f"set it in the environment of workers and triggerers, since the host {host} is not one of a public cloud. "
            "iam_endpoint of the connection does not apply to ID tokens",
        )
    raise missing(
        "iam_endpoint", f"set it in the extras of {values.name}, since it cannot be derived from the host {host}"
    )


def obs_endpoint(values: Values, modelarts: str) -> Endpoint:
    """Return the endpoint of the object store; ``modelarts`` is the base URL of ModelArts."""
    label = values.label("obs_endpoint")
    if given := values.text("obs_endpoint"):
        url = base_url(label, given)
        if re.match(r"(?i)https?://(?!obs\.)[^/]+\.obs\.", url):
            raise wrong(label, given, "leave the bucket out, which paths name")
        return Endpoint(url, _unresolved(values, "obs_endpoint", given))
    if (derived := _derived(values, modelarts, "obs", "OBS")) is not None:
        return derived
    host = urlsplit(modelarts).hostname
    raise missing(
        "obs_endpoint", f"set it in the extras of {values.name}, since it cannot be derived from the host {host}"
    )


def sts_endpoint(values: Values, modelarts: str) -> Endpoint:
    """Return the endpoint of STS, which gets an ID token: from the environment, or of the public region."""
    if values.variable(STS_ENDPOINT_VARIABLE):
        return _from_environment(STS_ENDPOINT_VARIABLE)
    if (derived := _derived(values, modelarts, "sts", "STS")) is not None:
        return derived
    raise missing(
        STS_ENDPOINT_VARIABLE,
        "set it in the environment of workers and triggerers, since it cannot be derived from the host "
        f"{urlsplit(modelarts).hostname}",
    )


def public_region(modelarts: str) -> str:
    """Return the region of a public endpoint of ModelArts; "" for any other."""
    service, _, rest = (urlsplit(modelarts).hostname or "").partition(".")
    region, _, domain = rest.partition(".")
    return region if service == "modelarts" and domain in PUBLIC_DOMAINS else ""


def _derived(values: Values, modelarts: str, service: str, name: str) -> Endpoint | None:
    """Return the endpoint of another service in the public region of ModelArts; None for another host."""
    if not public_region(modelarts):
        return None
    url = f"https://{service}.{(urlsplit(modelarts).hostname or '').partition('.')[2]}"
    region, _ = region_of(values)
    own_field = "obs_endpoint" if service == "obs" else "iam_endpoint"
    if region and region in modelarts:
        label = f"region {region!r} of {values.name}"
        return Endpoint(url, _unresolved_region(label, name, f"set host and {own_field}"))
    return Endpoint(url, f"{modelarts} leads to {url}, which does not resolve: check its spelling, or set {own_field}")


def _from_environment(variable: str) -> Endpoint:
    given = os.environ[variable].strip()
    url = base_url(f"{variable} in the environment", _without_version(given))
    return Endpoint(url, _unresolved_variable(variable, given))


def _unresolved_variable(variable: str, given: str) -> str:
    return f"{variable} {without_user(given)!r} in the environment does not resolve: check its spelling"


def _regional_url(region: str, label: str, way_out: str) -> str:
    """Return the endpoint of ModelArts in a public region."""
    if not re.fullmatch(r"[a-z0-9-]+", region):
        raise wrong(label, region, "it must look like 'cn-north-4' or 'eu-de'")
    if region in OTC_REGIONS:
        return f"https://modelarts.{region}.otc.t-systems.com"
    if region.startswith("eu-"):
        raise wrong(label, region, f"its endpoint cannot be derived from its name; check its spelling, or {way_out}")
    return f"https://modelarts.{region}.myhuaweicloud.com"


def _with_port(values: Values, host: str) -> str:
    """Join what Airflow splits in a connection's URI: ``modelarts://key:secret@host:port/http``."""
    url = with_scheme(host, str(values.connection.schema or "").strip() or "https")
    if not values.connection.port or re.search(r":\d+/?$", url):
        return url
    return f"{url.rstrip('/')}:{values.connection.port}"


def _without_version(iam_endpoint: str) -> str:
    """Return IAM's endpoint without the version of its API, which documentation includes."""
    return re.sub(r"(?i)/+v3(\.0)?(/+auth/+tokens)?/*$", "", iam_endpoint)


def _unresolved(values: Values, name: str, given: str) -> str:
    return f"{name} {without_user(given)!r} of {values.name} does not resolve: check its spelling"


def _unresolved_region(region: str, service: str, way_out: str) -> str:
    return f"{region} has no {service} endpoint that resolves: check its spelling, or {way_out}"
