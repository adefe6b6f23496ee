"""The provider in Airflow's UI: the connection form, the links, logs and XComs of a run, and the assets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from airflow_modelarts.provider import get_provider_info
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.sandbox import Sandbox
from tests.support.airflow_runs import pushed
from tests.support.waiting import TIMEOUT
from tests.ui.connections import EXTRAS, STANDARD, ConnectionForm, field, press_test, row

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

CONN_FIELDS: dict[str, Any] = get_provider_info()["connection-types"][0]["conn-fields"]
SECRET = "Secret key, password or token"
DAG_ID = "seen_in_the_ui"
CONSOLE = "http://127.0.0.1/console/{project_id}/{processor_task_id}"


def keys_of(emulator: EmulatorServer) -> dict[str, str]:
    return {"Endpoint": emulator.url, "Access key or user": accounts.ACCESS_KEY, SECRET: accounts.SECRET_KEY}


@pytest.fixture(scope="module")
def saved(context: BrowserContext, emulator: EmulatorServer) -> str:
    """Airflow's message after the connection of the DAG was filled in and saved."""
    page = context.new_page()
    form = ConnectionForm.add(page, "modelarts_by_hand")
    form.fill(keys_of(emulator), {"Project ID": accounts.PROJECT_ID, "Console URL": CONSOLE})
    message = form.save()
    page.close()
    return message


@pytest.fixture(scope="module")
def run(sandbox: Sandbox, saved: str) -> tuple[str, dict[tuple[str, str], Any]]:
    """A run that has ended: its path in the UI, and its XComs by task and key."""
    sandbox.wait_for_dags(DAG_ID, timeout=TIMEOUT)
    run_id = sandbox.trigger(DAG_ID)
    assert sandbox.wait(DAG_ID, run_id, timeout=TIMEOUT) == "success"
    return f"/dags/{DAG_ID}/runs/{run_id}", pushed(sandbox, DAG_ID, run_id)


# The form


def test_the_form_labels_the_standard_fields_that_are_used_and_hides_the_others(page: Page) -> None:
    section = ConnectionForm.add(page, "modelarts").section(STANDARD)
    assert labels(section) == ["Description", "Endpoint", "Access key or user", SECRET]
    assert section.get_by_label("Endpoint").get_attribute("placeholder") == "modelarts.eu-de.otc.t-systems.com"


def test_the_form_has_a_field_with_a_description_for_each_extra(page: Page) -> None:
    section = ConnectionForm.add(page, "modelarts").section(EXTRAS)
    assert labels(section) == [about["label"] for about in CONN_FIELDS.values()]
    for about in CONN_FIELDS.values():
        assert about["description"] in field(section, about["label"]).inner_text()


def test_the_form_offers_each_kind_of_authentication_with_the_access_key_as_default(page: Page) -> None:
    section = ConnectionForm.add(page, "modelarts").section(EXTRAS)
    authentication = field(section, CONN_FIELDS["auth"]["label"])
    assert authentication.get_by_text("access_key", exact=True).is_visible()
    authentication.get_by_role("combobox").press("ArrowDown")
    page.get_by_role("option").first.wait_for()
    assert page.get_by_role("option").all_inner_texts() == CONN_FIELDS["auth"]["schema"]["enum"]


def test_the_form_hides_the_input_of_secrets_only(page: Page) -> None:
    form = ConnectionForm.add(page, "modelarts")
    dotted = {name: labels(form.section(name), of=page.locator("input[type=password]")) for name in (STANDARD, EXTRAS)}
    assert dotted == {STANDARD: [SECRET], EXTRAS: ["Security token"]}


# A connection


def test_a_connection_is_saved_and_listed(page: Page, saved: str, emulator: EmulatorServer) -> None:
    assert "Connection has been successfully created" in saved
    page.goto("/connections")
    row(page, "modelarts_by_hand").wait_for()
    cells = row(page, "modelarts_by_hand").get_by_role("cell").all_inner_texts()
    assert cells[1:5] == ["modelarts_by_hand", "modelarts", "", emulator.url]


def test_the_test_of_a_valid_connection_names_the_project(page: Page, saved: str, emulator: EmulatorServer) -> None:
    message = press_test(page, "modelarts_by_hand")
    assert "Test Connection Successful" in message
    assert f"Connected to {emulator.url}: the credentials are valid for project {accounts.PROJECT_ID}." in message


def test_the_test_of_a_connection_with_a_wrong_key_gives_advice(page: Page, emulator: EmulatorServer) -> None:
    form = ConnectionForm.add(page, "wrong_key")
    form.fill({**keys_of(emulator), SECRET: "not-the-key"}, {"Project ID": accounts.PROJECT_ID})
    form.save()
    message = press_test(page, "wrong_key")
    assert "Test Connection Failed" in message
    assert "Check the credentials of the connection" in message
    assert "not-the-key" not in message


