"""Create operators against the emulator: the triggerer submits when the service has room."""

import asyncio
from base64 import b64encode
from datetime import timedelta
from itertools import pairwise
from secrets import token_bytes, token_hex
from typing import Any

import pytest
from airflow.models.trigger import Trigger
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred, XCom
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_3_PLUS
from cryptography.fernet import Fernet

from airflow_modelarts.api.errors import (
    ModelArtsAlreadyExistsError,
    ModelArtsAuthenticationError,
    ModelArtsRequestError,
)
from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.operators.queued_submission import MAX_STORED_BODY, NAME_KEY
from airflow_modelarts.operators.submission_store import RECORD_KEY
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.control.faults import Refuse
from airflow_modelarts.testing.emulator.service.accounts import SECRET_KEY
from airflow_modelarts.testing.emulator.service.tasks import Task
from airflow_modelarts.triggers import ProcessorTaskTrigger
from tests.support.create import (
    INPUTS,
    VALIDATION,
    Try,
    needs_state_store,
    operator,
    queued,
    resumed,
    set_seconds_since_start,
    tasks,
    triggered,
    unconfirmed,
    version_operator,
)
from tests.support.virtual import now, run

ID = "modelarts_processor_task_id"


def test_the_worker_defers_without_a_request_and_with_the_name_in_the_row(emulator: EmulatorServer) -> None:
    attempt = Try()
    trigger: Any = queued(attempt, priority_weight=7, poll_interval=3).trigger
    assert emulator.state.log.count() == 0
    assert trigger.name.startswith("check-")
    assert (trigger.priority_weight, trigger.poll_interval, trigger.stop_on_kill) == (7, 3, True)
    assert "name" not in trigger.body
    assert trigger.body["create_version"] is True
    assert SECRET_KEY not in str(trigger.serialize())


@needs_state_store
def test_the_intent_is_stored_before_the_deferral(emulator: EmulatorServer) -> None:
    attempt = Try()
    trigger: Any = queued(attempt).trigger
    assert attempt.store[RECORD_KEY]["intent"] == trigger.name
    assert ID not in attempt.store


@pytest.mark.parametrize("has_store", [True, False])
def test_the_end_pushes_the_same_xcoms_as_on_a_worker(emulator: EmulatorServer, has_store: bool) -> None:
    attempt = Try()
    attempt.has_store = has_store
    deferral = queued(attempt)
    event = triggered(deferral)
    returned = resumed(attempt, deferral, event)
    (task,) = tasks(emulator)
    assert returned["status_name"] == "completed"
    assert attempt.xcoms["processor_task_id"] == event["task_id"] == task.task_id
    assert attempt.xcoms["queued_seconds"] == event["queued_seconds"]
    assert attempt.xcoms["version"]["status_name"] == "completed"
    if has_store and AIRFLOW_V_3_3_PLUS:
        assert attempt.store[ID] == task.task_id


@needs_state_store
def test_a_retry_after_the_end_adopts_the_task(emulator: EmulatorServer) -> None:
    attempt = Try()
    deferral = queued(attempt)
    first = resumed(attempt, deferral, triggered(deferral))
    again = operator(deferrable=True).execute(attempt.next().context)
    assert again["task_id"] == first["task_id"]
    assert len(tasks(emulator)) == 1


@needs_state_store
def test_a_retry_of_a_try_that_was_queued_defers_again_under_the_same_name(emulator: EmulatorServer) -> None:
    attempt = Try()
    first: Any = queued(attempt).trigger
    second: Any = queued(attempt.next()).trigger
    assert second.name == first.name
    assert tasks(emulator) == []


@needs_state_store
def test_a_retry_adopts_what_the_triggerer_submitted(emulator: EmulatorServer) -> None:
    attempt = Try()
    event = triggered(queued(attempt))
    emulator.state.set_status(event["task_id"], 1)
    with pytest.raises(TaskDeferred) as caught:
        operator(deferrable=True).execute(attempt.next().context)
    waiting: Any = caught.value.trigger
    assert type(waiting) is ProcessorTaskTrigger
    assert waiting.processor_task_id == event["task_id"]
    assert len(tasks(emulator)) == 1


def test_without_a_wait_for_the_end_the_worker_publishes_at_once(emulator: EmulatorServer) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    deferral = queued(attempt, wait_for_completion=False)
    event = triggered(deferral)
    assert "status" not in event
    returned = resumed(attempt, deferral, event, wait_for_completion=False)
    assert returned["task_id"] == tasks(emulator)[0].task_id
    assert returned["status_name"] == "initialized"


