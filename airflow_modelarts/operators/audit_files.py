"""The files of an audit: a page, its JSON and the rows.

They are tried out before the list is read. What fails later is collected, so that the audit can end and say it.
"""

from __future__ import annotations

import json
from codecs import getwriter
from contextlib import ExitStack, suppress
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Self

from airflow_modelarts.exceptions import ModelArtsReportNotWritten
from airflow_modelarts.filesystem import path_with_connection
from airflow_modelarts.operators.audit_paths import check_suffix
from airflow_modelarts.operators.files import atomic_write, clean_up_partials, probe, refuse_folder, resolve_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_modelarts.api.models import ProcessorTask
    from airflow_modelarts.audit import AuditReport
    from airflow_modelarts.audit.change import Previous


class AuditFiles:
    """The files of an audit.

    :param paths: the paths by argument, ``report_path`` and ``rows_path``; without those that are not wanted.
    :param conn_id: the Airflow connection of the store; default that of the paths.
    :param task_instance: names the partial files.
    :raises ValueError: a path is a folder, or its name does not end as SUFFIXES says.
    :raises ModelArtsReportNotWritten: the store does not accept a file there.
    """

    def __init__(self, paths: Mapping[str, str], conn_id: str | None, task_instance: Any) -> None:
        self.written: dict[str, str] = {}
        self.failures: list[str] = []
        self._parts: dict[str, tuple[ObjectStoragePath, str]] = {}
        for argument, given in paths.items():
            check_suffix(argument, given)
            try:
                path = resolve_path(given, conn_id)
                refuse_folder(argument, given, path)
                self._probe(argument, path, task_instance)
                if argument == "report_path":
                    json_path = path.with_name(f"{path.name.removesuffix('.html')}.json")
                    refuse_folder("the JSON of report_path", str(json_path), json_path)
                    self._probe("json_path", json_path, task_instance)
            except ValueError:
                raise
            except Exception as error:
                raise ModelArtsReportNotWritten(_describe(argument, given, error)) from error

    def path(self, argument: str) -> str | None:
        """Return a path by its argument; ``json_path`` is beside ``report_path``."""
        return path_with_connection(self._parts[argument][0]) if argument in self._parts else None

    def previous(self, report: AuditReport) -> Previous | None:
        """Return the audit before, if its JSON is beside that of this report."""
        from airflow_modelarts.operators.previous_audit import find_previous

        return find_previous(self._parts["json_path"][0], report) if "json_path" in self._parts else None

    def rows(self, project_id: str | None) -> RowFile:
        """Return the file of the rows, to be opened; it does nothing if no rows are wanted."""
        return RowFile(self, project_id)

    def write_report(self, report: AuditReport, facts: Mapping[str, str]) -> None:
        """Write the page and its JSON, if they are wanted."""
        from airflow_modelarts.audit.html import page

        if "report_path" not in self._parts:
            return
        argument = "report_path"
        try:
            # Both are made before either is written. The page refers to the JSON file, so it is written last.
            content, html = report.to_json(), page(report, facts).encode()
            argument = "json_path"
            with self.open(argument) as file:
                json.dump(content, getwriter("utf-8")(file), ensure_ascii=False, indent=1)  # piece by piece
            self.written[argument] = str(self.path(argument))
            argument = "report_path"
            with self.open(argument) as file:
                file.write(html)
            self.written[argument] = str(self.path(argument))
        except Exception as error:
            self.note_failure(argument, error)

    def open(self, argument: str) -> Any:
        """Open a file for writing; it gets its name when it is complete."""
        return atomic_write(*self._parts[argument])

    def note_failure(self, argument: str, error: Exception) -> None:
        """Note that a file could not be written."""
        self.failures.append(_describe(argument, str(self.path(argument)), error))

    def _probe(self, argument: str, path: ObjectStoragePath, task_instance: Any) -> None:
        part = clean_up_partials(path, task_instance)
        probe(path, part)
        self._parts[argument] = path, part


class RowFile:
    """The file of the rows, while the list is read. A store that fails does not end the audit.

    :param files: the files of the audit, which note a failure.
    :param project_id: a value of each row.
    """

    def __init__(self, files: AuditFiles, project_id: str | None) -> None:
        self._files, self._project_id = files, project_id
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None
        path = files.path("rows_path")
        self._suffix = PurePosixPath(path).suffix if path else None

    def __enter__(self) -> Self:
        if self._suffix:
            from airflow_modelarts.audit.rows import HEADERS

            try:
                self._file = self._stack.enter_context(self._files.open("rows_path"))
                self._file.write(HEADERS[self._suffix])
            except Exception as error:
                self._fail(error)
        return self

    def write(self, task: ProcessorTask, checks: Sequence[str]) -> None:
        """Write the row of a task."""
        if self._file is None or self._suffix is None:
            return
        from airflow_modelarts.audit.rows import FORMATS, row

        line = FORMATS[self._suffix](row(task, checks, self._project_id))
        try:
            self._file.write(line)
        except Exception as error:
            self._fail(error)

    def __exit__(self, *error: Any) -> None:
        if self._file is None:
            return
        if error[0] is not None:
            self._stack.__exit__(*error)
            return
        try:
            self._stack.close()
        except Exception as failure:
            self._files.note_failure("rows_path", failure)
        else:
            self._files.written["rows_path"] = str(self._files.path("rows_path"))

    def _fail(self, error: Exception) -> None:
        self._file = None
        with suppress(Exception):  # removes the partial file
            self._stack.__exit__(type(error), error, error.__traceback__)
        self._files.note_failure("rows_path", error)


def _describe(argument: str, path: str, error: Exception) -> str:
    cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{argument} is {path!r}: the file cannot be written ({cause})"
