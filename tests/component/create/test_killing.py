"""Create operators against the emulator: Airflow kills the task."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support.create import Try, deferred, needs_state_store, operator, run, tasks, version_operator


def test_a_kill_before_execute_stops_nothing(emulator: EmulatorServer) -> None:
    operator().on_kill()
    assert emulator.state.log.count() == 0


@pytest.mark.parametrize("kind", ["task", "version"])
@pytest.mark.parametrize("failed_statuses", [(3, 4), (3,)])
def test_a_kill_stops_the_version_which_is_a_failure_whatever_failed_statuses_says(
    emulator: EmulatorServer,
    original: Task,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    failed_statuses: tuple[int, ...],
) -> None:
    emulator.state.next_task(duration=1000)
    how: dict[str, Any] = {"failed_statuses": failed_statuses}
    task = operator(**how) if kind == "task" else version_operator(original, **how)

    def kill(_: float) -> None:
        emulator.state.set_status(tasks(emulator)[-1 if kind == "task" else 0].task_id, 1)
        task.on_kill()

    monkeypatch.setattr("time.sleep", kill)
    with pytest.raises(ModelArtsProcessorTaskFailed, match="stopped"):
        task.execute(Try().context)


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("failed_statuses", [(3, 4), (3,)])
def test_a_kill_during_the_create_request_stops_the_version_after_it(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, failed_statuses: tuple[int, ...], *, deferrable: bool
) -> None:
    import requests

    emulator.state.next_task(duration=1000)
    task = operator(deferrable=deferrable, wait_for_capacity=False, failed_statuses=failed_statuses)
    send = requests.Session.request

    def send_and_kill(session: requests.Session, method: str, url: str, **arguments: Any) -> requests.Response:
        answer = send(session, method, url, **arguments)
        if method == "POST" and not task._killed:
            emulator.state.set_status(tasks(emulator)[0].task_id, 1)
            task.on_kill()
        return answer

    monkeypatch.setattr(requests.Session, "request", send_and_kill)
    with pytest.raises(ModelArtsProcessorTaskFailed, match="stopped"):
        task.execute(Try().context)


def test_nothing_is_submitted_after_a_kill(emulator: EmulatorServer) -> None:
    task = operator()
    attempt = Try()
    task.on_kill()
    with pytest.raises(ModelArtsError, match="Task was killed; not submitting"):
        task.execute(attempt.context)
    assert tasks(emulator) == []
    assert attempt.store == {}


def test_a_stop_by_another_succeeds_if_no_failure(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator.state.next_task(duration=1000)
    monkeypatch.setattr("time.sleep", lambda _: emulator.state.stop(tasks(emulator)[0].task_id))
    assert run({"failed_statuses": (3,)}, Try())["status_name"] == "stopped"


class Interrupted(BaseException):
    """Stands for the SIGKILL that follows on_kill."""


def killed(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, attempt: Try, **arguments: Any) -> int:
    """Kill a try during its wait, as Airflow's signal does; return the status of its processing task after that."""
    emulator.state.next_task(duration=1000)
    task = operator(**arguments)

    def kill(_: float) -> None:
        emulator.state.set_status(tasks(emulator)[0].task_id, 1)
        task.on_kill()
        raise Interrupted

    monkeypatch.setattr("time.sleep", kill)
    with pytest.raises(Interrupted):
        task.execute(attempt.context)
    return emulator.state.status(tasks(emulator)[0].task_id)


@needs_state_store
@pytest.mark.parametrize(
    ("states", "number", "expected"),
    [
        # Reset by another scheduler, or lost and rescheduled: the next try adopts it.
        *(([state], 1, 1) for state in (None, "scheduled", "queued", "up_for_retry", "deferred")),
        ([None], 3, 1),
        # The worker is shut down: Airflow retries as long as retries are left.
        (["running"], 2, 1),
        (["running"], 3, 4),
        # Cleared by a user: the next try cannot always detect that, and must submit again.
        (["restarting"], 1, 4),
        (["restarting"], 3, 4),
        # Marked by a user, timed out with its DAG run, or deleted: no try follows.
        *(([state], 1, 4) for state in ("failed", "success", "skipped", "removed", "upstream_failed")),
        ([], 1, 4),
    ],
)
def test_a_kill_stops_the_version_only_if_no_other_try_adopts_it(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, states: list[str | None], number: int, expected: int
) -> None:
    attempt = Try(number=number, max_tries=2)
    attempt.states = states
    assert killed(emulator, monkeypatch, attempt) == expected


