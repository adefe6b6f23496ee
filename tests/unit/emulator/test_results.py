"""Results of feature analyses, and sample results."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.service.accounts import PROJECT_ID
from airflow_modelarts.testing.emulator.service.results import ADDED, DELETED, ResultQuery
from airflow_modelarts.testing.emulator.service.settings import Settings
from airflow_modelarts.testing.emulator.service.tasks import Clock
from tests.support.calling import DATA_VALIDATION
from tests.support.service import NOON, describe


@pytest.mark.parametrize(
    ("form", "kind"), [("object", dict), ("array", list), ("json_string", str), ("plain_string", str)]
)
def test_a_result_has_the_form_in_the_settings(state: EmulatorState, form: Any, kind: type) -> None:
    state.settings.result_form = form
    result = describe(state, state.add_task(status=2))["result"]
    assert isinstance(result, kind)
    assert (form == "json_string") == (isinstance(result, str) and result.startswith("{"))


def test_a_result_can_be_absent_for_one_task_only(state: EmulatorState) -> None:
    with_result, without = state.add_tasks(2, status=2)
    state.set_result(without.task_id, form="absent")
    assert "result" in describe(state, with_result)
    assert "result" not in describe(state, without)


@pytest.mark.parametrize("status", [0, 1, 3, 4, 9])
def test_a_task_that_has_not_completed_has_no_result(state: EmulatorState, status: int) -> None:
    assert "result" not in describe(state, state.add_task(status=status, result={"a": 1}))


def test_a_data_processing_task_has_no_result(state: EmulatorState) -> None:
    assert "result" not in describe(state, state.add_task(template="sys_data_cleaning", status=2, result={"a": 1}))


def test_a_result_can_be_any_json(state: EmulatorState) -> None:
    task = state.add_task(status=2)
    results: list[Any] = [{"nested": [1, None, "ü"]}, [], "", 0, "x" * 1000]
    for result in results:
        state.set_result(task.task_id, result)
        assert describe(state, task)["result"] == result


@given(count=st.integers(0, 500), wanted=st.integers(-1, 3), limit=st.integers(1, 100))
def test_the_pages_of_sample_results_add_up_to_their_count(count: int, wanted: int, limit: int) -> None:
    state = EmulatorState(Settings(sample_count=count), clock=Clock(lambda: NOON))
    task = state.add_task(template="sys_data_cleaning", status=2)
    version_id = task.versions[0].version_id
    samples: list[dict[str, Any]] = []
    total = state.list_results(PROJECT_ID, task.task_id, version_id, ResultQuery(result_property=wanted))["count"]
    for page in range(count // limit + 1):
        answer = state.list_results(
            PROJECT_ID, task.task_id, version_id, ResultQuery(result_property=wanted, offset=page, limit=limit)
        )
        samples += answer["results"]
        assert (answer["count"], answer["has_more"]) == (total, len(samples) < total)
    assert len({sample["sample_id"] for sample in samples}) == len(samples) == total
    assert wanted == -1 or {sample["result_property"] for sample in samples} <= {wanted}


@pytest.mark.parametrize(
    ("meaning", "answers"),
    [("more_follow", [True, False]), ("all_returned", [False, True]), ("absent", [None, None])],
)
def test_has_more_has_the_meaning_in_the_settings(meaning: Any, answers: list[bool | None]) -> None:
    state = EmulatorState(Settings(sample_count=150, has_more=meaning), clock=Clock(lambda: NOON))
    task = state.add_task(template="sys_data_cleaning", status=2)
    queries = [ResultQuery(offset=page, limit=100) for page in range(2)]
    version_id = task.versions[0].version_id
    pages = [state.list_results(PROJECT_ID, task.task_id, version_id, query) for query in queries]
    assert [page.get("has_more") for page in pages] == answers


def test_the_sample_counts_of_a_version_match_its_results(state: EmulatorState) -> None:
    state.next_task(sample_count=103)
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    version_id = task.versions[0].version_id
    assert state.describe_version(PROJECT_ID, task.task_id, version_id)["origin_sample_count"] == 0
    assert state.list_results(PROJECT_ID, task.task_id, version_id)["count"] == 0
    state.clock.advance(10)
    version = state.describe_version(PROJECT_ID, task.task_id, version_id)
    counted = {
        wanted: state.list_results(PROJECT_ID, task.task_id, version_id, ResultQuery(result_property=wanted))["count"]
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


def test_sample_results_are_in_the_tasks_input_and_output_places(state: EmulatorState) -> None:
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
        PROJECT_ID,
        task.task_id,
        task.versions[0].version_id,
        ResultQuery(limit=100, process_parameter="image/resize,w_100"),
    )
    links = [value for sample in answer["results"] for name, value in sample.items() if name.startswith("signed_")]
    assert links
    for link in links:
        for part in ("AccessKeyId=", "Expires=", "x-obs-security-token=", "Signature=", "=image%2Fresize%2Cw_100"):
            assert part in link


def test_a_deleted_sample_has_no_new_source_and_an_added_one_no_origin(state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_cleaning", status=2)
    version_id = task.versions[0].version_id
    for wanted, absent in ((DELETED, "new_source"), (ADDED, "origin_source")):
        answer = state.list_results(PROJECT_ID, task.task_id, version_id, ResultQuery(result_property=wanted))
        assert all(absent not in sample and f"signed_{absent}" not in sample for sample in answer["results"])


def test_the_sample_count_of_a_task_can_be_set(state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_cleaning", status=2)
    state.set_sample_count(task.task_id, 100_000)
    answer = state.list_results(
        PROJECT_ID, task.task_id, task.versions[0].version_id, ResultQuery(limit=100, offset=999)
    )
    assert (answer["count"], len(answer["results"]), answer["has_more"]) == (100_000, 100, False)
    with pytest.raises(ValueError, match="no version"):
        state.set_sample_count(state.add_task().task_id, 1)
