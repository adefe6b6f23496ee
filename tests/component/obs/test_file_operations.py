"""Files and folders in OBS that are copied, moved, deleted, opened and pickled; nothing is half done or lost."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_modelarts.filesystem import object_storage_path, path_with_connection
from tests.support.object_store import BUCKET, ObjectStore

pytest.importorskip("s3fs")

FOLDER = {"f/x": b"1", "f/g/y": b"2"}


def path(key: str, conn_id: str | None = None) -> ObjectStoragePath:
    return object_storage_path(f"/{BUCKET}/{key}", conn_id)


def put(store: ObjectStore, objects: dict[str, bytes]) -> None:
    for key, body in objects.items():
        store.client().put_object(Bucket=BUCKET, Key=key, Body=body)


@pytest.mark.parametrize(
    "operation",
    [
        lambda folder: folder.rename(path("h")),
        lambda folder: folder.move(path("h")),
        lambda folder: folder.copy(path("h")),
        lambda folder: folder.unlink(),
        lambda folder: folder.fs.rm(folder.path),
        lambda folder: folder.read_bytes(),
        lambda folder: folder.open(),
    ],
    ids=["rename", "move", "copy", "unlink", "rm", "read_bytes", "open"],
)
def test_a_folder_is_refused_where_a_file_is_expected(
    store: ObjectStore, operation: Callable[[ObjectStoragePath], Any]
) -> None:
    put(store, FOLDER)
    with pytest.raises(IsADirectoryError, match=f"^obs://{BUCKET}/f is a folder: "):
        operation(path("f"))
    assert store.objects() == FOLDER


def test_a_folder_is_copied_and_moved_with_all_that_is_below_it(store: ObjectStore) -> None:
    put(store, FOLDER)
    path("f").copy(path("c"), recursive=True)
    path("f").move(path("h"), recursive=True)
    assert store.objects() == {"c/x": b"1", "c/g/y": b"2", "h/x": b"1", "h/g/y": b"2"}
    path("c").move(path("h"), recursive=True)
    assert set(store.objects()) == {"h/x", "h/g/y", "h/c/x", "h/c/g/y"}, "an existing folder is not replaced"


def test_an_object_that_marks_a_folder_is_not_copied(store: ObjectStore) -> None:
    put(store, {**FOLDER, "f/": b"", "f/g/": b""})
    path("f").move(path("h"), recursive=True)
    left_by_s3fs_of_2025 = {"f/", "f/g/"}
    moved = {key: data for key, data in store.objects().items() if key not in left_by_s3fs_of_2025}
    assert moved == {"h/x": b"1", "h/g/y": b"2"}


def test_a_folder_is_not_moved_into_itself(store: ObjectStore) -> None:
    put(store, FOLDER)
    with pytest.raises(OSError, match=f"{BUCKET}/f cannot be copied or moved into itself"):
        path("f").move(path("f/g/h"), recursive=True)
    assert store.objects() == FOLDER


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?"])
def test_a_name_that_looks_like_a_pattern_is_literal(store: ObjectStore, name: str) -> None:
    others = {"a1": b"1", "a1/x": b"2"}
    put(store, {**others, f"{name}.txt": b"3", f"{name}/x": b"4"})
    path(f"{name}.txt").copy(path("copy"))
    path(f"{name}.txt").move(path("moved"))
    path(f"{name}/x").parent.rmdir()
    assert store.objects() == {**others, "copy": b"3", "moved": b"3"}


def test_a_pattern_deletes_what_it_matches(store: ObjectStore) -> None:
    put(store, {"a1": b"", "a2": b"", "b": b""})
    path("b").fs.rm(f"{BUCKET}/a*")
    assert set(store.objects()) == {"b"}


# Other connections


@pytest.fixture
def mine(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIRFLOW_CONN_MINE", os.environ["AIRFLOW_CONN_MODELARTS_DEFAULT"])
    return "mine"


# Before Airflow 3.2 an ObjectStoragePath is no proxy, and nothing of its own can be changed.
since_airflow_3_2 = pytest.mark.skipif(not hasattr(ObjectStoragePath, "_from_upath"), reason="needs Airflow 3.2")


@since_airflow_3_2
def test_a_file_is_not_renamed_to_another_connection(store: ObjectStore, mine: str) -> None:
    put(store, {"a": b"1"})
    for target in (path("b", mine), path_with_connection(path("b", mine))):
        with pytest.raises(OSError, match="has the connection 'mine': use move"):
            path("a").rename(target)
    path("a").rename(path("c")).rename(path_with_connection(path("d")))
    path("d").move(path("e", mine))
    assert store.objects() == {"e": b"1"}


@since_airflow_3_2
def test_a_pickle_of_a_path_keeps_its_connection(mine: str) -> None:
    given = path("f/a b?.txt", mine)
    for copied in (pickle.loads(pickle.dumps(given)), copy.deepcopy(given), pickle.loads(pickle.dumps(given.parent))):
        assert copied.conn_id == mine
        assert copied in (given, given.parent)


# Writing


@pytest.mark.parametrize("mode", ["w", "wb", "x", "a", "ab"])
@pytest.mark.parametrize("size", [1, 12 * 1024 * 1024], ids=["small", "multipart"])
def test_a_block_that_raises_writes_nothing(store: ObjectStore, mode: str, size: int) -> None:
    before = {} if mode == "x" else {"a": b"before"}
    put(store, before)

    def write() -> None:
        with path("a").open(mode) as file:
            file.write(b"1" * size if "b" in mode else "1" * size)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write()
    assert store.objects() == before
    assert store.uploads() == []


@pytest.mark.parametrize("mode", ["x", "xb"])
def test_an_existing_file_is_not_created_again(store: ObjectStore, mode: str) -> None:
    put(store, {"a": b"before"})
    with pytest.raises(FileExistsError, match=f"^obs://{BUCKET}/a exists already"):
        path("a").open(mode)
    assert store.objects() == {"a": b"before"}


def test_text_has_the_encoding_and_the_line_ends_of_the_caller(store: ObjectStore) -> None:
    with path("a").open("w", encoding="gbk", newline="\r\n") as file:
        file.write("猫\n")
    with path("a").open("at", encoding="gbk", newline="") as file:
        file.write("狗\n")
    assert store.objects() == {"a": "猫\r\n狗\n".encode("gbk")}
    assert path("a").read_text(encoding="gbk") == "猫\n狗\n"
