"""Tests of the temporary keys of a server's agency."""

import json
from typing import Any

import pytest

from airflow_modelarts.api import errors
from airflow_modelarts.api.credentials import AccessKey, InstanceAgency
from airflow_modelarts.api.credentials.instance_agency import METADATA_DELAY, METADATA_ROUNDS, METADATA_TIMEOUT
from airflow_modelarts.api.http import Response
from airflow_modelarts.api.retry import RetryPolicy
from tests.support.credentials import AGENCY, DAY, Process, at, security_key, session_token
from tests.support.flows import BROKEN, FIVE_TIMES, NOON, ONCE, REFUSED_CONNECTION, TIMEOUT, Answer, answer, refuse

KEY = AccessKey("AK1", "S3CRET", "T0KEN")


def test_the_requests_for_a_temporary_key_have_the_form_of_the_contract(process: Process) -> None:
    first, second = process.obtain(AGENCY, session_token("M3TA\n"), security_key()).requests
    assert (first.method, first.url) == ("PUT", "http://169.254.169.254/meta-data/latest/api/token")
    assert int(first.headers["X-Metadata-Token-Ttl-Seconds"]) > 0
    assert (second.method, second.url) == ("GET", "http://169.254.169.254/openstack/latest/securitykey")
    assert second.headers == {"X-Metadata-Token": "M3TA"}
    assert first.timeout == second.timeout == METADATA_TIMEOUT, "a short one"


@pytest.mark.parametrize("status", [404, 405, 503, 400, 500])
def test_a_metadata_service_without_session_tokens_gets_a_request_without_one(process: Process, status: int) -> None:
    result = process.obtain(AGENCY, refuse(status, "X", "no such thing"), security_key())
    assert result.value == KEY
    assert result.requests[1].headers == {}


@pytest.mark.parametrize("fault", [REFUSED_CONNECTION, TIMEOUT, BROKEN], ids=lambda fault: str(fault.kind))
def test_a_key_is_requested_without_a_token_if_no_session_token_comes(process: Process, fault: Answer) -> None:
    assert process.obtain(AGENCY, fault, security_key()).value == KEY


def test_the_address_of_the_metadata_service_can_be_set(process: Process) -> None:
    result = process.obtain(InstanceAgency("http://127.0.0.1:8080"), session_token(), security_key())
    assert all(request.url.startswith("http://127.0.0.1:8080/") for request in result.requests)


def test_all_projects_share_a_temporary_key(process: Process) -> None:
    process.obtain(AGENCY, session_token(), security_key())
    assert process.obtain(AGENCY, project_id="f" * 32).value == KEY


@pytest.mark.parametrize(("left", "kept"), [(301, True), (299, False)])
def test_a_temporary_key_is_renewed_before_it_expires(process: Process, left: float, kept: bool) -> None:
    process.obtain(AGENCY, session_token(), security_key())
    process.clock.now = NOON + DAY - left
    answers = () if kept else (session_token(), security_key("AK2", expires_at=NOON + 2 * DAY))
    assert isinstance(key := process.obtain(AGENCY, *answers).value, AccessKey)
    assert key.access_key == ("AK1" if kept else "AK2")


def test_a_refused_temporary_key_is_renewed(process: Process) -> None:
    first = process.obtain(AGENCY, session_token(), security_key("AK1")).value
    second = process.obtain(AGENCY, session_token(), security_key("AK2"), refused=first).value
    assert second == AccessKey("AK2", "S3CRET", "T0KEN")


@pytest.mark.parametrize("fault", [REFUSED_CONNECTION, TIMEOUT], ids=lambda fault: str(fault.kind))
def test_an_error_without_a_metadata_service_advises_other_credentials(process: Process, fault: Answer) -> None:
    result = process.obtain(AGENCY, *[fault] * 6)
    assert isinstance(result.error, errors.ModelArtsConfigurationError)
    assert "Elastic Cloud Server only" in str(result.error)
    assert "auth" in str(result.error)
    assert result.error.operation == "GetSecurityKey"
    assert result.sleeps == [METADATA_DELAY] * 2


@pytest.mark.parametrize("fault", [REFUSED_CONNECTION, TIMEOUT], ids=lambda fault: str(fault.kind))
def test_no_answer_after_an_earlier_key_is_an_outage(process: Process, fault: Answer) -> None:
    key = process.obtain(AGENCY, session_token(), security_key()).value
    assert process.obtain(AGENCY, *[fault] * 6, refused=key).error.temporary


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_an_error_without_an_agency_advises_to_set_one(process: Process, status: int) -> None:
    error = process.obtain(AGENCY, session_token(), refuse(status)).error
    assert isinstance(error, errors.ModelArtsAuthenticationError)
    assert "give it an agency" in str(error)
    assert error.http_status == status


hiccups = pytest.mark.parametrize(
    "hiccup", [TIMEOUT, BROKEN, refuse(429), refuse(500), refuse(503)], ids=["timeout", "broken", "429", "500", "503"]
)


