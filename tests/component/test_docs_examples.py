"""The code blocks of README.md and docs/ run, and the commands that the gate looks for are there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import airflow
import pytest
import requests
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS
from requests_mock import Mocker

from airflow_modelarts import operators
from airflow_modelarts.connection.fields import AUTH_KINDS
from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.testing.emulator import EmulatorServer
from tests.support.documents import EXAMPLES, PAGES, SHELL
from tests.support.waiting import TIMEOUT

ON_AIRFLOW_2 = airflow.__version__.startswith("2.")
#: The examples that are DAGs in every version of Airflow.
DAGS = (
    *("wait", "run", "chain", "many", "audit", "rest", "export", "minimal", "outlets", "fan_out", "output"),
    *("fail_fast", "audit_failures", "goes_on", "reuse"),
)
TASKS = "https://modelarts.example.com/v2/0123456789abcdef0123456789abcdef/processor-tasks"


def run(name: str) -> dict[str, Any]:
    code = EXAMPLES[name]
    if ON_AIRFLOW_2:
        code = code.replace("from airflow.sdk import", "from airflow.providers.common.compat.sdk import")
    variables: dict[str, Any] = {}
    exec(compile(code, f"example {name}", "exec"), variables)
    return variables


def test_every_python_block_is_an_example_that_runs_here() -> None:
    assert sum(text.count("```python") for text in PAGES.values()) == len(EXAMPLES)
    names = ("retry_policy", "event", "react", "hook", "patience", "own", "emulator", "place")
    assert set(EXAMPLES) == {*DAGS, *names}


@pytest.mark.parametrize("name", DAGS)
def test_the_dags_are_built(name: str) -> None:
    run(name)


def test_every_public_name_has_an_example() -> None:
    sensor, emulator, audit = {"ModelArtsProcessorTaskSensor"}, {"EmulatorServer"}, {"AuditRules"}
    triggers = {"ProcessorTaskTrigger", "ProcessorTaskEventTrigger"}
    hooks = {"ModelArtsHook", "ModelArtsAsyncHook", "RetryPolicy", "ModelArtsError", "ModelArtsNotFoundError"}
    code = "".join(EXAMPLES.values())
    policy = {"ModelArtsRetryPolicy"}
    public = {*operators.__all__, *sensor, *triggers, *hooks, *emulator, *audit, *policy}
    assert [name for name in sorted(public) if name not in code] == []


def test_the_test_against_the_emulator_passes(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(EXAMPLES["emulator"])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT, cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout
    assert "1 passed" in finished.stdout


@pytest.mark.parametrize(
    ("answer", "printed"),
    [
        ({"json": {"task_id": "AcYfsdfhGyrWL5TtahH", "status": 2}}, "completed"),
        ({"status_code": 404, "json": {"error_code": "ModelArts.4700"}}, "gone"),
        ({"status_code": 400, "json": {"error_code": "ModelArts.0104"}}, "was refused as ModelArts.0104"),
    ],
)
def test_the_coroutine_prints_the_status_or_the_error(
    emulator: EmulatorServer, capsys: pytest.CaptureFixture[str], answer: dict[str, Any], printed: str
) -> None:
    body = json.dumps(answer["json"])
    emulator.faults.answer(answer.get("status_code", 200), body, {"Content-Type": "application/json"})
    run("patience")
    assert printed in capsys.readouterr().out


def test_the_custom_operator_defers_and_resumes(emulator: EmulatorServer) -> None:
    task = emulator.state.add_task(status=2)
    operator = run("own")["CountFeaturesOperator"](task_id="count", processor_task_id=task.task_id)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute({})
    assert deferred.value.method_name == "count"
    assert operator.count({}, {"task_id": task.task_id, "status": 2}) > 0
    with pytest.raises(RuntimeError, match="no such task"):
        operator.count({}, {"error": "no such task"})


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="retry policies need Airflow 3.3")
def test_the_dag_with_a_retry_policy_is_built() -> None:
    run("retry_policy")


@pytest.mark.skipif(ON_AIRFLOW_2, reason="asset watchers need Airflow 3")
@pytest.mark.parametrize("name", ["event", "react"])
def test_the_dag_with_an_asset_watcher_is_built(name: str) -> None:
    run(name)


@pytest.mark.skipif(ON_AIRFLOW_2, reason="asset watchers need Airflow 3")
def test_the_dag_that_reads_results_reads_each_end_once() -> None:
    variables = run("react")
    payload = {"dedupe_key": "k", "task_id": "abc", "modelarts_conn_id": "mine", "project_id": "p"}
    events = [SimpleNamespace(extra={"payload": {**payload, "dedupe_key": key}}) for key in ("k", "l", "k")]

    class Received:
        """Airflow's mapping of the events by asset; in Airflow 3.0 an asset is no key of a dict."""

        def __getitem__(self, asset: Any) -> Any:
            return events if asset == variables["analyses"] else []

    found = variables["read_results"]().get_task("ends").python_callable(Received())
    once = {"processor_task_id": "abc", "modelarts_conn_id": "mine", "project_id": "p"}
    assert found == [once, once]


