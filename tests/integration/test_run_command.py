"""`airflow-modelarts run` and its sandbox, in real Airflow processes."""

import os
import re
import shlex
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from airflow_modelarts.testing.cli import main
from airflow_modelarts.testing.command import UsageError
from airflow_modelarts.testing.run_command import choose_dag
from airflow_modelarts.testing.sandbox import DagNotFoundError, Sandbox, SandboxError
from tests.support.waiting import TIMEOUT, wait_until

ROOT = Path(__file__).parents[2]
HEAD = """\
from datetime import datetime, timedelta
from airflow.providers.common.compat.sdk import dag, task
"""


def write_dag(folder: Path, text: str) -> Path:
    file = folder / "my_dag.py"
    file.write_text(HEAD + dedent(text))
    return file


def processes_of(folder: Path) -> list[str]:
    """Return the processes whose arguments, environment or open files name a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            names = [*process.cmdline(), *process.environ().values(), *(file.path for file in process.open_files())]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in name for name in names):
            found.append(" ".join(process.cmdline()))
    return found


def test_a_successful_run_prints_its_xcoms_and_leaves_nothing_behind(
    tmp_path: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "helper.py").write_text("GREETING = 'hello from beside the DAG'\n")
    (tmp_path / "broken.py").write_text("from airflow import dag_that_does_not_exist\n")
    (tmp_path / ".venv" / "lib").mkdir(parents=True)
    (tmp_path / ".venv" / "lib64").symlink_to("lib")  # at which Airflow stops to walk through a folder
    dag_file = write_dag(
        tmp_path,
        """
        from helper import GREETING

        @dag(schedule="@daily", start_date=datetime(2024, 1, 1), catchup=True, is_paused_upon_creation=True)
        def greet():
            @task
            def greeting(params=None, ds=None):
                return {"greeting": GREETING, "name": params["name"], "date": ds}

            greeting()

        greet()
        """,
    )
    before = sorted(tmp_path.iterdir())

    status = main(["run", str(dag_file), "--conf", '{"name": "Ada"}', "--task-duration", "1"])

    output = capsys.readouterr().out
    assert status == 0, output
    assert "hello from beside the DAG" in output
    assert '"name": "Ada"' in output
    assert re.search(r"^ +[\d.]+ s  greeting +success$", output, re.MULTILINE)
    assert re.search(r"^greeting +success +1 +[\d.]+ s$", output, re.MULTILINE)
    assert "Run of greet: success" in output
    assert sorted(tmp_path.iterdir()) == before
    assert list(scratch.iterdir()) == []
    assert processes_of(scratch) == []


def test_a_failed_run_prints_its_failed_tries(
    tmp_path: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dag_file = write_dag(
        tmp_path,
        """
        @dag(schedule=None, start_date=datetime(2024, 1, 1))
        def fail():
            @task(retries=1, retry_delay=timedelta(seconds=1))
            def boom():
                raise RuntimeError("it failed for good \\x1b[2J")

            @task(retries=1, retry_delay=timedelta(seconds=1))
            def recovers(ti=None):
                if ti.try_number == 1:
                    raise RuntimeError("it failed once")

            @task
            def after():
                return "never"

            recovers() >> boom() >> after()

        fail()
        """,
    )

    assert main(["run", str(dag_file)]) == 1

    output = capsys.readouterr().out
    assert "Run of fail: failed" in output
    assert re.search(r"boom +failed \(try 2\)", output)
    assert re.search(r"^after +upstream_failed", output, re.MULTILINE)
    logs = re.split(r"\nThe end of the log of (\w+, try \d)\n", output)
    assert logs[1::2] == ["recovers, try 1", "boom, try 1", "boom, try 2"]
    assert "RuntimeError: it failed once" in logs[2]
    for log in (logs[4], logs[6]):
        assert r"RuntimeError: it failed for good \x1b[2J" in log
        assert "my_dag.py" in log
    assert "\x1b" not in output
    assert list(scratch.iterdir()) == []


def test_an_import_error_is_a_usage_error_with_its_traceback(
    tmp_path: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "helper.py").write_text("def deep():\n    deeper()\n\n\ndef deeper():\n    import no_such_module\n")
    dag_file = write_dag(tmp_path, "import helper  # for the dag\nhelper.deep()\n")

    assert main(["run", str(dag_file)]) == 2

    errors = capsys.readouterr().err
    assert "No module named 'no_such_module'" in errors
    assert re.search(r"my_dag\.py.*\n(?s:.*)in deep\n(?s:.*)in deeper\n", errors), (
        "all frames of the user's code are printed"
    )
    assert "site-packages/airflow/" not in errors
    assert list(scratch.iterdir()) == []


def test_the_sensor_of_the_readme_sees_a_seeded_task_run_and_complete(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (block,) = re.findall(r"<!-- shell: seed -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    command, *arguments = shlex.split(block)

    assert (command, main(arguments)) == ("airflow-modelarts", 0)

    output = capsys.readouterr().out
    assert re.search(r"^9UZUAOkihFPhD7HyO7L +running ", output, re.MULTILINE)
    assert "processing task 9UZUAOkihFPhD7HyO7L is completed now" in output
    assert '"status_name": "completed"' in output
    assert list(scratch.iterdir()) == []


def test_a_conf_that_breaks_the_params_is_a_usage_error(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(ROOT / "dags_examples" / "wait_for_console_task.py")]) == 2
    errors = capsys.readouterr().err
    assert "processor_task_id" in errors
    assert "--conf" in errors
    assert list(scratch.iterdir()) == []


def test_a_run_that_times_out_names_its_unfinished_tasks(
    scratch: Path, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    dag_file = sandbox.dags_folder / "sandbox_dags.py"

    assert main(["run", str(dag_file), "sandbox_slow", "--timeout", "1"]) == 1

    output = capsys.readouterr().out
    assert "The run has not ended within 1 s. Not done: sleep (" in output
    assert processes_of(scratch) == []


def test_a_signal_ends_all_processes_and_keep_keeps_the_home(scratch: Path, sandbox: Sandbox) -> None:
    dag_file = sandbox.dags_folder / "sandbox_dags.py"
    command = [sys.executable, "-m", "airflow_modelarts.testing.cli", "run", str(dag_file), "sandbox_slow", "--keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if re.search(r" s  sleep +running", line):
                break
        assert processes_of(scratch)
        run.send_signal(signal.SIGTERM)
        output, errors = run.communicate(timeout=TIMEOUT)

    assert run.returncode == 128 + signal.SIGTERM
    assert "Interrupted" in errors
    (home,) = scratch.iterdir()
    assert f"The scratch Airflow is kept in {home}" in output
    assert (home / "environment.sh").stat().st_mode & 0o077 == 0
    assert (home / "airflow.db").exists()
    assert processes_of(scratch) == []


def test_the_sandbox_runs_mapped_tasks_and_reads_their_xcoms_and_logs(sandbox: Sandbox) -> None:
    sandbox.wait_for_dags("sandbox_mapped", timeout=TIMEOUT)
    run_id = sandbox.trigger("sandbox_mapped", {"why": "test"})

    assert sandbox.wait("sandbox_mapped", run_id, timeout=TIMEOUT) == "success"

    instances = sandbox.task_instances("sandbox_mapped", run_id)
    assert [instance.label for instance in instances] == ["numbers", "double[0]", "double[1]", "total"]
    assert {instance.state for instance in instances} == {"success"}
    assert all(i.start_date and i.end_date and i.start_date <= i.end_date for i in instances)
    values = {xcom.label: xcom.value for xcom in sandbox.xcoms("sandbox_mapped", run_id) if xcom.key == "return_value"}
    assert values["double[1]"] == 4
    assert values["total"]["total"] == 6
    assert "doubling 2" in sandbox.task_log("sandbox_mapped", run_id, "double", 1)


def test_the_dag_must_be_named_if_a_file_has_several(sandbox: Sandbox) -> None:
    sandbox.wait_for_dags("sandbox_mapped", "sandbox_slow", timeout=TIMEOUT)
    with pytest.raises(UsageError, match=r"name one after the file:(?s:.*)\n  sandbox_mapped\n"):
        choose_dag(sandbox, Path("many.py"), None)
    with pytest.raises(UsageError, match="defines no DAG 'nope'"):
        choose_dag(sandbox, Path("many.py"), "nope")
    assert choose_dag(sandbox, Path("many.py"), "sandbox_slow") == "sandbox_slow"


def test_sandbox_errors_name_the_missing_dag_and_the_failed_command(sandbox: Sandbox) -> None:
    with pytest.raises(DagNotFoundError, match="no DAG nope in"):
        sandbox.wait_for_dags("nope", timeout=0)
    with pytest.raises(
        SandboxError, match="did not start a run of DAG 'nope': GET dags/nope was refused with HTTP 404"
    ):
        sandbox.trigger("nope")
    with pytest.raises(SandboxError, match="`airflow version` did not end within 0 s"):
        sandbox.airflow("version", timeout=0)


def test_a_killed_component_is_named_and_can_be_restarted(sandbox: Sandbox) -> None:
    triggerer = sandbox.component("triggerer")
    assert triggerer.pid is not None
    os.kill(triggerer.pid, signal.SIGKILL)
    wait_until(lambda: triggerer.poll() is not None, "the end of the triggerer")
    with pytest.raises(SandboxError, match="Airflow's triggerer exited unexpectedly with status -9"):
        sandbox.check()

    sandbox.restart("triggerer")

    sandbox.check()
    with pytest.raises(SandboxError, match="triggerer did not come up within 0 s"):
        sandbox.wait_until_up("triggerer", newer_than=datetime.max.replace(tzinfo=UTC), timeout=0)
