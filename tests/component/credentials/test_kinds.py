"""Each kind of credentials with the emulator: what test_connection says, projects by region, agencies, renewals."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from airflow_modelarts.api import errors
from airflow_modelarts.connection.fields import AUTH_KINDS, SOURCE_KINDS
from airflow_modelarts.hooks import ModelArtsAsyncHook, ModelArtsHook
from airflow_modelarts.testing.emulator.service import accounts, trust
from airflow_modelarts.testing.emulator.service.trust import Agency
from tests.support.flows import ONCE
from tests.support.worker_credentials import AGENCY, KEY, OIDC, OTHER, SDK, USER, Worker, obtain, set_up

IDENTITIES = {
    "access_key": f"access key '{accounts.ACCESS_KEY}'",
    "password": f"IAM user '{accounts.USER_NAME}' of account '{accounts.DOMAIN_NAME}'",
    "token": "the IAM token of the connection",
    "agency": "the agency of this server",
    "environment": f"access key '{accounts.ACCESS_KEY}' of the environment",
    "profile": f"access key '{accounts.ACCESS_KEY}' of profile 'basic'",
    "oidc": f"agency '{trust.OIDC_AGENCY_URN}' through identity provider '{trust.PROVIDER_URN}'",
    "pod_identity": "the identity of this pod",
    "assume_agency": f"agency '{trust.AGENCY_NAME}' of account '{trust.AGENCY_DOMAIN_NAME}', assumed by auth 'default' "
    f"took 'profile': access key '{accounts.ACCESS_KEY}' of profile 'basic'",
    "default": f"auth 'default' took 'profile': access key '{accounts.ACCESS_KEY}' of profile 'basic'",
}


@pytest.mark.parametrize("kind", AUTH_KINDS)
def test_testing_a_connection_says_who_calls_and_no_secret(
    worker: Worker, kind: str, printed_log: Callable[[], str]
) -> None:
    worker.connect(kind, **set_up(worker, kind))
    with ModelArtsHook(retries=ONCE) as hook:
        worked, message = hook.test_connection()
        secrets = hook.get_conn().client.credentials.secrets
    assert worked, message
    assert message.endswith(f"Identity: {IDENTITIES[kind]}.")
    hidden = (*secrets, accounts.SECRET_KEY, accounts.PASSWORD, trust.POD_TOKEN, (worker.home / "id-token").read_text())
    assert not [text for text in hidden if text in message + printed_log() + repr(hook.get_conn())]


@pytest.mark.parametrize("kind", AUTH_KINDS)
def test_testing_a_connection_that_is_refused_says_who_called(worker: Worker, kind: str) -> None:
    worker.connect(kind, **set_up(worker, kind))
    worker.emulator.faults.answer(403, operation="ListProcessorTasks", times=None)
    with ModelArtsHook(retries=ONCE) as hook:
        worked, message = hook.test_connection()
    assert not worked
    assert message.endswith(f". Identity: {IDENTITIES[kind]}.")
    assert accounts.SECRET_KEY not in message


def test_testing_a_connection_without_a_key_names_nobody(worker: Worker, pauses: list[float]) -> None:
    worker.connect("default")
    with ModelArtsHook(retries=ONCE) as hook:
        assert "Identity" not in hook.test_connection()[1]


@pytest.mark.parametrize("kind", AUTH_KINDS)
def test_airflows_command_prints_who_calls_although_it_suppresses_logs(
    worker: Worker, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    worker.connect(kind, **set_up(worker, kind))
    logging.disable(logging.CRITICAL)  # as the command does
    try:
        with ModelArtsHook(retries=ONCE) as hook:
            hook.test_connection()
    finally:
        logging.disable(logging.NOTSET)
    assert f"Identity: {IDENTITIES[kind]}.\n" in capsys.readouterr().out


@pytest.mark.parametrize("kind", AUTH_KINDS)
async def test_each_kind_works_in_a_triggerer(worker: Worker, kind: str) -> None:
    worker.connect(kind, **set_up(worker, kind))
    async with ModelArtsAsyncHook(retries=ONCE) as hook:
        assert [task async for task in hook.list_processor_tasks()] == []


@pytest.mark.parametrize("kind", AUTH_KINDS)
def test_a_missing_project_is_found_by_the_region(worker: Worker, kind: str) -> None:
    fields = set_up(worker, kind)
    extra = {**fields.pop("extra", {}), "project_id": "", "region": accounts.REGION}
    project_id = accounts.PROJECT_ID
    if kind == "assume_agency":
        extra["region"], project_id = accounts.OTHER_PROJECT_NAME, accounts.OTHER_PROJECT_ID
    worker.connect(kind, extra, **fields)
    for _ in range(2):
        with ModelArtsHook(retries=ONCE) as hook:
            assert hook.test_connection()[0]
            assert hook.get_conn().client.project_id == project_id
    assert worker.emulator.state.log.counts()["KeystoneListProjects"] == 1, "the process keeps it"


async def test_a_missing_project_is_found_by_the_region_in_a_triggerer(worker: Worker) -> None:
    worker.connect("access_key", {"project_id": "", "region": accounts.REGION}, **KEY)
    async with ModelArtsAsyncHook(retries=ONCE) as hook:
        assert [task async for task in hook.list_processor_tasks()] == []
        assert (await hook.settings()).client.project_id == accounts.PROJECT_ID


def test_the_users_project_name_finds_the_project(worker: Worker) -> None:
    extra = {"project_id": "", "project_name": accounts.OTHER_PROJECT_NAME, "domain_name": accounts.DOMAIN_NAME}
    worker.connect("password", extra, **USER)
    with ModelArtsHook(retries=ONCE) as hook:
        assert hook.test_connection()[0]
        assert hook.get_conn().client.project_id == accounts.OTHER_PROJECT_ID


def test_a_region_without_project_is_an_error_that_names_both(worker: Worker) -> None:
    worker.connect("access_key", {"project_id": "", "region": "emulator-9"}, **KEY)
    with ModelArtsHook(retries=ONCE) as hook:
        worked, message = hook.test_connection()
    assert not worked
    assert "has no project of the name 'emulator-9' for access key 'EMULATORACCESSKEY000'" in message
    assert "set project_id" in message


@pytest.mark.parametrize("kind", SOURCE_KINDS)
def test_any_other_kind_can_assume_an_agency(worker: Worker, kind: str) -> None:
    fields = set_up(worker, kind)
    extra = {**fields.pop("extra", {}), **AGENCY, **OTHER, "source_auth": kind}
    worker.connect("assume_agency", extra, **fields)
    with ModelArtsHook(retries=ONCE) as hook:
        worked, message = hook.test_connection()
    assert worked, message
    assert IDENTITIES[kind] in message


@pytest.mark.parametrize("name", ["agency_name", "agency_domain_name"])
def test_an_unknown_agency_is_named(worker: Worker, name: str) -> None:
    worker.connect("assume_agency", {**AGENCY, **OTHER, name: "nobody", "source_auth": "access_key"}, **KEY)
    with pytest.raises(errors.ModelArtsAuthenticationError, match=r"'nobody'.*Check agency_name") as caught:
        obtain()
    assert accounts.SECRET_KEY not in str(caught.value)


def test_a_refused_source_key_is_renewed_for_the_agency(worker: Worker) -> None:
    worker.use_metadata_service()
    worker.connect("assume_agency", {**AGENCY, **OTHER, "source_auth": "agency"})
    obtain()
    worker.emulator.faults.refuse("APIGW.0301", operation="ListProcessorTasks")
    worker.emulator.faults.refuse("APIGW.0301", operation="CreateTemporaryAccessKey")
    with ModelArtsHook(retries=ONCE) as hook:
        assert hook.test_connection()[0]
    assert worker.emulator.state.log.counts()["GetSecurityKey"] == 2


def test_an_agency_gives_its_own_projects_alone(worker: Worker) -> None:
    worker.emulator.state.accounts.add_agency(Agency("narrow", "elsewhere", frozenset({accounts.PROJECT_ID})))
    extra = {"agency_name": "narrow", "agency_domain_name": "elsewhere", "source_auth": "access_key"}
    worker.connect("assume_agency", {**extra, **OTHER}, **KEY)
    with ModelArtsHook(retries=ONCE) as hook:
        assert not hook.test_connection()[0]
    worker.connect("assume_agency", extra, **KEY)
    with ModelArtsHook(retries=ONCE) as hook:
        assert hook.test_connection()[0]


def test_the_default_without_any_credentials_says_what_each_kind_lacks(worker: Worker, pauses: list[float]) -> None:
    worker.connect("default")
    with ModelArtsHook(retries=ONCE) as hook:
        worked, message = hook.test_connection()
    assert not worked
    assert message.startswith("auth 'default' found no credentials")
    for kind, lack in {
        "oidc": f"{OIDC}PROVIDER_URN and {OIDC}AGENCY_URN and {OIDC}TOKEN_FILE",
        "environment": f"{SDK}AK and {SDK}SK missing",
        "profile": ".huaweicloud/credentials' does not exist",
        "agency": "The metadata service does not answer",
        "pod_identity": "HC_CONTAINER_CREDENTIALS_FULL_URI and HC_CONTAINER_AUTHORIZATION_TOKEN_FILE missing",
    }.items():
        assert lack in message.partition(f" {kind}: ")[2], kind


def test_the_default_keeps_the_pod_once_it_issued_a_key(worker: Worker) -> None:
    set_up(worker, "pod_identity")
    (worker.home / ".huaweicloud/credentials").unlink()
    worker.emulator.state.settings.has_server_agency = False
    worker.emulator.state.settings.temporary_key_lifetime = 0.0
    worker.connect("default")
    first, asked = obtain(), worker.emulator.state.log.counts()["GetSecurityKey"]
    second = obtain()
    assert first != second
    assert worker.emulator.state.log.counts()["GetSecurityKey"] == asked


def test_an_outage_of_the_pods_endpoint_is_temporary_in_the_default(worker: Worker) -> None:
    set_up(worker, "pod_identity")
    (worker.home / ".huaweicloud/credentials").unlink()
    worker.emulator.state.settings.has_server_agency = False
    worker.emulator.faults.answer(503, operation="GetPodIdentityCredentials", times=None)
    worker.connect("default")
    with pytest.raises(errors.ModelArtsTransientError, match=r"pod_identity: .*503"):
        obtain()


@pytest.mark.parametrize("kind", ["oidc", "pod_identity"])
def test_a_token_file_is_read_anew_at_each_renewal(worker: Worker, kind: str) -> None:
    set_up(worker, kind)
    name, good = {"oidc": ("id-token", worker.id_token()), "pod_identity": ("pod-token", trust.POD_TOKEN)}[kind]
    worker.emulator.state.settings.temporary_key_lifetime = 0.0
    worker.connect(kind)
    with ModelArtsHook(retries=ONCE) as hook:
        assert obtain(hook)
        worker.write(name, "wrong")
        with pytest.raises(errors.ModelArtsAuthenticationError, match="Check "):
            obtain(hook)
        worker.write(name, "")
        with pytest.raises(errors.ModelArtsTransientError, match="is empty"):
            obtain(hook)
        worker.write(name, good)
        assert obtain(hook)


def test_a_rotated_key_of_the_profile_is_used(worker: Worker) -> None:
    worker.write(".huaweicloud/credentials", "[basic]\nak = OLD\nsk = OLD\n")
    worker.connect("profile")
    with ModelArtsHook(retries=ONCE) as hook:
        assert not hook.test_connection()[0]
        set_up(worker, "profile")
        assert hook.test_connection()[0]


def test_a_profile_names_its_project_and_its_iam(worker: Worker) -> None:
    key = f"ak = {accounts.ACCESS_KEY}\nsk = {accounts.SECRET_KEY}\n"
    text = f"[basic]\n{key}iam_endpoint = {worker.emulator.url}/v3\n[two]\n{key}project_id = {accounts.PROJECT_ID}\n"
    worker.write(".huaweicloud/credentials", text)
    worker.setenv(**{f"{SDK}IAM_ENDPOINT": "https://iam.invalid"})
    for extra in ({"region": accounts.REGION}, {"profile_name": "two"}):
        worker.connect("profile", {"project_id": "", **extra})
        with ModelArtsHook(retries=ONCE) as hook:
            assert hook.get_conn().client.project_id == accounts.PROJECT_ID


def test_the_environment_gives_the_region_the_endpoint_and_the_project(worker: Worker) -> None:
    set_up(worker, "environment")
    worker.setenv(**{f"{SDK}REGION": "my-place-1", f"{SDK}REGION_MODELARTS_MY_PLACE_1": "{url},https://spare.invalid"})
    worker.setenv(**{f"{SDK}PROJECT_ID": accounts.PROJECT_ID})
    worker.connect("environment", {"project_id": ""}, host="")
    with ModelArtsHook(retries=ONCE) as hook:
        assert hook.test_connection()[0]
        assert (hook.get_conn().client.endpoint, hook.get_conn().region) == (worker.emulator.url, "my-place-1")
