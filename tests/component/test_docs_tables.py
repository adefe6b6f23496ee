"""What README.md and docs/ say in tables, links and messages is what the code says."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import requests

from airflow_modelarts import operators
from airflow_modelarts.api import errors
from airflow_modelarts.api.statuses import ProcessorTaskStatus
from airflow_modelarts.audit import AuditRules
from airflow_modelarts.connection.fields import AUTH_KINDS, EXTRAS, STANDARD_FIELDS
from airflow_modelarts.hooks import ModelArtsAsyncHook, ModelArtsHook, RetryPolicy
from airflow_modelarts.operators import small_files
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.triggers import ProcessorTaskEventTrigger
from tests.support.documents import PAGES, ROOT, code, table
from tests.support.task_instances import TaskInstance

PACKAGE = ROOT / "airflow_modelarts"
MARKDOWN = {**PAGES, "CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text()}
WITHOUT_CODE = {page: re.sub(r"(?ms)^```.*?^```", "", text) for page, text in MARKDOWN.items()}
LINKS = [
    (page, target)
    for page, text in WITHOUT_CODE.items()
    for target in re.findall(r"\]\(([^)\s]+)\)", text)
    if not target.startswith("https://")
]


def openapi(emulator: EmulatorServer) -> dict[str, Any]:
    described: dict[str, Any] = requests.get(f"{emulator.url}/openapi.json", timeout=60).json()
    return described


# Links and pictures


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_a_link_leads_to_a_file_and_a_heading(page: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
    assert file.exists()
    assert file.is_relative_to(ROOT)
    if anchor:
        assert anchor in anchors(MARKDOWN[file.relative_to(ROOT).as_posix()])


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as GitHub and GitLab make them."""
    headings = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {target.partition("#")[0] for page, target in LINKS if page == "README.md"}
    assert {page for page in PAGES if page.startswith("docs/")} - linked == {"docs/package-index.md"}


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) < 250


def test_the_pictures_are_small_and_used() -> None:
    pictures = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "docs" / "images").iterdir()}
    assert {target for page, target in LINKS if page == "README.md" and "/images/" in target} == set(pictures)
    for path in pictures.values():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 150_000


def test_every_page_opens_with_what_its_reader_can_do() -> None:
    for page, text in PAGES.items():
        if page.startswith("docs/") and page != "docs/package-index.md":
            assert re.match(r"# .+\n\nAfter reading this page you (can|know) ", text), page


def test_the_page_for_the_package_index_has_no_relative_link() -> None:
    page = "docs/package-index.md"
    assert [target for linking, target in LINKS if linking == page] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["readme"] == page


def test_the_constraints_of_airflow_are_named_where_one_installs() -> None:
    for page in ("README.md", "docs/package-index.md"):
        text = " ".join(PAGES[page].split())
        install = text.index("pip install .") if page == "README.md" else 0
        assert "constraints that it publishes](https://airflow.apache.org/" in text[install:], page


# The connection


def test_the_fault_of_airflows_test_button_is_named_where_one_connects() -> None:
    (section,) = [text for text in PAGES["docs/connect.md"].split("\n## ") if text.startswith("Test it\n")]
    assert re.search(r'On Airflow 3\.3\.1 and\s3\.3\.2 that button answers "Bad Request"', section)


def test_the_connections_fields_are_those_of_the_code() -> None:
    declared = [
        *([f"`{name}`", field.label, field.help] for name, field in STANDARD_FIELDS.items()),
        *([f"extra `{name}`", field.label, field.help] for name, field in EXTRAS.items()),
    ]
    assert table("docs/connect.md", "field") == declared


def test_the_kinds_of_credentials_are_those_of_the_form() -> None:
    assert [code(row[0]) for row in table("docs/connect.md", "`auth`")] == list(AUTH_KINDS)


# Waiting and running


def test_the_statuses_are_those_of_the_api() -> None:
    rows = [(int(row[0]), row[1]) for row in table("docs/wait.md", "number")]
    assert rows == [(status.value, status.name.lower()) for status in ProcessorTaskStatus]


