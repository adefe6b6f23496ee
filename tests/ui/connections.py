"""Airflow's connections page: open the form, fill it in, save it, test the connection."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Route

STANDARD, EXTRAS = "Standard Fields", "Extra Fields"


class ConnectionForm:
    """The form of one connection."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.dialog = page.get_by_role("dialog")

    @classmethod
    def add(cls, page: Page, name: str) -> ConnectionForm:
        """Open the form for a new connection of our type."""
        page.goto("/connections")
        page.get_by_role("button", name="Add Connection").click()
        form = cls(page)
        form.dialog.get_by_role("textbox", name="Connection ID").fill(name)
        form.dialog.get_by_role("combobox", name="Connection Type").fill("ModelArts")
        page.get_by_role("option", name="ModelArts", exact=True).click()
        return form

    @classmethod
    def edit(cls, page: Page, name: str) -> ConnectionForm:
        """Open the form for a connection that is there."""
        page.goto("/connections")
        row(page, name).get_by_role("button", name="Edit Connection").click()
        return cls(page)

    def section(self, name: str) -> Locator:
        """Open one of the form's sections, which closes the others, and return it."""
        button = self.dialog.get_by_role("button", name=name, exact=True)
        button.wait_for()
        if button.get_attribute("aria-expanded") != "true":
            button.click()
        section = self.dialog.locator(f"[id='{button.get_attribute('aria-controls')}']")
        section.locator("label").last.wait_for()
        return section

    def standard(self, label: str) -> Locator:
        """Return a field that every connection has."""
        return self.section(STANDARD).get_by_label(label, exact=True)

    def extra(self, label: str) -> Locator:
        """Return the field of an extra. Airflow does not link its label to it."""
        return field(self.section(EXTRAS), label).get_by_role("textbox")

    def fill(self, standard: dict[str, str], extras: dict[str, str]) -> None:
        """Fill in fields by their labels."""
        for label, value in standard.items():
            self.standard(label).fill(value)
        for label, value in extras.items():
            self.extra(label).fill(value)

    def save(self) -> str:
        """Save the connection and return Airflow's message."""
        self.dialog.get_by_role("button", name="Save").click()
        self.dialog.wait_for(state="detached")
        return notification(self.page, "Connection Request Submitted")


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("cell", name=name, exact=True))


def field(section: Locator, label: str) -> Locator:
    """Return the group of a label, its input and its description."""
    return section.get_by_role("group").filter(has=section.page.get_by_text(label, exact=True))


def press_test(page: Page, name: str) -> str:
    """Press "Test Connection" and return Airflow's message, which contains the hook's."""
    page.goto("/connections")
    # These versions refuse the test of any connection without a port with "Bad Request": the page sends 0 where the
    # database has NULL. https://github.com/apache/airflow/pull/73298
    if version("apache-airflow-core") in ("3.3.1", "3.3.2"):
        page.route("**/connections/test", _leave_out_port)
    row(page, name).get_by_role("button", name="Test Connection").click()
    return notification(page, "Test Connection")


def _leave_out_port(route: Route) -> None:
    route.continue_(post_data={key: value for key, value in route.request.post_data_json.items() if key != "port"})


def notification(page: Page, title: str) -> str:
    shown = page.get_by_role("status").filter(has_text=title)
    shown.wait_for()
    return shown.inner_text()
