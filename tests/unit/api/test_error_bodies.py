"""Tests of reading error bodies, compared with the vendor's SDK."""

from typing import Any

import pytest
import requests
from huaweicloudsdkcore.exceptions.exception_handler import DefaultExceptionHandler
from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api import error_mapping
from airflow_modelarts.api.error_bodies import read_error
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsRequestError
from airflow_modelarts.api.http import Response
from tests.support.flows import NOON, answer


def vendors_reading(response: Response) -> ServiceResponseException:
    theirs = requests.Response()
    theirs.status_code = response.status
    theirs._content = response.body
    theirs.encoding = "utf-8"
    theirs.headers = requests.structures.CaseInsensitiveDict(response.headers)
    with pytest.raises(ServiceResponseException) as caught:
        DefaultExceptionHandler().handle_exception(None, theirs)
    return caught.value


def read(response: Response) -> ModelArtsError:
    return error_mapping.from_response(response, operation="DescribeX", target="x", secrets=(), now=NOON)


FORMS = {
    "ModelArts": {"error_code": "ModelArts.4700", "error_msg": "gone"},
    "camel case": {"errorCode": "ModelArts.4700", "errorMsg": "gone"},
    "code and message": {"code": "ModelArts.4700", "message": "gone"},
    "nested": {"error": {"code": "ModelArts.4700", "message": "gone"}},
    "nested under another name": {"fault": {"error_code": "ModelArts.4700", "error_msg": "gone"}},
    "nested twice": {"a": {"b": {"errorCode": "ModelArts.4700", "errorMsg": "gone"}}},
    "Keystone": {"error": {"code": 401, "message": "The token is gone", "title": "Unauthorized"}},
    **{
        name: {name: {"code": 400, "message": "it cannot be"}}
        for name in ("badRequest", "forbidden", "itemNotFound", "overLimit", "unauthorized", "conflictingRequest")
    },
    "with code as number": {"error_code": 4700, "error_msg": "gone"},
    "first pair counts": {"error_code": "A.1", "error_msg": "a", "code": "B.2", "message": "b"},
    "last object counts": {"a": {"code": "A.1", "message": "a"}, "b": {"code": "B.2", "message": "b"}},
}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 503])
@pytest.mark.parametrize("shape", FORMS)
def test_each_form_is_read_as_the_vendors_sdk_reads_it(shape: str, status: int) -> None:
    response = answer(FORMS[shape], status, x_request_id="r-1")
    ours, theirs = read(response), vendors_reading(response)
    assert (ours.error_code, ours.request_id) == (str(theirs.error_code), theirs.request_id)
    assert f'"{theirs.error_msg}"' in str(ours)


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ({"message": "no such host"}, None, "no such host"),
        ({"error_message": "it is gone", "error_code": "ModelArts.4352"}, "ModelArts.4352", "it is gone"),
        ({"error": {"message": "m"}}, None, "m"),
        ({"error": {"title": "Unauthorized"}}, None, "Unauthorized"),
        ({"error": "Not Found", "status": 404, "message": "here is nothing"}, None, "here is nothing"),
        ({"error": "invalid_grant"}, None, "invalid_grant"),
        ({"error_code": "ModelArts.0101"}, "ModelArts.0101", ""),
        ({"errorCode": "ModelArts.0101", "errorMessage": "no"}, "ModelArts.0101", "no"),
        ({"error_code": "ModelArts.0101", "message": "in another field"}, "ModelArts.0101", "in another field"),
        ({"error": {"error_code": "ModelArts.0101"}}, "ModelArts.0101", ""),
        ({"error_code": None, "error_msg": None, "error": {"code": "A.1", "message": "m"}}, "A.1", "m"),
        ({"error_code": "", "error_msg": "", "error": {"code": "A.1", "message": "m"}}, "A.1", "m"),
        ([{"error_code": "A.1", "error_msg": "m"}], "A.1", "m"),
        ({"errors": [{"code": "A.1", "message": "m"}]}, "A.1", "m"),
        ({"error": {"code": "A.1", "message": "m"}, "details": [{"code": "B.2", "message": "b"}]}, "A.1", "m"),
    ],
)  # fmt: skip
def test_forms_that_the_vendors_sdk_cannot_parse_are_read(body: dict[str, Any], code: str | None, text: str) -> None:
    error = read_error(answer(body, 400))
    assert (error.code, error.text) == (code, text)


