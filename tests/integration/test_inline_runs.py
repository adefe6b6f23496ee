"""Waits and submissions without a scheduler: in ``dag.test()`` and ``airflow tasks test``."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_modelarts.testing.emulator import EmulatorServer

DAG_FILE = """
import json, os
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

MODES = {
    "deferrable": {"deferrable": True},
    "ends": {"end_from_trigger": True},
    "ends_silently": {"end_from_trigger": True, "do_xcom_push": False},
    "triggerer": {"start_from_trigger": True, "end_from_trigger": True},
    "version": {"deferrable": True, "task_version_id": os.environ["VERSION"]},
}
with DAG("inline", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
    for name, options in MODES.items():
        ModelArtsProcessorTaskSensor(
            task_id=name, processor_task_id=os.environ["ID_OF_" + name], poke_interval=0.2, timeout=120, **options
        )
with DAG("inline_create", schedule=None, start_date=datetime(2026, 1, 1)) as create:
    ModelArtsCreateProcessorTaskOperator(
        task_id="create",
        name="inline",
        template={"id": "sys_data_validation"},
        inputs=[{"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}],
        deferrable=True,
        poll_interval=0.2,
    )
if __name__ == "__main__":
    import sys

    run = (create if "create" in sys.argv else dag).test()
    for instance in run.get_task_instances():
        print("PUSHED", instance.task_id, json.dumps(instance.xcom_pull(task_ids=instance.task_id)))
    print("ENDED", run.state)
"""
NAMES = ("deferrable", "ends", "ends_silently", "triggerer", "version")
COMPLAINT = re.compile(
    r"(?i)unhandled exception|GeneratorExit|has no attribute|could not be pushed|unclosed|already running|Traceback"
    r"|was never (?:awaited|retrieved)"
)


class Inline:
    """A scratch Airflow without processes, and processing tasks that end once a trigger has polled them."""

    def __init__(self, emulator: EmulatorServer, home: Path) -> None:
        self._emulator = emulator
        add = emulator.state.add_task
        self.tasks = {name: add(duration=1e6) for name in NAMES if name != "version"}
        self.tasks["version"] = add(duration=1e6, template="sys_data_cleaning")
        dags = home / "dags"
        dags.mkdir()
        (dags / "inline.py").write_text(DAG_FILE)
        self._file = dags / "inline.py"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_MODELARTS_DEFAULT": emulator.airflow_connection(),
            "VERSION": self.tasks["version"].versions[0].version_id,
            **{f"ID_OF_{name}": task.task_id for name, task in self.tasks.items()},
        }
        self.airflow("db", "migrate")

    def airflow(self, *arguments: str) -> str:
        return self._run("-m", "airflow", *arguments)

    def dag_test(self, *arguments: str) -> str:
        return self._run(str(self._file), *arguments)

    def _run(self, *arguments: str) -> str:
        over = threading.Event()
        ending = threading.Thread(target=self._end_polled_tasks, args=(over,))
        ending.start()
        try:
            done = subprocess.run(
                [sys.executable, *arguments],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=400,
                check=False,
            )
        finally:
            over.set()
            ending.join()
        assert done.returncode == 0, done.stdout
        return done.stdout

    def _end_polled_tasks(self, over: threading.Event) -> None:
        """End each task at its second poll: the first is the worker's, the next the trigger's."""
        while not over.wait(0.1):
            paths = [entry.path for entry in self._emulator.state.log.entries()]
            for task in self.tasks.values():
                if sum(task.task_id in path for path in paths) >= 2:
                    self._emulator.state.finish(task.task_id)


@pytest.fixture
def emulator() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=0.5) as server:
        yield server


@pytest.fixture
def inline(emulator: EmulatorServer, scratch: Path) -> Inline:
    return Inline(emulator, scratch)


def test_dag_test_logs_no_error_and_pushes_the_same_xcoms_in_every_mode(inline: Inline) -> None:
    output = inline.dag_test()
    assert COMPLAINT.findall(output) == [], output
    pushed = dict(re.findall(r"PUSHED (\w+) (.*)", output))
    expected = {
        name: f'{{"task_id": "{task.task_id}", "status": 2, "status_name": "completed"}}'
        for name, task in inline.tasks.items()
    }
    version = inline.tasks["version"]
    expected["version"] = (
        f'{{"task_id": "{version.task_id}", "task_version_id": "{version.versions[0].version_id}", "status": 2, '
        '"status_name": "completed"}'
    )
    expected["ends_silently"] = "null"
    assert pushed == expected
    assert "ENDED success" in output or "ENDED DagRunState.SUCCESS" in output


def test_dag_test_waits_for_capacity(inline: Inline, emulator: EmulatorServer) -> None:
    emulator.state.faults.refuse("ModelArts.4409", times=2, operation="CreateProcessorTask")
    output = inline.dag_test("create")
    assert COMPLAINT.findall(output) == [], output
    assert "ENDED success" in output or "ENDED DagRunState.SUCCESS" in output
    assert "waiting for capacity: the limit of running tasks is reached" in output
    assert sum(task.name.startswith("inline-") for task in emulator.state.all_tasks()) == 1


@pytest.mark.parametrize("name", ["deferrable", "ends_silently", "triggerer"])
def test_tasks_test_logs_no_error(inline: Inline, name: str) -> None:
    if AIRFLOW_V_3_0_PLUS:
        inline.airflow("dags", "reserialize")
    output = inline.airflow("tasks", "test", "inline", name)
    assert COMPLAINT.findall(output) == [], output
    assert f"Processing task '{inline.tasks[name].task_id}' is completed" in output