def test_the_event_triggers_arguments_and_defaults_are_its_own() -> None:
    rows = table("docs/react.md", "argument")
    arguments = ProcessorTaskEventTrigger().serialize()[1]
    assert [code(row[0]) for row in rows] == list(arguments)
    defaults = {code(row[0]): row[2] for row in rows}
    assert defaults["workspace_id"] == f"`{arguments['workspace_id']}`"
    assert float(defaults["poll_interval"]) == arguments["poll_interval"]


def test_the_xcoms_are_those_that_the_operators_push(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_modelarts.operators.base.TAKES_NONE", True)  # Airflow 3.0 gets no XCom that is None
    instance = TaskInstance()
    context: Any = {"ti": instance}
    create = operators.ModelArtsCreateProcessorTaskOperator(
        task_id="run",
        name="documented",
        template={"id": "sys_data_validation"},
        inputs=[{"type": "OBS", "source": "obs://my-bucket/"}],
        poll_interval=0.02,
    )
    task_id = create.execute(context)["task_id"]
    again = operators.ModelArtsCreateProcessorTaskVersionOperator(
        task_id="run", processor_task_id=task_id, poll_interval=0.02
    )
    again.execute(context)
    rows = {code(row[0]): row[1] for row in table("docs/run.md", "XCom")}
    own = {key for key in instance.xcoms if not key.startswith(("_link", "modelarts_"))}
    assert set(rows) == own | {"return_value"}
    for field in ("task_version_id", "version_name", "status", "status_name", "add_sample_count"):
        assert field in instance.xcoms["version"]
        assert field.removesuffix("_sample_count") in rows["version"]


# The audit


def test_the_audits_rules_and_defaults_are_those_of_the_class() -> None:
    rows = {code(row[0]): code(row[1]) for row in table("docs/audit.md", "field of `AuditRules`")}
    assert rows == {field.name: repr(field.default) for field in dataclasses.fields(AuditRules)}


# The hook


def test_the_hooks_methods_are_the_operations() -> None:
    rows = {row[0]: code(row[1]) for row in table("docs/hook.md", "operation")}
    for operation, method in rows.items():
        assert operation == "".join(word.capitalize() for word in method.split("_"))
    for hook in (ModelArtsHook, ModelArtsAsyncHook):
        assert sorted(rows.values()) == sorted(name for name in dir(hook) if "_processor_task" in name)


def test_the_kinds_of_errors_are_those_of_the_module() -> None:
    kinds = {
        kind.__name__: "yes" if kind.temporary else "no"
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ModelArtsError) and kind is not errors.ModelArtsError
    }
    assert {code(row[0]): row[1] for row in table("docs/hook.md", "error")} == kinds


# The command and the emulator


def test_the_options_of_run_are_those_of_the_command() -> None:
    command = [sys.executable, "-m", "airflow_modelarts.testing.cli", "run", "--help"]
    shown = subprocess.check_output(command, text=True, env={**os.environ, "COLUMNS": "200"})
    options = set(re.findall(r"(?m)^  (?:-h, )?(--[a-z-]+)", shown)) - {"--help"}
    assert {code(row[0]) for row in table("docs/testing.md", "option")} == options


