"""The command line `airflow-modelarts`: arguments, files, signals and the emulator; no test here starts Airflow."""

import argparse
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from airflow_modelarts import __version__
from airflow_modelarts.testing import cli, emulator_command
from airflow_modelarts.testing.command import Interrupted
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.seeds import seed
from airflow_modelarts.testing.seeded_tasks import ActiveSeeds
from tests.support.waiting import TIMEOUT

EXAMPLE = Path(__file__).parents[2] / "dags_examples" / "feature_analysis.py"


def python(code: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT, env=environment)


# Arguments


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_python_m_runs_the_command() -> None:
    command = [sys.executable, "-m", "airflow_modelarts.testing.cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith(f"{__version__}\n")


def test_importing_the_command_line_imports_neither_airflow_nor_the_libraries_of_the_commands() -> None:
    heavy = {"airflow", "fastapi", "psutil", "requests"}
    code = f"import sys, airflow_modelarts.testing.cli; print({heavy} & {{m.partition('.')[0] for m in sys.modules}})"
    assert python(code).stdout.strip() == "set()"


def test_run_has_defaults() -> None:
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
        (["emulator", "--port=99999"], "a port from 0 to 65535 is needed, not '99999'"),
        (["emulator", "--port=-1"], "a port from 0 to 65535 is needed, not '-1'"),
        (["emulator", "--obs-port=-1"], "a port from 0 to 65535 is needed, not '-1'"),
        (["emulator", "--port=http"], "a port from 0 to 65535 is needed, not 'http'"),
        (["emulator", "--running-limit", "-1"], "a number from 0 to 1000000 is needed, not '-1'"),
        (["run", "dag.py", "--request-rate", "0"], "a number of requests a second above 0 is needed, not '0'"),
        ([], "COMMAND"),
    ],
)
def test_bad_arguments_are_refused(argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("my_dag.py", "dag = DAG(\n", "my_dag.py, line 1: '(' was never closed"),
        ("my_dag.py", "from airflow.sdk import dag\n@dag\ndef p(): ...\n", "line 3: @dag makes a DAG of p() only when"),
        ("my_dag.py", "", "my_dag.py defines no DAG"),
        ("my_dag.txt", "", "my_dag.txt is not a Python file"),
        ("none.py", None, "there is no file"),
        (".", None, "is a folder"),
    ],
)
def test_a_path_that_is_not_a_dag_file_is_refused_before_anything_starts(
    name: str, source: str | None, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if source is not None:
        (tmp_path / name).write_text(source)
    assert cli.main(["run", str(tmp_path / name)]) == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert str(tmp_path) in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("missing", ["fastapi", "psutil"])
def test_a_missing_extra_is_named(missing: str) -> None:
    # In a new process: a module that is removed and imported again is another object than its earlier importers have.
    code = f"import sys; sys.modules[{missing!r}] = None; from airflow_modelarts.testing import cli; "
    finished = python(f"{code}sys.exit(cli.main(['run', {str(EXAMPLE)!r}]))")
    assert finished.returncode == 2
    assert f"the local ModelArts needs {missing}" in finished.stderr
    assert "pip install '.[emulator]'" in finished.stderr


def test_the_emulator_names_a_missing_extra_and_no_defect_of_its_own() -> None:
    code = "import sys; sys.modules[{!r}] = None; from airflow_modelarts.testing import cli; cli.main(['emulator'])"
    assert "pip install '.[emulator]'" in python(code.format("fastapi")).stderr
    assert "ModuleNotFoundError: import of airflow" in python(code.format("airflow_modelarts.testing.emulator")).stderr


# The emulator in the foreground


def test_the_emulator_prints_a_connection_and_control_examples_and_ends_on_a_signal() -> None:
    command = [sys.executable, "-m", "airflow_modelarts.testing.cli", "emulator", "--port", "0", "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as emulator:
        assert emulator.stdout is not None
        lines = []
        for line in emulator.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        (address,) = [line.split()[-1] for line in lines if line.startswith("OpenAPI page:")]
        page = requests.get(address, timeout=60).text
        (store,) = [line.split()[-3:] for line in lines if line.startswith("Object store (S3):")]
        refused = requests.get(store[0].rstrip(","), timeout=60)  # it is there, and takes signed requests only
        (tasks_url,) = [line.split()[-1] for line in lines if line.startswith("curl -sS -X GET ")]
        seeded = {task["task_id"]: task["name"] for task in requests.get(tasks_url, timeout=60).json()}
        answers = [send(line) for line in lines if line.startswith("curl ")]
        emulator.send_signal(signal.SIGINT)
        rest, errors = emulator.communicate(timeout=TIMEOUT)
    assert (emulator.returncode, rest, errors) == (0, "Ended.\n", "")
    assert "swagger" in page
    assert len(seeded) == 3
    for task_id, name in seeded.items():
        assert any(line.split()[:1] == [task_id] and name in line for line in lines)
    assert [answer.status_code for answer in answers] == [200] * 9
    (export,) = [line for line in lines if line.startswith("export ")]
    script = f'{export}printf %s "$AIRFLOW_CONN_MODELARTS_DEFAULT"'
    pasted = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(pasted)["conn_type"] == "modelarts"
    assert [f"{json.loads(pasted)['extra']['obs_endpoint']},", "bucket", "my-bucket"] == store
    assert refused.status_code == 403


def send(curl: str) -> requests.Response:
    """Send the request of a line that begins with `curl`."""
    _, _, _, method, url, *options = shlex.split(curl)
    headers = dict([options[1].split(": ")]) if options else {}
    return requests.request(method, url, headers=headers, data=options[3] if options else None, timeout=60)


@pytest.mark.parametrize("command", [["emulator"], ["run", "dag.py"]])
def test_the_local_modelarts_has_the_limits_of_the_command_line(command: list[str]) -> None:
    limits = ["--running-limit", "7", "--request-rate", "0.001", "--task-duration", "3"]
    with emulator_command.create_server(cli.build_parser().parse_args([*command, *limits])) as server:
        assert (server.state.settings.running_limit, server.state.settings.task_duration) == (7, 3.0)
        answers = [requests.get(f"{server.url}/v2/{accounts.PROJECT_ID}/processor-tasks", timeout=60) for _ in "ab"]
    assert [answer.status_code for answer in answers] == [401, 429]


def test_a_port_in_use_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["emulator", "--port", str(port)]) == 2
        assert cli.main(["emulator", "--port", "0", "--obs-port", str(port)]) == 2
    assert capsys.readouterr().err.count(f"cannot listen on 127.0.0.1:{port}: Address already in use") == 2


def test_an_address_that_other_machines_reach_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["emulator", "--host", "0.0.0.0"]) == 2
    assert "loopback" in capsys.readouterr().err


