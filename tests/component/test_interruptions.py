"""Tests of calls during the handling of an exception, and of calls in a signal handler that interrupts another."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import requests
from requests_mock import Mocker

from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import ModelArtsTransientError
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.hooks import ModelArtsHook
from tests.support.fixtures import TASKS
from tests.support.loopback import ONCE, Carry, Server

IAM = "https://iam.example.com"
STOP = f"{TASKS}/abc/versions/v1/stop"
CREATE = operations.create_processor_task(name="mine", template={"id": "t"}, inputs=[{"type": "OBS", "source": "b"}])


def test_a_post_is_not_repeated_because_of_the_callers_handled_exception(
    set_connection: Callable[..., None], carry_out: Carry
) -> None:
    with closing(Server(lambda *_: None)) as server:
        set_connection(host=f"http://127.0.0.1:{server.port}")
        try:
            requests.get("http://127.0.0.1:1", timeout=60)
        except requests.ConnectionError:
            with pytest.raises(ModelArtsTransientError) as caught:
                carry_out(CREATE, RetryPolicy(attempts=3, initial_delay=0.01))
        assert len(server.requests) == 1
    assert caught.value.outcome_unknown


class Iam:
    """Issues tokens, and calls ``meanwhile`` during the first request, as a signal handler would."""

    def __init__(self, requests_mock: Mocker, meanwhile: Callable[[], Any]) -> None:
        self.given = 0
        self._meanwhile = meanwhile
        requests_mock.post(f"{IAM}/v3/auth/tokens", json=self._give)

    def _give(self, _: Any, context: Any) -> dict[str, Any]:
        self.given += 1
        context.headers["X-Subject-Token"] = f"token-{self.given}"
        if self.given == 1:
            self._meanwhile()
        return {"token": {"expires_at": "2999-01-01T00:00:00Z"}}


@pytest.fixture
def hook(set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, requests_mock: Mocker) -> ModelArtsHook:
    """A hook that needs a token; any sleep fails the test."""

    def wait(_: float) -> None:
        pytest.fail("it waits for the renewal that it interrupts")

    monkeypatch.setattr("time.sleep", wait)
    set_connection(extra={"auth": "password", "domain_name": "account", "iam_endpoint": IAM})
    requests_mock.get(f"{TASKS}/abc", json={"task_id": "abc", "status": 1})
    return ModelArtsHook()


def test_a_clone_does_not_wait_for_the_renewal_that_it_interrupts(hook: ModelArtsHook, requests_mock: Mocker) -> None:
    stop = requests_mock.post(STOP, json={})
    hook.get_conn()
    iam = Iam(requests_mock, lambda: hook.clone(ONCE).stop_processor_task_version("abc", "v1"))
    hook.describe_processor_task("abc")
    assert stop.call_count == 1
    assert iam.given == 2


def test_a_clone_that_reads_the_connection_waits_for_no_renewal(hook: ModelArtsHook, requests_mock: Mocker) -> None:
    stop = requests_mock.post(STOP, json={})
    another = ModelArtsHook()  # it has not read the connection yet
    Iam(requests_mock, lambda: another.clone(ONCE).stop_processor_task_version("abc", "v1"))
    hook.describe_processor_task("abc")
    assert stop.call_count == 1


def test_a_clone_that_reads_the_connection_again_does_not_wait_for_the_renewal(
    hook: ModelArtsHook, requests_mock: Mocker, set_connection: Callable[..., None]
) -> None:
    unauthorized: dict[str, Any] = {"status_code": 401, "json": {}}
    stop = requests_mock.post(STOP, [unauthorized, unauthorized, {"json": {}}])
    another = ModelArtsHook()
    another.get_conn()
    extra = {"auth": "password", "domain_name": "account", "iam_endpoint": IAM}
    set_connection(extra=extra, password="another-fake-password")
    Iam(requests_mock, lambda: another.clone(ONCE).stop_processor_task_version("abc", "v1"))
    hook.describe_processor_task("abc")
    assert stop.call_count == 3


def test_a_clone_uses_the_cached_token(hook: ModelArtsHook, requests_mock: Mocker) -> None:
    stop = requests_mock.post(STOP, json={})
    iam = Iam(requests_mock, lambda: None)
    hook.describe_processor_task("abc")
    hook.clone(ONCE).stop_processor_task_version("abc", "v1")
    assert iam.given == 1
    assert stop.last_request.headers["X-Auth-Token"] == "token-1"
