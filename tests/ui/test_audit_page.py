"""The page of an audit as a browser shows it, on a desk and on a phone. It needs no Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.audit import AuditRules, Window, audit, milliseconds
from airflow_modelarts.audit.html import page as page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

START = datetime(2026, 11, 23, tzinfo=UTC)
DAY = Window(START, START + timedelta(days=1))
RULES = AuditRules(longest_seconds=60, allowed_output_prefixes=["obs://a-bucket/allowed/"])


def tasks() -> Iterator[ProcessorTask]:
    """Two hundred of every status and of many templates, with what takes much room."""
    for number in range(200):
        yield ProcessorTask.model_validate(
            {
                "task_id": f"task{number:028}",
                "name": "a-name-of-many-words-" * 4,
                "status": number % 5,
                "error_msg": f"cannot read obs://a-bucket/{'a-very-long-name' * 10}.jpg" if number % 5 == 3 else None,
                "template": {"id": f"sys_data_of_template_{number % 9}"},
                "create_time": milliseconds(START + number * timedelta(minutes=7)),
                "duration_seconds": 3 * number,
                "work_path": {"type": "OBS", "path": f"obs://another-bucket/{'a-folder/' * 20}"},
            }
        )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    report = audit(tasks(), window=DAY, now=DAY.end + timedelta(hours=1), rules=RULES)
    file = tmp_path_factory.mktemp("audit") / "audit.html"
    file.write_text(page_of(report, {"Project": "0123456789abcdef" * 2}), encoding="utf-8")
    return file


@pytest.fixture(params=[1280, 390], ids=["desk", "phone"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": request.param, "height": 844})
    yield page
    page.close()


def test_every_chart_is_seen_and_nothing_is_wider_than_the_screen(page: Page, file: Path, screenshots: Path) -> None:
    page.goto(file.as_uri())
    charts = page.locator("svg").all()
    assert len(charts) > 10
    for chart in charts:
        box = chart.bounding_box()
        assert chart.is_header_safe()
        assert box is not None
        assert box["width"] > 0
    width = page.viewport_size["width"] if page.viewport_size else 0
    page.screenshot(path=screenshots / f"audit-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
