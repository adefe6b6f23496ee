"""A task instance as far as sensors and triggers use it, and the lines that they log."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest


@dataclass
class FakeTaskInstance:
    """Identifies a try of an Airflow task."""

    dag_id: str = "dag"
    task_id: str = "wait"
    run_id: str = "run"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    start_date: datetime = field(default_factory=lambda: datetime.now(UTC))


def collect_log(monkeypatch: pytest.MonkeyPatch, owner: type) -> list[str]:
    """Collect what operators, sensors or triggers of a class log."""
    lines: list[str] = []

    class Log:
        def info(self, text: str, *values: Any) -> None:
            lines.append(text % values if values else text)

        debug = warning = error = info

    monkeypatch.setattr(owner, "log", Log())
    return lines
