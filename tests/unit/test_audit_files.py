"""The files of an audit: tried out first, written last, and never lost without a word."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    BaseOperator,
    ObjectStoragePath,
    TaskGroup,
    task_group,
)
from fsspec.implementations.memory import MemoryFileSystem
from requests_mock import Mocker

from airflow_modelarts.exceptions import ModelArtsAuditFailed, ModelArtsReportNotWritten
from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator
from airflow_modelarts.operators.audit_paths import own_path
from tests.support.fixtures import PROJECT_ID
from tests.support.fixtures import TASKS as LIST_URL
from tests.support.task_instances import TaskInstance

try:
    from airflow.sdk.io import attach
except ImportError:
    from airflow.io.store import attach

START = datetime(2026, 11, 23, tzinfo=UTC)
END = START + timedelta(days=1)
MORNING = int(START.timestamp() * 1000) + 8 * 3_600_000


def run(context: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", window_start=START, window_end=END, **arguments)
    usual = {"ti": TaskInstance(), "run_id": "scheduled__2026"}
    return operator.execute({**usual, **(context or {})})  # type: ignore[arg-type]


def serve(requests_mock: Mocker, *tasks: Any, **page: Any) -> None:
    requests_mock.get(LIST_URL, json={"count": len(tasks), "tasks": list(tasks), **page})


def failed(task_id: str = "f", **fields: Any) -> dict[str, Any]:
    return {"task_id": task_id, "status": 3, "create_time": MORNING, "error_msg": "the bucket is full", **fields}


class Store(MemoryFileSystem):
    """An object store that refuses some writes.

    :param refuses: returns whether to refuse to open a file, complete it or rename it, given what and its path.
    """

    cachable = False
    conn_id = ""

    def __init__(self, refuses: Callable[[str, str], bool]) -> None:
        super().__init__()
        self.refuses = refuses

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if "w" in mode:
            self._check("open", path)
        file = super()._open(path, mode, **kwargs)
        if "w" in mode:
            write = file.write

            def checked(data: bytes) -> int:
                self._check("write", path)
                return write(data)

            file.write = checked
        return file

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        self._check("rename", path2)
        super().mv(path1, path2, **kwargs)

    def _check(self, what: str, path: str) -> None:
        if self.refuses(what, path):
            raise PermissionError("Access Denied")


@pytest.fixture
def open_store() -> Iterator[Callable[[Callable[[str, str], bool]], MemoryFileSystem]]:
    """Open a store as ``memory://audits``, given what it refuses."""
    opened = MemoryFileSystem()

    def open_it(refuses: Callable[[str, str], bool]) -> MemoryFileSystem:
        store = Store(refuses)
        store.conn_id = f"store-{next(NUMBERS)}"  # Airflow keeps the store of a connection
        attach("memory", conn_id=store.conn_id, fs=store)
        store.makedirs("/audits", exist_ok=True)
        return store

    yield open_it
    if opened.exists("/audits"):
        opened.rm("/audits", recursive=True)


NUMBERS = itertools.count()
PATHS = {"report_path": "memory://audits/a.html", "rows_path": "memory://audits/a.jsonl"}


def names(store: MemoryFileSystem) -> list[str]:
    return sorted(str(path).rpartition("/")[2] for path in store.ls("/audits", detail=False))


# Before the list is read


@pytest.mark.parametrize(
    "arguments",
    [{"report_path": "memory://audits/a.html"}, {"rows_path": "memory://audits/a.csv"}],
    ids=lambda arguments: next(iter(arguments)),
)
def test_a_store_that_refuses_files_fails_the_task_before_any_request(
    requests_mock: Mocker, open_store: Any, arguments: dict[str, str]
) -> None:
    store = open_store(lambda what, path: what == "open")
    (argument,) = arguments
    with pytest.raises(ModelArtsReportNotWritten) as failure:
        run(**arguments, object_storage_conn_id=store.conn_id)
    assert str(failure.value).startswith(f"{argument} is 'memory://audits/a.")
    assert "(PermissionError: Access Denied)" in str(failure.value)
    assert not requests_mock.called
    assert names(store) == []


