"""The argument ``output_files_to_xcom``: small files that a completed processing task wrote, as an XCom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_modelarts.api.arguments import ArgumentError, check_optional_text, check_text, is_reference, is_template
from airflow_modelarts.operators.base import TaskResultMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion

#: The XCom.
OUTPUT_FILES = "output_files"
#: Files that are read, at most.
MAX_FILES = 20
#: Bytes of all files that are read, together. An XCom is a row in Airflow's database.
MAX_BYTES = 256 * 1024
#: Objects below the work path that are looked at, at most.
MAX_LISTED = 20_000
#: The content of a file that was left out is an object with this member, which says why.
LEFT_OUT = "left_out"
#: Files that were left out and are named; the others are counted under the name ``…``.
MAX_NAMED = 50
OTHERS = "…"


def check_patterns(name: str, given: Any) -> None:
    """Check patterns of file names: a text or a list of texts, or what another task gives.

    :raises ArgumentError: one cannot match a file below the work path.
    """
    if is_reference(given):
        return
    if not isinstance(given, list | tuple | set | frozenset):
        check_optional_text(name, given)
        if isinstance(given, str) and not given.lstrip().startswith("["):  # the text of a list is read later
            _check_pattern(name, given)
        return
    if not given:
        raise ArgumentError(f"{name} is {given!r}, an empty list: leave it out to read no file")
    for one in given:
        check_text(f"an item of {name}", one)
        _check_pattern(f"an item of {name}", one)


def _check_pattern(name: str, given: Any) -> None:
    pattern = str(given)
    if is_template(given) or is_reference(given):
        return
    if not pattern.strip():
        raise ArgumentError(f"{name} is {given!r}: give a pattern such as '*.json'")
    if pattern.startswith("/") or "://" in pattern or ".." in pattern.split("/"):
        raise ArgumentError(f"{name} is {given!r}: give a pattern relative to the work path, such as '*.json'")


class OutputFilesMixin(TaskResultMixin):
    """An operator that can push small files that the processing task wrote as the XCom ``output_files``.

    :param output_files_to_xcom: a pattern or a list of patterns of file names relative to the work path, for example
        ``["*.json"]`` (templated); default none. ``*`` matches ``/`` too.
    """

    argument_checks: ClassVar = {"output_files_to_xcom": check_patterns}

    def __init__(self, *, output_files_to_xcom: str | Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_arguments(output_files_to_xcom=output_files_to_xcom)
        self.output_files_to_xcom = output_files_to_xcom

    @property
    def _retry_repeats_task(self) -> bool:
        """Whether a retry of the Airflow task would run the processing task again."""
        return False

    def _prepare_fields(self) -> None:
        """Prepare the fields, and find out that s3fs is missing before anything is submitted."""
        super()._prepare_fields()
        for pattern in self._patterns():
            _check_pattern("output_files_to_xcom", pattern)
        if self._patterns():
            from airflow_modelarts.filesystem import get_fs

            get_fs(self.modelarts_conn_id)

    def _patterns(self) -> list[str]:
        given = self.output_files_to_xcom
        return [] if given is None else [given] if isinstance(given, str) else [*given]

    def _publish(
        self, context: Context, task: ProcessorTask, version: ProcessorTaskVersion | None = None
    ) -> dict[str, Any]:
        """Push the XComs of the task, then that of its files: an empty object if none were asked for."""
        published = super()._publish(context, task, version)
        if self.do_xcom_push:
            files = self._read_output_files(task, version) if self._patterns() else {}
            context["ti"].xcom_push(key=OUTPUT_FILES, value=files)
        return published

    def _read_output_files(self, task: ProcessorTask, version: ProcessorTaskVersion | None) -> dict[str, Any]:
        from airflow_modelarts.api.statuses import ProcessorTaskStatus
        from airflow_modelarts.filesystem import path_of_output

        if (version or task).status != ProcessorTaskStatus.COMPLETED:
            self.log.warning("No output file is read: processing task '%s' has not completed.", task.task_id)
            return {}
        files = _Files()
        try:
            folder = path_of_output(version if version and version.work_path else task, self.modelarts_conn_id)
            for name, key, size in _find(folder, self._patterns(), files):
                files.add(folder, name, key, size)
        except ArgumentError as error:
            files.leave_out(OTHERS, str(error))
        except Exception as error:
            if not self._retry_repeats_task:
                raise
            from airflow.providers.common.compat.sdk import AirflowFailException

            # The processing task has completed, and a retry would pay for another one.
            raise AirflowFailException(f"The output files cannot be read: {error}") from error
        self.log.info("%s output files are in the XCom '%s': %s", len(files.content), OUTPUT_FILES, [*files.content])
        for name, reason in files.left_out.items():
            self.log.warning("Output file '%s' is left out: %s.", name, reason)
        if not (pushed := files.as_xcom()):
            self.log.warning("No file below the work path matches %s.", self._patterns())
        return pushed


class _Files:
    """The files that were read, and why others were not."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}
        self._bytes = 0
        self._unnamed = 0

    def add(self, folder: ObjectStoragePath, name: str, key: str, size: int) -> None:
        """Read a file, unless a limit leaves it out."""
        if len(self.content) >= MAX_FILES:
            self.leave_out(name, f"{MAX_FILES} files have been read, which is the limit")
        elif self._bytes + size > MAX_BYTES:
            self.leave_out(name, f"it has {size:,} bytes, and the limit is {MAX_BYTES:,} for all files together")
        else:
            body: bytes = folder.fs.cat_file(key, start=0, end=size) if size else b""
            self._bytes += size
            try:
                self.content[name] = _parse(name, body)
            except UnicodeDecodeError:
                self.leave_out(name, "it is not text in UTF-8")

    def leave_out(self, name: str, reason: str) -> None:
        """Note a file that is not read."""
        if len(self.left_out) < MAX_NAMED or name == OTHERS:
            self.left_out[name] = reason
        else:
            self._unnamed += 1
            self.left_out[OTHERS] = f"{self._unnamed} more files match, and a limit is reached"

    def as_xcom(self) -> dict[str, Any]:
        """Return content and reasons by name."""
        return {**self.content, **{name: {LEFT_OUT: reason} for name, reason in self.left_out.items()}}


def _find(folder: ObjectStoragePath, patterns: Sequence[str], files: _Files) -> Iterator[tuple[str, str, int]]:
    """Yield relative name, key with its bucket, and size of the objects that match, in the order of their names."""
    bucket, _, key = folder.path.lstrip("/").partition("/")
    prefix = f"{key}/" if key else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    listed = 0
    while True:
        page = folder.fs.call_s3("list_objects_v2", **request)
        for found in page.get("Contents", []):
            name = found["Key"].removeprefix(prefix)
            if name and not name.endswith("/") and any(fnmatchcase(name, pattern) for pattern in patterns):
                yield name, f"{bucket}/{found['Key']}", found["Size"]
        listed += len(page.get("Contents", []))
        if not page.get("IsTruncated"):
            return
        if listed >= MAX_LISTED:
            files.leave_out(OTHERS, f"only the first {listed:,} files below the work path were looked at")
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _parse(name: str, body: bytes) -> Any:
    """Return JSON of a file that is named so, text of any other; signed links are shortened to their address."""
    from airflow_modelarts.api.json_reading import read_json, repaired, without_byte_order_mark
    from airflow_modelarts.api.redaction import without_signed_links

    text = without_byte_order_mark(body).decode()
    value: Any = text
    if name.lower().endswith(".json"):
        try:
            value = read_json(repaired(body, 1))
        except (ValueError, RecursionError):
            value = text
    return without_signed_links(value)