def test_the_limits_of_files_as_an_xcom_are_those_of_the_code() -> None:
    rows = dict(row[:2] for row in table("docs/files.md", "subject"))
    limits = (small_files.MAX_FILES, small_files.MAX_BYTES, small_files.MAX_LISTED)
    assert [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", rows["limits"])] == [*limits]
    assert f"{small_files.MAX_NAMED} are named" in rows["many such files"]


def test_the_control_apis_paths_are_those_of_the_emulator(emulator: EmulatorServer) -> None:
    served = {
        path.removeprefix("/emulator"): {method.upper() for method in methods}
        for path, methods in openapi(emulator)["paths"].items()
        if path.startswith("/emulator/")
    }
    rows = table("docs/testing.md", "path below `/emulator`")
    assert {code(row[0]): set(row[1].split(", ")) for row in rows} == served


def test_the_settings_and_their_defaults_are_those_of_the_emulator(emulator: EmulatorServer) -> None:
    settings = requests.get(f"{emulator.url}/emulator/settings", timeout=60).json()
    settings["task_duration"] = 10.0  # the fixture's emulator has another
    rows = {code(row[0]): code(row[1]) for row in table("docs/testing.md", "setting")}
    assert rows == {name: str(value) for name, value in settings.items()}


def test_the_kinds_of_faults_are_those_of_the_emulator(emulator: EmulatorServer) -> None:
    kinds = {
        kind
        for schema in openapi(emulator)["components"]["schemas"].values()
        for kind in kinds_in(schema.get("properties", {}).get("kind", {}))
    }
    assert {code(row[0]) for row in table("docs/testing.md", "kind")} == kinds


def kinds_in(schema: dict[str, Any]) -> list[str]:
    return [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]


# Versions


def test_the_tested_versions_are_those_that_the_gate_runs() -> None:
    steps = subprocess.check_output([ROOT / ".ci/run", "--list"], text=True)
    ran = {(airflow, python) for airflow, python in re.findall(r"(?m)^(\d+\.\d+)-py(\d+\.\d+)\b", steps)}
    documented: set[tuple[str, str]] = set()
    for airflows, pythons, _ in table("docs/compatibility.md", "Airflow"):
        for airflow in re.findall(r"\d+\.\d+\.\d+\w*", airflows):
            constraints = ROOT / f"tests/constraints-airflow-{'.'.join(airflow.split('.')[:2])}.txt"
            assert f"apache-airflow=={airflow}\n" in constraints.read_text()
            documented |= {(".".join(airflow.split(".")[:2]), python) for python in pythons.split(", ")}
    assert documented - {("3.3", "3.11")} == ran, "the quick and the long suites run on 3.3 with 3.11"


# Files


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/contributing.md"])
def test_the_files_that_a_page_names_exist(page: str) -> None:
    named = set(re.findall(r"`((?:\w+/)*\w+(?:\.py|/))`", PAGES[page]))
    assert len(named) > 10
    assert [path for path in sorted(named) if not ((ROOT / path).exists() or (PACKAGE / path).exists())] == []


# Messages


def texts() -> Iterator[str]:
    """Yield the literals of the package, with an ellipsis for each value that a message quotes."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)  # type: ignore[misc]  # parts of an f-string are texts
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value.replace("%s", "…")


def messages() -> Iterator[str]:
    for line in PAGES["docs/troubleshooting.md"].splitlines():
        if line.startswith("| `"):
            yield from re.findall(r"`([^`]+)`", line.split(" | ")[0])


def test_every_message_in_troubleshooting_is_one_of_the_package() -> None:
    known = list(texts())

    def is_known(message: str) -> bool:
        pattern = re.compile(".*".join(map(re.escape, message.split("…"))), re.DOTALL)
        return any(pattern.search(text) for text in known)

    assert [message for message in messages() if not is_known(message)] == []


def test_no_message_in_troubleshooting_is_explained_twice() -> None:
    listed = sorted(messages())
    assert len(listed) > 40
    assert all(one != other for one, other in pairwise(listed))


def meanings() -> list[tuple[str, str]]:
    """Return the messages in troubleshooting that name an error code of the service, and the code."""
    rows = [line for line in PAGES["docs/troubleshooting.md"].splitlines() if line.startswith("| `")]
    return re.findall(r"`([^`]+)` \((\w+\.\d+)\)", "\n".join(rows))


@pytest.mark.parametrize(("meaning", "error_code"), meanings())
def test_an_error_code_in_the_docs_has_its_meaning(emulator: EmulatorServer, meaning: str, error_code: str) -> None:
    emulator.faults.refuse(error_code)
    hook = ModelArtsHook(retries=RetryPolicy(attempts=1, throttled_attempts=1))
    with hook, pytest.raises(errors.ModelArtsError) as raised:
        hook.describe_processor_task("AcYfsdfhGyrWL5TtahH")
    assert raised.value.error_code == error_code
    assert f" failed: {meaning}" in str(raised.value)
