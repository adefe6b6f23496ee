"""The trigger that submits, against the emulator on a virtual clock: its event, log, XComs and requests."""

import asyncio
import json
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook, XCom

from airflow_modelarts import submission_trigger
from airflow_modelarts.api.capacity import dump_refusal
from airflow_modelarts.api.errors import ModelArtsBusyError
from airflow_modelarts.submission_trigger import ProcessorTaskSubmissionTrigger
from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from tests.support.create import INPUTS, VALIDATION
from tests.support.task_instances import TaskInstance, collect_log
from tests.support.virtual import EPOCH, now, run, use_virtual_time

BODY = {"template": VALIDATION, "inputs": INPUTS, "create_version": True}

FULL = dump_refusal(ModelArtsBusyError("full", error_code="ModelArts.4409", http_status=400))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return collect_log(monkeypatch, ProcessorTaskSubmissionTrigger)


@pytest.fixture(autouse=True)
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    use_virtual_time(monkeypatch, submission_trigger)


def submitting(name: str = "check-1", **arguments: Any) -> ProcessorTaskSubmissionTrigger:
    given = {"name": name, "body": BODY, "queued_since": EPOCH, "poll_interval": 1.0, "stop_on_kill": True, **arguments}
    return ProcessorTaskSubmissionTrigger(**given)


async def end_of(one: ProcessorTaskSubmissionTrigger) -> dict[str, Any]:
    (event,) = [event async for event in one.run()]
    payload: dict[str, Any] = event.payload
    return payload


def counts(state: EmulatorState) -> dict[str, int]:
    return dict(state.log.counts())


# What Airflow stores


def test_the_stored_arguments_make_the_same_trigger() -> None:
    path, stored = submitting(
        priority_weight=7, refusal=FULL, refusals=2, wait_for_completion=False, push_ids=False
    ).serialize()
    assert path == f"{ProcessorTaskSubmissionTrigger.__module__}.{ProcessorTaskSubmissionTrigger.__qualname__}"
    assert json.loads(json.dumps(stored)) == stored
    assert ProcessorTaskSubmissionTrigger(**stored).serialize() == (path, stored)
    assert {"name", "body", "priority_weight", "queued_since", "poll_interval"} <= stored.keys()


def test_an_unknown_argument_and_a_wrong_body_are_refused() -> None:
    with pytest.raises(TypeError, match="ProcessorTaskSubmissionTrigger has no argument 'priority'"):
        submitting(priority=3)
    for wrong in ("x", "[]", []):
        with pytest.raises(ValueError, match="give the fields of the request as a dict or its JSON"):
            submitting(body=wrong)


def test_the_request_is_stored_as_text() -> None:
    one = submitting()
    assert one.body == json.loads(one.serialize()[1]["body"]) == BODY
    assert submitting(body=None).serialize()[1]["body"] is None


# The submission


def test_a_trigger_submits_and_waits_for_the_end(state: EmulatorState, lines: list[str]) -> None:
    event = run(end_of(submitting()))
    (task,) = state.all_tasks()
    queued = event.pop("queued_seconds")
    assert event == {"task_id": task.task_id, "name": "check-1", "status": 2}
    assert 0 <= queued < 1
    assert task.name == "check-1"
    assert f"Processing task '{task.task_id}' is named 'check-1'." in lines
    assert not any("waiting for capacity" in line for line in lines)
    assert counts(state)["CreateProcessorTask"] == 1
    assert "ListProcessorTasks" not in counts(state)


def test_without_a_wait_for_the_end_the_event_has_no_status(state: EmulatorState) -> None:
    event = run(end_of(submitting(wait_for_completion=False)))
    assert event.keys() == {"task_id", "name", "queued_seconds"}
    assert counts(state) == {"CreateProcessorTask": 1}


