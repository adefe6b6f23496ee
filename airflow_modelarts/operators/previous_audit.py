"""Finds the audit before: the newest earlier report with the same scope, in the folder of a report."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_modelarts.audit.change import Previous, newest_before
from airflow_modelarts.audit.report import SCHEMA_VERSION

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_modelarts.audit import AuditReport

log = logging.getLogger(__name__)

#: Files of the folder that are looked at. In a folder with more, the audit before may not be found.
MAX_FILES = 10_000
#: The files that are read, those that were changed last; and how much of each. The findings of a report come last.
MAX_READ, HEAD_BYTES = 50, 1024 * 1024
_FINDINGS = b'\n "findings": '
#: When a file was changed, as the stores call it.
_CHANGED = ("mtime", "LastModified", "last_modified", "updated", "created")


def find_previous(json_path: ObjectStoragePath, report: AuditReport) -> Previous | None:
    """Return the totals of the audit before. A folder or a file that cannot be read is logged and is no error.

    An audit that had nothing left to audit is compared with none.

    :param json_path: where the JSON of this report will be.
    """
    fs, own = json_path.fs, json_path.path
    if report.window.is_empty:
        return None
    try:
        listed = _local_files(own) if json_path.protocol in ("", "file", "local") else _files(fs, own)
        reports = ((changed, name) for changed, name in listed if name.endswith(".json"))
        others = ((changed, name) for changed, name in reports if name.strip("/") != own.strip("/"))
        newest = [name for _, name in nlargest(MAX_READ, others)]
    except Exception as error:
        log.info("The folder of %s cannot be listed, so the report has no change: %s", json_path, error)
        return None
    scope = {"schema_version": SCHEMA_VERSION, "dag_id": report.scope.dag_id, **report.scope.to_json()}
    return newest_before(_heads(fs, newest), scope, report.window.end)


def _local_files(path: str) -> Iterable[tuple[str, str]]:
    with os.scandir(os.path.dirname(path)) as entries:
        files = [entry for entry in islice(entries, MAX_FILES) if entry.is_file()]
    return [(f"{entry.stat().st_mtime:020.6f}", entry.path) for entry in files]


def _files(fs: Any, path: str) -> Iterable[tuple[str, str]]:
    """Return the files of an object store beside a path, each after a text that sorts by when it was changed."""
    folder = path.rpartition("/")[0]
    listed = _s3_objects(fs, folder) if hasattr(fs, "call_s3") else fs.ls(folder, detail=True)
    for one in islice(listed, MAX_FILES):
        changed = next((one[name] for name in _CHANGED if one.get(name)), "")
        yield str(changed), one["name"]


def _s3_objects(fs: Any, folder: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a folder in S3 or OBS, request by request: s3fs itself would list all of them first."""
    bucket, _, key = folder.strip("/").partition("/")
    request = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "Delimiter": "/"}
    while request:
        page = fs.call_s3("list_objects_v2", **request)
        for one in page.get("Contents", ()):
            yield {"name": f"{bucket}/{one['Key']}", "LastModified": one["LastModified"]}
        token = page.get("NextContinuationToken")
        request = {**request, "ContinuationToken": token} if token else {}


def _heads(fs: Any, names: Iterable[str]) -> Iterator[Any]:
    """Yield the JSON of files without the findings of a report; skip what is no JSON."""
    for name in names:
        try:
            with fs.open(name, "rb") as file:
                head, mark, _ = file.read(HEAD_BYTES).partition(_FINDINGS)
            yield json.loads(head.rstrip().removesuffix(b",") + b"}" if mark else head)
        except Exception as error:
            log.debug("%s is no report: %s", name, error)
