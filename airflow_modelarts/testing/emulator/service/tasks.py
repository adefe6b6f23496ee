"""Tasks, versions and their runs: a status follows from the clock. No I/O and no validation."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from airflow_modelarts.api.models import FEATURE_ANALYSIS
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus
from airflow_modelarts.testing.emulator.service.settings import Count, ResultForm, Seconds, StrictFields

INITIALIZED, RUNNING, COMPLETED, FAILED, STOPPED = (int(status) for status in ProcessorTaskStatus)
#: The share of its duration for which a run is initialized.
INITIALIZED_SHARE = 0.1
DEFAULT_ERROR_MSG = "The emulator was told to fail this task."

ID_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#: Characters of an id of the service, as in the reference's examples.
ID_LENGTH = 19


def to_milliseconds(seconds: float) -> int:
    """Return a moment as the API writes it, rounded down; a millisecond given in seconds stays the same."""
    return math.floor(round(seconds * 1000, 3))


def new_id() -> str:
    """Return a random id that looks like the service's, for example ``AcYfsdfhGyrWL5TtahH``."""
    return "".join(secrets.choice(ID_CHARACTERS) for _ in range(ID_LENGTH))


class Clock:
    """The clock of the tasks: the source's time in seconds, which tests can advance or freeze."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._ahead = 0.0
        self._frozen_at: float | None = None

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        with self._lock:
            return (self._source() if self._frozen_at is None else self._frozen_at) + self._ahead

    def source_now(self) -> float:
        """Return the time of the source, neither advanced nor frozen."""
        return self._source()

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds is {seconds}: it must be a finite number, and not negative")
        with self._lock:
            self._ahead += seconds

    def freeze(self) -> None:
        """Stop the clock; only :meth:`advance` moves it."""
        with self._lock:
            if self._frozen_at is None:
                self._frozen_at = self._source()

    def reset(self) -> None:
        """Return to the time of the source."""
        with self._lock:
            self._ahead, self._frozen_at = 0.0, None


@dataclass(slots=True)
class Run:
    """One execution: initialized, then running, then terminal.

    Times are seconds since the epoch. The status is computed from them, so no background work is needed.

    :param end_status: the status from ``ends_at`` on: 2, 3 or 4.
    :param forced_status: overrides the computed status, for statuses that the reference does not document.
    """

    created_at: float
    running_at: float
    ends_at: float
    end_status: int = COMPLETED
    error_msg: str | None = None
    forced_status: int | None = None

    @classmethod
    def start(cls, now: float, duration: float, end_status: int = COMPLETED, error_msg: str | None = None) -> Run:
        """Return a run that takes ``duration`` seconds, which can be infinite."""
        running_at = now + (duration * INITIALIZED_SHARE if duration < math.inf else 0.0)
        return cls(now, running_at, now + duration, end_status, error_msg)

    def status(self, now: float) -> int:
        """Return the status at time ``now``."""
        if self.forced_status is not None:
            return self.forced_status
        if now < self.running_at:
            return INITIALIZED
        return RUNNING if now < self.ends_at else self.end_status

    def set_status(self, status: int, now: float, error_msg: str | None = None) -> None:
        """Change the status: 2, 3 and 4 are final, 0 and 1 last until the next change, others are shown unchanged."""
        self.forced_status, self.error_msg = None, error_msg
        if status in TERMINAL_STATUSES:
            self.running_at = min(self.running_at, now)
            self.ends_at = min(self.ends_at, now)
            self.end_status = status
        elif status in (INITIALIZED, RUNNING):
            self.running_at = math.inf if status == INITIALIZED else min(self.running_at, now)
            self.ends_at = math.inf
        else:
            self.forced_status = status

    def set_duration(self, duration: float) -> None:
        """Change the total duration, counted from the creation."""
        self.ends_at = self.created_at + duration
        if self.running_at > self.ends_at:
            self.running_at = self.created_at + duration * INITIALIZED_SHARE

    def duration_seconds(self, now: float) -> int:
        """Return the duration until now, or until the end."""
        return max(0, int(min(now, self.ends_at) - self.created_at))

    def error(self, now: float) -> str | None:
        """Return the error message of a failed run, None for any other."""
        return (self.error_msg or DEFAULT_ERROR_MSG) if self.status(now) == FAILED else None


@dataclass(slots=True)
class Version:
    """One version of a data-processing task; ``body`` is the request that created it."""

    version_id: str
    version_name: str
    task_id: str
    body: dict[str, Any]
    run: Run
    sample_count: int

    def describe(self, now: float) -> dict[str, Any]:
        """Return the API's object, without the sample counts."""
        status = self.run.status(now)
        described = {
            "task_id": self.task_id,
            "task_version_id": self.version_id,
            "version_name": self.version_name,
            "status": status,
            "create_time": to_milliseconds(self.run.created_at),
            "update_time": to_milliseconds(min(now, self.run.ends_at)),
            "duration_seconds": self.run.duration_seconds(now),
            "inputs": sources_of(self.body),
        }
        return described | _present(self.body, "description", "template", "work_path")


