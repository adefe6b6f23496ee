"""``fail_fast`` of sensor and operators: AirflowFailException for what a retry cannot mend, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_modelarts.api.errors import ModelArtsError, ModelArtsNotFoundError
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.operators import (
    ModelArtsAuditProcessorTasksOperator,
    ModelArtsDeleteProcessorTaskOperator,
    ModelArtsDescribeProcessorTaskOperator,
    ModelArtsExportProcessorTaskResultsOperator,
    ModelArtsListProcessorTasksOperator,
    ModelArtsStopProcessorTaskOperator,
    ModelArtsUpdateProcessorTaskOperator,
)
from airflow_modelarts.testing.emulator import EmulatorServer
from tests.support.create import Try, operator, queued, triggered
from tests.support.sensor_modes import MODES, Simulation, run_sensor, sensor
from tests.support.task_instances import TaskInstance

ID = {"processor_task_id": "abc"}
OPERATORS: dict[type[Any], dict[str, Any]] = {
    ModelArtsAuditProcessorTasksOperator: {"window_start": "2026-11-23", "window_end": "2026-11-24"},
    ModelArtsDeleteProcessorTaskOperator: ID,
    ModelArtsDescribeProcessorTaskOperator: ID,
    ModelArtsExportProcessorTaskResultsOperator: {**ID, "path": "/nowhere/x.jsonl"},
    ModelArtsListProcessorTasksOperator: {},
    ModelArtsStopProcessorTaskOperator: ID,
    ModelArtsUpdateProcessorTaskOperator: {**ID, "description": "new"},
}


def execute(make: type[Any], **arguments: Any) -> None:
    made = make(task_id="t", retries=3, **OPERATORS[make], **arguments)
    made.execute({"ti": TaskInstance(), "run_id": "manual"})


@pytest.mark.parametrize("make", OPERATORS, ids=lambda make: make.__name__)
def test_every_operator_fails_without_a_retry(emulator: EmulatorServer, make: type[Any]) -> None:
    emulator.faults.answer(403, "{}", {"Content-Type": "application/json"}, times=None)
    with pytest.raises(AirflowFailException) as caught:
        execute(make, fail_fast=True)
    assert isinstance(caught.value.__cause__, ModelArtsError)
    assert str(caught.value) == str(caught.value.__cause__)
    with pytest.raises(ModelArtsError):
        execute(make)


@pytest.mark.parametrize("wait_for_capacity", [True, False])
def test_a_create_fails_without_a_retry_on_a_worker(emulator: EmulatorServer, *, wait_for_capacity: bool) -> None:
    emulator.faults.refuse("APIGW.0301", times=None)
    with pytest.raises(AirflowFailException, match="CreateProcessorTask of"):
        operator(fail_fast=True, wait_for_capacity=wait_for_capacity).execute(Try().context)


def test_a_create_fails_without_a_retry_in_the_triggerer(emulator: EmulatorServer) -> None:
    emulator.faults.refuse("APIGW.0301", times=None)
    attempt = Try()
    deferral = queued(attempt, fail_fast=True)
    resume: dict[str, Any] = {"event": triggered(deferral), **(deferral.kwargs or {})}
    with pytest.raises(AirflowFailException, match="CreateProcessorTask of"):
        operator(deferrable=True, fail_fast=True).resume_execution("execute_complete", resume, attempt.context)
    assert attempt.store == {}


def test_a_temporary_error_is_left_to_the_retries(emulator: EmulatorServer, pauses: list[float]) -> None:
    emulator.faults.answer(503, times=None)
    with pytest.raises(ModelArtsError):
        execute(ModelArtsDescribeProcessorTaskOperator, fail_fast=True)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_the_sensor_fails_without_a_retry_in_every_mode(simulation: Simulation, mode: dict[str, Any]) -> None:
    with pytest.raises(AirflowFailException) as caught:
        run_sensor(sensor("no-such-task", fail_fast=True, **mode), simulation)
    assert isinstance(caught.value.__cause__, ModelArtsNotFoundError)
    task_id = simulation.state.add_task(status=1).task_id
    simulation.at(simulation.now + 20, lambda: simulation.state.fail(task_id, "an odd thing"))
    with pytest.raises(AirflowFailException, match="failed: an odd thing") as caught:
        run_sensor(sensor(task_id, fail_fast=True, **mode), simulation)
    assert isinstance(caught.value.__cause__, ModelArtsProcessorTaskFailed)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_soft_fail_skips_as_it_does_without_fail_fast(simulation: Simulation, mode: dict[str, Any]) -> None:
    task_id = simulation.state.add_task(status=3, error_msg="gone").task_id
    with pytest.raises(AirflowSkipException):
        run_sensor(sensor(task_id, fail_fast=True, soft_fail=True, **mode), simulation)
