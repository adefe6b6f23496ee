"""The datasets and facets of OpenLineage for processing tasks.

Places in OBS follow OpenLineage's naming of object stores: the namespace is ``obs://{bucket}``, the name is the key.
Datasets and tasks have the namespace ``modelarts`` and the name ``dataset/{dataset_id}`` or
``processor-task/{task_id}``. A dataset's version is the standard facet ``version``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import RunFacet

    from airflow_modelarts.api.models import ProcessorDataSource, ProcessorTask, ProcessorTaskVersion

NAMESPACE = "modelarts"


def parse_body(body: Mapping[str, Any] | None) -> ProcessorTask | None:
    """Parse the request body of a create as the task itself; None for a body that the service would reject."""
    from airflow_modelarts.api.models import ProcessorTask

    try:
        return ProcessorTask.model_validate({**body, "task_id": ""}) if body else None
    except ValueError:
        return None


def is_same(some: list[ProcessorDataSource], others: list[ProcessorDataSource]) -> bool:
    """Whether both lists have the same sources."""
    return [(one.type, one.source) for one in some] == [(one.type, one.source) for one in others]


def input_dataset(source: ProcessorDataSource, version: str | None) -> Dataset | None:
    """Return the dataset of an input; None if nothing is known of its place."""
    from airflow_modelarts.api.places import typed_uri

    match source.type, source.source:
        case "DATASET", str(dataset_id):
            return _dataset(dataset_id, source.version_id or source.version_name or version)
        case "TASK", str(task_id):
            return _named(f"processor-task/{task_id}")
        case kind, place if uri := typed_uri(kind, place):
            return place_dataset(uri)
    return None


def output_dataset(source: ProcessorTask | ProcessorTaskVersion) -> Dataset | None:
    """Return the dataset that a task or version writes; None if nothing is known of its place."""
    from airflow_modelarts.api.places import output_uri

    if uri := output_uri(source):
        return place_dataset(uri)
    work_path = source.work_path
    if work_path and work_path.type == "DATASET" and work_path.path:
        return _dataset(work_path.path, work_path.version_id or work_path.version_name)
    return None


def place_dataset(uri: str) -> Dataset:
    """Return the dataset of a place in an object store."""
    parts = urlsplit(uri)
    return _named(unquote(parts.path).strip("/") or "/", f"{parts.scheme}://{parts.netloc}")


def _dataset(dataset_id: str, version: str | None) -> Dataset:
    from openlineage.client.facet_v2 import dataset_version_dataset

    dataset = _named(f"dataset/{dataset_id}")
    if version:
        dataset.facets = {"version": dataset_version_dataset.DatasetVersionDatasetFacet(version)}
    return dataset


def _named(name: str, namespace: str = NAMESPACE) -> Dataset:
    from openlineage.client.event_v2 import Dataset

    return Dataset(namespace=namespace, name=name)


def symlink(task_id: str) -> Any:
    """Return the second name of an output: a task that reads it as an input of type ``TASK`` names it by its task."""
    from openlineage.client.facet_v2 import symlinks_dataset

    name = symlinks_dataset.Identifier(namespace=NAMESPACE, name=f"processor-task/{task_id}", type="PROCESSOR_TASK")
    return symlinks_dataset.SymlinksDatasetFacet([name])


def error_message(text: str) -> RunFacet:
    """Return the facet of an error, without signed links."""
    from openlineage.client.facet_v2 import error_message_run

    from airflow_modelarts.api.redaction import without_signed_links

    return error_message_run.ErrorMessageRunFacet(without_signed_links(text), programmingLanguage="python")
