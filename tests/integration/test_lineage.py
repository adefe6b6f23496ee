"""What a run emits in a real Airflow: asset events, links to the console, OpenLineage events."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox
from tests.integration.conftest import DAGS
from tests.support.waiting import TIMEOUT, wait_until

SIGNED = "https://lineage.obs.example.com/a.jpg?AccessKeyId=TEMPORARY&Signature=SIGNED"


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that OpenLineage appends its events to."""
    return tmp_path_factory.mktemp("lineage") / "events.json"


@pytest.fixture(scope="module")
def airflow_with_lineage(emulator: EmulatorServer, lineage: Path) -> Iterator[Sandbox]:
    """An Airflow of its own: with OpenLineage, and a connection with the URL of the console."""
    connection = json.loads(emulator.airflow_connection())
    connection["extra"]["console_url"] = "https://console.example.com/{project_id}/#/tasks/{processor_task_id}"
    transport = {"type": "file", "log_file_path": str(lineage), "append": True}
    with Sandbox(
        DAGS,
        only_file=DAGS / "lineage.py",
        connections={"modelarts_default": json.dumps(connection)},
        environment={
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
            # Seconds, after which it would give up on an event; a busy machine needs more than the default of 10.
            "AIRFLOW__OPENLINEAGE__EXECUTION_TIMEOUT": "120",
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",  # else no event would start a run
        },
    ) as running:
        running.wait_for_dags("lineage", "lineage_consumer", timeout=TIMEOUT)
        yield running


@pytest.fixture(scope="module")
def run(airflow_with_lineage: Sandbox, emulator: EmulatorServer) -> dict[str, str]:
    """A run that has ended: its id, and the ids of the processing tasks by Airflow task."""
    emulator.state.next_task(name="failing*", times=None, status=3, error_msg=f"cannot read {SIGNED}")
    described = emulator.state.add_task(
        status=2,
        body={
            "inputs": [{"type": "OBS", "source": "/lineage/raw/"}],
            "work_path": {"type": "OBS", "path": "/lineage/described/"},
        },
    )
    run_id = airflow_with_lineage.trigger("lineage", conf={"id": described.task_id})
    airflow_with_lineage.wait("lineage", run_id, timeout=600)
    created = {
        xcom.task_id: str(xcom.value)
        for xcom in airflow_with_lineage.xcoms("lineage", run_id)
        if xcom.key == "processor_task_id"
    }
    return {"run_id": run_id, "describe": described.task_id, **created}


def asset_events(sandbox: Sandbox, task_id: str) -> dict[str, dict[str, Any]]:
    """Return the extras of the asset events of a task, by the URI of the asset."""
    return {event.uri: event.extra for event in sandbox.api.asset_events() if event.source_task_id == task_id}


def lineage_events(lineage: Path, task_id: str, kind: str) -> list[dict[str, Any]]:
    """Return the events of a task. OpenLineage may emit them after the end of the run."""

    def read() -> list[dict[str, Any]]:
        *lines, _ = lineage.read_text().split("\n")  # the last line may be incomplete
        events = [json.loads(line) for line in lines]
        return [e for e in events if e["job"]["name"] == f"lineage.{task_id}" and e["eventType"] == kind]

    wait_until(read, f"the event {kind} of {task_id}")
    return read()


def names(datasets: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(dataset["namespace"], dataset["name"]) for dataset in datasets]


def test_the_outlets_receive_an_event_with_the_output(airflow_with_lineage: Sandbox, run: dict[str, str]) -> None:
    extras = asset_events(airflow_with_lineage, "describe")
    extra = extras["obs://lineage/described"]
    assert extras == {"obs://lineage/described": extra, "obs://lineage/elsewhere": {}, "training-images": extra}
    assert (extra["task_id"], extra["task_version_id"], extra["status"]) == (run["describe"], None, 2)
    assert extra["uri"] == "obs://lineage/described"


@pytest.mark.parametrize("way", ["worker", "triggerer"])
def test_an_alias_gets_the_output_of_the_version(airflow_with_lineage: Sandbox, run: dict[str, str], way: str) -> None:
    (version,) = [
        xcom.value
        for xcom in airflow_with_lineage.xcoms("lineage", run["run_id"])
        if (xcom.task_id, xcom.key) == (f"created_{way}", "version")
    ]
    uri = f"obs://lineage/created/{way}"
    ((found, extra),) = asset_events(airflow_with_lineage, f"created_{way}").items()
    assert found == extra["uri"] == uri
    assert (extra["task_id"], extra["task_version_id"]) == (run[f"created_{way}"], version["task_version_id"])
    assert (extra["status"], extra["modelarts_conn_id"]) == (2, "modelarts_default")


