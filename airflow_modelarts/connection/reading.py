"""Reading a whole Airflow connection. It sends nothing; it reads the environment and checks that files exist."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from airflow_modelarts.api.client import ClientConfig
from airflow_modelarts.api.credentials import TokenCache
from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.api.rate import RateLimiters
from airflow_modelarts.connection.credentials import read_credentials
from airflow_modelarts.connection.endpoints import Endpoint, iam_endpoint, modelarts_endpoint, obs_endpoint
from airflow_modelarts.connection.values import (
    VARIABLES,
    AirflowConnection,
    Overrides,
    Values,
    check_header,
    missing,
    wrong,
)
from airflow_modelarts.transport import Settings

#: The tokens and temporary keys of this process, shared by all hooks and triggers.
TOKEN_CACHE = TokenCache()
#: The rate limiters of this process, one for each connection and endpoint.
LIMITERS = RateLimiters(time.monotonic)


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """The object store of a connection.

    :param settings: the connection's: credentials, TLS and timeouts.
    :param name: the connection, as errors write it.
    :param auth: the connection's kind of credentials.
    :param region: of the endpoint, else of the hook or the connection's extras; None if none is known.
    """

    settings: Settings
    endpoint: Endpoint
    name: str
    auth: str
    region: str | None
    _values: Values = field(repr=False, compare=False)

    def iam(self) -> tuple[str, str]:
        """Return the URL of IAM, and the beginning of the error if its host name does not exist."""
        found = iam_endpoint(self._values, self.settings.client.endpoint)
        return found.url, found.unresolved


def read_object_store(connection: AirflowConnection, extra: Any, overrides: Overrides) -> ObjectStore:
    """Read the object store of a connection of type ``modelarts``; arguments and errors are those of :func:`read`."""
    settings = read(connection, extra, overrides)
    values = Values(connection, _checked_extra(connection, extra), overrides)
    endpoint = obs_endpoint(values, settings.client.endpoint)
    named = re.match(r"obs\.([a-z0-9-]+)\.", urlsplit(endpoint.url).hostname or "")
    region = named[1] if named else settings.region
    return ObjectStore(settings, endpoint, values.name, values.auth, region, values)


def read(connection: AirflowConnection, extra: Any, overrides: Overrides) -> Settings:
    """Read a connection of type ``modelarts``.

    :param extra: the connection's extras as Airflow decodes them, which can be any JSON.
    :raises ModelArtsConfigurationError: a field is missing or wrong; the message names it.
    """
    values = Values(connection, _checked_extra(connection, extra), overrides)
    endpoint = modelarts_endpoint(values)
    client = ClientConfig(
        endpoint=endpoint.url,
        project_id=_project_id(values),
        credentials=read_credentials(values, endpoint.url),
        cache=TOKEN_CACHE,
        now=time.time,
        random=random.random,
        unresolved=endpoint.unresolved,
        limiter=LIMITERS.find((connection.conn_id, endpoint.url)),
    )
    return Settings(
        client=client,
        verify=_verify(values),
        connect_timeout=values.seconds("connect_timeout"),
        read_timeout=values.seconds("read_timeout"),
        console_url=values.text("console_url"),
        region=values.argument("region") or values.text("region"),
    )


def _checked_extra(connection: AirflowConnection, extra: Any) -> Mapping[str, Any]:
    """Return the extras if they are a JSON object. The error does not show them, since they can hold a secret."""
    label = f"the extras of connection '{connection.conn_id}'"
    form = '{"project_id": "…", "region": "…"}'
    if isinstance(extra, Mapping):
        raw = getattr(connection, "extra", None)
        if not extra and isinstance(raw, str) and raw.strip() and not _is_json(raw):
            raise ModelArtsConfigurationError(f"{label} are not JSON: write a JSON object such as {form}")
        return extra
    if isinstance(extra, str) and _is_json(extra):
        raise ModelArtsConfigurationError(
            f"{label} are JSON text within a JSON text, which is encoded twice: write the JSON object itself, such as "
            f"{form}, without quotes around it"
        )
    kinds = {list: "a JSON list", str: "a JSON text", bool: "a JSON boolean", type(None): "null"}
    raise ModelArtsConfigurationError(
        f"{label} are {kinds.get(type(extra), 'a JSON number')}: write a JSON object such as {form}"
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _project_id(values: Values) -> str:
    given = values.overrides.project_id
    if isinstance(given, str) and not given.strip():  # the connection's project may not be the one that was meant
        raise ModelArtsConfigurationError(
            f"project_id= is {given!r}, which is no value: leave it out for the project of {values.name}"
        )
    label, project_id = "project_id= of the hook", values.argument("project_id")
    if not project_id:
        label, project_id = values.label("project_id"), values.text("project_id") or ""
    if not project_id:
        name = f"{VARIABLES}PROJECT_ID"
        label, project_id = f"{name} in the environment", values.environment.get(name, "").strip()
    if not project_id:
        raise missing("project_id", f"set it in the extras of {values.name}, or pass project_id=")
    if "/" in project_id:
        raise wrong(label, project_id, "a project's ID holds no slash; give its 32 hex digits alone, without a URL")
    return check_header(label, project_id)


def _verify(values: Values) -> bool | str:
    """Read ``verify``: a form gives text, JSON can give a boolean."""
    text = str(values.extra.get("verify", "")).strip()
    if text.lower() == "false":
        return False
    label, way_out = values.label("verify"), "it must be true, false, or a file of certificates that exists"
    if text.lower() in ("", "true", "none"):
        # requests and curl use the same variables, for example for the authority of a company's proxy.
        name = next(filter(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")), None)
        if name is None:
            return True
        label, text = f"{name} in the environment", os.environ[name]
        way_out = f"it does not exist; change it, or set verify in the extras of {values.name}"
    if not os.path.exists(text):
        raise wrong(label, text, way_out)
    return text
