"""The id of a project, found by its name (KeystoneListProjects): every region has a project of the region's name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_modelarts.api import errors
from airflow_modelarts.api.credentials import base
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer
from airflow_modelarts.api.credentials.temporary_keys import ask
from airflow_modelarts.api.http import Flow, Request, Response
from airflow_modelarts.api.retry import RetryPolicy

if TYPE_CHECKING:
    from airflow_modelarts.api.client import ClientConfig

#: Seconds for which a project's id is kept.
PROJECT_LIFETIME = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class ProjectLookup:
    """What to ask IAM for.

    :param iam_endpoint: URL of IAM, without a path.
    :param name: the project's name, by default that of the region.
    :param unresolved: begins the error if IAM's host name does not exist.
    """

    iam_endpoint: str
    name: str
    unresolved: str = field(default="", repr=False, compare=False)


def find_project(client: ClientConfig, lookup: ProjectLookup, retries: RetryPolicy) -> Flow[str]:
    """Return the id of the project, from the cache or from IAM.

    :raises ModelArtsError: IAM did not answer, or knows no such project, or several.
    """
    context = AuthContext("", client.cache, retries, client.now, client.random)
    key = base.cache_key("project", repr(lookup), repr(client.credentials), *client.credentials.secrets)

    def renew() -> Flow[tuple[str, float]]:
        project_id = yield from base.authorized(
            client.credentials, context, lambda authorizer: _request(client, context, lookup, authorizer)
        )
        return project_id, context.now() + PROJECT_LIFETIME

    return (yield from client.cache.obtain(key, renew, context.now, refused=None))


def _request(client: ClientConfig, context: AuthContext, lookup: ProjectLookup, authorizer: Authorizer) -> Flow[str]:
    url = f"{lookup.iam_endpoint}/v3/projects?name={quote(lookup.name, safe='')}"

    def build() -> Request:
        return authorizer.authorize(
            Request("GET", url, {"Accept": "application/json"}), project_id="", now=context.now()
        )

    found: list[str] = yield from ask(
        context,
        "KeystoneListProjects",
        f"project '{lookup.name}'",
        build,
        lambda response: _read_ids(response, lookup.name),
        secrets=(*client.credentials.secrets, *authorizer.secrets),
        advice="Set project_id in the connection's extras, or allow the identity to list projects",
        unresolved=lookup.unresolved,
    )
    if len(found) == 1:
        return found[0]
    found_text = f"several projects ({', '.join(sorted(found))})" if found else "no project"
    raise errors.ModelArtsConfigurationError(
        f"project_id is missing, and IAM at {lookup.iam_endpoint} has {found_text} of the name '{lookup.name}' for "
        f"{client.credentials.identity(context.cache)}: set project_id in the connection's extras, or check region",
        operation="KeystoneListProjects",
    )


def _read_ids(response: Response, name: str) -> list[str]:
    projects = base.read_document(response.body).get("projects")
    if not isinstance(projects, list):
        raise ValueError("no list projects")
    ids = [x.get("id") for x in projects if isinstance(x, dict) and x.get("name", name) == name]
    usable = [x for x in ids if isinstance(x, str) and base.is_header_safe(x) and "/" not in x]
    if len(usable) != len(ids):
        raise ValueError("a project without a usable id")
    return usable