def test_a_path_below_a_file_fails_the_task_before_any_request(requests_mock: Mocker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        ModelArtsReportNotWritten, match=r"report_path is '.*/file/a\.html': the file cannot be written"
    ):
        run(report_path=str(tmp_path / "file" / "a.html"))
    assert not requests_mock.called


@pytest.mark.parametrize(
    ("argument", "name", "folder"),
    [
        ("report_path", "a.html", "a.html"),
        ("report_path", "a.html", "a.json"),
        ("rows_path", "a.jsonl", "a.jsonl"),
        ("rows_path", "a.csv", "a.csv"),
    ],
)
def test_a_path_that_is_a_folder_is_refused_and_leaves_no_file(
    requests_mock: Mocker, tmp_path: Path, argument: str, name: str, folder: str
) -> None:
    (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match="that is a directory; name a file in it"):
        run(**{argument: str(tmp_path / name)})
    assert not requests_mock.called
    assert [path.name for path in tmp_path.rglob("*")] == [folder]


@pytest.mark.parametrize(
    ("argument", "path"),
    [
        ("report_path", "/tmp/audits/"),
        ("report_path", "/tmp/audits/.html"),
        ("report_path", "/tmp/a.jsonl"),
        ("rows_path", "/tmp/audits/"),
        ("rows_path", "/tmp/audits.jsonl/"),
        ("rows_path", "/tmp/a.json"),
        ("rows_path", "/tmp/a.html"),
    ],
)
def test_a_path_with_another_suffix_is_refused_when_the_dag_is_parsed(argument: str, path: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} is '{path}': name a file that ends in "):
        ModelArtsAuditProcessorTasksOperator(task_id="audit", **{argument: path})


def test_a_rendered_path_with_another_suffix_is_refused_before_any_request(requests_mock: Mocker) -> None:
    operator = ModelArtsAuditProcessorTasksOperator(task_id="audit", report_path="/tmp/{{ name }}")
    operator.report_path = "/tmp/a.txt"
    with pytest.raises(ValueError, match=r"name a file that ends in \.html"):
        operator.execute({"ti": TaskInstance(), "run_id": "r"})
    assert not requests_mock.called


# After the list was read


@pytest.mark.parametrize("what", ["write", "rename"])
def test_a_report_that_cannot_be_written_fails_the_task_after_all_else(
    requests_mock: Mocker, open_store: Any, printed_log: Callable[[], str], what: str
) -> None:
    serve(requests_mock, failed())
    task_instance, before_writing = TaskInstance(), list[set[str]]()

    def refuses(action: str, path: str) -> bool:
        before_writing.append(set(task_instance.xcoms))
        return action == what and "html" in path

    store = open_store(refuses)
    with pytest.raises(ModelArtsReportNotWritten) as failure:
        run({"ti": task_instance}, **PATHS, object_storage_conn_id=store.conn_id)
    assert before_writing[-1] == {"return_value"}
    summary = task_instance.xcoms["return_value"]
    assert (summary["total"], summary["broken_rules"]) == (1, {"failures_allowed": "1 task has failed"})
    assert "report_path" not in summary
    assert summary["rows_path"].endswith("a.jsonl")
    log = printed_log()
    assert "00:00 UTC: 1 (1 failed)." in log
    assert "Rule failures_allowed is broken: 1 task has failed." in log
    message = str(failure.value)
    assert "a.html': the file cannot be written (PermissionError: Access Denied)" in message
    assert "1 audit rule is broken by tasks created from 2026-11-23 00:00" in message
    assert names(store) == ["a.json", "a.jsonl"]


