"""The operators that run processing tasks, against the emulator: what is created, how often, and what is told of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.api.errors import (
    ModelArtsAlreadyExistsError,
    ModelArtsBusyError,
    ModelArtsError,
    ModelArtsNotFoundError,
    ModelArtsRequestError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.models import TemplateParam
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.operators import (
    ModelArtsCreateProcessorTaskOperator,
    ModelArtsCreateProcessorTaskVersionOperator,
)
from airflow_modelarts.operators.submission_store import RECORD_KEY
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task

EXAMPLES = Path(__file__).parents[1] / "data" / "contract" / "examples"
VALIDATION = {"id": "sys_data_validation", "operator_params": [{"name": "MetaValidation", "params": {}}]}
INPUTS = [{"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}]

with_memory = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="the task state store came with Airflow 3.3")


class Store(dict[str, Any]):
    """A task state store, as Airflow's is used."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Try:
    """One try of an Airflow task instance; the next has the same store."""

    def __init__(self, store: Store | None = None, *, number: int = 1, max_tries: int = 2) -> None:
        self.store = Store() if store is None else store
        self.xcoms: dict[str, Any] = {}
        #: What Airflow says of the task instance; no state where its row is gone.
        self.states: list[str | None] = ["failed"]
        self.has_store = True
        self.ti = SimpleNamespace(
            dag_id="dag",
            task_id="run",
            run_id="manual",
            get_task_states=lambda **_: {"manual": dict(zip(["run"], self.states, strict=False))},
            try_number=number,
            max_tries=max_tries,
            map_index=-1,
            start_date=datetime.now(UTC),
            stats_tags={},
            xcom_push=self.push,
            xcom_pull=lambda **asked: self.xcoms.get(asked["key"]),
        )
        self.number = number

    def push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value, allow_nan=False))

    def next(self, *, cleared: bool = False) -> Try:
        max_tries = self.ti.max_tries + self.number if cleared else self.ti.max_tries
        return Try(self.store, number=self.number + 1, max_tries=max_tries)

    @property
    def context(self) -> Any:
        return {"ti": self.ti, **({"task_state_store": self.store} if self.has_store else {})}


class Killed(BaseException):
    """The end of a worker, as sudden as it can be in one process."""


@pytest.fixture(scope="module")
def server() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=0.05) as running:
        yield running


def operator(**arguments: Any) -> ModelArtsCreateProcessorTaskOperator:
    given: dict[str, Any] = {"template": VALIDATION, "inputs": INPUTS, "poll_interval": 0.02, **arguments}
    return ModelArtsCreateProcessorTaskOperator(task_id="run", **{"name": "check", **given})


def tasks(emulator: EmulatorServer) -> list[Task]:
    return emulator.state.all_tasks()


def run(arguments: dict[str, Any], attempt: Try) -> Any:
    return operator(**arguments).execute(attempt.context)


# What is sent


def test_it_creates_a_task_waits_and_hands_it_on(emulator: EmulatorServer) -> None:
    attempt = Try()
    returned = run({"work_path": {"type": "OBS", "path": "obs://bucket/out/"}}, attempt)
    (task,) = tasks(emulator)
    assert returned["task_id"] == task.task_id == attempt.xcoms["processor_task_id"]
    assert returned["status_name"] == "completed"
    assert attempt.xcoms["work_path"] == {"type": "OBS", "path": "obs://bucket/out/"}
    assert attempt.xcoms.get("result") is None
    version = attempt.xcoms["version"]
    assert version["task_version_id"] == task.versions[0].version_id
    assert version["add_sample_count"] == 4
    assert version["status_name"] == "completed"


def test_a_feature_analysis_has_a_result_and_no_version(emulator: EmulatorServer) -> None:
    attempt = Try()
    run({"template": {"id": "sys_data_analyse"}}, attempt)
    assert "features" in attempt.xcoms["result"]
    assert attempt.xcoms.get("version") is None, "so that the outputs of mapped tasks are as many as the tasks"


@pytest.mark.parametrize("name", ["create-feature-analysis", "create-data-validation"])
def test_the_bodies_of_the_reference_arrive_as_they_are(emulator: EmulatorServer, name: str) -> None:
    body = json.loads((EXAMPLES / f"{name}.json").read_text())
    given = {key: value for key, value in body.items() if key != "create_version"}
    operator(**{"inputs": None, **given}, random_name_suffix=False).execute(Try().context)
    (task,) = tasks(emulator)
    assert task.body == body


def test_a_model_will_do_as_a_template(emulator: EmulatorServer) -> None:
    run({"template": TemplateParam.model_validate(VALIDATION)}, Try())
    (task,) = tasks(emulator)
    assert task.body["template"] == VALIDATION


def test_every_fault_of_a_body_is_named_and_nothing_is_sent(emulator: EmulatorServer) -> None:
    bad = {"template": {"id": ""}, "inputs": [{"type": "FTP"}], "data_source": {"type": "OBS"}, "description": "a<b"}
    with pytest.raises(ModelArtsRequestError) as caught:
        run(bad, Try())
    for fault in ("template.id", "inputs.0.type", "description", "data_source or inputs"):
        assert fault in str(caught.value)
    assert emulator.state.log.count() == 0


