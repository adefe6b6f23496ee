"""The words, arguments and files of `airflow-modelarts`; nothing here starts Airflow."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import requests_mock

from airflow_modelarts import __version__
from airflow_modelarts.testing import cli
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.seeds import seed
from airflow_modelarts.testing.sandbox import airflow_api as _airflow_api
from airflow_modelarts.testing.sandbox import sandbox
from airflow_modelarts.testing.sandbox.airflow_api import AirflowApi, TaskInstance, XCom, plain
from airflow_modelarts.testing.sandbox.task_log import printable, readable_log

EXAMPLE = Path(__file__).parents[2] / "dags_examples" / "feature_analysis.py"


def task_instance(task_id: str, state: str | None, map_index: int = -1, **values: object) -> TaskInstance:
    defaults = {"try_number": 1, "start_date": None, "end_date": None, "duration": None}
    return TaskInstance(task_id, map_index, state, **(defaults | values))  # type: ignore[arg-type]


# Arguments


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_python_m_is_the_same_command() -> None:
    command = [sys.executable, "-m", "airflow_modelarts.testing.cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith(f"{__version__}\n")


def test_importing_the_command_line_imports_no_airflow() -> None:
    code = (
        "import sys, airflow_modelarts.testing.cli; print([m for m in sys.modules if m.partition('.')[0] == 'airflow'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_run_has_sensible_defaults() -> None:
    arguments = cli.build_parser().parse_args(["run", "dag.py"])
    assert (arguments.dag_file, arguments.dag_id) == (Path("dag.py"), None)
    assert (arguments.conf, arguments.timeout, arguments.keep) == ({}, 600.0, False)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["run", "dag.py", "--conf", "{"], "not JSON"),
        (["run", "dag.py", "--conf", "[1]"], "a JSON object is needed"),
        (["run", "dag.py", "--timeout", "soon"], "a number of seconds is needed, not 'soon'"),
        (["run", "dag.py", "--task-duration", "-1"], "a number of seconds is needed"),
        (["run", "dag.py", "--timeout", "nan"], "a number of seconds is needed"),
        (["run", "dag.py", "--seed", "-1"], "a number from 0 to 10000 is needed, not '-1'"),
        (["emulator", "--seed", "many"], "a number from 0 to 10000 is needed, not 'many'"),
        ([], "COMMAND"),
    ],
)
def test_bad_arguments_are_refused(argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(tmp_path / "none.py")]) == 2
    assert f"there is no file {tmp_path / 'none.py'}" in capsys.readouterr().err


def test_a_file_that_is_not_python_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dag.txt").touch()
    assert cli.main(["run", str(tmp_path / "dag.txt")]) == 2
    assert "is not a Python file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("dag = DAG(\n", "my_dag.py, line 1: '(' was never closed"),
        (
            "from airflow.sdk import dag\n@dag\ndef p(): ...\n",
            "line 3: @dag makes a DAG of p() only where it is called",
        ),
        ("", "my_dag.py defines no DAG"),
    ],
)
def test_a_file_without_a_dag_is_refused_before_anything_starts(
    source: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my_dag.py"
    file.write_text(source)
    assert cli.main(["run", str(file)]) == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert printed.out == ""


def test_a_folder_is_refused_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["emulator"], ["run", str(EXAMPLE)]])
def test_the_missing_extra_is_named(command: list[str]) -> None:
    # In a process of its own, since modules that are taken away and come back are not the same to those who have them.
    code = "import sys; sys.modules.update(fastapi=None, uvicorn=None); from airflow_modelarts.testing import cli; "
    program = [sys.executable, "-c", f"{code}sys.exit(cli.main({command!r}))"]
    finished = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert finished.returncode == 2
    assert "pip install '.[emulator]'" in finished.stderr


def test_a_defect_of_the_emulator_is_not_taken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airflow_modelarts.testing.emulator", None)
    with pytest.raises(ModuleNotFoundError, match=r"airflow_modelarts.testing"):
        cli.main(["emulator"])


# The emulator in the foreground


def test_the_emulator_prints_a_connection_to_paste_and_ends_on_a_signal() -> None:
    command = [sys.executable, "-m", "airflow_modelarts.testing.cli", "emulator", "--port", "0", "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as emulator:
        assert emulator.stdout is not None
        lines = []
        for line in emulator.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        (address,) = [line.split()[-1] for line in lines if line.startswith("OpenAPI page:")]
        page = requests.get(address, timeout=10).text
        seeded = {task["task_id"]: task["name"] for task in requests.get(f"{url_in(lines)}/tasks", timeout=10).json()}
        answers = [send(line) for line in lines if line.startswith("curl ")]
        emulator.send_signal(signal.SIGINT)
        rest, errors = emulator.communicate(timeout=30)
    assert (emulator.returncode, rest, errors) == (0, "Ended.\n", "")
    assert "swagger" in page
    assert len(seeded) == 3
    assert all(
        any(line.split()[:1] == [task_id] and name in line for line in lines) for task_id, name in seeded.items()
    )
    assert [answer.status_code for answer in answers] == [200] * 9
    (export,) = [line for line in lines if line.startswith("export ")]
    script = f'{export}printf %s "$AIRFLOW_CONN_MODELARTS_DEFAULT"'
    pasted = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(pasted)["conn_type"] == "modelarts"


def url_in(lines: list[str]) -> str:
    (url,) = {line.split()[-1].removesuffix("/tasks") for line in lines if line.startswith("curl -sS -X GET ")}
    return url


def send(curl: str) -> requests.Response:
    """Send what a line that begins with `curl` would."""
    _, _, _, method, url, *options = shlex.split(curl)
    headers = dict([options[1].split(": ")]) if options else {}
    return requests.request(method, url, headers=headers, data=options[3] if options else None, timeout=10)


def test_a_port_in_use_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["emulator", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_port_that_is_none_is_said(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["emulator", f"--port={port}"])
    assert ended.value.code == 2
    assert f"a port from 0 to 65535 is needed, not '{port}'" in capsys.readouterr().err


def test_an_address_that_others_could_reach_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["emulator", "--host", "0.0.0.0"]) == 2
    assert "loopback" in capsys.readouterr().err


def test_signal_handlers_are_restored_and_a_second_signal_does_not_interrupt_the_clean_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def command(arguments: argparse.Namespace) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            print("cleaned up")
        return 0

    monkeypatch.setattr(cli, "emulator_command", command)
    assert cli.main(["emulator"]) == 128 + signal.SIGTERM
    assert "cleaned up" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


def test_two_signals_at_once_are_one_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    both = {signal.SIGINT, signal.SIGTERM}
    with cli._signals_interrupt():
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
        for number in both:
            signal.pthread_kill(threading.get_ident(), number)  # another thread would not have them blocked
        with pytest.raises(cli.Interrupted):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    assert complaints == []


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli._signals_interrupt():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_the_terminal_cannot_show_does_not_end_the_command() -> None:
    code = (
        "import sys; from airflow_modelarts.testing import cli;"
        "cli.emulator_command = lambda _: print('\u732b \\ud800') or 0; "
    )
    program = [sys.executable, "-c", f"{code}sys.exit(cli.main(['emulator']))"]
    environment = {**os.environ, "PYTHONIOENCODING": "iso-8859-15"}
    finished = subprocess.run(program, capture_output=True, check=True, timeout=60, env=environment)
    assert finished.stdout == b"\\u732b \\ud800\n"


# What is shown


def test_progress_prints_changes_only(capsys: pytest.CaptureFixture[str]) -> None:
    progress = cli.Progress()
    progress.show([task_instance("wait", None, 3)])
    progress.show([task_instance("wait", "running", 3)])
    progress.show([task_instance("wait", "running", 3)])
    progress.show([task_instance("wait", "running", 3, try_number=2)])
    first, second = capsys.readouterr().out.splitlines()
    assert first.split(" s  ")[1].split() == ["wait[3]", "running"]
    assert second.endswith("running (try 2)")


def test_the_log_of_each_failed_try_is_shown() -> None:
    show = cli.tries_to_show
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
    assert cli.unfinished(instances) == "Not done: b[0] (deferred), c (not started)."
    assert cli.unfinished(instances[:1]) == "No task was running."


def test_the_table_lines_up() -> None:
    table = cli.task_table([task_instance("create", "success", duration=1.25), task_instance("wait", None, 0)])
    assert table.splitlines() == [
        "Task     State        Tries  Duration",
        "create   success      1      1.2 s",
        "wait[0]  not started  1",
    ]


def test_xcoms_are_grouped_by_task_without_airflows_own() -> None:
    listing = cli.xcom_listing(
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


def test_long_values_are_broken_into_lines_then_cut() -> None:
    assert cli.shortened({"a": "x" * 90}).splitlines()[0] == "{"
    assert cli.shortened("x" * 5000) == '"' + "x" * 1199 + "… (5,002 characters in all)"


def test_the_end_of_a_log_leaves_out_airflows_own_frames_and_folding_marks() -> None:
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
    lines = cli.log_end(log).splitlines()
    assert len(lines) == cli.LOG_LINES
    assert lines[-5:] == [
        "  line 29",
        "  Traceback (most recent call last):",
        '    File "lib/site-packages/airflow_modelarts/sensors.py", line 9, in poke',
        "      raise ValueError",
        "  ValueError",
    ]
    assert cli.log_end("") == "  (the task wrote no log)"


def test_airflow_3_logs_become_lines_with_the_outer_exception_last() -> None:
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


def test_a_log_line_can_hold_any_separator_but_a_line_feed() -> None:
    text = readable_log(f"{logged(event=HIDDEN)}\n{logged(event='after')}\n")
    assert text.split("\n") == [f"[2026-01-02T03:04:05] INFO - {SHOWN}", "[2026-01-02T03:04:05] INFO - after"]


def test_a_log_message_cannot_look_like_a_line_of_the_log() -> None:
    assert readable_log(logged(event=FORGED)).split("\n") == [
        "[2026-01-02T03:04:05] INFO - it is well",
        "    [2026-01-01T00:00:00] INFO - forged",
    ]
    error = {"exc_type": "E", "exc_value": FORGED, "exc_notes": [FORGED], "frames": [{"filename": FORGED, "name": "f"}]}
    lines = readable_log(logged(event="x", level=FORGED, error_detail=[error])).split("\n")
    assert [line for line in lines if line.startswith("[2026-01-01")] == []


@pytest.mark.parametrize("detail", ["text", {"a": 1}, [1], [{"frames": [1]}], [{"frames": "x", "exc_notes": 1}]])
def test_a_log_whose_error_detail_is_something_else_can_be_read(detail: object) -> None:
    assert readable_log(logged(event="x", error_detail=detail)).startswith("[2026-01-02T03:04:05] INFO - x")


def test_text_that_is_no_json_loses_its_control_characters() -> None:
    assert readable_log(f"{HIDDEN}\r\n" + "[" * 100_000).split("\n")[0] == SHOWN


def test_colours_are_left_out_and_any_script_is_shown() -> None:
    text = "\x1b[31;1mred\x1b[0m grün 猫 👩\u200d💻\ttab"
    assert printable(text) == "red grün 猫 👩\u200d💻\ttab"


def test_nothing_that_a_run_prints_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Names, keys, values, logs and errors are others'."""
    instance = task_instance(HIDDEN + FORGED, "failed")
    cli.Progress().show([instance])
    cli.say(cli.task_table([instance]))
    cli.say(cli.xcom_listing([XCom(HIDDEN + FORGED, -1, HIDDEN + FORGED, {HIDDEN + FORGED: [HIDDEN + FORGED]})]))
    cli.say(cli.log_end(readable_log(logged(event=HIDDEN + FORGED))))
    cli.say(HIDDEN, file=sys.stderr)
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", text)
    assert [line for line in printed.out.split("\n") if line.startswith("[2026-01-01")] == []


