"""Tests of request bodies: the models and the messages of their faults."""

import json
from typing import Any

import pytest

from airflow_modelarts.api import operations, request_parts
from airflow_modelarts.api.request_models import (
    CreateProcessorTaskRequest,
    CreateProcessorTaskVersionRequest,
    UpdateProcessorTaskRequest,
)
from tests.support.flows import CONTRACT


@pytest.mark.parametrize("name", ["create-data-validation", "create-feature-analysis"])
def test_a_body_of_the_contract_is_sent_unchanged(name: str) -> None:
    body = json.loads((CONTRACT / "examples" / f"{name}.json").read_bytes())
    assert json.loads(operations.create_processor_task(**body).body) == body


def create(**changes: Any) -> dict[str, Any]:
    """Return the valid body of a create with changes; None removes a field."""
    body = {"name": "n", "template": {"id": "sys_data_cleaning"}, "data_source": {"type": "OBS"}, **changes}
    return {name: value for name, value in body.items() if value is not None}


VERSIONED = {"create_version": True, "template": {"id": "sys_data_analyse"}}


def faults_of(body: dict[str, Any], model: Any = CreateProcessorTaskRequest) -> str:
    found = request_parts.describe_faults(model, body)
    assert found, "the body is refused"
    return found


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"name": None}, "name: Field required"),
        ({"name": ""}, "name: String should have at least 1 character"),
        ({"name": 17}, "name: Input should be a valid string"),
        ({"template": None}, "template: Field required"),
        ({"template": {}}, "template.id: Field required"),
        ({"template": {"id": ""}}, "template.id"),
        ({"template": {"id": "t", "operator_params": ["x"]}}, "template.operator_params.0"),
        ({"data_source": None}, "neither is there"),
        ({"inputs": [{"type": "OBS"}]}, "not both"),
        ({"inputs": [], "data_source": None}, "inputs: List should have at least 1 item"),
        ({"data_source": {"type": "obs"}}, "data_source.type: Input should be 'OBS', 'TASK', 'DATASET' or 'CUSTOM'"),
        ({"inputs": [{"type": "OBS"}, {"type": "x"}], "data_source": None}, "inputs.1.type"),
        ({"work_path": {"type": "TASK"}}, "work_path.type"),
        ({"work_path": {"version_name": "V 1"}}, "work_path.version_name"),
        ({"work_path": {"version_name": "V" * 33}}, "work_path.version_name"),
        ({"description": "a" * 257}, "description: String should have at most 256 characters"),
        *(({"description": f"a{character}b"}, "description") for character in "^!<>=&\"'"),
        ({"create_version": True, "template": {"id": "sys_data_analyse"}}, "create_version must not be true"),
    ],
    ids=str,
)
def test_a_fault_of_a_body_names_its_field(changes: dict[str, Any], fault: str) -> None:
    assert fault in faults_of(create(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"description": ""},
        {"description": "ü" * 256},
        {"description": "line\nbreak"},
        {"work_path": {"version_name": ""}},
        {"work_path": {"version_name": "V-1_" * 8}},
        {"create_version": True},
        {"create_version": False, "template": {"id": "sys_data_analyse"}},
        {"new_field": {"a": 1}},
        {"data_source": {"type": "CUSTOM", "source": "p", "new": 1}},
        {"inputs": [{"type": "TASK", "source": "t"}], "data_source": None},
        {"template": {"id": "own_template", "operator_params": [{"anything": [1, {"x": None}]}]}},
    ],
    ids=str,
)
def test_a_body_that_the_service_may_accept_is_valid(changes: dict[str, Any]) -> None:
    assert CreateProcessorTaskRequest.model_validate(create(**changes)).name == "n"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (create(name="", description="\n!", template={}), ["name", "description", "template.id"]),
        (create(name="", data_source=None), ["name", "give data_source or inputs"]),
        (create(name="", **VERSIONED), ["name", "create_version must not be true"]),
        (create(data_source=None, **VERSIONED), ["give data_source or inputs", "create_version must not be true"]),
    ],
    ids=["three fields", "a field and the input", "a field and the version", "the input and the version"],
)
def test_every_fault_of_a_body_is_named_at_once_on_one_line(body: dict[str, Any], named: list[str]) -> None:
    faults = faults_of(body)
    assert [name for name in named if name not in faults] == []
    assert "\n" not in faults


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ["S3CRET"]},
        {"description": "S3CRET!"},
        {"data_source": {"type": "S3CRET"}},
        {"data_source": "S3CRET"},
        {"template": {"id": ["S3CRET"]}},
        {"template": {"id": "t", "operator_params": {"password": "S3CRET"}}},
        {"work_path": {"version_name": "S3CRET S3CRET"}},
        {"create_version": "S3CRET"},
    ],
    ids=str,
)
def test_the_faults_of_a_body_quote_no_value(changes: dict[str, Any]) -> None:
    assert "S3CRET" not in faults_of(create(**changes))


def test_the_body_of_a_version_ignores_create_version() -> None:
    body = create(create_version=True, template={"id": "sys_data_analyse"})
    assert CreateProcessorTaskVersionRequest.model_validate(body).name == "n"


@pytest.mark.parametrize("description", ["!", "a" * 257, None, 17])
def test_an_update_with_an_invalid_description_has_a_fault(description: Any) -> None:
    assert "description" in faults_of({"description": description}, UpdateProcessorTaskRequest)
