"""Whether a task was created by the same request."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.api.same_request import differences

TASK: dict[str, Any] = {
    "task_id": "abc",
    "data_source": {"type": "DATASET", "source": "d1", "name": "of the service"},
    "inputs": [{"type": "DATASET", "source": "d1"}, {"type": "OBS", "source": "obs://bucket/in/"}],
    "template": {
        "id": "sys_data_validation",
        "name": "of the service",
        "operator_params": [{"name": "Meta", "params": {"width": "1920", "list": "[0,1]", "on": "true", "more": 1}}],
    },
    "work_path": {"type": "OBS", "path": "s3://bucket/out", "version_name": "V001"},
    "version_id": "v1",
}


def compare(**body: Any) -> list[str]:
    same = {"inputs": TASK["inputs"], "template": {"id": "sys_data_validation"}}
    return differences({**same, **body}, ProcessorTask.model_validate(TASK))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": [{"type": "OBS", "source": "s3a://bucket/in"}, {"type": "DATASET", "source": "d1"}]},
        {"inputs": [{"type": "OBS", "source": "bucket/in/"}, {"type": "DATASET", "source": "d1", "version_id": None}]},
        {"work_path": {"type": "OBS", "path": "obs://bucket/out/"}},
        {"work_path": {"path": "/bucket/out/", "output_path": ""}},
        {"version_id": "v1"},
        {"description": "another"},
        {
            "template": {
                "id": "sys_data_validation",
                "operator_params": [{"name": "Meta", "params": {"width": 1920, "list": [0, 1], "on": True}}],
            }
        },
    ],
)
def test_the_same_request_has_no_difference(body: dict[str, Any]) -> None:
    assert compare(**body) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inputs", [{"type": "DATASET", "source": "d1"}]),
        ("inputs", [{"type": "DATASET", "source": "d1"}, {"type": "OBS", "source": "obs://bucket/in-2/"}]),
        ("inputs", [{"type": "DATASET", "source": "d1"}, {"type": "DATASET", "source": "d1"}]),
        ("work_path", {"type": "OBS", "path": "obs://bucket/out/2/"}),
        ("work_path", {"type": "OBS", "path": "obs://bucket/out/", "version_name": "V002"}),
        ("version_id", "v2"),
        ("template", {"id": "sys_data_cleaning"}),
        ("template", {"id": "sys_data_validation", "operator_params": []}),
        ("template", {"id": "sys_data_validation", "operator_params": [{"name": "Meta", "params": {"width": 1921}}]}),
        ("template", {"id": "sys_data_validation", "operator_params": "none"}),
    ],
)
def test_another_request_differs_in_one_field(field: str, value: Any) -> None:
    (difference,) = compare(**{field: value})
    assert difference.startswith(f"{field} is ")
    assert " there, and " in difference


def test_a_single_input_is_compared_with_either_form() -> None:
    one = ProcessorTask.model_validate({**TASK, "inputs": None})
    body = {"template": {"id": "sys_data_validation"}}
    assert differences({**body, "data_source": {"type": "DATASET", "source": "d1"}}, one) == []
    assert differences({**body, "inputs": [{"type": "DATASET", "source": "d1"}]}, one) == []


def test_each_input_is_matched_once_the_most_specific_first() -> None:
    versions = [{"type": "DATASET", "source": "d1", "version_id": version} for version in ("v1", "v2")]
    task = ProcessorTask.model_validate({**TASK, "inputs": versions})
    latest = {"type": "DATASET", "source": "d1"}
    assert differences({"inputs": [latest, versions[0]]}, task) == []
    assert differences({"inputs": [versions[0], versions[0]]}, task) != []


@pytest.mark.parametrize(("given", "found"), [("0e12", "0e13"), ("1e5", "100000"), ("1", "1.0")])
def test_two_ids_that_are_the_same_number_differ(given: str, found: str) -> None:
    task = ProcessorTask.model_validate({**TASK, "version_id": found})
    assert len(differences({"inputs": TASK["inputs"], "version_id": given}, task)) == 1


def test_two_texts_of_the_same_list_are_the_same() -> None:
    params = {"list": "[0, 1]"}
    assert compare(template={"id": "sys_data_validation", "operator_params": [{"params": params}]}) == []


@pytest.mark.parametrize("text", ["NaN", "[" * 100_000])
def test_a_text_that_is_no_usual_json_equals_itself(text: str) -> None:
    def template(value: str) -> dict[str, Any]:
        return {"id": "x", "operator_params": [{"name": "Meta", "params": {"text": value}}]}

    task = ProcessorTask.model_validate({**TASK, "template": template(text)})
    assert differences({"inputs": TASK["inputs"], "template": template(text)}, task) == []
    assert len(differences({"inputs": TASK["inputs"], "template": template(f"x{text}")}, task)) == 1


def test_a_difference_quotes_no_signature_and_not_everything() -> None:
    link = "https://bucket.obs.example.com/a?AccessKeyId=TEMP&Signature=SIG"
    (difference,) = compare(work_path={"type": "OBS", "path": link, "name": "n" * 1000})
    assert "SIG" not in difference
    assert len(difference) < 800
