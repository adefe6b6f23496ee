"""The sensor in modes poke and reschedule, against answers of requests-mock."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import airflow
import pytest
import requests
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    PokeReturnValue,
)
from requests_mock import Mocker

from airflow_modelarts.api.errors import (
    ModelArtsAuthenticationError,
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsNotFoundError,
)
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor
from tests.support.fixtures import TASKS
from tests.support.task_instances import TaskInstance

TASK_URL = f"{TASKS}/abc"

OUTAGES: dict[str, dict[str, Any]] = {
    "refused": {"exc": requests.exceptions.ConnectionError},
    "timed out": {"exc": requests.exceptions.ReadTimeout},
    "throttled": {"status_code": 429, "json": {"error_code": "APIGW.0308", "error_msg": "slow down"}},
    "busy": {"status_code": 400, "json": {"error_code": "ModelArts.4616", "error_msg": "later"}},
    "gateway": {"status_code": 503, "text": "<html>bad gateway</html>", "headers": {"Content-Type": "text/html"}},
    "html": {"status_code": 200, "text": "<html>maintenance</html>", "headers": {"Content-Type": "text/html"}},
    "cut": {"status_code": 200, "text": '{"task_id": "abc", "sta'},
    "not a task": {"status_code": 200, "json": {"hello": "world"}},
}


def refused(status: int, code: str) -> dict[str, Any]:
    return {"status_code": status, "json": {"error_code": code, "error_msg": "no"}}


PERMANENT_ERRORS: dict[str, tuple[dict[str, Any], type[ModelArtsError], str]] = {
    "wrong key": (refused(401, "APIGW.0301"), ModelArtsAuthenticationError, "Check the credentials of the connection"),
    "unknown task": (refused(400, "ModelArts.4700"), ModelArtsNotFoundError, "Check the id"),
    "unknown task, the other shape": ({"status_code": 404}, ModelArtsNotFoundError, "Check the id"),
    "wrong project": (refused(400, "ModelArts.0210"), ModelArtsConfigurationError, "project_id"),
    "wrong endpoint": (refused(404, "APIGW.0101"), ModelArtsConfigurationError, "host must be the ModelArts endpoint"),
}


@pytest.fixture(autouse=True)
def no_earlier_reschedule_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Airflow 2 the sensor reads the database, not the task instance."""
    if airflow.__version__.startswith("2."):
        monkeypatch.setattr("airflow.sensors.base._orig_start_date", lambda *_, **__: None)


def sensor(**arguments: Any) -> ModelArtsProcessorTaskSensor:
    return ModelArtsProcessorTaskSensor(
        **{"task_id": "wait", "processor_task_id": "abc", "poke_interval": 5, "timeout": 3600, **arguments}
    )


def task(status: int | None, **fields: Any) -> dict[str, Any]:
    return {"json": {"task_id": "abc", "status": status, **fields}}


@pytest.mark.parametrize("status", [0, 1, 5, -1, 99, None])
def test_a_status_that_is_not_terminal_continues_the_wait(requests_mock: Mocker, status: int | None) -> None:
    requests_mock.get(TASK_URL, **task(status))
    assert not sensor().poke({})


def test_a_completed_task_ends_the_wait_with_its_status_as_xcom(requests_mock: Mocker) -> None:
    requests_mock.get(TASK_URL, **task(2, result={"big": "thing"}))
    outcome = sensor().poke({})
    assert isinstance(outcome, PokeReturnValue)
    assert outcome.is_done
    assert outcome.xcom_value == {"task_id": "abc", "status": 2, "status_name": "completed"}


@pytest.mark.parametrize(("status", "name"), [(3, "failed"), (4, "stopped")])
def test_a_failed_status_raises_with_the_services_error_msg(requests_mock: Mocker, status: int, name: str) -> None:
    requests_mock.get(TASK_URL, **task(status, error_msg="no labeled samples"))
    with pytest.raises(ModelArtsProcessorTaskFailed, match=f"'abc' {name}: no labeled samples"):
        sensor().poke({})


@pytest.mark.parametrize(("status", "name"), [(2, "completed"), (3, "failed"), (4, "stopped")])
def test_without_failed_statuses_any_end_is_returned(requests_mock: Mocker, status: int, name: str) -> None:
    requests_mock.get(TASK_URL, **task(status))
    outcome = sensor(failed_statuses=()).execute({})
    assert outcome == {"task_id": "abc", "status": status, "status_name": name}


def test_only_the_listed_statuses_fail(requests_mock: Mocker) -> None:
    requests_mock.get(TASK_URL, **task(4))
    assert sensor(failed_statuses=[3]).poke({})


def test_failed_statuses_must_be_terminal() -> None:
    with pytest.raises(ValueError, match=r"only 2 \(completed\), 3 \(failed\) or 4 \(stopped\)"):
        sensor(failed_statuses=[1])


@pytest.mark.parametrize(("option", "reason"), [("soft_fail", "broken"), ("never_fail", "never_fail is set")])
def test_soft_fail_and_never_fail_skip_after_a_failure(requests_mock: Mocker, option: str, reason: str) -> None:
    requests_mock.get(TASK_URL, **task(3, error_msg="broken"))
    with pytest.raises(AirflowSkipException, match=reason):
        sensor(**{option: True}).execute({})


def test_soft_fail_does_not_hide_a_broken_connection(requests_mock: Mocker) -> None:
    answer, error, _ = PERMANENT_ERRORS["wrong key"]
    requests_mock.get(TASK_URL, **answer)
    with pytest.raises(error):
        sensor(soft_fail=True).execute({})


