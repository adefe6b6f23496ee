"""What requests to OBS look like: host, region, proxy, the rights that they need; and keys with unusual characters."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from airflow_modelarts.api.arguments import ArgumentError
from airflow_modelarts.filesystem import get_fs, object_storage_path, path_of_output
from airflow_modelarts.operators.files import atomic_write, clean_up_partials
from airflow_modelarts.testing.emulator.service import accounts
from tests.support.loopback import Server
from tests.support.object_store import BUCKET, ObjectStore, SetConnection, connect
from tests.support.task_instances import TaskInstance

PUBLIC = "modelarts.cn-north-4.myhuaweicloud.com"


@pytest.mark.parametrize(
    ("fields", "host", "path", "region"),
    [
        ({"host": PUBLIC}, "my-bucket.obs.cn-north-4.myhuaweicloud.com", "/a.txt", "cn-north-4"),
        (
            {"host": PUBLIC, "extra": {"region": "other", "obs_endpoint": "obs.eu-de.otc.t-systems.com"}},
            *("my-bucket.obs.eu-de.otc.t-systems.com", "/a.txt", "eu-de"),
        ),
        (
            {"extra": {"region": "my-place", "obs_endpoint": "https://s3.example.com"}},
            *("my-bucket.s3.example.com", "/a.txt", "my-place"),
        ),
        ({"extra": {"obs_endpoint": "https://minio"}}, "minio", "/my-bucket/a.txt", "us-east-1"),
        ({"extra": {"obs_endpoint": "http://127.0.0.1:9"}}, "127.0.0.1:9", "/my-bucket/a.txt", "us-east-1"),
    ],
)
def test_the_connection_gives_the_host_and_the_region_of_a_signature(
    set_connection: SetConnection, fields: dict[str, Any], host: str, path: str, region: str
) -> None:
    set_connection(**fields)
    url = urlsplit(get_fs().sign(f"{BUCKET}/a.txt"))
    assert (url.netloc, url.path) == (host, path)
    assert parse_qs(url.query)["X-Amz-Credential"][0].split("/")[2] == region


def test_requests_go_through_the_proxy_of_the_environment(
    set_connection: SetConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)

    def refuse(connection: socket.socket, first: bytes) -> None:
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    proxy = Server(refuse)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    set_connection(extra={"obs_endpoint": "https://s3.example.com"})
    fs = get_fs()
    fs.retries = 1
    with pytest.raises(OSError, match="proxy"):
        fs.ls(BUCKET)
    proxy.close()
    assert proxy.requests[0].startswith(b"CONNECT my-bucket.s3.example.com:443")


def test_a_temporary_key_is_requested_for_an_hour(store: ObjectStore, set_connection: SetConnection) -> None:
    extra = {"auth": "password", "domain_name": accounts.DOMAIN_NAME}
    connect(set_connection, store, login=accounts.USER_NAME, password=accounts.PASSWORD, extra=extra)
    get_fs().ls(BUCKET)
    assert store.durations == [3600]


@pytest.mark.parametrize("size", [1, 20 * 1024 * 1024], ids=["small", "multipart"])
def test_a_write_needs_no_other_rights_than_those_of_objects_and_lists(store: ObjectStore, size: int) -> None:
    store.requests.clear()
    path = object_storage_path(f"/{BUCKET}/folder/out")
    with atomic_write(path, clean_up_partials(path, TaskInstance())) as file:
        file.write(bytes(size))
    needed = {(method, url.partition("?")[0]) for method, url in store.requests}
    part = clean_up_partials(path, TaskInstance()).rpartition("/")[2]
    objects = [f"/{BUCKET}/folder/{name}" for name in ("out", part)]
    of_objects = {(method, url) for method in ("GET", "HEAD", "PUT", "POST", "DELETE") for url in objects}
    assert needed - of_objects <= {("GET", f"/{BUCKET}")}, "only a listing concerns more than these objects"
    assert not any("acl" in url or "tagging" in url for _, url in store.requests)
    assert store.objects() == {"folder/out": bytes(size)}


# Keys


@pytest.mark.parametrize(
    "key", ["a?b.txt", "a#b?c", "a?versionId=1", "50%.txt", "a%3Fb", "a+b c", "a//b", "数据/猫.txt"]
)
def test_a_place_opens_what_it_names(store: ObjectStore, key: str) -> None:
    store.client().put_object(Bucket=BUCKET, Key=key, Body=b"theirs")
    places = [f"/{BUCKET}/{key}", f"obs://mine@{BUCKET}/{key}", f"s3a://{BUCKET}/{quote(key)}"]
    if "%" not in key:
        places += [f"obs://{BUCKET}/{key}", f"s3://{BUCKET}/{key}"]
    for place in places:
        path = object_storage_path(place, "modelarts_default")
        assert path.read_bytes() == path_of_output(place, "modelarts_default").read_bytes() == b"theirs"
        if "@" not in place:
            assert path_of_output({"work_path": {"type": "OBS", "path": place}}) == path
        assert object_storage_path(str(path)) == path
        path.write_bytes(b"theirs")
    assert store.objects() == {key: b"theirs"}


def test_the_text_of_a_path_of_an_older_airflow_is_a_place() -> None:
    assert object_storage_path(f"obs://mine@/{BUCKET}/a%20b") == object_storage_path(f"/{BUCKET}/a%20b", "mine")


def test_a_query_that_signs_a_link_is_no_part_of_the_key() -> None:
    assert object_storage_path(f"/{BUCKET}/a.txt?Signature=x").path == f"{BUCKET}/a.txt"
    assert object_storage_path(f"obs://mine@{BUCKET}/a.txt?Expires=1&Signature=x").path == f"{BUCKET}/a.txt"


@pytest.mark.parametrize("key", ["a?", "f/a#", "a\tb"])
def test_a_key_that_a_path_of_airflow_would_change_is_refused(store: ObjectStore, key: str) -> None:
    for place in (f"/{BUCKET}/{key}", f"obs://{BUCKET}/{quote(key)}", f"obs://modelarts_default@{BUCKET}/{key}"):
        with pytest.raises(ArgumentError) as raised:
            object_storage_path(place)
    assert str(raised.value).endswith(f"open it with get_fs('modelarts_default'), as {f'{BUCKET}/{key}'!r}")
    get_fs().pipe_file(f"{BUCKET}/{key}", b"1")
    assert store.objects() == {key: b"1"}


def test_a_key_with_an_empty_part_opens_as_a_path_and_is_found(store: ObjectStore) -> None:
    store.client().put_object(Bucket=BUCKET, Key="folder//b.txt", Body=b"theirs")
    folder = object_storage_path(f"/{BUCKET}/folder")
    assert object_storage_path(f"/{BUCKET}/folder//b.txt").read_bytes() == b"theirs"
    assert folder.fs.find(folder.path) == [f"{BUCKET}/folder//b.txt"]
