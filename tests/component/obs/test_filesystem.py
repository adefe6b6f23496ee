"""obs:// paths against moto's S3 server: every kind of credentials, renewal, errors, and keys of any spelling."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from upath import UPath

from airflow_modelarts.api.arguments import ArgumentError
from airflow_modelarts.api.errors import ModelArtsConfigurationError, ModelArtsError
from airflow_modelarts.connection.fields import AUTH_KINDS
from airflow_modelarts.filesystem import get_fs, object_storage_path, path_with_connection
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.accounts import KeyPair
from tests.support.documents import EXAMPLES
from tests.support.object_store import BUCKET, Clock, ObjectStore, SetConnection, connect
from tests.support.worker_credentials import Worker, set_up

pytest.importorskip("s3fs")

MIB = 1024 * 1024
AWKWARD_KEYS = ["a b.txt", "1+1.txt", "50%.txt", "a%20b.txt", "数据/猫.txt", "a[1]*.txt", "a#b;c=d&e.txt"]


def file(key: str = "a.txt") -> ObjectStoragePath:
    return object_storage_path(f"/{BUCKET}/{key}")


def as_user(set_connection: SetConnection, store: ObjectStore) -> None:
    extra = {"auth": "password", "domain_name": accounts.DOMAIN_NAME}
    connect(set_connection, store, login=accounts.USER_NAME, password=accounts.PASSWORD, extra=extra)


@pytest.mark.parametrize("kind", AUTH_KINDS)
def test_each_kind_of_credentials_writes_and_reads(
    kind: str, worker: Worker, store: ObjectStore, set_connection: SetConnection
) -> None:
    emulator = worker.emulator
    emulator.state.accounts = store.accounts
    fields = {"login": None, "password": None, **set_up(worker, kind)}
    extra = {"auth": kind, "iam_endpoint": emulator.url, **fields.pop("extra", {})}
    connect(set_connection, store, host=emulator.url, extra=extra, **fields)
    file().write_bytes(b"content")
    assert file().read_bytes() == b"content"
    assert store.objects() == {"a.txt": b"content"}


def test_a_temporary_key_of_the_connection_writes_and_reads(store: ObjectStore, set_connection: SetConnection) -> None:
    key = {"login": accounts.TEMPORARY_ACCESS_KEY, "password": accounts.TEMPORARY_SECRET_KEY}
    connect(set_connection, store, **key, extra={"security_token": accounts.SECURITY_TOKEN})
    file().write_bytes(b"content")
    assert file().read_bytes() == b"content"


def test_a_key_of_a_token_is_requested_once_and_renewed_before_it_expires(
    store: ObjectStore, clock: Clock, set_connection: SetConnection
) -> None:
    as_user(set_connection, store)
    fs = get_fs()
    fs.pipe_file(f"{BUCKET}/a", b"1")
    get_fs().pipe_file(f"{BUCKET}/b", b"2")
    exchanges = "/v3.0/OS-CREDENTIAL/securitytokens"
    assert store.operations("POST").count(exchanges) == 1, "all file systems of the process share the cache"
    clock.offset = 3400
    fs.pipe_file(f"{BUCKET}/c", b"3")
    assert store.operations("POST").count(exchanges) == 2
    assert store.operations("POST").count("/v3/auth/tokens") == 1
    assert set(store.objects()) == {"a", "b", "c"}


def test_a_temporary_key_that_expires_in_a_long_write_is_renewed(
    store: ObjectStore, clock: Clock, set_connection: SetConnection
) -> None:
    as_user(set_connection, store)
    with get_fs().open(f"{BUCKET}/big", "wb", block_size=5 * MIB) as big:
        for number in range(4):
            big.write(bytes([number]) * 5 * MIB)
            clock.offset += 3700
    content = store.objects()["big"]
    assert content == b"".join(bytes([number]) * 5 * MIB for number in range(4))
    assert store.operations("POST").count("/v3.0/OS-CREDENTIAL/securitytokens") >= 4


def test_a_key_that_is_revoked_early_is_renewed(store: ObjectStore, set_connection: SetConnection) -> None:
    as_user(set_connection, store)
    fs = get_fs()
    fs.pipe_file(f"{BUCKET}/a", b"1")
    revoke_keys(store)
    fs.pipe_file(f"{BUCKET}/a", b"2")
    assert store.objects() == {"a": b"2"}
    revoke_keys(store)
    assert fs.ls(BUCKET, detail=False) == [f"{BUCKET}/a"], "a listing goes through botocore's paginator"


def revoke_keys(store: ObjectStore) -> None:
    for access_key in list(store.accounts._keys):
        if access_key.startswith("TEMPORARY"):
            store.accounts.remove_key(access_key)


def test_a_token_that_iam_revoked_is_renewed(store: ObjectStore, clock: Clock, set_connection: SetConnection) -> None:
    as_user(set_connection, store)
    file("a").write_bytes(b"1")
    store.accounts.expire_tokens()
    clock.offset = 3500
    file("b").write_bytes(b"2")
    assert set(store.objects()) == {"a", "b"}


def test_a_changed_connection_is_read_again_after_a_refusal(store: ObjectStore, set_connection: SetConnection) -> None:
    fs = get_fs()
    fs.pipe_file(f"{BUCKET}/a", b"1")
    store.accounts.remove_key(accounts.ACCESS_KEY)
    with pytest.raises(PermissionError, match="InvalidAccessKeyId"):
        fs.pipe_file(f"{BUCKET}/b", b"2")
    store.accounts.add_key(KeyPair("NEWKEY", "new-secret"))
    connect(set_connection, store, login="NEWKEY", password="new-secret")
    fs.pipe_file(f"{BUCKET}/c", b"3")


def test_a_changed_endpoint_is_read_after_a_request_that_reached_nothing(
    store: ObjectStore, set_connection: SetConnection
) -> None:
    connect(set_connection, store, extra={"obs_endpoint": "http://127.0.0.1:1"})
    fs = get_fs()
    fs.retries = 1
    with pytest.raises(ConnectionError, match="cannot be reached"):
        fs.pipe_file(f"{BUCKET}/a", b"1")
    connect(set_connection, store)
    fs.pipe_file(f"{BUCKET}/a", b"2")
    assert store.objects() == {"a": b"2"}


def test_a_listing_shows_what_others_have_written(store: ObjectStore) -> None:
    fs = get_fs()
    assert fs.ls(BUCKET) == []
    store.client().put_object(Bucket=BUCKET, Key="late", Body=b"")
    assert fs.ls(BUCKET, detail=False) == [f"{BUCKET}/late"]


# Spellings


@pytest.mark.parametrize("key", AWKWARD_KEYS)
def test_a_key_is_the_same_for_a_path_and_for_boto3(store: ObjectStore, key: str) -> None:
    path = object_storage_path(f"/{BUCKET}/{key}")
    path.write_bytes(b"ours")
    assert store.client().get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"ours"
    store.client().put_object(Bucket=BUCKET, Key=key, Body=b"theirs")
    assert path.read_bytes() == b"theirs"
    assert ObjectStoragePath(path_with_connection(path)).read_bytes() == b"theirs"
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    path.unlink()
    assert store.objects() == {}


@pytest.mark.parametrize("key", ["a//b.txt", "/a.txt"])
def test_a_key_with_an_empty_part_opens_through_the_file_system(store: ObjectStore, key: str) -> None:
    store.client().put_object(Bucket=BUCKET, Key=key, Body=b"theirs")
    assert get_fs().cat_file(f"{BUCKET}/{key}") == b"theirs"


@pytest.mark.parametrize("scheme", ["obs", "s3", "s3a", "s3n", "OBS"])
def test_each_spelling_of_a_place_is_the_same_path(scheme: str) -> None:
    path = object_storage_path(f"{scheme}://{BUCKET}/a%20b/c.txt")
    assert path_with_connection(path) == f"obs://modelarts_default@{BUCKET}/a b/c.txt"
    assert path == object_storage_path(f"/{BUCKET}/a b/c.txt")
    assert (path.protocol, path.name) == ("obs", "c.txt")


def test_a_place_can_name_its_connection() -> None:
    assert path_with_connection(object_storage_path(f"s3a://mine@{BUCKET}/a")) == f"obs://mine@{BUCKET}/a"
    assert path_with_connection(object_storage_path(f"obs://mine@{BUCKET}/a", "other")) == f"obs://other@{BUCKET}/a"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("gs://bucket/key", "^place is 'gs://bucket/key', which is not in OBS: give obs://"),
        (None, "^place is None: give a text such as obs://bucket/key"),
        (b"obs://bucket/key", "^place is b'obs://bucket/key': give a text"),
    ],
)
def test_what_is_no_place_in_obs_is_refused(place: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        object_storage_path(place)


@pytest.mark.parametrize("given", [{}, {"conn_id": "modelarts_default"}])
def test_a_path_without_a_connection_has_the_default_one(store: ObjectStore, given: dict[str, str]) -> None:
    path = ObjectStoragePath(f"obs://{BUCKET}/folder/a.txt", **given)
    with path.open("w") as opened:
        opened.write("text")
    assert path.exists()
    assert path.stat().st_size == 4
    assert path.parent.is_dir()
    assert [found.name for found in path.parent.iterdir()] == ["a.txt"]
    for folder in (path.parent, ObjectStoragePath(f"obs://{BUCKET}", **given)):
        assert [found.name for found in folder.rglob("*.txt")] == ["a.txt"]
    assert [found.name for found in path.parent.glob("*.txt")] == ["a.txt"]


def test_the_example_of_the_documentation_runs(store: ObjectStore, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(EXAMPLES["place"], "example place", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "done ['a.txt']"


@pytest.mark.parametrize("text", ["obs://modelarts_default@{}/f/a.txt", "modelarts_default@{}/f/a.txt"])
def test_a_method_of_the_file_system_accepts_the_text_of_a_path(store: ObjectStore, text: str) -> None:
    place = text.format(BUCKET)
    fs = get_fs()
    fs.pipe_file(place, b"content")
    assert fs.cat_file(place) == b"content"
    assert fs.find(place.removesuffix("a.txt")) == fs.glob(place.replace("a.txt", "*")) == [f"{BUCKET}/f/a.txt"]
    assert store.objects() == {"f/a.txt": b"content"}


@pytest.mark.parametrize("key", ["a@b.txt", "c@d/e@f.txt"])
def test_an_at_sign_in_a_key_names_no_connection(store: ObjectStore, key: str) -> None:
    get_fs().pipe_file(f"obs://{BUCKET}/{key}", b"1")
    assert store.objects() == {key: b"1"}


def test_a_path_of_universal_pathlib_names_its_connection(
    store: ObjectStore, set_connection: SetConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    file().write_bytes(b"1")
    monkeypatch.setenv("AIRFLOW_CONN_MINE", os.environ["AIRFLOW_CONN_MODELARTS_DEFAULT"])
    set_connection(extra={"obs_endpoint": "http://127.0.0.1:1"})
    path = UPath(f"obs://mine@{BUCKET}/a.txt")
    assert path.read_bytes() == b"1"
    assert UPath(f"obs://{BUCKET}/a.txt", conn_id="mine").read_bytes() == b"1"


# Errors


def refusing(status: int, code: str) -> Callable[[str, str], tuple[int, str] | None]:
    return lambda method, path: (status, code)


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "AccessDenied", PermissionError, ["refuses access", "login", "bucket's policy"]),
        (404, "NoSuchBucket", FileNotFoundError, ["does not exist", "region or obs_endpoint"]),
        (301, "PermanentRedirect", OSError, ["is in another region", "set obs_endpoint"]),
        (400, "AuthorizationHeaderMalformed", OSError, ["is in another region", "set obs_endpoint"]),
        (403, "InvalidAccessKeyId", PermissionError, ["does not know the access key", "login"]),
        (403, "SignatureDoesNotMatch", PermissionError, ["refuses the signature", "password (the secret key)"]),
        (400, "ExpiredToken", PermissionError, ["refuses the temporary key", "security_token"]),
        (403, "RequestTimeTooSkewed", PermissionError, ["clock", "15 minutes"]),
        (401, "Unauthorized", OSError, ["refuses the request", "Unauthorized of the test"]),
        (409, "OperationAborted", OSError, ["refuses the request", "OperationAborted of the test"]),
        (501, "NotImplemented", OSError, ["cannot be used now", "NotImplemented of the test"]),
        (405, "MethodNotAllowed", OSError, ["refuses the request", "MethodNotAllowed of the test"]),
    ],
)
@pytest.mark.parametrize("request_of", ["write", "list"])
def test_an_error_names_the_bucket_and_the_field(
    store: ObjectStore, status: int, code: str, kind: type[Exception], words: list[str], request_of: str
) -> None:
    store.refuse = refusing(status, code)
    with pytest.raises(kind) as caught:
        file().write_bytes(b"1") if request_of == "write" else get_fs().ls(f"{BUCKET}/folder")
    text = str(caught.value)
    assert all(word in text for word in [f"Bucket '{BUCKET}'", "connection 'modelarts_default'", code, *words]), text
    assert accounts.SECRET_KEY not in "".join(_texts(caught.value))


@pytest.mark.parametrize(("status", "words"), [(403, "refuses access"), (301, "another region"), (400, "obs_endpoint")])
def test_an_answer_without_a_body_is_explained_too(store: ObjectStore, status: int, words: str) -> None:
    store.refuse = refusing(status, "Hidden")
    with pytest.raises(OSError, match=f"Bucket '{BUCKET}' .*{words}"):
        file().stat()


def _texts(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield f"{error!r} {vars(error)}"
        error = error.__cause__


def test_an_endpoint_that_does_not_listen_is_named(set_connection: SetConnection) -> None:
    set_connection(extra={"obs_endpoint": "http://127.0.0.1:1"})
    fs = get_fs()
    fs.retries = 1
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:1 cannot be reached: .*onnect call failed"):
        fs.ls(BUCKET)


def test_a_missing_object_is_a_missing_file(store: ObjectStore) -> None:
    with pytest.raises(FileNotFoundError):
        file("missing").read_bytes()


def test_a_missing_object_is_named(store: ObjectStore, set_connection: SetConnection) -> None:
    fs = get_fs()
    with pytest.raises(FileNotFoundError, match=f"^Object '{BUCKET}/a b' does not exist "):
        fs.call_s3("get_object", Bucket=BUCKET, Key="a b")
    source = {"Bucket": BUCKET, "Key": "from"}
    with pytest.raises(FileNotFoundError, match=f"^Object '{BUCKET}/from' does not exist "):
        fs.call_s3("copy_object", Bucket=BUCKET, Key="to", CopySource=source)
    set_connection(extra={"obs_endpoint": "http://127.0.0.1:1"})
    fs.pipe_file(f"{BUCKET}/a", b"1")
    assert set(store.objects()) == {"a"}, "a missing object is no reason to read the connection again"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({}, "obs_endpoint is missing: set it in the extras of connection 'modelarts_default'"),
        ({"obs_endpoint": "http://obs.example.com"}, "obs_endpoint of connection 'modelarts_default' is"),
        ({"obs_endpoint": "my-bucket.obs.eu-de.otc.t-systems.com"}, "leave the bucket out"),
    ],
)
def test_a_wrong_endpoint_is_an_error_of_the_connection(
    set_connection: SetConnection, extra: dict[str, str], message: str
) -> None:
    set_connection(extra=extra)
    with pytest.raises(ModelArtsConfigurationError, match=message):
        get_fs().ls(BUCKET)


def test_a_refusal_of_iam_names_the_fields(store: ObjectStore, set_connection: SetConnection) -> None:
    connect(set_connection, store, login=None, password="MIIunknown", extra={"auth": "token"})
    with pytest.raises(ModelArtsError, match="temporary key, which the object store needs") as caught:
        file().write_bytes(b"1")
    assert "MIIunknown" not in "".join(_texts(caught.value))


def test_a_connection_that_does_not_exist_is_named_at_the_first_use() -> None:
    path = object_storage_path(f"obs://absent@{BUCKET}/a")
    with pytest.raises(ModelArtsConfigurationError, match="Airflow connection 'absent' does not exist"):
        path.read_bytes()


def test_options_that_the_connection_gives_are_refused() -> None:
    with pytest.raises(TypeError, match="storage option key is not accepted for obs://: set it in the connection"):
        get_fs(None, {"key": "AK"})


def test_without_s3fs_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_modelarts.filesystem.find_spec", lambda name: None)
    with pytest.raises(ModelArtsConfigurationError, match=r"pip install 'airflow-modelarts\[obs\]'"):
        get_fs()


# Secrets and the environment


def test_a_pickled_file_system_holds_the_id_of_the_connection_only(store: ObjectStore) -> None:
    fs = get_fs()
    fs.pipe_file(f"{BUCKET}/a", b"1")
    pickled = pickle.dumps(fs)
    for secret in (accounts.ACCESS_KEY, accounts.SECRET_KEY, store.url):
        assert secret.encode() not in pickled
        assert secret not in fs.to_json() + repr(fs) + repr(fs.storage_options)
    assert pickle.loads(pickled).cat_file(f"{BUCKET}/a") == b"1"


def test_the_log_of_botocore_holds_no_key_that_airflow_would_not_mask(
    store: ObjectStore, set_connection: SetConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked: list[str] = []
    monkeypatch.setattr("airflow_modelarts.obs.keys.mask_secret", masked.append)
    as_user(set_connection, store)
    file().write_bytes(b"1")
    (key,) = (key for name, key in store.accounts._keys.items() if name.startswith("TEMPORARY"))
    assert masked == [key.secret_key, key.security_token]


def test_the_configuration_of_amazons_tools_has_no_effect(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "WRONG")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "WRONG")
    file().write_bytes(b"1")
    monkeypatch.undo()
    assert set(store.objects()) == {"a.txt"}


def test_the_module_that_airflow_loads_imports_no_s3fs() -> None:
    script = (
        "import sys, airflow_modelarts.filesystem, airflow_modelarts.provider as p; p.get_provider_info(); "
        "print({'s3fs', 'botocore', 'aiobotocore'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "set()"