def test_templates_render_wherever_they_stand() -> None:
    task = operator(
        name="n-{{ ds }}",
        template={
            "id": "sys_data_validation",
            "operator_params": [{"params": {"day": "{{ ds }}", "list": ["{{ ds }}"]}}],
        },
        inputs=[{"type": "OBS", "source": "obs://bucket/{{ ds }}/"}],
        work_path={"path": "obs://bucket/{{ ds }}/out"},
    )
    task.render_template_fields({"ds": "2026-01-02"})  # type: ignore[typeddict-item]
    assert task.name == "n-2026-01-02"
    assert task.template["operator_params"][0]["params"] == {"day": "2026-01-02", "list": ["2026-01-02"]}
    assert task.inputs[0]["source"] == "obs://bucket/2026-01-02/"
    assert task.work_path["path"] == "obs://bucket/2026-01-02/out"


def test_names_are_unique_by_default(emulator: EmulatorServer) -> None:
    run({"name": "same"}, Try())
    run({"name": "same"}, Try())
    first, second = (task.name for task in tasks(emulator))
    assert first != second
    assert first.startswith("same-")


def test_an_exact_name_that_is_taken_is_an_error(emulator: EmulatorServer) -> None:
    emulator.state.add_task("same")
    with pytest.raises(ModelArtsAlreadyExistsError, match="exists already"):
        run({"name": "same", "random_name_suffix": False}, Try())
    assert len(tasks(emulator)) == 1


def test_a_status_that_is_no_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"only 2 \(completed\), 3 \(failed\) or 4 \(stopped\)"):
        operator(failed_statuses=[1])


# How it ends


def test_a_task_that_fails_fails_it_with_the_services_words(emulator: EmulatorServer) -> None:
    emulator.state.next_task(status=3, error_msg="no images in there")
    with pytest.raises(ModelArtsProcessorTaskFailed, match=r"failed: no images in there"):
        run({}, Try())


@pytest.mark.parametrize("code", ["ModelArts.4636", "ModelArts.0101"])
def test_a_task_whose_versions_cannot_be_listed_has_succeeded_all_the_same(emulator: EmulatorServer, code: str) -> None:
    emulator.faults.refuse(code, operation="ListProcessorTaskVersions")
    attempt = Try()
    assert run({}, attempt)["status_name"] == "completed"
    assert attempt.xcoms.get("version") is None


def test_any_end_will_do_if_none_is_a_failure(emulator: EmulatorServer) -> None:
    emulator.state.next_task(status=3)
    assert run({"failed_statuses": ()}, Try())["status_name"] == "failed"


def test_it_need_not_wait(emulator: EmulatorServer) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    assert run({"wait_for_completion": False}, attempt)["status_name"] == "initialized"
    assert attempt.xcoms["processor_task_id"] == tasks(emulator)[0].task_id


def test_an_outage_is_waited_out(emulator: EmulatorServer, pauses: list[float]) -> None:
    emulator.faults.answer(503, times=12, operation="DescribeProcessorTask")
    assert run({}, Try())["status_name"] == "completed"


def test_an_outage_after_the_end_is_waited_out(emulator: EmulatorServer, pauses: list[float]) -> None:
    emulator.faults.answer(503, times=12, operation="ListProcessorTaskVersions")
    attempt = Try()
    assert run({}, attempt)["status_name"] == "completed"
    assert attempt.xcoms["version"]["status_name"] == "completed"


def test_an_outage_after_the_submission_is_waited_out(emulator: EmulatorServer, pauses: list[float]) -> None:
    emulator.faults.answer(503, times=12, operation="DescribeProcessorTask")
    run({"wait_for_completion": False}, Try())
    assert len(tasks(emulator)) == 1


# Once


def test_a_lost_answer_is_looked_up(emulator: EmulatorServer) -> None:
    emulator.faults.reset("after", operation="CreateProcessorTask")
    attempt = Try()
    assert run({}, attempt)["status_name"] == "completed"
    assert len(tasks(emulator)) == 1


def test_a_request_that_got_lost_is_sent_again(emulator: EmulatorServer, pauses: list[float]) -> None:
    emulator.faults.reset("before", operation="CreateProcessorTask")
    assert run({}, Try())["status_name"] == "completed"
    assert len(tasks(emulator)) == 1


def test_an_answer_that_is_lost_again_and_again_is_an_error(emulator: EmulatorServer, pauses: list[float]) -> None:
    emulator.faults.reset("before", times=None, operation="CreateProcessorTask")
    with pytest.raises(Exception, match="no answer"):
        run({}, Try())
    assert tasks(emulator) == []


@with_memory
def test_a_retry_after_a_failed_task_starts_a_new_one(emulator: EmulatorServer) -> None:
    emulator.state.next_task(status=3)
    attempt = Try()
    with pytest.raises(ModelArtsProcessorTaskFailed):
        run({}, attempt)
    assert run({}, attempt.next())["status_name"] == "completed"
    assert len(tasks(emulator)) == 2


