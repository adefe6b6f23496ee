"""Creating, updating, deleting and listing tasks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.service.accounts import OTHER_PROJECT_ID, OTHER_WORKSPACE_ID, PROJECT_ID
from airflow_modelarts.testing.emulator.service.errors import ServiceError
from airflow_modelarts.testing.emulator.service.projects import TaskQuery
from tests.support.calling import DATA_VALIDATION, FEATURE_ANALYSIS
from tests.support.service import describe, error_code


def test_a_data_source_is_described_as_inputs_too(state: EmulatorState) -> None:
    described = describe(state, state.create_task(PROJECT_ID, FEATURE_ANALYSIS))
    assert described["inputs"] == [described["data_source"]]
    assert "data_source" not in describe(state, state.create_task(PROJECT_ID, DATA_VALIDATION))


@pytest.mark.parametrize(
    ("change", "expected", "field"),
    [
        ({"name": ""}, "ModelArts.0101", "name"),
        ({"name": 5}, "ModelArts.0104", "name"),
        ({"name": None}, "ModelArts.0104", "name"),
        ({"template": {}}, "ModelArts.0104", "template.id"),
        ({"template": {"id": "sys_data_guessing"}}, "ModelArts.0101", "template.id"),
        ({"description": "a<b"}, "ModelArts.0101", "description"),
        ({"description": "x" * 257}, "ModelArts.0101", "description"),
        ({"data_source": None}, "ModelArts.0101", "data_source"),
        ({"inputs": [{"type": "DATASET", "source": "x"}]}, "ModelArts.0101", "data_source"),
        ({"data_source": None, "inputs": []}, "ModelArts.0101", "inputs"),
        ({"data_source": {"type": "FTP", "source": "x"}}, "ModelArts.0101", "data_source.type"),
        ({"data_source": {"type": "DATASET"}}, "ModelArts.0101", "data_source.source"),
        ({"data_source": {"type": "OBS", "source": "bucket/key"}}, "ModelArts.0101", "data_source.source"),
        ({"data_source": {"type": "TASK", "source": "unknown"}}, "ModelArts.4612", "unknown"),
        ({"create_version": True}, "ModelArts.0101", "create_version"),
        ({"create_version": "true"}, "ModelArts.0104", "create_version"),
        ({"workspace_id": "9"}, "ModelArts.0102", "workspace_id"),
        ({"work_path": {"type": "OBS", "path": "nowhere"}}, "ModelArts.0101", "work_path.path"),
        ({"work_path": {"type": "OBS", "path": "/b" + "x" * 1024}}, "ModelArts.4350", "work_path.path"),
        ({"work_path": {"version_name": "V 1"}}, "ModelArts.0101", "work_path.version_name"),
        ({"work_path": {"version_name": "v" * 33}}, "ModelArts.0101", "work_path.version_name"),
    ],
)
def test_an_invalid_body_is_refused_with_a_code_and_the_field(
    state: EmulatorState, change: dict[str, Any], expected: str, field: str
) -> None:
    with pytest.raises(ServiceError) as caught:
        state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, **change})
    assert caught.value.code == expected
    assert field in caught.value.message
    assert not state.all_tasks()


@pytest.mark.parametrize("body", [None, [], "x", 1, True])
def test_a_body_that_is_not_an_object_is_refused(state: EmulatorState, body: Any) -> None:
    assert error_code(state.create_task, PROJECT_ID, body) == "ModelArts.0104"


@pytest.mark.parametrize(
    "place", ["obs://bucket/key", "s3://bucket/a/b/", "/bucket/key", "/bucket", "obs://my.bucket-1/"]
)
def test_every_form_of_an_obs_path_is_accepted(state: EmulatorState, place: str) -> None:
    change = {"data_source": {"type": "OBS", "source": place}, "work_path": {"type": "OBS", "path": place}}
    assert state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, **change}).body["work_path"]["path"] == place


DATASET = {"type": "DATASET", "source": "x"}


@pytest.mark.parametrize(
    ("kind", "value", "change", "expected"),
    [
        ("datasets", "gone", {"data_source": {"type": "DATASET", "source": "gone"}}, "ModelArts.4352"),
        ("datasets", "gone", {"work_path": {"type": "DATASET", "path": "gone"}}, "ModelArts.4352"),
        ("dataset_versions", "v9", {"version_id": "v9"}, "ModelArts.4353"),
        ("dataset_versions", "v9", {"data_source": {**DATASET, "version_id": "v9"}}, "ModelArts.4353"),
        ("buckets", "gone", {"data_source": {"type": "OBS", "source": "/gone/key"}}, "ModelArts.4311"),
        ("paths", "/bucket/gone", {"work_path": {"type": "OBS", "path": "/bucket/gone"}}, "ModelArts.4312"),
        ("encrypted_buckets", "kms", {"work_path": {"type": "OBS", "path": "obs://kms/x"}}, "ModelArts.0101"),
    ],
)
def test_a_missing_resource_is_refused(
    state: EmulatorState, kind: str, value: str, change: dict[str, Any], expected: str
) -> None:
    assert state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, **change, "name": "before"})
    getattr(state.missing, kind).add(value)
    assert error_code(state.create_task, PROJECT_ID, {**FEATURE_ANALYSIS, **change}) == expected


def test_a_source_can_be_another_task_or_a_tenant(state: EmulatorState) -> None:
    first = state.add_task()
    for number, source in enumerate(({"type": "TASK", "source": first.task_id}, {"type": "CUSTOM"}, {})):
        place = {"type": "OBS", "output_path": "/datasets/demo"}
        body = {"name": f"n{number}", "template": {"id": "sys_data_cleaning"}, "inputs": [source], "work_path": place}
        assert describe(state, state.create_task(PROJECT_ID, body))["inputs"] == [source]


def test_a_name_is_unique_in_its_project_until_its_task_is_deleted(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    assert error_code(state.create_task, PROJECT_ID, FEATURE_ANALYSIS) == "ModelArts.4709"
    assert state.create_task(OTHER_PROJECT_ID, FEATURE_ANALYSIS)
    state.clock.advance(10)
    state.delete_task(PROJECT_ID, task.task_id)
    assert state.create_task(PROJECT_ID, FEATURE_ANALYSIS)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("running_limit", "ModelArts.4409"), ("unfinished_limit", "ModelArts.4616"), ("task_quota", "ModelArts.0118")],
)
def test_creating_a_task_beyond_a_limit_is_refused(state: EmulatorState, limit: str, expected: str) -> None:
    setattr(state.settings, limit, 2)
    state.add_tasks(2)
    assert error_code(state.create_task, PROJECT_ID, FEATURE_ANALYSIS) == expected


@pytest.mark.parametrize("expected", ["ModelArts.4409", "ModelArts.4616"])
def test_a_limit_of_a_template_counts_and_refuses_that_template_only(state: EmulatorState, expected: Any) -> None:
    state.settings.template_limits = {"sys_data_validation": 1}
    state.settings.template_limit_code = expected
    state.add_tasks(3, template="sys_data_analyse")
    first = state.create_task(PROJECT_ID, {**DATA_VALIDATION, "name": "first"})
    second = {**DATA_VALIDATION, "name": "second"}
    assert error_code(state.create_task, PROJECT_ID, second) == expected
    assert error_code(state.create_version, PROJECT_ID, first.task_id, DATA_VALIDATION) == expected
    assert state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    assert state.create_task(OTHER_PROJECT_ID, second), "each project has limits of its own"
    state.finish(first.task_id)
    assert state.create_task(PROJECT_ID, second)


def test_each_active_version_of_a_task_counts_towards_a_limit(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    state.settings.running_limit = 2
    state.create_version(PROJECT_ID, task.task_id, DATA_VALIDATION)
    assert error_code(state.create_version, PROJECT_ID, task.task_id, DATA_VALIDATION) == "ModelArts.4409"
    task.versions[0].run.set_status(2, state.clock.now())
    assert state.create_version(PROJECT_ID, task.task_id, DATA_VALIDATION)


def test_a_reset_restores_the_limits_of_templates(state: EmulatorState) -> None:
    state.settings.template_limits["sys_data_validation"] = 0
    state.reset()
    assert state.settings.template_limits == {}


def test_only_active_tasks_count_towards_the_running_limit(state: EmulatorState) -> None:
    state.settings.running_limit = 2
    first, _ = state.add_tasks(2)
    state.finish(first.task_id)
    assert state.create_task(PROJECT_ID, FEATURE_ANALYSIS)


def test_an_update_changes_only_the_description(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    state.update_task(PROJECT_ID, task.task_id, {"description": "checked", "name": "other"})
    assert (describe(state, task)["description"], task.name) == ("checked", "V001")
    assert error_code(state.update_task, PROJECT_ID, task.task_id, {"description": "a&b"}) == "ModelArts.0101"
    assert error_code(state.update_task, PROJECT_ID, task.task_id, {}) == "ModelArts.0104"


def test_an_initializing_task_cannot_be_deleted_and_a_running_one_can(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    assert error_code(state.delete_task, PROJECT_ID, task.task_id) == "ModelArts.4850"
    state.clock.advance(1)
    state.delete_task(PROJECT_ID, task.task_id)
    assert error_code(state.describe_task, PROJECT_ID, task.task_id) == "ModelArts.4700"


def test_the_newest_task_of_a_dataset_version_is_current(state: EmulatorState) -> None:
    first, second = (state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, "name": name}) for name in "ab")
    other = state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, "name": "c", "version_id": "another"})
    assert [describe(state, task)["is_current"] for task in (first, second, other)] == [False, True, True]
    state.clock.advance(5)
    state.delete_task(PROJECT_ID, second.task_id)
    assert describe(state, first)["is_current"] is True
    state.delete_task(PROJECT_ID, other.task_id)
    assert names(state.list_tasks(PROJECT_ID, TaskQuery(query_current=True))) == ["a"]


def test_two_added_tasks_of_one_name_can_both_be_deleted(state: EmulatorState) -> None:
    for task in state.add_tasks(2, name="same", status=2):
        state.delete_task(PROJECT_ID, task.task_id)
    assert state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, "name": "same"})


def names(listed: dict[str, Any]) -> list[str]:
    return [task["name"] for task in listed["tasks"]]


def test_tasks_are_listed_newest_first_page_by_page(state: EmulatorState) -> None:
    for number in range(5):
        state.add_task(f"t{number}")
    pages = [state.list_tasks(PROJECT_ID, TaskQuery(limit=2, offset=page)) for page in range(4)]
    assert [names(page) for page in pages] == [["t4", "t3"], ["t2", "t1"], ["t0"], []]
    assert {page["count"] for page in pages} == {5}


@pytest.mark.parametrize(
    ("sort_by", "order", "expected"),
    [
        ("create_time", "desc", ["a", "b", "c"]),
        ("create_time", "asc", ["c", "b", "a"]),
        ("name", "desc", ["c", "b", "a"]),
        ("name", "asc", ["a", "b", "c"]),
        ("duration_seconds", "desc", ["b", "a", "c"]),
        ("duration_seconds", "asc", ["c", "a", "b"]),
    ],
)
def test_tasks_can_be_sorted(state: EmulatorState, sort_by: Any, order: Any, expected: list[str]) -> None:
    for name, duration in (("c", 1), ("b", 9), ("a", 5)):
        state.add_task(name, duration=duration)
    state.clock.advance(10)
    assert names(state.list_tasks(PROJECT_ID, TaskQuery(sort_by=sort_by, order=order))) == expected


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def add_around_noon(state: EmulatorState) -> None:
    for name, hours in (("noon", 0), ("later", 2), ("earlier", -2)):
        state.add_task(name, create_time=NOON + timedelta(hours=hours), duration=60)


@pytest.mark.parametrize("create_time", [NOON, int(NOON.timestamp() * 1000)], ids=["datetime", "milliseconds"])
def test_a_task_can_have_been_created_at_any_time(state: EmulatorState, create_time: Any) -> None:
    for task in state.add_tasks(2, create_time=create_time, template="sys_data_cleaning", duration=60):
        described = describe(state, task)
        assert (described["create_time"], described["status"]) == (NOON.timestamp() * 1000, 2)
        assert described["duration_seconds"] == 60


@given(st.integers(0, 4_000_000_000_000))
def test_the_millisecond_of_a_creation_is_kept(create_time: int) -> None:
    state = EmulatorState()
    assert describe(state, state.add_task(create_time=create_time))["create_time"] == create_time


@pytest.mark.parametrize(
    ("list_order", "order", "expected"),
    [
        ("sorted", "desc", ["later", "noon", "earlier"]),
        ("sorted", "asc", ["earlier", "noon", "later"]),
        ("as_added", "desc", ["earlier", "later", "noon"]),
        ("as_added", "asc", ["noon", "later", "earlier"]),
    ],
)
def test_tasks_are_listed_by_their_creation_or_as_they_were_added(
    state: EmulatorState, list_order: Any, order: Any, expected: list[str]
) -> None:
    add_around_noon(state)
    state.settings.list_order = list_order
    assert names(state.list_tasks(PROJECT_ID, TaskQuery(order=order))) == expected


def test_a_shuffled_list_is_the_same_for_each_page_and_order(state: EmulatorState) -> None:
    state.settings.list_order = "shuffled"
    for number in range(30):
        state.add_task(f"{number:02}")
    asked = [TaskQuery(limit=10, offset=page) for page in range(3)]
    listed = [name for query in asked for name in names(state.list_tasks(PROJECT_ID, query))]
    assert names(state.list_tasks(PROJECT_ID, TaskQuery(limit=100, order="asc", sort_by="name"))) == listed
    assert sorted(listed) == [f"{number:02}" for number in range(30)]
    assert listed not in (sorted(listed), sorted(listed, reverse=True))


def test_the_current_task_is_the_one_that_was_created_last(state: EmulatorState) -> None:
    add_around_noon(state)
    current = TaskQuery(query_current=True)
    assert names(state.list_tasks(PROJECT_ID, current)) == ["later"]
    state.delete_task(PROJECT_ID, state.list_tasks(PROJECT_ID, current)["tasks"][0]["task_id"])
    assert names(state.list_tasks(PROJECT_ID, current)) == ["noon"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["ONE", "two"]),
        ({"status": 3}, ["two"]),
        ({"status": 0}, []),
        ({"task_type": "sys_data_cleaning"}, ["two"]),
        ({"task_name": "n"}, ["ONE"]),
        ({"source_type": "OBS"}, ["two"]),
        ({"source": "/bucket/in"}, ["two"]),
        ({"source": "emulator-dataset"}, ["ONE"]),
        ({"version_id": "v1,v2"}, ["two"]),
        ({"workspace_id": OTHER_WORKSPACE_ID}, ["three"]),
        ({"query_current": True}, ["ONE", "two"]),
    ],
)
def test_tasks_can_be_filtered(state: EmulatorState, query: dict[str, Any], expected: list[str]) -> None:
    state.add_task("ONE", status=1)
    source = {"inputs": [{"type": "OBS", "source": "/bucket/in"}], "version_id": "v2"}
    state.add_task("two", template="sys_data_cleaning", status=3, body=source)
    state.add_task("three", body={"workspace_id": OTHER_WORKSPACE_ID, "version_id": "v3"})
    state.add_task("elsewhere", project_id=OTHER_PROJECT_ID)
    assert names(state.list_tasks(PROJECT_ID, TaskQuery(order="asc", **query))) == expected


def test_a_list_of_a_workspace_that_does_not_exist_is_refused(state: EmulatorState) -> None:
    assert error_code(state.list_tasks, PROJECT_ID, TaskQuery(workspace_id="x")) == "ModelArts.0102"


def test_a_list_can_omit_the_results(state: EmulatorState) -> None:
    state.add_task(status=2)
    with_results = state.list_tasks(PROJECT_ID, TaskQuery())
    without = state.list_tasks(PROJECT_ID, TaskQuery(return_result=False))
    assert "result" in with_results["tasks"][0]
    assert "result" not in without["tasks"][0]


def test_the_templates_are_listed_page_by_page(state: EmulatorState) -> None:
    pages = [state.list_items(page, 2)["items"] for page in range(4)]
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert state.list_items(0, 1000)["total"] == 5
