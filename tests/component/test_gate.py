"""The gate's script with steps for the test: its exit status, its messages, and that it leaves no files."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import ROOT, chain_to_airflow, modules

TABLE = """\
fast   60 what only runs by name
good   60 what passes
bad    60 what fails
lacks  60 what the machine cannot do
slow    1 what hangs
killed 60 what is killed with the process that waits for it
flaky  60 what passes at the second try
broken 60 what fails twice
absent 60 what cannot be imported
quick  60 what passes at the second try of the quick tests
"""
#: What Airflow these have does not matter. Two are about the emulator's answers, and only send requests by hooks. Two
#: are about polls on a virtual clock, with a state store of their own. Of Airflow they have the base class of triggers.
ANY_AIRFLOW = {"test_answers_alike.py", "test_object_store.py", "test_event_history.py", "test_event_watchers.py"}
STEPS = """\
step_good() { echo "it went well"; }
step_bad() { false; }
step_lacks() { return $lacking; }
step_slow() { sleep 60 & sleep 60; }
# Its parent is timeout. The parent of that waits for it and would write its summary line.
step_killed() { kill -KILL "$(cut -d' ' -f4 "/proc/$PPID/stat")"; }
step_flaky() { twice tests/test_flaky.py; }
step_broken() { twice tests/test_broken.py; }
step_absent() { twice tests/test_absent.py; }
step_quick() { mkdir tests/unit tests/component && cp tests/test_flaky.py tests/unit && quick_tests twice; }
"""
TESTS = {
    "flaky": """\
from pathlib import Path

def test_passes(): pass

def test_fails_once():
    print("a test of", Path.cwd())
    tried = Path("tried")
    try:
        assert tried.exists()
    finally:
        tried.touch()
""",
    "broken": """\
def test_fails(): raise RuntimeError("in vain")
""",
    "absent": """\
import no_such_module
""",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    (folder / ".ci").mkdir(parents=True)
    (folder / "README.md").write_bytes((ROOT / "README.md").read_bytes())
    script = (ROOT / ".ci/run").read_text()
    script, replaced = re.subn(r"(?s)(?<=<<'END'\n).*?(?=END\n)", TABLE, script, count=1)
    assert replaced
    assert script.count("# The steps\n") == 1
    (folder / ".ci/run").write_text(script.replace("# The steps\n", STEPS))
    (folder / ".ci/run").chmod(0o755)
    subprocess.check_call(["git", "init", "-q", folder])
    (folder / "tests").mkdir()
    for name, text in TESTS.items():
        (folder / "tests" / f"test_{name}.py").write_text(text)
    (folder / ".venv/bin").mkdir(parents=True)
    # Not a link: Python 3.12 does not find the packages of the environment that a link leads to.
    python = folder / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """Return an environment without uv and without virtual environments, which would take long."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text(f'#!/bin/sh\n[ "$1" = -m ] && exit 1\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path / "temporary"),
    }


def gate(clone: Path, machine: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [clone / ".ci/run", *arguments], env=machine, capture_output=True, text=True, timeout=400, check=False
    )


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["good"], 0),
        (["good", "lacks"], 0),
        (["good", "bad"], 1),
        (["bad", "good"], 1),
        (["slow"], 1),
        (["good", "killed"], 1),
        ([], 1),
    ],
)
def test_the_gate_passes_if_no_step_fails_and_leaves_no_files(
    clone: Path, machine: dict[str, str], steps: list[str], expected: int
) -> None:
    finished = gate(clone, machine, *steps)
    assert finished.returncode == expected, finished
    summary = finished.stdout.partition("=== summary\n")[2].partition("\n\n")[0].splitlines()
    assert len(summary) == len(steps or TABLE.splitlines()[1:]), "all but fast by default"
    assert any(line.startswith("FAILED") for line in summary) == bool(expected)
    assert list(Path(machine["TMPDIR"]).iterdir()) == []


def test_a_version_step_whose_python_the_machine_lacks_says_so_and_is_no_failure(
    clone: Path, machine: dict[str, str]
) -> None:
    script = (clone / ".ci/run").read_text().replace("bad    60 what fails", "3.1-py9.9 60 what lacks its Python")
    (clone / ".ci/run").write_text(script)
    finished = gate(clone, machine, "3.1-py9.9")
    assert finished.returncode == 0, finished
    assert "there is no Python 9.9 on this machine" in finished.stdout


def test_a_step_that_hangs_is_killed_and_named(clone: Path, machine: dict[str, str]) -> None:
    assert "what hangs, ended after 1 s" in gate(clone, machine, "slow").stdout


@pytest.mark.parametrize("name", ["nope", ".*", "go.d", "--help", ""])
def test_an_unknown_step_is_named(clone: Path, machine: dict[str, str], name: str) -> None:
    finished = gate(clone, machine, name)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == f"there is no step '{name}': .ci/run --list names them\n"


