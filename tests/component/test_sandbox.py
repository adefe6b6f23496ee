"""The sandbox's environment, processes and clean-up; no test here starts a whole Airflow."""

import json
import os
import pkgutil
import re
import signal
import socket
import stat
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests_mock
from sqlalchemy.engine import make_url

from airflow_modelarts.testing.sandbox import Component, RunRefusedError, Sandbox, SandboxError, configuration

CONNECTION_SETTING = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


def test_the_environment_omits_the_callers_airflow_configuration(tmp_path: Path) -> None:
    inherited = {
        "AIRFLOW_HOME": "callers",
        "AIRFLOW_CONFIG": "callers",
        "AIRFLOW__CORE__DAGS_FOLDER": "callers",
        "_AIRFLOW__AS_LIBRARY": "1",
        "AIRFLOW_CONN_MODELARTS_DEFAULT": "callers",
        "OPENLINEAGE_URL": "callers",
        "AIRFLOW_VAR_COLOUR": "blue",
        "PYTHONPATH": "relative",
        "PATH": "bin",
        "no_proxy": "example.com",
    }
    environment = configuration.scratch_environment(inherited, tmp_path)
    assert "callers" not in environment.values()
    assert "_AIRFLOW__AS_LIBRARY" not in environment
    assert environment["AIRFLOW_VAR_COLOUR"] == "blue"
    assert environment["PYTHONPATH"] == "relative"
    assert environment["PATH"].endswith(f"{os.pathsep}bin")
    assert environment["NO_PROXY"] == environment["no_proxy"] == "example.com,127.0.0.1,localhost"
    assert environment["AIRFLOW_HOME"] == str(tmp_path)


def test_airflow_can_import_the_function_that_accepts_every_python_file(tmp_path: Path) -> None:
    settings = configuration.sandbox_settings(configuration.AIRFLOW_3, tmp_path, 8080)
    might_contain_dag = pkgutil.resolve_name(settings["AIRFLOW__CORE__MIGHT_CONTAIN_DAG_CALLABLE"])
    assert might_contain_dag(str(tmp_path / "any.py"), zip_file=None)


def test_airflow_waits_for_minutes_while_another_process_writes_to_sqlite(tmp_path: Path) -> None:
    url = make_url(configuration.sandbox_settings(configuration.AIRFLOW_3, tmp_path, 8080)[CONNECTION_SETTING])
    (database,), arguments = url.get_dialect()().create_connect_args(url)
    assert (database, arguments["timeout"]) == (str(tmp_path / "airflow.db"), 120)


def test_the_port_is_none_that_the_system_may_assign_to_another_process() -> None:
    assert max(configuration.free_port() for _ in range(20)) < 32_768


def test_a_port_that_is_taken_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = configuration.free_port()
    monkeypatch.setattr(configuration, "UNASSIGNED_PORTS", [taken, *[taken] * 99])
    assert configuration.free_port() == taken
    with socket.socket() as server:
        server.bind(("127.0.0.1", taken))
        with pytest.raises(SandboxError, match=f"no port from {taken} to {taken} is free"):
            configuration.free_port()


@pytest.mark.parametrize(
    ("installed", "profile"),
    [("2.11.2", configuration.AIRFLOW_2), ("3.3.2", configuration.AIRFLOW_3), ("4.0", configuration.AIRFLOW_3)],
)
def test_the_profile_follows_the_installed_airflow(
    installed: str, profile: configuration.AirflowProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "version", lambda name: installed)
    assert configuration.installed_profile() is profile


def test_stopping_before_the_start_does_nothing(tmp_path: Path) -> None:
    scratch = Sandbox(tmp_path, keep=True)
    scratch.stop()
    assert not scratch.home.exists()
    component = Component("scheduler", ["scheduler"], {}, tmp_path / "log")
    component.terminate()
    component.kill()
    assert component.pid is None
    assert component.poll() is None
    assert component.log_end() == ""


