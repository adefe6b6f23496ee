"""The operators for existing tasks, against answers of requests-mock and against the emulator."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from requests_mock import Mocker

from airflow_modelarts.api.errors import ModelArtsBusyError, ModelArtsNotFoundError, ModelArtsRequestError
from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.operators.base import TAKES_NONE
from airflow_modelarts.operators.tasks import (
    ModelArtsDeleteProcessorTaskOperator,
    ModelArtsDescribeProcessorTaskOperator,
    ModelArtsListProcessorTasksOperator,
    ModelArtsStopProcessorTaskOperator,
    ModelArtsUpdateProcessorTaskOperator,
)
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support.fixtures import TASKS
from tests.support.task_instances import TaskInstance

TASK_URL = f"{TASKS}/abc"


def describe(**arguments: Any) -> tuple[Any, dict[str, Any]]:
    task_instance = TaskInstance()
    operator = ModelArtsDescribeProcessorTaskOperator(**{"task_id": "read", "processor_task_id": "abc", **arguments})
    return operator.execute({"ti": task_instance}), task_instance.xcoms  # type: ignore[typeddict-item]


def test_an_absent_result_and_work_path_are_pushed_as_none(requests_mock: Mocker) -> None:
    requests_mock.get(TASK_URL, json={"task_id": "abc", "status": 2})
    returned, xcoms = describe()
    nothing = {"result": None, "work_path": None} if TAKES_NONE else {}
    assert xcoms == {**nothing, "output_files": {}}
    assert returned == {"task_id": "abc", "status": 2, "status_name": "completed"}


def test_the_task_is_returned_under_api_names_without_its_result(requests_mock: Mocker) -> None:
    answer = {
        "task_id": "abc",
        "name": "V002",
        "status": 2,
        "create_time": 1606373999627,
        "result": {"big": "thing"},
        "work_path": {"type": "OBS", "path": "obs://bucket/out/", "new_field": 1},
        "template": {"id": "sys_data_analyse", "operator_params": [{"params": {"size": "1920", "list": "[0,1]"}}]},
        "field_of_tomorrow": [1],
    }
    requests_mock.get(TASK_URL, json=answer)
    returned, xcoms = describe()
    assert returned == {key: value for key, value in answer.items() if key != "result"} | {"status_name": "completed"}
    assert xcoms["work_path"] == answer["work_path"]


def test_signed_links_stay_out_of_every_xcom(requests_mock: Mocker) -> None:
    link = "https://bucket.obs.example.com/a.jpg?AccessKeyId=TEMP&Expires=1&x-obs-security-token=T&Signature=SIG"
    result = {"signed_source": link, "preview": link}
    requests_mock.get(TASK_URL, json={"task_id": "abc", "status": 2, "result": result, "signed_icon": link})
    returned, xcoms = describe()
    assert "SIG" not in json.dumps([returned, xcoms])
    assert xcoms["result"] == {"preview": "https://bucket.obs.example.com/a.jpg"}


def test_nothing_is_pushed_without_do_xcom_push(requests_mock: Mocker) -> None:
    requests_mock.get(TASK_URL, json={"task_id": "abc", "status": 2})
    _, xcoms = describe(do_xcom_push=False)
    assert xcoms == {}


def test_a_task_that_does_not_exist_is_an_error(requests_mock: Mocker) -> None:
    requests_mock.get(TASK_URL, status_code=400, json={"error_code": "ModelArts.4700", "error_msg": "none"})
    with pytest.raises(ModelArtsNotFoundError, match="processing task 'abc'"):
        describe()


@pytest.mark.parametrize("processor_task_id", ["", ".."])
def test_an_invalid_id_is_refused_before_sending(requests_mock: Mocker, processor_task_id: Any) -> None:
    with pytest.raises(ModelArtsRequestError, match="check what that pushed"):
        describe(processor_task_id=processor_task_id)
    assert not requests_mock.called


def task_with_versions(emulator: EmulatorServer, *statuses: int) -> tuple[Task, list[str]]:
    """Return a task with one version of each status, and the ids of the versions."""
    state = emulator.state
    task = state.add_task(template="sys_data_cleaning")
    for _ in statuses[1:]:
        state.create_version(accounts.PROJECT_ID, task.task_id, task.body)
    for version, status in zip(task.versions, statuses, strict=True):
        version.run.set_status(status, state.clock.now())
    return task, [version.version_id for version in task.versions]


def version_statuses(emulator: EmulatorServer, task: Task) -> list[int]:
    return [version.run.status(emulator.state.clock.now()) for version in task.versions]


def stop(task_id: str, **arguments: Any) -> Any:
    return ModelArtsStopProcessorTaskOperator(task_id="stop", processor_task_id=task_id, **arguments).execute({})


def test_every_running_version_is_stopped_and_returned(emulator: EmulatorServer) -> None:
    task, versions = task_with_versions(emulator, 1, 2, 1)
    stopped = stop(task.task_id)
    assert sorted(stopped.pop("stopped_version_ids")) == sorted([versions[0], versions[2]])
    assert stopped == {"task_id": task.task_id}
    assert version_statuses(emulator, task) == [4, 2, 4]


def test_a_named_version_is_stopped_alone(emulator: EmulatorServer) -> None:
    task, versions = task_with_versions(emulator, 1, 1)
    assert stop(task.task_id, task_version_id=versions[0])["stopped_version_ids"] == versions[:1]
    assert version_statuses(emulator, task) == [4, 1]


@pytest.mark.parametrize("named", [True, False])
def test_no_ended_version_is_stopped(emulator: EmulatorServer, printed_log: Callable[[], str], *, named: bool) -> None:
    task, versions = task_with_versions(emulator, 2)
    stopped = stop(task.task_id, task_version_id=versions[0] if named else None)
    assert stopped["stopped_version_ids"] == []
    assert ("it is completed" if named else "nothing to stop") in printed_log()
    assert emulator.state.log.count("StopProcessorTaskVersion") == 0


def test_a_task_without_versions_cannot_be_stopped(emulator: EmulatorServer) -> None:
    task = emulator.state.add_task(status=1)
    with pytest.raises(ModelArtsRequestError, match="it has no versions, and only versions can be stopped"):
        stop(task.task_id)


def test_a_version_that_cannot_be_stopped_does_not_keep_others_from_being_stopped(
    emulator: EmulatorServer, printed_log: Callable[[], str]
) -> None:
    task, _ = task_with_versions(emulator, 1, 1, 1)
    emulator.faults.refuse("ModelArts.0104", skip=1, operation="StopProcessorTaskVersion")
    with pytest.raises(ModelArtsRequestError, match="a parameter is wrong"):
        stop(task.task_id)
    assert version_statuses(emulator, task) == [4, 1, 4]
    assert printed_log().count("Stopped version") == 2


def test_a_version_that_stays_in_initialization_is_busy(emulator: EmulatorServer, pauses: list[float]) -> None:
    task, _ = task_with_versions(emulator, 0)
    with pytest.raises(ModelArtsBusyError):
        stop(task.task_id)


@pytest.mark.parametrize("times", [1, None], ids=["one answer", "all answers"])
def test_a_stop_whose_answer_is_lost_succeeds(emulator: EmulatorServer, pauses: list[float], times: int | None) -> None:
    task, versions = task_with_versions(emulator, 1)
    emulator.faults.reset("after", times=times, operation="StopProcessorTaskVersion")
    assert stop(task.task_id)["stopped_version_ids"] == versions


def delete(task_id: str, **arguments: Any) -> Any:
    return ModelArtsDeleteProcessorTaskOperator(task_id="delete", processor_task_id=task_id, **arguments).execute({})


def test_a_task_is_deleted(emulator: EmulatorServer) -> None:
    task = emulator.state.add_task(status=2)
    assert delete(task.task_id) == {"task_id": task.task_id, "task_version_id": None, "deleted": True}
    assert emulator.state.all_tasks() == []


def test_one_version_is_deleted_and_the_task_stays(emulator: EmulatorServer) -> None:
    task, versions = task_with_versions(emulator, 2, 2)
    assert delete(task.task_id, task_version_id=versions[0])["task_version_id"] == versions[0]
    assert [version.version_id for version in task.versions] == versions[1:]


@pytest.mark.parametrize("arguments", [{}, {"task_version_id": "v1"}])
def test_deleting_what_does_not_exist_is_an_error_without_ignore_if_missing(
    emulator: EmulatorServer, printed_log: Callable[[], str], arguments: dict[str, str]
) -> None:
    with pytest.raises(ModelArtsNotFoundError, match="Check the id"):
        delete("no-such-task", **arguments)
    assert delete("no-such-task", ignore_if_missing=True, **arguments)["deleted"] is False
    assert "nothing to delete" in printed_log()


def test_a_deletion_whose_answer_is_lost_succeeds(emulator: EmulatorServer, pauses: list[float]) -> None:
    task = emulator.state.add_task(status=2)
    emulator.faults.reset("after", operation="DeleteProcessorTask")
    assert delete(task.task_id)["deleted"] is True


def test_a_task_that_stays_initialized_is_busy_after_five_tries(emulator: EmulatorServer, pauses: list[float]) -> None:
    task = emulator.state.add_task(status=0)
    with pytest.raises(ModelArtsBusyError, match="initializing"):
        delete(task.task_id)
    assert emulator.state.log.count("DeleteProcessorTask") == 5


def names(**arguments: Any) -> list[str]:
    """Return the names of the tasks that a list operator finds."""
    return [task["name"] for task in ModelArtsListProcessorTasksOperator(task_id="list", **arguments).execute({})]


def test_the_list_has_the_tasks_of_all_pages_without_their_results(emulator: EmulatorServer) -> None:
    emulator.state.add_tasks(250, status=2)
    listed = ModelArtsListProcessorTasksOperator(task_id="list").execute({})
    assert len({task["task_id"] for task in listed}) == 250
    assert {task["status_name"] for task in listed} == {"completed"}
    assert not any("result" in task for task in listed)
    assert emulator.state.log.count("ListProcessorTasks") == 3


def test_every_filter_reaches_the_service(requests_mock: Mocker) -> None:
    requests_mock.get(TASKS, json={"count": 0, "tasks": []})
    filters = {"task_name": "n", "source_type": "OBS", "source": "s", "workspace_id": "w", "sort_by": "name"}
    names(
        status="failed",
        template_id="sys_data_analyse",
        version_id=["a", "b"],
        query_current=True,
        order="asc",
        **filters,
    )
    sent = {name: value for name, (value,) in requests_mock.request_history[0].qs.items()}
    paging = {"limit": "100", "offset": "0", "return_result": "false"}
    others = {
        "status": "3",
        "task_type": "sys_data_analyse",
        "version_id": "a,b",
        "query_current": "true",
        "order": "asc",
    }
    assert sent == {name: value.lower() for name, value in (filters | paging | others).items()}


@pytest.mark.parametrize("status", [[0, 1], ["initialized", "RUNNING"], ("0", 1)])
def test_several_statuses_are_given_by_number_or_name(emulator: EmulatorServer, status: Any) -> None:
    for number in range(5):
        emulator.state.add_task(f"status-{number}", status=number)
    assert sorted(names(status=status)) == ["status-0", "status-1"]


@pytest.mark.parametrize("status", ["finished", None, "-"])
def test_an_unknown_status_is_refused(status: Any) -> None:
    with pytest.raises(ValueError, match=r"status has .*only 0 \(initialized\), 1 \(running\)"):
        names(status=[status])


def update(task_id: str, description: str, **arguments: Any) -> Any:
    operator = ModelArtsUpdateProcessorTaskOperator(
        task_id="update", processor_task_id=task_id, description=description, **arguments
    )
    return operator.execute({})


@pytest.mark.parametrize("description", ["checked by hand", ""])
def test_a_description_is_changed_and_returned(emulator: EmulatorServer, description: str) -> None:
    task = emulator.state.add_task("described", body={"description": "old"})
    assert update(task.task_id, description) == {"task_id": task.task_id, "description": description}
    with ModelArtsHook() as hook:
        assert (hook.describe_processor_task(task.task_id).description or "") == description


def test_an_invalid_description_is_refused_before_sending(emulator: EmulatorServer) -> None:
    with pytest.raises(ModelArtsRequestError, match="description: it must contain none of"):
        update("abc", "a < b")
    assert emulator.state.log.count() == 0


def test_a_description_of_a_missing_task_is_an_error(emulator: EmulatorServer) -> None:
    with pytest.raises(ModelArtsNotFoundError, match="processing task 'abc'"):
        update("abc", "new")


@pytest.fixture
def a_task_an_hour(emulator: EmulatorServer) -> EmulatorServer:
    """Tasks named by the hour of a day in which they were created."""
    for hour in range(24):
        emulator.state.add_task(f"{hour:02}", create_time=datetime(2026, 5, 1, hour, tzinfo=UTC))
    return emulator


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"created_after": "2026-05-01 21:00:00+00:00"}, ["23", "22", "21"]),
        ({"created_before": "2026-05-01T02:00:00Z"}, ["01", "00"]),
        ({"created_after": datetime(2026, 5, 1, 3), "created_before": "2026-05-01T05:00"}, ["04", "03"]),
        ({"created_after": "2026-05-01T22:00", "order": "asc"}, ["22", "23"]),
        ({"created_after": "2026-05-01T22:00", "sort_by": "name"}, ["23", "22"]),
    ],
)
def test_a_window_includes_its_start_and_not_its_end(
    a_task_an_hour: EmulatorServer, window: dict[str, Any], expected: list[str]
) -> None:
    assert names(**window) == expected


def test_an_empty_window_is_logged(a_task_an_hour: EmulatorServer, printed_log: Callable[[], str]) -> None:
    noon = "2026-05-01T12:00:00Z"  # start and end of the data interval of a cron schedule in Airflow 3
    assert names(created_after=noon, created_before=noon) == []
    assert f"The time window is empty: created_after is {noon}, and created_before is {noon}." in printed_log()


def test_an_invalid_datetime_is_refused_with_its_argument() -> None:
    with pytest.raises(ValueError, match="created_before is 'yesterday': give a datetime such as"):
        names(created_before="yesterday")


def test_one_page_of_older_tasks_is_read_and_no_more(emulator: EmulatorServer) -> None:
    an_hour_ago = datetime.fromtimestamp(emulator.state.clock.now() - 3600, UTC)
    emulator.state.add_tasks(300, create_time=an_hour_ago)
    emulator.state.add_task("new", status=2)
    recently = datetime.fromtimestamp(emulator.state.clock.now() - 60, UTC)
    assert names(created_after=recently) == ["new"]
    assert emulator.state.log.count("ListProcessorTasks") == 2


@pytest.mark.parametrize("list_order", ["shuffled", "as_added"])
def test_a_list_out_of_order_is_read_to_its_end(
    emulator: EmulatorServer, printed_log: Callable[[], str], list_order: Any
) -> None:
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    emulator.state.settings.list_order = list_order
    for number in range(50):
        emulator.state.add_task(f"new {number}", create_time=noon + timedelta(seconds=number))
    emulator.state.add_tasks(349, create_time=noon - timedelta(hours=1))
    emulator.state.add_task("straggler", create_time=noon - timedelta(hours=2))
    assert sorted(names(created_after=noon)) == sorted(f"new {number}" for number in range(50))
    assert "The service did not list the tasks newest first, so the whole list was read." in printed_log()


def test_a_list_that_is_cut_off_is_logged(emulator: EmulatorServer, printed_log: Callable[[], str]) -> None:
    emulator.state.add_tasks(4, status=2)
    assert len(names(max_tasks=4)) == 4
    assert len(names(max_tasks=None)) == 4
    assert "cut off" not in printed_log()
    assert len(names(max_tasks=3)) == 3
    assert "There are more than 3 tasks: the list is cut off" in printed_log()


@pytest.mark.parametrize(
    ("operator", "fields"),
    [
        (ModelArtsDescribeProcessorTaskOperator, {"processor_task_id", "output_files_to_xcom"}),
        (ModelArtsStopProcessorTaskOperator, {"processor_task_id", "task_version_id"}),
        (ModelArtsDeleteProcessorTaskOperator, {"processor_task_id", "task_version_id"}),
        (ModelArtsUpdateProcessorTaskOperator, {"processor_task_id", "description"}),
        (
            ModelArtsListProcessorTasksOperator,
            {"status", "template_id", "task_name", "source_type", "source", "version_id", "workspace_id"}
            | {"created_after", "created_before"},
        ),
    ],
)
def test_the_arguments_of_each_operator_are_templated(operator: Any, fields: set[str]) -> None:
    assert set(operator.template_fields) == fields | {"modelarts_conn_id", "project_id"}