@pytest.mark.parametrize("what", ["write", "rename"])
@pytest.mark.parametrize("fail_on_broken_rules", [True, False])
def test_rows_that_cannot_be_written_do_not_end_the_audit(
    requests_mock: Mocker, open_store: Any, what: str, fail_on_broken_rules: bool
) -> None:
    serve(requests_mock, *(failed(f"f{number}") for number in range(3)))
    store = open_store(lambda action, path: action == what and "jsonl" in path)
    task_instance = TaskInstance()
    with pytest.raises(ModelArtsReportNotWritten, match=r"rows_path is '.*a\.jsonl': the file cannot be written"):
        run(
            {"ti": task_instance},
            **PATHS,
            object_storage_conn_id=store.conn_id,
            fail_on_broken_rules=fail_on_broken_rules,
        )
    summary = task_instance.xcoms["return_value"]
    assert summary["total"] == 3
    assert "rows_path" not in summary
    assert names(store) == ["a.html", "a.json"]
    with store.open("/audits/a.json", "rb") as file:
        assert json.load(file)["rows_path"] is None


def test_a_store_that_fails_while_the_list_is_read_does_not_end_the_audit(
    requests_mock: Mocker, open_store: Any
) -> None:
    serve(requests_mock, *(failed(f"f{number}") for number in range(5)))
    writes = itertools.count()
    store = open_store(lambda action, path: action == "write" and "jsonl" in path and next(writes) == 3)
    task_instance = TaskInstance()
    with pytest.raises(ModelArtsReportNotWritten, match=r"rows_path is '.*a\.jsonl'"):
        run({"ti": task_instance}, **PATHS, object_storage_conn_id=store.conn_id)
    assert task_instance.xcoms["return_value"]["total"] == 5
    assert names(store) == ["a.html", "a.json"]


def test_airflow_retries_a_failed_write_and_not_a_broken_rule() -> None:
    assert not issubclass(ModelArtsReportNotWritten, AirflowFailException)
    assert issubclass(ModelArtsAuditFailed, AirflowFailException)


def test_no_xcom_is_pushed_for_a_failed_write_if_none_is_wanted(requests_mock: Mocker, open_store: Any) -> None:
    serve(requests_mock, failed())
    store = open_store(lambda action, path: action == "rename" and "html" in path)
    task_instance = TaskInstance()
    with pytest.raises(ModelArtsReportNotWritten):
        run({"ti": task_instance}, **PATHS, object_storage_conn_id=store.conn_id, do_xcom_push=False)
    assert task_instance.xcoms == {}


def test_a_list_that_fails_leaves_no_partial_rows(requests_mock: Mocker, tmp_path: Path) -> None:
    page = {"count": 200, "tasks": [failed(f"f{number}") for number in range(100)]}
    requests_mock.get(LIST_URL, [{"json": page}, {"status_code": 403, "json": {"error_code": "ModelArts.0103"}}])
    with pytest.raises(Exception, match=r"ModelArts\.0103"):
        run(rows_path=str(tmp_path / "a.jsonl"))
    assert list(tmp_path.iterdir()) == []


# The rows


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


CLEANED = {
    "task_id": "c",
    "name": "clean",
    "status": 2,
    "create_time": MORNING,
    "duration_seconds": 90,
    "template": {"id": "sys_data_cleaning"},
    "inputs": [{"type": "DATASET", "source": "ds-1"}],
    "version_id": "v-1",
    "work_path": {"type": "OBS", "path": "s3://b/out dir/"},
    "workspace_id": "7",
}


def test_the_rows_have_each_task_of_the_window(requests_mock: Mocker, tmp_path: Path) -> None:
    outside = {**failed("old"), "create_time": MORNING - 86_400_000}
    serve(requests_mock, CLEANED, failed(name="bad"), outside)
    summary = run(rows_path=str(tmp_path / "a.jsonl"))
    assert summary["rows_path"] == str(tmp_path / "a.jsonl")
    cleaned, bad = read_jsonl(tmp_path / "a.jsonl")
    assert cleaned == {
        "project_id": PROJECT_ID,
        "task_id": "c",
        "name": "clean",
        "template_id": "sys_data_cleaning",
        "status": 2,
        "status_name": "completed",
        "create_time": "2026-11-23T08:00:00+00:00",
        "duration_seconds": 90,
        "source_type": "DATASET",
        "source": "ds-1",
        "version_id": "v-1",
        "version_name": None,
        "version_count": None,
        "work_path_type": "OBS",
        "work_path": "obs://b/out%20dir",
        "workspace_id": "7",
        "error_msg": None,
        "checks": [],
        "unreadable": [],
    }
    assert list(bad) == list(cleaned)
    assert (bad["name"], bad["error_msg"], bad["checks"]) == ("bad", "the bucket is full", ["failed"])


