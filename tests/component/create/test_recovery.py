"""Create operators against the emulator: lost answers, crashes and retries create exactly one task."""

from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.api import errors
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator
from airflow_modelarts.operators.submission_store import RECORD_KEY
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support.create import (
    INPUTS,
    VALIDATION,
    Killed,
    Store,
    Try,
    needs_state_store,
    operator,
    run,
    tasks,
    unconfirmed,
    version_operator,
)

#: Without it, an operator waits as long as a fault lasts.
AT_ONCE: dict[str, Any] = {"wait_for_capacity": False}


def test_a_lost_answer_creates_one_task(emulator: EmulatorServer) -> None:
    emulator.faults.reset("after", operation="CreateProcessorTask")
    attempt = Try()
    assert run({}, attempt)["status_name"] == "completed"
    assert len(tasks(emulator)) == 1


@needs_state_store
def test_a_retry_after_a_failed_task_creates_a_new_one(emulator: EmulatorServer) -> None:
    emulator.state.next_task(status=3)
    attempt = Try()
    with pytest.raises(ModelArtsProcessorTaskFailed):
        run({}, attempt)
    assert run({}, attempt.next())["status_name"] == "completed"
    assert len(tasks(emulator)) == 2


@needs_state_store
def test_a_retry_that_does_not_wait_returns_the_new_task(emulator: EmulatorServer) -> None:
    emulator.state.next_task(status=3, duration=0)
    attempt = Try()
    run({"wait_for_completion": False}, attempt)
    returned = run({"wait_for_completion": False}, attempt.next())
    assert returned["task_id"] == tasks(emulator)[1].task_id


@needs_state_store
def test_a_retry_with_an_exact_name_appends_its_number(emulator: EmulatorServer) -> None:
    emulator.state.next_task(status=3)
    attempt = Try()
    with pytest.raises(ModelArtsProcessorTaskFailed):
        run({"random_name_suffix": False}, attempt)
    run({"random_name_suffix": False}, attempt.next())
    assert [task.name for task in tasks(emulator)] == ["check", "check-2"]


@needs_state_store
def test_a_retry_after_the_task_was_deleted_creates_a_new_one(emulator: EmulatorServer) -> None:
    attempt = Try()
    run({}, attempt)
    emulator.state.delete_task(tasks(emulator)[0].project_id, tasks(emulator)[0].task_id)
    run({}, attempt.next())
    assert len(tasks(emulator)) == 1


@needs_state_store
def test_a_retry_after_a_success_that_airflow_did_not_record_adopts_the_task(emulator: EmulatorServer) -> None:
    attempt = Try()
    first = run({}, attempt)
    assert run({}, attempt.next())["task_id"] == first["task_id"]
    assert len(tasks(emulator)) == 1


@needs_state_store
def test_a_retry_after_the_end_pushes_the_id_again(emulator: EmulatorServer) -> None:
    attempt = Try()
    run({}, attempt)
    retry = attempt.next()  # Airflow clears the XComs for it
    run({}, retry)
    assert retry.xcoms["processor_task_id"] == tasks(emulator)[0].task_id


@pytest.mark.parametrize("arguments", [{"durable": False}, {}] if AIRFLOW_V_3_3_PLUS else [{}])
def test_an_operator_runs_without_a_task_state_store(emulator: EmulatorServer, arguments: dict[str, Any]) -> None:
    attempt = Try()
    context = attempt.context
    context.pop("task_state_store")
    operator(**arguments).execute(context)
    assert attempt.store == {}
    assert len(tasks(emulator)) == 1


def test_an_airflow_without_recovery_is_logged_once(emulator: EmulatorServer, printed_log: Callable[[], str]) -> None:
    run({}, Try())
    assert printed_log().count("Crash recovery needs Airflow 3.3") == (0 if AIRFLOW_V_3_3_PLUS else 1)


