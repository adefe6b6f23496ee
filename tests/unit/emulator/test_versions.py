"""Versions of data-processing tasks."""

from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.service.accounts import PROJECT_ID
from airflow_modelarts.testing.emulator.service.projects import VersionQuery
from tests.support.calling import DATA_VALIDATION, FEATURE_ANALYSIS
from tests.support.service import describe, error_code, new_version


def test_a_data_processing_task_starts_with_a_version_and_a_feature_analysis_has_none(state: EmulatorState) -> None:
    processing = state.create_task(PROJECT_ID, DATA_VALIDATION)
    analysis = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    assert describe(state, processing)["version_count"] == 1
    assert "version_count" not in describe(state, analysis)
    assert state.list_versions(PROJECT_ID, analysis.task_id, VersionQuery()) == {"count": 0, "versions": []}
    assert error_code(state.describe_version, PROJECT_ID, analysis.task_id, "x") == "ModelArts.4636"
    body = {**FEATURE_ANALYSIS, "name": "V001"}
    assert error_code(state.create_version, PROJECT_ID, analysis.task_id, body) == "ModelArts.0101"


def test_a_task_has_the_status_of_its_newest_version(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    state.clock.advance(10)
    assert state.status(task.task_id) == 2
    state.next_task(status=3)
    new_version(state, task)
    assert state.status(task.task_id) == 0
    state.clock.advance(10)
    assert state.status(task.task_id) == 3
    assert describe(state, task)["version_count"] == 2


def test_versions_are_numbered_and_listed_in_either_order(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    for _ in range(2):
        new_version(state, task)
    state.clock.advance(2)
    listed = state.list_versions(PROJECT_ID, task.task_id, VersionQuery(order="asc", limit=2))
    assert (listed["count"], [v["version_name"] for v in listed["versions"]]) == (3, ["V001", "V002"])
    newest = state.list_versions(PROJECT_ID, task.task_id, VersionQuery(limit=2))["versions"]
    assert [version["version_name"] for version in newest] == ["V003", "V002"]
    state.delete_version(PROJECT_ID, task.task_id, newest[0]["task_version_id"])
    new_version(state, task)
    assert task.versions[-1].version_name == "V004"


def test_a_version_is_described_with_the_fields_of_its_body(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    version_id = new_version(state, task, description="again", work_path={"type": "OBS", "path": "/bucket/out"})
    version = state.describe_version(PROJECT_ID, task.task_id, version_id)
    assert version["task_id"] == task.task_id
    assert (version["description"], version["work_path"]["path"]) == ("again", "/bucket/out")
    assert (version["inputs"], version["template"]) == (DATA_VALIDATION["inputs"], DATA_VALIDATION["template"])
    assert describe(state, task)["work_path"] == DATA_VALIDATION["work_path"]


def test_a_version_with_another_template_or_another_tasks_name_is_refused(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    state.add_task("taken")
    version = {name: value for name, value in DATA_VALIDATION.items() if name != "create_version"}
    other_template = {**version, "template": {"id": "sys_data_cleaning"}}
    assert error_code(state.create_version, PROJECT_ID, task.task_id, other_template) == "ModelArts.0101"
    assert error_code(state.create_version, PROJECT_ID, task.task_id, {**version, "name": "taken"}) == "ModelArts.4709"


def test_stopping_a_running_version_stops_its_task(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    version_id = task.versions[0].version_id
    assert error_code(state.stop_version, PROJECT_ID, task.task_id, version_id) == "ModelArts.4850"
    state.clock.advance(5)
    state.stop_version(PROJECT_ID, task.task_id, version_id)
    assert state.describe_version(PROJECT_ID, task.task_id, version_id)["status"] == 4
    assert state.status(task.task_id) == 4
    assert error_code(state.stop_version, PROJECT_ID, task.task_id, version_id) == "ModelArts.0101"


def test_a_task_without_versions_keeps_the_status_of_the_last_one(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    first = task.versions[0].version_id
    second = new_version(state, task)
    assert error_code(state.delete_version, PROJECT_ID, task.task_id, second) == "ModelArts.4850"
    state.clock.advance(10)
    state.delete_version(PROJECT_ID, task.task_id, first)
    state.fail(task.task_id)
    state.delete_version(PROJECT_ID, task.task_id, second)
    assert state.status(task.task_id) == 3
    assert describe(state, task)["version_count"] == 0
    assert error_code(state.delete_version, PROJECT_ID, task.task_id, second) == "ModelArts.4636"
