"""Tests of the signature against the vendor's signer."""

import hashlib
import string
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials  # type: ignore[import-untyped]  # it has no stubs
from huaweicloudsdkcore.sdk_request import SdkRequest  # type: ignore[import-untyped]  # it has no stubs
from huaweicloudsdkcore.signer.signer import Signer  # type: ignore[import-untyped]  # it has no stubs
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api import signing
from airflow_modelarts.api.credentials import AccessKey
from airflow_modelarts.api.http import Request
from airflow_modelarts.api.operations import Operation
from tests.support.flows import NOON

HOST = "modelarts.example:8443"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
awkward = st.text(st.sampled_from(" ~%+/?#&=;:,@!$'()*[]._-aZ09éß漢😀\t\n"), max_size=12)
words = texts | awkward
#: Header values that can be sent: visible characters and spaces.
header_values = st.text(st.sampled_from(string.ascii_letters + string.digits + " \t,;=/+-_."), max_size=20)
header_names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True).filter(
    lambda name: name.lower() not in ("host", "x-sdk-date", "authorization", "content-type")
)
headers = st.dictionaries(header_names, header_values, max_size=4).filter(
    lambda given: len({name.lower() for name in given}) == len(given)
)
methods = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"])
queries = st.lists(st.tuples(words, words), max_size=5)
bodies = st.binary(max_size=64) | texts.map(str.encode)
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def vendors_authorization(
    key: AccessKey, method: str, path: str, query: list[tuple[str, str]], sent: Mapping[str, str], body: bytes
) -> str:
    """Sign with the vendor's code what we have signed.

    :param query: decoded.
    :param sent: our signed headers; the vendor signs the same ones, with the same date.
    """
    request = SdkRequest(
        method=method,
        schema="https",
        host=HOST,
        resource_path=path,
        query_params=list(query),
        header_params={name: value for name, value in sent.items() if name != "Authorization"},
        body=body,
    )
    signed = Signer(BasicCredentials(key.access_key, key.secret_key)).sign(request)
    authorization: str = signed.header_params["Authorization"]
    return authorization


@settings(deadline=None, max_examples=300)
@given(methods, st.lists(words, max_size=4), queries, headers, bodies, keys, st.integers(0, 4_000_000_000))
@example(
    "GET", ["a b", "~", "%2F", "ü", ""], [("", ""), ("~", "%7E"), ("a", ""), ("a", "b"), ("a", "B")], {}, b"", "s", 0
)
@example("POST", ["..", "a/b", ";"], [("x y", "1+1"), ("x y", "1 1"), ("x", "&=?#")], {"X-A": "  a  b "}, b"{}", "s", 1)
@example("put", [], [], {}, "ü".encode(), "sécret", 2)
def test_any_request_has_the_vendors_signature(
    method: str,
    segments: list[str],
    query: list[tuple[str, str]],
    extra: dict[str, str],
    body: bytes,
    secret_key: str,
    now: int,
) -> None:
    path = "/" + "/".join(quote(segment, safe="~") for segment in segments)
    encoded = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query)
    sent = signing.sign(
        "AK", secret_key, method=method, url=f"https://{HOST}{path}?{encoded}", headers=extra, body=body, now=now
    )
    assert sent["Authorization"] == vendors_authorization(AccessKey("AK", secret_key), method, path, query, sent, body)


@settings(deadline=None, max_examples=150)
@given(
    methods,
    st.lists(words.filter(bool), max_size=4),
    st.dictionaries(words, words, max_size=4),
    bodies,
    st.none() | st.from_regex(r"[A-Za-z0-9+/=]{1,40}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9-]{1,32}", fullmatch=True),
)
def test_an_operation_with_a_temporary_key_has_the_vendors_signature(
    method: str, segments: list[str], query: dict[str, str], body: bytes, security_token: str | None, project_id: str
) -> None:
    path = f"/v2/{project_id}/" + "/".join(signing.encode(segment) for segment in segments)
    operation = Operation(name="X", target="x", method=method, path=path, read=bytes, query=query, body=body)
    request = Request(
        method, f"https://{HOST}{operation.path_and_query}", {"Content-Type": "application/json"}, operation.body
    )
    key = AccessKey("AK", "SK", security_token)
    sent = key.authorize(request, project_id=project_id, now=NOON).headers
    assert sent["X-Project-Id"] == project_id
    assert sent.get("X-Security-Token") == security_token
    assert sent["Authorization"] == vendors_authorization(key, method, path, list(query.items()), sent, body)


def sign(**changes: object) -> dict[str, str]:
    arguments: dict[str, object] = {
        "method": "GET",
        "url": f"https://{HOST}/v2/p/processor-tasks?limit=1",
        "headers": {"X-Project-Id": "p"},
        "body": b"",
        "now": NOON,
    }
    return signing.sign("AK", "SK", **{**arguments, **changes})  # type: ignore[arg-type]  # checked by the calls


def test_a_signed_request_has_the_given_headers_the_host_with_its_port_and_the_date_in_utc() -> None:
    given = {"X-Project-Id": "p", "Accept": "*/*"}
    signed = sign(headers=given)
    assert "SignedHeaders=accept;host;x-project-id;x-sdk-date," in signed.pop("Authorization"), "in order"
    assert signed == {**given, "Host": HOST, "X-Sdk-Date": "20260131T120000Z"}


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "PUT"},
        {"url": f"https://{HOST}/v2/p/processor-tasks?limit=2"},
        {"url": f"https://{HOST}/v2/q/processor-tasks?limit=1"},
        {"url": "https://elsewhere.example/v2/p/processor-tasks?limit=1"},
        {"headers": {"X-Project-Id": "q"}},
        {"body": b"{}"},
        {"now": NOON + 1},
    ],
    ids=["method", "query", "path", "host", "header", "body", "date"],
)
def test_a_signature_covers(changes: dict[str, object]) -> None:
    assert sign(**changes)["Authorization"].split("Signature=")[1] != sign()["Authorization"].split("Signature=")[1]


def test_the_secret_key_is_in_no_header() -> None:
    signed = signing.sign("AK", "SECRET", method="GET", url="https://h/", headers={}, body=b"", now=0)
    assert "SECRET" not in str(signed)


def test_the_order_of_parameters_does_not_change_a_signature() -> None:
    assert sign(url="https://h/?a=1&b=2&a=0") == sign(url="https://h/?b=2&a=0&a=1")


def test_a_canonical_path_ends_with_one_slash() -> None:
    assert signing.canonical_path("/a") == signing.canonical_path("/a/") == "/a/"
    assert signing.canonical_path("") == "/"


def test_a_canonical_request_ends_with_the_hash_of_the_payload() -> None:
    nothing = hashlib.sha256(b"").hexdigest()
    assert signing.canonical_request("get", "/a b", "q=~+", {"host": " h "}, ["host"], nothing) == (
        f"GET\n/a%20b/\nq=~%20\nhost:h\n\nhost\n{nothing}"
    )


@settings(deadline=None)
@given(texts | awkward)
def test_only_unreserved_characters_are_not_encoded(text: str) -> None:
    unreserved = string.ascii_letters + string.digits + "-._~"
    assert set(signing.encode(text)) <= set(unreserved + "%")
    assert all(signing.encode(character) == character for character in text if character in unreserved)
