"""What operators push where Airflow cannot take it."""

from typing import Any

import pytest

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.operators import ModelArtsDescribeProcessorTaskOperator, base
from tests.support.task_instances import TaskInstance


@pytest.mark.parametrize(
    ("none_can_be_pushed", "expected"),
    [(True, {"result": None, "work_path": None, "output_files": {}}), (False, {"output_files": {}})],
    ids=["Airflow 2.11, 3.1 and later", "Airflow 3.0"],
)
def test_a_result_that_is_none_is_pushed_where_airflow_takes_it(
    monkeypatch: pytest.MonkeyPatch, none_can_be_pushed: bool, expected: dict[str, Any]
) -> None:
    monkeypatch.setattr(base, "TAKES_NONE", none_can_be_pushed)
    instance = TaskInstance()
    operator = ModelArtsDescribeProcessorTaskOperator(task_id="read", processor_task_id="abc")
    context: Any = {"ti": instance}
    operator._publish(context, ProcessorTask(task_id="abc"))
    assert instance.xcoms == expected
