"""Bandit has nothing to say about the package that a comment beside the line does not answer."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_modelarts"


def test_bandit_finds_nothing() -> None:
    pytest.importorskip("bandit", reason="bandit is not installed: pip install 'airflow-modelarts[security]'")
    command = [sys.executable, "-m", "bandit", "--quiet", "--format", "json", "--recursive", str(PACKAGE)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    report = json.loads(finished.stdout)
    found = [(item["filename"], item["line_number"], item["test_id"], item["issue_text"]) for item in report["results"]]
    assert found == []
    assert report["errors"] == []


def test_each_exception_from_bandit_names_the_check_and_the_reason() -> None:
    comments = [
        comment
        for path in PACKAGE.rglob("*.py")
        for comment in re.findall(r"#\s*nosec.*", path.read_text(encoding="utf-8"))
    ]
    assert comments
    assert [comment for comment in comments if not re.fullmatch(r"# nosec B\d{3} - .{4,}", comment)] == []
