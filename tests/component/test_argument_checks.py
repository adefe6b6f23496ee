"""Arguments of the sensor and the operators that cannot be right, which are refused when the DAG is parsed."""

from __future__ import annotations

import math
import warnings
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_modelarts.operators import (
    ModelArtsAuditProcessorTasksOperator,
    ModelArtsCreateProcessorTaskOperator,
    ModelArtsCreateProcessorTaskVersionOperator,
    ModelArtsDeleteProcessorTaskOperator,
    ModelArtsDescribeProcessorTaskOperator,
    ModelArtsExportProcessorTaskResultsOperator,
    ModelArtsListProcessorTasksOperator,
    ModelArtsStopProcessorTaskOperator,
    ModelArtsUpdateProcessorTaskOperator,
)
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

ID = {"processor_task_id": "abc"}
BODY = {"name": "n", "template": {"id": "sys_data_analyse"}}
#: What each class needs.
NEEDED: dict[type, dict[str, Any]] = {
    ModelArtsProcessorTaskSensor: ID,
    ModelArtsDescribeProcessorTaskOperator: ID,
    ModelArtsStopProcessorTaskOperator: ID,
    ModelArtsDeleteProcessorTaskOperator: ID,
    ModelArtsUpdateProcessorTaskOperator: {**ID, "description": "new"},
    ModelArtsExportProcessorTaskResultsOperator: {**ID, "path": "s3://b/k.jsonl"},
    ModelArtsCreateProcessorTaskVersionOperator: ID,
    ModelArtsCreateProcessorTaskOperator: BODY,
    ModelArtsListProcessorTasksOperator: {},
    ModelArtsAuditProcessorTasksOperator: {},
}
WITH_ID = [make for make, needed in NEEDED.items() if "processor_task_id" in needed]
SECONDS = "give seconds as a finite number greater than 0"
TEXT = "give a text"
NOT_TEXTS = [b"abc", math.nan, object(), timedelta(1), (one for one in "abc"), {"abc"}]
FLAGS: list[tuple[type, str]] = [
    *((ModelArtsProcessorTaskSensor, name) for name in ("deferrable", "start_from_trigger", "end_from_trigger")),
    *(
        (ModelArtsCreateProcessorTaskOperator, name)
        for name in ("deferrable", "create_version", "random_name_suffix", "reuse_existing")
    ),
    (ModelArtsCreateProcessorTaskVersionOperator, "wait_for_completion"),
    (ModelArtsCreateProcessorTaskOperator, "wait_for_capacity"),
    (ModelArtsCreateProcessorTaskVersionOperator, "wait_for_capacity"),
    (ModelArtsCreateProcessorTaskVersionOperator, "cancel_on_kill"),
    (ModelArtsDeleteProcessorTaskOperator, "ignore_if_missing"),
    (ModelArtsUpdateProcessorTaskOperator, "fail_fast"),
    (ModelArtsProcessorTaskSensor, "fail_fast"),
    (ModelArtsListProcessorTasksOperator, "query_current"),
    (ModelArtsExportProcessorTaskResultsOperator, "signed_links"),
    (ModelArtsAuditProcessorTasksOperator, "fail_on_broken_rules"),
]
NOT_INTERVALS = [0, 0.0, math.nan, math.inf, True, False, timedelta(0)]

