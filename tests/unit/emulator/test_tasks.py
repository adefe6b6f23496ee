"""How the status of tasks follows from the clock, and how tests control it."""

import math
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.service.accounts import PROJECT_ID
from airflow_modelarts.testing.emulator.service.errors import ServiceError
from airflow_modelarts.testing.emulator.service.projects import TaskQuery
from airflow_modelarts.testing.emulator.service.settings import Settings
from airflow_modelarts.testing.emulator.service.tasks import Clock, Run, TaskRule
from tests.support.calling import DATA_VALIDATION, FEATURE_ANALYSIS
from tests.support.service import NOON, describe, new_version


def test_a_task_is_initialized_then_running_then_completed_as_the_clock_advances(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    history = []
    for _ in range(12):
        history.append(describe(state, task)["status"])
        state.clock.advance(1)
    assert history == [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2]


def test_the_duration_grows_until_the_end_and_the_creation_time_is_constant(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, FEATURE_ANALYSIS)
    seen = []
    for _ in range(4):
        described = describe(state, task)
        seen.append((described["create_time"], described["duration_seconds"]))
        state.clock.advance(4)
    assert seen == [(NOON * 1000, 0), (NOON * 1000, 4), (NOON * 1000, 8), (NOON * 1000, 10)]


def test_a_task_without_duration_is_completed_at_once() -> None:
    state = EmulatorState(Settings(task_duration=0), clock=Clock(lambda: NOON))
    assert describe(state, state.create_task(PROJECT_ID, FEATURE_ANALYSIS))["status"] == 2


def test_a_task_of_infinite_duration_stays_running(state: EmulatorState) -> None:
    task = state.add_task(duration=math.inf)
    state.clock.advance(1e8)
    assert describe(state, task)["status"] == 1


def test_a_frozen_clock_moves_only_when_it_is_advanced() -> None:
    clock = Clock()
    clock.freeze()
    clock.freeze()
    before = clock.now()
    clock.advance(5)
    assert clock.now() == before + 5
    clock.reset()
    before = time.time()
    assert before <= clock.now() <= time.time()


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_the_clock_advances_only_by_a_finite_positive_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="finite number, and not negative"):
        Clock().advance(seconds)


@given(
    duration=st.floats(0, 1e6),
    end=st.sampled_from([2, 3, 4]),
    moments=st.lists(st.floats(0, 2e6), max_size=20).map(sorted),
)
def test_the_status_of_a_run_never_goes_back(duration: float, end: int, moments: list[float]) -> None:
    run = Run.start(NOON, duration, end)
    statuses = [run.status(NOON + moment) for moment in moments]
    ranks = [min(status, 2) for status in statuses]
    assert ranks == sorted(ranks)
    assert all(status in (0, 1, end) for status in statuses)


@pytest.mark.parametrize(("verb", "status"), [("finish", 2), ("fail", 3), ("stop", 4)])
def test_a_test_can_end_a_task_at_once(state: EmulatorState, verb: str, status: int) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    getattr(state, verb)(task.task_id)
    assert state.status(task.task_id) == status
    state.clock.advance(100)
    assert state.status(task.task_id) == status
    assert describe(state, task)["duration_seconds"] == 0


def test_only_a_failed_task_has_an_error_message(state: EmulatorState) -> None:
    messages = {}
    for status in range(5):
        task = state.add_task(status=status, error_msg="no labelled samples")
        messages[status] = describe(state, task).get("error_msg")
    assert messages == {0: None, 1: None, 2: None, 3: "no labelled samples", 4: None}


def test_a_task_that_fails_without_a_message_gets_the_default_one(state: EmulatorState) -> None:
    task = state.add_task()
    state.fail(task.task_id)
    assert describe(state, task)["error_msg"]


def test_a_task_can_be_kept_in_any_status(state: EmulatorState) -> None:
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


def test_a_rule_applies_to_the_next_task_only(state: EmulatorState) -> None:
    state.next_task(status=3, error_msg="out of memory", duration=2)
    first, second = (state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, "name": name}) for name in "ab")
    state.clock.advance(2)
    assert (state.status(first.task_id), state.status(second.task_id)) == (3, 1)
    assert describe(state, first)["error_msg"] == "out of memory"


def test_a_rule_with_a_pattern_applies_to_every_matching_task(state: EmulatorState) -> None:
    state.add_rule(TaskRule(name="nightly-*", times=None, status=4))
    tasks = [
        state.create_task(PROJECT_ID, {**FEATURE_ANALYSIS, "name": name}) for name in ("nightly-1", "x", "nightly-2")
    ]
    state.clock.advance(10)
    assert [state.status(task.task_id) for task in tasks] == [4, 2, 4]


def test_a_page_of_ten_thousand_running_tasks_takes_few_calls_for_each_task(state: EmulatorState) -> None:
    """Calls of Python functions, since seconds depend on the machine. For each task its run and its status are read."""
    state.add_tasks(10_000, status=1)
    calls = 0

    def count_calls(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count_calls)
    try:
        page = state.list_tasks(PROJECT_ID, TaskQuery(status=1, limit=100, offset=50, return_result=False))
    finally:
        sys.setprofile(None)
    assert (page["count"], len(page["tasks"])) == (10_000, 100)
    assert calls < 10_000 * 2 + 100 * 100


def test_a_reset_restores_the_initial_state(state: EmulatorState) -> None:
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


def test_the_status_of_an_unknown_task_is_a_key_error(state: EmulatorState) -> None:
    with pytest.raises(KeyError, match="unknown"):
        state.status("unknown")


@settings(max_examples=30)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["create", "delete", "advance", "version", "stop"]), st.integers(0, 5)), max_size=30
    )
)
def test_lists_and_descriptions_agree_after_any_operations(steps: list[tuple[str, int]]) -> None:
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


def test_the_times_in_answers_are_those_of_a_clock_that_is_ahead(state: EmulatorState) -> None:
    task = state.create_task(PROJECT_ID, DATA_VALIDATION)
    state.settings.clock_offset = 300.0
    listed, version = (
        describe(state, task),
        state.describe_version(PROJECT_ID, task.task_id, task.versions[0].version_id),
    )
    assert listed["create_time"] == version["create_time"] == version["update_time"] == (NOON + 300) * 1000
