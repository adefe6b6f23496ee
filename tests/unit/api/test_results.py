"""Tests of the results of tasks and samples: form, NaN, nesting, signed links."""

import json
from typing import Any

import pytest

from airflow_modelarts.api import operations
from airflow_modelarts.api.models import ProcessorTask, parse, parse_result, parse_sample_results


def task(**fields: Any) -> ProcessorTask:
    return parse(ProcessorTask, json.dumps({"task_id": "t", **fields}).encode())


def task_of(body: str) -> ProcessorTask:
    return parse(ProcessorTask, body.encode())


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        *((value, value) for value in ({"a": [1, {"b": None}]}, [1, "2"], {}, [], 17, 1.5, True, None)),
        ('{"a": [1]}', {"a": [1]}),
        (" \n\t[1, 2]\n", [1, 2]),
        ("{}", {}),
        ("[]", []),
        ('{"a": "[1]"}', {"a": "[1]"}),
        *((text, text) for text in ("xxx", "", " ", "17", "1.5e3", "true", "null", '"quoted"', "{not json}", "[1, 2")),
        *(
            (text, text)
            for text in ('{"a": 1', '{"a": 1} {"b": 2}', "{'a': 1}", "[" * 100_000, "[" * 5000 + "]" * 5000)
        ),
        ('{"ü": "漢😀"}', {"ü": "漢😀"}),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_result_has_the_form_of_the_contract(sent: Any, read: Any) -> None:
    assert task(result=sent).result == read


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1E+999", "2.5e400", "1e0309"])
@pytest.mark.parametrize("form", ['{"x": [%s, 1]}', '"{\\"x\\": [%s, 1]}"'], ids=["object", "string"])
def test_nan_and_infinities_in_a_result_become_none(form: str, number: str) -> None:
    assert task_of(f'{{"task_id": "t", "result": {form % number}}}').result == {"x": [None, 1]}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinities_in_other_fields_become_none(number: str) -> None:
    assert task_of(f'{{"task_id": "t", "duration_seconds": {number}, "x": {number}}}').to_json() == {
        "task_id": "t",
        "duration_seconds": None,
        "x": None,
        "status_name": "unknown (None)",
    }


@pytest.mark.parametrize("text", ["NaN", "to Infinity and beyond"])
def test_a_text_that_mentions_nan_is_unchanged(text: str) -> None:
    assert task(description=text, result=text).to_json()["description"] == text


def test_a_result_given_as_text_with_a_lone_surrogate_stays_text() -> None:
    assert parse_result('{"a": "\ud800"}') == '{"a": "\ud800"}'


@pytest.mark.parametrize("depth", [100, 190])
def test_a_deeply_nested_result_is_read(depth: int) -> None:
    assert json.dumps(task_of('{"task_id": "t", "result": ' + "[" * depth + "]" * depth + "}").result) == (
        "[" * depth + "]" * depth
    )


def test_the_repr_of_a_task_excludes_the_result() -> None:
    assert "megabytes" not in repr(task(result={"x": "megabytes"}))


def test_the_json_of_a_task_excludes_the_result() -> None:
    assert "result" not in task(result={"a": 1}).to_json()


LINK = "https://b.obs.example/k/a.jpg?AccessKeyId=AK&Expires=1&x-obs-security-token=T0KEN&Signature=S3CRET%3D"
AMAZONS = "https://b.s3.example/k?X-Amz-Credential=AK&X-Amz-Security-Token=T0KEN&X-Amz-Signature=S3CRET"


@pytest.mark.parametrize("link", [LINK, AMAZONS, LINK.lower().replace("s3cret", "S3CRET").replace("t0ken", "T0KEN")])
@pytest.mark.parametrize(
    "form",
    ["{}", "see {}", "<a href='{}'>", "{} and {}", '{{"u": "{}"}}', '[["{}"]]', '{{"u": {{"signed_url": "{}"}}}}'],
)
def test_a_signed_link_in_a_result_loses_its_signature(form: str, link: str) -> None:
    read = json.dumps(task(result=form.format(link, link)).result)
    assert "S3CRET" not in read
    assert "T0KEN" not in read


def test_a_signed_link_in_a_result_keeps_its_address() -> None:
    assert task(result={"url": f"see {LINK} there"}).result == {"url": "see https://b.obs.example/k/a.jpg there"}


def test_a_signed_link_with_escaped_slashes_in_a_result_loses_its_signature() -> None:
    body = '{{"task_id": "t", "result": {{"url": "{}"}}}}'.format(LINK.replace("/", "\\/").replace("S", "\\u0053"))
    assert task_of(body).result == {"url": "https://b.obs.example/k/a.jpg"}


@pytest.mark.parametrize("form", ['{{"url": "{}"}}', '"{{\\"url\\": \\"{}\\"}}"'], ids=["object", "string"])
def test_a_signed_link_escaped_by_java_in_a_result_loses_its_signature(form: str) -> None:
    link = LINK.replace("=", "\\u003d").replace("&", "\\u0026")
    body = f'{{"task_id": "t", "result": {form.format(link)}}}'
    assert task_of(body).result == {"url": "https://b.obs.example/k/a.jpg"}


@pytest.mark.parametrize("field", ["description", "error_msg", "new_field"])
def test_a_signed_link_in_another_field_loses_its_signature(field: str) -> None:
    assert task(**{field: LINK}).to_json()[field] == "https://b.obs.example/k/a.jpg"


def test_the_results_of_listed_tasks_have_no_signed_links() -> None:
    listed = {"count": 1, "tasks": [{"task_id": "a", "result": {"link": LINK, "signed_x": LINK}}, {"task_id": "b"}]}
    task, other = operations.list_processor_tasks(return_result=True).read(json.dumps(listed).encode()).items
    assert (task.result, other.result) == ({"link": "https://b.obs.example/k/a.jpg"}, None)


def test_fields_of_signed_links_are_removed_at_any_depth() -> None:
    read = task(result=[{"signed_origin_source": "x", "a": {"signed_new_source": "y", "b": 1}}], signed_x="z")
    assert read.result == [{"a": {"b": 1}}]
    assert "signed_x" not in read.to_json()


SAMPLE = {
    **{"sample_id": "s", "origin_source": "obs://b/k", "result_property": 1},
    **{"result_description": [["a", "b"]], "new_field": 1},
}
LINKS = {"signed_origin_source": LINK, "signed_new_source": LINK}
SAMPLES = json.dumps({"count": 1, "has_more": False, "results": [{**SAMPLE, **LINKS}]}).encode()


def test_the_download_links_of_samples_are_removed_and_their_other_fields_kept() -> None:
    page = parse_sample_results(SAMPLES, signed_links=False)
    assert page.results is not None
    assert "S3CRET" not in str(page.model_dump())
    assert page.results[0].to_json() == SAMPLE


def test_the_download_links_of_samples_are_kept_on_request() -> None:
    page = parse_sample_results(SAMPLES, signed_links=True)
    assert page.results[0].signed_origin_source == LINK
    assert "S3CRET" not in json.dumps(page.results[0].to_json()) + repr(page)


@pytest.mark.parametrize("signed_links", [True, False])
@pytest.mark.parametrize("body", [b"{}", b'{"results": null}', b'{"results": []}'])
def test_a_page_of_samples_may_be_empty(body: bytes, signed_links: bool) -> None:
    assert not parse_sample_results(body, signed_links=signed_links).results