WRONG: list[tuple[type, str, Any, str]] = [
    *((make, "modelarts_conn_id", None, TEXT) for make in NEEDED),
    *((make, "project_id", ["p"], TEXT) for make in NEEDED),
    *((make, "processor_task_id", None, TEXT) for make in WITH_ID),
    *((make, "processor_task_id", ["abc"], TEXT) for make in WITH_ID),
    *((ModelArtsProcessorTaskSensor, "poke_interval", value, SECONDS) for value in (*NOT_INTERVALS, -1, "60", None)),
    *(
        (make, "poll_interval", value, SECONDS)
        for make in (ModelArtsCreateProcessorTaskOperator, ModelArtsCreateProcessorTaskVersionOperator)
        for value in (*NOT_INTERVALS, -1, "60", None)
    ),
    *(
        (make, "failed_statuses", value, complaint)
        for make in (ModelArtsProcessorTaskSensor, ModelArtsCreateProcessorTaskOperator)
        for value, complaint in (
            ("failed", "give a list of statuses"),
            (None, "give a list"),
            ([1], "only contain|only"),
        )
    ),
    (ModelArtsProcessorTaskSensor, "task_version_id", ["v"], TEXT),
    *((make, "processor_task_id", value, TEXT) for make in WITH_ID for value in NOT_TEXTS),
    *((make, "project_id", value, TEXT) for make in NEEDED for value in NOT_TEXTS),
    *((make, name, value, "give True or False") for make, name in FLAGS for value in ("False", 0, b"x", [True])),
    (ModelArtsCreateProcessorTaskOperator, "random_name_suffix", None, "give True or False"),
    (ModelArtsExportProcessorTaskResultsOperator, "path", b"s3://b/k", TEXT),
    (ModelArtsExportProcessorTaskResultsOperator, "process_parameter", ["resize"], TEXT),
    *(
        (ModelArtsExportProcessorTaskResultsOperator, "result_property", value, "give one of 0 ")
        for value in (4, -1, "added", True, [1])
    ),
    (ModelArtsCreateProcessorTaskOperator, "name", None, TEXT),
    (ModelArtsCreateProcessorTaskOperator, "workspace_id", ["0"], TEXT),
    (ModelArtsListProcessorTasksOperator, "status", [], "an empty list: leave it out"),
    (ModelArtsListProcessorTasksOperator, "status", "finished", "it must be 0"),
    (ModelArtsListProcessorTasksOperator, "status", ["finished"], "it must contain only 0"),
    (ModelArtsListProcessorTasksOperator, "status", True, "it must be 0"),
    (ModelArtsListProcessorTasksOperator, "template_id", ["sys_data_analyse"], TEXT),
    (ModelArtsListProcessorTasksOperator, "source", ["d"], TEXT),
    (ModelArtsListProcessorTasksOperator, "version_id", [], "an empty list: leave it out"),
    (ModelArtsListProcessorTasksOperator, "version_id", ["a", None], "is None: give a text"),
    (ModelArtsListProcessorTasksOperator, "version_id", {"a": 1}, TEXT),
    (ModelArtsListProcessorTasksOperator, "sort_by", "created", "'create_time' or 'name' or 'duration_seconds'"),
    (ModelArtsListProcessorTasksOperator, "order", "down", "'desc' or 'asc'"),
    *((ModelArtsListProcessorTasksOperator, "max_tasks", value, "at least 1") for value in (0, -1, True, "9", 1.5)),
    (ModelArtsUpdateProcessorTaskOperator, "description", None, TEXT),
    (ModelArtsUpdateProcessorTaskOperator, "description", ["new"], TEXT),
    (ModelArtsAuditProcessorTasksOperator, "source", ["d"], TEXT),
    (ModelArtsAuditProcessorTasksOperator, "statuses", [], "an empty list: leave it out"),
    (ModelArtsAuditProcessorTasksOperator, "statuses", ["finished"], "it must contain only 0"),
    (ModelArtsExportProcessorTaskResultsOperator, "path", None, TEXT),
]