@with_memory
def test_a_retry_that_does_not_wait_tells_of_the_new_task(emulator: EmulatorServer) -> None:
    emulator.state.next_task(status=3, duration=0)
    attempt = Try()
    run({"wait_for_completion": False}, attempt)
    returned = run({"wait_for_completion": False}, attempt.next())
    assert returned["task_id"] == tasks(emulator)[1].task_id


@with_memory
def test_a_retry_with_an_exact_name_gets_a_number(emulator: EmulatorServer) -> None:
    emulator.state.next_task(status=3)
    attempt = Try()
    with pytest.raises(ModelArtsProcessorTaskFailed):
        run({"random_name_suffix": False}, attempt)
    run({"random_name_suffix": False}, attempt.next())
    assert [task.name for task in tasks(emulator)] == ["check", "check-2"]


@with_memory
def test_a_retry_after_the_task_was_deleted_starts_a_new_one(emulator: EmulatorServer) -> None:
    attempt = Try()
    run({}, attempt)
    emulator.state.delete_task(tasks(emulator)[0].project_id, tasks(emulator)[0].task_id)
    run({}, attempt.next())
    assert len(tasks(emulator)) == 1


@with_memory
def test_clearing_after_a_success_runs_it_anew(emulator: EmulatorServer) -> None:
    attempt = Try()
    run({}, attempt)
    run({}, attempt.next(cleared=True))
    assert len(tasks(emulator)) == 2


@with_memory
def test_a_retry_after_a_success_that_nobody_heard_of_does_not_run_it_anew(emulator: EmulatorServer) -> None:
    attempt = Try()
    first = run({}, attempt)
    assert run({}, attempt.next())["task_id"] == first["task_id"]
    assert len(tasks(emulator)) == 1


@with_memory
def test_a_retry_after_the_end_pushes_the_id_again(emulator: EmulatorServer) -> None:
    attempt = Try()
    run({}, attempt)
    retry = attempt.next()  # Airflow clears the XComs for it
    run({}, retry)
    assert retry.xcoms["processor_task_id"] == tasks(emulator)[0].task_id


@with_memory
def test_what_has_completed_when_its_airflow_task_is_cleared_is_adopted(emulator: EmulatorServer) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    deferral(attempt)
    (task,) = tasks(emulator)
    emulator.state.finish(task.task_id)
    assert run({}, attempt.next(cleared=True))["task_id"] == task.task_id


@with_memory
@pytest.mark.parametrize("id_is_known", [True, False])
def test_what_runs_when_its_airflow_task_is_cleared_is_stopped_and_run_anew(
    emulator: EmulatorServer, pauses: list[float], *, id_is_known: bool
) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    deferral(attempt)
    (first,) = tasks(emulator)
    emulator.state.set_status(first.task_id, 1)
    if not id_is_known:
        attempt.store.delete("modelarts_processor_task_id")
    assert run({}, attempt.next(cleared=True))["task_id"] != first.task_id
    assert sorted(emulator.state.status(task.task_id) for task in tasks(emulator)) == [2, 4]
    assert emulator.state.status(first.task_id) == 4


@with_memory
@pytest.mark.parametrize("id_is_known", [True, False])
def test_what_the_triggerer_stops_when_its_airflow_task_is_cleared_is_left_to_it(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, *, id_is_known: bool
) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    deferral(attempt)
    (first,) = tasks(emulator)
    if not id_is_known:
        attempt.store.delete("modelarts_processor_task_id")
    monkeypatch.setattr("time.sleep", lambda _: emulator.state.stop(first.task_id))
    assert run({}, attempt.next(cleared=True))["task_id"] != first.task_id
    assert emulator.state.log.count("StopProcessorTaskVersion") == 0


@with_memory
@pytest.mark.parametrize("status", [2, 3, 4])
def test_an_event_about_what_was_cleared_does_not_end_the_wait_for_what_runs_anew(
    emulator: EmulatorServer, pauses: list[float], status: int
) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    deferral(attempt)
    (first,) = tasks(emulator)
    emulator.state.set_status(first.task_id, 1)
    emulator.state.next_task(duration=1000)
    cleared = attempt.next(cleared=True)
    deferral(cleared)
    with pytest.raises(TaskDeferred) as caught:
        operator(deferrable=True).execute_complete(cleared.context, {"task_id": first.task_id, "status": status})
    second = next(task for task in tasks(emulator) if task is not first)
    assert caught.value.trigger.processor_task_id == second.task_id  # type: ignore[attr-defined]


@with_memory
@pytest.mark.parametrize("id_is_known", [True, False])
def test_the_version_that_runs_when_its_airflow_task_is_cleared_is_stopped_alone(
    emulator: EmulatorServer, original: Task, pauses: list[float], *, id_is_known: bool
) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    with pytest.raises(TaskDeferred):
        again(original, deferrable=True).execute(attempt.context)
    emulator.state.set_status(original.task_id, 1)
    if not id_is_known:
        attempt.store.delete("modelarts_task_version_id")
    again(original).execute(attempt.next(cleared=True).context)
    now = emulator.state.clock.now()
    assert [version.run.status(now) for version in original.versions] == [2, 4, 2]


