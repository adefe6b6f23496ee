"""The key of an end, and the payload that describes it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_modelarts.api.ends import Origin, dedupe_key, describe_end
from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion

ORIGIN = Origin("modelarts_default", "0123abcd", "modelarts.cn-north-4.myhuaweicloud.com", "cn-north-4")
AT = datetime(2026, 11, 26, 7, 0, tzinfo=UTC)


def task(**fields: Any) -> ProcessorTask:
    given = {"task_id": "abc", "status": 2, "version_count": 1, "duration_seconds": 30, **fields}
    return ProcessorTask.model_validate(given)


def version(**fields: Any) -> ProcessorTaskVersion:
    return ProcessorTaskVersion.model_validate({"task_version_id": "v1", "status": 3, **fields})


def test_an_end_has_one_key_whatever_else_an_answer_holds() -> None:
    listed = task(name="n")
    described = task(name="n", result={"a": 1}, work_path={"type": "OBS", "path": "/bucket/out"}, added_later=1)
    assert dedupe_key(ORIGIN, listed) == dedupe_key(ORIGIN, described)


def test_the_id_of_the_connection_and_its_region_do_not_change_the_key() -> None:
    other = Origin("another", ORIGIN.project_id, ORIGIN.host)
    assert dedupe_key(other, task()) == dedupe_key(ORIGIN, task())


@pytest.mark.parametrize(
    "changed", [{"version_count": 2}, {"status": 3}, {"duration_seconds": 31}, {"task_id": "abd"}], ids=str
)
def test_the_next_end_has_another_key(changed: dict[str, Any]) -> None:
    assert dedupe_key(ORIGIN, task(**changed)) != dedupe_key(ORIGIN, task())


@pytest.mark.parametrize(
    "origin",
    [Origin("modelarts_default", "other", ORIGIN.host), Origin("modelarts_default", ORIGIN.project_id, "elsewhere")],
)
def test_another_project_or_host_has_another_key(origin: Origin) -> None:
    assert dedupe_key(origin, task()) != dedupe_key(ORIGIN, task())


def test_the_key_of_a_version_does_not_depend_on_later_versions() -> None:
    key = dedupe_key(ORIGIN, task(version_count=1), "v1")
    assert dedupe_key(ORIGIN, task(version_count=2, status=1), "v1") == key
    assert dedupe_key(ORIGIN, task(version_count=1), "v2") != key


def test_a_key_is_short_and_holds_nothing_readable() -> None:
    key = dedupe_key(ORIGIN, task())
    assert len(key) == 32
    int(key, 16)


def test_the_payload_has_every_documented_field_but_the_result() -> None:
    payload = describe_end(ORIGIN, ProcessorTask.model_validate({"task_id": "abc", "status": 2, "result": "x"}), AT)
    assert payload.keys() >= ProcessorTask.model_fields.keys() - {"result"}
    assert payload["work_path"] is None
    assert "result" not in payload


def test_the_payload_says_whose_end_it_is_and_when_it_was_observed() -> None:
    at = AT.astimezone(timezone(timedelta(hours=8)))
    payload = describe_end(ORIGIN, task(work_path={"type": "OBS", "path": "/bucket/out/"}), at)
    expected = {
        "modelarts_conn_id": "modelarts_default",
        "project_id": "0123abcd",
        "region": "cn-north-4",
        "host": "modelarts.cn-north-4.myhuaweicloud.com",
        "task_id": "abc",
        "task_version_id": None,
        "version_count": 1,
        "dedupe_key": dedupe_key(ORIGIN, task()),
        "observed_at": "2026-11-26T07:00:00.000+00:00",
        "status": 2,
        "status_name": "completed",
        "uri": "obs://bucket/out",
        "version": None,
    }
    assert {name: payload[name] for name in expected} == expected


def test_the_payload_of_a_version_has_its_status_and_its_fields() -> None:
    running = task(status=1, duration_seconds=2, version_count=2)
    payload = describe_end(ORIGIN, running, AT, version(duration_seconds=9, error_msg="no luck"))
    assert (payload["status"], payload["status_name"], payload["task_version_id"]) == (3, "failed", "v1")
    assert (payload["error_msg"], payload["duration_seconds"]) == ("no luck", 9)
    assert payload["version"]["task_version_id"] == "v1"
    assert payload["dedupe_key"] == dedupe_key(ORIGIN, task(), "v1")


def test_a_field_of_the_service_does_not_replace_one_that_identifies_the_end() -> None:
    payload = describe_end(ORIGIN, task(host="elsewhere", observed_at=1, added_later=2), AT)
    assert (payload["host"], payload["observed_at"]) == (ORIGIN.host, "2026-11-26T07:00:00.000+00:00")
    assert payload["added_later"] == 2


def test_a_field_that_is_too_large_for_an_event_is_named() -> None:
    template = {"id": "sys_data_cleaning", "operator_params": [{"params": {"list": ["x" * 99] * 99}}]}
    payload = describe_end(ORIGIN, task(template=template, added_later="y" * 9000, name="n"), AT)
    assert payload["omitted"] == ["added_later", "template"]
    assert payload["template"] is payload["added_later"] is None
    assert payload["name"] == "n"


def test_the_payload_is_json_without_signed_links() -> None:
    link = "https://bucket.obs.cn-north-4.myhuaweicloud.com/k?AccessKeyId=AK&Signature=abc"
    payload = describe_end(ORIGIN, task(description=link, added_later={"link": link}), AT)
    assert "Signature" not in json.dumps(payload)


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("https://modelarts.example.com", "modelarts.example.com"),
        ("https://ModelArts.example.com:443", "modelarts.example.com"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
    ],
)
def test_the_host_is_that_of_the_endpoint(endpoint: str, host: str) -> None:
    from airflow_modelarts.api.client import ClientConfig
    from airflow_modelarts.api.credentials import StaticToken, TokenCache

    client = ClientConfig(endpoint, "p", StaticToken("t"), TokenCache(), lambda: 0.0, lambda: 0.0)
    assert Origin.of("mine", client, None) == Origin("mine", "p", host)
