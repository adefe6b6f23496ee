"""The operators, against answers given by requests-mock."""

from __future__ import annotations

import json
from typing import Any

import pytest
from requests_mock import Mocker

from airflow_modelarts.api.errors import ModelArtsNotFoundError, ModelArtsRequestError
from airflow_modelarts.operators import ModelArtsDescribeProcessorTaskOperator

TASK_URL = "https://modelarts.example.com/v2/0123456789abcdef0123456789abcdef/processor-tasks/abc"


class TaskInstance:
    """Keeps what is pushed."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps(value, allow_nan=False)  # as strict as PostgreSQL is with an XCom
        self.xcoms[key] = value


def describe(**arguments: Any) -> tuple[Any, dict[str, Any]]:
    task_instance = TaskInstance()
    operator = ModelArtsDescribeProcessorTaskOperator(**{"task_id": "read", "processor_task_id": "abc", **arguments})
    return operator.execute({"ti": task_instance}), task_instance.xcoms  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("answered", "pushed"),
    [
        ({"classes": 3}, {"classes": 3}),
        ([1, {"a": 2}], [1, {"a": 2}]),
        ('{"classes": 3}', {"classes": 3}),
        (" [1, 2]", [1, 2]),
        ("xxx", "xxx"),
        ("{not json", "{not json"),
        ("42", "42"),
        (None, None),
    ],
)
def test_the_result_reaches_its_xcom_parsed(requests_mock: Mocker, answered: Any, pushed: Any) -> None:
    requests_mock.get(TASK_URL, json={"task_id": "abc", "status": 2, "result": answered})
    _, xcoms = describe()
    assert xcoms["result"] == pushed


def test_an_absent_result_and_work_path_are_pushed_as_none(requests_mock: Mocker) -> None:
    requests_mock.get(TASK_URL, json={"task_id": "abc", "status": 2})
    returned, xcoms = describe()
    assert xcoms == {"result": None, "work_path": None}
    assert returned == {"task_id": "abc", "status": 2, "status_name": "completed"}


def test_what_is_no_number_in_json_becomes_null(requests_mock: Mocker) -> None:
    requests_mock.get(TASK_URL, text='{"task_id": "abc", "status": 2, "result": {"mean": NaN, "max": -Infinity}}')
    _, xcoms = describe()
    assert xcoms["result"] == {"mean": None, "max": None}


def test_the_task_is_returned_under_the_apis_names_without_its_result(requests_mock: Mocker) -> None:
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
    requests_mock.get(
        TASK_URL,
        json={"task_id": "abc", "status": 2, "result": {"signed_source": link, "preview": link}, "signed_icon": link},
    )
    returned, xcoms = describe()
    assert "SIG" not in json.dumps([returned, xcoms])
    assert xcoms["result"] == {"preview": "https://bucket.obs.example.com/a.jpg"}


def test_nothing_is_pushed_when_xcoms_are_not_wanted(requests_mock: Mocker) -> None:
    requests_mock.get(TASK_URL, json={"task_id": "abc", "status": 2})
    _, xcoms = describe(do_xcom_push=False)
    assert xcoms == {}


def test_a_task_that_is_not_there_fails_it(requests_mock: Mocker) -> None:
    requests_mock.get(TASK_URL, status_code=400, json={"error_code": "ModelArts.4700", "error_msg": "none"})
    with pytest.raises(ModelArtsNotFoundError, match="processing task 'abc'"):
        describe()


@pytest.mark.parametrize("processor_task_id", [None, "", "..", 7])
def test_an_id_that_is_none_is_told_before_anything_is_sent(requests_mock: Mocker, processor_task_id: Any) -> None:
    with pytest.raises(ModelArtsRequestError, match="check what that pushed"):
        describe(processor_task_id=processor_task_id)
    assert not requests_mock.called


def test_the_fields_that_users_compute_are_templated() -> None:
    assert set(ModelArtsDescribeProcessorTaskOperator.template_fields) == {
        "processor_task_id",
        "modelarts_conn_id",
        "project_id",
    }