def test_csv_has_the_same_columns_and_values(requests_mock: Mocker, tmp_path: Path) -> None:
    serve(requests_mock, CLEANED, failed(name='a "b", c', duration_seconds="x"))
    run(rows_path=str(tmp_path / "a.csv"))
    run(rows_path=str(tmp_path / "a.jsonl"))
    for of_csv, of_json in zip(read_csv(tmp_path / "a.csv"), read_jsonl(tmp_path / "a.jsonl"), strict=True):
        as_text = {
            name: " ".join(value) if isinstance(value, list) else "" if value is None else str(value)
            for name, value in of_json.items()
        }
        assert of_csv == as_text


def test_a_csv_without_tasks_has_its_header(requests_mock: Mocker, tmp_path: Path) -> None:
    serve(requests_mock)
    run(rows_path=str(tmp_path / "a.csv"))
    assert (tmp_path / "a.csv").read_text().startswith("project_id,task_id,name,")
    assert read_csv(tmp_path / "a.csv") == []


@pytest.mark.parametrize("mark", ["=", "+", "-", "@", "\t", "\r", "=1+1\n"])
def test_csv_has_no_formulas(requests_mock: Mocker, tmp_path: Path, mark: str) -> None:
    text = f"{mark}cmd|' /C calc'!A0"
    serve(requests_mock, failed(name=text, error_msg=text, workspace_id=text), failed(f"-{mark}"))
    run(rows_path=str(tmp_path / "a.csv"))
    for row in read_csv(tmp_path / "a.csv"):
        assert not [value for value in row.values() if value.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_a_status_of_more_than_64_bits_is_in_words_only(requests_mock: Mocker, tmp_path: Path) -> None:
    serve(requests_mock, failed(status=2**63))
    run(rows_path=str(tmp_path / "a.jsonl"))
    (row,) = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert (row["status"], row["status_name"]) == (None, f"unknown ({2**63})")


def test_a_text_of_the_service_stays_in_its_row(requests_mock: Mocker, tmp_path: Path) -> None:
    text = 'a\nb\r\nc\u2028d\x00"e",\x85f'
    link = "https://b.obs.example/k?Signature=secret"
    serve(requests_mock, failed(name=text, error_msg=link), CLEANED)
    for name in ("a.csv", "a.jsonl"):
        run(rows_path=str(tmp_path / name))
        assert "secret" not in (tmp_path / name).read_text()
        assert len((tmp_path / name).read_bytes().splitlines()) == 2 + name.endswith("csv")
    assert len(read_csv(tmp_path / "a.csv")) == 2


def test_several_inputs_are_in_one_cell(requests_mock: Mocker, tmp_path: Path) -> None:
    inputs = [{"type": "OBS", "source": "/b/in/"}, {"type": "TASK", "source": "t-1"}, {"source": None}]
    serve(requests_mock, failed(inputs=inputs, work_path={"type": "DATASET", "path": "ds-2"}))
    run(rows_path=str(tmp_path / "a.jsonl"))
    (row,) = read_jsonl(tmp_path / "a.jsonl")
    assert (row["source_type"], row["source"]) == ("OBS TASK -", "obs://b/in t-1 -")
    assert (row["work_path_type"], row["work_path"]) == ("DATASET", "ds-2")


# Mapped audits, and several in a DAG


def written(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir())


def test_mapped_audits_with_one_path_write_a_file_each(requests_mock: Mocker, tmp_path: Path) -> None:
    serve(requests_mock, failed())
    for index in range(2):
        summary = run(
            {"ti": TaskInstance(map_index=index)},
            report_path=str(tmp_path / "a.html"),
            rows_path=str(tmp_path / "a.csv"),
        )
        assert summary["map_index"] == index
        assert summary["report_path"].endswith(f"a-{index}.html")
    assert written(tmp_path) == ["a-0.csv", "a-0.html", "a-0.json", "a-1.csv", "a-1.html", "a-1.json"]


def test_a_path_that_names_the_map_index_stays(requests_mock: Mocker, tmp_path: Path) -> None:
    serve(requests_mock, failed())
    operator = ModelArtsAuditProcessorTasksOperator(
        task_id="audit", rows_path=f"{tmp_path}/{{{{ ti.map_index }}}}.csv", window_start=START, window_end=END
    )
    context: Any = {"ti": TaskInstance(map_index=3), "run_id": "r"}
    operator.render_template_fields(context)
    operator.execute(context)
    assert written(tmp_path) == ["3.csv"]


def execute_mapped(dag: DAG, values: dict[str, Any], map_index: int) -> None:
    """Execute an instance of the mapped task ``audit`` as Airflow does."""
    mapped: Any = dag.get_task("audit")
    operator = mapped.unmap(values)
    context: Any = {"ti": TaskInstance(map_index=map_index, task_id="audit"), "run_id": "r", "dag": dag}
    operator.render_template_fields(context)
    operator.execute(context)


def test_a_mapped_path_stays_and_a_shared_one_gets_the_index(requests_mock: Mocker, tmp_path: Path) -> None:
    serve(requests_mock, failed())
    with DAG("audits", schedule=None) as dag:
        ModelArtsAuditProcessorTasksOperator.partial(
            task_id="audit", rows_path=str(tmp_path / "shared.csv"), window_start=str(START), window_end=str(END)
        ).expand(report_path=[str(tmp_path / "x.html"), str(tmp_path / "y.html")])
    for index, name in enumerate(("x", "y")):
        execute_mapped(dag, {"report_path": str(tmp_path / f"{name}.html")}, index)
    assert written(tmp_path) == ["shared-0.csv", "shared-1.csv", "x.html", "x.json", "y.html", "y.json"]


def test_a_path_that_is_an_argument_of_a_mapped_group_stays() -> None:
    with DAG("audits", schedule=None) as dag:

        @task_group
        def group(path: str) -> None:
            ModelArtsAuditProcessorTasksOperator(task_id="mapped", report_path=path)
            ModelArtsAuditProcessorTasksOperator(task_id="literal", report_path="/tmp/a.html")

        group.expand(path=["/tmp/x.html", "/tmp/y.html"])
    rendered = {"mapped": "/tmp/y.html", "literal": "/tmp/a.html"}
    paths = {}
    for name, path in rendered.items():
        operator: Any = dag.get_task(f"group.{name}")
        context = {"ti": TaskInstance(map_index=1, task_id=operator.task_id), "dag": dag}
        paths[name] = own_path(path, operator.report_path, "report_path", context)
    assert paths == {"mapped": "/tmp/y.html", "literal": "/tmp/a-1.html"}


def test_two_audits_of_a_dag_with_one_path_are_refused_when_it_is_parsed() -> None:
    with DAG("audits", schedule=None), TaskGroup("group"):
        ModelArtsAuditProcessorTasksOperator(task_id="one", report_path="/tmp/{{ ds }}.html", rows_path="/tmp/1.csv")
        with pytest.raises(ValueError, match=r"report_path of task 'group\.two' is .* as that of task 'group\.one'"):
            ModelArtsAuditProcessorTasksOperator(task_id="two", report_path="/tmp/{{ ds }}.html")
        with pytest.raises(ValueError, match=r"rows_path of task 'group\.three'"):
            ModelArtsAuditProcessorTasksOperator(task_id="three", rows_path="/tmp/1.csv")


@pytest.mark.parametrize(
    "other", ["file:///tmp/a.html", "/tmp/b/../a.html", Path("/tmp/a.html"), "local:///tmp//a.html"]
)
def test_another_spelling_of_a_local_path_is_the_same_path(other: Any) -> None:
    with DAG("audits", schedule=None):
        ModelArtsAuditProcessorTasksOperator(task_id="one", report_path="/tmp/a.html")
        with pytest.raises(ValueError, match="report_path of task 'two' is"):
            ModelArtsAuditProcessorTasksOperator(task_id="two", report_path=other)


def test_two_mapped_audits_with_one_path_are_refused_and_an_unmapped_one_is_not() -> None:
    operator, filters = ModelArtsAuditProcessorTasksOperator, {"template_id": ["x", "y"]}
    with DAG("audits", schedule=None) as dag:
        operator.partial(task_id="one", report_path="/tmp/a.html").expand(**filters)
        operator(task_id="unmapped", report_path="/tmp/a.html")
        operator.partial(task_id="two", report_path="/tmp/b.html").expand(**filters)
        with pytest.raises(ValueError, match=r"report_path of task 'three' is '/tmp/a\.html', as that of task 'one'"):
            operator.partial(task_id="three", report_path="/tmp/a.html")
    assert len(dag.tasks) == 3


X, Y = "/tmp/x.html", "/tmp/y.html"


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"report_path": [X, Y]}, X),
        ({"report_path": [X, X]}, "/tmp/x-1.html"),
        ({"report_path": [X, Y], "template_id": ["a"]}, X),
        ({"report_path": [X, Y], "template_id": ["a", "b"]}, "/tmp/x-1.html"),
        ([{"report_path": X, "template_id": "a"}, {"report_path": Y}], X),
        ([{"report_path": X, "template_id": "a"}, {"report_path": X}], "/tmp/x-1.html"),
    ],
)
def test_a_mapped_path_that_several_instances_get_has_the_index(values: Any, path: str) -> None:
    with DAG("audits", schedule=None) as dag:
        partial = ModelArtsAuditProcessorTasksOperator.partial(task_id="audit")
        partial.expand(**values) if isinstance(values, dict) else partial.expand_kwargs(values)
    context = {"ti": TaskInstance(map_index=1, task_id="audit"), "dag": dag}
    assert own_path(X, X, "report_path", context) == path


