"""The link to the console: its URL, and the XCom that holds it."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.links import ModelArtsAuditReportLink, ModelArtsConsoleLink, console_url, endpoint_region
from airflow_modelarts.operators import ModelArtsDescribeProcessorTaskOperator
from airflow_modelarts.transport import Settings
from tests.support.fixtures import PROJECT_ID
from tests.support.task_instances import TaskInstance


@pytest.fixture
def settings(set_connection: Callable[..., None]) -> Callable[..., Settings]:
    def read(host: str = "modelarts.example.com", **extra: Any) -> Settings:
        set_connection(host=host, extra=extra)
        with ModelArtsHook() as hook:
            return hook.get_conn()

    return read


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return what an operator logged; outside of a task, Airflow 3 prints it."""
    caplog.set_level(logging.INFO)
    return lambda: caplog.text + capsys.readouterr().out


def test_an_operator_has_its_link_when_it_is_mapped_too_and_can_be_given_others() -> None:
    arguments = {"task_id": "read", "processor_task_id": "abc"}
    operator = ModelArtsDescribeProcessorTaskOperator(**arguments)
    mapped = ModelArtsDescribeProcessorTaskOperator.partial(task_id="read").expand(processor_task_id=["abc"])
    for one in (operator, mapped):
        assert [type(link) for link in one.operator_extra_links] == [ModelArtsConsoleLink]
    operator.operator_extra_links = (ModelArtsAuditReportLink(),)
    assert [type(link) for link in operator.operator_extra_links] == [ModelArtsAuditReportLink]


def persist(settings: Settings) -> dict[str, Any]:
    task_instance = TaskInstance()
    operator = ModelArtsDescribeProcessorTaskOperator(task_id="read", processor_task_id="abc")
    ModelArtsConsoleLink.persist({"ti": task_instance}, operator, "abc", settings)  # type: ignore[typeddict-item]
    return task_instance.xcoms


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("modelarts.cn-north-4.myhuaweicloud.com", "https://console.huaweicloud.com/modelarts/?region=cn-north-4"),
        (
            "modelarts.ap-southeast-1.myhuaweicloud.com",
            "https://console-intl.huaweicloud.com/modelarts/?region=ap-southeast-1",
        ),
        ("modelarts.eu-west-101.myhuaweicloud.eu", "https://console.eu.huaweicloud.com/modelarts/?region=eu-west-101"),
        ("modelarts.eu-de.otc.t-systems.com", "https://console.otc.t-systems.com/console/?region=eu-de"),
    ],
)
def test_a_public_region_has_its_public_console(settings: Callable[..., Settings], host: str, url: str) -> None:
    assert console_url(settings(host), "abc") == url
    assert endpoint_region(settings(host, region="another")) == host.split(".")[1]


@pytest.mark.parametrize("region", ["eu-de", None])
def test_the_region_of_another_endpoint_is_the_connections(
    settings: Callable[..., Settings], region: str | None
) -> None:
    given = {} if region is None else {"region": region}
    assert endpoint_region(settings("modelarts.somewhere.example.com", **given)) == region


@pytest.mark.parametrize(
    "host", ["modelarts.region-1.cloud.example.com", "gateway.cn-north-4.myhuaweicloud.com", "127.0.0.1:8080"]
)
def test_a_private_installation_has_a_console_only_if_configured(settings: Callable[..., Settings], host: str) -> None:
    assert console_url(settings(host), "abc") is None
    configured = settings(host, console_url="https://console.example.com/modelarts")
    assert console_url(configured, "abc") == "https://console.example.com/modelarts"


def test_a_configured_console_overrides_the_public_one(settings: Callable[..., Settings]) -> None:
    configured = settings("modelarts.eu-de.otc.t-systems.com", console_url="https://console.example.com/")
    assert console_url(configured, "abc") == "https://console.example.com/"