class Crashes:
    """Raises Killed at one of the points before and after each request, XCom and access to the state store."""

    def __init__(self, point: int) -> None:
        self.point = point
        self.count = 0

    def around(self, function: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.pass_point()
            result = function(*args, **kwargs)
            self.pass_point()
            return result

        return wrapper

    def pass_point(self) -> None:
        self.count += 1
        if self.count > self.point:
            raise Killed


@needs_state_store
@pytest.mark.parametrize("kind", ["task", "version"])
def test_a_crash_at_any_point_leaves_one_task_and_a_retry_that_succeeds(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import requests

    send = requests.Session.request
    point = 0
    while True:
        emulator.state.reset()
        original = emulator.state.add_task(template="sys_data_validation", status=2) if kind == "version" else None

        def work(attempt: Try, original: Task | None = original) -> Any:
            return version_operator(original).execute(attempt.context) if original else run({}, attempt)

        attempt, crashes = Try(), Crashes(point)
        for name in ("get", "set", "delete"):
            monkeypatch.setattr(attempt.store, name, crashes.around(getattr(attempt.store, name)), raising=False)
        monkeypatch.setattr(requests.Session, "request", crashes.around(send))
        attempt.ti.xcom_push = crashes.around(attempt.ti.xcom_push)
        try:
            work(attempt)
            crashed = False
        except Killed:
            crashed = True
        monkeypatch.setattr(requests.Session, "request", send)
        retry = attempt.next()
        retry.store = Store(attempt.store)
        assert work(retry)["status_name"] == "completed", f"crash at {point}"
        runs = [version for task in tasks(emulator) for version in task.versions]
        assert len(runs) == (1 if original is None else 2), f"crash at {point}"
        if not crashed:
            break
        point += 1
    assert point > 20


@needs_state_store
def test_the_intent_is_stored_before_the_request(emulator: EmulatorServer, pauses: list[float]) -> None:
    emulator.faults.reset("before", times=None, operation="CreateProcessorTask")
    attempt = Try()
    with pytest.raises(errors.ModelArtsTransientError):
        run(AT_ONCE, attempt)
    assert attempt.store[RECORD_KEY]["intent"].startswith("check-")


def test_a_subclass_sets_the_retries_of_the_request(emulator: EmulatorServer, pauses: list[float]) -> None:
    class Impatient(ModelArtsCreateProcessorTaskOperator):
        def _open_hook(self, retries: RetryPolicy | None = None) -> ModelArtsHook:
            return super()._open_hook(RetryPolicy(attempts=1))

    emulator.faults.throttle(times=1, operation="CreateProcessorTask")
    with pytest.raises(errors.ModelArtsThrottledError):
        Impatient(task_id="run", name="check", template=VALIDATION, inputs=INPUTS, **AT_ONCE).execute(Try().context)
    assert emulator.state.log.count("CreateProcessorTask") == 1


@needs_state_store
@pytest.mark.parametrize("code", ["ModelArts.0104", "ModelArts.4409"])
def test_the_intent_of_a_refused_create_is_deleted(emulator: EmulatorServer, pauses: list[float], code: str) -> None:
    fault = emulator.faults.refuse(code, times=None, operation="CreateProcessorTask")
    attempt = Try()
    with pytest.raises(errors.ModelArtsError):
        run({"name": "invalid", **AT_ONCE}, attempt)
    assert attempt.store == {}
    emulator.faults.remove(fault)
    run({"name": "valid"}, attempt.next())
    assert [task.name.split("-")[0] for task in tasks(emulator)] == ["valid"]


def unanswered(emulator: EmulatorServer) -> Try:
    """Return a try whose requests all got lost."""
    lost = emulator.faults.reset("before", times=None, operation="CreateProcessorTask")
    attempt = Try()
    with pytest.raises(errors.ModelArtsTransientError):
        run(AT_ONCE, attempt)
    emulator.faults.remove(lost)
    return attempt


@needs_state_store
def test_the_intent_is_deleted_if_a_retry_is_refused_too(emulator: EmulatorServer, pauses: list[float]) -> None:
    attempt = unanswered(emulator)
    emulator.faults.refuse("ModelArts.0104", operation="CreateProcessorTask")
    with pytest.raises(errors.ModelArtsRequestError):
        run({}, attempt.next())
    assert attempt.store == {}


@needs_state_store
def test_the_intent_is_kept_if_the_service_is_busy_at_the_retry(emulator: EmulatorServer, pauses: list[float]) -> None:
    attempt = unanswered(emulator)
    name = attempt.store[RECORD_KEY]["intent"]
    emulator.faults.refuse("ModelArts.4409", times=None, operation="CreateProcessorTask")
    with pytest.raises(errors.ModelArtsBusyError):
        run(AT_ONCE, attempt.next())
    assert attempt.store[RECORD_KEY]["intent"] == name


@needs_state_store
def test_the_intent_is_kept_if_the_lookup_fails(emulator: EmulatorServer, pauses: list[float]) -> None:
    emulator.faults.reset("after", operation="CreateProcessorTask")
    emulator.faults.refuse("ModelArts.0108", operation="ListProcessorTasks")
    attempt = Try()
    with pytest.raises(errors.ModelArtsAuthenticationError):
        run({}, attempt)
    (task,) = tasks(emulator)
    assert run({}, attempt.next())["task_id"] == task.task_id


@needs_state_store
def test_a_retry_does_not_adopt_a_task_that_had_the_exact_name_before(emulator: EmulatorServer) -> None:
    emulator.state.add_task("check", template="sys_data_validation", status=2)
    attempt = Try()
    with pytest.raises(errors.ModelArtsAlreadyExistsError):
        run({"random_name_suffix": False}, attempt)
    assert run({"random_name_suffix": False}, attempt.next())["name"] == "check-2"


def test_an_exact_name_is_looked_up_before_the_request(emulator: EmulatorServer) -> None:
    emulator.state.add_task("check")
    emulator.faults.reset("before", operation="CreateProcessorTask")
    attempt = Try()
    with pytest.raises(errors.ModelArtsAlreadyExistsError, match="'check' exists already"):
        run({"random_name_suffix": False}, attempt)
    assert emulator.state.log.count("CreateProcessorTask") == 0
    assert attempt.store == {}


@needs_state_store
def test_a_retry_adopts_a_task_that_an_earlier_try_created_under_the_exact_name(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Try()
    monkeypatch.setattr(attempt.store, "set", Crashes(1).around(attempt.store.set), raising=False)
    with pytest.raises(Killed):  # after the answer, before the id is stored
        run({"random_name_suffix": False}, attempt)
    retry = Try(Store(attempt.store), number=2)
    assert run({"random_name_suffix": False}, retry)["name"] == "check"
    assert len(tasks(emulator)) == 1


@needs_state_store
def test_a_retry_after_a_refused_version_does_not_adopt_another_version(
    emulator: EmulatorServer, original: Task, pauses: list[float]
) -> None:
    fault = emulator.faults.refuse("ModelArts.4616", times=None, operation="CreateProcessorTaskVersion")
    attempt = Try()
    with pytest.raises(errors.ModelArtsBusyError):
        version_operator(original, **AT_ONCE).execute(attempt.context)
    emulator.faults.remove(fault)
    version_operator(original, description="of a sibling").execute(Try().context)
    version_operator(original, description="its own").execute(attempt.next().context)
    assert [version.body.get("description") for version in original.versions[1:]] == ["of a sibling", "its own"]


@needs_state_store
def test_the_intent_of_another_task_is_ignored(emulator: EmulatorServer, original: Task) -> None:
    version_operator(original).execute(unconfirmed({"processor_task_id": "another", "versions": []}).context)
    assert len(original.versions) == 2


@needs_state_store
def test_a_stopped_task_with_pushed_xcoms_is_adopted(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator.state.next_task(status=4)
    attempt = Try()
    first = run({"failed_statuses": (3,)}, attempt)
    assert run({"failed_statuses": (3,)}, attempt.next())["task_id"] == first["task_id"]


@needs_state_store
@pytest.mark.parametrize("kind", ["task", "version"])
def test_a_stopped_task_without_a_stored_id_is_not_adopted(emulator: EmulatorServer, kind: str) -> None:
    if kind == "task":
        first = emulator.state.add_task("check-1", template="sys_data_validation", status=4)
        returned = run({"failed_statuses": (3,)}, unconfirmed("check-1"))
        assert returned["task_id"] != first.task_id
    else:
        task = emulator.state.add_task("t", template="sys_data_validation", status=4, body={"inputs": INPUTS})
        attempt = unconfirmed({"processor_task_id": task.task_id, "versions": []})
        version_operator(task, failed_statuses=(3,)).execute(attempt.context)
        assert attempt.xcoms["version"]["status_name"] == "completed"
