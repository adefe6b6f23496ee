"""The audit report in a browser: on a desktop, on a phone, on paper, and for a screen reader. Needs no Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.audit import AuditRules, Window, audit, milliseconds
from airflow_modelarts.audit.change import Previous
from airflow_modelarts.audit.html import page as page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

START = datetime(2026, 11, 23, tzinfo=UTC)
DAY = Window(START, START + timedelta(days=1))
RULES = AuditRules(
    failure_rate_allowed=0.1,
    stopped_allowed=3,
    longest_seconds=60,
    allowed_output_prefixes=["obs://a-bucket/allowed/"],
    by_template={"sys_data_of_template_3": {"failures_allowed": 2}},
)
THE_DAY_BEFORE = Previous(
    start=START - timedelta(days=1), end=START, made_at=START, total=180, failed=44, seconds=50_000
)
#: The rules of axe-core for WCAG 2.0, 2.1 and 2.2 at the levels A and AA.
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def tasks() -> Iterator[ProcessorTask]:
    """Yield two hundred tasks of every status and many templates, with long texts."""
    for number in range(200):
        yield ProcessorTask.model_validate(
            {
                "task_id": f"task{number:028}",
                "name": "a-name-of-many-words-" * 4,
                "status": number % 5,
                "error_msg": f"cannot read obs://a-bucket/{'a-very-long-name' * 10}.jpg" if number % 5 == 3 else None,
                "template": {"id": f"sys_data_of_template_{number % 9}"},
                "create_time": milliseconds(START + number * timedelta(minutes=7)),
                "duration_seconds": None if number == 3 else 3 * number,
                "work_path": {"type": "OBS", "path": f"obs://another-bucket/{'a-folder/' * 20}"},
            }
        )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("audit") / "audit.html", tasks())


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every kind of section and folded rows, on which axe-core takes seconds and not minutes."""
    return write(tmp_path_factory.mktemp("audit") / "small.html", islice(tasks(), 15))


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("audit") / "empty.html", iter(()))


def write(file: Path, tasks: Iterator[ProcessorTask]) -> Path:
    report = audit(
        tasks,
        window=DAY,
        now=DAY.end + timedelta(hours=1),
        rules=RULES,
        console_url=lambda task_id: f"https://console.example.com/tasks/{task_id}",
    )
    facts = {"Project": "0123456789abcdef" * 2, "Region": "eu-de", "Run": "scheduled__2026-11-24T00:00:00+00:00"}
    file.write_text(page_of(replace(report, previous=THE_DAY_BEFORE), facts), encoding="utf-8")
    return file


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": request.param, "height": 844})
    yield page
    page.close()


def test_every_chart_is_visible_and_nothing_is_wider_than_the_screen(page: Page, file: Path, screenshots: Path) -> None:
    page.goto(file.as_uri())
    charts = page.locator(":not(.absent) > svg").all()
    assert len(charts) > 10
    for chart in charts:
        box = chart.bounding_box()
        assert chart.is_visible()
        assert box is not None
        assert box["width"] > 0
    width = page.viewport_size["width"] if page.viewport_size else 0
    page.screenshot(path=screenshots / f"audit-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_cells_without_a_value_are_hidden_on_a_phone(page: Page, file: Path) -> None:
    page.goto(file.as_uri())
    failure = page.locator("#failed tbody tr").first
    is_phone = page.viewport_size is not None and page.viewport_size["width"] == 390
    assert failure.get_by_role("cell", name="-", exact=True).is_visible() is not is_phone
    assert failure.get_by_text("cannot read").is_visible()


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("which", "media", "scheme", "width"),
    [
        ("small_file", "screen", "light", 1280),
        ("small_file", "screen", "dark", 1280),
        ("small_file", "screen", "light", 390),
        ("small_file", "print", "dark", 794),  # A4
        ("empty_file", "screen", "light", 1280),
    ],
)
def test_axe_finds_nothing_of_level_a_or_aa(
    browser: Browser, axe: str, request: pytest.FixtureRequest, which: str, media: Any, scheme: Any, width: int
) -> None:
    # The page's policy forbids scripts, also that of axe-core.
    page = browser.new_page(bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 1123})
    page.emulate_media(media=media)
    page.goto(request.getfixturevalue(which).as_uri())
    for summary in page.locator("summary:visible").all():
        summary.click()  # axe-core leaves out what is hidden
    page.evaluate(axe)
    found = page.evaluate("tags => axe.run(document, {runOnly: tags})", WCAG)
    page.close()
    assert len(found["passes"]) > 10
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


def test_rows_are_folded_on_a_screen_and_complete_on_paper(browser: Browser, file: Path) -> None:
    page = browser.new_page(viewport={"width": 794, "height": 1123})
    page.goto(file.as_uri())
    rows = page.locator("#failed tbody tr")
    assert (rows.count(), rows.locator("visible=true").count()) == (40, 6)
    page.locator("#failed summary").click()
    assert rows.locator("visible=true").count() == 40
    page.locator("#failed summary").click()
    page.emulate_media(media="print")
    assert rows.locator("visible=true").count() == 40
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    page.close()


def test_a_printed_page_has_few_sheets(browser: Browser, small_file: Path, screenshots: Path) -> None:
    page = browser.new_page()
    page.goto(small_file.as_uri())
    page.pdf(path=screenshots / "audit.pdf", prefer_css_page_size=True)
    page.close()
    sheets = (screenshots / "audit.pdf").read_bytes().count(b"/Type /Page\n")
    assert 2 < sheets < 15


def test_a_screen_reader_finds_the_headers_of_a_table_on_a_phone_too(page: Page, file: Path) -> None:
    page.goto(file.as_uri())
    table = page.get_by_role("table", name="Failures 40")
    headers = [header.inner_text() for header in table.get_by_role("columnheader").all()]
    assert headers == ["Task", "Template", "Status", "Created (UTC)", "Took", "Message"]
    assert table.get_by_role("rowheader").count() == 6
