"""`output_files_to_xcom`: small files that a completed processing task wrote are pushed as an XCom."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_modelarts.api.arguments import ArgumentError
from airflow_modelarts.api.errors import ModelArtsConfigurationError, ModelArtsRequestError
from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.operators import (
    ModelArtsCreateProcessorTaskOperator,
    ModelArtsCreateProcessorTaskVersionOperator,
    ModelArtsDescribeProcessorTaskOperator,
    small_files,
)
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from tests.support.task_instances import TaskInstance, collect_log

PLACE = {"type": "OBS", "path": "obs://my-bucket/out/"}
BODY = {
    "name": "written",
    "template": {"id": "sys_data_validation"},
    "inputs": [{"type": "OBS", "source": "obs://my-bucket/in/"}],
    "work_path": PLACE,
    "poll_interval": 0.02,
}


@pytest.fixture(scope="module")
def running() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=0) as server:
        yield server


@pytest.fixture
def emulator(running: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> EmulatorServer:
    running.state.reset()
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", running.airflow_connection())
    return running


def put(emulator: EmulatorServer, **files: bytes | str) -> None:
    """Write objects below ``out/`` with a client that is not ours."""
    login = {"aws_access_key_id": accounts.ACCESS_KEY, "aws_secret_access_key": accounts.SECRET_KEY}
    client: Any = boto3.client("s3", endpoint_url=emulator.obs_url, region_name=accounts.REGION, **login)
    for name, content in files.items():
        client.put_object(Bucket="my-bucket", Key=f"out/{name}", Body=content)


def add_task(
    emulator: EmulatorServer, template: str = "sys_data_analyse", work_path: Any = PLACE, status: int = 2
) -> str:
    task_id: str = emulator.state.add_task(template=template, status=status, body={"work_path": work_path}).task_id
    return task_id


def read(task_id: str, patterns: Any, **arguments: Any) -> Any:
    """Return the XCom of a task that describes a processing task."""
    instance = TaskInstance()
    context: Any = {"ti": instance}
    operator = ModelArtsDescribeProcessorTaskOperator(
        task_id="read", processor_task_id=task_id, output_files_to_xcom=patterns, **arguments
    )
    operator.execute(context)
    return instance.xcoms["output_files"]


def test_a_created_tasks_json_is_parsed_and_named_relative_to_the_work_path(emulator: EmulatorServer) -> None:
    instance = TaskInstance()
    context: Any = {"ti": instance}
    ModelArtsCreateProcessorTaskOperator(task_id="run", output_files_to_xcom=["*.json"], **BODY).execute(context)
    assert list(instance.xcoms["output_files"]) == ["V001/result.json"]
    assert instance.xcoms["output_files"]["V001/result.json"]["origin_sample_count"] == 16


def test_a_new_versions_files_are_read(emulator: EmulatorServer) -> None:
    task_id = add_task(emulator, "sys_data_cleaning")
    instance = TaskInstance()
    context: Any = {"ti": instance}
    ModelArtsCreateProcessorTaskVersionOperator(
        task_id="again", processor_task_id=task_id, output_files_to_xcom="V002/*.json", poll_interval=0.02
    ).execute(context)
    assert instance.xcoms["output_files"]["V002/result.json"]["version_name"] == "V002"


def test_a_deferred_tasks_files_are_read_when_it_resumes(emulator: EmulatorServer) -> None:
    task_id = add_task(emulator)
    instance = TaskInstance()
    context: Any = {"ti": instance}
    operator = ModelArtsCreateProcessorTaskOperator(
        task_id="run", output_files_to_xcom=["*.json"], deferrable=True, **BODY
    )
    operator.execute_complete(context, {"task_id": task_id, "status": 2})
    assert list(instance.xcoms["output_files"]) == ["result.json"]


@pytest.mark.parametrize("do_xcom_push", [True, False])
def test_without_patterns_the_xcom_is_empty_and_nothing_is_read(emulator: EmulatorServer, do_xcom_push: bool) -> None:
    instance = TaskInstance()
    context: Any = {"ti": instance}
    arguments = {"processor_task_id": add_task(emulator), "do_xcom_push": do_xcom_push}
    ModelArtsDescribeProcessorTaskOperator(task_id="read", **arguments).execute(context)
    assert instance.xcoms.get("output_files") == ({} if do_xcom_push else None)


def test_files_of_each_kind_are_read(emulator: EmulatorServer) -> None:
    files = {
        "a b+1%.json": '{"n": NaN}',
        "数据//猫.json": "[1]",
        "broken.json": "{",
        "bom.JSON": b"\xef\xbb\xbf{}",
        "notes.txt": "{}",
        "empty.txt": "",
        "deep.json": "[" * 150 + "]" * 150,
    }
    put(emulator, **files)
    expected = {
        "a b+1%.json": {"n": None},
        "数据//猫.json": [1],
        "broken.json": "{",
        "bom.JSON": {},
        "notes.txt": "{}",
        "empty.txt": "",
        "deep.json": files["deep.json"],
    }
    assert read(add_task(emulator, work_path={"type": "OBS", "path": "s3a://my-bucket/out"}), [*expected]) == expected


def test_signed_links_are_removed(emulator: EmulatorServer) -> None:
    link = "https://b.obs.example.com/k.jpg?AccessKeyId=AK&Expires=1&Signature=secret-part"
    put(
        emulator,
        **{"x/links.json": f'{{"signed_new_source": "{link}", "url": "{link}"}}', "x/links.txt": f"see {link}\n"},
    )
    assert read(add_task(emulator), "x/*") == {
        "x/links.json": {"url": "https://b.obs.example.com/k.jpg"},
        "x/links.txt": "see https://b.obs.example.com/k.jpg\n",
    }


def test_what_exceeds_a_limit_is_left_out_and_named(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = collect_log(monkeypatch, ModelArtsDescribeProcessorTaskOperator)
    monkeypatch.setattr(small_files, "MAX_FILES", 2)
    monkeypatch.setattr(small_files, "MAX_BYTES", 10)
    monkeypatch.setattr(small_files, "MAX_NAMED", 3)
    put(emulator, **{"1": "12345", "2": "123456", "3": b"\xff", "4": "1234", "5": "", "6": "", "7": ""})
    task_id = add_task(emulator)
    assert read(task_id, ["?"]) == {
        "1": "12345",
        "2": {"left_out": "it has 6 bytes, and the limit is 10 for all files together"},
        "3": {"left_out": "it is not text in UTF-8"},
        "4": "1234",
        "5": {"left_out": "2 files have been read, which is the limit"},
        "…": {"left_out": "2 more files match, and a limit is reached"},
    }
    assert "Output file '3' is left out: it is not text in UTF-8." in lines


def test_a_long_list_is_cut_off_and_that_is_said(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_files, "MAX_LISTED", 1000)
    task_id = add_task(emulator)
    read(task_id, "none")  # it starts the store
    put(emulator, **{f"many/{number:04}": b"" for number in range(1001)})
    files = read(task_id, ["many/0000", "result.json"])
    assert files == {
        "many/0000": "",
        "…": {"left_out": "only the first 1,000 files below the work path were looked at"},
    }


@pytest.mark.parametrize(
    ("work_path", "reason"), [(None, "has no work_path"), ({"type": "DATASET", "path": "d"}, "no place in OBS")]
)
def test_a_task_without_a_place_in_obs_has_no_files_and_says_why(
    emulator: EmulatorServer, work_path: Any, reason: str
) -> None:
    files = read(add_task(emulator, work_path=work_path), "*")
    assert reason in files["…"]["left_out"]


@pytest.mark.parametrize("status", [1, 3, 4])
def test_only_a_completed_tasks_files_are_read(emulator: EmulatorServer, status: int) -> None:
    put(emulator, **{"early.json": "{}"})
    assert read(add_task(emulator, status=status), "*") == {}


def test_an_empty_place_is_no_failure(emulator: EmulatorServer) -> None:
    assert read(add_task(emulator), "*.csv") == {}


def test_a_store_that_refuses_fails_the_airflow_task_after_the_other_xcoms(emulator: EmulatorServer) -> None:
    instance = TaskInstance()
    context: Any = {"ti": instance}
    task_id = add_task(emulator)
    operator = ModelArtsDescribeProcessorTaskOperator(
        task_id="read", processor_task_id=task_id, output_files_to_xcom="*"
    )
    task = ModelArtsHook().describe_processor_task(task_id)
    emulator.state.accounts.add_key(accounts.KeyPair(accounts.ACCESS_KEY, "another"))
    with pytest.raises(PermissionError, match="my-bucket"):
        operator._publish(context, task)
    assert instance.xcoms["work_path"] == PLACE
    assert "output_files" not in instance.xcoms


def test_a_failed_read_repeats_no_processing_task_where_nothing_remembers_it(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Iterator[Any]:
        raise PermissionError("Bucket 'my-bucket' refuses access")

    monkeypatch.setattr(small_files, "find", refuse)
    context: Any = {"ti": TaskInstance()}
    operator = ModelArtsCreateProcessorTaskOperator(task_id="run", output_files_to_xcom="*", durable=False, **BODY)
    with pytest.raises(AirflowFailException, match="Bucket 'my-bucket' refuses access"):
        operator.execute(context)


def test_a_missing_s3fs_is_found_before_anything_is_submitted(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_modelarts.filesystem.find_spec", lambda _: None)
    context: Any = {"ti": TaskInstance()}
    with pytest.raises(ModelArtsConfigurationError, match="s3fs"):
        ModelArtsCreateProcessorTaskOperator(task_id="run", output_files_to_xcom="*", **BODY).execute(context)
    assert emulator.state.all_tasks() == []


# The argument


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], "an empty list: leave it out"),
        ("", "give a pattern such as"),
        (["*.json", " "], "give a pattern such as"),
        ("/out/*.json", "relative to the work path"),
        (["obs://my-bucket/out/*.json"], "relative to the work path"),
        ("../*.json", "relative to the work path"),
        ({"*.json": 1}, "give a text"),
        ([None], "give a text"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("make", "needed"),
    [
        (ModelArtsCreateProcessorTaskOperator, BODY),
        (ModelArtsCreateProcessorTaskVersionOperator, {"processor_task_id": "t"}),
        (ModelArtsDescribeProcessorTaskOperator, {"processor_task_id": "t"}),
    ],
)
def test_a_pattern_that_cannot_match_is_refused_when_the_dag_is_parsed(
    make: Any, needed: Any, given: Any, complaint: str
) -> None:
    with pytest.raises(ArgumentError, match=complaint):
        make(task_id="t", output_files_to_xcom=given, **needed)
    with pytest.raises(ArgumentError, match=complaint), DAG("d", schedule=None):
        make.partial(task_id="t", output_files_to_xcom=given, **needed).expand(project_id=["1"])


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("given", "rendered"),
    [
        ("*.json", "*.json"),
        ("{{ name }}.json", "V001.json"),
        (["{{ name }}/*.json", "*.txt"], ["V001/*.json", "*.txt"]),
        ("{{ names }}", ["a.json", "b.json"]),
    ],
    ids=str,
)
def test_patterns_are_templated(given: Any, rendered: Any, native: bool) -> None:
    with DAG("d", schedule=None, render_template_as_native_obj=native):
        operator = ModelArtsCreateProcessorTaskOperator(task_id="run", output_files_to_xcom=given, **BODY)
    context: Any = {"name": "V001", "names": ["a.json", "b.json"], "ti": TaskInstance()}
    operator.render_template_fields(context)
    operator._prepare_fields()
    assert operator.output_files_to_xcom == rendered


def test_a_pattern_that_rendered_to_nothing_is_refused(emulator: EmulatorServer) -> None:
    operator = ModelArtsDescribeProcessorTaskOperator(
        task_id="read", processor_task_id="t", output_files_to_xcom="{{ name }}"
    )
    context: Any = {"name": "", "ti": TaskInstance()}
    operator.render_template_fields(context)
    with pytest.raises(ModelArtsRequestError, match="output_files_to_xcom"):
        operator.execute(context)