@pytest.mark.parametrize(("make", "name", "value", "complaint"), WRONG)
def test_a_value_that_cannot_be_right_is_refused(make: Any, name: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*({complaint})"):
        make(task_id="t", **{**NEEDED[make], name: value})


@pytest.mark.parametrize(
    ("make", "name", "value", "complaint"),
    [
        (ModelArtsProcessorTaskSensor, "poke_interval", 0, SECONDS),
        (ModelArtsProcessorTaskSensor, "failed_statuses", "failed", "give a list of statuses"),
        (ModelArtsProcessorTaskSensor, "modelarts_conn_id", None, TEXT),
        (ModelArtsCreateProcessorTaskOperator, "poll_interval", math.nan, SECONDS),
        (ModelArtsCreateProcessorTaskOperator, "template", "sys_data_analyse", "give {"),
        (ModelArtsListProcessorTasksOperator, "status", [], "an empty list"),
        (ModelArtsProcessorTaskSensor, "deferrable", "False", "give True or False"),
    ],
)
@pytest.mark.parametrize("is_default", [False, True])
@pytest.mark.filterwarnings("error")
def test_a_literal_of_a_mapped_operator_is_refused_when_the_dag_is_parsed(
    make: Any, name: str, value: Any, complaint: str, is_default: bool
) -> None:
    needed = {key: one for key, one in NEEDED[make].items() if key != name}
    with (
        DAG("d", schedule=None, default_args={name: value} if is_default else {}),
        pytest.raises(ValueError, match=complaint),
    ):
        make.partial(task_id="t", **needed, **({} if is_default else {name: value}))


def test_what_another_task_or_a_template_gives_is_not_refused() -> None:
    with DAG("d", schedule=None):
        before = ModelArtsDescribeProcessorTaskOperator(task_id="before", processor_task_id="abc")
        given: Any = before.output
        ModelArtsProcessorTaskSensor(task_id="a", processor_task_id=given, modelarts_conn_id="{{ x }}")
        ModelArtsListProcessorTasksOperator(task_id="b", status=given, template_id=given, version_id=given)
        ModelArtsListProcessorTasksOperator(
            task_id="c", status=["{{ x }}", 2], template_id="{{ x }}", version_id="{{ x }}"
        )
        ModelArtsListProcessorTasksOperator(task_id="e", status="{{ x }}", version_id=["{{ x }}", given])
        sensors = ModelArtsProcessorTaskSensor.partial(task_id="f", poke_interval=5, project_id="{{ x }}")
        sensors.expand(processor_task_id=given)
        ModelArtsListProcessorTasksOperator.partial(task_id="g", template_id="{{ x }}").expand(status=[0, 1])


def test_any_text_can_be_a_template_where_a_dag_has_other_marks() -> None:
    with DAG("d", schedule=None, jinja_environment_kwargs={"variable_start_string": "<<"}):
        ModelArtsListProcessorTasksOperator(task_id="t", status="<< x >>", template_id="<< x >>")
        ModelArtsListProcessorTasksOperator.partial(task_id="u", status="<< x >>").expand(template_id=["<< x >>"])
        with pytest.raises(ValueError, match="at least 1"):
            ModelArtsListProcessorTasksOperator(task_id="v", max_tasks=0)


@pytest.mark.parametrize("make", NEEDED)
def test_an_unknown_argument_is_refused_with_the_nearest_name(make: Any) -> None:
    with pytest.raises(TypeError, match=f"{make.__name__} has no argument 'project': write project_id="):
        make(task_id="t", project="p", **NEEDED[make])
    with pytest.raises(TypeError, match="project"):  # Airflow's own check
        make.partial(task_id="t", project="p", **NEEDED[make])


@pytest.mark.parametrize(
    ("make", "name", "nearest"),
    [
        (ModelArtsProcessorTaskSensor, "failed_status", "failed_statuses"),
        (ModelArtsProcessorTaskSensor, "poll_interval", "poke_interval"),
        (ModelArtsCreateProcessorTaskOperator, "wait_for_complete", "wait_for_completion"),
        (ModelArtsCreateProcessorTaskOperator, "retrys", "retries"),
        (ModelArtsListProcessorTasksOperator, "statuses", "status"),
    ],
)
def test_the_nearest_name_can_be_of_any_base_class(make: Any, name: str, nearest: str) -> None:
    with pytest.raises(TypeError, match=f"has no argument '{name}': write {nearest}="):
        make(task_id="t", **{name: 1}, **NEEDED[make])


@pytest.mark.parametrize("make", [ModelArtsProcessorTaskSensor, ModelArtsCreateProcessorTaskOperator])
@pytest.mark.parametrize("name", ["max_attempts", "waiter_max_attempts"])
def test_a_number_of_attempts_is_answered_with_what_limits_a_wait(make: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"no argument '{name}': limit the wait by execution_timeout="):
        make(task_id="t", **{name: 3}, **NEEDED[make])


def test_a_name_that_is_like_no_other_is_refused() -> None:
    with pytest.raises(TypeError, match="has no argument 'xyzzy': its docstring names its arguments"):
        ModelArtsProcessorTaskSensor(task_id="t", xyzzy=1, **ID)


def test_arguments_of_a_subclass_are_known() -> None:
    class Own(ModelArtsProcessorTaskSensor):
        def __init__(self, *, colour: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.colour = colour

    with DAG("d", schedule=None, default_args={"retries": 1, "foreign": 2}):
        assert Own(task_id="t", colour="red", pool="p", **ID).colour == "red"


@pytest.mark.parametrize(
    ("make", "arguments", "name"),
    [
        (ModelArtsListProcessorTasksOperator, {"template_id": "sys_data_analyze"}, "template_id"),
        (ModelArtsAuditProcessorTasksOperator, {"template_id": "sys_data_analyze"}, "template_id"),
        (ModelArtsCreateProcessorTaskOperator, {**BODY, "template": {"id": "sys_data_analyze"}}, "id of template"),
        (ModelArtsCreateProcessorTaskOperator, {**BODY, "template": '{"id": "sys_data_analyze"}'}, "id of template"),
    ],
)
def test_a_template_that_the_reference_does_not_document_is_a_warning(
    make: Any, arguments: dict[str, Any], name: str
) -> None:
    with pytest.warns(UserWarning, match=f"{name} is 'sys_data_analyze'.*did you mean 'sys_data_analyse'"):
        make(task_id="t", **arguments)


def test_a_known_template_and_one_of_another_task_are_no_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for template in ({"id": "sys_data_selection"}, "{{ x }}", {"id": "{{ x }}"}, "body.json"):
            ModelArtsCreateProcessorTaskOperator(task_id="t", name="n", template=template)


def test_an_interval_can_be_a_timedelta() -> None:
    task = ModelArtsCreateProcessorTaskOperator(task_id="t", poll_interval=timedelta(minutes=2), **BODY)
    assert task.poll_interval == 120.0