# The processing tasks of --seed


def test_seeds_end_once_the_dag_has_seen_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(cli.time, "monotonic", lambda: now)
    with EmulatorServer() as server:
        tasks = seed(server.state, 5)
        running, initialized = tasks[0], tasks[4]
        seeds = cli.Seeds(server, tasks, 5.0)
        assert list(seeds.end_those_due()) == []
        now += 1000
        assert list(seeds.end_those_due()) == [], "the DAG has not asked for anything yet"
        requests.get(f"{server.url}/v2/{accounts.PROJECT_ID}/processor-tasks", timeout=10)
        assert list(seeds.end_those_due()) == []
        now += 5
        assert list(seeds.end_those_due()) == [(running, "completed"), (initialized, "running")]
        assert list(seeds.end_those_due()) == []
        now += 5
        assert list(seeds.end_those_due()) == [(initialized, "completed")]
        now += 5
        assert list(seeds.end_those_due()) == []
        assert server.state.status(initialized.task_id) == 2


def test_a_seed_that_the_dag_has_deleted_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmulatorServer() as server:
        tasks = seed(server.state, 5)
        server.state.delete_task(accounts.PROJECT_ID, tasks[0].task_id)
        seeds = cli.Seeds(server, tasks, 0.0)
        requests.get(f"{server.url}/v2/{accounts.PROJECT_ID}/processor-tasks", timeout=10)
        assert list(seeds.end_those_due()) == [(tasks[4], "running")]


