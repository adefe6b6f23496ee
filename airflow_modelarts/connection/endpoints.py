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
#: IAM's endpoint, for a connection that does not give one. The vendor's SDK reads the same variable.
IAM_ENDPOINT_VARIABLE = f"{VARIABLES}IAM_ENDPOINT"


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
    own_region = values.text("region")
    if not own_region:
        way_out = f"set it in {values.name} to the ModelArts endpoint, or set region in its extras, or pass endpoint="
        raise missing("host", way_out)
    url = _regional_url(own_region, values.label("region"), "set host to the ModelArts endpoint")
    return Endpoint(url, _unresolved_region(f"region {own_region!r} of {values.name}", "ModelArts", "set host"))


def iam_endpoint(values: Values, modelarts: str) -> Endpoint:
    """Return the endpoint of IAM; ``modelarts`` is the base URL of ModelArts."""
    if given := values.text("iam_endpoint"):
        url = base_url(values.label("iam_endpoint"), _without_version(given))
        return Endpoint(url, _unresolved(values, "iam_endpoint", given))
    host = urlsplit(modelarts).hostname or ""
    service, _, rest = host.partition(".")
    if service == "modelarts" and rest.partition(".")[2] in PUBLIC_DOMAINS:
        url = f"https://iam.{rest}"
        region = values.argument("region") or values.text("region")
        if region and region in modelarts:
            label = f"region {region!r} of {values.name}"
            return Endpoint(url, _unresolved_region(label, "IAM", "set host and iam_endpoint"))
        return Endpoint(
            url, f"{modelarts} leads to {url}, which does not resolve: check its spelling, or set iam_endpoint"
        )
    # Last, so that a stray variable does not change where another connection sends its password.
    if given := os.environ.get(IAM_ENDPOINT_VARIABLE, "").strip():
        label = f"{IAM_ENDPOINT_VARIABLE} in the environment"
        unresolved = (
            f"{IAM_ENDPOINT_VARIABLE} {without_user(given)!r} in the environment does not resolve: check its spelling"
        )
        return Endpoint(base_url(label, _without_version(given)), unresolved)
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
    host = urlsplit(modelarts).hostname or ""
    service, _, rest = host.partition(".")
    if service != "modelarts" or rest.partition(".")[2] not in PUBLIC_DOMAINS:
        way_out = f"set it in the extras of {values.name}, since it cannot be derived from the host {host}"
        raise missing("obs_endpoint", way_out)
    url = f"https://obs.{rest}"
    return Endpoint(url, f"{modelarts} leads to {url}, which does not resolve: check its spelling, or set obs_endpoint")


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