@hiccups
def test_a_session_token_is_requested_again_after_a_temporary_failure(process: Process, hiccup: Answer) -> None:
    """It is retried also if the retry policy has a single attempt, as for the polls of a wait."""
    result = process.obtain(AGENCY, hiccup, refuse(401), hiccup, refuse(401), session_token(), security_key())
    assert result.value == KEY


@hiccups
def test_a_container_behind_another_hop_gets_its_own_error_without_retries(process: Process, hiccup: Answer) -> None:
    result = process.obtain(AGENCY, *[hiccup, refuse(401)] * 3)
    assert isinstance(result.error, errors.ModelArtsConfigurationError)
    assert all(word in str(result.error) for word in ("container", "hop limit", "agency", "another auth"))
    assert sum(result.sleeps) < 5


@hiccups
def test_no_session_token_after_an_earlier_key_is_an_outage(process: Process, hiccup: Answer) -> None:
    key = process.obtain(AGENCY, session_token(), security_key()).value
    error = process.obtain(AGENCY, *[hiccup, refuse(401)] * 3, refused=key).error
    assert isinstance(error, errors.ModelArtsTransientError)
    assert "did not issue one" in str(error)


NO_AGENCY = [
    Response(401, {"content-type": "text/plain"}, b"Please configure an agency first."),
    Response(401, {"content-type": "text/html"}, b"<html>The server has no Agency</html>"),
    answer({"error": {"code": 401, "message": "agency is not configured"}}, 401),
    Response(401, {}, "请先配置委托".encode()),
]


@pytest.mark.parametrize("no_agency", NO_AGENCY, ids=["text", "html", "json", "chinese"])
@pytest.mark.parametrize(
    "first", [session_token(), refuse(404), refuse(503), TIMEOUT], ids=["token", "404", "503", "timeout"]
)
@pytest.mark.parametrize("retries", [ONCE, FIVE_TIMES], ids=["poll", "call"])
def test_a_missing_agency_is_reported_without_retries(no_agency: Response, first: Answer, retries: RetryPolicy) -> None:
    result = Process(retries).obtain(AGENCY, first, no_agency)
    assert isinstance(result.error, errors.ModelArtsAuthenticationError)
    assert str(result.error).startswith("This server has no temporary key: give it an agency")
    assert result.sleeps == []


@pytest.mark.parametrize("status", [403, 404, 405])
def test_no_key_from_a_service_without_session_tokens_means_no_agency(process: Process, status: int) -> None:
    assert isinstance(process.obtain(AGENCY, refuse(status), refuse(401)).error, errors.ModelArtsAuthenticationError)


def test_an_outage_of_the_metadata_service_is_a_temporary_error(process: Process) -> None:
    error = process.obtain(AGENCY, session_token(), refuse(500)).error
    assert isinstance(error, errors.ModelArtsTransientError)
    assert error.http_status == 500


def test_a_short_outage_of_the_metadata_service_is_retried() -> None:
    result = Process(FIVE_TIMES).obtain(AGENCY, session_token(), refuse(500), TIMEOUT, security_key())
    assert result.value == KEY


COMPLETE = {"access": "AK1", "secret": "S3CRET", "securitytoken": "T0KEN", "expires_at": at(NOON + DAY)}


incomplete_keys = pytest.mark.parametrize(
    "body",
    [
        *({"credential": {**COMPLETE, name: None}} for name in COMPLETE),
        *({"credential": {**COMPLETE, name: ""}} for name in COMPLETE),
        *({"credential": {key: value for key, value in COMPLETE.items() if key != name}} for name in COMPLETE),
        *({"credential": []}, {"credential": None}, {}, [], "S3CRET"),
    ],
    ids=lambda body: json.dumps(body)[:60],
)


@incomplete_keys
@pytest.mark.parametrize("retries", [ONCE, FIVE_TIMES], ids=["poll", "call"])
def test_an_incomplete_temporary_key_is_an_error_that_quotes_nothing(retries: RetryPolicy, body: Any) -> None:
    process = Process(retries)
    attempts = [session_token(), *[answer(body)] * retries.attempts]
    result = process.obtain(AGENCY, *attempts * (METADATA_ROUNDS if retries is ONCE else 1))
    error = result.error
    assert isinstance(error, errors.ModelArtsAuthenticationError)
    assert "give it an agency" in str(error)
    assert "S3CRET" not in str(error)
    assert "T0KEN" not in str(error)


@incomplete_keys
def test_an_incomplete_temporary_key_is_temporary_after_an_earlier_key(process: Process, body: Any) -> None:
    key = process.obtain(AGENCY, session_token(), security_key()).value
    error = process.obtain(AGENCY, *[session_token(), answer(body)] * METADATA_ROUNDS, refused=key).error
    assert isinstance(error, errors.ModelArtsTransientError)
    assert "S3CRET" not in str(error)
    assert "T0KEN" not in str(error)


def test_an_incomplete_temporary_key_is_retried(process: Process) -> None:
    result = process.obtain(AGENCY, session_token(), answer({}), session_token(), security_key())
    assert result.value == KEY


def test_no_error_of_the_metadata_service_quotes_the_session_token(process: Process) -> None:
    error = process.obtain(AGENCY, session_token("M3TA"), refuse(403, "X", "M3TA is not mine")).error
    assert "M3TA" not in str(error)