def test_placeholders_are_replaced_and_escaped(settings: Callable[..., Settings]) -> None:
    configured = settings(
        "modelarts.region-1.cloud.example.com",
        console_url="https://console.example.com/{region}/{project_id}/?x={other}#/task/{processor_task_id}",
    )
    assert console_url(configured, "a/b c&d") == (
        f"https://console.example.com/region-1/{PROJECT_ID}/?x={{other}}#/task/a%2Fb%20c%26d"
    )


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("127.0.0.1:8080", "region-7"),
        ("gateway.example.com", "region-7"),
        ("modelarts.example.com", "region-7"),  # its second label looks like one
        ("modelarts.region-1.cloud.example.com", "region-7"),
        ("modelarts.eu-de.otc.t-systems.com", "eu-de"),  # the calls go there, regardless of the extra
    ],
)
def test_the_region_extra_is_used_if_a_host_has_none(settings: Callable[..., Settings], host: str, region: str) -> None:
    configured = settings(host, region="region-7", console_url="https://console.example.com/?region={region}")
    assert console_url(configured, "abc") == f"https://console.example.com/?region={region}"


def test_the_region_of_the_hook_overrides_the_connections(set_connection: Callable[..., None]) -> None:
    set_connection(extra={"region": "region-7", "console_url": "https://console.example.com/{region}"})
    with ModelArtsHook(region="eu-nl") as hook:
        assert console_url(hook.get_conn(), "abc") == "https://console.example.com/eu-nl"


@pytest.mark.parametrize("url", ["https://console.example.com/{}/{{region}}", "https://console.example.com/{x}{y"])
def test_other_braces_are_kept(settings: Callable[..., Settings], url: str) -> None:
    configured = settings("127.0.0.1", region="r/7", console_url=url)
    assert console_url(configured, "abc") == url.replace("{region}", "r%2F7")


def test_an_id_that_looks_like_a_placeholder_is_escaped(settings: Callable[..., Settings]) -> None:
    configured = settings(console_url="https://console.example.com/{processor_task_id}")
    assert console_url(configured, "{region}") == "https://console.example.com/%7Bregion%7D"


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "console.example.com",
        "https://",
        "https://user:pass-word@console.example.com/",
        "https://[console/",
        "https://console.example.com/?region={region}",  # the endpoint 127.0.0.1 has none
    ],
)
def test_an_unusable_console_url_is_logged_without_its_secret(
    settings: Callable[..., Settings], url: str, logged: Callable[[], str]
) -> None:
    configured = settings("127.0.0.1", console_url=url)
    assert persist(configured) == {}
    text = logged()
    assert "console_url of the connection must be" in text
    assert "pass-word" not in text


def test_without_a_console_nothing_is_pushed(settings: Callable[..., Settings], logged: Callable[[], str]) -> None:
    assert persist(settings()) == {}
    assert "console" not in logged()


def test_the_url_is_pushed_as_the_xcom_that_airflow_reads(settings: Callable[..., Settings]) -> None:
    configured = settings(console_url="https://console.example.com/{processor_task_id}")
    assert persist(configured) == {ModelArtsConsoleLink().xcom_key: "https://console.example.com/abc"}


@pytest.mark.parametrize(
    ("path", "extra", "url"),
    [
        (
            "obs://modelarts_default@my-bucket/a.html",
            {"obs_endpoint": "obs.cn-north-4.myhuaweicloud.com"},
            "https://console.huaweicloud.com/obs/?region=cn-north-4",
        ),
        (
            "obs://my-bucket/a.html",
            {"obs_endpoint": "obs.eu-de.otc.t-systems.com"},
            "https://console.otc.t-systems.com/console/?region=eu-de",
        ),
        ("obs://my-bucket/a.html", {"obs_endpoint": "s3.example.com"}, None),
        ("/data/a.html", {}, None),
        ("s3://my-bucket/a.html", {}, None),
    ],
)
def test_the_link_of_a_report_opens_the_console_of_its_region(
    set_connection: Callable[..., None], path: str, extra: dict[str, str], url: str | None
) -> None:
    set_connection(extra=extra)
    task_instance = TaskInstance()
    ModelArtsAuditReportLink.persist({"ti": task_instance}, path)  # type: ignore[typeddict-item]
    assert task_instance.xcoms == ({} if url is None else {"_link_ModelArtsAuditReportLink": url})