def test_the_ids_are_pushed_as_soon_as_they_are_known(state: EmulatorState, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: dict[str, Any] = {}
    monkeypatch.setattr(XCom, "set", lambda key, value, **_: pushed.update({key: value}))
    one = submitting(wait_for_completion=False)
    one.task_instance = TaskInstance()
    event = run(end_of(one))
    assert pushed == {"processor_task_id": event["task_id"], "queued_seconds": event["queued_seconds"]}


def test_an_xcom_that_cannot_be_pushed_is_left_to_the_worker(
    state: EmulatorState, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(XCom, "set", refuse)
    one = submitting()
    one.task_instance = TaskInstance()
    assert run(end_of(one))["status"] == 2
    assert "The id could not be pushed here, so a worker will: disk full" in lines


def test_a_limit_is_waited_out_with_one_line_of_log(state: EmulatorState, lines: list[str]) -> None:
    state.faults.refuse("ModelArts.4409", times=4, operation="CreateProcessorTask")
    event = run(end_of(submitting()))
    assert event["status"] == 2
    assert event["queued_seconds"] > 10
    waiting = [line for line in lines if line.startswith("waiting for capacity")]
    assert waiting == ["waiting for capacity: the limit of running tasks is reached; position 1 of 1"]
    assert any(line.startswith("waited 1") and line.endswith("s for capacity; submitted") for line in lines)
    assert counts(state)["CreateProcessorTask"] == 5
    assert counts(state)["ListProcessorTasks"] == 1, "one lookup, after the first refusal"


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}])
def test_throttling_and_outages_are_waited_out(state: EmulatorState, fault: dict[str, int]) -> None:
    state.faults.answer(fault["status"], times=6, operation="CreateProcessorTask")
    assert run(end_of(submitting()))["status"] == 2
    assert len(state.all_tasks()) == 1


def test_a_final_refusal_ends_only_its_entry(state: EmulatorState) -> None:
    async def main() -> list[dict[str, Any]]:
        wrong = {**BODY, "template": {"id": "sys_data_unknown"}}
        return list(await asyncio.gather(end_of(submitting("wrong", body=wrong)), end_of(submitting("right"))))

    wrong, right = run(main())
    assert right["status"] == 2
    assert wrong["name"] == "wrong"
    assert wrong["error_class"].startswith("ModelArts")
    assert wrong["outcome_unknown"] is False
    assert [task.name for task in state.all_tasks()] == ["right"]


def test_refused_credentials_end_the_trigger_with_their_message(state: EmulatorState) -> None:
    state.faults.refuse("ModelArts.4116", times=None, operation="CreateProcessorTask")
    event = run(end_of(submitting()))
    assert event["error_class"] == "ModelArtsAuthenticationError"
    assert "the account is in arrears" in event["error"]


def test_a_busy_dataset_does_not_delay_the_others(state: EmulatorState) -> None:
    ended: list[str] = []

    async def note(name: str) -> None:
        await end_of(submitting(name))
        ended.append(name)

    async def main() -> None:
        await asyncio.gather(note("first"), note("second"))

    state.faults.refuse("ModelArts.4343", times=1, operation="CreateProcessorTask")
    run(main())
    assert ended == ["second", "first"]


# Exactly once


def test_a_task_of_an_earlier_triggerer_is_adopted(state: EmulatorState) -> None:
    earlier = state.add_task("check-1", template="sys_data_validation", status=2)
    event = run(end_of(submitting()))
    assert event["task_id"] == earlier.task_id
    assert len(state.all_tasks()) == 1


def test_a_task_of_an_earlier_triggerer_is_found_when_it_fills_the_quota(emulator: EmulatorServer) -> None:
    emulator.state.faults.refuse("ModelArts.4409", times=None, operation="CreateProcessorTask")
    earlier = emulator.state.add_task("check-1", template="sys_data_validation", status=2)
    assert run(end_of(submitting()))["task_id"] == earlier.task_id


def test_a_lost_answer_creates_one_task(state: EmulatorState, lines: list[str]) -> None:
    state.faults.reset("after", operation="CreateProcessorTask")
    event = run(end_of(submitting()))
    (task,) = state.all_tasks()
    assert event["task_id"] == task.task_id
    assert any("Checking whether it was created anyway." in line for line in lines)


