"""Create operators against the emulator: what they send, how they end, and versions of an existing task."""

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_modelarts.api.errors import ModelArtsAlreadyExistsError, ModelArtsRequestError
from airflow_modelarts.api.models import TemplateParam
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed
from airflow_modelarts.operators.base import TAKES_NONE
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.tasks import Task
from tests.support.create import EXAMPLES, INPUTS, VALIDATION, Try, operator, run, tasks, version_operator


def test_a_task_is_created_waited_for_and_pushed(emulator: EmulatorServer) -> None:
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
    if TAKES_NONE:
        assert attempt.xcoms["version"] is None, "so that the outputs of mapped tasks are as many as the tasks"


@pytest.mark.parametrize("name", ["create-feature-analysis", "create-data-validation"])
def test_the_request_bodies_of_the_reference_are_sent_unchanged(emulator: EmulatorServer, name: str) -> None:
    body = json.loads((EXAMPLES / f"{name}.json").read_text())
    given = {key: value for key, value in body.items() if key != "create_version"}
    operator(**{"inputs": None, **given}, random_name_suffix=False).execute(Try().context)
    (task,) = tasks(emulator)
    assert task.body == body


def test_a_template_can_be_a_model(emulator: EmulatorServer) -> None:
    run({"template": TemplateParam.model_validate(VALIDATION)}, Try())
    (task,) = tasks(emulator)
    assert task.body["template"] == VALIDATION


def test_an_invalid_body_is_refused_with_every_fault_before_sending(emulator: EmulatorServer) -> None:
    bad = {"template": {"id": ""}, "inputs": [{"type": "FTP"}], "data_source": {"type": "OBS"}, "description": "a<b"}
    with pytest.raises(ModelArtsRequestError) as caught:
        run(bad, Try())
    for fault in ("template.id", "inputs.0.type", "description", "data_source or inputs"):
        assert fault in str(caught.value)
    assert emulator.state.log.count() == 0


def test_templates_are_rendered_at_any_depth() -> None:
    task = operator(
        name="n-{{ ds }}",
        template={
            "id": "sys_data_selection",
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


def test_an_exact_name_that_exists_is_an_error(emulator: EmulatorServer) -> None:
    emulator.state.add_task("same")
    with pytest.raises(ModelArtsAlreadyExistsError, match="exists already"):
        run({"name": "same", "random_name_suffix": False}, Try())
    assert len(tasks(emulator)) == 1


def test_failed_statuses_must_be_terminal() -> None:
    with pytest.raises(ValueError, match=r"only 2 \(completed\), 3 \(failed\) or 4 \(stopped\)"):
        operator(failed_statuses=[1])


def test_a_failed_task_raises_with_the_error_msg_of_the_service(emulator: EmulatorServer) -> None:
    emulator.state.next_task(status=3, error_msg="no images in there")
    with pytest.raises(ModelArtsProcessorTaskFailed, match=r"failed: no images in there"):
        run({}, Try())


@pytest.mark.parametrize("code", ["ModelArts.4636", "ModelArts.0101"])
def test_a_completed_task_succeeds_even_if_its_versions_cannot_be_listed(emulator: EmulatorServer, code: str) -> None:
    emulator.faults.refuse(code, operation="ListProcessorTaskVersions")
    attempt = Try()
    assert run({}, attempt)["status_name"] == "completed"
    assert attempt.xcoms.get("version") is None


def test_without_waiting_it_returns_at_once(emulator: EmulatorServer) -> None:
    emulator.state.next_task(duration=1000)
    attempt = Try()
    assert run({"wait_for_completion": False}, attempt)["status_name"] == "initialized"
    assert attempt.xcoms["processor_task_id"] == tasks(emulator)[0].task_id


@pytest.mark.parametrize("wait", [True, False], ids=["during the wait", "after the submission"])
def test_an_outage_is_waited_out(emulator: EmulatorServer, pauses: list[float], wait: bool) -> None:
    emulator.faults.answer(503, times=12, operation="DescribeProcessorTask")
    returned = run({"wait_for_completion": wait}, Try())
    assert len(tasks(emulator)) == 1
    assert returned["status_name"] == "completed" or not wait


@pytest.mark.parametrize("kind", ["task", "version"])
def test_an_outage_after_the_end_is_waited_out(
    emulator: EmulatorServer, original: Task, pauses: list[float], kind: str
) -> None:
    attempt = Try()
    if kind == "task":
        emulator.faults.answer(503, times=12, operation="ListProcessorTaskVersions")
        assert run({}, attempt)["status_name"] == "completed"
    else:  # the first call reads the fields to inherit
        emulator.faults.answer(503, times=12, skip=1, operation="DescribeProcessorTask")
        assert version_operator(original).execute(attempt.context)["status_name"] == "completed"
    assert attempt.xcoms["version"]["status_name"] == "completed"


def test_a_version_inherits_fields_of_the_task(emulator: EmulatorServer, original: Task) -> None:
    attempt = Try()
    returned = version_operator(original, description="new").execute(attempt.context)
    body = original.versions[1].body
    assert body["inputs"] == INPUTS
    assert body["template"]["id"] == "sys_data_validation"
    assert body["work_path"] == {"type": "OBS", "path": "obs://bucket/o"}
    assert body["description"] == "new"
    assert returned["task_id"] == original.task_id
    assert attempt.xcoms["version"]["task_version_id"] == original.versions[1].version_id


def test_given_inputs_replace_those_of_the_task(emulator: EmulatorServer, original: Task) -> None:
    given = {"type": "DATASET", "source": "another"}
    version_operator(original, data_source=given).execute(Try().context)
    assert original.versions[1].body["data_source"] == given
    assert "inputs" not in original.versions[1].body


@pytest.mark.parametrize("given", [{}, {"version_id": "V2"}])
def test_the_dataset_version_is_inherited_only_with_the_inputs(emulator: EmulatorServer, given: dict[str, str]) -> None:
    body = {"inputs": INPUTS, "version_id": "V1"}
    task = emulator.state.add_task("t", template="sys_data_validation", status=2, body=body)
    version_operator(task).execute(Try().context)
    version_operator(task, inputs=[{"type": "DATASET", "source": "another"}], **given).execute(Try().context)
    assert [version.body.get("version_id") for version in task.versions[1:]] == ["V1", given.get("version_id")]


def test_the_trigger_waits_for_the_version(emulator: EmulatorServer, original: Task) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        version_operator(original, deferrable=True, wait_for_capacity=False).execute(Try().context)
    trigger: Any = deferred.value.trigger
    assert (trigger.processor_task_id, trigger.task_version_id) == (original.task_id, original.versions[1].version_id)


def test_a_failed_version_is_named(emulator: EmulatorServer, original: Task) -> None:
    emulator.state.next_task(status=3)
    with pytest.raises(ModelArtsProcessorTaskFailed, match=r"Version '.+' of processing task '.+' failed"):
        version_operator(original).execute(Try().context)


def test_a_lost_answer_creates_one_version(emulator: EmulatorServer, original: Task) -> None:
    emulator.faults.reset("after", operation="CreateProcessorTaskVersion")
    assert version_operator(original).execute(Try().context)["status_name"] == "completed"
    assert len(original.versions) == 2