def test_the_test_of_a_connection_without_a_project_names_the_extra(page: Page, emulator: EmulatorServer) -> None:
    form = ConnectionForm.add(page, "no_project")
    form.fill(keys_of(emulator), {})
    form.save()
    message = press_test(page, "no_project")
    assert "Test Connection Failed" in message
    assert "project_id is missing" in message


def test_a_temporary_key_works_and_its_secrets_are_not_shown_again(
    page: Page, emulator: EmulatorServer, shoot: Callable[[str], None]
) -> None:
    form = ConnectionForm.add(page, "temporary")
    keys = {"Access key or user": accounts.TEMPORARY_ACCESS_KEY, SECRET: accounts.TEMPORARY_SECRET_KEY}
    extras = {"Project ID": accounts.PROJECT_ID, "Security token": accounts.SECURITY_TOKEN}
    form.fill({"Endpoint": emulator.url, **keys}, extras)
    shoot("filled-in")
    form.save()
    assert "Test Connection Successful" in press_test(page, "temporary")
    form = ConnectionForm.edit(page, "temporary")
    assert form.standard(SECRET).input_value() == "***"
    assert form.extra("Security token").input_value() == "***"
    assert form.extra("Project ID").input_value() == accounts.PROJECT_ID


# A run


@pytest.mark.parametrize("task_id", ["analyse", "clean"])
def test_a_task_links_to_its_processing_task_in_the_console(
    page: Page, run: tuple[str, dict[tuple[str, str], Any]], task_id: str
) -> None:
    path, xcoms = run
    page.goto(f"{path}/tasks/{task_id}")
    page.get_by_role("link", name="Details").click()
    link = page.get_by_role("link", name="ModelArts console")
    link.wait_for()
    processor_task_id = xcoms[task_id, "processor_task_id"]
    assert link.get_attribute("href") == f"http://127.0.0.1/console/{accounts.PROJECT_ID}/{processor_task_id}"


@pytest.mark.parametrize(
    ("task_id", "keys"),
    [
        ("analyse", {"return_value", "processor_task_id", "result", "work_path"}),
        ("clean", {"return_value", "processor_task_id", "version", "work_path"}),
    ],
    ids=["analyse", "clean"],
)
def test_a_task_shows_its_xcoms(
    page: Page, run: tuple[str, dict[tuple[str, str], Any]], task_id: str, keys: set[str]
) -> None:
    path, xcoms = run
    page.goto(f"{path}/tasks/{task_id}")
    page.get_by_role("link", name="Storage").click()
    page.get_by_role("link", name="XCom").click()
    for key in sorted(keys):
        assert shown_value(row(page, key)) == xcoms[task_id, key]
    page.get_by_role("button", name="Expand all").click()
    row(page, "work_path").get_by_text(f'"obs://my-bucket/{task_id}/"').wait_for()


def test_a_task_shows_its_log_without_a_secret(page: Page, run: tuple[str, dict[tuple[str, str], Any]]) -> None:
    path, xcoms = run
    page.goto(f"{path}/tasks/clean")
    page.get_by_text(f"Processing task '{xcoms['clean', 'processor_task_id']}' is completed.").wait_for()
    assert accounts.SECRET_KEY not in page.content()


# Assets


def test_an_asset_in_obs_is_listed_with_its_producer(page: Page, run: tuple[str, dict[tuple[str, str], Any]]) -> None:
    page.goto("/assets")
    shown = row(page, "obs://my-bucket/clean/")
    shown.wait_for()
    assert shown.get_by_role("button", name="1 Task").is_visible()


def test_the_page_of_an_asset_shows_the_event_with_the_processing_task(
    page: Page, run: tuple[str, dict[tuple[str, str], Any]]
) -> None:
    path, xcoms = run
    page.goto("/assets")
    page.get_by_role("link", name="obs://my-bucket/clean/").click()
    page.get_by_role("heading", name="1 Asset Event").wait_for()
    source = page.get_by_role("link", name=DAG_ID).and_(page.locator(f"[href$='{path}/tasks/clean']"))
    source.wait_for()
    extra = copied(page.get_by_role("button", name="Copy to clipboard"))
    assert extra["task_id"] == xcoms["clean", "processor_task_id"]
    assert extra["status_name"] == "completed"
    assert extra["uri"] == "obs://my-bucket/clean"


def labels(section: Locator, of: Locator | None = None) -> list[str]:
    """Return the labels of the fields in a section of the form, or of those that contain ``of``."""
    groups = section.get_by_role("group")
    return (groups.filter(has=of) if of else groups).locator("label").all_inner_texts()


def shown_value(shown: Locator) -> Any:
    """Return the value of an XCom: text, or JSON in an editor. The page renders only the visible part of JSON."""
    shown.get_by_role("button", name="Copy to clipboard").wait_for()
    if shown.get_by_role("code").count():
        return copied(shown.get_by_role("button", name="Copy to clipboard"))
    return shown.get_by_role("paragraph").inner_text()


def copied(button: Locator) -> Any:
    button.click()
    return json.loads(button.page.evaluate("navigator.clipboard.readText()"))
