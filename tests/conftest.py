"""What all tests share: the marker of the long suites, the cleanup after SIGTERM, and tables after the output."""

import gc
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import HealthCheck, settings

# No test fails because the machine is slow.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

HERE = Path(__file__).parent
LONG_FOLDERS = ("cluster", "integration", "security", "ui")
#: Folders and files that take minutes, the longest first.
LONGEST = ("faults", "capacity", "exactly_once", "test_killed_triggerer", "test_recipes", "test_run_command")
#: A few runs in a real Airflow that belong to the quick tests.
ESSENTIALS = HERE / "integration" / "test_essentials.py"
TABLES = pytest.StashKey[dict[str, str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(HERE).parts[0] in LONG_FOLDERS and item.path != ESSENTIALS:
            item.add_marker(pytest.mark.long)
    # Spread over processes by file, what takes longest must not be the last to start.
    items.sort(key=_place)


def pytest_collection_finish() -> None:
    # Airflow's modules and the collected tests stay to the end. Each garbage collection would look at all of them.
    gc.freeze()


def _place(item: pytest.Item) -> int:
    names = {item.path.stem, *item.path.parts}
    return next((place for place, name in enumerate(LONGEST) if name in names), len(LONGEST))


@pytest.fixture(autouse=True)
def reproducible_random(request: pytest.FixtureRequest) -> None:
    """Make delays and names the same each time a test runs; ``TEST_SEED`` in the environment gives others."""
    random.seed(request.node.nodeid + os.environ.get("TEST_SEED", ""))


@pytest.fixture(scope="session", autouse=True)
def stop_servers_on_sigterm() -> Iterator[None]:
    """Make SIGTERM end the tests as Ctrl-C does, so that fixtures stop what they have started."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def publish(pytestconfig: pytest.Config) -> Callable[[str, str], None]:
    """Print a table under a title after all tests."""
    return pytestconfig.stash.setdefault(TABLES, {}).__setitem__


def pytest_sessionfinish(session: pytest.Session) -> None:
    # A process of pytest-xdist hands its tables to the one that prints.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tables"] = session.config.stash.get(TABLES, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})  # a process that crashed has none
    node.config.stash.setdefault(TABLES, {}).update(output.get("tables", {}))


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    for title, table in config.stash.get(TABLES, {}).items():
        terminalreporter.section(title)
        terminalreporter.write_line(table)
