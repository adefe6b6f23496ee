"""The links from an Airflow task: to its processing task in the web console, and to where an audit's report is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_modelarts.connection.reading import ObjectStore
    from airflow_modelarts.transport import Settings

# The endpoint's domain, the region's prefix and the console. Only Huawei Cloud's consoles are documented to open
# ModelArts, and none has a documented page for a processing task. Open Telekom Cloud's opens the console's home.
_PUBLIC_CONSOLES = (
    ("myhuaweicloud.com", "cn-", "https://console.huaweicloud.com/modelarts/?region={region}"),
    ("myhuaweicloud.com", "", "https://console-intl.huaweicloud.com/modelarts/?region={region}"),
    ("myhuaweicloud.eu", "", "https://console.eu.huaweicloud.com/modelarts/?region={region}"),
    ("otc.t-systems.com", "", "https://console.otc.t-systems.com/console/?region={region}"),
)


def console_url(settings: Settings, processor_task_id: str) -> str | None:
    """Return the URL of the console for a processing task; None if there is no usable URL.

    :param settings: the connection. Its ``console_url`` takes precedence, with ``{region}``, ``{project_id}`` and
        ``{processor_task_id}`` replaced; the default is the public console of the endpoint's region. If the
        endpoint is not public, the region is that of the hook or of the connection's extras.
    """
    region, domain = _region_and_domain(settings.client.endpoint)
    public = _public_console(region, domain)
    if public is None:  # the label of a private host may not be a region
        region = settings.region or region
    pattern = settings.console_url or public
    if not pattern or not _is_linkable(pattern) or ("{region}" in pattern and not region):
        return None
    values = {"region": region, "project_id": settings.client.project_id, "processor_task_id": processor_task_id}
    for name, value in values.items():
        pattern = pattern.replace(f"{{{name}}}", quote(value, safe=""))
    return pattern


def obs_console_url(store: ObjectStore) -> str | None:
    """Return the URL of the OBS console in the region of a public endpoint; None for any other endpoint.

    The console asks its users to sign in, so the URL holds no credential, and needs none. No page of an object is
    documented.
    """
    region, domain = _region_and_domain(store.endpoint.url, "obs")
    pattern = _public_console(region, domain)
    return pattern and pattern.replace("/modelarts/", "/obs/").replace("{region}", quote(region, safe=""))


def _public_console(region: str, domain: str) -> str | None:
    return next((url for known, prefix, url in _PUBLIC_CONSOLES if known == domain and region.startswith(prefix)), None)


def endpoint_region(settings: Settings) -> str | None:
    """Return the region of a public endpoint; for others that of the hook or the connection's extras, if known."""
    region, domain = _region_and_domain(settings.client.endpoint)
    is_public = any(domain == known for known, *_ in _PUBLIC_CONSOLES)
    return region if is_public else settings.region


class _StoredLink(BaseOperatorLink):
    """A button in Airflow's UI whose URL the operator pushes as an XCom."""

    @property
    def xcom_key(self) -> str:
        """The key of the URL's XCom. Airflow 3 reads it; on Airflow 2, ``get_link`` does."""
        return f"_link_{type(self).__name__}"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the URL that the operator pushed; "" disables the button."""
        from airflow.providers.common.compat.sdk import XCom

        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""


class ModelArtsConsoleLink(_StoredLink):
    """The button in Airflow's UI that opens the console."""

    name = "ModelArts console"

    @classmethod
    def persist(cls, context: Context, operator: BaseOperator, task_id: str, settings: Settings) -> None:
        """Push the URL for the UI, as soon as the processing task's id is known.

        :param task_id: the processing task's id.
        :param settings: the connection, from ``hook.get_conn()``.
        """
        if url := console_url(settings, task_id):
            operator.log.info("Processing task '%s' in the console: %s", task_id, url)
            context["ti"].xcom_push(key=cls().xcom_key, value=url)
        elif settings.console_url:
            operator.log.warning(
                "No link to the console: console_url of the connection must be an http or https URL without user and "
                "password; it may hold {region} only if the extra region or the endpoint's host name has a region."
            )


class ModelArtsAuditReportLink(_StoredLink):
    """The button in Airflow's UI that opens the OBS console in the region of an audit's report.

    A report elsewhere has no button: Airflow's webserver serves no files, and a signed link would be a credential.
    """

    name = "Audit report in OBS"

    @classmethod
    def persist(cls, context: Context, report_path: str) -> None:
        """Push the URL for the UI, if the report is in OBS at a public endpoint.

        :param report_path: as the operator's XCom has it.
        """
        parts = urlsplit(report_path)
        if parts.scheme != "obs":
            return
        from airflow_modelarts.hooks import ModelArtsHook

        with ModelArtsHook(parts.username or ModelArtsHook.default_conn_name) as hook:
            url = obs_console_url(hook.get_object_store())
        if url:
            context["ti"].xcom_push(key=cls().xcom_key, value=url)


def _region_and_domain(endpoint: str, wanted: str = "modelarts") -> tuple[str, str]:
    """Split ``{service}.{region}.{domain}``; return empty texts for any other host."""
    service, _, rest = (urlsplit(endpoint).hostname or "").partition(".")
    region, _, domain = rest.partition(".")
    return (region, domain) if service == wanted and domain else ("", "")


def _is_linkable(url: str) -> bool:
    """Return whether a URL is safe as a link: http or https, without a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.username is None
