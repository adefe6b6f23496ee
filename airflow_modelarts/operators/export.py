"""The operator that writes the per-sample results of a version to a file."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Any, ClassVar

from airflow_modelarts.api.arguments import ArgumentError, check_optional_text, check_path, check_text, read_flag
from airflow_modelarts.api.errors import ModelArtsRequestError
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, status_name
from airflow_modelarts.operators.base import ModelArtsOperator
from airflow_modelarts.operators.files import atomic_write, clean_up_partials, refuse_folder, resolve_path

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_modelarts.api.models import ProcessorTaskVersion, SampleResult
    from airflow_modelarts.api.operations import ListOperation
    from airflow_modelarts.hooks import ModelArtsHook

#: The names of ``result_property`` 0 to 3.
PROPERTIES: dict[int | None, str] = dict(enumerate(("reserved", "modified", "deleted", "added")))


class ModelArtsExportProcessorTaskResultsOperator(ModelArtsOperator):
    """Writes the per-sample results of a version of a processing task to a file (ListProcessorTaskVersionResults).

    The file is JSON Lines in UTF-8, one line a sample under the API's field names, compressed if its name ends in
    ``.gz``. It holds no download links unless ``signed_links`` is set. Memory grows by about a hundred bytes a sample,
    by which repeated samples are recognized.

    The file appears under its name when it is complete, and replaces an earlier one atomically. Until then it is a
    hidden file beside it, ``.name.part-…``. On a file system that is renamed; in an object store it is copied and
    deleted, which the connection must permit. The next try removes what a killed try left. An unfinished multipart
    upload stays; clean it up with a lifecycle rule of the bucket.

    Its XCom is ``{"task_id": …, "task_version_id": …, "path": …, "count": 3, "by_property": {"reserved": 2, …}}``;
    ``ObjectStoragePath`` opens the path, connection included.

    :param processor_task_id: the processing task's id (templated).
    :param path: the file, for example ``s3://bucket/{{ ds }}.jsonl.gz`` or ``/data/{{ run_id }}.jsonl`` (templated);
        the provider of the object store must be installed.
    :param task_version_id: the version's id (templated); default the newest one.
    :param object_storage_conn_id: the Airflow connection of the object store (templated); default the path's.
    :param result_property: only samples that were reserved (0), modified (1), deleted (2) or added (3); default all.
    :param signed_links: write the download links too. They are credentials: until they expire, anyone who reads the
        file can download the samples.
    :param process_parameter: an OBS image operation for the download links, for example a resize.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :raises ValueError: the path names no file.
    :raises ModelArtsRequestError: the task has no versions, as a feature analysis, or the version has not ended.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    argument_checks: ClassVar = {
        **ModelArtsOperator.argument_checks,
        "processor_task_id": check_text,
        "task_version_id": check_optional_text,
        "path": check_path,
        **dict.fromkeys(("object_storage_conn_id", "process_parameter"), check_optional_text),
        "result_property": lambda name, given: _check_property(name, given),
        "signed_links": read_flag,
    }
    template_fields: Sequence[str] = (
        *("processor_task_id", "task_version_id", "path", "object_storage_conn_id"),
        *ModelArtsOperator.template_fields,
    )

    def __init__(
        self,
        *,
        processor_task_id: str,
        path: str | ObjectStoragePath,
        task_version_id: str | None = None,
        object_storage_conn_id: str | None = None,
        result_property: int | None = None,
        signed_links: bool = False,
        process_parameter: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_arguments(
            processor_task_id=processor_task_id,
            task_version_id=task_version_id,
            path=path,
            object_storage_conn_id=object_storage_conn_id,
            result_property=result_property,
            signed_links=signed_links,
            process_parameter=process_parameter,
        )
        self.processor_task_id = processor_task_id
        self.path = path
        self.task_version_id = task_version_id
        self.object_storage_conn_id = object_storage_conn_id
        self.result_property = result_property
        self.signed_links = signed_links
        self.process_parameter = process_parameter

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the file and return a summary of it."""
        from airflow_modelarts.filesystem import path_with_connection

        self._prepare_fields()
        path = self._open_path()
        with self._open_hook() as hook:
            version = self._find_version(hook)
            results = self._results(version)
            part = clean_up_partials(path, context["ti"])
            with atomic_write(path, part) as raw, _compressed(raw, path) as file:
                counted = self._write(file, hook.iterate(results))
            expected = hook.call(replace(results, limit=1).page(0)).count
        count = counted.total()
        if expected not in (None, count):
            self.log.warning("The service reports a count of %s samples and listed %s.", expected, count)
        self.log.info("Wrote %s samples of version '%s' to %s.", count, version.task_version_id, path)
        return {
            "task_id": self.processor_task_id,
            "task_version_id": version.task_version_id,
            "path": path_with_connection(path),
            "count": count,
            "by_property": dict(counted),
        }

    def _open_path(self) -> ObjectStoragePath:
        path = resolve_path(self.path, self.object_storage_conn_id)
        refuse_folder("path", str(self.path), path)
        return path

    def _find_version(self, hook: ModelArtsHook) -> ProcessorTaskVersion:
        from airflow_modelarts.api import procedures

        if self.task_version_id is not None:
            version = hook.describe_processor_task_version(self.processor_task_id, self.task_version_id)
        else:
            newest = hook.run(procedures.newest_version(self.processor_task_id, hook.retries))
            if newest is None:
                raise ModelArtsRequestError(
                    f"Processing task '{self.processor_task_id}' has no versions, as every feature analysis, and so no "
                    "per-sample results: read its result with ModelArtsDescribeProcessorTaskOperator"
                )
            version = newest
        if version.status not in TERMINAL_STATUSES:
            raise ModelArtsRequestError(
                f"Version '{version.task_version_id}' of processing task '{self.processor_task_id}' has not ended, and "
                f"its results are not complete: it is {status_name(version.status)}. Wait for it first"
            )
        return version

    def _results(self, version: ProcessorTaskVersion) -> ListOperation[SampleResult]:
        from airflow_modelarts.api import operations

        results = operations.list_processor_task_version_results(
            self.processor_task_id,
            self.task_version_id or version.task_version_id or "",
            result_property=self.result_property,
            process_parameter=self.process_parameter,
            signed_links=self.signed_links,
        )
        # An identity names two places, and those of all samples are in memory until the end.
        return replace(
            results, identify=lambda one: blake2b(repr(results.identify(one)).encode(), digest_size=16).digest()
        )

    def _write(self, file: IO[bytes], results: Iterator[SampleResult]) -> Counter[str]:
        counted: Counter[str] = Counter()
        for result in results:
            sample = result.model_dump(exclude_unset=True)  # without the links, unless signed_links is set
            file.write(json.dumps(sample, ensure_ascii=False).encode() + b"\n")
            number = result.result_property
            counted[PROPERTIES.get(number, f"unknown ({number})")] += 1
        return counted


def _check_property(name: str, given: Any) -> None:
    if isinstance(given, bool) or not (given is None or (isinstance(given, int) and given in PROPERTIES)):
        named = ", ".join(f"{number} ({text})" for number, text in PROPERTIES.items())
        raise ArgumentError(f"{name} is {given!r}: give one of {named}, or leave it out for all")


def _compressed(file: IO[bytes], path: ObjectStoragePath) -> AbstractContextManager[IO[bytes]]:
    if not path.name.endswith(".gz"):
        return nullcontext(file)
    # Without a name and a time in the header, equal results make equal files.
    return gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0)  # type: ignore[return-value]  # binary as well