@with_memory
def test_a_feature_analysis_that_runs_when_its_airflow_task_is_cleared_is_adopted(
    emulator: EmulatorServer, pauses: list[float]
) -> None:
    analysis = {"template": {"id": "sys_data_analyse"}}
    emulator.state.next_task(duration=1000)
    attempt = Try()
    deferral(attempt, **analysis)
    (task,) = tasks(emulator)
    trigger: Any = deferral(attempt.next(cleared=True), **analysis).trigger
    assert trigger.processor_task_id == task.task_id
    assert len(tasks(emulator)) == 1


@pytest.mark.parametrize("memory", [{"durable": False}, {}] if AIRFLOW_V_3_3_PLUS else [{}])
def test_without_memory_it_works_all_the_same(emulator: EmulatorServer, memory: dict[str, Any]) -> None:
    attempt = Try()
    context = attempt.context
    context.pop("task_state_store")
    operator(**memory).execute(context)
    assert attempt.store == {}
    assert len(tasks(emulator)) == 1


def test_an_airflow_that_remembers_no_submission_says_so_once(
    emulator: EmulatorServer, said: Callable[[], str]
) -> None:
    run({}, Try())
    assert said().count("Crash recovery needs Airflow 3.3") == (0 if AIRFLOW_V_3_3_PLUS else 1)


