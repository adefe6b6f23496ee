"""What all tests share: no test fails because the machine is slow, and tables for the end of the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

TABLES = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def publish(pytestconfig: pytest.Config) -> Callable[[str, str], None]:
    """Have a table printed under its title when all tests are over."""
    return pytestconfig.stash.setdefault(TABLES, {}).__setitem__


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Where the tests are spread over processes, those hand their tables to the one that prints.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tables"] = session.config.stash.get(TABLES, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})  # one that crashed has none
    node.config.stash.setdefault(TABLES, {}).update(output.get("tables", {}))


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    for title, table in config.stash.get(TABLES, {}).items():
        terminalreporter.section(title)
        terminalreporter.write_line(table)