# Airflow's REST API

ORIGIN = "http://127.0.0.1:8080"
RUN = "dags/one/dagRuns/r"


def instance_entry(task_id: str, map_index: int, start: str | None, **values: object) -> dict[str, object]:
    defaults = {"state": "running", "try_number": 1, "end_date": None, "duration": None}
    return {"task_id": task_id, "map_index": map_index, "start_date": start, **defaults, **values}


def xcom_entry(task_id: str, map_index: int, key: str, second: int) -> dict[str, object]:
    timestamp = f"2026-01-01T00:00:0{second}Z"
    return {"task_id": task_id, "map_index": map_index, "key": key, "timestamp": timestamp}


@pytest.fixture(params=["v1", "v2"])
def api(request: pytest.FixtureRequest, requests_mock: requests_mock.Mocker) -> Iterator[AirflowApi]:
    """A client of an API that has one run."""
    base = f"{ORIGIN}/api/{request.param}"
    requests_mock.get(f"{ORIGIN}/auth/token", status_code=201, json={"access_token": "t1"})

    def answer(path: str, body: object, **options: Any) -> None:
        requests_mock.get(f"{base}/{path}", json=body, **options)

    def listing(path: str, key: str, entries: list[dict[str, object]]) -> None:
        pages = [entries[:2], entries[2:]]  # fewer than were asked for, as a server may answer
        for number, page in enumerate(pages):
            query = f"?offset={2 * number}"
            answer(path + query, {key: page, "total_entries": len(entries)})

    listing("dags", "dags", [{"dag_id": "two"}, {"dag_id": "one"}, {"dag_id": "not_serialized"}])
    answer("dags/one/details", {})
    answer("dags/two/details", {})
    answer("dags/not_serialized/details", {"detail": "no such DAG"}, status_code=404)
    listing("importErrors", "import_errors", [{"filename": "bad.py", "stack_trace": "Traceback"}])
    answer(RUN, {"state": "running"})
    answer("dags/one/dagRuns/none", {"detail": "no such run"}, status_code=404)
    health = {
        "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-01-01T00:00:00+00:00"},
        "triggerer": {"status": "unhealthy", "latest_triggerer_heartbeat": "2026-01-01T00:00:00+00:00"},
        "dag_processor": {"status": None, "latest_dag_processor_heartbeat": None},
    }
    answer("health" if request.param == "v1" else "monitor/health", health)
    listing(
        f"{RUN}/taskInstances",
        "task_instances",
        [
            instance_entry("last", -1, None, state=None, try_number=0),
            instance_entry("wait", 1, "2026-01-01T00:00:02Z"),
            instance_entry("wait", 0, "2026-01-01T00:00:03+00:00", try_number=2),
            instance_entry("create", -1, "2026-01-01T00:00:00Z", end_date="2026-01-01T00:00:01.5Z", duration=1.5),
        ],
    )
    listing(
        f"{RUN}/taskInstances/~/xcomEntries",
        "xcom_entries",
        [
            xcom_entry("wait", 1, "return_value", 3),
            xcom_entry("wait", 0, "return_value", 4),
            xcom_entry("create", -1, "a/b", 2),
            xcom_entry("create", -1, "id", 1),
        ],
    )
    entries = f"{RUN}/taskInstances/wait/xcomEntries/return_value?stringify=false&map_index"
    answer(f"{entries}=0", {"value": "7"})
    answer(f"{entries}=1", {"value": 7})
    answer(f"{RUN}/taskInstances/create/xcomEntries/id", {"value": {"a": [1]}})
    answer(f"{RUN}/taskInstances/create/xcomEntries/a%2Fb", {"detail": "no such XCom"}, status_code=404)
    client = AirflowApi(ORIGIN, request.param)
    yield client
    client.close()