def test_an_interrupted_stop_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = Component.kill
    interruptions = iter([KeyboardInterrupt])

    def interrupted_once(component: Component, grace: float = 0.0) -> None:
        for interruption in interruptions:
            raise interruption
        kill(component, grace)

    monkeypatch.setattr(Component, "kill", interrupted_once)
    scratch = Sandbox(tmp_path, home=tmp_path / "home")
    monkeypatch.setattr(scratch, "start", lambda: None)
    scratch.home.mkdir()
    scratch._made_home = True
    scratch.components["scheduler"] = Component("scheduler", ["scheduler"], {}, tmp_path / "log")
    with pytest.raises(KeyboardInterrupt), scratch:
        pass
    assert not scratch.home.exists()


def test_a_failed_start_leaves_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    scratch = Sandbox(tmp_path, home=home, environment={"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "nonsense"})
    with pytest.raises(SandboxError, match="`airflow db migrate` failed"), scratch:
        pytest.fail("it started")
    assert not home.exists()


def test_an_existing_home_is_refused_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(FileExistsError), Sandbox(tmp_path, home=tmp_path):
        pytest.fail("it started")
    assert (tmp_path / "precious").exists()


def test_a_component_that_ignores_sigterm_is_killed_with_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "children"
    script = f"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
children = [subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid]
open({str(marker)!r}, "w").write(repr(children) + "\\n")
time.sleep(60)
"""
    component = Component("stubborn", [], dict(os.environ), tmp_path / "log")
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


def test_the_environment_file_is_private_and_replaces_the_callers_airflow_configuration(tmp_path: Path) -> None:
    inherited = {"AIRFLOW__CORE__AUTH_MANAGER": "callers", "AIRFLOW__CORE__FERNET_KEY": "callers", "PATH": "bin"}
    environment = {"TMPDIR": "gone", "AIRFLOW__CORE__FERNET_KEY": "a b'c", "PATH": "bin"}
    file = tmp_path / "environment.sh"
    configuration.write_environment_file(file, environment, inherited)
    assert file.read_text().splitlines() == [
        "unset AIRFLOW__CORE__AUTH_MANAGER",
        "export AIRFLOW__CORE__FERNET_KEY='a b'\"'\"'c'",
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_paused_dag_is_unpaused_before_its_run(requests_mock: requests_mock.Mocker, tmp_path: Path) -> None:
    scratch = Sandbox(tmp_path)
    scratch.port = 8080
    base = f"{scratch.url}/api/{scratch.profile.api_version}"
    requests_mock.get(f"{scratch.url}/auth/token", status_code=201, json={"access_token": "t1"})
    requests_mock.get(f"{base}/dags/one", json={"is_paused": True})
    patched = requests_mock.patch(f"{base}/dags/one", json={})
    posted = requests_mock.post(f"{base}/dags/one/dagRuns", json={})
    run_id = scratch.trigger("one", {"a": 1})
    assert patched.last_request.json() == {"is_paused": False}
    assert (posted.last_request.json()["dag_run_id"], posted.last_request.json()["conf"]) == (run_id, {"a": 1})
    requests_mock.get(f"{base}/dags/two", status_code=404, json={"detail": "no such DAG"})
    with pytest.raises(RunRefusedError, match=r"did not start a run of DAG 'two': .* HTTP 404: no such DAG"):
        scratch.trigger("two")
    scratch.stop()


def test_the_package_and_the_integration_tests_use_no_tables_of_airflow() -> None:
    """The schema is not a public interface: Airflow 3.4 has other columns than 3.3."""
    root = Path(__file__).parents[2]
    files = [*(root / "airflow_modelarts").rglob("*.py"), *(root / "tests" / "integration").rglob("*.py")]
    assert len(files) > 50
    sql = re.compile(r"import sqlalchemy|from sqlalchemy|\bSELECT\b.*\bFROM\b")
    assert [file.name for file in files if sql.search(file.read_text())] == []