@needs_state_store
def test_clearing_on_a_worker_creates_a_new_task_even_if_it_looks_like_a_retry(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Try()
    attempt.states = ["restarting"]
    with monkeypatch.context() as patch:
        killed(emulator, patch, attempt)
    (first,) = tasks(emulator)
    # Airflow raises max_tries only if the executor reports that the worker ended well.
    assert run({}, attempt.next())["task_id"] != first.task_id
    assert sorted(emulator.state.status(task.task_id) for task in tasks(emulator)) == [2, 4]


@needs_state_store
def test_a_kill_of_the_last_try_stops_nothing_if_another_try_has_replaced_it(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Try(number=3, max_tries=2)
    attempt.states = ["running"]
    # Airflow no longer finds the record of a try that another one has replaced.
    attempt.ti.get_task_states = lambda **_: attempt.store.clear() or {"manual": {"run": "running"}}
    assert killed(emulator, monkeypatch, attempt) == 1


@needs_state_store
@pytest.mark.parametrize(("number", "expected"), [(1, 1), (3, 4)])
@pytest.mark.parametrize("hangs", [False, True])
def test_without_an_answer_of_airflow_the_remaining_retries_decide(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, number: int, expected: int, *, hangs: bool
) -> None:
    monkeypatch.setattr("airflow_modelarts.operators.submission_store.ASK_TIMEOUT", 0.01)
    attempt = Try(number=number, max_tries=2)
    released = threading.Event()

    def ask(**_: Any) -> Any:
        if hangs:
            released.wait(60)
        raise RuntimeError("the supervisor does not answer")

    attempt.ti.get_task_states = ask
    try:
        assert killed(emulator, monkeypatch, attempt) == expected
    finally:
        released.set()


@pytest.mark.parametrize("memory", [{"durable": False}, {}] if AIRFLOW_V_3_3_PLUS else [{}])
def test_a_kill_without_a_state_store_stops_the_version(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, memory: dict[str, Any]
) -> None:
    attempt = Try()
    attempt.states = [None]
    attempt.has_store = bool(memory)
    assert killed(emulator, monkeypatch, attempt, **memory) == 4


@needs_state_store
def test_a_timeout_of_a_deferred_wait_stops_the_version_even_if_a_retry_follows(emulator: EmulatorServer) -> None:
    attempt, task = deferred(emulator)
    attempt.states = ["running"]
    resumed = operator(execution_timeout=timedelta(seconds=1))
    try:
        resumed.resume_execution("__fail__", {"error": "Trigger timeout"}, attempt.context)
    except AirflowTaskTimeout:
        resumed.on_kill()  # as Airflow does
    assert emulator.state.status(task.task_id) == 4


@needs_state_store
@pytest.mark.parametrize("kind", ["task", "version"])
def test_a_timeout_on_a_worker_stops_the_version_even_if_a_retry_follows(
    emulator: EmulatorServer, original: Task, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    attempt.states = ["running"]
    waiting = operator() if kind == "task" else version_operator(original)

    def time_is_over(_: float) -> None:
        for task in tasks(emulator):
            emulator.state.set_status(task.task_id, 1)
        raise AirflowTaskTimeout("the time is over")

    monkeypatch.setattr("time.sleep", time_is_over)
    try:
        waiting.execute(attempt.context)
    except AirflowTaskTimeout:
        waiting.on_kill()  # as Airflow does
    assert emulator.state.log.count("StopProcessorTaskVersion") == 1


@pytest.mark.parametrize("kind", ["task", "version"])
@pytest.mark.parametrize("has_store", [True, False])
def test_a_timeout_during_the_request_stops_what_it_created(
    emulator: EmulatorServer, original: Task, monkeypatch: pytest.MonkeyPatch, kind: str, *, has_store: bool
) -> None:
    import requests

    emulator.state.next_task(duration=1000)
    attempt = Try()
    attempt.has_store, attempt.states = has_store, ["running"]
    submitting = operator() if kind == "task" else version_operator(original)
    send = requests.Session.request

    def send_and_interrupt(session: requests.Session, method: str, url: str, **arguments: Any) -> requests.Response:
        answer = send(session, method, url, **arguments)
        if method == "POST" and not url.endswith("stop"):
            emulator.state.set_status(tasks(emulator)[-1].task_id, 1)
            raise AirflowTaskTimeout("the time is over")
        return answer

    monkeypatch.setattr(requests.Session, "request", send_and_interrupt)
    try:
        submitting.execute(attempt.context)
    except AirflowTaskTimeout:
        submitting.on_kill()  # as Airflow does
    assert emulator.state.log.count("StopProcessorTaskVersion") == 1
    assert emulator.state.status(tasks(emulator)[-1].task_id) == 4


def test_a_timeout_during_a_request_that_was_not_carried_out_stops_nothing(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    send = requests.Session.request

    def interrupt(session: requests.Session, method: str, url: str, **arguments: Any) -> requests.Response:
        if method == "POST":
            raise AirflowTaskTimeout("the time is over")
        return send(session, method, url, **arguments)

    monkeypatch.setattr(requests.Session, "request", interrupt)
    monkeypatch.setattr("time.sleep", lambda _: None)
    submitting = operator()
    try:
        submitting.execute(Try().context)
    except AirflowTaskTimeout:
        submitting.on_kill()
    assert emulator.state.log.counts() == {"ListProcessorTasks": 2}


def test_a_kill_logs_that_a_feature_analysis_cannot_be_stopped(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, caplog: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    task = operator(template={"id": "sys_data_analyse"})

    def kill(_: float) -> None:
        task.on_kill()
        emulator.state.finish(tasks(emulator)[0].task_id)

    monkeypatch.setattr("time.sleep", kill)
    emulator.state.next_task(duration=1000)
    task.execute(Try().context)
    assert "only versions can be stopped" in caplog.text + capsys.readouterr().out  # Airflow 2 and 3
