"""The lineage of a processing task, in OpenLineage's own classes and through its own serializer."""

import builtins
import json
import subprocess
import sys
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset
from airflow.providers.openlineage.extractors import OperatorLineage
from airflow.providers.openlineage.extractors.base import DefaultExtractor
from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
from openlineage.client.serde import Serde

from airflow_modelarts import lineage
from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
from airflow_modelarts.lineage import ProcessorTaskLineage, convert_asset_to_openlineage

BODY = {
    "name": "V001",
    "template": {"id": "sys_data_cleaning"},
    "inputs": [{"type": "OBS", "source": "/bucket/in/图/"}, {"type": "TASK", "source": "before"}],
    "work_path": {"type": "OBS", "path": "s3://bucket/out/"},
}
INPUTS = [("obs://bucket", "in/图"), ("modelarts", "processor-task/before")]
OUTPUTS = [("obs://bucket", "out")]


class Operator(ProcessorTaskLineage):
    """Has what OpenLineage reads of an Airflow operator."""

    task_type = "Operator"

    def __init__(
        self, body: Any = None, task: dict[str, Any] | None = None, version: dict[str, Any] | None = None
    ) -> None:
        self.body = body
        if task is not None:
            self._processor_task = ProcessorTask.model_validate({"task_id": "abc", **task})
        if version is not None:
            self._task_version = ProcessorTaskVersion.model_validate(version)

    def _lineage_body(self) -> Any:
        return self.body


def extract(when: str, **known: Any) -> OperatorLineage[Any, Any]:
    """Return the lineage at the start, on complete or on failure, through OpenLineage's extractor."""
    extractor = DefaultExtractor(Operator(**known))
    found = extractor.extract() if when == "start" else getattr(extractor, f"extract_on_{when}")(None)
    assert found is not None
    return found


@pytest.mark.parametrize("scheme", ["obs", "s3", "s3a", "s3n", "S3A"])
def test_places_under_any_scheme_of_obs_have_lineage(scheme: str) -> None:
    place = f"{scheme}://bucket"
    body = {"inputs": [{"source": f"{place}/in/"}], "work_path": {"type": "OBS", "path": f"{place}/out/"}}
    found = extract("start", body=body)
    assert names(found.inputs) == [("obs://bucket", "in")]
    assert names(found.outputs) == [("obs://bucket", "out")]


def names(datasets: list[Any]) -> list[tuple[str, str]]:
    return [(dataset.namespace, dataset.name) for dataset in datasets]


def serialized(found: OperatorLineage[Any, Any]) -> dict[str, Any]:
    """Return the JSON of the event that OpenLineage would emit."""
    event = RunEvent(
        eventType=RunState.COMPLETE,
        eventTime="2026-01-01T00:00:00Z",
        run=Run(runId="0176a8c2-fe01-7439-87e6-56a1a1b4029f", facets=found.run_facets),
        job=Job(namespace="default", name="job", facets=found.job_facets),
        inputs=found.inputs,
        outputs=found.outputs,
    )
    parsed: dict[str, Any] = json.loads(Serde.to_json(event))
    return parsed


def facets(described: dict[str, Any]) -> dict[str, Any]:
    """Return facets without the two fields that every facet has."""
    return {
        name: {key: value for key, value in facet.items() if key not in ("_producer", "_schemaURL")}
        for name, facet in described.items()
    }


@pytest.mark.parametrize(
    ("when", "known"),
    [
        ("start", {"body": BODY}),
        ("complete", {"task": {"status": 2, **BODY}}),
        ("complete", {"body": BODY, "task": {"status": 2}}),
    ],
    ids=["of the body at the start", "of the task at the end", "of the body if the task lacks them"],
)
def test_there_are_inputs_and_outputs(when: str, known: dict[str, Any]) -> None:
    found = extract(when, **known)
    assert (names(found.inputs), names(found.outputs)) == (INPUTS, OUTPUTS)
    assert bool(found.run_facets) is (when == "complete")


def test_the_version_takes_precedence() -> None:
    version = {"inputs": [{"type": "OBS", "source": "/bucket/v"}], "work_path": {"type": "OBS", "path": "/bucket/w"}}
    found = extract("complete", body=BODY, task=BODY, version=version)
    assert (names(found.inputs), names(found.outputs)) == ([("obs://bucket", "v")], [("obs://bucket", "w")])


def test_datasets_are_named_by_id_and_have_their_version() -> None:
    found = extract(
        "complete",
        task={
            "inputs": [
                {"type": "DATASET", "source": "images", "version_id": "v7"},
                {"type": "DATASET", "source": "labels", "version_name": "V0010"},
                {"type": "DATASET", "source": "texts"},
            ],
            "work_path": {"type": "DATASET", "path": "images", "version_name": "V0011"},
        },
    )
    event = serialized(found)
    assert [(each["namespace"], each["name"], facets(each["facets"])) for each in event["inputs"]] == [
        ("modelarts", "dataset/images", {"version": {"datasetVersion": "v7"}}),
        ("modelarts", "dataset/labels", {"version": {"datasetVersion": "V0010"}}),
        ("modelarts", "dataset/texts", {}),
    ]
    (output,) = event["outputs"]
    assert (output["namespace"], output["name"]) == ("modelarts", "dataset/images")
    assert facets(output["facets"])["version"] == {"datasetVersion": "V0011"}


def test_the_version_field_belongs_to_a_single_dataset() -> None:
    found = extract("start", body={"data_source": {"type": "DATASET", "source": "images"}, "version_id": "v7"})
    assert found.inputs[0].facets["version"].datasetVersion == "v7"


