"""A stand-in for Airflow's task instance, with what operators, sensors and triggers read of it, and what they log."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest


class TaskInstance:
    """A task instance that keeps the XComs pushed to it.

    :param attributes: replace or add attributes, such as ``try_number``.
    """

    dag_id, task_id, run_id, map_index = "dag", "task", "run", -1
    try_number, max_tries = 1, 0

    def __init__(self, **attributes: Any) -> None:
        self.xcoms: dict[str, Any] = {}
        self.start_date = datetime.now(UTC)
        self.stats_tags: dict[str, str] = {}
        vars(self).update(attributes)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep an XCom; raise what PostgreSQL would for a value that is not JSON."""
        self.xcoms[key] = json.loads(json.dumps(value, allow_nan=False))

    def xcom_pull(self, *, key: str, **_: Any) -> Any:
        """Return an XCom that was pushed."""
        return self.xcoms.get(key)

    def get_first_reschedule_date(self, context: Any) -> None:
        """Return None: no reschedule preceded this one."""


def collect_log(monkeypatch: pytest.MonkeyPatch, owner: type) -> list[str]:
    """Collect what operators, sensors or triggers of a class log."""
    lines: list[str] = []

    class Log:
        def info(self, text: str, *values: Any, **fields: Any) -> None:
            lines.append(text % values if values else text)

        debug = warning = error = info

    monkeypatch.setattr(owner, "log", Log())
    return lines
