"""The declared dependencies, the constraints files and the environment held against each other.

This is no audit: it knows no advisories, which need a database from elsewhere. It says that what was tested is what was
declared, so that an audit of a constraints file is an audit of this package.
"""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = [Requirement(text) for text in PROJECT["dependencies"]]
#: Checked and measured with one Airflow only.
WITH_THE_NEWEST = ("benchmark", "lint")
#: Run with two Airflows only, the newest and the oldest.
WITH_TWO = (*WITH_THE_NEWEST, "cluster", "security", "ui")
BETWEEN = ["3.0", "3.1", "3.2"]
PRE_RELEASE = "3.4"
AIRFLOWS = ["3.3", "2.11", *BETWEEN]
#: Whose classes this package derives from, or whose private attributes it sets.
REACHED_INTO = {"aiohttp", "pydantic", "requests", "urllib3"}


def optional(*but: str) -> list[Requirement]:
    extras = {name: texts for name, texts in PROJECT["optional-dependencies"].items() if name not in but}
    found = [Requirement(text) for texts in extras.values() for text in texts]
    return [one for one in found if one.name != PROJECT["name"] and (one.marker is None or one.marker.evaluate())]


def pinned(airflow: str) -> dict[str, Version]:
    lines = (ROOT / f"tests/constraints-airflow-{airflow}.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, _, version in pairs}


@pytest.mark.parametrize(
    ("airflow", "requirement"),
    [
        *(("3.3", requirement) for requirement in [*DECLARED, *optional()]),
        *(("2.11", requirement) for requirement in [*DECLARED, *optional(*WITH_THE_NEWEST)]),
        *(
            (airflow, requirement)
            for airflow in [*BETWEEN, PRE_RELEASE]
            for requirement in [*DECLARED, *optional(*WITH_TWO)]
        ),
    ],
    ids=str,
)
def test_a_declared_dependency_is_pinned_within_its_bounds(airflow: str, requirement: Requirement) -> None:
    version = pinned(airflow).get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is declared, and not in the constraints"
    assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is pinned to {version}"


@pytest.mark.parametrize("requirement", [*DECLARED, *optional()], ids=str)
def test_a_declared_dependency_has_a_lower_bound(requirement: Requirement) -> None:
    # Without one a resolver may take a version that nobody has tried.
    operators = {specifier.operator for specifier in requirement.specifier}
    assert ">=" in operators or requirement.name == "types-requests"


@pytest.mark.parametrize("requirement", [*DECLARED, *optional()], ids=str)
def test_only_libraries_with_used_internals_have_an_upper_bound(requirement: Requirement) -> None:
    # Any other upper bound only fights with Airflow's.
    newest = pinned("3.3")[canonicalize_name(requirement.name)]
    upper = [str(specifier) for specifier in requirement.specifier if specifier.operator != ">="]
    assert upper == ([f"<{newest.major + 1}"] if requirement.name in REACHED_INTO else [])


@pytest.mark.parametrize(
    ("name", "version"), [("apache-airflow-providers-common-compat", "1.19.0"), ("apache-airflow", "2.11.0")]
)
def test_what_airflows_own_constraints_of_3_3_hold_is_accepted(name: str, version: str) -> None:
    (requirement,) = [one for one in DECLARED if one.name == name]
    assert requirement.specifier.contains(version)


def test_aiohttp_is_as_new_as_airflows_own_providers_require() -> None:
    (requirement,) = [one for one in DECLARED if one.name == "aiohttp"]
    assert not requirement.specifier.contains("3.13.5"), "it has published advisories"


@pytest.mark.parametrize("airflow", AIRFLOWS)
def test_nothing_declared_is_pinned_to_a_pre_release(airflow: str) -> None:
    names = {canonicalize_name(requirement.name) for requirement in [*DECLARED, *optional()]}
    assert [name for name, version in pinned(airflow).items() if name in names and version.is_prerelease] == []


@pytest.mark.parametrize("requirement", DECLARED, ids=str)
def test_a_dependency_comes_from_an_index_alone(requirement: Requirement) -> None:
    assert requirement.url is None


def test_pip_check_finds_no_conflict() -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if "No module named pip" in finished.stderr:
        pytest.skip("this environment has no pip to check it with")  # made by uv; README's have pip, so it runs there
    assert finished.returncode == 0, finished.stdout
