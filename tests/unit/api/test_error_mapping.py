"""Tests of the errors of failed answers: kind, attributes, message, redaction."""

import json
from email.utils import formatdate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api import error_mapping, errors
from airflow_modelarts.api.error_codes import CODES
from airflow_modelarts.api.http import Response
from airflow_modelarts.api.redaction import redact
from tests.support.flows import CONTRACT, NOON, answer, refuse

KINDS: dict[str, type[errors.ModelArtsError]] = {
    "auth": errors.ModelArtsAuthenticationError,
    "configuration": errors.ModelArtsConfigurationError,
    "request": errors.ModelArtsRequestError,
    "not_found": errors.ModelArtsNotFoundError,
    "already_exists": errors.ModelArtsAlreadyExistsError,
    "busy": errors.ModelArtsBusyError,
    "throttled": errors.ModelArtsThrottledError,
    "transient": errors.ModelArtsTransientError,
}
ROWS = json.loads((CONTRACT / "errors.json").read_text(encoding="utf-8"))["codes"]
ALL_STATUSES = [100, 300, 301, 302, 307, 400, 401, 403, 404, 405, 408, 409, 418, 425, 429, 500, 502, 503, 504, 599]


def read(response: Response, *secrets: str, now: float = NOON) -> errors.ModelArtsError:
    return error_mapping.from_response(
        response, operation="DescribeProcessorTask", target="processing task 'abc'", secrets=secrets, now=now
    )


def html(status: int, body: bytes = b"<html><body>Not here</body></html>") -> Response:
    return Response(status, {"content-type": "text/html; charset=utf-8"}, body)


def row_id(row: dict[str, object]) -> str:
    return str(row["code"])


@pytest.mark.parametrize("status", [status for status in ALL_STATUSES if status < 500])
@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_the_code_decides_with_any_status_below_500(row: dict[str, str], status: int) -> None:
    assert type(read(refuse(status, row["code"]))) is KINDS[row["kind"]]


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 507, 529, 599, 600, 999])
@pytest.mark.parametrize("code", [*CODES, "ModelArts.9999", None])
def test_a_server_error_is_temporary_with_any_code(code: str | None, status: int) -> None:
    error = read(refuse(status, code))
    assert type(error) is errors.ModelArtsTransientError
    assert error.outcome_unknown
    assert error.error_code == code


def test_the_message_of_a_server_error_ignores_the_meaning_of_its_code() -> None:
    message = str(read(refuse(503, "ModelArts.4700", "Unavailable gateway.")))
    assert "no task with this id" not in message
    assert all(part in message for part in ("ModelArts.4700, HTTP 503", '"Unavailable gateway."', "Try again later"))


BY_STATUS = {
    "auth": (401, 403),
    "not_found": (404,),
    "transient": (408, 425, 500, 502, 503, 504, 599),
    "throttled": (429,),
    "request": (400, 405, 409, 418),
    "configuration": (301, 302, 307),
}


@pytest.mark.parametrize(("kind", "status"), [(kind, status) for kind in BY_STATUS for status in BY_STATUS[kind]])
@pytest.mark.parametrize("code", ["ModelArts.9999", None], ids=["unknown code", "no code"])
def test_the_status_decides_without_a_known_code(kind: str, status: int, code: str | None) -> None:
    error = read(refuse(status, code))
    assert type(error) is KINDS[kind]
    assert error.error_code == code
    assert (code or "") in str(error)


def test_a_message_has_the_operation_the_cause_and_the_advice() -> None:
    assert str(read(refuse(400, "ModelArts.4700", "Task abc does not exist", x_request_id="r-1"))) == (
        "DescribeProcessorTask of processing task 'abc' failed: no task with this id (ModelArts.4700, HTTP 400, "
        'request r-1). The service said: "Task abc does not exist". '
        "Check the id, and that it belongs to the connection's project_id and host."
    )


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_every_message_has_the_code_the_status_and_the_operation(row: dict[str, str]) -> None:
    message = str(read(refuse(int(row["http"]), row["code"])))
    assert all(part in message for part in (row["code"], f"HTTP {row['http']}", "DescribeProcessorTask", "'abc'"))


@settings(deadline=None, max_examples=100)
@given(
    st.integers(100, 999).filter(lambda status: not 200 <= status < 300),
    st.binary(max_size=40)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "error_code", "error_msg", "request_id", "message", "title", "x"]),
                inner,
                max_size=4,
            )
        ),
    ).map(lambda content: json.dumps(content).encode()),
)
@example(503, b"[" * 200_000)
@example(503, b'{"error_code": [17], "error_msg": ["x"], "request_id": {}}')
def test_any_failed_answer_becomes_an_error(status: int, body: bytes) -> None:
    error = read(Response(status, {}, body))
    assert isinstance(error, errors.ModelArtsTransientError if status >= 500 else errors.ModelArtsError)
    assert error.http_status == status
    assert error.error_code is None or isinstance(error.error_code, str)


def test_a_web_page_instead_of_the_api_is_a_configuration_error() -> None:
    error = read(html(404))
    message = str(error)
    assert type(error) is errors.ModelArtsConfigurationError, "not a missing task"
    assert "web page, not the API" in message
    assert "ModelArts endpoint of your region" in message


