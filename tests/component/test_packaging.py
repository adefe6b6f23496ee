"""The wheel, the sdist, the constraints files and the version in the changelog."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from airflow_modelarts import __version__
from tests.support.waiting import TIMEOUT

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return folder


def test_the_wheel_contains_the_package_only(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "airflow_modelarts").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == sources
    assert "airflow_modelarts/py.typed" in packed
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_metadata_of_the_wheel_are_complete(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (dist_info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = message_from_bytes(archive.read(f"{dist_info}/METADATA"))
        entry_points = archive.read(f"{dist_info}/entry_points.txt").decode()
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or []) >= {"emulator", "test"}
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "docs/package-index.md").read_text()
    assert "airflow-modelarts = airflow_modelarts.testing.cli:main" in entry_points
    assert "[apache_airflow_provider]" in entry_points


def test_the_sdist_contains_what_its_build_and_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "airflow_modelarts/py.typed"} <= names
    assert {"docs/run.md", "docs/images/audit.png"} <= names
    assert {"dags_examples/feature_analysis.py", "tests/unit/conftest.py", "tests/constraints-airflow-3.3.txt"} <= names
    assert {"airflow_modelarts/audit/page.html.jinja", "airflow_modelarts/audit/page.css"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(".venv")]


@pytest.mark.parametrize("version", ["2.11", "3.0", "3.1", "3.2", "3.3", "3.4"])
def test_a_constraints_file_contains_names_and_versions_only(version: str) -> None:
    lines = (ROOT / f"tests/constraints-airflow-{version}.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", line)] == []
    assert any(line.startswith(f"apache-airflow=={version}.") for line in lines)


def test_the_gate_has_a_step_for_each_constraints_file() -> None:
    versions = {
        file.stem.removeprefix("constraints-airflow-") for file in (ROOT / "tests").glob("constraints-airflow-*.txt")
    }
    steps = subprocess.check_output([ROOT / ".ci/run", "--list"], text=True).split()
    assert {step.partition("-py")[0] for step in steps if "-py" in step} == versions


def test_the_changelog_has_a_section_for_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
