"""What OpenLineage's listener calls of an operator. Without OpenLineage's provider, nothing of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Asset
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import RunFacet

    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion


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
            from airflow_modelarts.lineage_datasets import error_message

            lineage.run_facets["errorMessage"] = error_message(self._processor_task.error_msg)
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
        from airflow_modelarts.lineage_datasets import parse_body

        found = (self._task_version, self._processor_task, parse_body(self._lineage_body()))
        return [source for source in found if source]

    def _lineage_inputs(self) -> list[Dataset]:
        from airflow_modelarts.api.places import data_sources
        from airflow_modelarts.lineage_datasets import input_dataset, is_same

        described = [(data_sources(one), getattr(one, "version_id", None)) for one in self._lineage_sources()]
        sources = next((inputs for inputs, _ in described if inputs), [])
        # A task with a single input has the dataset's version in a field beside it; a task's version has no such field.
        versions = (version for inputs, version in described if len(sources) == 1 and is_same(inputs, sources))
        version = next(filter(None, versions), None)
        datasets = (input_dataset(source, version) for source in sources)
        return list({(each.namespace, each.name): each for each in datasets if each}.values())

    def _lineage_outputs(self) -> list[Dataset]:
        from airflow_modelarts.lineage_datasets import output_dataset, symlink

        outputs = (output_dataset(source) for source in self._lineage_sources())
        output = next((each for each in outputs if each), None)
        if output and (task_id := self._lineage_task_id()):
            output.facets = {**(output.facets or {}), "symlinks": symlink(task_id)}
        return [output] if output else []

    def _lineage_run_facets(self) -> dict[str, RunFacet]:
        from openlineage.client.facet_v2 import external_query_run

        from airflow_modelarts.lineage_datasets import NAMESPACE

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
    from airflow_modelarts.lineage_datasets import place_dataset

    return place_dataset(asset.uri)
