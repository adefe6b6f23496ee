"""The link from a task of Airflow to the console where its processing task can be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_modelarts.transport.settings import Settings

# By the domain of the endpoint and the beginning of the region. Only Huawei Cloud's are publicly known to open
# ModelArts itself; none is known for a single processing task. Open Telekom Cloud's opens the console's home.
_PUBLIC_CONSOLES = (
    ("myhuaweicloud.com", "cn-", "https://console.huaweicloud.com/modelarts/?region={region}"),
    ("myhuaweicloud.com", "", "https://console-intl.huaweicloud.com/modelarts/?region={region}"),
    ("myhuaweicloud.eu", "", "https://console.eu.huaweicloud.com/modelarts/?region={region}"),
    ("otc.t-systems.com", "", "https://console.otc.t-systems.com/console/?region={region}"),
)


def console_url(settings: Settings, processor_task_id: str) -> str | None:
    """
    Return the URL of the console for a processing task; None when nothing tells it.

    :param settings: the connection. Its ``console_url`` comes first, with ``{region}``, ``{project_id}`` and
        ``{processor_task_id}`` filled in; without one it is the public console of the endpoint's region. Where the
        endpoint is not public, the region is the one of the hook or of the connection's extras.
    """
    region, domain = _region_and_domain(settings.client.endpoint)
    public = _public_console(region, domain)
    if public is None:  # then the host's name only looks as if it told a region
        region = settings.region or region
    pattern = settings.console_url or public
    if not pattern or not _may_be_shown(pattern) or ("{region}" in pattern and not region):
        return None
    values = {"region": region, "project_id": settings.client.project_id, "processor_task_id": processor_task_id}
    for name, value in values.items():
        pattern = pattern.replace(f"{{{name}}}", quote(value, safe=""))
    return pattern


class ModelArtsConsoleLink(BaseOperatorLink):
    """The button in Airflow's UI that opens the console; the operator pushes its URL as an XCom."""

    name = "ModelArts console"

    @property
    def xcom_key(self) -> str:
        """The key under which Airflow 3 finds the URL; on Airflow 2 this class looks there itself."""
        return "_link_ModelArtsConsoleLink"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the URL that the operator left, or "" for a button that cannot be pressed."""
        from airflow.providers.common.compat.sdk import XCom

        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""

    @classmethod
    def persist(cls, context: Context, operator: BaseOperator, task_id: str, settings: Settings) -> None:
        """
        Leave the URL for the UI, as soon as the processing task's id is known.

        :param task_id: the processing task's id.
        :param settings: the connection, from ``hook.get_conn()``.
        """
        if url := console_url(settings, task_id):
            operator.log.info("Processing task '%s' can be seen in the console: %s", task_id, url)
            context["ti"].xcom_push(key=cls().xcom_key, value=url)
        elif settings.console_url:
            operator.log.warning(
                "There is no link to the console: console_url of the connection must be an http or https URL without "
                "user and password, and have {region} only where the extra region or the endpoint's name tells it."
            )


def _region_and_domain(endpoint: str) -> tuple[str, str]:
    """Take apart ``modelarts.{region}.{domain}``; what has another form tells neither."""
    service, _, rest = (urlsplit(endpoint).hostname or "").partition(".")
    region, _, domain = rest.partition(".")
    return (region, domain) if service == "modelarts" and domain else ("", "")


def _public_console(region: str, domain: str) -> str | None:
    found = (url for known, prefix, url in _PUBLIC_CONSOLES if known == domain and region.startswith(prefix))
    return next(found, None)


def _may_be_shown(url: str) -> bool:
    """Whether anyone may see and press it: nothing that a browser would run, no password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.username is None