# Signals and output


def test_a_second_signal_does_not_interrupt_the_clean_up_and_signal_handlers_are_restored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def serve(arguments: argparse.Namespace) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            print("cleaned up")
        return 0

    monkeypatch.setattr(emulator_command, "serve", serve)
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
            signal.pthread_kill(threading.get_ident(), number)  # another thread does not block them
        with pytest.raises(Interrupted):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    assert complaints == []


def test_sighup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli._signals_interrupt():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_characters_that_the_terminal_lacks_are_escaped() -> None:
    code = (
        "import sys; from airflow_modelarts.testing import cli, emulator_command;"
        "emulator_command.serve = lambda _: print('\\u732b \\ud800') or 0;"
        "sys.exit(cli.main(['emulator']))"
    )
    finished = python(code, {**os.environ, "PYTHONIOENCODING": "iso-8859-15"})
    assert finished.stdout == "\\u732b \\ud800\n"


# The processing tasks of --seed


def request_a_list(server: EmulatorServer) -> None:
    requests.get(f"{server.url}/v2/{accounts.PROJECT_ID}/processor-tasks", timeout=60)


def test_active_seeds_run_and_end_after_the_dags_first_request() -> None:
    now = 100.0
    with EmulatorServer() as server:
        tasks = seed(server.state, 5)
        running, initialized = tasks[0], tasks[4]
        seeds = ActiveSeeds(server, tasks, 5.0, clock=lambda: now)
        assert seeds.change_due() == []
        now += 1000
        assert seeds.change_due() == [], "the DAG has sent no request yet"
        request_a_list(server)
        assert seeds.change_due() == []
        now += 5
        assert seeds.change_due() == [(running, "completed"), (initialized, "running")]
        assert seeds.change_due() == []
        now += 5
        assert seeds.change_due() == [(initialized, "completed")]
        now += 5
        assert seeds.change_due() == []
        assert server.state.status(initialized.task_id) == 2


def test_a_seed_that_the_dag_has_deleted_is_not_changed() -> None:
    with EmulatorServer() as server:
        tasks = seed(server.state, 5)
        seeds = ActiveSeeds(server, tasks, 0.0)
        server.state.delete_task(accounts.PROJECT_ID, tasks[0].task_id)
        request_a_list(server)
        assert seeds.change_due() == [(tasks[4], "running")]
