"""The JSON of a report against its documented schema, and the documented columns of the rows."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.audit import AuditReport, AuditRules, Scope, Unreadable, Window, audit, milliseconds
from airflow_modelarts.audit.change import Previous
from airflow_modelarts.audit.report import SCHEMA_VERSION
from airflow_modelarts.audit.rows import COLUMNS, row
from airflow_modelarts.audit.schema import report_schema
from tests.support.documents import code, table

START = datetime(2026, 11, 23, tzinfo=UTC)
DAY = Window(START, START + timedelta(days=1))
RULES = AuditRules(longest_seconds=60, stuck_after_seconds=60, allowed_output_prefixes=["obs://b"])

texts = st.none() | st.text(max_size=20)
any_tasks = st.builds(
    lambda **fields: ProcessorTask.model_validate(fields),
    task_id=st.text(min_size=1),
    name=texts,
    status=st.none() | st.integers(-1, 6),
    create_time=st.none() | st.integers(milliseconds(START) - 1000, milliseconds(DAY.end) + 1000),
    duration_seconds=st.none() | st.integers(-1, 100_000),
    error_msg=texts,
    template=st.none() | st.fixed_dictionaries({"id": texts}),
    work_path=st.none() | st.fixed_dictionaries({"type": texts, "path": texts}),
)


def strict_schema() -> dict[str, Any]:
    """Return the schema without the permission of other fields."""
    schema = report_schema()
    for definition in (schema, *schema["$defs"].values()):
        definition["additionalProperties"] = False
    return schema


def full_report() -> AuditReport:
    fields = {"create_time": milliseconds(START), "duration_seconds": 90, "name": "n", "template": {"id": "t"}}
    fields |= {"work_path": {"path": "d"}, "data_source": {"source": "d"}, "workspace_id": "0"}
    tasks = [ProcessorTask.model_validate({**fields, "task_id": f"t{status}", "status": status}) for status in range(6)]
    scope = Scope(project_id="p", region="r", host="h", template_id="t", dag_id="d", run_id="r", map_index=0)
    unreadable = Unreadable(1, ("page 1, item 1: no object",), 1, {"name": 1}, {"t1": ("name",)})
    url = "https://console.example.com"
    report = audit(tasks, window=DAY, now=DAY.end, rules=RULES, scope=scope, console_url=lambda task_id: url)
    before = Previous(start=START, end=START, made_at=START, total=1, failed=0, seconds=1.5)
    report = replace(report, previous=before)
    return replace(report, unreadable=unreadable, deleted_while_listing=2, not_listed=1, rows_path="s3://b/a.jsonl")


def test_the_schema_is_valid_and_has_a_version() -> None:
    schema = report_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    assert {definition["description"] for definition in schema["$defs"].values()}


@settings(deadline=None, max_examples=50)
@given(st.lists(any_tasks, max_size=10))
def test_every_report_is_as_the_schema_says_and_has_no_other_field(tasks: list[ProcessorTask]) -> None:
    report = audit(tasks, window=DAY, now=DAY.end, rules=RULES)
    Draft202012Validator(strict_schema()).validate(json.loads(json.dumps(report.to_json())))


def test_a_full_report_is_as_the_schema_says_and_has_no_other_field() -> None:
    Draft202012Validator(strict_schema()).validate(full_report().to_json())


@pytest.mark.parametrize("field", sorted(report_schema()["required"]))
def test_a_report_that_lacks_a_field_is_not_as_the_schema_says(field: str) -> None:
    content = full_report().to_json()
    del content[field]
    with pytest.raises(ValidationError, match=field):
        Draft202012Validator(report_schema()).validate(content)


def test_the_page_names_every_field_of_the_report() -> None:
    rows = table("docs/audit.md", "field of the JSON")
    assert {code(row[0]) for row in rows} == set(report_schema()["properties"])


def test_the_page_has_the_columns_of_the_rows() -> None:
    rows = table("docs/audit.md", "column of the rows")
    assert [(code(name), text) for name, text in rows] == list(COLUMNS.items())
    assert list(row(ProcessorTask(task_id="t"), ())) == list(COLUMNS)
