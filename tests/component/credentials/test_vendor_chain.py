"""The vendor's SDK and this package find the same keys in the same environment, files and services, or both fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from huaweicloudsdkcore.auth import provider as vendor  # type: ignore[import-untyped]  # it has no stubs
from huaweicloudsdkcore.auth.internal import MetadataAccessor  # type: ignore[import-untyped]  # it has no stubs
from huaweicloudsdkcore.exceptions.exception_handler import (  # type: ignore[import-untyped]  # it has no stubs
    DefaultExceptionHandler,
)
from huaweicloudsdkcore.http.http_client import HttpClient  # type: ignore[import-untyped]  # it has no stubs
from huaweicloudsdkcore.http.http_config import HttpConfig  # type: ignore[import-untyped]  # it has no stubs

from airflow_modelarts.api.credentials import AccessKey, instance_agency
from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import trust
from tests.support.worker_credentials import OIDC, SDK, Worker, obtain

PROVIDERS = {
    "environment": vendor.EnvCredentialProvider.get_basic,
    "profile": vendor.ProfileCredentialProvider.get_basic,
    "oidc": vendor.OidcStsCredentialProvider.get_basic,
    "older oidc": vendor.EnvCredentialProvider.get_basic,
    "agency": vendor.MetadataCredentialProvider.get_basic,
    "pod_identity": vendor.PodIdentityCredentialProvider.get_basic,
    "default": vendor.CredentialProviderChain.get_basic,
}

#: A key by its name in the table: a fixed access key, or the owner that the emulator's access keys begin with.
Key = str | None

AK = {f"{SDK}AK": "ENVAK", f"{SDK}SK": "ENVSK"}
POD = {
    "HC_CONTAINER_CREDENTIALS_FULL_URI": "{url}/pod-identity/credentials",
    "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE": "{home}/pod-token",
}
STS = {
    f"{OIDC}PROVIDER_URN": trust.PROVIDER_URN,
    f"{OIDC}AGENCY_URN": trust.OIDC_AGENCY_URN,
    f"{OIDC}TOKEN_FILE": "{home}/id-token",
}
IDP = {f"{SDK}IDP_ID": trust.IDP_ID, f"{SDK}ID_TOKEN_FILE": "{home}/id-token"}
DEFAULT_FILE = ".huaweicloud/credentials"
PROFILE = {DEFAULT_FILE: "[basic]\nak = FILEAK\nsk = FILESK\n"}
IDP_PROFILE = {DEFAULT_FILE: f"[basic]\nidp_id = {trust.IDP_ID}\nid_token_file = {{home}}/id-token\n"}
POD_FILE = {"pod-token": trust.POD_TOKEN}


@dataclass(frozen=True)
class Case:
    """One place to find credentials in.

    :param auth: the kind; ``older oidc`` is this package's ``oidc``, and the environment for the vendor.
    :param key: what both find; None if both fail.
    :param files: contents by path below the home folder; "id-token" has a valid one unless it is given.
    :param fault: the operation of the emulator that fails, and its HTTP status or malformed body.
    :param metadata: whether a metadata service answers.
    :param ours: what this package finds where it differs on purpose, and ``why``.
    """

    name: str
    auth: str
    key: Key
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str | bytes] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    fault: tuple[str, int | str] | None = None
    metadata: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    ours: Key = "as the vendor"
    why: str = ""


def without(variables: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in variables.items() if not name.endswith(names)}


ENVIRONMENT = [
    Case("a key", "environment", "ENVAK", AK),
    Case("a temporary key", "environment", "ENVAK", {**AK, f"{SDK}SECURITY_TOKEN": "T"}),
    Case("nothing", "environment", None),
    Case("half a key", "environment", None, without(AK, "SDK_SK")),
    Case("the other half", "environment", None, without(AK, "SDK_AK")),
    Case("an empty secret key", "environment", None, {**AK, f"{SDK}SK": ""}),
    Case("a token alone", "environment", None, {f"{SDK}SECURITY_TOKEN": "T"}),
    Case("a provider before a key", "environment", "TOKEN", {**AK, **IDP}),
    Case("half a provider and a key", "environment", "ENVAK", {**AK, **without(IDP, "FILE")}),
    Case("half a provider", "environment", None, without(IDP, "FILE")),
    Case("an empty provider and a key", "environment", "ENVAK", {**AK, **IDP, f"{SDK}IDP_ID": ""}),
    Case(
        "white space around a key",
        "environment",
        " ENVAK ",
        {f"{SDK}AK": " ENVAK ", f"{SDK}SK": "ENVSK\n"},
        ours="ENVAK",
        why="a line feed at the end of a secret is no part of it; the service refuses the vendor's signature",
    ),
    Case(
        "a blank key",
        "environment",
        " ",
        {f"{SDK}AK": " ", f"{SDK}SK": " "},
        ours=None,
        why="a blank value is a missing one; the service refuses the vendor's signature",
    ),
]

PROFILES = [
    Case("the default place", "profile", "FILEAK", {}, PROFILE),
    Case(
        "a temporary key",
        "profile",
        "FILEAK",
        {},
        {DEFAULT_FILE: PROFILE[DEFAULT_FILE] + "security_token = T\n"},
    ),
    Case("no file", "profile", None),
    Case("no HOME", "profile", None, {"HOME": ""}),
    Case(
        "a place by variable",
        "profile",
        "ELSEWHERE",
        {f"{SDK}CREDENTIALS_FILE": "{home}/elsewhere"},
        {**PROFILE, "elsewhere": "[basic]\nak=ELSEWHERE\nsk=S\n"},
    ),
    Case("an empty variable", "profile", "FILEAK", {f"{SDK}CREDENTIALS_FILE": ""}, PROFILE),
    Case("a variable to nowhere", "profile", None, {f"{SDK}CREDENTIALS_FILE": "{home}/nowhere"}, PROFILE),
    Case("a relative path", "profile", "REL", {f"{SDK}CREDENTIALS_FILE": "rel"}, {"rel": "[basic]\nak=REL\nsk=S"}),
    Case("a path with ~", "profile", None, {f"{SDK}CREDENTIALS_FILE": "~/rel"}, {"rel": "[basic]\nak=REL\nsk=S"}),
    Case("a folder", "profile", None, {f"{SDK}CREDENTIALS_FILE": "{home}"}),
    Case("an empty file", "profile", None, {}, {DEFAULT_FILE: ""}),
    Case("another section", "profile", None, {}, {DEFAULT_FILE: "[global]\nak=A\nsk=S\n"}),
    Case("another case", "profile", None, {}, {DEFAULT_FILE: "[Basic]\nak=A\nsk=S\n"}),
    Case("names in capitals", "profile", "A", {}, {DEFAULT_FILE: "[basic]\nAK=A\nSK=S\n"}),
    Case("a colon", "profile", "A", {}, {DEFAULT_FILE: "[basic]\nak: A\nsk: S\n"}),
    Case("a comment", "profile", "A", {}, {DEFAULT_FILE: "# mine\n[basic]\n; the key\nak=A\nsk=S\n"}),
    Case(
        "a comment behind a value",
        "profile",
        "A ; mine",
        {},
        {DEFAULT_FILE: "[basic]\nak=A ; mine\nsk=S\n"},
        ours=None,
        why="no key has a space; the service refuses the vendor's signature",
    ),
    Case("no header", "profile", None, {}, {DEFAULT_FILE: "ak=A\nsk=S\n"}),
    Case("a line that is none", "profile", None, {}, {DEFAULT_FILE: "[basic]\nak=A\nsk=S\nnonsense\n"}),
    Case("a name twice", "profile", None, {}, {DEFAULT_FILE: "[basic]\nak=A\nak=B\nsk=S\n"}),
    Case("a section twice", "profile", None, {}, {DEFAULT_FILE: "[basic]\nak=A\nsk=S\n[basic]\nak=B\n"}),
    Case("defaults", "profile", "A", {}, {DEFAULT_FILE: "[DEFAULT]\nsk=S\n[basic]\nak=A\n"}),
    Case("half a key", "profile", None, {}, {DEFAULT_FILE: "[basic]\nak=A\n"}),
    Case("an empty secret key", "profile", None, {}, {DEFAULT_FILE: "[basic]\nak=A\nsk=\n"}),
    Case("a percent sign", "profile", None, {}, {DEFAULT_FILE: "[basic]\nak=A\nsk=S%1\n"}),
    Case("two percent signs", "profile", "A%1", {}, {DEFAULT_FILE: "[basic]\nak=A%%1\nsk=S\n"}),
    Case("a byte order mark", "profile", None, {}, {DEFAULT_FILE: b"\xef\xbb\xbf[basic]\nak=A\nsk=S\n"}),
    Case("another encoding", "profile", None, {}, {DEFAULT_FILE: "[basic]\nak=A\nsk=S\nx=\xe9\n".encode("latin-1")}),
    Case("Windows line ends", "profile", "A", {}, {DEFAULT_FILE: "[basic]\r\nak=A\r\nsk=S\r\n"}),
    Case("line ends of an old Macintosh", "profile", "A", {}, {DEFAULT_FILE: "[basic]\rak=A\rsk=S\r"}),
    Case("a provider", "profile", "TOKEN", {}, IDP_PROFILE),
    Case("a provider before a key", "profile", "TOKEN", {}, {DEFAULT_FILE: IDP_PROFILE[DEFAULT_FILE] + "ak=A\nsk=S\n"}),
    Case("half a provider and a key", "profile", "A", {}, {DEFAULT_FILE: "[basic]\nidp_id=x\nak=A\nsk=S\n"}),
    Case("keys in the environment alone", "profile", None, AK),
]

OLDER_OIDC = [
    Case("a provider", "older oidc", "TOKEN", IDP),
    Case("white space around the token", "older oidc", "TOKEN", IDP, {"id-token": "\n{id_token}\n"}),
    Case("no token file", "older oidc", None, {**IDP, f"{SDK}ID_TOKEN_FILE": "{home}/nowhere"}),
    Case("an empty token file", "older oidc", None, IDP, {"id-token": ""}),
    Case("a blank token file", "older oidc", None, IDP, {"id-token": " \n"}),
    Case("an unknown provider", "older oidc", None, {**IDP, f"{SDK}IDP_ID": "other"}),
    Case("a wrong token", "older oidc", None, IDP, {"id-token": "a.b.c"}),
    Case("an expired token", "older oidc", None, IDP, {"id-token": "{expired}"}),
    Case("another audience", "older oidc", None, IDP, {"id-token": "{other_audience}"}),
    *(
        Case(f"{operation} {fault}", "older oidc", None, IDP, fault=(operation, fault))
        for operation in ("CreateUnscopedTokenByIdToken", "CreateTemporaryAccessKey")
        for fault in (400, 401, 403, 404, 500, 503, "empty", "truncated_json", "not_an_object")
    ),
]

OIDC_AGENCIES = [
    Case("a token file", "oidc", "OIDC", STS),
    Case("a token", "oidc", "OIDC", {**without(STS, "FILE"), f"{OIDC}ID_TOKEN": "{id_token}"}),
    Case("a token before a file", "oidc", None, {**STS, f"{OIDC}ID_TOKEN": "a.b.c"}),
    Case("an empty token and a file", "oidc", "OIDC", {**STS, f"{OIDC}ID_TOKEN": ""}),
    Case("nothing", "oidc", None),
    *(Case(f"without {name}", "oidc", None, without(STS, name)) for name in ("PROVIDER_URN", "AGENCY_URN", "FILE")),
    *(Case(f"empty {name}", "oidc", None, {**STS, OIDC + name: ""}) for name in ("PROVIDER_URN", "AGENCY_URN")),
    Case("white space around the token", "oidc", "OIDC", STS, {"id-token": " {id_token}\n"}),
    Case("no token file", "oidc", None, {**STS, f"{OIDC}TOKEN_FILE": "{home}/nowhere"}),
    Case("a relative token file", "oidc", "OIDC", {**STS, f"{OIDC}TOKEN_FILE": "id-token"}),
    Case("a token file with ~", "oidc", None, {**STS, f"{OIDC}TOKEN_FILE": "~/id-token"}),
    Case("an empty token file", "oidc", None, STS, {"id-token": ""}),
    Case("a folder", "oidc", None, {**STS, f"{OIDC}TOKEN_FILE": "{home}"}),
    Case("a wrong token", "oidc", None, STS, {"id-token": "a.b.c"}),
    Case("an expired token", "oidc", None, STS, {"id-token": "{expired}"}),
    Case("another audience", "oidc", None, STS, {"id-token": "{other_audience}"}),
    Case("an unknown agency", "oidc", None, {**STS, f"{OIDC}AGENCY_URN": "iam::x:agency:y"}),
    Case("an unknown provider", "oidc", None, {**STS, f"{OIDC}PROVIDER_URN": "iam::x:oidcProvider:y"}),
    Case(
        "an endpoint with a path",
        "oidc",
        "OIDC",
        {**STS, f"{SDK}STS_ENDPOINT": "{url}/v5"},
        ours=None,
        why="the vendor drops the path; an endpoint behind one would not be reached",
    ),
    Case("a session name", "oidc", "OIDC", {**STS, f"{OIDC}SESSION_NAME": "airflow"}),
    Case(
        "an empty session name",
        "oidc",
        None,
        {**STS, f"{OIDC}SESSION_NAME": ""},
        ours="OIDC",
        why="an empty variable is a missing one, as for the others; STS refuses an empty name",
    ),
    Case("a duration", "oidc", "OIDC", {**STS, f"{OIDC}DURATION_SECONDS": "900"}),
    Case("a duration of 0", "oidc", "OIDC", {**STS, f"{OIDC}DURATION_SECONDS": "0"}),
    Case("too long a duration", "oidc", None, {**STS, f"{OIDC}DURATION_SECONDS": "999999"}),
    Case("a duration that is no number", "oidc", None, {**STS, f"{OIDC}DURATION_SECONDS": "1h"}),
    Case("policies", "oidc", "OIDC", {**STS, f"{OIDC}POLICY": "{}", f"{OIDC}POLICY_IDS": "a, b,"}),
    *(
        Case(f"STS {fault}", "oidc", None, STS, fault=("AssumeAgencyWithOIDC", fault))
        for fault in (400, 401, 403, 404, 500, 503, "empty", "truncated_json", "not_an_object")
    ),
]

SERVERS = [
    Case("a server with an agency", "agency", "SERVER", metadata=True),
    Case("no session tokens", "agency", "SERVER", metadata=True, settings={"has_metadata_tokens": False}),
    Case("no agency", "agency", None, metadata=True, settings={"has_server_agency": False}),
    Case("no metadata service", "agency", None),
    Case("an expired key", "agency", "SERVER", metadata=True, settings={"temporary_key_lifetime": 0.0}),
    *(
        Case(f"the key {fault}", "agency", None, metadata=True, fault=("GetSecurityKey", fault))
        for fault in (400, 403, 404, 500, 503, "empty", "truncated_json", "not_an_object")
    ),
]

PODS = [
    Case("a pod", "pod_identity", "POD", POD, POD_FILE),
    Case("white space around the token", "pod_identity", "POD", POD, {"pod-token": f" {trust.POD_TOKEN}\n"}),
    Case("nothing", "pod_identity", None),
    Case("no address", "pod_identity", None, without(POD, "URI"), POD_FILE),
    Case("no variable of the token", "pod_identity", None, without(POD, "FILE"), POD_FILE),
    Case("an empty address", "pod_identity", None, {**POD, "HC_CONTAINER_CREDENTIALS_FULL_URI": ""}, POD_FILE),
    Case("no token file", "pod_identity", None, POD),
    Case("an empty token file", "pod_identity", None, POD, {"pod-token": ""}),
    Case("a blank token file", "pod_identity", None, POD, {"pod-token": "\n"}),
    Case("a wrong token", "pod_identity", None, POD, {"pod-token": "wrong"}),
    Case(
        "an address without scheme", "pod_identity", None, {**POD, "HC_CONTAINER_CREDENTIALS_FULL_URI": "x"}, POD_FILE
    ),
    Case("an expired key", "pod_identity", "POD", POD, POD_FILE, settings={"temporary_key_lifetime": 0.0}),
    *(
        Case(f"the key {fault}", "pod_identity", None, POD, POD_FILE, fault=("GetPodIdentityCredentials", fault))
        for fault in (400, 401, 403, 404, 500, 503, "empty", "truncated_json", "not_an_object")
    ),
]

EVERYTHING = {**STS, **AK, **POD}
CHAIN = [
    Case("OIDC first", "default", "OIDC", EVERYTHING, {**PROFILE, **POD_FILE}, metadata=True),
    Case("then the environment", "default", "ENVAK", {**AK, **POD}, {**PROFILE, **POD_FILE}, metadata=True),
    Case("then the profile", "default", "FILEAK", POD, {**PROFILE, **POD_FILE}, metadata=True),
    Case("a profile of carriage returns", "default", "A", {}, {DEFAULT_FILE: "[basic]\rak=A\rsk=S\r"}, metadata=True),
    Case("then the server", "default", "SERVER", POD, POD_FILE, metadata=True),
    Case(
        "then the pod, on a server without agency",
        "default",
        "POD",
        POD,
        POD_FILE,
        metadata=True,
        settings={"has_server_agency": False},
    ),
    Case("nothing, on a server without agency", "default", None, metadata=True, settings={"has_server_agency": False}),
    Case("the provider of the environment", "default", "TOKEN", {**IDP, **AK}, PROFILE, metadata=True),
    Case("the provider of the profile", "default", "TOKEN", POD, {**IDP_PROFILE, **POD_FILE}, metadata=True),
    Case("half an OIDC", "default", "ENVAK", {**without(STS, "AGENCY_URN"), **AK}),
    Case("OIDC without its file", "default", "ENVAK", {**AK, **STS, f"{OIDC}TOKEN_FILE": "{home}/nowhere"}),
    Case("OIDC with an empty file", "default", "ENVAK", {**AK, **STS}, {"id-token": ""}),
    Case("OIDC with a folder", "default", None, {**AK, **STS, f"{OIDC}TOKEN_FILE": "{home}"}),
    Case("OIDC that is refused", "default", None, {**AK, **STS}, {"id-token": "a.b.c"}),
    Case("OIDC with a wrong duration", "default", None, {**AK, **STS, f"{OIDC}DURATION_SECONDS": "1h"}),
    Case("half a key", "default", "FILEAK", without(AK, "SDK_SK"), PROFILE),
    Case("a provider without its file", "default", None, {**AK, **IDP, f"{SDK}ID_TOKEN_FILE": "nowhere"}, PROFILE),
    Case("a profile without section", "default", "SERVER", {}, {DEFAULT_FILE: "[global]\n"}, metadata=True),
    Case("a profile with half a key", "default", "SERVER", {}, {DEFAULT_FILE: "[basic]\nak=A\n"}, metadata=True),
    Case("a malformed profile", "default", None, {}, {DEFAULT_FILE: "nonsense"}, metadata=True),
    Case("a profile that is a folder", "default", "SERVER", {f"{SDK}CREDENTIALS_FILE": "{home}"}, metadata=True),
    *(
        Case(
            f"a metadata service that fails with {status}",
            "default",
            "POD",
            POD,
            POD_FILE,
            metadata=True,
            fault=("GetSecurityKey", status),
        )
        for status in (403, 404, 500, 503)
    ),
    *(
        Case(
            f"a metadata service that answers {body}",
            "default",
            None,
            POD,
            POD_FILE,
            metadata=True,
            fault=("GetSecurityKey", body),
            ours="POD",
            why="the vendor's chain ends with a Python error; the next kind can work",
        )
        for body in ("empty", "truncated_json", "not_an_object")
    ),
    Case(
        "no metadata service, and a pod",
        "default",
        None,
        POD,
        POD_FILE,
        ours="POD",
        why="the vendor's chain ends with a connection error, which leaves pod identity no turn",
    ),
    Case("no metadata service, and nothing", "default", None),
    Case("a pod that is refused", "default", None, POD, {"pod-token": "wrong"}),
    Case("a pod without its file", "default", None, POD),
]

CASES = [*ENVIRONMENT, *PROFILES, *OLDER_OIDC, *OIDC_AGENCIES, *SERVERS, *PODS, *CHAIN]


@pytest.fixture(scope="module")
def vendor_client() -> Iterator[HttpClient]:
    client = HttpClient(HttpConfig(retry_times=0), None, DefaultExceptionHandler(), logging.getLogger("vendor"))
    yield client
    client.executor.shutdown()
    client._session.close()


@pytest.fixture
def prepare(worker: Worker, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], None]:
    def prepare(case: Case) -> None:
        texts = {
            "{home}": str(worker.home),
            "{id_token}": worker.id_token(),
            "{expired}": worker.id_token(lifetime=-1),
            "{other_audience}": worker.id_token(audience="another"),
        }

        def filled(text: str | bytes) -> str | bytes:
            for name, value in texts.items():
                text = text if isinstance(text, bytes) else text.replace(name, value)
            return text

        for path, content in {"id-token": "{id_token}", **case.files}.items():
            worker.write(path, filled(content))
        worker.setenv(**{name: str(filled(value)) for name, value in case.env.items()})
        if case.metadata:
            worker.use_metadata_service()
        monkeypatch.setattr(MetadataAccessor, "_METADATA_ENDPOINT", instance_agency.METADATA_SERVICE)
        for name, value in case.settings.items():
            setattr(worker.emulator.state.settings, name, value)
        if case.fault is not None:
            operation, fault = case.fault
            if isinstance(fault, int):
                worker.emulator.faults.answer(fault, b"no", operation=operation, times=None)
            else:
                worker.emulator.faults.malformed(fault, operation=operation, times=None)

    return prepare


def name_of(key: AccessKey, emulator: EmulatorServer) -> Key:
    """Return a key's name in the table; a key of the emulator must be complete and one that it has issued."""
    owner, dash, _ = key.access_key.rpartition("-")
    if not dash:
        return key.access_key
    issued = emulator.state.accounts.find_key(key.access_key)
    assert issued is not None
    assert key == AccessKey(issued.access_key, issued.secret_key, issued.security_token)
    return owner