@pytest.mark.parametrize(
    ("code", "kind"), [("ModelArts.0104", ModelArtsRequestError), ("ModelArts.4116", ModelArtsAuthenticationError)]
)
def test_a_final_refusal_is_raised_by_the_worker_and_the_intent_is_deleted(
    emulator: EmulatorServer, code: str, kind: type[Exception]
) -> None:
    emulator.faults.refuse(code, times=None, operation="CreateProcessorTask")
    attempt = Try()
    deferral = queued(attempt)
    event = triggered(deferral)
    with pytest.raises(kind, match=code) as caught:
        resumed(attempt, deferral, event)
    assert caught.value.error_code == code  # type: ignore[attr-defined]  # of ModelArtsError
    assert attempt.store == {}


@needs_state_store
def test_the_intent_is_kept_if_the_outcome_is_unknown(emulator: EmulatorServer) -> None:
    emulator.faults.reset("after", operation="CreateProcessorTask")
    emulator.faults.refuse("ModelArts.0108", times=None, operation="ListProcessorTasks")
    attempt = Try()
    deferral = queued(attempt)
    event = triggered(deferral)
    with pytest.raises(ModelArtsAuthenticationError):
        resumed(attempt, deferral, event)
    assert attempt.store[RECORD_KEY]["intent"] == event["name"]


@needs_state_store
def test_an_event_of_a_try_that_was_cleared_is_not_taken_for_this_one(emulator: EmulatorServer) -> None:
    attempt = Try()
    deferral = queued(attempt)
    mine: Any = deferral.trigger
    with pytest.raises(TaskDeferred) as caught:
        resumed(attempt, deferral, {"name": "check-of-another-try", "task_id": "abc", "status": 4})
    again: Any = caught.value.trigger
    assert again.name == mine.name


def test_a_large_request_stays_with_the_worker(emulator: EmulatorServer, capsys: pytest.CaptureFixture[str]) -> None:
    large = [{"name": "MetaValidation", "params": {"text": "x" * MAX_STORED_BODY}}]
    with pytest.raises(TaskDeferred) as caught:
        operator(deferrable=True, template={"id": "sys_data_validation", "operator_params": large}).execute(
            Try().context
        )
    assert type(caught.value.trigger) is ProcessorTaskTrigger
    assert len(tasks(emulator)) == 1
    assert "The worker submits, and not the triggerer: the request has 65" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["images", "\u56fe\u50cf"])
def test_the_row_of_a_request_of_almost_the_bound_fits_into_a_text_of_mysql(
    emulator: EmulatorServer, folder: str
) -> None:
    inputs = [{"type": "OBS", "source": f"obs://bucket/{folder}/{token_hex(8)}/"} for _ in range(850)]
    attempt = Try()
    deferral = queued(attempt, inputs=inputs, wait_for_completion=False)
    encrypt: Any = getattr(Trigger, "encrypt_kwargs" if AIRFLOW_V_3_0_PLUS else "_encrypt_kwargs")
    row = encrypt(deferral.trigger.serialize()[1])  # the tests' Airflow has no key
    assert len(Fernet(Fernet.generate_key()).encrypt(row.encode())) < 2**16
    event = triggered(deferral)
    assert event["task_id"] == tasks(emulator)[0].task_id
    assert [one.source for one in ModelArtsHook().describe_processor_task(event["task_id"]).inputs or ()] == [
        one["source"] for one in inputs
    ]


def test_a_request_that_cannot_be_compressed_stays_with_the_worker(
    emulator: EmulatorServer, capsys: pytest.CaptureFixture[str]
) -> None:
    random = [{"name": "MetaValidation", "params": {"text": b64encode(token_bytes(40_000)).decode()}}]
    with pytest.raises(TaskDeferred) as caught:
        operator(deferrable=True, template={"id": "sys_data_validation", "operator_params": random}).execute(
            Try().context
        )
    assert type(caught.value.trigger) is ProcessorTaskTrigger
    assert "The worker submits, and not the triggerer: the request has 5" in capsys.readouterr().out


def test_without_wait_for_capacity_the_worker_submits(emulator: EmulatorServer) -> None:
    with pytest.raises(TaskDeferred) as caught:
        operator(deferrable=True, wait_for_capacity=False).execute(Try().context)
    assert type(caught.value.trigger) is ProcessorTaskTrigger
    assert len(tasks(emulator)) == 1


def test_an_invalid_request_is_refused_before_the_deferral(emulator: EmulatorServer) -> None:
    with pytest.raises(ModelArtsRequestError):
        operator(deferrable=True, description="<").execute(Try().context)


