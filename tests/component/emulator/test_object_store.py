"""The object store beside the emulator, as boto3 meets it: signatures, keys, and the files of completed tasks."""

import dataclasses
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests
from botocore.client import Config
from botocore.exceptions import ClientError

from airflow_modelarts.filesystem import path_of_output
from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.accounts import KeyPair
from airflow_modelarts.testing.emulator.service.outputs import IMAGE

BUCKET = accounts.BUCKET
AWKWARD_KEYS = [
    "a b/c d.txt",
    "1+1=2.txt",
    "100%/50%25.txt",
    "数据/猫.txt",
    "a//b///c.txt",
    "/leading.txt",
    "~!*'();:@&=,$.txt",
]


@pytest.fixture(scope="module")
def running() -> Iterator[EmulatorServer]:
    with EmulatorServer(task_duration=0) as server:
        yield server


@pytest.fixture
def emulator(running: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> EmulatorServer:
    """A server whose moto is started once for all tests of this module."""
    running.state.reset()
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", running.airflow_connection())
    return running


def client(server: EmulatorServer, access_key: str = accounts.ACCESS_KEY, **arguments: Any) -> Any:
    given = {"aws_secret_access_key": accounts.SECRET_KEY, "region_name": accounts.REGION, **arguments}
    config = Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}, signature_version="s3v4")
    return boto3.client("s3", endpoint_url=server.obs_url, aws_access_key_id=access_key, config=config, **given)


def keys(server: EmulatorServer, prefix: str = "", bucket: str = BUCKET) -> list[str]:
    listed = client(server).list_objects_v2(Bucket=bucket, Prefix=prefix)
    return [found["Key"] for found in listed.get("Contents", [])]


def content(server: EmulatorServer, key: str, bucket: str = BUCKET) -> bytes:
    read: bytes = client(server).get_object(Bucket=bucket, Key=key)["Body"].read()
    return read