def test_the_hooks_example_creates_and_lists(requests_mock: Mocker, capsys: pytest.CaptureFixture[str]) -> None:
    requests_mock.post(TASKS, json={"task_id": "abc"})
    requests_mock.get(TASKS, json={"count": 1, "tasks": [{"task_id": "abc", "name": "clean", "status": 1}]})
    run("hook")
    assert capsys.readouterr().out.endswith("abc clean running\n"), "Airflow 2 logs to the same place"


@pytest.mark.parametrize("name", ["run", "test"])
def test_the_two_commands_are_one_line_each(name: str) -> None:
    command = SHELL[f"command: {name}"]
    assert "\n" not in command
    install = ".venv/bin/pip install -q -c tests/constraints-airflow-3.3.txt -e "
    assert command.startswith(f"python3 -m venv .venv && {install}")


def test_the_gate_finds_its_commands_in_the_readme() -> None:
    for name in ("run", "test", "install"):
        assert f"<!-- command: {name} -->\n```bash\n" in PAGES["README.md"]


def test_every_shell_block_runs_somewhere() -> None:
    assert sum(text.count("```bash") for text in PAGES.values()) == sum(
        text.count(f"<!-- {mark} -->\n```bash\n") for text in PAGES.values() for mark in SHELL
    )
    by_the_gate = {f"command: {name}" for name in ("run", "test", "install")}
    in_test_recipes = {f"shell: {auth}" for auth in AUTH_KINDS}
    in_test_cli, in_test_run_command, here = {"shell: emulator"}, {"shell: seed"}, {"shell: control"}
    assert set(SHELL) == by_the_gate | in_test_recipes | in_test_cli | in_test_run_command | here


def test_the_curl_lines_control_the_emulator(emulator: EmulatorServer) -> None:
    script = SHELL["shell: control"].replace("curl -sS", "curl -sS --fail --noproxy '*'")
    environment = {**os.environ, "MODELARTS": emulator.url}
    command = ["bash", "-euo", "pipefail", "-c", script]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=TIMEOUT)
    answers = [requests.get(f"{emulator.url}/v2/project/processor-tasks", timeout=60).status_code for _ in range(4)]
    assert [status == 429 for status in answers] == [True, True, True, False]
    with ModelArtsHook() as hook:
        by_hand, *earlier = hook.list_processor_tasks()
        assert [task.create_time for task in earlier] == [1_777_636_800_000] * 20
        assert (by_hand.name, by_hand.status_name) == ("by-hand", "completed")
        for name in ("one", "two"):
            inputs = [{"type": "OBS", "source": "obs://my-bucket/"}]
            template = {"id": "sys_data_validation"}
            created = hook.create_processor_task(name=name, template=template, inputs=inputs, create_version=True)
            failure = "the bucket is full" if name == "one" else None
            assert hook.describe_processor_task(created.task_id).error_msg == failure
    settings = requests.get(f"{emulator.url}/emulator/settings", timeout=60).json()
    assert (settings["running_limit"], settings["template_limits"]) == (2, {"sys_data_cleaning": 1})
