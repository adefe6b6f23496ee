"""The hook as users meet it: its methods, its connection test, and how Airflow makes it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import redact
from requests_mock import Mocker

from airflow_modelarts.api import operations
from airflow_modelarts.hooks import ModelArtsAsyncHook, ModelArtsHook

PROJECT = "https://modelarts.example.com/v2/0123456789abcdef0123456789abcdef"
OPERATIONS = [
    "create_processor_task",
    "list_processor_tasks",
    "list_processor_task_items",
    "describe_processor_task",
    "update_processor_task",
    "delete_processor_task",
    "create_processor_task_version",
    "list_processor_task_versions",
    "describe_processor_task_version",
    "delete_processor_task_version",
    "stop_processor_task_version",
    "list_processor_task_version_results",
]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("hook", [ModelArtsHook, ModelArtsAsyncHook])
def test_every_operation_is_a_documented_method_with_its_own_signature(hook: type, name: str) -> None:
    build = getattr(operations, name)
    assert inspect.signature(getattr(hook, name)) == inspect.signature(build)
    assert getattr(hook(), name).__doc__ == build.__doc__


def test_a_task_is_created_changed_run_again_stopped_and_deleted(requests_mock: Mocker) -> None:
    requests_mock.post(f"{PROJECT}/processor-tasks", json={"task_id": "abc"})
    requests_mock.put(f"{PROJECT}/processor-tasks/abc", json={})
    requests_mock.post(f"{PROJECT}/processor-tasks/abc/versions", json={"version_id": "v1"})
    requests_mock.get(f"{PROJECT}/processor-tasks/abc/versions/v1", json={"task_version_id": "v1", "status": 1})
    requests_mock.post(f"{PROJECT}/processor-tasks/abc/versions/v1/stop", json={})
    requests_mock.delete(f"{PROJECT}/processor-tasks/abc/versions/v1", json={})
    requests_mock.delete(f"{PROJECT}/processor-tasks/abc", text="")
    template = {"id": "sys_data_validation", "operator_params": [{"name": "MetaValidation", "params": {"a": "[0,1]"}}]}
    arguments: dict[str, Any] = {
        "name": "mine",
        "template": template,
        "inputs": [{"type": "OBS", "source": "obs://b/i/"}],
    }
    with ModelArtsHook() as hook:
        assert hook.create_processor_task(**arguments, create_version=True).task_id == "abc"
        hook.update_processor_task("abc", description="new")
        assert hook.create_processor_task_version("abc", **arguments).version_id == "v1"
        assert hook.describe_processor_task_version("abc", "v1").status == 1
        hook.stop_processor_task_version("abc", "v1")
        hook.delete_processor_task_version("abc", "v1")
        hook.delete_processor_task("abc")
    sent = [
        (request.method, request.path.rpartition("processor-tasks")[2]) for request in requests_mock.request_history
    ]
    assert sent == [
        ("POST", ""),
        ("PUT", "/abc"),
        ("POST", "/abc/versions"),
        ("GET", "/abc/versions/v1"),
        ("POST", "/abc/versions/v1/stop"),
        ("DELETE", "/abc/versions/v1"),
        ("DELETE", "/abc"),
    ]
    assert requests_mock.request_history[0].json() == {**arguments, "create_version": True}


def test_the_lists_are_read_to_their_end(requests_mock: Mocker) -> None:
    requests_mock.get(
        f"{PROJECT}/processor-tasks/items", json={"total": 1, "items": [{"template_id": "sys_data_analyse"}]}
    )
    requests_mock.get(
        f"{PROJECT}/processor-tasks/abc/versions", json={"count": 1, "versions": [{"task_version_id": "v1"}]}
    )
    results = f"{PROJECT}/processor-tasks/abc/versions/v1/results"
    pages = [
        {
            "json": {
                "count": 2,
                "has_more": more,
                "results": [{"sample_id": f"s{more}", "signed_new_source": "https://x"}],
            }
        }
        for more in (True, False)
    ]
    requests_mock.get(results, pages)
    hook = ModelArtsHook()
    assert [item.template_id for item in hook.list_processor_task_items()] == ["sys_data_analyse"]
    assert [version.task_version_id for version in hook.list_processor_task_versions("abc")] == ["v1"]
    found = list(hook.list_processor_task_version_results("abc", "v1", limit=1))
    assert [(result.sample_id, result.signed_new_source) for result in found] == [("sTrue", None), ("sFalse", None)]


def test_a_working_connection_says_where_it_leads(requests_mock: Mocker) -> None:
    requests_mock.get(f"{PROJECT}/processor-tasks", json={"count": 0, "tasks": []})
    works, sentence = ModelArtsHook().test_connection()
    assert works
    assert sentence == (
        "ModelArts at https://modelarts.example.com lets these credentials into project "
        "0123456789abcdef0123456789abcdef."
    )
    assert len(requests_mock.request_history) == 1
    assert requests_mock.last_request.qs == {"limit": ["1"], "offset": ["0"], "return_result": ["false"]}


def test_a_refused_key_says_what_to_fix(requests_mock: Mocker) -> None:
    requests_mock.get(f"{PROJECT}/processor-tasks", status_code=401, json={"error_code": "APIGW.0301"})
    works, sentence = ModelArtsHook().test_connection()
    assert not works
    assert "Check the credentials" in sentence


def test_an_incomplete_connection_says_what_is_missing(set_connection: Callable[..., None]) -> None:
    set_connection(extra={"project_id": ""})
    assert ModelArtsHook().test_connection() == (
        False,
        "project_id is missing: set it in the extras of this connection, or pass project_id=",
    )


def test_airflow_makes_the_hook_from_the_connection() -> None:
    hook = ModelArtsHook.get_hook("modelarts_default")
    assert isinstance(hook, ModelArtsHook)
    assert hook.get_conn().client.endpoint == "https://modelarts.example.com"


def test_both_halves_take_the_same_arguments() -> None:
    arguments = {"project_id": "p2", "region": "eu-de", "endpoint": "other.example.com"}
    hook = ModelArtsHook("modelarts_default", **arguments)
    another = ModelArtsAsyncHook("modelarts_default", **arguments)
    assert hook.overrides == another.overrides
    assert hook.get_conn() == asyncio.run(another._driver.settings())


def test_neither_the_logs_nor_the_errors_of_a_call_show_a_secret(
    requests_mock: Mocker, caplog: pytest.LogCaptureFixture, pauses: list[float]
) -> None:
    caplog.set_level(logging.DEBUG)

    def echo(request: Any, context: Any) -> dict[str, Any]:
        context.status_code = 400
        return {"error_code": "ModelArts.4614", "error_msg": f"{dict(request.headers)} fake-secret-key"}

    requests_mock.get(f"{PROJECT}/processor-tasks/abc", json=echo)
    with pytest.raises(Exception, match="the task failed") as caught:
        ModelArtsHook().describe_processor_task("abc")
    assert "fake-secret-key" not in str(caught.value) + caplog.text


@pytest.mark.parametrize("hook", [ModelArtsHook, ModelArtsAsyncHook])
def test_a_key_of_the_environment_is_masked_in_logs(
    set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, hook: type
) -> None:
    secret = f"environment-secret-of-{hook.__name__}"
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", "ENVKEY")
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", secret)
    set_connection(extra={"auth": "environment"})
    reading = hook()._driver.settings()
    if inspect.isawaitable(reading):
        asyncio.run(_wait_for(reading))
    assert secret not in str(redact(f"the key is {secret}"))


async def _wait_for(reading: Any) -> None:
    await reading