def test_a_restarted_trigger_reads_its_id_and_sends_no_submission(
    state: EmulatorState, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = state.add_task("check-1", template="sys_data_validation", status=2)
    monkeypatch.setattr(XCom, "get_one", lambda **_: task.task_id)
    one = submitting(queued_since=EPOCH - 60)
    one.task_instance = TaskInstance()
    event = run(end_of(one))
    assert event == {"task_id": task.task_id, "name": "check-1", "status": 2}
    assert "CreateProcessorTask" not in counts(state)


def test_a_restarted_trigger_without_an_id_keeps_its_place(
    state: EmulatorState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise OSError("no answer")

    monkeypatch.setattr(XCom, "get_one", broken)
    monkeypatch.setattr(XCom, "set", lambda **_: None)

    async def main() -> list[dict[str, Any]]:
        restarted = submitting("old", queued_since=EPOCH - 60)
        restarted.task_instance = TaskInstance()
        return list(await asyncio.gather(end_of(submitting("new")), end_of(restarted)))

    new, old = run(main())
    assert [task.name for task in state.all_tasks()] == ["old", "new"]
    assert old["queued_seconds"] >= 60 > new["queued_seconds"]


# Turns


def test_a_turn_is_handed_to_a_worker(state: EmulatorState) -> None:
    event = run(end_of(submitting(name="", body=None, queued_since=EPOCH - 7)))
    assert event == {"turn": EPOCH - 7}
    assert state.log.count() == 0


def test_a_refused_turn_waits(state: EmulatorState, lines: list[str]) -> None:
    async def main() -> float:
        await end_of(submitting(name="", body=None, refusal=FULL))
        return now()

    assert run(main()) >= 0.8
    assert "waiting for capacity: the limit of running tasks is reached; position 1 of 1" in lines


# A user kills the Airflow task


async def cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def killed_while(
    state: EmulatorState, one: ProcessorTaskSubmissionTrigger, seconds: float
) -> Coroutine[Any, Any, None]:
    async def main() -> None:
        running = asyncio.create_task(end_of(one))
        await asyncio.sleep(seconds)
        await cancel(running)
        await one.on_kill()

    return main()


def test_a_trigger_killed_while_it_is_queued_submits_nothing(state: EmulatorState, lines: list[str]) -> None:
    state.faults.refuse("ModelArts.4409", times=None, operation="CreateProcessorTask")
    run(killed_while(state, submitting(), 20.0))
    assert state.all_tasks() == []
    assert "StopProcessorTaskVersion" not in counts(state)
    assert "'check-1' was not submitted: the Airflow task was killed while it waited." in lines


def test_a_trigger_killed_before_its_turn_sends_nothing(state: EmulatorState) -> None:
    run(killed_while(state, submitting(), 0.05))
    assert state.log.count() == 0


# execution_timeout is over


@pytest.mark.parametrize("body", [BODY, None])
def test_nothing_is_submitted_after_the_deadline(state: EmulatorState, body: Any) -> None:
    refusing = state.faults.refuse("ModelArts.4409", times=None, operation="CreateProcessorTask")

    async def main() -> dict[str, Any]:
        full = asyncio.create_task(end_of(submitting("first", queued_since=EPOCH - 1)))
        waiting = asyncio.create_task(end_of(submitting(body=body, refusal=FULL, deadline=EPOCH + 8)))
        event = await waiting
        assert 8 <= now() < 9
        state.faults.remove(refusing)
        await full
        return event

    assert run(main()) == {"name": "check-1", "timed_out": True}
    assert [task.name for task in state.all_tasks()] == ["first"]


def test_what_is_submitted_at_the_deadline_is_in_the_event(state: EmulatorState) -> None:
    state.next_task(duration=100_000)
    held = state.faults.hold(operation="CreateProcessorTask")
    one = submitting(deadline=EPOCH + 1)

    async def main() -> dict[str, Any]:
        running = asyncio.create_task(end_of(one))
        has_arrived, loop = asyncio.Event(), asyncio.get_running_loop()
        threading.Thread(target=lambda: held.wait() and loop.call_soon_threadsafe(has_arrived.set)).start()
        await has_arrived.wait()
        loop._virtual.now += 2.0  # type: ignore[attr-defined]  # of the virtual loop
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        held.release()
        return await running

    event = run(main())
    assert event == {"name": "check-1", "timed_out": True, "task_id": state.all_tasks()[0].task_id}


def test_a_trigger_killed_while_the_task_runs_stops_it(state: EmulatorState) -> None:
    state.next_task(duration=100_000)
    one = submitting()

    async def main() -> None:
        running = asyncio.create_task(end_of(one))
        await asyncio.sleep(5)
        state.set_status(one.processor_task_id, 1)
        await cancel(running)
        await one.on_kill()

    run(main())
    assert state.status(one.processor_task_id) == 4


@pytest.mark.parametrize("killed", [True, False])
def test_a_request_under_way_is_finished_and_stopped_only_after_a_kill(state: EmulatorState, killed: bool) -> None:
    state.next_task(duration=100_000)
    held = state.faults.hold(operation="CreateProcessorTask")
    one = submitting()

    async def main() -> None:
        running = asyncio.create_task(end_of(one))
        has_arrived, loop = asyncio.Event(), asyncio.get_running_loop()
        # Not in the loop's executor, during whose work the virtual clock stands still.
        threading.Thread(target=lambda: held.wait() and loop.call_soon_threadsafe(has_arrived.set)).start()
        await has_arrived.wait()
        running.cancel()
        await asyncio.sleep(0)
        held.release()
        with suppress(asyncio.CancelledError):
            await running
        state.set_status(state.all_tasks()[0].task_id, 1)
        if killed:
            await one.on_kill()

    run(main())
    (task,) = state.all_tasks()
    assert state.status(task.task_id) == (4 if killed else 1)


def test_a_kill_that_another_triggerer_took_over_stops_nothing(
    state: EmulatorState, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = submitting()
    one.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1)
    monkeypatch.setattr(XCom, "set", lambda **_: None)

    async def still_deferred() -> bool:
        return True

    monkeypatch.setattr(one, "_is_still_deferred", still_deferred)
    state.next_task(duration=100_000)

    async def main() -> None:
        running = asyncio.create_task(end_of(one))
        await asyncio.sleep(5)
        state.set_status(one.processor_task_id, 1)
        await cancel(running)
        await one.on_kill()

    run(main())
    assert state.status(one.processor_task_id) == 1


# A fan-out


def test_positions_are_logged_once_and_again_when_they_have_halved(
    state: EmulatorState, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    refusing = state.faults.refuse("ModelArts.4409", times=None, operation="CreateProcessorTask")

    async def main() -> None:
        waiting = [
            asyncio.create_task(end_of(submitting(f"n-{number}", wait_for_completion=False))) for number in range(40)
        ]
        await asyncio.sleep(30)
        lines.extend(logged)
        logged.clear()
        state.faults.remove(refusing)
        await asyncio.gather(*waiting)

    logged = collect_log(monkeypatch, ProcessorTaskSubmissionTrigger)
    run(main())
    positions = [line for line in lines if line.startswith("waiting for capacity")]
    assert sorted(positions) == sorted(
        f"waiting for capacity: the limit of running tasks is reached; position {number} of 40"
        for number in range(1, 41)
    )
    assert sum("s for capacity; submitted" in line for line in logged) == 40


def test_a_secrets_backend_that_times_out_is_no_execution_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise TimeoutError("the secrets backend does not answer")

    monkeypatch.setattr(BaseHook, "get_connection", read)
    with pytest.raises(TimeoutError, match="secrets backend"):
        run(end_of(submitting()))