def find_as_vendor(auth: str, client: HttpClient) -> AccessKey | None:
    try:
        credentials = PROVIDERS[auth]().get_credentials()
        credentials.process_sts(client)
    except Exception:  # not all of them are its own
        return None
    return AccessKey(credentials.ak, credentials.sk, credentials.security_token)


def find_ourselves(auth: str, worker: Worker) -> AccessKey | None:
    worker.connect(auth.removeprefix("older "))
    try:
        key = obtain()
    except ModelArtsError:
        return None
    assert isinstance(key, AccessKey)
    return key


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.auth}: {case.name}")
def test_the_vendors_sdk_and_we_find_the_same_key(
    case: Case, prepare: Callable[[Case], None], worker: Worker, vendor_client: HttpClient
) -> None:
    prepare(case)
    theirs, ours = find_as_vendor(case.auth, vendor_client), find_ourselves(case.auth, worker)
    assert (theirs and name_of(theirs, worker.emulator)) == case.key
    expected = case.key if case.ours == "as the vendor" else case.ours
    assert (ours and name_of(ours, worker.emulator)) == expected
    if theirs and ours and not case.why and "-" not in theirs.access_key:
        assert ours == theirs


def test_each_stated_difference_has_a_reason() -> None:
    assert all((case.ours == "as the vendor") == (not case.why) for case in CASES)


def test_names_are_unique() -> None:
    assert len({(case.auth, case.name) for case in CASES}) == len(CASES)
