"""What downstream tasks receive of an operator's outputs, and how bodies in text and files are sent."""

from typing import Any

import pytest

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox
from tests.support.waiting import TIMEOUT

PATH = {"type": "OBS", "path": "obs://outputs/out/"}
FOUND = ["features", "labels", "sample_count"]


def run(sandbox: Sandbox, dag_id: str, **conf: str) -> str:
    """Run a DAG, and return the run's id."""
    run_id = sandbox.trigger(dag_id, conf=conf)
    ended = sandbox.wait(dag_id, run_id, timeout=TIMEOUT)
    failed = {x.task_id for x in sandbox.task_instances(dag_id, run_id) if x.state == "failed"}
    assert ended == "success", [sandbox.task_log(dag_id, run_id, task_id)[-3000:] for task_id in failed]
    return run_id


@pytest.fixture(scope="module")
def taken(sandbox: Sandbox, emulator: EmulatorServer) -> dict[tuple[str, int, str], Any]:
    """The XComs of a run, by task, map index and key."""
    state = emulator.state
    analysis = state.add_task("an-analysis", status=2, body={"work_path": PATH})
    validation = state.add_task("a-validation", template="sys_data_validation", status=2)
    run_id = run(sandbox, "outputs", analysis=analysis.task_id, validation=validation.task_id)
    return {(x.task_id, x.map_index, x.key): x.value for x in sandbox.xcoms("outputs", run_id)}


@pytest.mark.parametrize(
    ("task_id", "arrived"),
    [
        ("take_analysis", [FOUND, PATH, "str"]),
        ("take_validation", [None, None, "str"]),
        ("take_analyse_worker", [FOUND, PATH, None]),
        ("take_analyse_triggerer", [FOUND, PATH, None]),
        ("take_validate_worker", [None, None, "dict"]),
        ("take_validate_triggerer", [None, None, "dict"]),
    ],
)
def test_downstream_tasks_get_outputs_with_and_without_a_value(taken: Any, task_id: str, arrived: list[Any]) -> None:
    assert taken[task_id, -1, "return_value"] == arrived


def test_downstream_tasks_receive_the_outputs_of_mapped_tasks(taken: Any) -> None:
    assert taken["take_all", -1, "return_value"] == [[FOUND, None], [PATH, None], []]
    assert taken["take_all_made", -1, "return_value"] == [[FOUND, None], [None, None], [None, "dict"]]


def test_downstream_tasks_receive_outputs_in_a_mapped_group(taken: Any) -> None:
    assert taken["each.take", 0, "return_value"] == [FOUND, PATH, None]
    assert taken["each.take", 1, "return_value"] == [None, None, None]


def test_an_output_that_is_none_can_be_pulled(taken: Any) -> None:
    assert taken["pull", -1, "return_value"] == [True, True, False]


def test_there_is_one_xcom_for_a_task_and_none_for_each_of_its_fields(taken: Any) -> None:
    keys = {key for task_id, _, key in taken if task_id == "validate_worker"}
    assert {"result", "work_path", "version", "processor_task_id", "return_value"} <= keys
    assert keys.isdisjoint({"name", "status", "status_name", "template", "inputs"})
    assert {key for task_id, _, key in taken if task_id == "reads"}.isdisjoint({"name", "status"})
    assert not {key for task_id, _, key in taken if task_id == "validate_quietly"} - {"_link_ModelArtsConsoleLink"}


def test_bodies_in_text_and_files_keep_their_types(sandbox: Sandbox, emulator: EmulatorServer) -> None:
    run_id = run(sandbox, "bodies")
    made = {(x.task_id, x.map_index): x.value for x in sandbox.xcoms("bodies", run_id) if x.key == "processor_task_id"}
    bodies = {name: emulator.state.find_task(task_id).body for name, task_id in made.items()}
    text = {"n": 7, "text": "7", "on": True}
    file = {"n": 7, "text": "20261125", "on": True}
    assert {name: body["template"]["operator_params"][0]["params"] for name, body in bodies.items()} == {
        ("from_text", -1): text,
        **dict.fromkeys([("from_file", -1), ("from_files", 0), ("from_files", 1), ("from_files", 2)], file),
    }
    assert bodies["from_text", -1]["version_id"] == "20261125"
    assert bodies["from_file", -1]["description"] == "1, 2"
    assert [bodies["from_files", index]["version_id"] for index in range(3)] == ["1e5", "20261125", "7"]
    assert all(bodies["from_files", index]["name"].startswith("20261125-") for index in range(3))
    assert bodies["from_files", 0]["inputs"] == [{"type": "DATASET", "source": "1_000"}]
