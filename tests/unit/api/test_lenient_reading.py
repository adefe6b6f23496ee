"""Answers with odd fields: what can be read is read, and what cannot is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api.models import (
    ApiModel,
    Listing,
    ProcessorTask,
    ProcessorTaskItemPage,
    ProcessorTaskPage,
    ProcessorTaskVersion,
    ProcessorTaskVersionPage,
    SampleResultPage,
    parse,
    parse_sample_results,
)
from airflow_modelarts.api.operations import describe_processor_task, list_processor_tasks

MORNING = 1_795_420_800_000  # 2026-11-23T08:00:00Z


def listed(*tasks: Any, **page: Any) -> ProcessorTaskPage:
    return parse(ProcessorTaskPage, json.dumps({"tasks": tasks, **page}).encode())


def first(**fields: Any) -> ProcessorTask:
    """Read a task from a list in which the next one is as documented."""
    page = listed({"task_id": "odd", **fields}, {"task_id": "usual", "status": 2})
    assert page.tasks is not None
    odd, usual = page.tasks
    assert (odd.task_id, usual.task_id, usual.status, usual.unreadable) == ("odd", "usual", 2, ())
    return odd


@pytest.mark.parametrize(
    ("written", "read"),
    [(12, 12), (12.0, 12), (12.5, 12), ("12", 12), (" 12 ", 12), ("12.9", 12), (0.2, 0), (None, None)],
)
def test_a_duration_is_read_from_a_fraction_or_a_text(written: Any, read: int | None) -> None:
    task = first(duration_seconds=written)
    assert (task.duration_seconds, task.unreadable) == (read, ())


@pytest.mark.parametrize(
    "written",
    [
        MORNING,
        float(MORNING),
        MORNING + 0.5,
        str(MORNING),
        f"{MORNING}.0",
        "2026-11-23T08:00:00Z",
        "2026-11-23T08:00:00",
        "2026-11-23 08:00:00.000",
        "2026-11-23T16:00:00+08:00",
        "20261123T080000Z",
    ],
)
def test_a_moment_is_read_from_a_number_or_iso_text(written: Any) -> None:
    task = first(create_time=written)
    assert (task.create_time, task.unreadable) == (MORNING, ())


@pytest.mark.parametrize(
    "written",
    ["yesterday", "", "NaN", "1e999", 10**19, 1e300, "9" * 9999, True, [], {}, [MORNING], {"ms": MORNING}],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("field", ["create_time", "duration_seconds", "version_count"])
def test_a_number_that_cannot_be_read_is_none_and_named(field: str, written: Any) -> None:
    task = first(**{field: written})
    assert (getattr(task, field), task.unreadable) == (None, (field,))


@pytest.mark.parametrize("field", ["name", "description", "error_msg", "version_id", "version_name", "workspace_id"])
@pytest.mark.parametrize("written", [True, [], {"en": "a"}], ids=str)
def test_a_text_that_cannot_be_read_is_none_and_named(field: str, written: Any) -> None:
    task = first(**{field: written})
    assert (getattr(task, field), task.unreadable) == (None, (field,))


@pytest.mark.parametrize("written", ["done", 2.5, True, {}], ids=str)
def test_a_listed_status_that_cannot_be_read_is_none_and_named(written: Any) -> None:
    task = first(status=written)
    assert (task.status, task.is_terminal, task.unreadable) == (None, False, ("status",))


@pytest.mark.parametrize(
    ("fields", "names", "left"),
    [
        ({"template": "sys_data_cleaning"}, ("template",), {"template": None}),
        ({"template": {"id": {}, "name": "n"}}, ("template.id",), {"template": {"id": None, "name": "n"}}),
        ({"work_path": ["obs://b/k"]}, ("work_path",), {"work_path": None}),
        ({"work_path": {"type": 1, "path": []}}, ("work_path.path",), {"work_path": {"type": "1", "path": None}}),
        ({"inputs": {"type": "OBS"}}, ("inputs",), {"inputs": None}),
        ({"inputs": [1, {"type": "OBS"}, "x"]}, ("inputs",), {"inputs": [{"type": "OBS"}]}),
        (
            {"inputs": [{"type": "OBS", "source": []}, {"type": False}]},
            ("inputs.type", "inputs.source"),
            {"inputs": [{"type": "OBS", "source": None}, {"type": None}]},
        ),
        (
            {"template": {"operator_params": [{"id": "o", "params": "size=1"}, 7]}},
            ("template.operator_params", "template.operator_params.params"),
            {"template": {"operator_params": [{"id": "o", "params": None}]}},
        ),
    ],
    ids=str,
)
def test_only_the_odd_part_of_an_object_is_left_out(
    fields: dict[str, Any], names: tuple[str, ...], left: dict[str, Any]
) -> None:
    task = first(**fields, name="kept")
    assert task.unreadable == names
    assert task.to_json() == {"task_id": "odd", **left, "name": "kept", "status_name": "unknown (None)"}


@pytest.mark.parametrize(
    "text",
    [b'"half \\ud83d"', b'"half \\ude00 pair"', b'"half \xed\xa0\xbd"', b'"GBK \xd6\xd0\xce\xc4"', b'"cut \xe4\xb8"'],
)
def test_text_that_is_not_unicode_is_read_as_far_as_it_is(text: bytes) -> None:
    body = b'{"tasks": [{"task_id": "odd", "error_msg": ' + text + b'}, {"task_id": "usual"}], "count": 2}'
    page = parse(ProcessorTaskPage, body)
    assert page.tasks is not None
    odd, usual = page.tasks
    assert (odd.task_id, usual.task_id, page.count) == ("odd", "usual", 2)
    assert odd.error_msg is not None
    assert odd.error_msg.split()[0].encode() == text[1:].split()[0]
    assert odd.error_msg.encode()


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (None, "no object"),
        ("abc", "no object"),
        (7, "no object"),
        (["abc"], "no object"),
        ({}, "no readable task_id"),
        ({"task_id": None, "status": 3}, "no readable task_id"),
        ({"task_id": {"id": "a"}}, "no readable task_id"),
        ({"task_id": True}, "no readable task_id"),
    ],
    ids=str,
)
def test_an_item_without_an_id_is_named_by_its_place_and_the_list_goes_on(item: Any, reason: str) -> None:
    page = listed({"task_id": "a"}, item, {"task_id": "c", "create_time": MORNING}, count=3)
    assert page.tasks is not None
    assert [task.task_id for task in page.tasks] == ["a", "c"]
    assert page.tasks[1].create_time == MORNING
    assert [(one.index, one.reason) for one in page.unreadable_items] == [(1, reason)]
    assert page.count == 3


@pytest.mark.parametrize("tasks", [{"0": {"task_id": "a"}}, "abc", 7, True], ids=str)
def test_a_page_whose_items_are_no_list_is_refused(tasks: Any) -> None:
    with pytest.raises(ValueError, match="tasks"):
        parse(ProcessorTaskPage, json.dumps({"tasks": tasks}).encode())


def test_versions_are_read_likewise() -> None:
    odd = {"task_version_id": "v1", "status": "2", "create_time": "2026-11-23T08:00Z", "deleted_sample_count": "x"}
    body = json.dumps({"versions": [odd, None, {"task_version_id": "v3", "update_time": 1.5}], "count": 3}).encode()
    page = parse(ProcessorTaskVersionPage, body)
    assert page.versions is not None
    v1, v3 = page.versions
    assert (v1.status, v1.create_time, v1.unreadable) == (2, MORNING, ("deleted_sample_count",))
    assert (v3.task_version_id, v3.update_time) == ("v3", 1)
    assert [one.index for one in page.unreadable_items] == [1]


@pytest.mark.parametrize("signed_links", [True, False])
def test_sample_results_are_read_likewise(signed_links: bool) -> None:
    odd = {"sample_id": "s1", "result_property": "3", "result_description": [["a", {}]], "new_source": []}
    body = json.dumps({"results": [odd, "x", {"sample_id": "s3", "signed_new_source": "https://b/k"}]}).encode()
    page = parse_sample_results(body, signed_links=signed_links)
    assert page.results is not None
    s1, s3 = page.results
    assert (s1.sample_id, s1.result_property, s1.result_description) == ("s1", 3, [["a"]])
    assert s1.unreadable == ("result_description", "new_source")
    assert s3.signed_new_source == ("https://b/k" if signed_links else None)
    assert [one.index for one in page.unreadable_items] == [1]


def test_templates_are_read_likewise() -> None:
    page = parse(ProcessorTaskItemPage, b'{"total": 2, "items": [{"template_id": "t", "label_en": {}}, 1]}')
    assert page.items is not None
    assert [(item.template_id, item.unreadable) for item in page.items] == [("t", ("label_en",))]
    assert [one.index for one in page.unreadable_items] == [1]


def test_a_task_that_is_read_by_id_may_have_odd_fields() -> None:
    body = {"task_id": "a", "status": 2, "create_time": "never", "duration_seconds": 12.5, "inputs": "x", "name": {}}
    task = describe_processor_task("a").read(json.dumps(body).encode())
    assert (task.status, task.duration_seconds, task.create_time) == (2, 12, None)
    assert sorted(task.unreadable) == ["create_time", "inputs", "name"]


@pytest.mark.parametrize("field", ["task_id", "task_version_id", "status"])
@pytest.mark.parametrize("written", [True, [], {}], ids=str)
def test_status_and_ids_of_a_single_version_must_be_readable(field: str, written: Any) -> None:
    with pytest.raises(ValueError, match=field):
        parse(ProcessorTaskVersion, json.dumps({"status": 2, field: written}).encode())


def test_what_is_unreadable_is_no_field_of_the_api() -> None:
    odd, usual = first(name=[]), first(name=None)
    assert odd.unreadable == ("name",)
    assert odd.to_json() == usual.to_json()
    assert odd == usual
    assert odd.model_copy(update={"status": 2}).unreadable == ("name",)
    assert first(unreadable="a field of the service").to_json()["unreadable"] == "a field of the service"


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
LISTS: list[tuple[type[Listing], type[ApiModel]]] = [
    (page, page.item_model)
    for page in (ProcessorTaskPage, ProcessorTaskVersionPage, ProcessorTaskItemPage, SampleResultPage)
]


@pytest.mark.parametrize(("page_model", "item_model"), LISTS, ids=lambda model: str(model.__name__))
@settings(deadline=None, max_examples=100)
@given(data=st.data())
@example(data=None)
def test_whatever_a_list_has_each_item_is_read_or_named(
    page_model: type[Listing], item_model: type[ApiModel], data: st.DataObject | None
) -> None:
    names = st.sampled_from(sorted(item_model.model_fields)) | st.text(max_size=4)
    values = any_json | st.sampled_from([True, "1", 1.5, [1], {"id": []}, [{"type": []}], {"operator_params": [1]}])
    item = any_json | st.dictionaries(names, values, max_size=6)
    items = [] if data is None else data.draw(st.lists(item, max_size=6))
    page = parse(page_model, json.dumps({page_model.items_field: items}).encode())
    read: list[ApiModel] = getattr(page, page_model.items_field)
    assert len(read) + len(page.unreadable_items) == len(items)
    for one in read:
        assert json.loads(json.dumps(one.to_json(), allow_nan=False)) == one.to_json()


def test_an_item_with_an_empty_id_does_not_hide_another() -> None:
    operation = list_processor_tasks()
    page = operation.read(b'{"tasks": [{"task_id": "", "name": "a"}, {"task_id": "", "name": "b"}]}')
    assert [operation.identify(task) for task in page.items] == [None, None]
