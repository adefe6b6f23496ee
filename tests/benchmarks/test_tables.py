"""Smoke test of what the benchmarks print; the figures themselves are nobody's promise."""

import pytest

from tests.benchmarks.tables import show


def test_a_table_lines_up_its_columns_and_rounds_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    show("Title", ("kind", "ms"), [("ours", 1.234), ("another", 100)])
    assert capsys.readouterr().out == "\nTitle\nkind       ms\nours     1.23\nanother   100\n"
