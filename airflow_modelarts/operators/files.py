"""Files in any store that Airflow can write to, which are never there in part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

#: How much of the file waits in memory on its way to an object store: S3 takes at most 10,000 parts of at least 5 MiB.
BLOCK_BYTES = 8 * 1024 * 1024


def resolve_path(place: str | ObjectStoragePath, conn_id: str | None) -> ObjectStoragePath:
    """
    Return a place as a path.

    :param conn_id: the Airflow connection of the store; default the path's.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    # None would take the place of a connection that the path names (Airflow 2).
    given = {"conn_id": conn_id} if conn_id else {}
    return ObjectStoragePath(str(place), **given)


def clean_up_partials(path: ObjectStoragePath, task_instance: Any) -> str:
    """
    Remove the unfinished files of this task instance's earlier tries, and return the name for this try's.

    Each try has its own: one that Airflow has given up, and that still runs, must not write into the file of the next.
    """
    ti = task_instance
    folder, slash, name = path.path.rpartition("/")
    instance = repr((ti.dag_id, ti.run_id, ti.task_id, ti.map_index))
    digest = blake2b(instance.encode(), digest_size=16).hexdigest()
    *earlier, part = [f"{folder}{slash}.{name}.part-{digest}-{number}" for number in range(1, ti.try_number + 1)]
    for leftover in earlier:
        if path.fs.exists(leftover):
            path.fs.rm(leftover)
    return part


@contextmanager
def atomic_write(path: ObjectStoragePath, part: str) -> Iterator[IO[bytes]]:
    """
    Open a file for writing that gets its name when it is complete, and is gone if it never is.

    :param part: where it is until then, in the same file system.
    """
    fs = path.fs
    if path.protocol in ("", "file", "local"):  # in an object store it would be the bucket that is created
        fs.makedirs(path.path.rpartition("/")[0], exist_ok=True)
    try:
        # An exception does not keep fsspec from completing a file when it is closed: hence the other name.
        with fs.open(part, "wb", block_size=BLOCK_BYTES) as file:
            yield file
        fs.mv(part, path.path)
    except BaseException:
        with suppress(Exception):  # the next try does it too
            fs.rm(part)
        raise
