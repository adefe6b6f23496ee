"""The end of a processing task or of one version: the key that identifies it, and how an event describes it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from airflow_modelarts.api.places import output_uri
from airflow_modelarts.api.statuses import status_name

if TYPE_CHECKING:
    from airflow_modelarts.api.client import ClientConfig
    from airflow_modelarts.api.listed_tasks import Listed
    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion

#: Hexadecimal digits of a key: 128 bits.
KEY_LENGTH = 32
#: Characters of JSON of a field of an event, which Airflow stores in a row of its database and reads for each consumer.
MAX_FIELD_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class Origin:
    """Through which connection an end was observed. It holds no secret.

    :param host: of the ModelArts endpoint, with the port if that is not the scheme's.
    :param region: None if neither the hook nor the connection names one.
    """

    modelarts_conn_id: str
    project_id: str
    host: str
    region: str | None = None

    @classmethod
    def of(cls, modelarts_conn_id: str, client: ClientConfig, region: str | None) -> Self:
        """Return the origin of what a client reads."""
        parts = urlsplit(client.endpoint)
        usual = {"https": 443, "http": 80}.get(parts.scheme)
        port = "" if parts.port in (None, usual) else f":{parts.port}"
        return cls(modelarts_conn_id, client.project_id, f"{parts.hostname}{port}", region)


def end_marks(task: Listed) -> tuple[int | None, int | None, int | None]:
    """Return what a list tells of a task's end that another end of the same task changes.

    A task that runs again has another version, so ``version_count`` grows. After versions were deleted it can have been
    the same before; ``duration_seconds`` then differs in most cases.
    """
    return task.status, task.version_count, task.duration_seconds


def dedupe_key(origin: Origin, task: ProcessorTask, task_version_id: str | None = None) -> str:
    """Return the key of an end: the same whoever observes it and whenever, and another one for the task's next end.

    It depends on host and project, not on the id of the Airflow connection.

    :param task: a task that has ended, as a list or DescribeProcessorTask returned it.
    :param task_version_id: the version whose end it is; None for the end of the task.
    """
    end = end_marks(task) if task_version_id is None else (task_version_id,)
    content = json.dumps([origin.host, origin.project_id, task.task_id, *end])
    return hashlib.sha256(content.encode()).hexdigest()[:KEY_LENGTH]


def identify_end(
    origin: Origin,
    task: ProcessorTask,
    observed_at: datetime,
    version: ProcessorTaskVersion | None = None,
    *,
    is_end_of_version: bool = True,
) -> dict[str, Any]:
    """Return the fields that identify an end, as JSON.

    :param observed_at: when the end was seen, with a time zone; the API reports no end time.
    :param version: the version that ended, if it is known.
    :param is_end_of_version: whether the event is about that version, and not about the task as a whole.
    """
    task_version_id = version.task_version_id if version else None
    status = version.status if version and version.status is not None else task.status
    return {
        "modelarts_conn_id": origin.modelarts_conn_id,
        "project_id": origin.project_id,
        "region": origin.region,
        "host": origin.host,
        "task_id": task.task_id,
        "task_version_id": task_version_id,
        "version_count": task.version_count,
        "dedupe_key": dedupe_key(origin, task, task_version_id if is_end_of_version else None),
        "observed_at": observed_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "status": status,
        "status_name": status_name(status),
        "uri": (output_uri(version) if version else None) or output_uri(task),
    }


def describe_end(
    origin: Origin, task: ProcessorTask, observed_at: datetime, version: ProcessorTaskVersion | None = None
) -> dict[str, Any]:
    """Return the payload of an event: every documented field of the task, whether the service sent it or not.

    It has no ``result``, which can have tens of megabytes: DescribeProcessorTask returns it. If a version is given, the
    event is about its end: ``status``, ``error_msg``, ``duration_seconds`` and the fields of :func:`identify_end` are
    the version's, and ``version`` has the rest of it. A field that is too large for an event is None, and ``omitted``
    has its name.
    """
    fields: dict[str, Any] = {name: None for name, field in type(task).model_fields.items() if not field.exclude}
    fields |= task.to_json()
    if version:
        fields |= {"error_msg": version.error_msg, "duration_seconds": version.duration_seconds}
    fields |= {"version": version.to_json() if version else None}
    omitted = sorted(name for name, value in fields.items() if len(json.dumps(value)) > MAX_FIELD_LENGTH)
    return {**fields, **dict.fromkeys(omitted), "omitted": omitted, **identify_end(origin, task, observed_at, version)}