# execution_timeout


def test_the_deferral_has_what_is_left_of_the_execution_timeout(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Try()
    set_seconds_since_start(attempt, monkeypatch, 60)
    left: Any = queued(attempt, execution_timeout=timedelta(seconds=100)).timeout
    assert left.total_seconds() == pytest.approx(40)


@pytest.mark.parametrize("has_store", [True, False])
def test_a_timeout_while_queued_submits_nothing(emulator: EmulatorServer, has_store: bool) -> None:
    attempt = Try()
    attempt.has_store = has_store
    queued(attempt)
    resuming = operator(deferrable=True)
    with pytest.raises(AirflowTaskTimeout, match="nothing was submitted: the submission waited for capacity"):
        resuming.resume_execution("__fail__", {"error": "Trigger timeout"}, attempt.context)
    resuming.on_kill()
    assert emulator.state.log.counts() == {"ListProcessorTasks": 1}


@pytest.mark.parametrize("has_store", [True, False])
def test_a_timeout_stops_what_was_submitted_meanwhile(emulator: EmulatorServer, has_store: bool) -> None:
    attempt = Try()
    attempt.has_store = has_store
    trigger: Any = queued(attempt).trigger
    task = emulator.state.add_task(trigger.name, template="sys_data_validation", status=1)
    resuming = operator(deferrable=True)
    with pytest.raises(AirflowTaskTimeout, match="execution_timeout is over, and the processing task has not ended"):
        resuming.resume_execution("__fail__", {"error": "Trigger timeout"}, attempt.context)
    resuming.on_kill()
    assert emulator.state.status(task.task_id) == 4


def test_the_trigger_knows_when_the_execution_timeout_is_over(emulator: EmulatorServer) -> None:
    attempt = Try()
    trigger: Any = queued(attempt, execution_timeout=timedelta(seconds=100)).trigger
    assert trigger.deadline == attempt.ti.start_date.timestamp() + 100
    assert queued(Try()).trigger.serialize()[1]["deadline"] is None


@pytest.mark.parametrize("is_submitted", [True, False])
def test_a_timeout_that_the_trigger_has_seen_stops_what_was_submitted_in_that_moment(
    emulator: EmulatorServer, is_submitted: bool
) -> None:
    attempt = Try()
    trigger: Any = queued(attempt, execution_timeout=timedelta(seconds=100)).trigger
    event: dict[str, Any] = {"name": trigger.name, "timed_out": True}
    if is_submitted:
        event["task_id"] = emulator.state.add_task(trigger.name, template="sys_data_validation", status=1).task_id
    resuming = operator(deferrable=True)
    words = "the processing task has not ended" if is_submitted else "nothing was submitted"
    try:
        with pytest.raises(AirflowTaskTimeout, match=words):
            resuming.execute_complete(attempt.context, event, deadline=1.0)
        raise AirflowTaskTimeout
    except AirflowTaskTimeout:
        resuming.on_kill()  # as Airflow does
    assert [emulator.state.status(task.task_id) for task in tasks(emulator)] == [4] * is_submitted


def test_without_a_store_the_name_is_kept_for_a_timeout(emulator: EmulatorServer) -> None:
    attempt = Try()
    attempt.has_store = False
    trigger: Any = queued(attempt).trigger
    assert attempt.xcoms[NAME_KEY] == trigger.name


# A new version


def version_queued(attempt: Try, original: Task, **arguments: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        version_operator(original, deferrable=True, **arguments).execute(attempt.context)
    return caught.value


def version_resumed(attempt: Try, original: Task, deferral: TaskDeferred, event: dict[str, Any]) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        version_operator(original, deferrable=True).execute_complete(attempt.context, event, **(deferral.kwargs or {}))
    return caught.value


def test_a_version_waits_for_its_turn_and_a_worker_submits_it(emulator: EmulatorServer, original: Task) -> None:
    attempt = Try()
    deferral = version_queued(attempt, original)
    event = triggered(deferral)
    assert event.keys() == {"turn"}
    assert len(original.versions) == 1
    assert emulator.state.log.count() == 0
    waiting: Any = version_resumed(attempt, original, deferral, event).trigger
    assert type(waiting) is ProcessorTaskTrigger
    assert waiting.task_version_id == original.versions[1].version_id
    assert attempt.xcoms["queued_seconds"] >= 0
    assert len(original.versions) == 2


def test_a_version_that_is_refused_in_its_turn_keeps_its_place(emulator: EmulatorServer, original: Task) -> None:
    emulator.faults.refuse("ModelArts.4409", times=1, operation="CreateProcessorTaskVersion")
    attempt = Try()
    first = version_queued(attempt, original)
    again = version_resumed(attempt, original, first, triggered(first))
    before, after = first.trigger.serialize()[1], again.trigger.serialize()[1]
    assert after["queued_since"] == before["queued_since"]
    assert after["refusal"]["error_code"] == "ModelArts.4409"
    assert emulator.state.log.count("CreateProcessorTaskVersion") == 1
    waiting: Any = version_resumed(attempt, original, again, triggered(again)).trigger
    assert waiting.task_version_id == original.versions[1].version_id


def test_a_version_that_is_refused_for_good_in_its_turn_fails(emulator: EmulatorServer, original: Task) -> None:
    emulator.faults.refuse("ModelArts.0104", times=None, operation="CreateProcessorTaskVersion")
    attempt = Try()
    deferral = version_queued(attempt, original)
    event = triggered(deferral)
    with pytest.raises(ModelArtsRequestError):
        version_operator(original, deferrable=True).execute_complete(attempt.context, event)
    assert attempt.store == {}


def test_a_version_keeps_its_execution_timeout_over_its_turn(emulator: EmulatorServer, original: Task) -> None:
    attempt = Try()
    first = version_queued(attempt, original, execution_timeout=timedelta(seconds=100))
    second = version_resumed(attempt, original, first, triggered(first))
    assert second.kwargs == first.kwargs
    assert second.kwargs is not None
    assert second.kwargs["deadline"] > 0


def test_the_trigger_pushes_under_the_keys_that_the_operator_uses(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Try()
    deferral = queued(attempt, wait_for_completion=False)
    pushed: dict[str, Any] = {}
    monkeypatch.setattr(XCom, "set", lambda key, value, **_: pushed.update({key: value}))

    async def main() -> None:
        deferral.trigger.task_instance = attempt.ti
        assert [event async for event in deferral.trigger.run()]

    run(main())
    event = {"name": deferral.trigger.serialize()[1]["name"], "task_id": pushed["processor_task_id"]}
    resumed(attempt, deferral, event, wait_for_completion=False)
    assert attempt.xcoms["processor_task_id"] == pushed["processor_task_id"]
    assert "queued_seconds" in pushed


@needs_state_store
def test_a_try_that_was_cleared_while_it_was_queued_gets_a_new_name(emulator: EmulatorServer) -> None:
    attempt = Try()
    first: Any = queued(attempt).trigger
    cleared = attempt.next(cleared=True)
    deferral = queued(cleared)
    second: Any = deferral.trigger
    assert second.name != first.name, "the trigger of the try that was cleared stops what has the first name"
    emulator.state.next_task(duration=1000)
    event = triggered(queued(Try(cleared.store, number=3, max_tries=cleared.ti.max_tries), wait_for_completion=False))
    emulator.state.set_status(event["task_id"], 1)
    retry = Try(cleared.store, number=4, max_tries=cleared.ti.max_tries)
    with pytest.raises(TaskDeferred):
        operator(deferrable=True).execute(retry.context)
    assert emulator.state.status(event["task_id"]) == 1, "a later try does not stop it"


@needs_state_store
def test_a_retry_of_a_version_that_was_not_created_waits_for_its_turn(emulator: EmulatorServer, original: Task) -> None:
    known = [version.version_id for version in original.versions]
    attempt = unconfirmed({"processor_task_id": original.task_id, "versions": known})
    deferral = version_queued(attempt, original)
    assert triggered(deferral).keys() == {"turn"}
    version_resumed(attempt, original, deferral, {"turn": 1.0})
    assert len(original.versions) == 2


# A name that somebody else can choose too


def foreign(emulator: EmulatorServer, *, is_same: bool) -> Task:
    body = {"template": VALIDATION, "inputs": INPUTS if is_same else [{"type": "DATASET", "source": "another"}]}
    return emulator.state.add_task("check", template="sys_data_validation", status=1, body=body)


@pytest.mark.parametrize("is_same", [True, False])
def test_a_task_that_somebody_else_creates_under_the_name_meanwhile_is_not_adopted(
    emulator: EmulatorServer, is_same: bool
) -> None:
    attempt = Try()
    deferral = queued(attempt, random_name_suffix=False)
    foreign(emulator, is_same=is_same)
    event = triggered(deferral)
    with pytest.raises(ModelArtsAlreadyExistsError, match="a processing task of this name exists already"):
        resumed(attempt, deferral, event, random_name_suffix=False)
    assert attempt.store == {}, "a retry chooses another name"


def test_a_lost_answer_does_not_adopt_the_task_of_another_request(emulator: EmulatorServer) -> None:
    attempt = Try()
    deferral = queued(attempt, random_name_suffix=False, wait_for_completion=False)
    foreign(emulator, is_same=False)
    emulator.faults.reset("before", operation="CreateProcessorTask")
    event = triggered(deferral)
    assert event["error_class"] == "ModelArtsAlreadyExistsError"
    assert "exists already, of another request" in event["error"]


@pytest.mark.parametrize("is_same", [True, False])
def test_a_restarted_trigger_adopts_a_task_of_its_name_only_if_the_request_is_the_same(
    emulator: EmulatorServer, is_same: bool
) -> None:
    attempt = Try()
    deferral = queued(attempt, random_name_suffix=False, wait_for_completion=False)
    deferral.trigger.queued_since -= 60  # type: ignore[attr-defined]  # of the submission trigger
    found = foreign(emulator, is_same=is_same)
    event = triggered(deferral)
    if is_same:
        assert event["task_id"] == found.task_id
        return
    assert event["error_class"] == "ModelArtsAlreadyExistsError"
    assert event["outcome_unknown"] is False
    assert "exists already, of another request" in event["error"]
    assert emulator.state.log.count("CreateProcessorTask") == 1


def test_a_timeout_while_queued_does_not_stop_the_task_of_somebody_else(emulator: EmulatorServer) -> None:
    attempt = Try()
    queued(attempt, random_name_suffix=False)
    task = foreign(emulator, is_same=False)
    resuming = operator(deferrable=True, random_name_suffix=False)
    with pytest.raises(AirflowTaskTimeout, match="nothing was submitted"):
        resuming.resume_execution("__fail__", {"error": "Trigger timeout"}, attempt.context)
    resuming.on_kill()
    assert emulator.state.status(task.task_id) == 1


# A turn that is refused


def refused_turn(emulator: EmulatorServer, original: Task, attempt: Try, first: TaskDeferred) -> TaskDeferred:
    return version_resumed(attempt, original, first, triggered(first))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"code": "ModelArts.4616"}, "too many unfinished tasks"),
        ({"code": "ModelArts.4704"}, "a dataset version is being published"),
        ({"kind": "throttle"}, "the gateway throttles this caller"),
    ],
)
def test_the_log_says_why_the_turn_of_a_version_was_refused(
    emulator: EmulatorServer, original: Task, capsys: pytest.CaptureFixture[str], fault: dict[str, Any], reason: str
) -> None:
    emulator.faults.add(Refuse(operation="CreateProcessorTaskVersion", **fault))
    attempt = Try()
    triggered(refused_turn(emulator, original, attempt, version_queued(attempt, original)))
    assert f"waiting for capacity: {reason}; position 1 of 1" in capsys.readouterr().out


