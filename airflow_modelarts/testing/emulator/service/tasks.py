"""What the service holds: tasks, versions and their runs, each a function of the clock. No I/O and no checks."""

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

INITIALIZED, RUNNING, COMPLETED, FAILED, STOPPED = (int(status) for status in ProcessorTaskStatus)
#: The share of its duration for which a run is initialized.
INITIALIZED_SHARE = 0.1
DEFAULT_ERROR_MSG = "The emulator was told to let this task fail."

#: How a feature analysis tells its result: the reference declares an object and shows a string.
ResultForm = Literal["object", "array", "json_string", "plain_string", "absent"]
HasMoreMeaning = Literal["more_follow", "all_returned", "absent"]

_ID_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#: Characters of an id of the service, as in the reference's examples.
_ID_LENGTH = 19


def new_id() -> str:
    """Make up an id that looks like the service's, for example ``AcYfsdfhGyrWL5TtahH``."""
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))


class Clock:
    """
    The time by which tasks live: the machine's, as long as nobody turns it.

    :param source: seconds since the epoch.
    """

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
        """Return the time of the source, which nobody turns."""
        return self._source()

    def advance(self, seconds: float) -> None:
        """Turn the clock ahead; what has happened by then has happened."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds is {seconds}: the clock turns ahead only, and not for ever")
        with self._lock:
            self._ahead += seconds

    def freeze(self) -> None:
        """Let time pass by ``advance`` only."""
        with self._lock:
            if self._frozen_at is None:
                self._frozen_at = self._source()

    def reset(self) -> None:
        """Show the machine's time again."""
        with self._lock:
            self._ahead, self._frozen_at = 0.0, None


@dataclass(slots=True)
class Run:
    """
    One execution, from initialized through running to an end.

    Times are seconds since the epoch. What it is like at a moment follows from them; nothing has to happen meanwhile.

    :param end_status: 2, 3 or 4, from ``ends_at`` on.
    :param forced_status: shown instead, whatever the time: for statuses that the reference does not document.
    """

    created_at: float
    running_at: float
    ends_at: float
    end_status: int = COMPLETED
    error_msg: str | None = None
    forced_status: int | None = None

    @classmethod
    def start(cls, now: float, duration: float, end_status: int = COMPLETED, error_msg: str | None = None) -> Run:
        """Start a run that takes ``duration`` seconds, which can be infinite."""
        running_at = now + (duration * INITIALIZED_SHARE if duration < math.inf else 0.0)
        return cls(now, running_at, now + duration, end_status, error_msg)

    def status(self, now: float) -> int:
        """Return the status at a moment."""
        if self.forced_status is not None:
            return self.forced_status
        if now < self.running_at:
            return INITIALIZED
        return RUNNING if now < self.ends_at else self.end_status

    def set_status(self, status: int, now: float, error_msg: str | None = None) -> None:
        """Change the status from now on: an end stays, 0 and 1 last until the next order."""
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
        """Change how long it takes in all, counted from its creation."""
        self.ends_at = self.created_at + duration
        if self.running_at > self.ends_at:
            self.running_at = self.created_at + duration * INITIALIZED_SHARE

    def duration_seconds(self, now: float) -> int:
        """Return how long it has taken."""
        return max(0, int(min(now, self.ends_at) - self.created_at))

    def error(self, now: float) -> str | None:
        """Return the error message, which only a failed run has."""
        return (self.error_msg or DEFAULT_ERROR_MSG) if self.status(now) == FAILED else None


@dataclass(slots=True)
class Version:
    """
    One version of a data-processing task.

    :param body: the request that created it.
    :param sample_count: samples it processes.
    """

    version_id: str
    version_name: str
    task_id: str
    body: dict[str, Any]
    run: Run
    sample_count: int

    def describe(self, now: float) -> dict[str, Any]:
        """Return it as the service tells it, without the sample counts."""
        status = self.run.status(now)
        described = {
            "task_id": self.task_id,
            "task_version_id": self.version_id,
            "version_name": self.version_name,
            "status": status,
            "create_time": int(self.run.created_at * 1000),
            "update_time": int(min(now, self.run.ends_at) * 1000),
            "duration_seconds": self.run.duration_seconds(now),
            "inputs": sources_of(self.body),
        }
        return described | _given(self.body, "description", "template", "work_path")


@dataclass(slots=True)
class Task:
    """
    A processing task.

    :param body: the request that created it, as it arrived but for an updated description.
    :param first_run: the run of a task without versions, and of the first version of any other.
    :param result: what a completed feature analysis has found; None lets the emulator make it up.
    :param result_form: how the made-up result is told; None for what the settings say.
    :param created_at: seconds since the epoch; no later version changes it.
    :param serial: orders tasks that were created in the same instant.
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
    #: The workspace it lives in; read off the body once, since every list looks at that of every task.
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
        """The run that the task's status follows: its newest version's."""
        return self.versions[-1].run if self.versions else self.first_run

    @property
    def dataset_version_id(self) -> str | None:
        """The dataset version that the body's own version_id names; of those of inputs the reference says nothing."""
        return self.body.get("version_id")

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The inputs, whichever of the two fields gave them."""
        return sources_of(self.body)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What "is_current" compares: template and dataset version, or the sources where no version was given."""
        version_id = self.body.get("version_id")
        # As text, since a field that no check knows can hold anything.
        sources = tuple((str(source.get("source")), str(source.get("version_id"))) for source in self.sources)
        return (self.template_id, version_id) if version_id else (self.template_id, None, sources)

    def describe(self, now: float) -> dict[str, Any]:
        """Return it as the service tells it, without what depends on other tasks and settings."""
        run = self.run
        described: dict[str, Any] = {
            "task_id": self.task_id,
            "name": self.name,
            "status": run.status(now),
            "create_time": int(self.created_at * 1000),
            "duration_seconds": run.duration_seconds(now),
            "inputs": self.sources,  # the reference's example carries both, whichever was given
            "workspace_id": self.workspace_id,
        }
        described |= _given(self.body, "description", "data_source", "template", "work_path", "version_id")
        if self.versions_created:
            described["version_count"] = len(self.versions)
        if error_msg := run.error(now):
            described["error_msg"] = error_msg
        version_name = self.sources[0].get("version_name") if self.sources else None
        return described | ({"version_name": version_name} if version_name else {})


def sources_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the inputs of a create body, whichever of the two fields gave them."""
    single = body.get("data_source")
    return [single] if single is not None else list(body.get("inputs") or [])


def _given(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: body[name] for name in names if body.get(name) is not None}


@dataclass
class TaskRule:
    """
    What becomes of runs that are created later.

    :param name: a pattern as in file names; it is held against the task's name.
    :param times: how many runs it is for; None for all.
    :param duration: seconds; None for what the settings say.
    :param status: 2, 3 or 4: how it ends.
    :param result: of a feature analysis; None lets the emulator make it up.
    :param sample_count: of a version; None for what the settings say.
    """

    name: str = "*"
    times: int | None = 1
    duration: float | None = None
    status: int = COMPLETED
    error_msg: str | None = None
    result: Any = None
    result_form: ResultForm | None = None
    sample_count: int | None = None

    def matches(self, name: str) -> bool:
        """Whether it is for a task of this name."""
        return fnmatchcase(name, self.name)