@pytest.mark.parametrize("source", ["task", "body"])
def test_the_version_of_a_dataset_comes_from_the_task_or_the_body(source: str) -> None:
    images = {"inputs": [{"type": "DATASET", "source": "images"}]}
    known = {"task": images, "body": images, source: {**images, "version_id": "v7"}}
    found = extract("complete", version={"task_version_id": "v1", **images}, **known)
    assert found.inputs[0].facets["version"].datasetVersion == "v7"


def test_the_version_of_another_dataset_is_ignored() -> None:
    labels, images = ({"inputs": [{"type": "DATASET", "source": name}]} for name in ("labels", "images"))
    found = extract("complete", task={**labels, "version_id": "v7"}, version=images)
    assert [(each.name, each.facets) for each in found.inputs] == [("dataset/images", {})]


def test_the_version_field_is_ignored_with_several_datasets() -> None:
    sources = [{"type": "DATASET", "source": "images"}, {"type": "DATASET", "source": "labels"}]
    found = extract("start", body={"inputs": sources, "version_id": "v7"})
    assert [each.facets for each in found.inputs] == [{}, {}]


@pytest.mark.parametrize("body", [{"inputs": 7}, {"work_path": "{{ not yet }}"}, {}, None])
def test_an_invalid_or_empty_body_has_no_lineage(body: Any) -> None:
    found = extract("start", body=body)
    assert (found.inputs, found.outputs) == ([], [])


def test_inputs_without_a_name_are_left_out_and_duplicates_removed() -> None:
    found = extract(
        "start",
        body={
            "inputs": [
                {"type": "CUSTOM", "source": "0123456789abcdef0123456789abcdef"},
                {"type": "OBS", "source": "nowhere"},
                {"type": "DATASET"},
                {"type": "TASK"},
                {"type": "OBS", "source": "/bucket"},
                {"type": "OBS", "source": "obs://bucket/"},
            ],
            "data_source": {"type": "OBS", "source": "/ignored"},
            "work_path": {"type": "DATASET"},
        },
    )
    assert (names(found.inputs), names(found.outputs)) == ([("obs://bucket", "/")], [])


def test_the_run_is_linked_to_the_processing_task() -> None:
    run = serialized(extract("complete", task={}))["run"]
    assert facets(run["facets"]) == {"externalQuery": {"externalQueryId": "abc", "source": "modelarts"}}


def test_the_run_is_linked_to_the_version_if_there_is_one() -> None:
    run = serialized(extract("complete", task={}, version={"task_version_id": "v1"}))["run"]
    assert facets(run["facets"])["externalQuery"]["externalQueryId"] == "abc/v1"
    assert extract("complete", task={}, version={}).run_facets["externalQuery"].externalQueryId == "abc"


def test_a_version_without_its_task_links_to_both() -> None:
    found = extract("failure", version={"task_id": "abc", "task_version_id": "v1"})
    assert found.run_facets["externalQuery"].externalQueryId == "abc/v1"


def test_an_output_has_its_task_as_a_second_name() -> None:
    (output,) = serialized(extract("complete", task=BODY))["outputs"]
    name = {"namespace": "modelarts", "name": "processor-task/abc"}
    assert facets(output["facets"]) == {"symlinks": {"identifiers": [{**name, "type": "PROCESSOR_TASK"}]}}
    read = extract("start", body={"data_source": {"type": "TASK", "source": "abc"}})
    assert names(read.inputs) == [tuple(name.values())]


def test_a_failure_has_the_services_message_without_its_signed_links() -> None:
    message = "cannot read https://bucket.obs.example.com/a?AccessKeyId=AK&Signature=SIG"
    found = extract("failure", body=BODY, task={"status": 3, "error_msg": message})
    event = serialized(found)
    assert facets(event["run"]["facets"])["errorMessage"] == {
        "message": "cannot read https://bucket.obs.example.com/a",
        "programmingLanguage": "python",
    }
    assert names(found.inputs) == INPUTS
    assert "SIG" not in json.dumps(event)


@pytest.mark.parametrize("task", [None, {}, {"status": 4}])
def test_a_failure_without_error_msg_has_no_message(task: dict[str, Any] | None) -> None:
    assert "errorMessage" not in extract("failure", task=task).run_facets


def test_no_name_holds_a_signed_link() -> None:
    link = "obs://bucket/key?AccessKeyId=AK&Signature=SIG"
    body = {"inputs": [{"type": "OBS", "source": link}], "work_path": {"type": "OBS", "path": link}}
    assert "SIG" not in json.dumps(serialized(extract("complete", body=body, task=body)))


def test_an_asset_is_named_by_its_place() -> None:
    asset = Asset(uri="obs://bucket/out/%E5%9B%BE/")
    assert names([convert_asset_to_openlineage(asset, None)]) == [("obs://bucket", "out/图")]


def test_without_openlineages_provider_there_is_no_lineage(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def without_openlineage(name: str, *arguments: Any) -> Any:
        if "openlineage" in name:
            raise ImportError(name)
        return importing(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_openlineage)
    operator = Operator(body=BODY, task={"status": 3, "error_msg": "full"})
    assert operator.get_openlineage_facets_on_start() is None
    assert operator.get_openlineage_facets_on_complete(None) is None
    assert operator.get_openlineage_facets_on_failure(None) is None


def test_importing_it_loads_neither_openlineage_nor_pydantic() -> None:
    code = f"import {lineage.__name__}, sys; print([m for m in ('openlineage', 'pydantic') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
