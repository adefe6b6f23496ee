"""What a processing task reads and writes, for OpenLineage; nothing of that loads unless its provider is installed.

Places in OBS are named as the OpenLineage naming of object stores has it: namespace ``obs://{bucket}``, name the key.
What only ModelArts knows has the namespace ``modelarts`` and the name ``dataset/{dataset_id}`` or
``processor-task/{task_id}``. A dataset's version is the standard facet ``version``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_modelarts.assets import data_sources, output_uri, typed_uri

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Asset
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import RunFacet

    from airflow_modelarts.api.models import ProcessorDataSource, ProcessorTask, ProcessorTaskVersion

NAMESPACE = "modelarts"


class ProcessorTaskLineage:
    """For operators with a processing task: what OpenLineage's listener asks an operator, without any call or wait."""

    #: The processing task, as soon as the operator has read it.
    _processor_task: ProcessorTask | None = None
    #: Its version, for a task that has versions.
    _task_version: ProcessorTaskVersion | None = None

    def _lineage_body(self) -> Mapping[str, Any] | None:
        """Return the body of an operator that creates its task: what is known of that before there is one."""
        return None

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return what is known before the start."""
        return self._lineage()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return what the processing task read and wrote, and its id."""
        return self._lineage()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return the same with the service's ``error_msg``, which OpenLineage keeps unless Airflow has an error."""
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
        """Return what tells of the task, the best first; each may lack what the next one has."""
        found = (self._task_version, self._processor_task, _described(self._lineage_body()))
        return [source for source in found if source]

    def _lineage_inputs(self) -> list[Dataset]:
        told = [(data_sources(source), getattr(source, "version_id", None)) for source in self._lineage_sources()]
        sources = next((found for found, _ in told if found), [])
        # With a single input, the dataset's version can stand beside it, which it never does in a task's version.
        versions = (version for found, version in told if version and len(sources) == 1 and _same(found, sources))
        version = next(versions, None)
        named = (_input(source, version) for source in sources)
        return list({(each.namespace, each.name): each for each in named if each}.values())

    def _lineage_outputs(self) -> list[Dataset]:
        outputs = (_output(told) for told in self._lineage_sources())
        output = next((each for each in outputs if each), None)
        if output and (task_id := self._lineage_task_id()):
            output.facets = {**(output.facets or {}), "symlinks": _other_name(task_id)}
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
    """Name an asset of the scheme ``obs`` for OpenLineage, as its provider asks; the URI is a sanitized one."""
    return _place(asset.uri)


def _described(body: Mapping[str, Any] | None) -> ProcessorTask | None:
    """Read the body of a task to be created as if it were there; one that the service would refuse tells nothing."""
    from airflow_modelarts.api.models import ProcessorTask

    try:
        return ProcessorTask.model_validate({**body, "task_id": ""}) if body else None
    except ValueError:
        return None


def _same(some: list[ProcessorDataSource], others: list[ProcessorDataSource]) -> bool:
    return [(one.type, one.source) for one in some] == [(one.type, one.source) for one in others]


def _input(source: ProcessorDataSource, version: str | None) -> Dataset | None:
    match source.type, source.source:
        case "DATASET", str(dataset_id):
            return _dataset(dataset_id, source.version_id or source.version_name or version)
        case "TASK", str(task_id):
            return _named(f"processor-task/{task_id}")
        case kind, place if uri := typed_uri(kind, place):
            return _place(uri)
    return None


def _output(told: ProcessorTask | ProcessorTaskVersion) -> Dataset | None:
    if uri := output_uri(told):
        return _place(uri)
    work_path = told.work_path
    if work_path and work_path.type == "DATASET" and work_path.path:
        return _dataset(work_path.path, work_path.version_id or work_path.version_name)
    return None


def _place(uri: str) -> Dataset:
    from openlineage.client.event_v2 import Dataset

    parts = urlsplit(uri)
    return Dataset(namespace=f"{parts.scheme}://{parts.netloc}", name=unquote(parts.path).strip("/") or "/")


def _dataset(dataset_id: str, version: str | None) -> Dataset:
    from openlineage.client.facet_v2 import dataset_version_dataset

    dataset = _named(f"dataset/{dataset_id}")
    if version:
        dataset.facets = {"version": dataset_version_dataset.DatasetVersionDatasetFacet(version)}
    return dataset


def _named(name: str) -> Dataset:
    from openlineage.client.event_v2 import Dataset

    return Dataset(namespace=NAMESPACE, name=name)


def _other_name(task_id: str) -> Any:
    """Name an output by its task too: so does a task that has it for an input of type ``TASK``."""
    from openlineage.client.facet_v2 import symlinks_dataset

    name = symlinks_dataset.Identifier(namespace=NAMESPACE, name=f"processor-task/{task_id}", type="PROCESSOR_TASK")
    return symlinks_dataset.SymlinksDatasetFacet([name])


def _error_message(text: str) -> RunFacet:
    from openlineage.client.facet_v2 import error_message_run

    from airflow_modelarts.api.redaction import without_signed_links

    return error_message_run.ErrorMessageRunFacet(without_signed_links(text), programmingLanguage="python")