class Crashes:
    """Kills a try at one of all the moments at which something can be seen from outside, counted from 0."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.count = 0

    def around(self, act: Any) -> Any:
        def acting(*args: Any, **kwargs: Any) -> Any:
            self.moment()
            result = act(*args, **kwargs)
            self.moment()
            return result

        return acting

    def moment(self) -> None:
        self.count += 1
        if self.count > self.at:
            raise Killed


@with_memory
@pytest.mark.parametrize("kind", ["task", "version"])
def test_a_crash_at_any_moment_leaves_one_task_and_a_retry_that_succeeds(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import requests

    send = requests.Session.request
    moments = 0
    while True:
        emulator.state.reset()
        original = emulator.state.add_task(template="sys_data_validation", status=2) if kind == "version" else None

        def work(attempt: Try, original: Task | None = original) -> Any:
            return again(original).execute(attempt.context) if original else run({}, attempt)

        attempt, crashes = Try(), Crashes(moments)
        for name in ("get", "set", "delete"):
            monkeypatch.setattr(attempt.store, name, crashes.around(getattr(attempt.store, name)), raising=False)
        monkeypatch.setattr(requests.Session, "request", crashes.around(send))
        attempt.ti.xcom_push = crashes.around(attempt.push)
        try:
            work(attempt)
            crashed = False
        except Killed:
            crashed = True
        monkeypatch.setattr(requests.Session, "request", send)
        retry = attempt.next()
        retry.store = Store(attempt.store)
        assert work(retry)["status_name"] == "completed", f"crash at {moments}"
        runs = [version for task in tasks(emulator) for version in task.versions]
        assert len(runs) == (1 if original is None else 2), f"crash at {moments}"
        if not crashed:
            break
        moments += 1
    assert moments > 20


# Deferred


def deferral(attempt: Try, **arguments: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        run({"deferrable": True, **arguments}, attempt)
    return caught.value


def test_deferred_it_hands_the_same_on(emulator: EmulatorServer) -> None:
    attempt = Try()
    deferred = deferral(attempt)
    trigger: Any = deferred.trigger
    assert trigger.stop_on_kill
    assert trigger.processor_task_id == tasks(emulator)[0].task_id
    emulator.state.finish(trigger.processor_task_id)
    event = {"task_id": trigger.processor_task_id, "status": 2}
    returned = operator(deferrable=True).execute_complete(attempt.context, event, **(deferred.kwargs or {}))
    assert returned["status_name"] == "completed"
    assert attempt.xcoms["version"]["status_name"] == "completed"


def test_deferred_an_outage_after_the_end_is_waited_out(emulator: EmulatorServer, pauses: list[float]) -> None:
    attempt = Try()
    trigger: Any = deferral(attempt).trigger
    emulator.state.finish(trigger.processor_task_id)
    emulator.faults.answer(503, times=12, operation="ListProcessorTaskVersions")
    event = {"task_id": trigger.processor_task_id, "status": 2}
    assert operator(deferrable=True).execute_complete(attempt.context, event)["status_name"] == "completed"


def test_a_wait_that_ended_too_early_goes_on(emulator: EmulatorServer) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    trigger: Any = deferral(attempt).trigger
    with pytest.raises(TaskDeferred):
        operator(deferrable=True).execute_complete(
            attempt.context, {"task_id": trigger.processor_task_id, "error": "?"}
        )


def test_what_the_trigger_could_not_do_is_told_by_the_worker(emulator: EmulatorServer) -> None:
    with pytest.raises(ModelArtsNotFoundError, match="no task with this id"):
        operator(deferrable=True).execute_complete(Try().context, {"task_id": "gone", "error": "?"})


def test_a_deferred_wait_has_what_is_left_of_the_execution_timeout(emulator: EmulatorServer) -> None:
    attempt = Try()
    attempt.ti.start_date -= timedelta(seconds=60)
    deferred = deferral(attempt, execution_timeout=timedelta(seconds=100))
    assert deferred.timeout is not None
    assert 30 < deferred.timeout.total_seconds() <= 40


def test_a_deferred_wait_has_no_limit_of_its_own(emulator: EmulatorServer) -> None:
    assert deferral(Try()).timeout is None


def test_a_timeout_stops_the_version(emulator: EmulatorServer) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    deferral(attempt)
    (task,) = tasks(emulator)
    emulator.state.set_status(task.task_id, 1)
    resumed = operator(deferrable=True)
    with pytest.raises(AirflowTaskTimeout, match="execution_timeout is over"):
        resumed.resume_execution("__fail__", {"error": "Trigger timeout"}, attempt.context)
    resumed.on_kill()  # as Airflow does after this error
    assert emulator.state.status(task.task_id) == 4
    assert emulator.state.log.count("StopProcessorTaskVersion") == 1


def test_a_timeout_stops_the_one_version(emulator: EmulatorServer, original: Task) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    with pytest.raises(TaskDeferred):
        again(original, deferrable=True).execute(attempt.context)
    emulator.state.set_status(original.task_id, 1)
    attempt.store.clear()  # as on Airflow 2: the XCom is all there is
    context = {key: value for key, value in attempt.context.items() if key == "ti"}
    resumed = again(original, deferrable=True)
    with pytest.raises(AirflowTaskTimeout):
        resumed.resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    resumed.on_kill()
    assert emulator.state.status(original.task_id) == 4


def test_another_failure_of_the_trigger_stays_what_it_is(emulator: EmulatorServer) -> None:
    with pytest.raises(Exception, match="failure"):
        operator(deferrable=True).resume_execution("__fail__", {"error": "Trigger failure"}, Try().context)


# Killed


def test_killed_before_it_has_begun_it_stops_nothing(emulator: EmulatorServer) -> None:
    operator().on_kill()
    assert emulator.state.log.count() == 0


def test_killed_it_stops_its_version(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator.state.next_task(duration=1000)
    task = operator()

    def kill(_: float) -> None:
        (created,) = tasks(emulator)
        emulator.state.set_status(created.task_id, 1)
        task.on_kill()

    monkeypatch.setattr("time.sleep", kill)
    with pytest.raises(ModelArtsProcessorTaskFailed, match="stopped"):
        task.execute(Try().context)


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("failed_statuses", [(3, 4), (3,)])
def test_killed_while_the_answer_is_on_its_way_it_stops_the_version_later(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, failed_statuses: tuple[int, ...], *, deferrable: bool
) -> None:
    import requests

    emulator.state.next_task(duration=1000)
    task = operator(deferrable=deferrable, failed_statuses=failed_statuses)
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


def test_killed_before_it_has_submitted_it_submits_nothing(emulator: EmulatorServer) -> None:
    task = operator()
    attempt = Try()
    task.on_kill()
    with pytest.raises(ModelArtsError, match="Task was killed; not submitting"):
        task.execute(attempt.context)
    assert tasks(emulator) == []
    assert attempt.store == {}


def test_a_stop_of_its_own_is_a_failure_whatever_ends_are(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.state.next_task(duration=1000)
    task = operator(failed_statuses=(3,))

    def kill(_: float) -> None:
        emulator.state.set_status(tasks(emulator)[0].task_id, 1)
        task.on_kill()

    monkeypatch.setattr("time.sleep", kill)
    with pytest.raises(ModelArtsProcessorTaskFailed, match="stopped"):
        task.execute(Try().context)


def test_a_stop_of_somebody_else_is_a_success_if_it_is_to_be(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.state.next_task(duration=1000)
    monkeypatch.setattr("time.sleep", lambda _: emulator.state.stop(tasks(emulator)[0].task_id))
    assert run({"failed_statuses": (3,)}, Try())["status_name"] == "stopped"


class Interrupted(BaseException):
    """The SIGKILL that follows on_kill, for a test."""


def killed(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, attempt: Try, **arguments: Any) -> int:
    """Kill a try in the middle of its wait, as Airflow's signal does; return the status that its task then has."""
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


