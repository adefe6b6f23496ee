"""Atomic writes of files to any store that Airflow can write to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

#: Size of the parts in which a file is uploaded to an object store: S3 accepts at most 10,000, each of at least 5 MiB.
BLOCK_BYTES = 8 * 1024 * 1024


def resolve_path(place: str | ObjectStoragePath, conn_id: str | None) -> ObjectStoragePath:
    """Return a URI or a path as an ObjectStoragePath.

    :param conn_id: the Airflow connection of the store; default that of the path.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    # None would replace the connection that the path names (Airflow 2).
    given = {"conn_id": conn_id} if conn_id else {}
    return ObjectStoragePath(str(place), **given)


def clean_up_partials(path: ObjectStoragePath, task_instance: Any) -> str:
    """Remove the partial files of this task instance's earlier tries, and return the name of the one of this try.

    Each try has its own name: a try that Airflow has given up may still run, and must not write to the next one's file.
    """
    ti = task_instance
    folder, slash, name = path.path.rpartition("/")
    instance = repr((ti.dag_id, ti.run_id, ti.task_id, ti.map_index))
    digest = blake2b(instance.encode(), digest_size=16).hexdigest()
    *earlier, part = [f"{folder}{slash}.{name}.part-{digest}-{number}" for number in range(1, ti.try_number + 1)]
    for leftover in earlier:
        if path.fs.exists(leftover):
            path.fs.rm_file(leftover)
    return part


def refuse_folder(argument: str, given: str, path: ObjectStoragePath) -> None:
    """Refuse a path that names no file.

    :raises ValueError: it is a folder; the message begins with the argument.
    """
    if given.endswith("/") or not path.name or path.fs.isdir(path.path):
        raise ValueError(f"{argument} is {given!r}: that is a directory; name a file in it")


def probe(path: ObjectStoragePath, part: str) -> None:
    """Create an empty partial file and remove it.

    :raises Exception: the store does not accept it; the exceptions are those of its file system.
    """
    _make_folder(path)
    with path.fs.open(part, "wb"):
        pass
    path.fs.rm_file(part)


@contextmanager
def atomic_write(path: ObjectStoragePath, part: str) -> Iterator[IO[bytes]]:
    """Open a file for writing; it gets its name when it is complete, and is removed after an error.

    :param part: the name of the partial file, in the same file system.
    """
    fs = path.fs
    _make_folder(path)
    file = fs.open(part, "wb", block_size=BLOCK_BYTES)
    try:
        yield file
        file.close()
        if hasattr(fs, "call_s3"):  # its mv takes a key with * or [ for a pattern
            fs.cp_file(part, path.path)
            fs.rm_file(part)
        else:
            fs.mv(part, path.path)
    except BaseException:
        with suppress(Exception):  # the next try removes it too
            _abandon(file)
            fs.rm_file(part)
        raise


def _abandon(file: Any) -> None:
    """Close a file that is not complete. An upload is aborted; fsspec would complete it, even after an exception."""
    from fsspec.spec import AbstractBufferedFile

    if not isinstance(file, AbstractBufferedFile):
        file.close()
        return
    with suppress(Exception):  # nothing is left to abort if it could not be completed
        file.discard()
    file.closed = True


def _make_folder(path: ObjectStoragePath) -> None:
    if path.protocol in ("", "file", "local"):  # in an object store this would create the bucket
        path.fs.makedirs(path.path.rpartition("/")[0], exist_ok=True)
