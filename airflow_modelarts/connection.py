"""From an Airflow connection to what a call needs: endpoints, credentials, TLS and timeouts. No I/O but reading env."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from airflow_modelarts.api.client import ClientConfig
from airflow_modelarts.api.credentials import (
    AccessKey,
    Credentials,
    InstanceAgency,
    PasswordToken,
    StaticToken,
    TokenCache,
    from_environment,
    is_header_safe,
)
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.api.jinja import NOT_RENDERED, is_template
from airflow_modelarts.api.rate import RateLimiters
from airflow_modelarts.transport.settings import Settings

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0
#: Regions of Open Telekom Cloud; every other region that is not in the EU is Huawei Cloud's.
OTC_REGIONS = ("eu-de", "eu-nl")
#: Domains whose IAM and ModelArts hosts differ in their first label only.
PUBLIC_DOMAINS = ("myhuaweicloud.com", "myhuaweicloud.eu", "otc.t-systems.com")

#: Read for auth 'password' where the connection does not tell IAM's endpoint; the vendor's SDK knows it by this name.
IAM_ENDPOINT_VARIABLE = "HUAWEICLOUD_SDK_IAM_ENDPOINT"
#: How the names of the vendor SDK's variables begin.
VARIABLES = "HUAWEICLOUD_SDK_"
#: Extras that can hold braces of their own, or are not to be shown.
MAY_HOLD_BRACES = ("console_url", "security_token")

#: Tokens and temporary keys of this process, whichever hook or trigger obtained them.
TOKEN_CACHE = TokenCache()
#: What paces the requests of this process, one a connection and endpoint.
LIMITERS = RateLimiters(time.monotonic)


class AirflowConnection(Protocol):
    """What is read of an Airflow connection; its extras come apart, since reading them can be asynchronous."""

    conn_id: Any
    schema: Any
    host: Any
    port: Any
    login: Any
    password: Any


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a hook was told that the connection says otherwise; None leaves it to the connection."""

    project_id: str | None = None
    region: str | None = None
    endpoint: str | None = None


def read(connection: AirflowConnection, extra: Any, overrides: Overrides) -> Settings:
    """
    Read a connection of type ``modelarts``.

    :param extra: the connection's extras as Airflow decodes them, which can be any JSON.
    :raises ModelArtsConfigurationError: a field is missing or wrong; the message names it.
    """
    return _Reader(connection, _checked_extra(connection, extra), overrides).read()


def check_conn_id(conn_id: str) -> None:
    """
    Check the id of a connection before Airflow is asked for it.

    :raises ModelArtsConfigurationError: it is a template that was not rendered.
    """
    if is_template(conn_id):
        raise ModelArtsConfigurationError(f"modelarts_conn_id is {conn_id!r}: {NOT_RENDERED}")


