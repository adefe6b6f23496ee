"""The argument ``output_files_to_xcom``: small files that a completed processing task wrote, as an XCom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_modelarts.api.arguments import ArgumentError, check_optional_text, check_text, is_reference, is_template
from airflow_modelarts.operators.base import TaskResultMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion

#: The XCom.
OUTPUT_FILES = "output_files"


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
        from airflow_modelarts.operators.small_files import OTHERS, SmallFiles, find

        if (version or task).status != ProcessorTaskStatus.COMPLETED:
            self.log.warning("No output file is read: processing task '%s' has not completed.", task.task_id)
            return {}
        files = SmallFiles()
        try:
            folder = path_of_output(version if version and version.work_path else task, self.modelarts_conn_id)
            for name, key, size in find(folder, self._patterns(), files):
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
