"""The record of a submission in Airflow's task state store."""

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_modelarts.operators.submission_store import RECORD_KEY, Record, State, SubmissionStore
from tests.support.create import Store

ID_KEY = "modelarts_processor_task_id"


def open_store(store: Store, *, max_tries: int = 2) -> SubmissionStore:
    context: Any = {"task_state_store": store, "ti": SimpleNamespace(max_tries=max_tries)}
    found = SubmissionStore.open(context, ID_KEY)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        ({}, State.INTENDED),
        ({"cleared": True}, State.CLEARED),
        ({"done": True}, State.CONCLUDED),
        ({"cleared": True, "done": True}, State.CONCLUDED),
    ],
)
def test_a_record_with_the_flags_of_version_1_0_0_is_read(flags: dict[str, bool], state: State) -> None:
    assert Record.load({"intent": "check-1", "max_tries": 2, **flags}) == Record("check-1", 2, state)


def test_the_flags_that_an_older_worker_adds_to_a_record_are_read() -> None:
    stored = {**Record("check-1", 2).dump(), "done": True}
    assert Record.load(stored) == Record("check-1", 2, State.CONCLUDED)


@pytest.mark.parametrize("state", State)
def test_a_record_is_stored_and_read(state: State) -> None:
    record = Record({"processor_task_id": "abc", "versions": ["v1"]}, 2, state)
    store = Store()
    store.set(RECORD_KEY, record.dump())
    assert Record.load(store[RECORD_KEY]) == record


def test_without_a_state_store_there_is_no_submission_store() -> None:
    context: Any = {"ti": SimpleNamespace(max_tries=2)}
    assert SubmissionStore.open(context, ID_KEY) is None


def test_a_new_submission_has_no_id_before_it_is_accepted() -> None:
    store = Store()
    store.set(ID_KEY, "of an earlier submission")
    submission = open_store(store)
    submission.begin("check-1")
    assert (submission.unconfirmed_intent, submission.external_id) == ("check-1", None)


def test_an_intent_with_an_id_is_confirmed() -> None:
    store = Store()
    open_store(store).begin("check-1")
    store.set(ID_KEY, "abc")  # as Airflow's mixin does
    submission = open_store(store)
    assert (submission.unconfirmed_intent, submission.external_id) == (None, "abc")


def test_a_retry_finds_the_submission_unchanged() -> None:
    store = Store()
    open_store(store).begin("check-1")
    retry = open_store(store)
    assert not retry.was_cleared
    assert retry.unconfirmed_intent == "check-1"


def test_a_submission_is_marked_if_its_airflow_task_is_cleared_before_the_end() -> None:
    store = Store()
    open_store(store).begin("check-1")
    assert open_store(store, max_tries=3).was_cleared
    assert open_store(store, max_tries=3).was_cleared, "in a retry of the cleared task too"


def test_a_concluded_submission_is_deleted_if_its_airflow_task_is_cleared() -> None:
    store = Store()
    first = open_store(store)
    first.begin("check-1")
    first.conclude()
    assert open_store(store).is_concluded
    cleared = open_store(store, max_tries=3)
    assert not cleared.is_concluded
    assert store == {}


def test_a_new_submission_is_not_cleared() -> None:
    store = Store()
    open_store(store).begin("check-1")
    submission = open_store(store, max_tries=3)
    submission.begin("check-2")
    assert not submission.was_cleared
    assert not open_store(store, max_tries=3).was_cleared