@dataclass(slots=True)
class Task:
    """A processing task.

    :param body: the request that created it, except for an updated description.
    :param first_run: the run of a task without versions, and of the first version of any other.
    :param serial: orders tasks that were created at the same time.
    :param created_at: seconds since the epoch; later versions do not change it.
    :param result: result of a completed feature analysis; None for a generated one.
    :param result_form: form of the generated result; None for the form in the settings.
    """

    task_id: str
    project_id: str
    body: dict[str, Any]
    first_run: Run
    serial: int
    created_at: float
    versions: list[Version] = field(default_factory=list)
    versions_created: int = 0
    result: Any = None
    result_form: ResultForm | None = None
    #: Stored, since every list reads the workspace of every task.
    workspace_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.workspace_id = str(self.body.get("workspace_id") or "0")

    @property
    def name(self) -> str:
        """The name, unique in the project."""
        return str(self.body["name"])

    @property
    def template_id(self) -> str:
        """The template's id, for example ``sys_data_analyse``."""
        return str(self.body["template"]["id"])

    @property
    def is_feature_analysis(self) -> bool:
        """Whether it is a feature analysis, which has a result and no versions."""
        return self.template_id == FEATURE_ANALYSIS

    @property
    def run(self) -> Run:
        """The run of the newest version; the task's status is its status."""
        return self.versions[-1].run if self.versions else self.first_run

    @property
    def runs(self) -> list[Run]:
        """The runs of all its versions; of a task without versions its only run."""
        return [version.run for version in self.versions] or [self.first_run]

    @property
    def dataset_version_id(self) -> str | None:
        """The dataset version in the body's ``version_id``; the reference does not mention those of inputs."""
        return self.body.get("version_id")

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The inputs: ``data_source`` or ``inputs``."""
        return sources_of(self.body)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What ``is_current`` compares: the template, and the dataset version or else the sources."""
        version_id = self.body.get("version_id")
        # As text: no check covers the type of a source's version_id, and the key must be hashable.
        sources = tuple((str(source.get("source")), str(source.get("version_id"))) for source in self.sources)
        return (self.template_id, version_id) if version_id else (self.template_id, None, sources)

    def describe(self, now: float) -> dict[str, Any]:
        """Return the API's object, without the fields that depend on other tasks or on settings."""
        run = self.run
        described: dict[str, Any] = {
            "task_id": self.task_id,
            "name": self.name,
            "status": run.status(now),
            "create_time": to_milliseconds(self.created_at),
            "duration_seconds": run.duration_seconds(now),
            "inputs": self.sources,  # the reference's example has both fields
            "workspace_id": self.workspace_id,
        }
        described |= _present(self.body, "description", "data_source", "template", "work_path", "version_id")
        if self.versions_created:
            described["version_count"] = len(self.versions)
        if error_msg := run.error(now):
            described["error_msg"] = error_msg
        version_name = self.sources[0].get("version_name") if self.sources else None
        return described | ({"version_name": version_name} if version_name else {})


def sources_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the inputs of a create body: ``data_source`` or ``inputs``."""
    single = body.get("data_source")
    return [single] if single is not None else list(body.get("inputs") or [])


def _present(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: body[name] for name in names if body.get(name) is not None}


@dataclass
class TaskRule(StrictFields):
    """Decides how runs that are created later end.

    :param name: a file-name pattern that the task's name must match.
    :param times: number of runs it applies to; None for all.
    :param duration: seconds; None for the duration in the settings.
    :param status: the terminal status: 2, 3 or 4.
    :param error_msg: error message of a failed run.
    :param result: result of a feature analysis; None for a generated one.
    :param result_form: form of the generated result; None for the form in the settings.
    :param sample_count: samples of a version; None for the count in the settings.
    """

    name: str = "*"
    times: Count | None = 1
    duration: Seconds | None = None
    status: Literal[2, 3, 4] = 2
    error_msg: str | None = None
    result: Any = None
    result_form: ResultForm | None = None
    sample_count: Count | None = None

    def matches(self, name: str) -> bool:
        """Whether it applies to a task of this name."""
        return fnmatchcase(name, self.name)
