"""Debian's Chromium, a running Airflow and an emulator for the tests in the browser."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import airflow
import pytest

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT = 60.0
"""Seconds for anything to appear on a page. One or two are usual; a busy machine needs more."""

# The browser connects to this machine only.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def what_is_missing() -> str | None:
    if airflow.__version__.startswith("2."):
        return "Airflow 2 has a different UI"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is missing: install the extra 'ui'"
    if CHROMIUM is None:
        return "chromium is missing: install the package of that name of Debian or Ubuntu"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = what_is_missing()
    for item in items if missing else ():
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorServer]:
    """An emulator whose processing tasks take a second."""
    with EmulatorServer(task_duration=1.0) as server:
        yield server


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A running Airflow that lets its users test connections. It has no connections."""
    with Sandbox(HERE / "dags", environment={"AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for each module: in a session fixture Playwright's event loop would disturb other tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(sandbox: Sandbox, browser: Browser) -> BrowserContext:
    """A browser context for that Airflow."""
    context = browser.new_context(
        base_url=f"http://127.0.0.1:{sandbox.port}",
        locale="en-US",
        viewport={"width": 1280, "height": 1700},
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(TIMEOUT * 1000)
    return context


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for the screenshots: that of the environment variable UI_SCREENSHOTS, or a temporary one."""
    folder = os.environ.get("UI_SCREENSHOTS")
    if not folder:
        return tmp_path_factory.mktemp("screenshots")
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


@pytest.fixture
def page(context: BrowserContext, screenshots: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page for one test. A screenshot shows it at the end, also of a test that fails."""
    page = context.new_page()
    yield page
    page.screenshot(path=screenshots / f"{request.node.name}.png", animations="disabled")
    page.close()


@pytest.fixture
def shoot(page: Page, screenshots: Path, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Take a screenshot during the test."""

    def take(step: str) -> None:
        page.screenshot(path=screenshots / f"{request.node.name}-{step}.png", animations="disabled")

    return take