def test_airflow_says_what_is_ready(api: AirflowApi) -> None:
    assert api.dags() == ["one", "two"]
    assert api.import_errors() == {"bad.py": "Traceback"}
    assert api.heartbeat("scheduler") == datetime(2026, 1, 1, tzinfo=UTC)
    assert api.heartbeat("triggerer") is None, "its process is dead"
    assert api.heartbeat("dag-processor") is None, "it has never run"
    assert api.run_state("one", "r") == "running"
    assert api.run_state("one", "none") is None


def test_task_instances_come_by_the_start_of_their_task(api: AirflowApi) -> None:
    instances = api.task_instances("one", "r")
    assert [instance.label for instance in instances] == ["create", "wait[0]", "wait[1]", "last"]
    assert instances[0].end_date == datetime(2026, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert instances[1].try_number == 2
    assert instances[3].start_date is None


def test_xcoms_come_by_the_time_of_their_task(api: AirflowApi) -> None:
    assert [(xcom.label, xcom.key, xcom.value) for xcom in api.xcoms("one", "r")] == [
        ("create", "id", {"a": [1]}),
        ("create", "a/b", "(Airflow's API does not give the value of this key)"),
        ("wait[0]", "return_value", "7"),
        ("wait[1]", "return_value", 7),
    ]


@pytest.mark.parametrize("status", [400, 500])
def test_an_xcom_that_airflow_cannot_show_does_not_end_the_listing(
    api: AirflowApi,
    requests_mock: requests_mock.Mocker,
    monkeypatch: pytest.MonkeyPatch,
    no_pauses: None,
    status: int,
) -> None:
    """An error can be about one value alone."""
    monkeypatch.setattr(_airflow_api, "XCOM_TIMEOUT", 0)
    key = f"{api._base}/{RUN}/taskInstances/create/xcomEntries/id"
    requests_mock.get(key, status_code=status, text="Out of range float values are not JSON compliant")
    values = {(xcom.label, xcom.key): xcom.value for xcom in api.xcoms("one", "r")}
    assert values["wait[0]", "return_value"] == "7"
    assert "Out of range float values" in values["create", "id"]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_links_runs_and_asset_events_are_alike_in_both_versions(
    version: str, requests_mock: requests_mock.Mocker
) -> None:
    base, is_v1 = f"{ORIGIN}/api/{version}", version == "v1"
    requests_mock.get(f"{ORIGIN}/auth/token", status_code=201, json={"access_token": "t1"})
    links = {"ModelArts console": "https://console.example.com"}
    requests_mock.get(f"{base}/{RUN}/taskInstances/wait/links", json=links if is_v1 else {"extra_links": links})
    requests_mock.get(f"{base}/dags/one/dagRuns", json={"dag_runs": [{"dag_run_id": "r"}], "total_entries": 1})
    kind = "dataset" if is_v1 else "asset"
    uri = "dataset_uri" if is_v1 else "uri"
    entries = [
        {"id": number, f"{kind}_id": 7, uri: "obs://b/w", "source_task_id": "wait", "extra": extra}
        for number, extra in ((2, None), (1, {"status": 2}))
    ]
    requests_mock.get(f"{base}/{kind}s/events", json={f"{kind}_events": entries, "total_entries": 2})
    client = AirflowApi(ORIGIN, version)
    assert client.extra_links("one", "r", "wait") == links
    assert client.runs("one") == ["r"]
    first, second = client.asset_events()
    assert (first.asset_id, first.uri, first.source_task_id, first.extra) == (7, "obs://b/w", "wait", {"status": 2})
    assert second.extra == {}
    client.close()


def test_the_states_of_all_assets_can_be_read(requests_mock: requests_mock.Mocker) -> None:
    requests_mock.get(f"{ORIGIN}/auth/token", status_code=201, json={"access_token": "t1"})
    requests_mock.get(f"{ORIGIN}/api/v2/assets", json={"assets": [{"id": 7}], "total_entries": 1})
    store = {"asset_state_store": [{"key": "k", "value": {"a": 1}}], "total_entries": 1}
    requests_mock.get(f"{ORIGIN}/api/v2/assets/7/state-store", json=store)
    client = AirflowApi(ORIGIN, "v2")
    assert [client.asset_state(asset_id) for asset_id in client.asset_ids()] == [{"k": {"a": 1}}]
    client.close()


def test_a_dag_that_is_paused_is_unpaused_before_it_runs(requests_mock: requests_mock.Mocker, tmp_path: Path) -> None:
    scratch = sandbox.Sandbox(tmp_path)
    scratch.port = 8080
    base = f"{scratch.url}/api/{scratch.flavour.api_version}"
    requests_mock.get(f"{scratch.url}/auth/token", status_code=201, json={"access_token": "t1"})
    requests_mock.get(f"{base}/dags/one", json={"is_paused": True})
    patched = requests_mock.patch(f"{base}/dags/one", json={})
    posted = requests_mock.post(f"{base}/dags/one/dagRuns", json={})
    run_id = scratch.trigger("one", {"a": 1})
    assert patched.last_request.json() == {"is_paused": False}
    assert (posted.last_request.json()["dag_run_id"], posted.last_request.json()["conf"]) == (run_id, {"a": 1})
    requests_mock.get(f"{base}/dags/two", status_code=404, json={"detail": "no such DAG"})
    with pytest.raises(sandbox.RunRefusedError, match=r"start a run of DAG 'two': .* HTTP 404: no such DAG"):
        scratch.trigger("two")
    scratch.stop()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_airflow_api, "RETRY_INTERVAL", 0)


