"""The ends that one event trigger knows: what distinguishes them, and their compact stored form."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from airflow_modelarts.api.ends import end_marks
from airflow_modelarts.api.listed_tasks import Listed

#: Hash of the ids of a task or a version, count of versions, hash of the other marks.
_ROW = struct.Struct(">6sH3s")
#: The count in a row if the service did not tell it.
_NO_COUNT = 0xFFFF
#: The marks of an end of which only the task is known.
ANY_MARKS = b"\0\0\0"


class End(NamedTuple):
    """The latest end of a task, or the end of a version.

    :param time: milliseconds since the epoch; when the task was created, or when the version ended. 0 if not known.
    :param version_count: how many versions the task had; None if the service did not tell it.
    :param marks: a hash of the other marks of the end, or ``ANY_MARKS``.
    """

    time: int
    version_count: int | None
    marks: bytes

    def is_followed_by(self, later: End, active_count: int | None, *, was_active: bool) -> bool:
        """Return whether a later sight of the same task shows another end.

        :param active_count: the count of versions when the task was last seen active; None if it is not known.
        :param was_active: whether the task was seen active in between.
        """
        if self.marks == ANY_MARKS:
            return was_active
        if later.version_count is None or self.version_count is None:
            return was_active or later.marks != self.marks
        if later.version_count > self.version_count:
            return True
        if was_active and active_count == later.version_count:
            return True  # no version was deleted since, so the one that was active has ended
        # A deleted version leaves the task with the end of the version before it, which is no news.
        return later.marks != self.marks and (was_active or later.version_count == self.version_count)


def identify(*ids: str) -> bytes:
    """Return a short hash of the id of a task, or of the ids of a task and a version."""
    return _hash("/".join(ids), 6)


def read_end(task: Listed) -> End:
    """Return the latest end of a terminal task."""
    status, count, duration = end_marks(task)
    version_count = None if count is None else min(max(count, 0), _NO_COUNT - 1)
    return End(task.create_time or 0, version_count, _hash(f"{status} {duration}", 3))


def pack_ends(ends: Mapping[bytes, End], keys: Iterable[bytes]) -> str:
    """Return ends as text of 15 characters each, without their times."""
    packed = bytearray()
    for key in sorted(keys):
        _, count, marks = ends[key]
        packed += _ROW.pack(key, _NO_COUNT if count is None else count, marks)
    return base64.b64encode(packed).decode()


def unpack_ends(text: str, time: int) -> dict[bytes, End]:
    """Read what :func:`pack_ends` returned.

    :param time: the time of the ends, until they are seen again.
    :raises ValueError: it is anything else.
    """
    try:
        rows = _ROW.iter_unpack(base64.b64decode(text, validate=True))
    except struct.error as error:
        raise ValueError("not a whole number of ends") from error
    return {key: End(time, None if count == _NO_COUNT else count, marks) for key, count, marks in rows}


def pack_ids(ids: Iterable[str]) -> str:
    """Return ids as text: some 20 characters for each id of 19 letters and digits."""
    return base64.b64encode(zlib.compress(json.dumps(sorted(ids)).encode(), 9)).decode()


def unpack_ids(text: str) -> list[str]:
    """Read what :func:`pack_ids` returned.

    :raises ValueError: it is anything else.
    """
    try:
        ids = json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
    except zlib.error as error:
        raise ValueError("not compressed ids") from error
    if not are_ids(ids):
        raise ValueError("not a list of ids")
    return list(ids)


def are_ids(value: object) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _hash(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
