"""From an Airflow connection to what a call needs: endpoints, credentials, TLS and timeouts. No I/O but reading env."""

from __future__ import annotations

import ipaddress
import os
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from airflow_modelarts.api import auth
from airflow_modelarts.api.auth import AccessKey, Credentials, GrantCache, InstanceAgency, PasswordToken, StaticToken
from airflow_modelarts.api.call import Client
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.api.rate import RateLimiters

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0
#: Regions of Open Telekom Cloud; every other region that is not in the EU is Huawei Cloud's.
OTC_REGIONS = ("eu-de", "eu-nl")
#: Domains whose IAM and ModelArts hosts differ in their first label only.
PUBLIC_DOMAINS = ("myhuaweicloud.com", "myhuaweicloud.eu", "otc.t-systems.com")

#: Tokens and temporary keys of this process, whichever hook or trigger obtained them.
GRANTS = GrantCache()
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


@dataclass(frozen=True, slots=True)
class Settings:
    """
    A connection, read and checked.

    :param client: what calls need.
    :param verify: False, True, or a file of the certificate authorities to trust.
    :param connect_timeout: seconds.
    :param read_timeout: seconds without a byte.
    :param console_url: of the web console; None when the connection does not say.
    """

    client: Client
    verify: bool | str
    connect_timeout: float
    read_timeout: float
    console_url: str | None


def read(connection: AirflowConnection, extra: Mapping[str, Any], overrides: Overrides) -> Settings:
    """
    Read a connection of type ``modelarts``.

    :param extra: the connection's extras, decoded.
    :raises ModelArtsConfigurationError: a field is missing or wrong; the message names it.
    """
    return _Reader(connection, extra, overrides).read()


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
        client = Client(
            endpoint=endpoint,
            project_id=self.project_id(),
            credentials=self.credentials(),
            cache=GRANTS,
            now=time.time,
            random=random.random,
            limiter=LIMITERS.find((self.connection.conn_id, endpoint)),
        )
        return Settings(
            client=client,
            verify=self.verify(),
            connect_timeout=self.seconds("connect_timeout", CONNECT_TIMEOUT),
            read_timeout=self.seconds("read_timeout", READ_TIMEOUT),
            console_url=self.text("console_url"),
        )

    def text(self, name: str) -> str | None:
        value = self.extra.get(name)
        return str(value).strip() or None if value is not None else None

    def field(self, name: str, meaning: str) -> str:
        value: str | None = getattr(self.connection, name)
        if not value:
            raise self.missing(f"{name} ({meaning})", f"set it in {self.name}, whose auth is '{self.kind}'")
        return value

    def sendable(self, name: str, value: str) -> str:
        """Return what will stand in a header, or say which field cannot, without its value."""
        if auth.is_visible(value):
            return value
        raise ModelArtsConfigurationError(
            f"{name} of {self.name} holds a space, a line break or a character that is not ASCII: copy it anew"
        )

    def missing(self, what: str, way_out: str) -> ModelArtsConfigurationError:
        return ModelArtsConfigurationError(f"{what} is missing: {way_out}")

    def wrong(self, what: str, value: object, way_out: str) -> ModelArtsConfigurationError:
        shown = re.sub(r"(?s)(^|//).*@", r"\1", str(value))  # a URL can carry a password, without its scheme too
        return ModelArtsConfigurationError(f"{what} of {self.name} is {shown!r}: {way_out}")

    def project_id(self) -> str:
        project_id = (
            self.overrides.project_id
            or self.text("project_id")
            or self.environment.get("HUAWEICLOUD_SDK_PROJECT_ID", "").strip()
        )
        if not project_id:
            raise self.missing("project_id", f"set it in the extras of {self.name}, or pass project_id=")
        return self.sendable("project_id", project_id)

    def endpoint(self) -> str:
        if self.overrides.endpoint:
            return self.url("endpoint", self.overrides.endpoint)
        if self.overrides.region:
            return f"https://{self.host_of('modelarts', self.overrides.region, 'pass endpoint= too')}"
        if self.connection.host:
            return self.url("host", self.host_and_port())
        if region := self.text("region"):
            return f"https://{self.host_of('modelarts', region, 'set host to the ModelArts endpoint')}"
        raise self.missing(
            "host", f"set it in {self.name} to the ModelArts endpoint, or set region in its extras, or pass endpoint="
        )

    def host_and_port(self) -> str:
        """Put together what a connection's URI takes apart: ``modelarts://key:secret@host:port/http``."""
        host = _with_scheme(str(self.connection.host).strip(), self.connection.schema or "https")
        if not self.connection.port or re.search(r":\d+/?$", host):
            return host
        return f"{host.rstrip('/')}:{self.connection.port}"

    def iam_endpoint(self) -> str:
        if given := self.text("iam_endpoint"):
            return self.url("iam_endpoint", given)
        host = urlsplit(self.endpoint()).hostname or ""
        service, _, rest = host.partition(".")
        if service == "modelarts" and rest.partition(".")[2] in PUBLIC_DOMAINS:
            return f"https://iam.{rest}"
        raise self.missing("iam_endpoint", f"set it in the extras of {self.name}, since {host} does not tell it")

    def host_of(self, service: str, region: str, way_out: str) -> str:
        if not re.fullmatch(r"[a-z0-9-]+", region):
            raise self.wrong("region", region, "it must look like 'cn-north-4' or 'eu-de'")
        if region in OTC_REGIONS:
            return f"{service}.{region}.otc.t-systems.com"
        if region.startswith("eu-"):
            raise self.wrong("region", region, f"its endpoint cannot be told from its name; {way_out}")
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
                return self.checked(auth.from_environment(self.environment))
        kinds = "access_key, password, token, agency or environment"
        raise self.wrong("auth", self.kind, f"it must be {kinds}")

    def access_key(self) -> AccessKey:
        # A key that was read from a file tends to end with a line feed.
        access_key = self.field("login", "the access key").strip()
        secret_key = self.field("password", "the secret key").strip()
        return self.checked(AccessKey(access_key, secret_key, self.text("security_token")))

    def checked(self, key: AccessKey) -> AccessKey:
        self.sendable("the access key", key.access_key)
        self.sendable("the secret key", key.secret_key)
        if key.security_token is not None:
            self.sendable("security_token", key.security_token)
        return key

    def password_token(self) -> PasswordToken:
        domain_name = self.text("domain_name")
        if not domain_name:
            raise self.missing("domain_name", f"set the account's name in the extras of {self.name}")
        return PasswordToken(
            iam_endpoint=self.iam_endpoint(),
            user_name=self.field("login", "the IAM user"),
            password=self.field("password", "the user's password"),
            domain_name=domain_name,
            project_name=self.text("project_name"),
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
        text = self.text(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < 86400:
            raise self.wrong(name, text, "it must be a number of seconds above 0")
        return value


def _with_scheme(value: str, scheme: str) -> str:
    return value if "://" in value else f"{scheme}://{value}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
