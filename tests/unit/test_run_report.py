"""What `airflow-modelarts run` prints: progress, tables, XComs and the ends of logs."""

import json
import re
import sys

import pytest

from airflow_modelarts.testing import run_report
from airflow_modelarts.testing.run_command import Progress
from airflow_modelarts.testing.sandbox import TaskInstance, XCom
from airflow_modelarts.testing.sandbox.task_log import readable_log
from airflow_modelarts.testing.terminal import safe_print


def task_instance(task_id: str, state: str | None, map_index: int = -1, **values: object) -> TaskInstance:
    defaults = {"try_number": 1, "start_date": None, "end_date": None, "duration": None}
    return TaskInstance(task_id, map_index, state, **(defaults | values))  # type: ignore[arg-type]


def test_progress_prints_changes_only(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.show([task_instance("wait", None, 3)])
    progress.show([task_instance("wait", "running", 3)])
    progress.show([task_instance("wait", "running", 3)])
    progress.show([task_instance("wait", "running", 3, try_number=2)])
    first, second = capsys.readouterr().out.splitlines()
    assert first.split(" s  ")[1].split() == ["wait[3]", "running"]
    assert second.endswith("running (try 2)")


def test_logs_of_failed_tries_are_shown_or_of_all_tries() -> None:
    show = run_report.tries_to_show
    assert show(task_instance("a", "success"), all_tries=False) == []
    assert show(task_instance("a", "success"), all_tries=True) == [1]
    assert show(task_instance("a", "success", try_number=3), all_tries=False) == [1, 2]
    assert show(task_instance("a", "failed", try_number=2), all_tries=False) == [1, 2]
    assert show(task_instance("a", "up_for_retry", try_number=2), all_tries=False) == [1, 2]
    assert show(task_instance("a", "running", try_number=2), all_tries=False) == [1]
    assert show(task_instance("a", "upstream_failed", try_number=0), all_tries=True) == []
    assert show(task_instance("a", None, try_number=0), all_tries=False) == []


def test_unfinished_tasks_are_listed() -> None:
    instances = [task_instance("a", "success"), task_instance("b", "deferred", 0), task_instance("c", None)]
    assert run_report.unfinished(instances) == "Not done: b[0] (deferred), c (not started)."
    assert run_report.unfinished(instances[:1]) == "No task was running."


def test_task_table_columns_are_aligned() -> None:
    table = run_report.task_table([task_instance("create", "success", duration=1.25), task_instance("wait", None, 0)])
    assert table.splitlines() == [
        "Task     State        Tries  Duration",
        "create   success      1      1.2 s",
        "wait[0]  not started  1",
    ]


def test_xcoms_are_grouped_by_task_without_internal_ones() -> None:
    listing = run_report.xcom_listing(
        [
            XCom("create", -1, "return_value", {"id": "x"}),
            XCom("create", -1, "_link_ModelArtsLink", "https://example.com"),
            XCom("branch", -1, "skipmixin_key", {"skipped": []}),
            XCom("wait", 1, "return_value", None),
            XCom("wait", 1, "note", "ü"),
        ]
    )
    assert listing.splitlines() == [
        "  create",
        '    return_value: {"id": "x"}',
        "  wait[1]",
        "    return_value: null",
        '    note: "ü"',
    ]


def test_long_values_are_wrapped_and_very_long_ones_are_cut() -> None:
    assert run_report.shortened({"a": "x" * 90}).splitlines()[0] == "{"
    assert run_report.shortened("x" * 5000) == '"' + "x" * 1199 + "… (5,002 characters in all)"


def test_log_end_omits_airflows_frames_and_folding_marks() -> None:
    log = "\n".join(
        [
            *(f"line {number}" for number in range(30)),
            "INFO - ::group::Post Execute",
            "Traceback (most recent call last):",
            '  File "lib/site-packages/airflow/models/taskinstance.py", line 776, in _execute_task',
            "    result = _execute_callable()",
            "             ^^^^^^^^^^^^^^^^^^^",
            '  File "lib/site-packages/airflow_modelarts/sensors.py", line 9, in poke',
            "    raise ValueError",
            "ValueError",
            "INFO - ::endgroup::",
        ]
    )
    lines = run_report.log_end(log).splitlines()
    assert len(lines) == run_report.LOG_LINES
    assert lines[-5:] == [
        "  line 29",
        "  Traceback (most recent call last):",
        '    File "lib/site-packages/airflow_modelarts/sensors.py", line 9, in poke',
        "      raise ValueError",
        "  ValueError",
    ]
    assert run_report.log_end("") == "  (the task wrote no log)"


def test_output_of_a_run_cannot_control_the_terminal_or_forge_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Names, keys, values, logs and errors are text from others."""
    hostile = "a\x1b[2Kb\rc\x08\x9b1md\u2028e\u202ef\x1b]0;title\x07\n[2026-01-01T00:00:00] INFO - forged"
    instance = task_instance(hostile, "failed")
    Progress().show([instance])
    safe_print(run_report.task_table([instance]))
    safe_print(run_report.xcom_listing([XCom(hostile, -1, hostile, {hostile: [hostile]})]))
    safe_print(run_report.log_end(readable_log(json.dumps({"event": hostile}, ensure_ascii=False))))
    safe_print(hostile.partition("\n")[0], file=sys.stderr)
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", text)
    assert [line for line in printed.out.split("\n") if line.startswith("[2026-01-01")] == []