@with_memory
@pytest.mark.parametrize(
    ("states", "number", "expected"),
    [
        # Reset by another scheduler, or lost and taken up again: the next try adopts it.
        ([None], 1, 1),
        (["scheduled"], 1, 1),
        (["queued"], 1, 1),
        (["up_for_retry"], 1, 1),
        (["deferred"], 1, 1),
        ([None], 3, 1),
        # A worker that is shut down: Airflow retries, as long as there are retries.
        (["running"], 2, 1),
        (["running"], 3, 4),
        # Cleared by a user: the next try cannot always tell that, and submits anew.
        (["restarting"], 1, 4),
        (["restarting"], 3, 4),
        # Marked by a user, out of time with its DAG run, or deleted: nobody comes back for it.
        (["failed"], 1, 4),
        (["success"], 1, 4),
        (["skipped"], 1, 4),
        (["removed"], 1, 4),
        (["upstream_failed"], 1, 4),
        ([], 1, 4),
    ],
)
def test_killed_it_leaves_to_the_next_try_what_runs(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, states: list[str | None], number: int, expected: int
) -> None:
    attempt = Try(number=number, max_tries=2)
    attempt.states = states
    assert killed(emulator, monkeypatch, attempt) == expected


@with_memory
def test_cleared_on_a_worker_it_is_run_anew_though_the_next_try_looks_like_a_retry(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Try()
    attempt.states = ["restarting"]
    with monkeypatch.context() as patch:
        killed(emulator, patch, attempt)
    (first,) = tasks(emulator)
    # Airflow raises max_tries only where the executor says that the worker has ended well.
    assert run({}, attempt.next())["task_id"] != first.task_id
    assert sorted(emulator.state.status(task.task_id) for task in tasks(emulator)) == [2, 4]


@with_memory
def test_killed_in_its_last_try_it_stops_nothing_that_another_try_has_taken_over(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Try(number=3, max_tries=2)
    attempt.states = ["running"]
    # Airflow no longer finds the record of a try that another one has replaced.
    attempt.ti.get_task_states = lambda **_: attempt.store.clear() or {"manual": {"run": "running"}}
    assert killed(emulator, monkeypatch, attempt) == 1


@with_memory
@pytest.mark.parametrize(("number", "expected"), [(1, 1), (3, 4)])
@pytest.mark.parametrize("hangs", [False, True])
def test_where_airflow_does_not_answer_the_retries_that_are_left_decide(
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
def test_killed_without_memory_it_stops_what_no_other_try_can_adopt(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, memory: dict[str, Any]
) -> None:
    attempt = Try()
    attempt.states = [None]
    attempt.has_store = bool(memory)
    assert killed(emulator, monkeypatch, attempt, **memory) == 4


@with_memory
def test_out_of_time_it_stops_what_runs_though_a_retry_follows(emulator: EmulatorServer) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    attempt.states = ["running"]
    deferral(attempt)
    (task,) = tasks(emulator)
    emulator.state.set_status(task.task_id, 1)
    resumed = operator(execution_timeout=timedelta(seconds=1))
    try:
        resumed.resume_execution("__fail__", {"error": "Trigger timeout"}, attempt.context)
    except AirflowTaskTimeout:
        resumed.on_kill()  # as Airflow does
    assert emulator.state.status(task.task_id) == 4


@with_memory
@pytest.mark.parametrize("kind", ["task", "version"])
def test_out_of_time_on_a_worker_it_stops_what_runs_though_a_retry_follows(
    emulator: EmulatorServer, original: Task, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    attempt.states = ["running"]
    waiting = operator() if kind == "task" else again(original)

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


def test_killed_it_says_that_a_feature_analysis_cannot_be_stopped(
    emulator: EmulatorServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = operator(template={"id": "sys_data_analyse"})
    monkeypatch.setattr("time.sleep", lambda _: task.on_kill())
    emulator.state.next_task(duration=0.5)
    task.execute(Try().context)
    assert "only versions can be stopped" in caplog.text + capsys.readouterr().out  # Airflow 2 and 3


# Versions


def again(task: Task, **arguments: Any) -> ModelArtsCreateProcessorTaskVersionOperator:
    return ModelArtsCreateProcessorTaskVersionOperator(
        **{"task_id": "again", "processor_task_id": task.task_id, "poll_interval": 0.02, **arguments}
    )


@pytest.fixture
def original(emulator: EmulatorServer) -> Task:
    body = {
        "inputs": INPUTS,
        "work_path": {"type": "OBS", "path": "obs://bucket/o", "version_name": "V1"},
        "description": "old",
    }
    return emulator.state.add_task("original", template="sys_data_validation", status=2, body=body)


def test_a_version_takes_from_the_task_what_is_not_given(emulator: EmulatorServer, original: Task) -> None:
    attempt = Try()
    returned = again(original, description="new").execute(attempt.context)
    body = original.versions[1].body
    assert body["inputs"] == INPUTS
    assert body["template"]["id"] == "sys_data_validation"
    assert body["work_path"] == {"type": "OBS", "path": "obs://bucket/o"}
    assert body["description"] == "new"
    assert returned["task_id"] == original.task_id
    assert attempt.xcoms["version"]["task_version_id"] == original.versions[1].version_id


def test_inputs_that_are_given_replace_those_of_the_task(emulator: EmulatorServer, original: Task) -> None:
    given = {"type": "DATASET", "source": "another"}
    again(original, data_source=given).execute(Try().context)
    assert original.versions[1].body["data_source"] == given
    assert "inputs" not in original.versions[1].body


@pytest.mark.parametrize("given", [{}, {"version_id": "V2"}])
def test_the_dataset_version_goes_with_the_inputs(emulator: EmulatorServer, given: dict[str, str]) -> None:
    body = {"inputs": INPUTS, "version_id": "V1"}
    task = emulator.state.add_task("t", template="sys_data_validation", status=2, body=body)
    again(task).execute(Try().context)
    again(task, inputs=[{"type": "DATASET", "source": "another"}], **given).execute(Try().context)
    assert [version.body.get("version_id") for version in task.versions[1:]] == ["V1", given.get("version_id")]


def test_a_version_is_waited_for_and_not_the_task(emulator: EmulatorServer, original: Task) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        again(original, deferrable=True).execute(Try().context)
    trigger: Any = deferred.value.trigger
    assert (trigger.processor_task_id, trigger.task_version_id) == (original.task_id, original.versions[1].version_id)


def test_an_outage_after_the_end_of_a_version_is_waited_out(
    emulator: EmulatorServer, original: Task, pauses: list[float]
) -> None:
    emulator.faults.answer(503, times=12, skip=1, operation="DescribeProcessorTask")  # the first is what it lends
    assert again(original).execute(Try().context)["status_name"] == "completed"


def test_a_version_that_fails_says_which(emulator: EmulatorServer, original: Task) -> None:
    emulator.state.next_task(status=3)
    with pytest.raises(ModelArtsProcessorTaskFailed, match=r"Version '.+' of processing task '.+' failed"):
        again(original).execute(Try().context)


def test_an_answer_about_a_version_that_is_lost_is_looked_up(emulator: EmulatorServer, original: Task) -> None:
    emulator.faults.reset("after", operation="CreateProcessorTaskVersion")
    assert again(original).execute(Try().context)["status_name"] == "completed"
    assert len(original.versions) == 2


def test_a_request_for_a_version_that_may_be_on_its_way_is_not_sent_twice(
    emulator: EmulatorServer, original: Task, pauses: list[float]
) -> None:
    emulator.faults.reset("before", operation="CreateProcessorTaskVersion")
    with pytest.raises(Exception, match="no answer"):
        again(original).execute(Try().context)
    assert len(original.versions) == 1


def test_killed_it_stops_the_one_version(
    emulator: EmulatorServer, original: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.state.next_task(duration=1000)
    task = again(original)

    def kill(_: float) -> None:
        emulator.state.set_status(original.task_id, 1)
        task.on_kill()

    monkeypatch.setattr("time.sleep", kill)
    with pytest.raises(ModelArtsProcessorTaskFailed, match="stopped"):
        task.execute(Try().context)


# Remembered, and forgotten


@with_memory
def test_the_intent_is_written_before_anything_is_posted(emulator: EmulatorServer, pauses: list[float]) -> None:
    emulator.faults.reset("before", times=None, operation="CreateProcessorTask")
    attempt = Try()
    with pytest.raises(ModelArtsTransientError):
        run({}, attempt)
    assert attempt.store[RECORD_KEY]["intent"].startswith("check-")


@with_memory
@pytest.mark.parametrize("code", ["ModelArts.0104", "ModelArts.4409"])
def test_a_submission_that_was_certainly_refused_is_forgotten(
    emulator: EmulatorServer, pauses: list[float], code: str
) -> None:
    refusal = emulator.faults.refuse(code, times=None, operation="CreateProcessorTask")
    attempt = Try()
    with pytest.raises(ModelArtsError):
        run({"name": "wrong"}, attempt)
    assert attempt.store == {}
    emulator.faults.remove(refusal)
    run({"name": "mended"}, attempt.next())
    assert [task.name.split("-")[0] for task in tasks(emulator)] == ["mended"]


def unanswered(emulator: EmulatorServer) -> Try:
    """Return a try whose submission got no answer, and was none."""
    lost = emulator.faults.reset("before", times=None, operation="CreateProcessorTask")
    attempt = Try()
    with pytest.raises(ModelArtsTransientError):
        run({}, attempt)
    emulator.faults.remove(lost)
    return attempt


@with_memory
def test_what_is_refused_now_and_is_not_there_is_forgotten(emulator: EmulatorServer, pauses: list[float]) -> None:
    attempt = unanswered(emulator)
    emulator.faults.refuse("ModelArts.0104", operation="CreateProcessorTask")
    with pytest.raises(ModelArtsRequestError):
        run({}, attempt.next())
    assert attempt.store == {}


@with_memory
def test_what_arrives_late_is_found_although_it_is_refused_now(
    emulator: EmulatorServer, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = unanswered(emulator)
    name = attempt.store[RECORD_KEY]["intent"]
    emulator.faults.refuse("ModelArts.0118", operation="CreateProcessorTask")
    monkeypatch.setattr("time.sleep", lambda _: emulator.state.add_task(name, template="sys_data_validation", status=2))
    assert run({}, attempt.next())["name"] == name


@with_memory
def test_a_service_that_is_busy_now_may_have_accepted_it_earlier(emulator: EmulatorServer, pauses: list[float]) -> None:
    attempt = unanswered(emulator)
    name = attempt.store[RECORD_KEY]["intent"]
    emulator.faults.refuse("ModelArts.4409", times=None, operation="CreateProcessorTask")
    with pytest.raises(ModelArtsBusyError):
        run({}, attempt.next())
    assert attempt.store[RECORD_KEY]["intent"] == name


@with_memory
def test_a_retry_adopts_no_task_that_had_the_exact_name_before(emulator: EmulatorServer) -> None:
    emulator.state.add_task("check", template="sys_data_validation", status=2)
    attempt = Try()
    with pytest.raises(ModelArtsAlreadyExistsError):
        run({"random_name_suffix": False}, attempt)
    assert run({"random_name_suffix": False}, attempt.next())["name"] == "check-2"


def test_an_exact_name_is_looked_up_before_it_is_posted(emulator: EmulatorServer) -> None:
    emulator.state.add_task("check")
    emulator.faults.reset("before", operation="CreateProcessorTask")
    attempt = Try()
    with pytest.raises(ModelArtsAlreadyExistsError, match="'check' exists already"):
        run({"random_name_suffix": False}, attempt)
    assert emulator.state.log.count("CreateProcessorTask") == 0
    assert attempt.store == {}


@with_memory
def test_a_retry_adopts_what_an_earlier_try_posted_under_the_exact_name(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Try()
    monkeypatch.setattr(attempt.store, "set", Crashes(1).around(attempt.store.set), raising=False)
    with pytest.raises(Killed):  # with the answer in hand
        run({"random_name_suffix": False}, attempt)
    retry = Try(Store(attempt.store), number=2)
    assert run({"random_name_suffix": False}, retry)["name"] == "check"
    assert len(tasks(emulator)) == 1


@with_memory
def test_a_version_that_was_refused_does_not_take_anothers_for_its_own(
    emulator: EmulatorServer, original: Task, pauses: list[float]
) -> None:
    refusal = emulator.faults.refuse("ModelArts.4616", times=None, operation="CreateProcessorTaskVersion")
    attempt = Try()
    with pytest.raises(ModelArtsBusyError):
        again(original).execute(attempt.context)
    emulator.faults.remove(refusal)
    again(original, description="of a sibling").execute(Try().context)
    again(original, description="its own").execute(attempt.next().context)
    assert [version.body.get("description") for version in original.versions[1:]] == ["of a sibling", "its own"]


def pending(intent: Any) -> Try:
    store = Store()
    store.set(RECORD_KEY, {"intent": intent, "max_tries": 2})
    return Try(store, number=2)


@with_memory
def test_an_intent_about_another_task_is_no_intent_about_this_one(emulator: EmulatorServer, original: Task) -> None:
    again(original).execute(pending({"processor_task_id": "another", "versions": []}).context)
    assert len(original.versions) == 2


# Stopped, where a stop is no failure


def stopped(emulator: EmulatorServer) -> Try:
    """Return a try whose task Airflow has stopped, as after ``execution_timeout``."""
    emulator.state.next_task(duration=1000)
    attempt = Try()
    deferral(attempt)
    emulator.state.stop(tasks(emulator)[0].task_id)
    return attempt


@with_memory
@pytest.mark.parametrize("cleared", [False, True])
def test_what_was_stopped_before_it_had_ended_is_run_anew(emulator: EmulatorServer, *, cleared: bool) -> None:
    attempt = stopped(emulator).next(cleared=cleared)
    assert run({"failed_statuses": (3,)}, attempt)["status_name"] == "completed"
    assert len(tasks(emulator)) == 2


@with_memory
def test_what_is_stopped_while_the_cleared_task_waits_is_run_anew(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    deferral(attempt)
    first = tasks(emulator)[0].task_id
    monkeypatch.setattr("time.sleep", lambda _: emulator.state.stop(first))
    assert run({"failed_statuses": (3,)}, attempt.next(cleared=True))["task_id"] != first


@with_memory
def test_a_stop_that_was_handed_on_as_a_success_stays_one(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.state.next_task(status=4)
    attempt = Try()
    first = run({"failed_statuses": (3,)}, attempt)
    assert run({"failed_statuses": (3,)}, attempt.next())["task_id"] == first["task_id"]


@with_memory
@pytest.mark.parametrize("kind", ["task", "version"])
def test_what_was_stopped_before_its_id_was_known_is_run_anew(emulator: EmulatorServer, kind: str) -> None:
    if kind == "task":
        first = emulator.state.add_task("check-1", template="sys_data_validation", status=4)
        returned = run({"failed_statuses": (3,)}, pending("check-1"))
        assert returned["task_id"] != first.task_id
    else:
        task = emulator.state.add_task("t", template="sys_data_validation", status=4, body={"inputs": INPUTS})
        attempt = pending({"processor_task_id": task.task_id, "versions": []})
        again(task, failed_statuses=(3,)).execute(attempt.context)
        assert attempt.xcoms["version"]["status_name"] == "completed"