def test_an_unsuitable_python_is_named(clone: Path, machine: dict[str, str]) -> None:
    python = Path(machine["PATH"].partition(":")[0]) / "python3"
    python.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2\nexit 1\n')
    finished = gate(clone, machine, "good")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "python3 is Python 3.9.2: Python 3.11 or newer with venv is needed" in finished.stderr


def test_a_folder_that_is_not_a_clone_is_named(clone: Path, machine: dict[str, str]) -> None:
    (clone / ".git").rename(clone / "git")
    finished = gate(clone, {**machine, "GIT_CEILING_DIRECTORIES": str(clone.parent)}, "good")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert f"{clone} is no git clone" in finished.stderr


def test_a_test_that_fails_once_has_a_second_try_and_is_named(clone: Path, machine: dict[str, str]) -> None:
    finished = gate(clone, machine, "flaky", "broken", "absent")
    _, _, summary = finished.stdout.partition("=== summary\n")
    assert finished.returncode == 1
    assert finished.stdout.count("=== second try") == 2, "a file that cannot be imported has none"
    flaky, broken, absent, *failures = summary.splitlines()
    assert flaky.startswith("passed")
    assert flaky.endswith("second try, passed at the second try: tests/test_flaky.py::test_fails_once")
    assert broken.startswith("FAILED")
    assert absent.startswith("FAILED")
    assert "second try" not in broken + absent
    found = [line.partition(" - ")[0] for line in failures]
    assert found == [
        "",
        "=== what failed in flaky",
        "FAILED tests/test_flaky.py::test_fails_once",
        "",
        "=== what failed in broken",
        *["FAILED tests/test_broken.py::test_fails"] * 2,
        "",
        "=== what failed in absent",
        "ERROR tests/test_absent.py",
    ]


def test_a_quick_test_that_fails_once_has_a_second_try_and_is_named(clone: Path, machine: dict[str, str]) -> None:
    finished = gate(clone, machine | {"PYTEST_ADDOPTS": "-p xdist.plugin -p xdist.looponfail"}, "quick")
    assert finished.returncode == 0, finished
    assert "passed at the second try: tests/unit/test_flaky.py::test_fails_once" in finished.stdout


@pytest.mark.parametrize("name", ["fast", "good"])
def test_the_end_of_a_failed_step_without_tests_follows_the_summary(
    clone: Path, machine: dict[str, str], name: str
) -> None:
    script = (clone / ".ci/run").read_text()
    step = f"step_{name}() {{ seq 30; false; }}\n\n# Running them."
    (clone / ".ci/run").write_text(script.replace("# Running them.", step, 1))
    _, _, end = gate(clone, machine, name).stdout.partition(f"=== what failed in {name}\n")
    assert end.split() == [str(number) for number in range(11, 31)]


def test_the_steps_store_bytecode_whatever_the_environment_says(clone: Path, machine: dict[str, str]) -> None:
    script = (clone / ".ci/run").read_text().replace('echo "it went well"', "env | grep BYTECODE")
    (clone / ".ci/run").write_text(script)
    output = gate(clone, machine | {"PYTHONDONTWRITEBYTECODE": "1"}, "good").stdout
    assert re.findall("^.*BYTECODE.*$", output, re.MULTILINE) == ["UV_COMPILE_BYTECODE=1"]


def test_what_other_versions_of_airflow_leave_out_needs_no_airflow() -> None:
    function = re.search(r"(?ms)^without_airflow\(\) \{.*?^\}\n", (ROOT / ".ci/run").read_text())
    assert function is not None
    output = subprocess.check_output(["bash", "-c", function[0] + "without_airflow"], text=True, cwd=ROOT)
    paths = [ROOT / line for line in output.splitlines()]
    files = [file for path in paths for file in (path.rglob("test_*.py") if path.is_dir() else [path])]
    assert len(files) > 50
    chains = {file.name: chain for file in files if (chain := chain_to_airflow(file))}
    assert set(chains) <= ANY_AIRFLOW, chains
    assert {file: names for file in files if (names := arguments(file) & fixtures_with_airflow())} == {}


def fixtures_with_airflow() -> set[str]:
    """Return what the conftest of the component tests imports from modules that import Airflow."""
    tree = ast.parse((ROOT / "tests/component/conftest.py").read_text())
    lines = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    using = [line for line in lines if any(map(chain_to_airflow, modules(str(line.module))))]
    return {alias.name for line in using for alias in line.names} - {"certificate"}


def arguments(file: Path) -> set[str]:
    """Return the names of the arguments of all functions in a file."""
    return {node.arg for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.arg)}
