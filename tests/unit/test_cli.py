"""The words, arguments and files of `airflow-modelarts`; nothing here starts Airflow."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import requests

from airflow_modelarts import __version__, cli, sandbox
from airflow_modelarts._metadata import MetadataReader, TaskInstance, XCom, plain, readable_log


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
    command = [sys.executable, "-m", "airflow_modelarts", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith(f"{__version__}\n")


def test_importing_the_command_line_imports_no_airflow() -> None:
    code = "import sys, airflow_modelarts.cli; print([m for m in sys.modules if m.partition('.')[0] == 'airflow'])"
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


@pytest.mark.parametrize("command", [["emulator"], ["run", __file__]])
def test_the_missing_extra_is_named(command: list[str]) -> None:
    # In a process of its own, since modules that are taken away and come back are not the same to those who have them.
    code = "import sys; sys.modules.update(fastapi=None, uvicorn=None); from airflow_modelarts import cli; "
    program = [sys.executable, "-c", f"{code}sys.exit(cli.main({command!r}))"]
    finished = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert finished.returncode == 2
    assert "pip install '.[emulator]'" in finished.stderr


def test_a_defect_of_the_emulator_is_not_taken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airflow_modelarts.emulator", None)
    with pytest.raises(ModuleNotFoundError, match=r"airflow_modelarts\.emulator"):
        cli.main(["emulator"])


# The emulator in the foreground


def test_the_emulator_prints_a_connection_to_paste_and_ends_on_a_signal() -> None:
    command = [sys.executable, "-m", "airflow_modelarts", "emulator", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as emulator:
        assert emulator.stdout is not None
        lines = []
        for line in emulator.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        (address,) = [line.split()[-1] for line in lines if line.startswith("OpenAPI page:")]
        page = requests.get(address, timeout=10).text
        emulator.send_signal(signal.SIGINT)
        rest, errors = emulator.communicate(timeout=30)
    assert (emulator.returncode, rest, errors) == (0, "Ended.\n", "")
    assert "swagger" in page
    (export,) = [line for line in lines if line.startswith("export ")]
    script = f'{export}printf %s "$AIRFLOW_CONN_MODELARTS_DEFAULT"'
    pasted = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(pasted)["conn_type"] == "modelarts"


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


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli._signals_interrupt():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_the_terminal_cannot_show_does_not_end_the_command() -> None:
    code = (
        "import sys; from airflow_modelarts import cli; cli.emulator_command = lambda _: print('\u732b \\ud800') or 0; "
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


# The metadata database

AIRFLOW_2_TABLES = """
CREATE TABLE dag (dag_id VARCHAR(250) PRIMARY KEY, is_active BOOLEAN, fileloc VARCHAR(2000));
CREATE TABLE serialized_dag (dag_id VARCHAR(250) PRIMARY KEY, fileloc VARCHAR(2000), data JSON);
CREATE TABLE import_error (id INTEGER PRIMARY KEY, filename VARCHAR(1024), stacktrace TEXT, processor_subdir TEXT);
CREATE TABLE job (id INTEGER PRIMARY KEY, state VARCHAR(20), job_type VARCHAR(30));
CREATE TABLE dag_run (id INTEGER PRIMARY KEY, dag_id VARCHAR(250), run_id VARCHAR(250), execution_date TIMESTAMP,
  state VARCHAR(50));
CREATE TABLE task_instance (task_id VARCHAR(250), dag_id VARCHAR(250), run_id VARCHAR(250), map_index INTEGER,
  start_date TIMESTAMP, end_date TIMESTAMP, duration FLOAT, state VARCHAR(20), try_number INTEGER);
CREATE TABLE xcom (dag_run_id INTEGER, task_id VARCHAR(250), map_index INTEGER, "key" VARCHAR(512),
  dag_id VARCHAR(250), run_id VARCHAR(250), value BLOB, timestamp TIMESTAMP);
