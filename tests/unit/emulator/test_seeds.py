"""The generated processing tasks of the last day."""

from pathlib import Path

import pytest

from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
from airflow_modelarts.api.request_models import CreateProcessorTaskRequest
from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.projects import TaskQuery
from airflow_modelarts.testing.emulator.service.seeds import TEMPLATES, seed
from airflow_modelarts.testing.emulator.service.tasks import Task
from airflow_modelarts.testing.emulator.service.validation import MissingResources, check_body, check_resources

DAY = 24 * 3600  # seconds


def statuses(state: EmulatorState, tasks: list[Task]) -> list[int]:
    return [state.status(task.task_id) for task in tasks]


def test_the_first_five_seeds_have_every_status_and_only_one_runs(state: EmulatorState) -> None:
    tasks = seed(state, 40)
    found = statuses(state, tasks)
    assert found[:5] == [1, 2, 3, 4, 0]
    assert set(found[5:]) == {2, 3, 4}


@pytest.mark.parametrize("count", range(12))
def test_any_number_of_tasks_can_be_seeded(state: EmulatorState, count: int) -> None:
    tasks = seed(state, count)
    assert len(tasks) == len(state.all_tasks()) == count
    assert statuses(state, tasks).count(1) == min(count, 1)


def test_twenty_five_seeds_include_every_terminal_status_of_every_template(state: EmulatorState) -> None:
    tasks = seed(state, 25)
    ends = {(task.template_id, status) for task, status in zip(tasks, statuses(state, tasks), strict=True)}
    not_stoppable = {("sys_data_analyse", 4)}
    assert {(template, status) for template in TEMPLATES for status in (2, 3, 4)} - not_stoppable <= ends
    assert not not_stoppable & ends


def test_seeds_are_the_same_each_time(state: EmulatorState) -> None:
    first = [(task.task_id, task.body, task.result) for task in seed(state, 30)]
    versions = [version.version_id for task in state.all_tasks() for version in task.versions]
    state.reset()
    assert [(task.task_id, task.body, task.result) for task in seed(state, 30)] == first
    assert [version.version_id for task in state.all_tasks() for version in task.versions] == versions
    state.reset()
    assert [task.task_id for task in seed(state, 3)] == [task_id for task_id, _, _ in first[:3]]


def test_the_running_seed_has_the_id_in_the_readme(state: EmulatorState) -> None:
    (running,) = seed(state, 1)
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    assert f"""--seed 5 --conf '{{"processor_task_id": "{running.task_id}"}}'""" in readme


def test_seeds_are_of_the_last_day_and_listed_newest_first(state: EmulatorState) -> None:
    seed(state, 300)
    now = state.clock.now()
    ages = [now - task.created_at for task in reversed(state.all_tasks())]
    assert ages == sorted(ages)
    assert 0 < ages[0] < 120
    assert DAY - 3600 <= ages[-1] < DAY
    listed = state.list_tasks(accounts.PROJECT_ID, TaskQuery(limit=100))
    times = [task["create_time"] for task in listed["tasks"]]
    assert times == sorted(times, reverse=True)


def test_seeds_with_a_terminal_status_ended_in_the_past(state: EmulatorState) -> None:
    now = state.clock.now()
    for task in seed(state, 300):
        if state.status(task.task_id) in (2, 3, 4):
            assert task.created_at < task.run.running_at < task.run.ends_at <= now


def test_seeds_are_valid_for_the_service_and_readable_for_the_client(state: EmulatorState) -> None:
    for task in seed(state, 60):
        body = check_body(CreateProcessorTaskRequest, task.body)
        check_resources(body, state.projects[accounts.PROJECT_ID], TEMPLATES, MissingResources())
        described = ProcessorTask.model_validate(state.describe_task(accounts.PROJECT_ID, task.task_id))
        assert len(described.task_id) == 19
        assert described.work_path
        assert bool(described.error_msg) == (described.status == 3)
        assert bool(described.result) == (described.status == 2 and task.is_feature_analysis)
        for version in task.versions:
            ProcessorTaskVersion.model_validate(
                state.describe_version(accounts.PROJECT_ID, task.task_id, version.version_id)
            )


def test_the_running_seed_runs_until_a_test_ends_it(state: EmulatorState) -> None:
    running, *_ = seed(state, 5)
    state.clock.advance(10 * DAY)
    assert state.status(running.task_id) == 1
    state.finish(running.task_id)
    assert state.status(running.task_id) == 2