def test_silent_fail_does_not_keep_polling_after_the_end(requests_mock: Mocker) -> None:
    requests_mock.get(TASK_URL, **task(3, error_msg="broken"))
    with pytest.raises(AirflowFailException, match="broken"):
        sensor(silent_fail=True).execute({})


def test_poke_mode_polls_until_the_end(requests_mock: Mocker, pauses: list[float]) -> None:
    requests_mock.get(TASK_URL, [task(0), task(1), task(1), task(2)])
    assert sensor().execute({})["status"] == 2
    assert pauses == [5, 5, 5]


def test_reschedule_mode_frees_the_worker_between_pokes(requests_mock: Mocker) -> None:
    requests_mock.get(TASK_URL, **task(1))
    waiting = sensor(mode="reschedule")
    before = datetime.now(UTC)
    with pytest.raises(AirflowRescheduleException) as caught:
        waiting.execute({"ti": TaskInstance()})
    assert caught.value.reschedule_date - before >= timedelta(seconds=5)


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_an_outage_ends_no_mode(requests_mock: Mocker, pauses: list[float], outage: dict[str, Any]) -> None:
    requests_mock.get(TASK_URL, [*[outage] * 6, task(2)])
    assert sensor().execute({})["status"] == 2
    requests_mock.get(TASK_URL, **outage)
    with pytest.raises(AirflowRescheduleException):
        sensor(mode="reschedule").execute({"ti": TaskInstance()})


def test_a_long_outage_ends_with_the_sensors_timeout(requests_mock: Mocker, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    requests_mock.get(TASK_URL, exc=requests.exceptions.ConnectionError)
    with pytest.raises(AirflowSensorTimeout):
        sensor(timeout=1000).execute({})
    assert 1000 <= now[0] < 1030, "neither before its timeout nor long after it"


def test_polls_back_off_during_an_outage(requests_mock: Mocker, pauses: list[float]) -> None:
    outage = {"status_code": 503, "headers": {"Retry-After": "0"}}
    requests_mock.get(TASK_URL, [*[outage] * 20, task(1), task(2)])
    sensor().execute({})
    assert [pause for pause in pauses if pause] == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300, 5]


def test_retry_after_is_honoured(requests_mock: Mocker, pauses: list[float]) -> None:
    outage = {"status_code": 429, "headers": {"Retry-After": "90"}}
    requests_mock.get(TASK_URL, [outage, outage, task(2)])
    sensor().execute({})
    assert pauses == [5, 90], "at most 5 seconds within a poke, all of it between two"


@pytest.mark.parametrize(("answer", "error", "advice"), PERMANENT_ERRORS.values(), ids=PERMANENT_ERRORS)
@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_permanent_error_ends_the_wait_at_once_and_says_what_to_change(
    requests_mock: Mocker, pauses: list[float], answer: dict[str, Any], error: type[Exception], advice: str, mode: str
) -> None:
    requests_mock.get(TASK_URL, **answer)
    with pytest.raises(error, match=advice):
        sensor(mode=mode).execute({"ti": TaskInstance()})
    assert pauses == []


def test_a_key_rotated_in_the_connection_is_picked_up_within_the_poke(
    requests_mock: Mocker, set_connection: Callable[..., None]
) -> None:
    def answer(request: Any, context: Any) -> dict[str, Any]:
        if "Access=NEWKEY" in request.headers["Authorization"]:
            return {"task_id": "abc", "status": 2}
        set_connection(login="NEWKEY")  # the key is rotated during the request
        context.status_code = 401
        return {"error_code": "APIGW.0301", "error_msg": "bad key"}

    requests_mock.get(TASK_URL, json=answer)
    assert sensor().poke({})


def test_a_connection_that_is_missing_for_a_while_does_not_end_the_wait(
    requests_mock: Mocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests_mock.get(TASK_URL, [task(1), task(2)])
    waiting = sensor()
    assert not waiting.poke({})
    monkeypatch.delenv("AIRFLOW_CONN_MODELARTS_DEFAULT")
    assert waiting.poke({})


def test_only_changes_are_logged(requests_mock: Mocker, pauses: list[float]) -> None:
    requests_mock.get(TASK_URL, [task(0), *[task(1)] * 50, *[{"status_code": 503}] * 40, *[task(1)] * 50, task(2)])
    waiting = sensor()
    lines: list[str] = []
    waiting.log.info = lambda text, *values: lines.append(text % values)  # type: ignore[method-assign]
    waiting.log.warning = waiting.log.info  # type: ignore[method-assign]
    waiting.execute({})
    ours = [line for line in lines if ("rocess" in line and "execute" not in line) or "ModelArts answers" in line]
    assert [line.split(" failed: ")[0] for line in ours] == [
        "Processing task 'abc' is initialized.",
        "Processing task 'abc' is running.",
        "DescribeProcessorTask of processing task 'abc'",
        "ModelArts answers again.",
        "Processing task 'abc' is completed.",
    ]


def test_ids_and_the_connection_are_templated() -> None:
    fields = {"processor_task_id", "task_version_id", "modelarts_conn_id", "project_id"}
    assert set(ModelArtsProcessorTaskSensor.template_fields) == fields


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises((TypeError, AirflowException), match="nonsense"):
        sensor(nonsense=True)


def test_the_project_can_differ_from_that_of_the_connection(requests_mock: Mocker) -> None:
    requests_mock.get("https://modelarts.example.com/v2/other/processor-tasks/abc", **task(2))
    assert sensor(project_id="other").poke({})