@pytest.mark.parametrize(
    "outage", [{"status_code": 500, "text": "database is locked"}, {"exc": requests.ConnectionError("refused")}]
)
def test_an_airflow_that_is_out_of_order_is_asked_again(
    outage: dict[str, Any], requests_mock: requests_mock.Mocker, no_pauses: None
) -> None:
    requests_mock.get(f"{ORIGIN}/api/v1/{RUN}", [outage, outage, {"json": {"state": "success"}}])
    checks: list[None] = []
    client = AirflowApi(ORIGIN, "v1", check=lambda: checks.append(None))
    assert client.run_state("one", "r") == "success"
    assert len(checks) == 2
    client.close()


def test_waiting_for_airflow_ends_with_its_words(
    requests_mock: requests_mock.Mocker, no_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_airflow_api, "OUTAGE_TIMEOUT", 0)
    requests_mock.get(f"{ORIGIN}/api/v1/{RUN}", status_code=503, text="starting")
    client = AirflowApi(ORIGIN, "v1")
    with pytest.raises(sandbox.SandboxError, match=f"GET {RUN} got no answer within 0 s: HTTP 503: starting"):
        client.run_state("one", "r")
    client.close()


def test_a_token_that_has_expired_is_renewed(requests_mock: requests_mock.Mocker, no_pauses: None) -> None:
    tokens = [{"status_code": 201, "json": {"access_token": token}} for token in ("old", "new")]
    requests_mock.get(f"{ORIGIN}/auth/token", tokens)
    refused = requests_mock.get(f"{ORIGIN}/api/v2/{RUN}", status_code=401, json={"detail": "expired"})
    headers = {"Authorization": "Bearer new"}
    requests_mock.get(f"{ORIGIN}/api/v2/{RUN}", request_headers=headers, json={"state": "success"})
    client = AirflowApi(ORIGIN, "v2")
    assert client.run_state("one", "r") == "success"
    assert refused.call_count == 1
    client.close()