def refusal(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    return raised.value.response["ResponseMetadata"]["HTTPStatusCode"], raised.value.response["Error"]["Code"]


def add_task(server: EmulatorServer, path: str = "obs://my-bucket/out/", template: str = "sys_data_validation") -> Any:
    body = {"work_path": {"type": "OBS", "path": path}}
    return server.state.add_task(template=template, status=2, body=body)


# Objects


@pytest.mark.parametrize("key", AWKWARD_KEYS)
def test_an_object_is_read_back_under_its_key(emulator: EmulatorServer, key: str) -> None:
    client(emulator).put_object(Bucket=BUCKET, Key=key, Body=b"of " + key.encode())
    assert keys(emulator) == [key]
    assert content(emulator, key) == b"of " + key.encode()
    assert client(emulator).head_object(Bucket=BUCKET, Key=key)["ContentLength"] == 3 + len(key.encode())


def test_an_upload_in_parts_is_one_object(emulator: EmulatorServer) -> None:
    data = bytes(range(256)) * 64 * 1024  # 16 MiB: two parts of boto3's
    client(emulator).upload_fileobj(io.BytesIO(data), BUCKET, "large")
    assert content(emulator, "large") == data


def test_a_reset_removes_the_objects_and_keeps_the_bucket(emulator: EmulatorServer) -> None:
    client(emulator).put_object(Bucket=BUCKET, Key="mine", Body=b"")
    requests.post(f"{emulator.url}/emulator/reset", timeout=60).raise_for_status()
    assert keys(emulator) == []


def test_the_store_starts_with_the_first_request_and_shares_no_object(emulator: EmulatorServer) -> None:
    client(emulator).put_object(Bucket=BUCKET, Key="mine", Body=b"")
    with EmulatorServer() as other:
        assert other._object_store._moto is None
        assert keys(other) == []
        moto = other._object_store._moto
        assert moto is not None
    assert moto.poll() is not None


def test_without_moto_the_store_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_modelarts.testing.emulator.http.object_store._MODULE", "no_such_module")
    with EmulatorServer() as other, pytest.raises(ClientError, match=r"did not start: .*no_such_module"):
        keys(other)


# Keys and signatures


def test_the_request_of_an_unknown_key_is_refused(emulator: EmulatorServer) -> None:
    assert refusal(client(emulator, "NOSUCHKEY").list_buckets) == (403, "InvalidAccessKeyId")


def test_the_signature_of_a_wrong_secret_is_refused(emulator: EmulatorServer) -> None:
    wrong = client(emulator, aws_secret_access_key="wrong")
    assert refusal(wrong.put_object, Bucket=BUCKET, Key="k", Body=b"x") == (403, "SignatureDoesNotMatch")
    assert keys(emulator) == []


def test_a_request_without_a_signature_is_refused(emulator: EmulatorServer) -> None:
    answer = requests.get(f"{emulator.obs_url}/{BUCKET}", timeout=60)
    assert (answer.status_code, "<Code>AccessDenied</Code>" in answer.text) == (403, True)


def test_a_temporary_key_needs_its_token(emulator: EmulatorServer) -> None:
    secret = {"aws_secret_access_key": accounts.TEMPORARY_SECRET_KEY}
    bare = client(emulator, accounts.TEMPORARY_ACCESS_KEY, **secret)
    assert refusal(bare.list_buckets) == (400, "InvalidToken")
    whole = client(emulator, accounts.TEMPORARY_ACCESS_KEY, aws_session_token=accounts.SECURITY_TOKEN, **secret)
    assert [bucket["Name"] for bucket in whole.list_buckets()["Buckets"]] == [BUCKET]


def test_a_key_that_has_expired_is_refused(emulator: EmulatorServer) -> None:
    emulator.state.accounts.add_key(KeyPair("OLD", "secret", "token", expires_at=time.time() - 1))
    old = client(emulator, "OLD", aws_secret_access_key="secret", aws_session_token="token")
    assert refusal(old.list_buckets) == (400, "ExpiredToken")


def test_a_clock_that_is_off_is_refused(emulator: EmulatorServer) -> None:
    emulator.state.settings.clock_offset = 3600.0
    assert refusal(client(emulator).list_buckets) == (403, "RequestTimeTooSkewed")


def test_a_presigned_link_opens_until_it_expires(emulator: EmulatorServer) -> None:
    client(emulator).put_object(Bucket=BUCKET, Key="a b+.txt", Body=b"linked")
    place = {"Bucket": BUCKET, "Key": "a b+.txt"}
    link = client(emulator).generate_presigned_url("get_object", Params=place, ExpiresIn=60)
    assert requests.get(link, timeout=60).content == b"linked"
    assert requests.get(link.replace("a%20b", "other"), timeout=60).status_code == 403
    emulator.state.settings.clock_offset = 61.0
    assert requests.get(link, timeout=60).status_code == 403


def test_a_body_that_is_not_the_signed_one_is_refused(emulator: EmulatorServer) -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("PUT", f"{emulator.obs_url}/{BUCKET}/k", data=b"signed")
    S3SigV4Auth(Credentials(accounts.ACCESS_KEY, accounts.SECRET_KEY), "s3", "any").add_auth(request)
    answer = requests.put(request.url, b"forged", headers=dict(request.headers), timeout=60)
    assert (answer.status_code, "XAmzContentSHA256Mismatch" in answer.text) == (400, True)


# Temporary keys for a token


def exchange(server: EmulatorServer, token: str, body: Any = None) -> requests.Response:
    body = body or {"auth": {"identity": {"methods": ["token"], "token": {"duration_seconds": 900}}}}
    url = f"{server.url}/v3.0/OS-CREDENTIAL/securitytokens"
    return requests.post(url, json=body, headers={"X-Auth-Token": token}, timeout=60)


def issue_token(server: EmulatorServer) -> str:
    return server.state.accounts.issue_token(accounts.PROJECT_ID, now=time.time(), lifetime=60).value


def test_a_key_for_a_token_opens_the_store_until_it_expires(emulator: EmulatorServer) -> None:
    answer = exchange(emulator, issue_token(emulator))
    key = answer.json()["credential"]
    login = {"aws_secret_access_key": key["secret"], "aws_session_token": key["securitytoken"]}
    assert answer.status_code == 201
    assert client(emulator, key["access"], **login).list_buckets()["Buckets"]
    known = emulator.state.accounts.find_key(key["access"])
    assert known is not None
    emulator.state.accounts.add_key(dataclasses.replace(known, expires_at=time.time()))
    assert refusal(client(emulator, key["access"], **login).list_buckets) == (400, "ExpiredToken")


def test_a_wrong_token_gets_no_key(emulator: EmulatorServer) -> None:
    assert exchange(emulator, "wrong").status_code == 401


@pytest.mark.parametrize(
    "identity",
    [
        {"methods": ["password"]},
        {},
        *({"methods": ["token"], "token": {"duration_seconds": seconds}} for seconds in (899, 86_401, "soon", True)),
    ],
    ids=str,
)
def test_a_malformed_request_gets_no_key(emulator: EmulatorServer, identity: Any) -> None:
    assert exchange(emulator, issue_token(emulator), {"auth": {"identity": identity}}).status_code == 400


def test_a_users_password_opens_the_store_through_airflow(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.loads(emulator.airflow_connection())
    connection |= {"login": accounts.USER_NAME, "password": accounts.PASSWORD}
    connection["extra"] |= {"auth": "password", "domain_name": accounts.DOMAIN_NAME}
    monkeypatch.setenv("AIRFLOW_CONN_BY_PASSWORD", json.dumps(connection))
    path_of_output("obs://my-bucket/k", "by_password").write_text("written")
    assert content(emulator, "k") == b"written"


# The files of completed tasks


def test_a_version_writes_the_samples_of_its_results(emulator: EmulatorServer) -> None:
    task = add_task(emulator)
    version = task.versions[0]
    results = [*ModelArtsHook().list_processor_task_version_results(task.task_id, version.version_id)]
    sources = [result.new_source for result in results if result.new_source]
    samples = [key for key in keys(emulator, "out/") if key.endswith(".jpg")]
    assert sorted(f"obs://{BUCKET}/{key}" for key in samples) == sorted(sources)
    assert content(emulator, samples[0]) == IMAGE
    manifest = content(emulator, "out/V001/V001.manifest").decode().splitlines()
    assert [json.loads(line)["source"] for line in manifest] == sources


def test_a_versions_result_has_its_sample_counts(emulator: EmulatorServer) -> None:
    task = add_task(emulator)
    described = ModelArtsHook().describe_processor_task_version(task.task_id, task.versions[0].version_id).to_json()
    result = json.loads(content(emulator, "out/V001/result.json"))
    assert {name: described[name] for name in result} == result
    assert result["origin_sample_count"] == 16


def test_a_feature_analysis_writes_its_result(emulator: EmulatorServer) -> None:
    task = add_task(emulator, template="sys_data_analyse")
    assert (
        json.loads(content(emulator, "out/result.json")) == ModelArtsHook().describe_processor_task(task.task_id).result
    )
    assert keys(emulator, "out/samples/") == [f"out/samples/0000000{number}.jpg" for number in range(3)]


@pytest.mark.parametrize(
    "place", ["obs://my-bucket/out", "s3://my-bucket/out/", "/my-bucket/out/", "s3a://my-bucket/out"]
)
def test_each_spelling_of_a_place_is_the_same_place(emulator: EmulatorServer, place: str) -> None:
    add_task(emulator, place)
    assert "out/V001/result.json" in keys(emulator)


def test_a_task_that_has_not_completed_writes_nothing(emulator: EmulatorServer) -> None:
    task = add_task(emulator)
    emulator.state.set_status(task.task_id, 1)
    assert keys(emulator) == []
    emulator.state.set_status(task.task_id, 2)
    assert "out/V001/result.json" in keys(emulator)


def test_a_deleted_file_stays_deleted(emulator: EmulatorServer) -> None:
    add_task(emulator)
    client(emulator).delete_object(Bucket=BUCKET, Key="out/V001/result.json")
    assert "out/V001/result.json" not in keys(emulator)


def test_a_dataset_gets_no_files(emulator: EmulatorServer) -> None:
    emulator.state.add_task(
        template="sys_data_cleaning",
        status=2,
        body={"work_path": {"type": "DATASET", "path": "id", "output_path": "/datasets/demo"}},
    )
    assert keys(emulator) == []


def test_many_samples_are_not_all_written(emulator: EmulatorServer) -> None:
    task = add_task(emulator)
    emulator.state.set_sample_count(task.task_id, 1_000_000)
    assert len(keys(emulator, "out/V001/")) == 92  # 90 of the first 100 are not deleted
    assert json.loads(content(emulator, "out/V001/result.json"))["add_sample_count"] == 200_000


# Inputs


def create(place: str) -> Any:
    return ModelArtsHook().create_processor_task(
        name=f"of-{abs(hash(place))}", template={"id": "sys_data_validation"}, inputs=[{"type": "OBS", "source": place}]
    )


def test_an_empty_input_is_accepted_by_default(emulator: EmulatorServer) -> None:
    assert create(f"obs://{BUCKET}/nothing/").task_id


@pytest.mark.parametrize(
    ("place", "code"),
    [
        (f"obs://{BUCKET}/nothing/", "ModelArts.4312"),
        (f"obs://{BUCKET}/im", "ModelArts.4312"),
        (f"/{BUCKET}/images/cats/x", "ModelArts.4312"),
        ("s3://no-such-bucket/images/", "ModelArts.4311"),
    ],
)
def test_an_empty_input_is_refused_when_inputs_are_checked(emulator: EmulatorServer, place: str, code: str) -> None:
    client(emulator).put_object(Bucket=BUCKET, Key="images/cats/1.jpg", Body=IMAGE)
    settings = requests.patch(f"{emulator.url}/emulator/settings", json={"check_inputs": True}, timeout=60)
    assert settings.json()["check_inputs"] is True
    with pytest.raises(Exception, match=code):
        create(place)
    assert EmulatorState.all_tasks(emulator.state) == []


@pytest.mark.parametrize("place", [f"obs://{BUCKET}/images/", f"/{BUCKET}/images/cats/1.jpg", f"obs://{BUCKET}"])
def test_an_input_that_holds_objects_is_accepted_when_inputs_are_checked(emulator: EmulatorServer, place: str) -> None:
    client(emulator).put_object(Bucket=BUCKET, Key="images/cats/1.jpg", Body=IMAGE)
    emulator.state.settings.check_inputs = True
    assert create(place).task_id


def test_the_output_of_a_task_is_no_empty_input(emulator: EmulatorServer) -> None:
    add_task(emulator)
    emulator.state.settings.check_inputs = True
    assert create(f"obs://{BUCKET}/out/V001/").task_id
