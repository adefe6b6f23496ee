"""Generated results: of feature analyses, sample counts and sample results. Deterministic."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import BaseModel, Field

from airflow_modelarts.testing.emulator.service.projects import Limit, Offset
from airflow_modelarts.testing.emulator.service.settings import HasMoreMeaning, ResultForm
from airflow_modelarts.testing.emulator.service.tasks import COMPLETED, Version, sources_of

RESERVED, MODIFIED, DELETED, ADDED = range(4)
#: The result properties of ten consecutive samples; the pattern repeats.
PATTERN = (RESERVED, RESERVED, MODIFIED, RESERVED, ADDED, RESERVED, MODIFIED, DELETED, RESERVED, ADDED)
#: The place of inputs that name a dataset.
DEFAULT_PLACE = "obs://emulator-bucket/input"
#: Seconds after which a link expires.
LINK_LIFETIME = 3600


class ResultQuery(BaseModel):
    """The parameters of ListProcessorTaskVersionResults."""

    offset: Offset = 0
    limit: Limit = 10
    result_property: Annotated[
        int, Field(ge=-1, le=3, description="-1 all, 0 reserved, 1 modified, 2 deleted, 3 added")
    ] = -1
    process_parameter: Annotated[str | None, Field(description="an OBS image operation for the links")] = None


def default_result(task_id: str, form: ResultForm) -> Any:
    """Return the generated result of a feature analysis, None for the form ``absent``."""
    statistics = {
        "sample_count": 100,
        "labels": [{"name": "cat", "count": 60}, {"name": "dog", "count": 40}],
        "features": {"brightness": {"mean": 0.5, "std": 0.125}, "aspect_ratio": {"mean": 1.33, "std": 0.2}},
    }
    forms: dict[ResultForm, Any] = {
        "object": statistics,
        "array": [statistics],
        "json_string": json.dumps(statistics),
        "plain_string": f"feature analysis {task_id} has found nothing unusual",
        "absent": None,
    }
    return forms[form]


def count_samples(sample_count: int, properties: set[int]) -> int:
    """Return the number of samples with one of the properties."""
    rounds, rest = divmod(sample_count, len(PATTERN))
    in_round = sum(kind in properties for kind in PATTERN)
    return rounds * in_round + sum(kind in properties for kind in PATTERN[:rest])


def sample_counts(version: Version, now: float) -> dict[str, int]:
    """Return the five sample counts of a version; they are zero until it has completed."""
    total = version.sample_count if version.run.status(now) == COMPLETED else 0
    added, modified, deleted, reserved = (count_samples(total, {kind}) for kind in (ADDED, MODIFIED, DELETED, RESERVED))
    return {
        "origin_sample_count": total - added,
        "add_sample_count": added,
        "modified_sample_count": modified,
        "unmodified_sample_count": reserved,
        "deleted_sample_count": deleted,
    }


def sample_results(version: Version, query: ResultQuery, now: float, has_more: HasMoreMeaning) -> dict[str, Any]:
    """Return one page of a completed version's sample results; only that page is generated."""
    properties = set(PATTERN) if query.result_property == -1 else {query.result_property}
    places = [index for index, kind in enumerate(PATTERN) if kind in properties]
    total = version.sample_count if version.run.status(now) == COMPLETED else 0
    count = count_samples(total, properties)
    end = (query.offset + 1) * query.limit
    positions = range(count)[end - query.limit : end]
    numbers = (position // len(places) * len(PATTERN) + places[position % len(places)] for position in positions)
    return {
        "count": count,
        **({} if has_more == "absent" else {"has_more": (end < count) is (has_more == "more_follow")}),
        "results": [_sample(version, number, query.process_parameter, now) for number in numbers],
    }


def _sample(version: Version, number: int, process_parameter: str | None, now: float) -> dict[str, Any]:
    kind = PATTERN[number % len(PATTERN)]
    origin = f"{_input_place(version)}/{number:08}.jpg"
    new = f"{_output_place(version)}/{number:08}.jpg"
    sample: dict[str, Any] = {
        "sample_id": sha256(f"{version.version_id}/{number}".encode()).hexdigest()[:32],
        "version_id": version.version_id,
        "result_property": kind,
        "result_description": [["operator", version.body["template"]["id"]], ["sample", str(number)]],
    }
    if kind != ADDED:
        sample["origin_source"] = origin
        sample["signed_origin_source"] = _signed_link(origin, process_parameter, now)
    if kind != DELETED:
        sample["new_source"] = new
        sample["signed_new_source"] = _signed_link(new, process_parameter, now)
    return sample


def _input_place(version: Version) -> str:
    for source in sources_of(version.body):
        if source.get("type") == "OBS" and source.get("source"):
            return str(source["source"]).rstrip("/")
    return DEFAULT_PLACE


def _output_place(version: Version) -> str:
    work_path = version.body.get("work_path") or {}
    if work_path.get("type") == "OBS" and work_path.get("path"):
        return f"{str(work_path['path']).rstrip('/')}/{version.version_name}"
    return f"obs://emulator-bucket/output/{version.task_id}/{version.version_name}"


def _signed_link(place: str, process_parameter: str | None, now: float) -> str:
    """Return a link in the form of those that OBS signs; its host does not exist."""
    bucket, _, key = place.removeprefix("obs://").removeprefix("s3://").lstrip("/").partition("/")
    expires = int(now) + LINK_LIFETIME
    fingerprint = sha256(f"{place}{expires}".encode("utf-8", "surrogatepass")).hexdigest()
    link = (
        f"https://{bucket}.obs.emulator.invalid/{quote(key, errors='replace')}"
        f"?AccessKeyId=EMULATORLINKKEY{fingerprint[:5].upper()}&Expires={expires}"
        f"&x-obs-security-token=emulator-link-token-{fingerprint[:40]}&Signature={fingerprint[40:]}%3D"
    )
    return f"{link}&x-image-process={quote(process_parameter, safe='')}" if process_parameter else link