def test_the_text_of_a_web_page_is_not_quoted() -> None:
    assert "Not here" not in str(read(html(502)))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_reported(status: int) -> None:
    assert "redirect" in str(read(Response(status, {"location": "https://elsewhere.example/"}, b"")))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("999999999", 999999999.0),
        (formatdate(NOON + 90, usegmt=True), 90.0),
        (formatdate(NOON - 90, usegmt=True), 0.0),
        ("Sat, 31 Jan 2026 14:00:30 +0200", 30.0),
        ("Sat, 31 Jan 2026 12:00:30 -0000", 30.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str, seconds: float) -> None:
    assert read(refuse(429, retry_after=value)).retry_after == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "soon", "-1", "1.5", "1e3", "9" * 400),
        "Sat, 99 Foo 2026 12:00:00 GMT",
        "Sat, 31 Jan 2026 12:00:00 +" + "9" * 20,
        "٣x",
    ],
)
def test_an_invalid_retry_after_is_ignored(value: str) -> None:
    assert read(refuse(429, retry_after=value)).retry_after is None


dates = st.text(max_size=40) | st.from_regex(
    r"(Sat, )?[0-9]{1,3} (Jan|Feb|Xyz) [0-9]{1,5} [0-9]{1,3}:[0-9]{1,3}(:[0-9]{1,3})? (GMT|[+-][0-9]{4,6}|-0000)?",
    fullmatch=True,
)


@settings(deadline=None, max_examples=200)
@given(dates, dates)
@example("Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359")
def test_any_date_header_is_tolerated(retry_after: str, date: str) -> None:
    error = read(refuse(401, retry_after=retry_after, date=date))
    assert error.retry_after is None or error.retry_after >= 0


@pytest.mark.parametrize(
    ("offset", "words"), [(3600, "60 minutes behind"), (-1800, "30 minutes ahead")], ids=["behind", "ahead"]
)
def test_a_wrong_clock_is_named(offset: int, words: str) -> None:
    assert words in str(read(refuse(401, "APIGW.0303", date=formatdate(NOON + offset, usegmt=True))))


@pytest.mark.parametrize("offset", [-14 * 60, 0, 14 * 60])
def test_a_clock_within_the_tolerance_of_the_gateway_is_not_named(offset: int) -> None:
    message = str(read(refuse(401, "APIGW.0303", date=formatdate(NOON + offset, usegmt=True))))
    assert "minutes behind" not in message
    assert "minutes ahead" not in message


def test_a_wrong_clock_is_not_named_for_a_missing_task() -> None:
    assert "clock" not in str(read(refuse(404, "ModelArts.4700", date=formatdate(NOON + 9999, usegmt=True))))


SECRET = "gAAAAAB-token/with+signs=="


@pytest.mark.parametrize(
    "response",
    [
        refuse(400, "ModelArts.0101", f"bad token {SECRET}!"),
        answer({"error": {"message": f"bad token {SECRET}!"}}, 401),
        answer({"error": {"title": SECRET}}, 401),
        answer({"error_code": SECRET, "error_msg": "x"}, 400),
        answer({"error_code": "X", "request_id": f"token-{SECRET}"}, 400),
        refuse(400, "ModelArts.0101", x_request_id=f"token-{SECRET}"),
    ],
    ids=["error_msg", "keystone message", "keystone title", "error_code", "request_id", "request id header"],
)
def test_no_message_quotes_a_secret(response: Response) -> None:
    assert SECRET not in str(read(response, SECRET))


@pytest.mark.parametrize(
    ("text", "secrets", "redacted"),
    [("key: short-and-long", ("short", "short-and-long"), "key: ***"), ("abc", ("",), "abc")],
    ids=["a secret that contains another", "an empty secret"],
)
def test_secrets_are_redacted(text: str, secrets: tuple[str, ...], redacted: str) -> None:
    assert redact(text, secrets) == redacted


@pytest.mark.parametrize("long", [{"message": "long " * 10_000}, {"x_request_id": "r" * 10_000}], ids=["message", "id"])
def test_a_long_text_of_the_service_is_shortened(long: dict[str, str]) -> None:
    assert len(str(read(refuse(400, "ModelArts.0101", **long)))) < 1000


@pytest.mark.parametrize(
    "response",
    [
        answer({"overLimit": {"code": 413, "message": "slow down", "retryAfter": 7}}, 413),
        answer({}, 413, retry_after="7"),
    ],
)
def test_openstacks_form_of_throttling_is_recognized(response: Response) -> None:
    error = read(response)
    assert isinstance(error, errors.ModelArtsThrottledError)
    assert not error.outcome_unknown


def test_http_413_without_throttling_is_a_request_error() -> None:
    assert isinstance(read(refuse(413, "ModelArts.4104")), errors.ModelArtsRequestError)
    assert isinstance(read(refuse(413)), errors.ModelArtsRequestError)


@pytest.mark.parametrize(
    "response",
    [
        Response(431, {}, b""),
        Response(400, {"content-type": "text/html"}, b"<title>400 Request Header Or Cookie Too Large</title>"),
    ],
)
def test_a_token_too_large_for_a_gateway_has_its_own_advice(response: Response) -> None:
    error = read(response)
    assert isinstance(error, errors.ModelArtsConfigurationError)
    assert "fewer roles" in str(error)
    assert "Change the request" not in str(error)


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("CreateProcessorTask", "pool"),
        ("CreateProcessorTaskVersion", "pool"),
        ("DeleteProcessorTask", "pool"),
        ("DescribeProcessorTask", "poke_interval"),
        ("ListProcessorTasks", "poke_interval"),
    ],
)
def test_the_advice_for_throttling_depends_on_the_operation(operation: str, words: str) -> None:
    error = error_mapping.from_response(
        refuse(429, "APIGW.0308"), operation=operation, target="it", secrets=(), now=NOON
    )
    assert words in str(error)
    assert ("poke_interval" in str(error)) == (words == "poke_interval")
