"""The README's Python runs, and its two commands are there for the gate to find."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import airflow
import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from requests_mock import Mocker

from airflow_modelarts import operators
from airflow_modelarts.testing.emulator import EmulatorServer

README = (Path(__file__).parents[2] / "README.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", README, re.DOTALL))
ON_AIRFLOW_2 = airflow.__version__.startswith("2.")
#: The recipes that are DAGs in every version of Airflow.
DAGS = ("wait", "run", "chain", "many", "audit", "rest")
TASKS = "https://modelarts.example.com/v2/0123456789abcdef0123456789abcdef/processor-tasks"


def run(name: str) -> dict[str, Any]:
    code = EXAMPLES[name]
    if ON_AIRFLOW_2:
        code = code.replace("from airflow.sdk import", "from airflow.providers.common.compat.sdk import")
    variables: dict[str, Any] = {}
    exec(compile(code, f"README.md, example {name}", "exec"), variables)
    return variables


def test_every_block_of_python_is_an_example_that_is_run_here() -> None:
    assert README.count("```python") == len(EXAMPLES)
    assert set(EXAMPLES) == {*DAGS, "event", "hook", "patience", "own", "emulator"}


@pytest.mark.parametrize("name", DAGS)
def test_the_dags_are_built(name: str) -> None:
    run(name)


def test_every_public_name_has_an_example() -> None:
    sensor, emulator, audit = {"ModelArtsProcessorTaskSensor"}, {"EmulatorServer"}, {"AuditRules"}
    triggers = {"ProcessorTaskTrigger", "ProcessorTaskEventTrigger"}
    hooks = {"ModelArtsHook", "ModelArtsAsyncHook", "RetryPolicy", "ModelArtsError", "ModelArtsNotFoundError"}
    code = "".join(EXAMPLES.values())
    public = {*operators.__all__, *sensor, *triggers, *hooks, *emulator, *audit}
    assert [name for name in sorted(public) if name not in code] == []


def test_the_test_against_the_emulator_passes(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(EXAMPLES["emulator"])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout
    assert "1 passed" in finished.stdout


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"json": {"task_id": "AcYfsdfhGyrWL5TtahH", "status": 2}}, "completed"),
        ({"status_code": 404, "json": {"error_code": "ModelArts.4700"}}, "gone"),
        ({"status_code": 400, "json": {"error_code": "ModelArts.0104"}}, "was refused as ModelArts.0104"),
    ],
)
def test_the_coroutine_tells_the_status_or_what_is_wrong(
    emulator: EmulatorServer, capsys: pytest.CaptureFixture[str], answer: dict[str, Any], told: str
) -> None:
    body = json.dumps(answer["json"])
    emulator.faults.answer(answer.get("status_code", 200), body, {"Content-Type": "application/json"})
    run("patience")
    assert told in capsys.readouterr().out


def test_an_operator_of_ones_own_defers_and_goes_on(emulator: EmulatorServer) -> None:
    task = emulator.state.add_task(status=2)
    operator = run("own")["CountFeaturesOperator"](task_id="count", processor_task_id=task.task_id)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute({})
    assert deferred.value.method_name == "count"
    assert operator.count({}, {"task_id": task.task_id, "status": 2}) > 0
    with pytest.raises(RuntimeError, match="no such task"):
        operator.count({}, {"error": "no such task"})


@pytest.mark.skipif(ON_AIRFLOW_2, reason="asset watchers came with Airflow 3")
def test_the_dag_that_an_event_starts_is_built() -> None:
    run("event")


def test_the_hooks_example_creates_and_lists(requests_mock: Mocker, capsys: pytest.CaptureFixture[str]) -> None:
    requests_mock.post(TASKS, json={"task_id": "abc"})
    requests_mock.get(TASKS, json={"count": 1, "tasks": [{"task_id": "abc", "name": "clean", "status": 1}]})
    run("hook")
    assert capsys.readouterr().out.endswith("abc clean running\n"), "Airflow 2 logs to the same place"


@pytest.mark.parametrize("name", ["run", "test"])
def test_the_two_commands_are_one_line_each(name: str) -> None:
    (command,) = re.findall(rf"<!-- command: {name} -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert "\n" not in command
    install = r"python3 -m venv \.venv && \.venv/bin/pip install (-q )?-c tests/constraints-airflow-3\.3\.txt -e "
    assert re.match(install, command)


def test_every_block_of_shell_is_one_that_is_run_somewhere() -> None:
    marks = re.findall(r"<!-- (command|shell): (\w+) -->\n```bash\n", README)
    assert README.count("```bash") == len(marks)
    # The gate runs the commands, a real Airflow adds the connections, and the command line's tests run the others.
    by_the_gate = {("command", name) for name in ("run", "test", "install")}
    connections = {("shell", auth) for auth in ("access_key", "password", "token", "agency", "environment")}
    assert set(marks) == {*by_the_gate, *connections, ("shell", "emulator"), ("shell", "seed")}