def test_a_run_that_airflow_refuses_is_told_with_its_reason(requests_mock: requests_mock.Mocker) -> None:
    detail = "'name' is a required param"
    requests_mock.post(f"{ORIGIN}/api/v1/dags/one/dagRuns", status_code=400, json={"detail": detail})
    client = AirflowApi(ORIGIN, "v1")
    with pytest.raises(sandbox.SandboxError, match=f"dagRuns was refused with HTTP 400: {detail}"):
        client.trigger("one", "r", datetime.now(UTC), {})
    client.close()


def test_a_run_that_was_started_although_the_answer_was_an_error_is_started_once(
    requests_mock: requests_mock.Mocker, no_pauses: None
) -> None:
    there = {"status_code": 409, "json": {"detail": "there is such a run"}}
    requests_mock.post(f"{ORIGIN}/api/v1/dags/one/dagRuns", [{"status_code": 500}, there, there])
    client = AirflowApi(ORIGIN, "v1")
    client.trigger("one", "r", datetime.now(UTC), {})
    with pytest.raises(sandbox.SandboxError, match="there is such a run"):
        client.trigger("one", "r", datetime.now(UTC), {})
    client.close()


def test_nothing_here_knows_airflows_tables() -> None:
    """Their schema is nobody's interface: Airflow 3.4 has other columns than 3.3."""
    root = Path(__file__).parents[2]
    files = [*(root / "airflow_modelarts").rglob("*.py"), *(root / "tests" / "integration").rglob("*.py")]
    assert len(files) > 50
    sql = re.compile(r"import sqlite3|import sqlalchemy|from sqlalchemy|\bSELECT\b.*\bFROM\b")
    assert [file.name for file in files if sql.search(file.read_text())] == []