"""
AIRFLOW_3_TABLES = (
    AIRFLOW_2_TABLES.replace("value BLOB", "value JSON")
    .replace("is_active", "is_stale")
    .replace("processor_subdir TEXT", "bundle_name VARCHAR(250)")
    .replace("execution_date", "logical_date")
    .replace("dag_id VARCHAR(250) PRIMARY KEY, fileloc VARCHAR(2000), data", "id CHAR(32), dag_id VARCHAR(250), data")
)


@pytest.fixture(params=["Airflow 2", "Airflow 3"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "airflow.db"
    airflow_3 = request.param == "Airflow 3"
    encode: Callable[[object], object] = json.dumps if airflow_3 else lambda value: json.dumps(value).encode()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"PRAGMA journal_mode = {'wal' if airflow_3 else 'delete'}")
        connection.executescript(AIRFLOW_3_TABLES if airflow_3 else AIRFLOW_2_TABLES)
        connection.executemany("INSERT INTO dag VALUES (?, 0, 'd.py')", [("one",), ("not_serialized",)])
        connection.execute("INSERT INTO serialized_dag (dag_id, data) VALUES ('one', '{}')")
        connection.execute("INSERT INTO import_error (filename, stacktrace) VALUES ('bad.py', 'Traceback')")
        jobs = [("running", "SchedulerJob"), ("running", "SchedulerJob"), ("failed", "SchedulerJob")]
        connection.executemany("INSERT INTO job (state, job_type) VALUES (?, ?)", jobs)
        connection.execute("INSERT INTO dag_run (dag_id, run_id, state) VALUES ('one', 'r', 'running')")
        connection.executemany(
            "INSERT INTO task_instance (task_id, dag_id, run_id, map_index, start_date, end_date, duration, state,"
            " try_number) VALUES (?, 'one', 'r', ?, ?, ?, ?, ?, ?)",
            [
                ("last", -1, None, None, None, None, 0),
                ("wait", 0, "2026-01-01 00:00:03.000000", None, None, "running", 2),
                ("wait", 1, "2026-01-01 00:00:02.000000", None, None, "running", 1),
                ("create", -1, "2026-01-01 00:00:00.000000", "2026-01-01 00:00:01.500000", 1.5, "success", 1),
            ],
        )
        connection.executemany(
            "INSERT INTO xcom (task_id, map_index, key, dag_id, run_id, value, timestamp)"
            " VALUES (?, ?, ?, 'one', 'r', ?, ?)",
            [
                ("wait", 1, "return_value", encode(7), "2026-01-01 00:00:03"),
                ("wait", 0, "return_value", encode("7"), "2026-01-01 00:00:04"),
                ("create", -1, "none", None, "2026-01-01 00:00:02"),
                ("create", -1, "id", encode({"a": [1]}), "2026-01-01 00:00:01"),
            ],
        )
    return file


def test_the_reader_knows_what_is_ready(database: Path) -> None:
    reader = MetadataReader(database)
    assert reader.dags() == ["one"]
    assert reader.import_errors() == {"bad.py": "Traceback"}
    assert reader.newest_job("SchedulerJob") == 2
    assert reader.newest_job("TriggererJob") == 0
    assert reader.run_state("one", "r") == "running"
    assert reader.run_state("one", "none") is None


def test_task_instances_come_by_the_start_of_their_task(database: Path) -> None:
    instances = MetadataReader(database).task_instances("one", "r")
    assert [instance.label for instance in instances] == ["create", "wait[0]", "wait[1]", "last"]
    assert instances[0].end_date == datetime(2026, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert instances[1].try_number == 2
    assert instances[3].start_date is None


def test_xcoms_come_by_the_time_of_their_task(database: Path) -> None:
    xcoms = MetadataReader(database).xcoms("one", "r")
    assert [(xcom.label, xcom.key, xcom.value) for xcom in xcoms] == [
        ("create", "id", {"a": [1]}),
        ("create", "none", None),
        ("wait[0]", "return_value", "7"),
        ("wait[1]", "return_value", 7),
    ]


def test_the_reader_waits_for_a_lock_and_never_writes(database: Path) -> None:
    reader = MetadataReader(database)
    with closing(sqlite3.connect(database, check_same_thread=False, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(0.3, writer.execute, ("COMMIT",))
        timer.start()
        assert reader.dags() == ["one"]
        timer.join()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._rows("DELETE FROM dag")


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
    installed: str, flavour: sandbox.Flavour, monkeypatch: pytest.MonkeyPatch
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