def test_the_event_of_an_alias_starts_a_dag_that_reads_it(airflow_with_lineage: Sandbox, run: dict[str, str]) -> None:
    wait_until(lambda: airflow_with_lineage.api.runs("lineage_consumer"), "the run that the event starts")
    run_id = airflow_with_lineage.api.runs("lineage_consumer")[0]
    assert airflow_with_lineage.wait("lineage_consumer", run_id, timeout=600) == "success"
    (xcom,) = [x for x in airflow_with_lineage.xcoms("lineage_consumer", run_id) if x.key == "return_value"]
    # Airflow 3 delivers the event of an alias twice: by the alias and by the asset.
    assert {event["task_id"] for event in xcom.value} == {run["created_worker"]}


def test_a_link_leads_to_console(airflow_with_lineage: Sandbox, run: dict[str, str], emulator: EmulatorServer) -> None:
    links = {
        task_id: airflow_with_lineage.api.extra_links("lineage", run["run_id"], task_id)["ModelArts console"]
        for task_id in run
        if task_id != "run_id"
    }
    project_id = json.loads(emulator.airflow_connection())["extra"]["project_id"]
    console = f"https://console.example.com/{project_id}/#/tasks"
    assert links == {task_id: f"{console}/{id_}" for task_id, id_ in run.items() if task_id != "run_id"}


@pytest.mark.parametrize("way", ["worker", "triggerer"])
def test_openlineage_gets_inputs_and_outputs_at_the_start(run: dict[str, str], lineage: Path, way: str) -> None:
    started = lineage_events(lineage, f"created_{way}", "START")
    assert started
    for event in started:
        assert names(event["inputs"]) == [("obs://lineage", "in"), ("modelarts", "dataset/images")]
        assert names(event["outputs"]) == [("obs://lineage", f"created/{way}")]
        assert event["inputs"][1]["facets"]["version"]["datasetVersion"] == "v7"


@pytest.mark.parametrize("way", ["worker", "triggerer"])
def test_openlineage_gets_the_id_of_the_processing_task(run: dict[str, str], lineage: Path, way: str) -> None:
    (event,) = lineage_events(lineage, f"created_{way}", "COMPLETE")
    link = event["run"]["facets"]["externalQuery"]
    assert link["source"] == "modelarts"
    assert link["externalQueryId"].startswith(f"{run[f'created_{way}']}/")
    assert names(event["inputs"]) == [("obs://lineage", "in"), ("modelarts", "dataset/images")]
    (output,) = event["outputs"]
    assert (output["namespace"], output["name"]) == ("obs://lineage", f"created/{way}")
    (alias,) = output["facets"]["symlinks"]["identifiers"]
    assert alias["name"] == f"processor-task/{run[f'created_{way}']}"


def test_openlineage_gets_the_inputs_and_outputs_of_a_described_task(run: dict[str, str], lineage: Path) -> None:
    (event,) = lineage_events(lineage, "describe", "COMPLETE")
    assert names(event["inputs"]) == [("obs://lineage", "raw")]
    assert names(event["outputs"]) == [("obs://lineage", "described")]
    assert event["run"]["facets"]["externalQuery"]["externalQueryId"] == run["describe"]


@pytest.mark.parametrize("way", ["worker", "triggerer"])
def test_openlineage_gets_the_reason_of_a_failure(run: dict[str, str], lineage: Path, way: str) -> None:
    (event,) = lineage_events(lineage, f"failing_{way}", "FAIL")
    assert "cannot read https://lineage.obs.example.com/a.jpg" in event["run"]["facets"]["errorMessage"]["message"]
    assert event["run"]["facets"]["externalQuery"]["externalQueryId"] == run[f"failing_{way}"]
    assert names(event["inputs"]) == [("obs://lineage", "in"), ("modelarts", "dataset/images")]


def test_no_credential_is_emitted(
    airflow_with_lineage: Sandbox, run: dict[str, str], lineage: Path, emulator: EmulatorServer
) -> None:
    """Lineage, XComs, asset events and logs contain neither the key nor a signed link."""
    home = airflow_with_lineage.home
    places = [lineage, *home.glob("airflow.db*"), *home.glob("logs/**/*.log")]
    left = b"".join(place.read_bytes() for place in places)
    assert run["failing_worker"].encode() in left
    assert json.loads(emulator.airflow_connection())["password"].encode() not in left
    assert b"TEMPORARY" not in left
