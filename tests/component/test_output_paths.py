"""`path_of_output` opens what operators push, with the connection of the emulator."""

import runpy
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_modelarts.api.arguments import ArgumentError
from airflow_modelarts.filesystem import path_of_output, path_with_connection
from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator
from airflow_modelarts.testing.emulator import EmulatorServer
from tests.support.documents import ROOT
from tests.support.task_instances import TaskInstance

OBS = {"type": "OBS", "path": "obs://my-bucket/out/"}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("obs://my-bucket/out/", "my-bucket/out"),
        ("s3://my-bucket/out", "my-bucket/out"),
        ("s3a://my-bucket/a%20b", "my-bucket/a b"),
        ("/my-bucket/50%25/a b+c", "my-bucket/50%25/a b+c"),
        ("/my-bucket/数据//x", "my-bucket/数据//x"),
        (OBS, "my-bucket/out"),
        ({"path": "/my-bucket/out"}, "my-bucket/out"),
        ({"type": "OBS", "path": "my-bucket/out/"}, "my-bucket/out"),
        ({"type": "DATASET", "path": "id", "output_path": "obs://my-bucket/out"}, "my-bucket/out"),
        ({"task_id": "t", "work_path": OBS, "inputs": []}, "my-bucket/out"),
        ({"task_id": "t", "task_version_id": "v", "version_name": "V002", "work_path": OBS}, "my-bucket/out"),
    ],
    ids=str,
)
def test_what_operators_push_is_a_path_with_the_default_connection(output: Any, expected: str) -> None:
    assert path_with_connection(path_of_output(output)) == f"obs://modelarts_default@{expected}"


def test_another_connection_can_open_the_path() -> None:
    assert path_with_connection(path_of_output(OBS, "other")) == "obs://other@my-bucket/out"


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (None, "output has no work_path: give the task one"),
        ({}, "output has no work_path"),
        ({"task_id": "t", "work_path": None}, "processing task 't' has no work_path"),
        ({"task_id": "t"}, "processing task 't' has no work_path"),
        ({"type": "DATASET", "path": "id", "output_path": "/datasets/demo"}, "no place in OBS: read the dataset"),
        ({"task_id": "t", "work_path": {"type": "DATASET", "path": "id"}}, "processing task 't' has the work_path"),
        ("datasets", "place is 'datasets', which is not in OBS"),
        ([OBS, OBS], "output is a list of 2: give one of them, as a mapped Airflow task"),
        (b"obs://my-bucket/out", "give what an operator pushes"),
        (7, "give what an operator pushes"),
    ],
    ids=str,
)
def test_an_output_that_is_no_place_in_obs_is_refused(output: Any, complaint: str) -> None:
    with pytest.raises(ArgumentError, match=complaint):
        path_of_output(output)


SIGNED = "https://x/y?Signature=secret-part&Expires=1"


@pytest.mark.parametrize("output", [{"type": "DATASET", "path": SIGNED}, [SIGNED], {SIGNED}, SIGNED], ids=repr)
def test_a_refusal_shows_no_signed_link(output: Any) -> None:
    with pytest.raises(ArgumentError) as raised:
        path_of_output(output)
    assert "secret-part" not in str(raised.value)


def test_the_files_of_a_created_task_are_read(emulator: EmulatorServer) -> None:
    instance = TaskInstance()
    context: Any = {"ti": instance}
    created = ModelArtsCreateProcessorTaskOperator(
        task_id="run",
        name="written",
        template={"id": "sys_data_cleaning"},
        inputs=[{"type": "OBS", "source": "obs://my-bucket/"}],
        work_path=OBS,
        poll_interval=0.02,
    ).execute(context)
    described = ModelArtsHook().describe_processor_task(created["task_id"])
    for output in (created, created["work_path"], instance.xcoms["version"], described):
        folder = path_of_output(output)
        assert '"V001"' in (folder / "V001" / "result.json").read_text()
        assert len(list((folder / "V001").glob("*.jpg"))) == 18


def test_the_example_summarises_the_files_of_its_processing_task(emulator: EmulatorServer) -> None:
    dag = runpy.run_path(str(ROOT / "dags_examples" / "read_the_output.py"))["read_the_output"]()
    validate, summarise = dag.get_task("validate"), dag.get_task("summarise")
    validate.deferrable, validate.poll_interval = False, 0.02
    now = datetime(2026, 11, 24, tzinfo=UTC)
    params = {"dataset_id": "d", "dataset_version_id": "v", "folder": "/my-bucket/a b+1%/数据//x"}
    context: Any = {"ti": TaskInstance(), "params": params, "dag_run": SimpleNamespace(logical_date=now)}
    validate.render_template_fields(context)
    summary = summarise.python_callable(validate.execute(context))
    assert summary["files"] == 20
    assert summary["documents"]["V001/result.json"]["origin_sample_count"] == 16
