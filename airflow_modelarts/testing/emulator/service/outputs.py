"""The files that a completed processing task has written below its work path; they fit the emulator's results. No I/O.

The API reference does not say what the files of the real service are named. These have plausible names.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_modelarts.api.places import obs_uri, typed_uri
from airflow_modelarts.testing.emulator.service import results
from airflow_modelarts.testing.emulator.service.settings import ResultForm
from airflow_modelarts.testing.emulator.service.tasks import COMPLETED, Run, Task, Version

#: Samples of a version, or of a feature analysis, that are written as files.
MAX_SAMPLES = 100
#: A JPEG of one pixel.
IMAGE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////////////////////////////////"
    "////wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQABPxA="
)


@dataclass(frozen=True)
class Output:
    """What one run of a task writes.

    :param run_id: of the version, or of a task without versions.
    :param bucket: where it writes.
    :param folder: the prefix of the keys, without a slash at its end.
    """

    run_id: str
    bucket: str
    folder: str
    task: Task
    version: Version | None

    @property
    def run(self) -> Run:
        """Its execution."""
        return self.version.run if self.version else self.task.first_run

    def touches(self, bucket: str, prefix: str) -> bool:
        """Whether a key that begins with the prefix, or is it, can be one of these files."""
        return bucket == self.bucket and (prefix.startswith(self.folder) or self.folder.startswith(prefix))

    def files(self, now: float, form: ResultForm) -> dict[str, bytes]:
        """Return the contents by key.

        :param now: the time of the tasks' clock, in seconds since the epoch.
        :param form: the form of a generated result, if the task has none of its own.
        """
        if self.version:
            return _version_files(self, self.version, now)
        result = self.task.result
        if result is None:
            result = results.default_result(self.task.task_id, self.task.result_form or form)
        samples = [f"samples/{number:08}.jpg" for number in range(3)]
        return self._named({"result.json": _json(result), "samples.manifest": _manifest(self, samples)}, samples)

    def _named(self, documents: dict[str, bytes], samples: list[str]) -> dict[str, bytes]:
        files = {**documents, **dict.fromkeys(samples, IMAGE)}
        return {f"{self.folder}/{name}".lstrip("/"): content for name, content in files.items()}


def completed_outputs(tasks: list[Task], now: float) -> Iterator[Output]:
    """Yield what the completed runs of tasks have written, for those that write to a place in OBS."""
    for task in tasks:
        versions: list[Version | None] = [*task.versions]
        for version in versions or [None]:
            place = _output_place(version.body if version else task.body)
            if place:
                output = Output(version.version_id if version else task.task_id, *place, task, version)
                if output.run.status(now) == COMPLETED:
                    yield output


def split_place(kind: str | None, place: Any) -> tuple[str, str] | None:
    """Return bucket and key, without a slash at its end, of a place whose type the API gives; None if not in OBS."""
    uri = typed_uri(kind, place) if isinstance(place, str) else None
    if uri is None:
        return None
    parts = urlsplit(uri)
    return parts.netloc, unquote(parts.path, errors="surrogateescape")[1:]


def _output_place(body: dict[str, Any]) -> tuple[str, str] | None:
    """Return where a body's task writes, by the rules of :func:`airflow_modelarts.api.places.output_uri`."""
    work_path = body.get("work_path") or {}
    output_path = work_path.get("output_path")
    if isinstance(output_path, str) and "://" in output_path and obs_uri(output_path):
        return split_place("OBS", output_path)
    return split_place(work_path.get("type"), work_path.get("path"))


def _version_files(output: Output, version: Version, now: float) -> dict[str, bytes]:
    query = results.ResultQuery(limit=MAX_SAMPLES)
    listed = results.sample_results(version, query, now, "absent")["results"]
    kept = [sample["new_source"].rpartition("/")[2] for sample in listed if "new_source" in sample]
    samples = [f"{version.version_name}/{name}" for name in kept]
    document = {
        "task_id": version.task_id,
        "task_version_id": version.version_id,
        "version_name": version.version_name,
        **results.sample_counts(version, now),
    }
    folder = version.version_name
    return output._named(
        {f"{folder}/result.json": _json(document), f"{folder}/{folder}.manifest": _manifest(output, samples)}, samples
    )


def _manifest(output: Output, samples: list[str]) -> bytes:
    """Return a manifest in the form of ModelArts: a JSON object a line, each of which names a sample."""
    lines = ({"source": f"obs://{output.bucket}/{output.folder}/{name}", "usage": "TRAIN"} for name in samples)
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode()