def test_types_that_airflow_remembers_are_shown_as_plain_values() -> None:
    stored = {"t": {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1, {"b": 2}]}}
    assert plain(stored) == {"t": [1, {"b": 2}]}


# The sandbox, before anything starts


def test_the_environment_is_the_callers_without_their_airflow(tmp_path: Path) -> None:
    inherited = {
        "AIRFLOW_HOME": "theirs",
        "AIRFLOW_CONFIG": "theirs",
        "AIRFLOW__CORE__DAGS_FOLDER": "theirs",
        "_AIRFLOW__AS_LIBRARY": "1",
        "AIRFLOW_CONN_MODELARTS_DEFAULT": "theirs",
        "OPENLINEAGE_URL": "theirs",
        "AIRFLOW_VAR_COLOUR": "blue",
        "PYTHONPATH": "relative",
        "PATH": "bin",
        "no_proxy": "example.com",
    }
    environment = sandbox.scratch_environment(inherited, tmp_path)
    assert "theirs" not in environment.values()
    assert "_AIRFLOW__AS_LIBRARY" not in environment
    assert environment["AIRFLOW_VAR_COLOUR"] == "blue"
    assert environment["PYTHONPATH"] == "relative"
    assert environment["PATH"].endswith(f"{os.pathsep}bin")
    assert environment["NO_PROXY"] == environment["no_proxy"] == "example.com,127.0.0.1,localhost"
    assert environment["AIRFLOW_HOME"] == str(tmp_path)


