"""Reads small files that a processing task wrote, for the XCom ``output_files``, within limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

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


class SmallFiles:
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


def find(folder: ObjectStoragePath, patterns: Sequence[str], files: SmallFiles) -> Iterator[tuple[str, str, int]]:
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
