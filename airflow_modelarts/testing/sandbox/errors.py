"""The exceptions of the sandbox."""

from __future__ import annotations

from collections.abc import Mapping


class SandboxError(Exception):
    """The scratch Airflow failed; the message says what happened and, for a process, shows the end of its log."""


class AirflowApiError(SandboxError):
    """Airflow's API refused a request or did not answer; the message quotes Airflow."""


class RefusedError(AirflowApiError):
    """Airflow refused a request because of its contents (HTTP 4xx)."""


class NotFoundError(RefusedError):
    """Airflow has no such object (HTTP 404)."""


class DagNotFoundError(SandboxError):
    """Airflow has parsed the folder, or the one file, and found no such DAG."""


class RunRefusedError(SandboxError):
    """Airflow refused to start the run: the DAG does not exist, or `conf` does not match its params."""


class DagImportError(SandboxError):
    """Airflow cannot import a DAG file; `errors` maps files to stack traces."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(errors)
        self.errors = dict(errors)

    def __str__(self) -> str:
        return "\n".join(f"{file} cannot be imported:\n{trace.rstrip()}" for file, trace in self.errors.items())