def test_the_retry_after_of_a_refused_turn_is_honoured(emulator: EmulatorServer, original: Task) -> None:
    emulator.faults.throttle(retry_after=120, operation="CreateProcessorTaskVersion")
    attempt = Try()
    again = refused_turn(emulator, original, attempt, version_queued(attempt, original))

    async def main() -> float:
        assert [event async for event in again.trigger.run()]
        return now()

    assert run(main()) >= 120


def test_a_version_whose_dataset_is_busy_lets_others_pass_and_tries_more_and_more_seldom(
    emulator: EmulatorServer, original: Task
) -> None:
    emulator.faults.refuse("ModelArts.4704", times=8, operation="CreateProcessorTaskVersion")
    attempt = Try()
    deferral = version_queued(attempt, original)
    delays = []

    async def waited(trigger: Any, other: Any) -> tuple[dict[str, Any], float, float]:
        began: dict[Any, float] = {}

        async def wait(one: Any) -> dict[str, Any]:
            (event,) = [event async for event in one.run()]
            began[one] = now()
            payload: dict[str, Any] = event.payload
            return payload

        event, _ = await asyncio.gather(wait(trigger), wait(other))
        return event, began[trigger], began[other]

    for _ in range(8):
        other = queued(Try(), wait_for_completion=False).trigger
        event, seconds, other_seconds = run(waited(deferral.trigger, other))
        assert other_seconds < 1
        delays.append(seconds)
        deferral = version_resumed(attempt, original, deferral, event)
    assert delays[0] < 1
    assert all(after > 1.2 * before for before, after in pairwise(delays[1:7]))
    assert delays[-1] > 40