@pytest.mark.parametrize(
    ("body", "request_id"),
    [
        ({"request_id": "b-1"}, "b-1"),
        ({"requestId": "b-1"}, "b-1"),
        ({"error": {"code": 1, "message": "m", "request_id": "b-1"}}, "b-1"),
        ({"request_id": None}, "h-1"),
        ({"request_id": ""}, "h-1"),
        ({}, "h-1"),
        ([], "h-1"),
    ],
)
def test_the_request_id_is_in_the_body_or_in_a_header(body: Any, request_id: str) -> None:
    assert read_error(answer(body, 400, x_request_id="h-1")).request_id == request_id


def test_an_encoded_authorization_message_is_not_shortened() -> None:
    encoded = "x5Zq" * 500
    body = {"error_code": "PAP5.0013", "error_msg": "no right", "encoded_authorization_message": encoded}
    response = answer(body, 403)
    error = read(response)
    assert error.encoded_authorization_message == encoded == vendors_reading(response).encoded_auth_msg
    assert encoded in str(error)
    assert read(answer({}, 403)).encoded_authorization_message is None


OBS_ERROR = (
    b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message>'
    b"<RequestId>b-1</RequestId></Error>"
)


@pytest.mark.parametrize(
    ("body", "code", "text", "request_id"),
    [
        (b"RBAC: access denied\n", None, "RBAC: access denied", None),
        (b'"the upstream is full"', None, "the upstream is full", None),
        (b"<html>\n<head><title>403 Forbidden</title></head><body>nginx</body>", None, "403 Forbidden", None),
        (OBS_ERROR, "AccessDenied", "Access Denied", "b-1"),
        (b"<html><body>nothing to quote</body></html>", None, "", None),
        (b"\x89PNG\x00\xff", None, "", None),
        (b'{"error_code": "ModelArts.0101", "error_', None, "", None),
        (b"", None, "", None),
    ],
)
def test_a_text_that_is_not_json_is_quoted(body: bytes, code: str | None, text: str, request_id: str | None) -> None:
    assert read_error(Response(403, {}, body)) == (code, text, request_id, None)


def test_a_text_of_a_gateway_is_quoted_on_one_line_without_secrets() -> None:
    body = b"refused: X-Auth-Token 'the-token'\n\x1b[31mof you, https://b/k?Signature=S1G"
    error = error_mapping.from_response(
        Response(403, {}, body), operation="D", target="x", secrets=("the-token",), now=NOON
    )
    assert not any(word in str(error) for word in ("the-token", "S1G", "\n", "\x1b"))
    assert "of you" in str(error)


@pytest.mark.parametrize("charset", ["gbk", "GB2312", "gb18030"])
def test_a_text_is_decoded_with_the_charset_of_the_answer(charset: str) -> None:
    body = '{"error_code": "ModelArts.0101", "error_msg": "参数错误"}'.encode(charset)
    assert "参数错误" in str(read(Response(400, {"content-type": f'application/json; charset="{charset}"'}, body)))


@pytest.mark.parametrize("charset", ["undefined", "idna", "base64", "none such"])
def test_an_unknown_charset_is_ignored(charset: str) -> None:
    body = b'{"error_code": "ModelArts.0101", "error_msg": "a reason"}'
    assert "a reason" in str(read(Response(400, {"content-type": f"application/json; charset={charset}"}, body)))


def test_a_body_in_another_charset_keeps_its_code() -> None:
    body = '{"error_code": "ModelArts.0101", "error_msg": "参数错误"}'.encode("gbk")
    error = read(Response(400, {}, body))
    assert error.error_code == "ModelArts.0101"
    assert isinstance(error, ModelArtsRequestError)


NAMES = st.sampled_from(
    ["error_code", "error_msg", "errorCode", "errorMsg", "code", "message", "error", "a", "badRequest"]
)
WORDS = st.text("abcXYZ.019 ", min_size=1, max_size=9).map(str.strip).filter(bool) | st.integers(1, 9999)
OBJECTS = st.recursive(
    st.dictionaries(NAMES, WORDS, max_size=5),
    lambda inner: st.dictionaries(NAMES, inner | WORDS, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(NAMES, WORDS | OBJECTS, max_size=6)


@settings(deadline=None, max_examples=400)
@given(BODIES, st.sampled_from([400, 403, 404, 500]))
@example({"a": {"code": "A", "message": "a"}, "error_code": "B"}, 400)
def test_any_body_is_read_as_the_vendors_sdk_reads_it(body: dict[str, Any], status: int) -> None:
    response = answer(body, status)
    theirs = vendors_reading(response)
    found = theirs.error_code, theirs.error_msg
    if theirs.error_msg == response.body.decode() or not all(isinstance(one, str | int) for one in found):
        return  # the SDK found no error, or one that is not text
    error = read_error(response)
    assert (error.code or str(status), error.text) == (str(theirs.error_code), str(theirs.error_msg))