def test_a_path_from_another_task_has_the_index_only_if_it_is_combined_with_other_values() -> None:
    with DAG("audits", schedule=None) as dag:
        paths = BaseOperator(task_id="paths").output
        ModelArtsAuditProcessorTasksOperator.partial(task_id="alone").expand(report_path=paths)
        ModelArtsAuditProcessorTasksOperator.partial(task_id="combined").expand(report_path=[X, Y], source=paths)
        ModelArtsAuditProcessorTasksOperator.partial(task_id="objects").expand_kwargs(paths)
    found = {
        task_id: own_path(X, X, "report_path", {"ti": TaskInstance(map_index=1, task_id=task_id), "dag": dag})
        for task_id in ("alone", "combined", "objects")
    }
    assert found == {"alone": X, "combined": "/tmp/x-1.html", "objects": X}


@pytest.mark.parametrize(
    ("path", "arguments"),
    [("/tmp/{{ ti.task_id }}.html", {}), ("/tmp/a.html", {"object_storage_conn_id": "other"}), (None, {})],
)
def test_two_audits_of_a_dag_that_write_to_different_files_are_accepted(
    path: str | None, arguments: dict[str, Any]
) -> None:
    with DAG("audits", schedule=None) as dag:
        ModelArtsAuditProcessorTasksOperator(task_id="one", report_path=path)
        ModelArtsAuditProcessorTasksOperator(task_id="two", report_path=path, **arguments)
    assert len(dag.tasks) == 2


def test_a_report_names_what_was_audited(requests_mock: Mocker, tmp_path: Path) -> None:
    serve(requests_mock, failed())
    filters = {"template_id": "sys_data_cleaning", "source_type": "DATASET", "source": "ds", "workspace_id": "7"}
    summary = run(report_path=str(tmp_path / "a.html"), **filters)
    content = json.loads((tmp_path / "a.json").read_text())
    for one in (summary, content):
        assert (one["project_id"], one["region"], one["filters"]) == (PROJECT_ID, None, filters)
        assert one["host"] == "modelarts.example.com"
        assert "map_index" not in one
    assert (content["dag_id"], content["run_id"]) == ("adhoc_airflow", "scheduled__2026")
    assert ObjectStoragePath(summary["report_path"]).exists()
