"""The service without HTTP: what a turned clock, a rule or an order makes of tasks and versions."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_modelarts.testing.emulator.http.responses import ServiceError
from airflow_modelarts.testing.emulator.service.accounts import OTHER_PROJECT_ID, OTHER_WORKSPACE_ID, PROJECT_ID
from airflow_modelarts.testing.emulator.service.projects import TaskQuery, VersionQuery
from airflow_modelarts.testing.emulator.service.results import ADDED, DELETED
from airflow_modelarts.testing.emulator.service.state import EmulatorState, Settings
from airflow_modelarts.testing.emulator.service.tasks import Clock, Run, Task, TaskRule
from tests.support.calling import DATA_VALIDATION, FEATURE_ANALYSIS

NOON = 1_800_000_000.0


@pytest.fixture
def state() -> EmulatorState:
    """A service whose clock stands still until it is turned, and whose tasks take ten seconds."""
    return EmulatorState(clock=Clock(lambda: NOON))


def describe(state: EmulatorState, task: Task) -> dict[str, Any]:
    return state.describe_task(PROJECT_ID, task.task_id)


def code(act: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        act(*arguments)
    return caught.value.code


def names(listed: dict[str, Any]) -> list[str]:
    return [task["name"] for task in listed["tasks"]]


# A task's life


def test_a_task_goes_from_initialized_through_running_to_completed_as_the_clock_is_turned(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    history = []
    for _ in range(12):
        history.append(describe(state, task)["status"])
        state.clock.advance(1)
    assert history == [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2]


def test_the_duration_grows_until_the_end_and_the_time_of_creation_stays(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    seen = []
    for _ in range(4):
        described = describe(state, task)
        seen.append((described["create_time"], described["duration_seconds"]))
        state.clock.advance(4)
    assert seen == [(NOON * 1000, 0), (NOON * 1000, 4), (NOON * 1000, 8), (NOON * 1000, 10)]


def test_a_task_of_no_duration_has_ended_when_it_is_first_seen() -> None:
    state = EmulatorState(Settings(task_duration=0), clock=Clock(lambda: NOON))
    assert describe(state, state.create_task(PROJECT_ID, FEATURE_ANALYSIS))["status"] == 2


def test_a_task_of_endless_duration_runs_for_ever(state: EmulatorState) -> None:
    task = state.add_task(duration=math.inf)
    state.clock.advance(1e8)
    assert describe(state, task)["status"] == 1


def test_a_frozen_clock_moves_only_when_it_is_turned() -> None:
    clock = Clock()
    clock.freeze()
    clock.freeze()
    before = clock.now()
    clock.advance(5)
    assert clock.now() == before + 5
    clock.reset()
    assert abs(clock.now() - time.time()) < 5


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_the_clock_is_not_turned_back_nor_for_ever(seconds: float) -> None:
    with pytest.raises(ValueError, match="turns ahead only"):
        Clock().advance(seconds)


@given(
    duration=st.floats(0, 1e6),
    end=st.sampled_from([2, 3, 4]),
    moments=st.lists(st.floats(0, 2e6), max_size=20).map(sorted),
)
def test_a_run_never_goes_back(duration: float, end: int, moments: list[float]) -> None:
    run = Run.start(NOON, duration, end)
    statuses = [run.status(NOON + moment) for moment in moments]
    ranks = [min(status, 2) for status in statuses]
    assert ranks == sorted(ranks)
    assert all(status in (0, 1, end) for status in statuses)


# Orders and rules


@pytest.mark.parametrize(("order", "status"), [("finish", 2), ("fail", 3), ("stop", 4)])
def test_an_order_ends_a_task_at_once(state: EmulatorState, order: str, status: int) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    getattr(state, order)(task.task_id)
    assert state.status(task.task_id) == status
    state.clock.advance(100)
    assert state.status(task.task_id) == status
    assert describe(state, task)["duration_seconds"] == 0


def test_only_a_failed_task_has_an_error_message(state: EmulatorState) -> None:
    told = {}
    for status in range(5):
        task = state.add_task(status=status, error_msg="no labelled samples")
        told[status] = describe(state, task).get("error_msg")
    assert told == {0: None, 1: None, 2: None, 3: "no labelled samples", 4: None}


def test_a_task_that_fails_without_a_reason_is_given_one(state: EmulatorState) -> None:
    task = state.add_task()
    state.fail(task.task_id)
    assert describe(state, task)["error_msg"]


def test_a_task_can_be_kept_initialized_or_running_and_shown_in_an_undocumented_status(state: EmulatorState) -> None:
    task = state.add_task()
    for status in (0, 1, 7, -1, 1):
        state.set_status(task.task_id, status)
        state.clock.advance(1000)
        assert state.status(task.task_id) == status


def test_the_duration_of_a_task_can_be_changed_while_it_runs(state: EmulatorState) -> None:
    task = state.add_task()
    state.clock.advance(5)
    state.set_duration(task.task_id, 100)
    state.clock.advance(94)
    assert state.status(task.task_id) == 1
    state.set_duration(task.task_id, 50)
    assert state.status(task.task_id) == 2
    state.set_duration(task.task_id, 0.5)
    assert describe(state, task)["duration_seconds"] == 0


def test_a_rule_decides_what_becomes_of_the_next_task_alone(state: EmulatorState) -> None:
    state.next_task(status=3, error_msg="out of memory", duration=2)
    first, second = (state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, "name": name}) for name in "ab")
    state.clock.advance(2)
    assert (state.status(first.task_id), state.status(second.task_id)) == (3, 1)
    assert describe(state, first)["error_msg"] == "out of memory"


def test_a_rule_for_a_pattern_holds_for_every_task_whose_name_matches(state: EmulatorState) -> None:
    state.add_rule(TaskRule(name="nightly-*", times=None, status=4))
    tasks = [
        state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, "name": name}) for name in ("nightly-1", "x", "nightly-2")
    ]
    state.clock.advance(10)
    assert [state.status(task.task_id) for task in tasks] == [4, 2, 4]


def test_of_ten_thousand_running_tasks_a_page_takes_less_than_twenty_milliseconds(state: EmulatorState) -> None:
    state.add_tasks(10_000, status=1)

    def list_page() -> float:
        start = time.thread_time()
        page = state.list_tasks(PROJECT_ID, TaskQuery(status=1, limit=100, offset=50), return_result=False)
        assert (page["count"], len(page["tasks"])) == (10_000, 100)
        return time.thread_time() - start

    bound = 0.02 if sys.gettrace() is None else 0.2  # tracing for coverage costs several times as much
    assert min(list_page() for _ in range(5)) < bound


# Results


@pytest.mark.parametrize(
    ("form", "kind"), [("object", dict), ("array", list), ("json_string", str), ("plain_string", str)]
)
def test_a_feature_analysis_tells_its_result_in_the_form_asked_for(state: EmulatorState, form: Any, kind: type) -> None:
    state.settings.result_form = form
    result = describe(state, state.add_task(status=2))["result"]
    assert isinstance(result, kind)
    assert (form == "json_string") == (isinstance(result, str) and result.startswith("{"))


def test_a_result_can_be_absent_for_one_task_alone(state: EmulatorState) -> None:
    with_result, without = state.add_tasks(2, status=2)
    state.set_result(without.task_id, form="absent")
    assert "result" in describe(state, with_result)
    assert "result" not in describe(state, without)


@pytest.mark.parametrize("status", [0, 1, 3, 4, 9])
def test_a_task_that_has_not_completed_has_no_result(state: EmulatorState, status: int) -> None:
    assert "result" not in describe(state, state.add_task(status=status, result={"a": 1}))


def test_a_data_processing_task_has_no_result(state: EmulatorState) -> None:
    assert "result" not in describe(state, state.add_task(template="sys_data_cleaning", status=2, result={"a": 1}))


def test_a_result_can_be_anything(state: EmulatorState) -> None:
    task = state.add_task(status=2)
    results: list[Any] = [{"nested": [1, None, "ü"]}, [], "", 0, "x" * 1000]
    for result in results:
        state.set_result(task.task_id, result)
        assert describe(state, task)["result"] == result


@given(count=st.integers(0, 500), wanted=st.integers(-1, 3), limit=st.integers(1, 100))
def test_pages_of_sample_results_add_up_to_what_was_counted(count: int, wanted: int, limit: int) -> None:
    state = EmulatorState(Settings(sample_count=count), clock=Clock(lambda: NOON))
    task = state.add_task(template="sys_data_cleaning", status=2)
    version_id = task.versions[0].version_id
    samples: list[dict[str, Any]] = []
    total = state.list_results(PROJECT_ID, task.task_id, version_id, result_property=wanted)["count"]
    for page in range(count // limit + 1):
        answer = state.list_results(
            PROJECT_ID, task.task_id, version_id, result_property=wanted, offset=page, limit=limit
        )
        samples += answer["results"]
        assert (answer["count"], answer["has_more"]) == (total, len(samples) < total)
    assert len({sample["sample_id"] for sample in samples}) == len(samples) == total
    assert wanted == -1 or {sample["result_property"] for sample in samples} <= {wanted}


def test_a_version_counts_its_samples_as_its_results_show_them(state: EmulatorState) -> None:
    state.next_task(sample_count=103)
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    version_id = task.versions[0].version_id
    assert state.describe_version(PROJECT_ID, task.task_id, version_id)["origin_sample_count"] == 0
    assert state.list_results(PROJECT_ID, task.task_id, version_id)["count"] == 0
    state.clock.advance(10)
    version = state.describe_version(PROJECT_ID, task.task_id, version_id)
    counted = {
        wanted: state.list_results(PROJECT_ID, task.task_id, version_id, result_property=wanted)["count"]
        for wanted in (-1, 0, 1, 2, 3)
    }
    assert counted == {
        -1: 103,
        0: version["unmodified_sample_count"],
        1: version["modified_sample_count"],
        2: version["deleted_sample_count"],
        3: version["add_sample_count"],
    }
    assert version["origin_sample_count"] == 103 - version["add_sample_count"]


def test_sample_results_lie_where_the_task_reads_and_writes(state: EmulatorState) -> None:
    body = {
        "inputs": [{"type": "DATASET", "source": "x"}, {"type": "OBS", "source": "obs://in/pictures/"}],
        "work_path": {"type": "OBS", "path": "/out/cleaned"},
    }
    task = state.add_task(template="sys_data_cleaning", status=2, body=body)
    sample = state.list_results(PROJECT_ID, task.task_id, task.versions[0].version_id)["results"][0]
    assert sample["origin_source"].startswith("obs://in/pictures/0")
    assert sample["new_source"].startswith("/out/cleaned/V001/0")


def test_signed_links_carry_a_key_a_token_a_signature_and_the_image_operation(state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_cleaning", status=2)
    answer = state.list_results(
        PROJECT_ID, task.task_id, task.versions[0].version_id, limit=100, process_parameter="image/resize,w_100"
    )
    links = [value for sample in answer["results"] for name, value in sample.items() if name.startswith("signed_")]
    assert links
    for link in links:
        for part in ("AccessKeyId=", "Expires=", "x-obs-security-token=", "Signature=", "=image%2Fresize%2Cw_100"):
            assert part in link


def test_a_deleted_sample_has_no_new_place_and_an_added_one_no_old_one(state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_cleaning", status=2)
    version_id = task.versions[0].version_id
    for wanted, absent in ((DELETED, "new_source"), (ADDED, "origin_source")):
        answer = state.list_results(PROJECT_ID, task.task_id, version_id, result_property=wanted)
        assert all(absent not in sample and f"signed_{absent}" not in sample for sample in answer["results"])


def test_the_sample_count_of_a_task_can_be_set(state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_cleaning", status=2)
    state.set_sample_count(task.task_id, 100_000)
    answer = state.list_results(PROJECT_ID, task.task_id, task.versions[0].version_id, limit=100, offset=999)
    assert (answer["count"], len(answer["results"]), answer["has_more"]) == (100_000, 100, False)
    with pytest.raises(ValueError, match="no version"):
        state.set_sample_count(state.add_task().task_id, 1)


# Creating


def test_the_bodies_of_the_contract_are_taken_as_they_are(state: EmulatorState) -> None:
    for body in (FEATURE_ANALYSIS, DATA_VALIDATION):
        task = state.create_task(PROJECT_ID, json.loads(json.dumps(body)))
        assert task.body == body
        described = describe(state, task)
        for name in set(body) - {"create_version"}:
            assert described[name] == body[name]


def test_an_input_given_as_data_source_is_told_as_inputs_too(state: EmulatorState) -> None:
    described = describe(state, state.create_task(PROJECT_ID, FEATURE_ANALYSIS))
    assert described["inputs"] == [described["data_source"]]
    assert "data_source" not in describe(state, state.create_task(PROJECT_ID, DATA_VALIDATION))


@pytest.mark.parametrize(
    ("change", "expected", "named"),
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
        ({"data_source": {"type": "TASK", "source": "nobody"}}, "ModelArts.4612", "nobody"),
        ({"create_version": True}, "ModelArts.0101", "create_version"),
        ({"create_version": "true"}, "ModelArts.0104", "create_version"),
        ({"workspace_id": "9"}, "ModelArts.0102", "workspace_id"),
        ({"work_path": {"type": "OBS", "path": "nowhere"}}, "ModelArts.0101", "work_path.path"),
        ({"work_path": {"type": "OBS", "path": "/b" + "x" * 1024}}, "ModelArts.4350", "work_path.path"),
        ({"work_path": {"version_name": "V 1"}}, "ModelArts.0101", "work_path.version_name"),
        ({"work_path": {"version_name": "v" * 33}}, "ModelArts.0101", "work_path.version_name"),
    ],
)
def test_a_wrong_body_is_refused_with_a_code_and_the_field(
    state: EmulatorState, change: dict[str, Any], expected: str, named: str
) -> None:
    with pytest.raises(ServiceError) as caught:
        state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, **change})
    assert caught.value.code == expected
    assert named in caught.value.message
    assert not state.all_tasks()


@pytest.mark.parametrize("body", [None, [], "x", 1, True])
def test_a_body_that_is_no_object_is_refused(state: EmulatorState, body: Any) -> None:
    assert code(state.create_task, PROJECT_ID, body) == "ModelArts.0104"


@pytest.mark.parametrize(
    "place", ["obs://bucket/key", "s3://bucket/a/b/", "/bucket/key", "/bucket", "obs://my.bucket-1/"]
)
def test_every_way_to_write_an_obs_path_is_taken(state: EmulatorState, place: str) -> None:
    change = {"data_source": {"type": "OBS", "source": place}, "work_path": {"type": "OBS", "path": place}}
    assert state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, **change}).body["work_path"]["path"] == place


@pytest.mark.parametrize(
    ("kind", "value", "change", "expected"),
    [
        ("datasets", "gone", {"data_source": {"type": "DATASET", "source": "gone"}}, "ModelArts.4352"),
        ("datasets", "gone", {"work_path": {"type": "DATASET", "path": "gone"}}, "ModelArts.4352"),
        ("dataset_versions", "v9", {"version_id": "v9"}, "ModelArts.4353"),
        (
            "dataset_versions",
            "v9",
            {"data_source": {"type": "DATASET", "source": "x", "version_id": "v9"}},
            "ModelArts.4353",
        ),
        ("buckets", "gone", {"data_source": {"type": "OBS", "source": "/gone/key"}}, "ModelArts.4311"),
        ("paths", "/bucket/gone", {"work_path": {"type": "OBS", "path": "/bucket/gone"}}, "ModelArts.4312"),
        ("encrypted_buckets", "kms", {"work_path": {"type": "OBS", "path": "obs://kms/x"}}, "ModelArts.0101"),
    ],
)
def test_what_a_test_declares_missing_is_refused(
    state: EmulatorState, kind: str, value: str, change: dict[str, Any], expected: str
) -> None:
    assert state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, **change, "name": "before"})
    getattr(state.missing, kind).add(value)
    assert code(state.create_task, PROJECT_ID, {**FEATURE_ANALYSIS, **change}) == expected


def test_a_source_may_be_another_task_or_a_tenant_and_a_work_path_need_not_name_a_path(state: EmulatorState) -> None:
    first = state.add_task()
    for number, source in enumerate(({"type": "TASK", "source": first.task_id}, {"type": "CUSTOM"}, {})):
        place = {"type": "OBS", "output_path": "/datasets/demo"}
        body = {
            "name": f"n{number}",
            "template": {"id": "sys_data_cleaning"},
            "inputs": [source],
            "work_path": place,
        }
        assert describe(state, state.create_task(PROJECT_ID, body))["inputs"] == [source]


def test_a_name_is_unique_in_its_project_until_its_task_is_deleted(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    assert code(state.create_task, PROJECT_ID, FEATURE_ANALYSIS) == "ModelArts.4709"
    assert state.create_task(OTHER_PROJECT_ID, FEATURE_ANALYSIS)
    state.clock.advance(10)
    state.delete_task(PROJECT_ID, task.task_id)
    assert state.create_task(PROJECT_ID, FEATURE_ANALYSIS)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("running_limit", "ModelArts.4409"), ("unfinished_limit", "ModelArts.4616"), ("task_quota", "ModelArts.0118")],
)
def test_limits_are_kept(state: EmulatorState, limit: str, expected: str) -> None:
    setattr(state.settings, limit, 2)
    state.add_tasks(2)
    assert code(state.create_task, PROJECT_ID, FEATURE_ANALYSIS) == expected


def test_only_unended_tasks_count_against_the_running_limit(state: EmulatorState) -> None:
    state.settings.running_limit = 2
    first, _ = state.add_tasks(2)
    state.finish(first.task_id)
    assert state.create_task(PROJECT_ID, FEATURE_ANALYSIS)


# Updating and deleting


def test_a_description_can_be_changed_and_nothing_else(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    state.update_task(PROJECT_ID, task.task_id, {"description": "checked", "name": "other"})
    assert (describe(state, task)["description"], task.name) == ("checked", "V001")
    assert code(state.update_task, PROJECT_ID, task.task_id, {"description": "a&b"}) == "ModelArts.0101"
    assert code(state.update_task, PROJECT_ID, task.task_id, {}) == "ModelArts.0104"


def test_an_initializing_task_cannot_be_deleted_and_a_running_one_can(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    assert code(state.delete_task, PROJECT_ID, task.task_id) == "ModelArts.4850"
    state.clock.advance(1)
    state.delete_task(PROJECT_ID, task.task_id)
    assert code(state.describe_task, PROJECT_ID, task.task_id) == "ModelArts.4700"


def test_the_newest_task_of_a_dataset_version_is_current(state: EmulatorState) -> None:
    first, second = (state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, "name": name}) for name in "ab")
    other = state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, "name": "c", "version_id": "another"})
    assert [describe(state, task)["is_current"] for task in (first, second, other)] == [False, True, True]
    state.clock.advance(5)
    state.delete_task(PROJECT_ID, second.task_id)
    assert describe(state, first)["is_current"] is True
    state.delete_task(PROJECT_ID, other.task_id)
    assert names(state.list_tasks(PROJECT_ID, TaskQuery(query_current=True))) == ["a"]


def test_two_tasks_put_there_under_one_name_can_both_be_deleted(state: EmulatorState) -> None:
    for task in state.add_tasks(2, name="same", status=2):
        state.delete_task(PROJECT_ID, task.task_id)
    assert state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, "name": "same"})


# Listing


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
        ({"version_ids": frozenset({"v1", "v2"})}, ["two"]),
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
    assert code(state.list_tasks, PROJECT_ID, TaskQuery(workspace_id="x")) == "ModelArts.0102"


def test_a_list_can_leave_the_results_out(state: EmulatorState) -> None:
    state.add_task(status=2)
    with_results = state.list_tasks(PROJECT_ID, TaskQuery())
    without = state.list_tasks(PROJECT_ID, TaskQuery(), return_result=False)
    assert "result" in with_results["tasks"][0]
    assert "result" not in without["tasks"][0]


def test_the_templates_are_listed_page_by_page(state: EmulatorState) -> None:
    pages = [state.list_items(page, 2)["items"] for page in range(4)]
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert state.list_items(0, 1000)["total"] == 5


# Versions


def new_version(state: EmulatorState, task: Task, **changes: Any) -> str:
    body = {**DATA_VALIDATION, **changes}
    del body["create_version"]
    return state.create_version(PROJECT_ID, task.task_id, body).version_id


def test_a_data_processing_task_has_a_version_from_the_start_and_a_feature_analysis_never(state: EmulatorState) -> None:
    processing = state.create_task(PROJECT_ID, DATA_VALIDATION)
    analysis = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    assert describe(state, processing)["version_count"] == 1
    assert "version_count" not in describe(state, analysis)
    assert state.list_versions(PROJECT_ID, analysis.task_id, VersionQuery()) == {"count": 0, "versions": []}
    assert code(state.describe_version, PROJECT_ID, analysis.task_id, "x") == "ModelArts.4636"
    body = {**FEATURE_ANALYSIS, "name": "V001"}
    assert code(state.create_version, PROJECT_ID, analysis.task_id, body) == "ModelArts.0101"


def test_a_task_follows_its_newest_version(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    state.clock.advance(10)
    assert state.status(task.task_id) == 2
    state.next_task(status=3)
    new_version(state, task)
    assert state.status(task.task_id) == 0
    state.clock.advance(10)
    assert state.status(task.task_id) == 3
    assert describe(state, task)["version_count"] == 2


def test_versions_are_named_in_turn_and_listed_in_either_order(state: EmulatorState) -> None:
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


def test_a_version_tells_what_it_was_created_with(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    version_id = new_version(state, task, description="again", work_path={"type": "OBS", "path": "/bucket/out"})
    version = state.describe_version(PROJECT_ID, task.task_id, version_id)
    assert version["task_id"] == task.task_id
    assert (version["description"], version["work_path"]["path"]) == ("again", "/bucket/out")
    assert (version["inputs"], version["template"]) == (DATA_VALIDATION["inputs"], DATA_VALIDATION["template"])
    assert describe(state, task)["work_path"] == DATA_VALIDATION["work_path"]


def test_a_version_is_of_its_tasks_template_and_takes_no_other_tasks_name(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    state.add_task("taken")
    version = {name: value for name, value in DATA_VALIDATION.items() if name != "create_version"}
    other_template = {**version, "template": {"id": "sys_data_cleaning"}}
    assert code(state.create_version, PROJECT_ID, task.task_id, other_template) == "ModelArts.0101"
    assert code(state.create_version, PROJECT_ID, task.task_id, {**version, "name": "taken"}) == "ModelArts.4709"


def test_stopping_a_running_version_stops_its_task(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    version_id = task.versions[0].version_id
    assert code(state.stop_version, PROJECT_ID, task.task_id, version_id) == "ModelArts.4850"
    state.clock.advance(5)
    state.stop_version(PROJECT_ID, task.task_id, version_id)
    assert state.describe_version(PROJECT_ID, task.task_id, version_id)["status"] == 4
    assert state.status(task.task_id) == 4
    assert code(state.stop_version, PROJECT_ID, task.task_id, version_id) == "ModelArts.0101"


def test_a_task_whose_versions_are_all_deleted_stays_as_the_last_one_was(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    first = task.versions[0].version_id
    second = new_version(state, task)
    assert code(state.delete_version, PROJECT_ID, task.task_id, second) == "ModelArts.4850"
    state.clock.advance(10)
    state.delete_version(PROJECT_ID, task.task_id, first)
    state.fail(task.task_id)
    state.delete_version(PROJECT_ID, task.task_id, second)
    assert state.status(task.task_id) == 3
    assert describe(state, task)["version_count"] == 0
    assert code(state.delete_version, PROJECT_ID, task.task_id, second) == "ModelArts.4636"


# Everything


def test_a_reset_forgets_everything(state: EmulatorState) -> None:
    state.add_task()
    state.settings.result_form = "absent"
    state.missing.buckets.add("b")
    state.next_task(status=3)
    state.clock.advance(50)
    state.faults.reset()
    state.reset()
    assert (state.all_tasks(), state.rules, state.faults.all(), state.missing.buckets) == ([], [], [], set())
    assert state.settings == Settings()
    assert state.clock.now() == NOON


def test_a_task_that_nobody_created_is_a_key_error_to_a_test(state: EmulatorState) -> None:
    with pytest.raises(KeyError, match="nobody"):
        state.status("nobody")


@settings(max_examples=30)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["create", "delete", "advance", "version", "stop"]), st.integers(0, 5)), max_size=30
    )
)
def test_whatever_is_done_the_books_agree(steps: list[tuple[str, int]]) -> None:
    state = EmulatorState(clock=Clock(lambda: NOON))
    for number, (step, choice) in enumerate(steps):
        tasks = state.all_tasks()
        task = tasks[choice % len(tasks)] if tasks else None
        try:
            if step == "create":
                state.create_task(PROJECT_ID, {**DATA_VALIDATION, "name": f"n{number}"})
            elif step == "advance":
                state.clock.advance(choice)
            elif task is not None and step == "delete":
                state.delete_task(PROJECT_ID, task.task_id)
            elif task is not None and step == "version":
                new_version(state, task, name=task.name)
            elif task is not None:
                state.stop_version(PROJECT_ID, task.task_id, task.versions[-1].version_id)
        except ServiceError:
            continue
    listed = state.list_tasks(PROJECT_ID, TaskQuery(limit=100))
    by_status = [state.list_tasks(PROJECT_ID, TaskQuery(status=status))["count"] for status in range(5)]
    assert listed["count"] == len(state.all_tasks()) == sum(by_status)
    assert all(state.describe_task(PROJECT_ID, task["task_id"]) == task for task in listed["tasks"])
    assert sum(task["is_current"] for task in listed["tasks"]) == (1 if listed["count"] else 0)
