"""Libraries that open ``obs://`` through fsspec, as pandas does."""

from __future__ import annotations

import os

import fsspec
import pytest

from tests.support.object_store import BUCKET, ObjectStore, SetConnection

pytest.importorskip("s3fs")


@pytest.fixture
def mine(store: ObjectStore, set_connection: SetConnection, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The connection ``mine`` opens the store, and the default connection opens nothing."""
    monkeypatch.setenv("AIRFLOW_CONN_MINE", os.environ["AIRFLOW_CONN_MODELARTS_DEFAULT"])
    set_connection(extra={"obs_endpoint": "http://127.0.0.1:1"})
    return store


def test_a_url_opens_with_the_default_connection(store: ObjectStore) -> None:
    with fsspec.open(f"obs://{BUCKET}/a b.txt", "w") as file:
        file.write("text")
    assert store.objects() == {"a b.txt": b"text"}
    fs, path = fsspec.url_to_fs(f"obs://{BUCKET}/a b.txt")
    assert fs.cat_file(path) == fsspec.filesystem("obs").cat_file(path) == b"text"


def test_a_url_names_its_connection(mine: ObjectStore) -> None:
    with fsspec.open(f"obs://mine@{BUCKET}/a@b.txt", "wb") as file:
        file.write(b"1")
    assert mine.objects() == {"a@b.txt": b"1"}
    assert [file.path for file in fsspec.open_files(f"obs://mine@{BUCKET}/*.txt")] == [f"{BUCKET}/a@b.txt"]


def test_a_storage_option_names_the_connection(mine: ObjectStore) -> None:
    for url in (f"obs://{BUCKET}/a.txt", f"{BUCKET}/a.txt"):
        with fsspec.open(url, "wb", protocol="obs", conn_id="mine") as file:
            file.write(b"1")
    assert mine.objects() == {"a.txt": b"1"}
    assert fsspec.filesystem("obs", conn_id="mine").ls(BUCKET, detail=False) == [f"{BUCKET}/a.txt"]


def test_a_repeated_request_without_credentials_shows_the_refusal_again(store: ObjectStore) -> None:
    store.refuse = lambda method, path: (403, "AccessDenied")
    for options in ({}, {"anon": True}):  # as pandas does it
        with pytest.raises(PermissionError, match=f"Bucket '{BUCKET}' refuses access"):
            fsspec.open(f"obs://{BUCKET}/a.txt", **options).open()
