"""Single values of a connection, and the errors that name them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_modelarts.api.addresses import without_user
from airflow_modelarts.api.arguments import is_template
from airflow_modelarts.api.credentials import is_header_safe
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.api.request_parts import NOT_RENDERED
from airflow_modelarts.connection.fields import DEFAULT_AUTH, EXTRAS

#: The prefix of the environment variables of the vendor's SDK.
VARIABLES = "HUAWEICLOUD_SDK_"
#: The kinds of credentials that the environment of the process configures. They read its project and endpoints too.
ENVIRONMENT_KINDS = ("environment", "profile", "oidc", "pod_identity", "default")


class AirflowConnection(Protocol):
    """The fields that are read of an Airflow connection, without the extras, which a triggerer reads asynchronously."""

    conn_id: Any
    schema: Any
    host: Any
    port: Any
    login: Any
    password: Any


@dataclass(frozen=True, slots=True)
class Overrides:
    """The arguments of a hook that override its connection; None leaves the connection's value."""

    project_id: str | None = None
    region: str | None = None
    endpoint: str | None = None


class Values:
    """The values of one connection, and of the arguments that override it.

    Each method reads one value, or raises a ModelArtsConfigurationError that names it. Values are read when they are
    needed, so that a field that does not matter cannot fail a connection.
    """

    def __init__(
        self, connection: AirflowConnection, extra: Mapping[str, Any], overrides: Overrides, auth: str | None = None
    ) -> None:
        """Keep what to read from; ``auth`` replaces the connection's own kind of credentials."""
        self.connection = connection
        self.name = f"connection '{connection.conn_id}'"
        self.extra = extra
        self.overrides = overrides
        self.auth = auth or self.text("auth") or DEFAULT_AUTH
        # For other kinds of credentials, a stray variable must not change the connection.
        self.environment: Mapping[str, str] = os.environ if self.auth in ENVIRONMENT_KINDS else {}

    def with_auth(self, auth: str) -> Values:
        """Return the values with another kind of credentials."""
        return Values(self.connection, self.extra, self.overrides, auth)

    def variable(self, name: str) -> str:
        """Return a variable of the environment; "" if it is not set, or if this kind of credentials reads none."""
        # A value that was read from a file often ends with a line feed.
        return self.environment.get(name, "").strip()

    def label(self, name: str) -> str:
        """Return the name of a field as errors write it."""
        return f"{name} of {self.name}"

    def text(self, name: str) -> str | None:
        """Return an extra as text; None if it is empty. In a connection's URI, Airflow reads extras as any JSON."""
        field = EXTRAS[name]
        advice = (
            ". In a connection's URI, where Airflow takes 0e12 and 1e5 for numbers, give all extras as "
            "__extra__={...}, a JSON object"
        )
        text = _as_text(self.label(name), self.extra.get(name), advice, is_secret=field.is_secret)
        if not field.may_hold_braces:
            check_rendered(self.label(name), text)
        return text or None

    def argument(self, name: str) -> str:
        """Return an argument of the hook; "" if it was not given."""
        text = _as_text(f"{name}=", getattr(self.overrides, name))
        check_rendered(f"{name}=", text)
        return text

    def seconds(self, name: str) -> float:
        """Return an extra as a number of seconds."""
        given = self.extra.get(name)
        text = str("" if given is None else given).strip()
        if not text:
            return float(EXTRAS[name].default or 0)
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < 86400:
            raise wrong(self.label(name), text, "it must be a number of seconds above 0")
        return value

    def required(self, name: str, meaning: str) -> str:
        """Return a field of the connection that must not be empty, such as ``password``."""
        value: str | None = getattr(self.connection, name)
        if not value or not value.strip():
            raise missing(f"{name} ({meaning})", f"set it in {self.name}, whose auth is '{self.auth}'")
        return value

    def host(self) -> str:
        """Return the connection's host; "" if it is empty."""
        host = str(self.connection.host or "").strip()
        check_rendered(self.label("host"), host)
        return host


def _as_text(label: str, value: object, advice: str = "", *, is_secret: bool = False) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a template that was rendered to a native object, or JSON, which allows no leading zero
    if isinstance(value, str):
        return value.strip()
    shown = repr(value) if isinstance(value, bool | float) and not is_secret else "JSON"
    raise ModelArtsConfigurationError(f"{label} is {shown}, which is not text: write it in quotes{advice}")


def check_rendered(label: str, value: str) -> None:
    """Raise an error if a value is a template."""
    if is_template(value):
        raise ModelArtsConfigurationError(f"{label} is {value!r}: {NOT_RENDERED}")


def check_header(label: str, value: str) -> str:
    """Return a value that a header will hold; the error for any other value does not show it."""
    if is_header_safe(value):
        return value
    raise ModelArtsConfigurationError(
        f"{label} holds a space, a line break or a character that is not ASCII: copy it again"
    )


def wrong(label: str, value: str, way_out: str) -> ModelArtsConfigurationError:
    """Return the error for a value that is wrong."""
    return ModelArtsConfigurationError(f"{label} is {without_user(value)!r}: {way_out}")


def missing(label: str, way_out: str) -> ModelArtsConfigurationError:
    """Return the error for a value that is missing."""
    return ModelArtsConfigurationError(f"{label} is missing: {way_out}")
