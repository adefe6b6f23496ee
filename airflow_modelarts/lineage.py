"""The inputs and outputs of a processing task for OpenLineage. Without OpenLineage's provider, nothing of it is loaded.

Places in OBS follow OpenLineage's naming of object stores: the namespace is ``obs://{bucket}``, the name is the key.
Datasets and tasks have the namespace ``modelarts`` and the name ``dataset/{dataset_id}`` or
``processor-task/{task_id}``. A dataset's version is the standard facet ``version``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Asset
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import RunFacet

    from airflow_modelarts.api.models import ProcessorDataSource, ProcessorTask, ProcessorTaskVersion

NAMESPACE = "modelarts"


class ProcessorTaskLineage:
    """The methods that OpenLineage's listener calls on an operator with a processing task. They send no request."""

    #: The processing task; None until the operator has read it.
    _processor_task: ProcessorTask | None = None
    #: The task's version; None for a task without versions.
    _task_version: ProcessorTaskVersion | None = None

    def _lineage_body(self) -> Mapping[str, Any] | None:
        """Return the request body of an operator that creates its task; it describes the task before that exists."""
        return None

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return the inputs and outputs that are known before the start."""
        return self._lineage()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return the processing task's inputs, outputs and id."""
        return self._lineage()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return the same with the service's ``error_msg``; OpenLineage prefers the error of Airflow, if any."""
        lineage = self._lineage()
        if lineage and self._processor_task and self._processor_task.error_msg:
            lineage.run_facets["errorMessage"] = _error_message(self._processor_task.error_msg)
        return lineage

    def _lineage(self) -> OperatorLineage[Any, Any] | None:
        try:
            from airflow.providers.openlineage.extractors import OperatorLineage
        except ImportError:
            return None
        return OperatorLineage(
            inputs=self._lineage_inputs(), outputs=self._lineage_outputs(), run_facets=self._lineage_run_facets()
        )

    def _lineage_sources(self) -> list[ProcessorTask | ProcessorTaskVersion]:
        """Return the descriptions of the task, the most specific first; each may lack fields that the next one has."""
        found = (self._task_version, self._processor_task, _parse_body(self._lineage_body()))
        return [source for source in found if source]

    def _lineage_inputs(self) -> list[Dataset]:
        from airflow_modelarts.api.places import data_sources

        described = [(data_sources(one), getattr(one, "version_id", None)) for one in self._lineage_sources()]
        sources = next((inputs for inputs, _ in described if inputs), [])
        # A task with a single input has the dataset's version in a field beside it; a task's version has no such field.
        versions = (version for inputs, version in described if len(sources) == 1 and _same(inputs, sources))
        version = next(filter(None, versions), None)
        datasets = (_input(source, version) for source in sources)
        return list({(each.namespace, each.name): each for each in datasets if each}.values())

    def _lineage_outputs(self) -> list[Dataset]:
        outputs = (_output(source) for source in self._lineage_sources())
        output = next((each for each in outputs if each), None)
        if output and (task_id := self._lineage_task_id()):
            output.facets = {**(output.facets or {}), "symlinks": _symlink(task_id)}
        return [output] if output else []

    def _lineage_run_facets(self) -> dict[str, RunFacet]:
        from openlineage.client.facet_v2 import external_query_run

        ids = [self._lineage_task_id(), self._task_version.task_version_id if self._task_version else None]
        if not ids[0]:
            return {}
        linked = "/".join(name for name in ids if name)
        return {"externalQuery": external_query_run.ExternalQueryRunFacet(linked, source=NAMESPACE)}

    def _lineage_task_id(self) -> str | None:
        task = self._processor_task or self._task_version
        return task.task_id if task else None


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset:
    """Convert an asset of the scheme ``obs``, whose URI is sanitized; OpenLineage's provider calls this."""
    return _place(asset.uri)


def _parse_body(body: Mapping[str, Any] | None) -> ProcessorTask | None:
    """Parse the request body of a create as the task itself; None for a body that the service would reject."""
    from airflow_modelarts.api.models import ProcessorTask

    try:
        return ProcessorTask.model_validate({**body, "task_id": ""}) if body else None
    except ValueError:
        return None


def _same(some: list[ProcessorDataSource], others: list[ProcessorDataSource]) -> bool:
    return [(one.type, one.source) for one in some] == [(one.type, one.source) for one in others]


def _input(source: ProcessorDataSource, version: str | None) -> Dataset | None:
    from airflow_modelarts.api.places import typed_uri

    match source.type, source.source:
        case "DATASET", str(dataset_id):
            return _dataset(dataset_id, source.version_id or source.version_name or version)
        case "TASK", str(task_id):
            return _named(f"processor-task/{task_id}")
        case kind, place if uri := typed_uri(kind, place):
            return _place(uri)
    return None


def _output(source: ProcessorTask | ProcessorTaskVersion) -> Dataset | None:
    from airflow_modelarts.api.places import output_uri

    if uri := output_uri(source):
        return _place(uri)
    work_path = source.work_path
    if work_path and work_path.type == "DATASET" and work_path.path:
        return _dataset(work_path.path, work_path.version_id or work_path.version_name)
    return None


def _place(uri: str) -> Dataset:
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


def _symlink(task_id: str) -> Any:
    """Return the second name of an output: a task that reads it as an input of type ``TASK`` names it by its task."""
    from openlineage.client.facet_v2 import symlinks_dataset

    name = symlinks_dataset.Identifier(namespace=NAMESPACE, name=f"processor-task/{task_id}", type="PROCESSOR_TASK")
    return symlinks_dataset.SymlinksDatasetFacet([name])


def _error_message(text: str) -> RunFacet:
    from openlineage.client.facet_v2 import error_message_run

    from airflow_modelarts.api.redaction import without_signed_links

    return error_message_run.ErrorMessageRunFacet(without_signed_links(text), programmingLanguage="python")
