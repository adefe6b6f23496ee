"""Answers can be stored: they contain no signed links, and only values that JSON has."""

import json

import pytest

from airflow_modelarts.api import models, operations

LINK = "https://b.obs.example/k?AccessKeyId=A&Signature=MARK"


def test_the_results_of_listed_tasks_have_no_signed_links() -> None:
    listed = {"count": 1, "tasks": [{"task_id": "a", "result": {"link": LINK, "signed_x": LINK}}, {"task_id": "b"}]}
    (task, other) = operations.list_processor_tasks(return_result=True).read(json.dumps(listed).encode()).items
    assert task.result == {"link": "https://b.obs.example/k"}
    assert other.result is None


def test_a_signed_link_is_found_with_any_letter_escaped() -> None:
    body = json.dumps({"task_id": "a", "result": {"link": LINK}}).replace("Signature", "Sign\\u0061ture")
    assert models.parse(models.ProcessorTask, body.encode()).result == {"link": "https://b.obs.example/k"}


def test_a_signed_link_without_a_question_mark_is_shortened() -> None:
    assert models.without_signed_links("https://b/k&Expires=1&Signature=MARK") == "https://b/k"


@pytest.mark.parametrize("number", ["1e999", "-1E+999", "2.5e400", "1e0309"])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_number_too_large_for_a_float_becomes_none(number: str, as_text: bool) -> None:
    result = f'{{"x": [{number}, 1e300]}}'
    body = f'{{"task_id": "a", "result": {json.dumps(result) if as_text else result}}}'
    assert models.parse(models.ProcessorTask, body.encode()).result == {"x": [None, 1e300]}


def test_the_error_message_of_a_failed_task_has_no_signed_links() -> None:
    body = json.dumps({"task_id": "a", "status": 3, "error_msg": f"cannot read {LINK}."})
    assert models.parse(models.ProcessorTask, body.encode()).error_msg == "cannot read https://b.obs.example/k"
