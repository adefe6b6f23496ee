"""Task logs become readable text that cannot control the terminal."""

import json

import pytest

from airflow_modelarts.testing.sandbox.task_log import readable_log
from airflow_modelarts.testing.terminal import printable


def test_json_log_lines_become_text_with_the_outermost_exception_last() -> None:
    entry = {
        "timestamp": "2026-01-02T03:04:05.678901Z",
        "level": "error",
        "event": "Task failed",
        "error_detail": [
            {"exc_type": "RuntimeError", "exc_value": "outer", "exc_notes": ["a note"], "frames": []},
            {
                "exc_type": "ValueError",
                "exc_value": "inner",
                "frames": [{"filename": "d.py", "lineno": 3, "name": "f"}],
            },
        ],
    }
    assert readable_log(f"plain text\n{json.dumps(entry)}\n[1]\n").splitlines() == [
        "plain text",
        "[2026-01-02T03:04:05] ERROR - Task failed",
        "Traceback (most recent call last):",
        '  File "d.py", line 3, in f',
        "ValueError: inner",
        "Traceback (most recent call last):",
        "RuntimeError: outer",
        "a note",
        "[1]",
    ]


FORGED = "it is well\n[2026-01-01T00:00:00] INFO - forged"
HIDDEN = "a\x1b[2Kb\rc\x08d\x07e\x9b1mf\x7fg\u2028h\u2029i\x85j\x0bk\x0cl\u202em\x1b]0;title\x07"
SHOWN = r"a\x1b[2Kb\rc\x08d\x07e\x9b1mf\x7fg\u2028h\u2029i\x85j\x0bk\x0cl\u202em\x1b]0;title\x07"


def logged(**entry: object) -> str:
    return json.dumps({"timestamp": "2026-01-02T03:04:05Z", "level": "info", **entry}, ensure_ascii=False)


def test_only_a_line_feed_ends_a_log_line() -> None:
    text = readable_log(f"{logged(event=HIDDEN)}\n{logged(event='after')}\n")
    assert text.split("\n") == [f"[2026-01-02T03:04:05] INFO - {SHOWN}", "[2026-01-02T03:04:05] INFO - after"]


def test_a_log_message_cannot_forge_a_log_line() -> None:
    assert readable_log(logged(event=FORGED)).split("\n") == [
        "[2026-01-02T03:04:05] INFO - it is well",
        "    [2026-01-01T00:00:00] INFO - forged",
    ]
    error = {"exc_type": "E", "exc_value": FORGED, "exc_notes": [FORGED], "frames": [{"filename": FORGED, "name": "f"}]}
    lines = readable_log(logged(event="x", level=FORGED, error_detail=[error])).split("\n")
    assert [line for line in lines if line.startswith("[2026-01-01")] == []


@pytest.mark.parametrize("detail", ["text", {"a": 1}, [1], [{"frames": [1]}], [{"frames": "x", "exc_notes": 1}]])
def test_an_unknown_form_of_error_detail_does_not_break_the_log(detail: object) -> None:
    assert readable_log(logged(event="x", error_detail=detail)).startswith("[2026-01-02T03:04:05] INFO - x")


def test_control_characters_in_plain_text_lines_are_escaped() -> None:
    assert readable_log(f"{HIDDEN}\r\n" + "[" * 100_000).split("\n")[0] == SHOWN


def test_colours_are_removed_and_any_script_is_kept() -> None:
    text = "\x1b[31;1mred\x1b[0m grün 猫 👩\u200d💻\ttab"
    assert printable(text) == "red grün 猫 👩\u200d💻\ttab"
