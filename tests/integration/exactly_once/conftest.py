"""The table of the crashes in the output of the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

TABLES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def publish(pytestconfig: pytest.Config) -> list[str]:
    """What is appended to this is printed when all tests are over, and written to the file CRASH_TABLE_FILE."""
    return pytestconfig.stash.setdefault(TABLES, [])


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    tables = config.stash.get(TABLES, [])
    for table in tables:
        terminalreporter.section("crash table")
        terminalreporter.write_line(table)
    if tables and (file := os.environ.get("CRASH_TABLE_FILE")):
        Path(file).write_text("\n\n".join(tables) + "\n")