def test_every_python_file_can_hold_a_dag(tmp_path: Path) -> None:
    assert sandbox.is_wanted_dag_file(str(tmp_path / "any.py"), zip_file=None)


@pytest.mark.parametrize(
    ("installed", "flavour"), [("2.11.2", sandbox.AIRFLOW_2), ("3.3.2", sandbox.AIRFLOW_3), ("4.0", sandbox.AIRFLOW_3)]
)
def test_the_flavour_follows_the_installed_airflow(
    installed: str, flavour: sandbox.AirflowProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "version", lambda name: installed)
    assert sandbox.installed_flavour() is flavour


def test_nothing_exists_before_the_start_and_stopping_then_is_harmless(tmp_path: Path) -> None:
    scratch = sandbox.Sandbox(tmp_path, keep=True)
    scratch.stop()
    assert not scratch.home.exists()
    component = sandbox.Component("scheduler", ["scheduler"], {}, tmp_path / "log")
    component.terminate()
    component.kill()
    assert component.pid is None
    assert component.poll() is None
    assert component.log_end() == ""


def test_an_interruption_of_its_end_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = sandbox.Component.kill
    interruptions = iter([KeyboardInterrupt])

    def interrupted_once(component: sandbox.Component, grace: float = 0.0) -> None:
        for interruption in interruptions:
            raise interruption
        kill(component, grace)

    monkeypatch.setattr(sandbox.Component, "kill", interrupted_once)
    scratch = sandbox.Sandbox(tmp_path, home=tmp_path / "home")
    monkeypatch.setattr(scratch, "start", lambda: None)
    scratch.home.mkdir()
    scratch._made_home = True
    scratch.components["scheduler"] = sandbox.Component("scheduler", ["scheduler"], {}, tmp_path / "log")
    with pytest.raises(KeyboardInterrupt), scratch:
        pass
    assert not scratch.home.exists()


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    scratch = sandbox.Sandbox(tmp_path, home=home, environment={"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "nonsense"})
    with pytest.raises(sandbox.SandboxError, match="`airflow db migrate` failed"), scratch:
        pytest.fail("it started")
    assert not home.exists()


def test_a_home_that_exists_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(FileExistsError), sandbox.Sandbox(tmp_path, home=tmp_path):
        pytest.fail("it started")
    assert (tmp_path / "precious").exists()


def test_a_component_that_ignores_the_request_to_end_is_killed_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "children"
    script = f"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
children = [subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid]
open({str(marker)!r}, "w").write(repr(children) + "\\n")
time.sleep(60)
"""
    component = sandbox.Component("stubborn", [], dict(os.environ), tmp_path / "log")
    monkeypatch.setattr(component, "_command", [sys.executable, "-c", script])
    component.start()
    while not (marker.exists() and marker.read_text().endswith("\n")):
        time.sleep(0.02)
    children = json.loads(marker.read_text())
    component.terminate()
    component.kill(grace=0.2)
    assert component.poll() == -signal.SIGKILL
    assert component.deliberately_down
    for child in children:
        assert not is_alive(child)


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_the_environment_file_of_a_kept_home_is_for_its_owner_alone_and_frees_the_shell_of_their_airflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if "AIRFLOW" in name or "OPENLINEAGE" in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "theirs")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "theirs")
    scratch = sandbox.Sandbox(tmp_path, home=tmp_path, keep=True)
    scratch.environment = {"TMPDIR": "gone", "AIRFLOW__CORE__FERNET_KEY": "a b'c", "PATH": os.environ["PATH"]}
    scratch._write_environment_file()
    unset, export = scratch.environment_file.read_text().splitlines()
    assert unset == "unset AIRFLOW__CORE__AUTH_MANAGER"
    assert export == "export AIRFLOW__CORE__FERNET_KEY='a b'\"'\"'c'"
    assert stat.S_IMODE(scratch.environment_file.stat().st_mode) == 0o600
