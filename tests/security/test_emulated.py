"""Defects of the emulator that fuzzing has found."""

from typing import Any

import pytest

from tests.security.emulated import Emulated, Sent, check


@pytest.fixture
def emulated() -> Any:
    with Emulated() as emulated:
        yield emulated


def test_the_control_api_shows_a_task_whose_body_has_a_lone_surrogate(emulated: Emulated) -> None:
    emulated.task.body["unknown"] = {"x": ["\ud800", "漢"]}
    sent = Sent("GET", f"/emulator/tasks/{emulated.task.task_id}", [])
    emulated.send(sent)
    check(sent)
    assert b'"unknown":{"x":["\\ud800","\\u6f22"]}' in sent.answer


def test_the_control_api_shows_a_fault_whose_operation_has_a_lone_surrogate(emulated: Emulated) -> None:
    headers = [(b"content-type", b"application/json")]
    sent = Sent("POST", "/emulator/faults", headers, b'{"kind": "throttle", "operation": "\\ud800"}')
    emulated.send(sent)
    check(sent)
    assert sent.status == 200