def _checked_extra(connection: AirflowConnection, extra: Any) -> Mapping[str, Any]:
    """Return the extras if they are a JSON object; their value is not shown, since it can hold a secret."""
    name = f"the extras of connection '{connection.conn_id}'"
    form = '{"project_id": "…", "region": "…"}'
    if isinstance(extra, Mapping):
        raw = getattr(connection, "extra", None)
        if not extra and isinstance(raw, str) and raw.strip() and not _is_json(raw):
            raise ModelArtsConfigurationError(f"{name} are not JSON: write a JSON object such as {form}")
        return extra
    if isinstance(extra, str) and _is_json(extra):
        raise ModelArtsConfigurationError(
            f"{name} are JSON text within a JSON text, which is encoded twice: write the JSON object itself, such as "
            f"{form}, without quotes around it"
        )
    kinds = {list: "a JSON list", str: "a JSON text", bool: "a JSON boolean", type(None): "null"}
    raise ModelArtsConfigurationError(
        f"{name} are {kinds.get(type(extra), 'a JSON number')}: write a JSON object such as {form}"
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class _Reader:
    """The fields of one connection; each method reads one thing or says which field to mend."""

    def __init__(self, connection: AirflowConnection, extra: Mapping[str, Any], overrides: Overrides) -> None:
        self.connection = connection
        self.name = f"connection '{connection.conn_id}'"
        self.extra = extra
        self.overrides = overrides
        self.kind = self.text("auth") or "access_key"
        # Only this kind reads the environment, so that a variable left behind does not change another connection.
        self.environment: Mapping[str, str] = os.environ if self.kind == "environment" else {}

    def read(self) -> Settings:
        endpoint = self.endpoint()
        client = ClientConfig(
            endpoint=endpoint,
            project_id=self.project_id(),
            credentials=self.credentials(),
            cache=TOKEN_CACHE,
            now=time.time,
            random=random.random,
            unresolved=self.unresolved(),
            limiter=LIMITERS.find((self.connection.conn_id, endpoint)),
        )
        return Settings(
            client=client,
            verify=self.verify(),
            connect_timeout=self.seconds("connect_timeout", CONNECT_TIMEOUT),
            read_timeout=self.seconds("read_timeout", READ_TIMEOUT),
            console_url=self.text("console_url"),
            region=(self.overrides.region or "").strip() or self.text("region"),
        )

    def text(self, name: str) -> str | None:
        """Return an extra as text. Airflow reads those of a connection's URI as JSON, so that one can be anything."""
        value = self.extra.get(name)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # nothing is lost: JSON knows no integer with a zero before it
        if not isinstance(value, str):
            raise self.no_text(name, value)
        value = value.strip()
        if name not in MAY_HOLD_BRACES:
            self.check_rendered(f"{name} of {self.name}", value)
        return value or None

    def argument(self, name: str, value: object) -> str:
        """Return what a hook was told, as text; "" when it was told nothing."""
        if value is None:
            return ""
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # a template that was rendered to a native object
        if not isinstance(value, str):
            raise ModelArtsConfigurationError(f"{name}= is {value!r}, which is not text: write it in quotes")
        self.check_rendered(f"{name}=", value)
        return value.strip()

    def check_rendered(self, what: str, value: str) -> None:
        if is_template(value):
            raise ModelArtsConfigurationError(f"{what} is {value!r}: {NOT_RENDERED}")

    def no_text(self, name: str, value: object) -> ModelArtsConfigurationError:
        kind = "a boolean" if isinstance(value, bool) else "a number" if isinstance(value, float) else "JSON"
        shown = f"{value!r}, which is {kind}" if isinstance(value, bool | float) else kind
        if name == "security_token":
            shown = kind  # a secret, or what is left of it
        return ModelArtsConfigurationError(
            f"{name} of {self.name} is {shown} and not text: write it in quotes. In a connection's URI, where Airflow "
            "takes 0e12 and 1e5 for numbers, give all extras as __extra__={...}, a JSON object"
        )

    def field(self, name: str, meaning: str) -> str:
        value: str | None = getattr(self.connection, name)
        if not value or not value.strip():
            raise self.missing(f"{name} ({meaning})", f"set it in {self.name}, whose auth is '{self.kind}'")
        return value

    def sendable(self, name: str, value: str) -> str:
        """Return what will stand in a header, or say which field cannot, without its value."""
        if is_header_safe(value):
            return value
        raise ModelArtsConfigurationError(
            f"{name} {self.place(name)} holds a space, a line break or a character that is not ASCII: copy it anew"
        )

    def place(self, name: str) -> str:
        """Return where a setting of that name was written."""
        if name.startswith(VARIABLES):
            return "in the environment"
        return "of the hook" if name.endswith("=") else f"of {self.name}"

    def missing(self, what: str, way_out: str) -> ModelArtsConfigurationError:
        return ModelArtsConfigurationError(f"{what} is missing: {way_out}")

    def wrong(self, what: str, value: object, way_out: str) -> ModelArtsConfigurationError:
        return ModelArtsConfigurationError(f"{what} {self.place(what)} is {self.shown(str(value))!r}: {way_out}")

    def shown(self, value: str) -> str:
        """Return a URL without the user and the password that it can carry, without its scheme too."""
        return re.sub(r"(?s)(^|//).*@", r"\1", value)

    def project_id(self) -> str:
        told = self.overrides.project_id
        if isinstance(told, str) and not told.strip():  # would mean another project than was meant
            raise ModelArtsConfigurationError(
                f"project_id= is {told!r}, which is no value: leave it out for the project of {self.name}"
            )
        name = "project_id"
        project_id = self.argument(name, told) or self.text(name)
        if not project_id:
            name = f"{VARIABLES}PROJECT_ID"
            project_id = self.environment.get(name, "").strip()
        if not project_id:
            raise self.missing("project_id", f"set it in the extras of {self.name}, or pass project_id=")
        if "/" in project_id:
            raise self.wrong(
                name, project_id, "a project's ID holds no slash; give its 32 hex digits alone, without a URL"
            )
        return self.sendable(name, project_id)

    def endpoint(self) -> str:
        if endpoint := self.argument("endpoint", self.overrides.endpoint):
            return self.url("endpoint=", endpoint)
        if region := self.argument("region", self.overrides.region):
            return f"https://{self.host_of('modelarts', region, 'pass endpoint= too', name='region=')}"
        if self.host():
            return self.url("host", self.host_and_port())
        if written := self.text("region"):
            return f"https://{self.host_of('modelarts', written, 'set host to the ModelArts endpoint')}"
        raise self.missing(
            "host", f"set it in {self.name} to the ModelArts endpoint, or set region in its extras, or pass endpoint="
        )

    def host(self) -> str:
        host = str(self.connection.host or "").strip()
        self.check_rendered(f"host of {self.name}", host)
        return host

    def unresolved(self) -> str:
        """Return what to say of the endpoint when its host name does not exist: what was written, and the way out."""
        if endpoint := self.argument("endpoint", self.overrides.endpoint):
            return f"endpoint={endpoint!r} has a host name that does not resolve: check its spelling"
        if region := self.argument("region", self.overrides.region):
            return _unresolved_region(f"region={region!r}", "ModelArts", "pass endpoint=")
        if host := self.host():
            return f"host {self.shown(host)!r} of {self.name} does not resolve: check its spelling"
        return _unresolved_region(f"region {self.text('region')!r} of {self.name}", "ModelArts", "set host")

    def unresolved_iam(self) -> str:
        """Return the same for IAM."""
        if given := self.text("iam_endpoint"):
            return f"iam_endpoint {self.shown(given)!r} of {self.name} does not resolve: check its spelling"
        region = self.argument("region", self.overrides.region) or self.text("region")
        if region and region in self.endpoint():
            return _unresolved_region(f"region {region!r} of {self.name}", "IAM", "set host and iam_endpoint")
        if (given := os.environ.get(IAM_ENDPOINT_VARIABLE, "").strip()) and not self.iam_of_host():
            variable = f"{IAM_ENDPOINT_VARIABLE} {self.shown(given)!r} in the environment"
            return f"{variable} does not resolve: check its spelling"
        return f"{self.endpoint()} tells an IAM endpoint that does not resolve: check its spelling, or set iam_endpoint"

    def host_and_port(self) -> str:
        """Put together what a connection's URI takes apart: ``modelarts://key:secret@host:port/http``."""
        host = _with_scheme(self.host(), str(self.connection.schema or "").strip() or "https")
        if not self.connection.port or re.search(r":\d+/?$", host):
            return host
        return f"{host.rstrip('/')}:{self.connection.port}"

    def iam_endpoint(self) -> str:
        if given := self.text("iam_endpoint"):
            return self.url("iam_endpoint", _without_version(given))
        if told := self.iam_of_host():
            return told
        # Last, so that a variable left behind does not change where another connection sends its password.
        if given := os.environ.get(IAM_ENDPOINT_VARIABLE, "").strip():
            return self.url(IAM_ENDPOINT_VARIABLE, _without_version(given))
        host = urlsplit(self.endpoint()).hostname
        raise self.missing("iam_endpoint", f"set it in the extras of {self.name}, since {host} does not tell it")

    def iam_of_host(self) -> str | None:
        """Return IAM's endpoint where the host of ModelArts tells it."""
        service, _, rest = (urlsplit(self.endpoint()).hostname or "").partition(".")
        return f"https://iam.{rest}" if service == "modelarts" and rest.partition(".")[2] in PUBLIC_DOMAINS else None

    def host_of(self, service: str, region: str, way_out: str, name: str = "region") -> str:
        if not re.fullmatch(r"[a-z0-9-]+", region):
            raise self.wrong(name, region, "it must look like 'cn-north-4' or 'eu-de'")
        if region in OTC_REGIONS:
            return f"{service}.{region}.otc.t-systems.com"
        if region.startswith("eu-"):
            raise self.wrong(
                name, region, f"its endpoint cannot be told from its name; check its spelling, or {way_out}"
            )
        return f"{service}.{region}.myhuaweicloud.com"

    def url(self, name: str, value: str) -> str:
        """Return a base URL: https, or http to this machine alone, and nothing behind the host."""
        parts = self.split(name, value)
        if parts.scheme not in ("https", "http"):
            raise self.wrong(name, value, "it must be a host or an https URL")
        if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
            raise self.wrong(name, value, "it must be a host or a URL without path, query and user")
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            raise self.wrong(name, value, "plain http is allowed to this machine alone; use https")
        return f"{parts.scheme}://{parts.netloc}"

    def split(self, name: str, value: str) -> SplitResult:
        try:
            parts = urlsplit(_with_scheme(value.strip(), "https"))
            is_port = parts.port is None or parts.port > 0
            if parts.hostname and is_port and not re.search(r"[\s\\\x00-\x1f\x7f]", value.strip()):
                parts.hostname.encode("idna")  # as those do who look it up, and not all of them say what fails
                return parts
        except ValueError:  # a port, an address or a name that is none
            pass
        raise self.wrong(name, value, "it must be a host or a URL")

    def credentials(self) -> Credentials:
        match self.kind:
            case "access_key":
                return self.access_key()
            case "password":
                return self.password_token()
            case "token":
                return StaticToken(self.sendable("password", self.field("password", "the token").strip()))
            case "agency":
                return InstanceAgency()
            case "environment":
                names = (f"{VARIABLES}AK", f"{VARIABLES}SK", f"{VARIABLES}SECURITY_TOKEN")
                return self.checked(from_environment(self.environment), names)
        kinds = "access_key, password, token, agency or environment"
        raise self.wrong("auth", self.kind, f"it must be {kinds}")

    def access_key(self) -> AccessKey:
        # A key that was read from a file tends to end with a line feed.
        access_key = self.field("login", "the access key").strip()
        secret_key = self.field("password", "the secret key").strip()
        return self.checked(AccessKey(access_key, secret_key, self.text("security_token")))

    def checked(
        self, key: AccessKey, names: Sequence[str] = ("the access key", "the secret key", "security_token")
    ) -> AccessKey:
        for name, value in zip(names, (key.access_key, key.secret_key, key.security_token), strict=True):
            if value is not None:
                self.sendable(name, value)
        return key

    def password_token(self) -> PasswordToken:
        domain_name = self.text("domain_name")
        if not domain_name:
            raise self.missing("domain_name", f"set the account's name in the extras of {self.name}")
        return PasswordToken(
            iam_endpoint=self.iam_endpoint(),
            user_name=self.field("login", "the IAM user").strip(),
            password=self.field("password", "the user's password").strip("\r\n"),  # spaces can be part of it
            domain_name=domain_name,
            project_name=self.text("project_name"),
            unresolved=self.unresolved_iam(),
        )

    def verify(self) -> bool | str:
        """Read ``verify``: a form can only give text, JSON gives a boolean."""
        text = str(self.extra.get("verify", "")).strip()
        if text.lower() == "false":
            return False
        if text.lower() in ("", "true", "none"):
            return self.environments_authorities() or True
        if not os.path.exists(text):
            raise self.wrong("verify", text, "it must be true, false, or a file of certificates, which is not there")
        return text

    def environments_authorities(self) -> str | None:
        """Where a company's proxy re-signs everything, requests and curl already know its authority from these."""
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            if file := os.environ.get(name):
                if os.path.exists(file):
                    return file
                raise ModelArtsConfigurationError(
                    f"{name} in the environment is {file!r}, which is not there: change it, or set verify in the "
                    f"extras of {self.name}"
                )
        return None

    def seconds(self, name: str, default: float) -> float:
        given = self.extra.get(name)
        text = str("" if given is None else given).strip()
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < 86400:
            raise self.wrong(name, text, "it must be a number of seconds above 0")
        return value


def _unresolved_region(region: str, service: str, way_out: str) -> str:
    return f"{region} has no {service} endpoint that resolves: check its spelling, or {way_out}"


def _without_version(iam_endpoint: str) -> str:
    """Return IAM's endpoint without the version of its API, with which documentation writes it."""
    return re.sub(r"(?i)/+v3(\.0)?(/+auth/+tokens)?/*$", "", iam_endpoint.strip())


def _with_scheme(value: str, scheme: str) -> str:
    return value if "://" in value else f"{scheme}://{value}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
