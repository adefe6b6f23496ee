"""Tests of credentials: requests for tokens and keys, caching, renewal, errors, secrets."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_modelarts.api.credentials import (
    AccessKey,
    AuthContext,
    Authorizer,
    Credentials,
    InstanceAgency,
    PasswordToken,
    StaticToken,
    TokenCache,
    from_environment,
)
from airflow_modelarts.api.credentials.base import RENEWAL_POLL
from airflow_modelarts.api.credentials.instance_agency import METADATA_DELAY, METADATA_ROUNDS, METADATA_TIMEOUT
from airflow_modelarts.api.errors import (
    ModelArtsAuthenticationError,
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.http import Request, Response, Sleep
from airflow_modelarts.api.retry import RetryPolicy
from tests.support.flows import (
    BROKEN,
    FIVE_TIMES,
    NOON,
    ONCE,
    PROJECT_ID,
    REFUSED_CONNECTION,
    TIMEOUT,
    TOO_LARGE,
    UNKNOWN_NAME,
    Answer,
    Clock,
    FlowResult,
    answer,
    no_jitter,
    refuse,
    run_flow,
)

DAY = 24 * 3600.0
USER = PasswordToken("https://iam.example", "user", "the-password", "domain")
AGENCY = InstanceAgency()


def at(moment: float) -> str:
    """Return a time in the form of IAM."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def token(name: str = "T1", *, expires_at: float = NOON + DAY) -> Response:
    return answer({"token": {"expires_at": at(expires_at), "user": {"name": "user"}}}, 201, x_subject_token=name)


def security_key(name: str = "AK1", *, expires_at: float = NOON + DAY) -> Response:
    return answer(
        {"credential": {"access": name, "secret": "S3CRET", "securitytoken": "T0KEN", "expires_at": at(expires_at)}}
    )


def session_token(text: str = "M3TA") -> Response:
    return Response(200, {"content-type": "text/plain"}, text.encode())


class Process:
    """The token cache and the clock that the calls of a process share."""

    def __init__(self, retries: RetryPolicy = ONCE) -> None:
        self.clock = Clock()
        self.cache = TokenCache()
        self.retries = retries

    def context(self, project_id: str = PROJECT_ID) -> AuthContext:
        return AuthContext(project_id, self.cache, self.retries, self.clock, no_jitter)

    def flow(
        self, credentials: Credentials, refused: Authorizer | None = None, project_id: str = PROJECT_ID
    ) -> Generator[Any, Any, Authorizer]:
        return credentials.obtain(self.context(project_id), refused=refused)

    def obtain(
        self,
        credentials: Credentials,
        *answers: Answer,
        refused: Authorizer | None = None,
        project_id: str = PROJECT_ID,
    ) -> FlowResult[Authorizer]:
        return run_flow(self.flow(credentials, refused, project_id), answers, clock=self.clock)


@pytest.fixture
def process() -> Process:
    return Process()


def authorized(authorizer: Authorizer, request: Request | None = None) -> Request:
    request = request or Request("GET", "https://h.example/x", {"Accept": "application/json"})
    return authorizer.authorize(request, project_id=PROJECT_ID, now=NOON)


STATIC: list[AccessKey | StaticToken] = [AccessKey("AK", "SK"), StaticToken("T")]


@pytest.mark.parametrize("credentials", STATIC, ids=["key", "token"])
def test_static_credentials_are_their_own_authorizer_and_send_no_request(
    process: Process, credentials: AccessKey | StaticToken
) -> None:
    result = process.obtain(credentials)
    assert result.value is credentials
    assert result.steps == []


@pytest.mark.parametrize("credentials", STATIC, ids=["key", "token"])
def test_refused_static_credentials_stay_the_same(process: Process, credentials: AccessKey | StaticToken) -> None:
    assert process.obtain(credentials, refused=credentials).value is credentials


def test_a_permanent_key_sends_the_project_id_and_no_security_token() -> None:
    headers = authorized(AccessKey("AK", "SK")).headers
    assert headers["X-Project-Id"] == PROJECT_ID
    assert "X-Security-Token" not in headers


def test_a_temporary_key_signs_its_security_token() -> None:
    headers = authorized(AccessKey("AK", "SK", "T0KEN")).headers
    assert headers["X-Security-Token"] == "T0KEN"
    assert "x-security-token" in headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")


@pytest.mark.parametrize("authorizer", STATIC, ids=["key", "token"])
def test_authorizing_changes_only_the_headers(authorizer: AccessKey | StaticToken) -> None:
    request = Request("POST", "https://h.example/x?y=1", {"Accept": "*/*"}, b"{}", 7.0)
    result = authorized(authorizer, request)
    assert replace(result, headers=request.headers) == request
    assert result.headers.items() >= request.headers.items()


def test_a_static_token_is_sent_unchanged() -> None:
    assert authorized(StaticToken("T0KEN")).headers == {"Accept": "application/json", "X-Auth-Token": "T0KEN"}


def test_the_request_for_a_token_has_the_form_of_the_contract(process: Process) -> None:
    request = process.obtain(USER, token()).requests[0]
    assert (request.method, request.url) == ("POST", "https://iam.example/v3/auth/tokens")
    assert request.headers["Content-Type"] == "application/json;charset=utf8"
    assert json.loads(request.body) == {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": "user", "password": "the-password", "domain": {"name": "domain"}}},
            },
            "scope": {"project": {"id": PROJECT_ID}},
        }
    }


def test_a_token_can_be_scoped_by_project_name(process: Process) -> None:
    request = process.obtain(replace(USER, project_name="eu-de_ü"), token()).requests[0]
    assert json.loads(request.body)["auth"]["scope"] == {"project": {"name": "eu-de_ü"}}


def test_the_request_for_a_token_has_no_credentials_in_its_headers(process: Process) -> None:
    assert set(process.obtain(USER, token()).requests[0].headers) == {"Content-Type", "Accept"}


def test_the_token_is_read_from_the_header_of_the_answer(process: Process) -> None:
    assert process.obtain(USER, token("T1")).value == StaticToken("T1")


def test_a_token_may_have_several_kib(process: Process) -> None:
    assert process.obtain(USER, token("M" * 16_000)).value == StaticToken("M" * 16_000)


def test_a_token_is_cached(process: Process) -> None:
    process.obtain(USER, token("T1"))
    assert process.obtain(USER).value == StaticToken("T1")


def test_equal_credentials_share_a_token(process: Process) -> None:
    process.obtain(USER, token("T1"))
    assert process.obtain(replace(USER)).value == StaticToken("T1")


@pytest.mark.parametrize(
    "change",
    [
        {"password": "other"},
        {"user_name": "other"},
        {"domain_name": "other"},
        {"iam_endpoint": "https://other.example"},
        {"project_name": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_credentials_that_differ_share_no_token(process: Process, change: dict[str, str]) -> None:
    process.obtain(USER, token("T1"))
    assert process.obtain(replace(USER, **change), token("T2")).value == StaticToken("T2")


def test_two_projects_share_no_token(process: Process) -> None:
    process.obtain(USER, token("T1"))
    assert process.obtain(USER, token("T2"), project_id="f" * 32).value == StaticToken("T2")


def test_names_with_equal_concatenation_share_no_token(process: Process) -> None:
    process.obtain(replace(USER, user_name="ab", domain_name="c"), token("T1"))
    assert process.obtain(replace(USER, user_name="a", domain_name="bc"), token("T2")).value == StaticToken("T2")


@pytest.mark.parametrize(("left", "kept"), [(301, True), (299, False), (-10, False)])
def test_a_token_for_a_day_is_renewed_five_minutes_before_expiry(process: Process, left: float, kept: bool) -> None:
    process.obtain(USER, token("T1"))
    process.clock.now = NOON + DAY - left
    answers = () if kept else (token("T2", expires_at=NOON + 2 * DAY),)
    assert process.obtain(USER, *answers).value == StaticToken("T1" if kept else "T2")


@pytest.mark.parametrize(("used", "kept"), [(0.85, True), (0.95, False)])
def test_a_short_lived_token_is_used_for_nine_tenths_of_its_life(process: Process, used: float, kept: bool) -> None:
    process.obtain(USER, token("T1", expires_at=NOON + 100))
    process.clock.now = NOON + 100 * used
    answers = () if kept else (token("T2"),)
    assert process.obtain(USER, *answers).value == StaticToken("T1" if kept else "T2")


def test_an_expired_token_is_used_once_and_not_cached(process: Process) -> None:
    assert process.obtain(USER, token("T1", expires_at=NOON - 60)).value == StaticToken("T1")
    assert process.obtain(USER, token("T2")).value == StaticToken("T2")


def test_a_refused_token_is_renewed_before_it_expires(process: Process) -> None:
    process.obtain(USER, token("T1"))
    assert process.obtain(USER, token("T2"), refused=StaticToken("T1")).value == StaticToken("T2")


def test_a_token_that_another_caller_has_renewed_is_used(process: Process) -> None:
    process.obtain(USER, token("T2"))
    assert process.obtain(USER, refused=StaticToken("T1")).value == StaticToken("T2")


@pytest.mark.parametrize(
    "expires_at",
    ["2026-02-01T12:00:00.000000Z", "2026-02-01T12:00:00Z", "2026-02-01T12:00:00", "2026-02-01T14:00:00+02:00"],
)
def test_the_expiry_of_a_token_is_read_in_any_usual_form(process: Process, expires_at: str) -> None:
    process.obtain(USER, answer({"token": {"expires_at": expires_at}}, 201, x_subject_token="T1"))
    process.clock.now = NOON + DAY - 301
    assert process.obtain(USER).value == StaticToken("T1")


@pytest.mark.parametrize(
    "response",
    [
        answer({"token": {"expires_at": at(NOON)}}, 201),
        answer({"token": {"expires_at": at(NOON)}}, 201, x_subject_token=""),
        answer({"token": {}}, 201, x_subject_token="T0KEN"),
        answer({"token": {"expires_at": None}}, 201, x_subject_token="T0KEN"),
        answer({"token": {"expires_at": 17}}, 201, x_subject_token="T0KEN"),
        answer({"token": {"expires_at": "tomorrow"}}, 201, x_subject_token="T0KEN"),
        answer({"token": []}, 201, x_subject_token="T0KEN"),
        answer({}, 201, x_subject_token="T0KEN"),
        answer([], 201, x_subject_token="T0KEN"),
        answer(None, 201, x_subject_token="T0KEN"),
        Response(201, {"x-subject-token": "T0KEN"}, b"<html>"),
        Response(201, {"x-subject-token": "T0KEN"}, b"\xff"),
        Response(201, {"x-subject-token": "T0KEN"}, b"[" * 100_000),
    ],
    ids=[
        "no token",
        "empty token",
        "no expiry",
        "null expiry",
        "number",
        "no date",
        "array",
        "nothing",
        "list",
        "empty",
        "html",
        "bytes",
        "deep",
    ],
)
def test_an_unreadable_answer_of_iam_is_a_temporary_error_that_quotes_nothing(
    process: Process, response: Response
) -> None:
    error = process.obtain(USER, response).error
    assert isinstance(error, ModelArtsTransientError)
    assert "T0KEN" not in str(error)


def test_an_unreadable_answer_of_iam_is_retried() -> None:
    assert Process(FIVE_TIMES).obtain(USER, answer({}, 201), TIMEOUT, refuse(503), token("T1")).value


def test_a_refused_password_quotes_keystone(process: Process) -> None:
    body = {"error": {"code": 401, "message": "The username or password is wrong.", "title": "Unauthorized"}}
    error = process.obtain(USER, answer(body, 401)).error
    assert isinstance(error, ModelArtsAuthenticationError)
    assert "The username or password is wrong." in str(error)


def test_a_refused_password_is_not_retried() -> None:
    assert len(Process(FIVE_TIMES).obtain(USER, refuse(401)).requests) == 1


def test_an_error_of_iam_names_the_user_and_the_operation(process: Process) -> None:
    message = str(process.obtain(USER, refuse(401)).error)
    assert all(part in message for part in ("KeystoneCreateUserTokenByPassword", "'user'", "'domain'"))


def test_an_error_without_an_answer_of_iam_names_its_endpoint(process: Process) -> None:
    assert "https://iam.example" in str(process.obtain(USER, REFUSED_CONNECTION).error)


def test_an_error_of_iam_does_not_quote_the_password(process: Process) -> None:
    assert "the-password" not in str(process.obtain(USER, refuse(400, "IAM.1", "bad: the-password")).error)


NAMED = replace(USER, project_name="eu-de_other")


def project_token(project: object) -> Response:
    return answer({"token": {"expires_at": at(NOON + DAY), "project": project}}, 201, x_subject_token="T1")


def test_a_project_name_and_a_project_id_of_different_projects_are_an_error(process: Process) -> None:
    other = "f" * 32
    error = process.obtain(NAMED, project_token({"id": other, "name": "eu-de_other"})).error
    assert isinstance(error, ModelArtsConfigurationError)
    assert str(error).startswith(f"project_name 'eu-de_other' is project {other}")
    assert f"project_id is '{PROJECT_ID}'" in str(error)
    assert "Change the request" not in str(error)


@pytest.mark.parametrize(
    "project", [None, {}, [], {"id": None}, {"id": 17}, {"id": PROJECT_ID}, {"id": "not an id <x>"}], ids=str
)
def test_a_token_for_this_project_or_without_a_project_is_used(process: Process, project: object) -> None:
    assert process.obtain(NAMED, project_token(project)).value == StaticToken("T1")


def test_a_token_of_another_project_is_not_cached(process: Process) -> None:
    assert process.obtain(NAMED, project_token({"id": "f" * 32})).error
    assert process.obtain(NAMED, project_token({"id": PROJECT_ID})).value == StaticToken("T1")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ModelArtsConfigurationError),
        (401, ModelArtsAuthenticationError),
        (403, ModelArtsAuthenticationError),
        (404, ModelArtsConfigurationError),
    ],
)
def test_a_refusal_of_iam_names_every_setting_that_can_be_wrong(
    process: Process, status: int, kind: type[ModelArtsError]
) -> None:
    error = process.obtain(NAMED, refuse(status)).error
    assert type(error) is kind
    assert error.http_status == status
    for named in ("domain_name 'domain'", "login 'user'", "project_name 'eu-de_other'", "iam_endpoint"):
        assert named in str(error)
    assert "Change the request" not in str(error)
    assert "the-password" not in str(error)


def test_a_refusal_of_iam_mentions_a_project_name_given_as_project_id(process: Process) -> None:
    error = process.obtain(USER, refuse(401), project_id="eu-de_project").error
    assert "project_id 'eu-de_project' looks like a project's name" in str(error)


def test_a_too_large_token_is_a_configuration_error(process: Process) -> None:
    error = process.obtain(USER, TOO_LARGE).error
    assert isinstance(error, ModelArtsConfigurationError)
    assert "fewer roles" in str(error)


def test_an_iam_host_that_does_not_resolve_is_named_as_the_user_wrote_it(process: Process) -> None:
    error = process.obtain(replace(USER, unresolved="region 'eu-dee' has no IAM endpoint"), UNKNOWN_NAME).error
    assert str(error).startswith("region 'eu-dee' has no IAM endpoint.")
    assert "project_name" not in str(error)


def test_a_failed_renewal_is_not_cached(process: Process) -> None:
    process.obtain(USER, refuse(401))
    assert process.obtain(USER, token("T1")).value == StaticToken("T1")


def test_a_failed_renewal_keeps_the_cached_token(process: Process) -> None:
    process.obtain(USER, token("T1"))
    process.obtain(USER, refuse(503), refused=StaticToken("T1"))
    assert process.obtain(USER).value == StaticToken("T1")


def start(flow: Generator[Any, Any, Authorizer]) -> Any:
    """Return the first step of a flow."""
    return flow.send(None)


def finish(flow: Generator[Any, Any, Authorizer], reply: Any = None) -> Authorizer:
    """Send a flow the outcome of its last step, and return its value."""
    with pytest.raises(StopIteration) as end:
        flow.throw(reply) if isinstance(reply, Exception) else flow.send(reply)
    authorizer: Authorizer = end.value.value
    return authorizer


def test_of_two_concurrent_callers_one_requests_a_token_and_one_sleeps(process: Process) -> None:
    first, second = process.flow(USER), process.flow(USER)
    assert isinstance(start(first), Request)
    assert start(second) == Sleep(RENEWAL_POLL)
    assert second.send(None) == Sleep(RENEWAL_POLL)


def test_a_waiting_caller_gets_the_token_of_the_other(process: Process) -> None:
    first, second = process.flow(USER), process.flow(USER)
    start(first)
    start(second)
    assert finish(first, token("T1")) == finish(second) == StaticToken("T1")


def test_a_waiting_caller_gets_the_error_of_the_other(process: Process) -> None:
    first, second = process.flow(USER), process.flow(USER)
    start(first)
    start(second)
    with pytest.raises(ModelArtsAuthenticationError) as firsts:
        first.send(refuse(401, x_request_id="r-1"))
    with pytest.raises(ModelArtsAuthenticationError) as seconds:
        second.send(None)
    assert seconds.value is not firsts.value
    assert (str(seconds.value), vars(seconds.value)) == (str(firsts.value), vars(firsts.value))


def test_a_waiting_caller_renews_itself_if_the_other_flow_is_closed(process: Process) -> None:
    first, second = process.flow(USER), process.flow(USER)
    start(first)
    start(second)
    first.close()
    assert isinstance(second.send(None), Request)
    assert finish(second, token("T1")) == StaticToken("T1")


def test_a_closed_renewal_does_not_block_the_next_one(process: Process) -> None:
    first = process.flow(USER)
    start(first)
    first.close()
    assert process.obtain(USER, token("T1")).value == StaticToken("T1")


def test_a_renewal_with_an_unexpected_exception_does_not_block_the_next_one(process: Process) -> None:
    first, second = process.flow(USER), process.flow(USER)
    start(first)
    start(second)
    with pytest.raises(ZeroDivisionError):
        first.throw(ZeroDivisionError())
    assert isinstance(second.send(None), Request)
    assert finish(second, token("T1")) == StaticToken("T1")


def test_a_waiting_caller_renews_itself_if_the_new_token_is_the_refused_one(process: Process) -> None:
    first, second = process.flow(USER), process.flow(USER, StaticToken("T1"))
    start(first)
    start(second)
    finish(first, token("T1"))
    assert isinstance(second.send(None), Request)
    assert finish(second, token("T2")) == StaticToken("T2")


def test_of_three_callers_one_takes_over_a_closed_renewal(process: Process) -> None:
    flows = [process.flow(USER) for _ in range(3)]
    for flow in flows:
        start(flow)
    flows[0].close()
    assert [type(flow.send(None)) for flow in flows[1:]] == [Request, Sleep]


def test_a_copy_of_the_cache_has_its_tokens_and_none_of_its_renewals(process: Process) -> None:
    process.obtain(AGENCY, session_token(), security_key())
    renewing = process.flow(USER)
    next(renewing)
    with process.cache._lock:  # as in a signal handler that interrupts the code with the lock
        process.cache = process.cache.copy()
        assert process.obtain(AGENCY).value == AccessKey("AK1", "S3CRET", "T0KEN")
        assert process.obtain(USER, token()).value == StaticToken("T1")


def test_renewals_of_different_credentials_do_not_wait_for_each_other(process: Process) -> None:
    first, second = process.flow(USER), process.flow(replace(USER, user_name="other"))
    assert [type(start(flow)) for flow in (first, second)] == [Request, Request]


def test_a_waiting_caller_waits_through_the_retries_of_the_other() -> None:
    process = Process(FIVE_TIMES)
    first, second = process.flow(USER), process.flow(USER)
    start(first)
    start(second)
    assert first.send(refuse(503)) == Sleep(1.0)
    assert second.send(None) == Sleep(RENEWAL_POLL)
    assert isinstance(first.send(None), Request)
    assert finish(first, token("T1")) == finish(second) == StaticToken("T1")


def test_a_cache_holds_no_password(process: Process) -> None:
    process.obtain(USER, token("T1"))
    assert "the-password" not in str(vars(process.cache))


def test_the_requests_for_a_temporary_key_have_the_form_of_the_contract(process: Process) -> None:
    first, second = process.obtain(AGENCY, session_token("M3TA\n"), security_key()).requests
    assert (first.method, first.url) == ("PUT", "http://169.254.169.254/meta-data/latest/api/token")
    assert int(first.headers["X-Metadata-Token-Ttl-Seconds"]) > 0
    assert (second.method, second.url) == ("GET", "http://169.254.169.254/openstack/latest/securitykey")
    assert second.headers == {"X-Metadata-Token": "M3TA"}


@pytest.mark.parametrize("status", [404, 405, 503, 400, 500])
def test_a_metadata_service_without_session_tokens_gets_a_request_without_one(process: Process, status: int) -> None:
    result = process.obtain(AGENCY, refuse(status, "X", "no such thing"), security_key())
    assert result.value == AccessKey("AK1", "S3CRET", "T0KEN")
    assert result.requests[1].headers == {}


@pytest.mark.parametrize("fault", [REFUSED_CONNECTION, TIMEOUT, BROKEN], ids=lambda fault: str(fault.kind))
def test_a_key_is_requested_without_a_token_if_no_session_token_comes(process: Process, fault: Answer) -> None:
    assert process.obtain(AGENCY, fault, security_key()).value == AccessKey("AK1", "S3CRET", "T0KEN")


def test_requests_to_the_metadata_service_have_a_short_timeout(process: Process) -> None:
    timeouts = [request.timeout for request in process.obtain(AGENCY, session_token(), security_key()).requests]
    assert timeouts == [METADATA_TIMEOUT] * 2


def test_the_address_of_the_metadata_service_can_be_set(process: Process) -> None:
    result = process.obtain(InstanceAgency("http://127.0.0.1:8080"), session_token(), security_key())
    assert all(request.url.startswith("http://127.0.0.1:8080/") for request in result.requests)


def test_a_temporary_key_is_the_authorizer_and_is_cached(process: Process) -> None:
    process.obtain(AGENCY, session_token(), security_key())
    assert process.obtain(AGENCY).value == AccessKey("AK1", "S3CRET", "T0KEN")


def test_all_projects_share_a_temporary_key(process: Process) -> None:
    process.obtain(AGENCY, session_token(), security_key())
    assert process.obtain(AGENCY, project_id="f" * 32).value == AccessKey("AK1", "S3CRET", "T0KEN")


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
    assert isinstance(result.error, ModelArtsConfigurationError)
    assert "Elastic Cloud Server only" in str(result.error)
    assert "auth" in str(result.error)
    assert result.sleeps == [METADATA_DELAY] * 2


@pytest.mark.parametrize("fault", [REFUSED_CONNECTION, TIMEOUT], ids=lambda fault: str(fault.kind))
def test_no_answer_after_an_earlier_key_is_an_outage(process: Process, fault: Answer) -> None:
    key = process.obtain(AGENCY, session_token(), security_key()).value
    assert process.obtain(AGENCY, *[fault] * 6, refused=key).error.temporary


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_an_error_without_an_agency_advises_to_set_one(process: Process, status: int) -> None:
    error = process.obtain(AGENCY, session_token(), refuse(status)).error
    assert isinstance(error, ModelArtsAuthenticationError)
    assert "give it an agency" in str(error)
    assert error.http_status == status


hiccups = pytest.mark.parametrize(
    "hiccup", [TIMEOUT, BROKEN, refuse(429), refuse(500), refuse(503)], ids=["timeout", "broken", "429", "500", "503"]
)


@hiccups
def test_a_session_token_is_requested_again_after_a_temporary_failure(process: Process, hiccup: Answer) -> None:
    """It is retried also if the retry policy has a single attempt, as for the polls of a wait."""
    result = process.obtain(AGENCY, hiccup, refuse(401), hiccup, refuse(401), session_token(), security_key())
    assert result.value == AccessKey("AK1", "S3CRET", "T0KEN")


@hiccups
def test_a_container_behind_another_hop_gets_its_own_error_without_retries(process: Process, hiccup: Answer) -> None:
    result = process.obtain(AGENCY, *[hiccup, refuse(401)] * 3)
    assert isinstance(result.error, ModelArtsConfigurationError)
    assert all(word in str(result.error) for word in ("container", "hop limit", "agency", "another auth"))
    assert sum(result.sleeps) < 5


@hiccups
def test_no_session_token_after_an_earlier_key_is_an_outage(process: Process, hiccup: Answer) -> None:
    key = process.obtain(AGENCY, session_token(), security_key()).value
    error = process.obtain(AGENCY, *[hiccup, refuse(401)] * 3, refused=key).error
    assert isinstance(error, ModelArtsTransientError)
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
    assert isinstance(result.error, ModelArtsAuthenticationError)
    assert str(result.error).startswith("This server has no temporary key: give it an agency")
    assert result.sleeps == []


@pytest.mark.parametrize("status", [403, 404, 405])
def test_no_key_from_a_service_without_session_tokens_means_no_agency(process: Process, status: int) -> None:
    error = process.obtain(AGENCY, refuse(status), refuse(401)).error
    assert isinstance(error, ModelArtsAuthenticationError)


def test_an_outage_of_the_metadata_service_is_a_temporary_error(process: Process) -> None:
    error = process.obtain(AGENCY, session_token(), refuse(500)).error
    assert isinstance(error, ModelArtsTransientError)
    assert error.http_status == 500


def test_a_short_outage_of_the_metadata_service_is_retried() -> None:
    result = Process(FIVE_TIMES).obtain(AGENCY, session_token(), refuse(500), TIMEOUT, security_key())
    assert result.value == AccessKey("AK1", "S3CRET", "T0KEN")


COMPLETE = {"access": "AK1", "secret": "S3CRET", "securitytoken": "T0KEN", "expires_at": at(NOON + DAY)}


incomplete_keys = pytest.mark.parametrize(
    "body",
    [
        *({"credential": {**COMPLETE, name: None}} for name in COMPLETE),
        *({"credential": {**COMPLETE, name: ""}} for name in COMPLETE),
        *({"credential": {key: value for key, value in COMPLETE.items() if key != name}} for name in COMPLETE),
        {"credential": []},
        {"credential": None},
        {},
        [],
        "S3CRET",
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
    assert isinstance(error, ModelArtsAuthenticationError)
    assert "give it an agency" in str(error)
    assert "S3CRET" not in str(error)
    assert "T0KEN" not in str(error)


@incomplete_keys
def test_an_incomplete_temporary_key_is_temporary_after_an_earlier_key(process: Process, body: Any) -> None:
    key = process.obtain(AGENCY, session_token(), security_key()).value
    error = process.obtain(AGENCY, *[session_token(), answer(body)] * METADATA_ROUNDS, refused=key).error
    assert isinstance(error, ModelArtsTransientError)
    assert "S3CRET" not in str(error)
    assert "T0KEN" not in str(error)


def test_an_incomplete_temporary_key_is_retried(process: Process) -> None:
    result = process.obtain(AGENCY, session_token(), answer({}), session_token(), security_key())
    assert result.value == AccessKey("AK1", "S3CRET", "T0KEN")


def test_no_error_of_the_metadata_service_quotes_the_session_token(process: Process) -> None:
    error = process.obtain(AGENCY, session_token("M3TA"), refuse(403, "X", "M3TA is not mine")).error
    assert "M3TA" not in str(error)


ENVIRONMENT = {"HUAWEICLOUD_SDK_AK": "AK", "HUAWEICLOUD_SDK_SK": "SK", "HUAWEICLOUD_SDK_SECURITY_TOKEN": "T0KEN"}


def test_an_access_key_is_read_from_the_environment() -> None:
    assert from_environment({**ENVIRONMENT, "OTHER": "x"}) == AccessKey("AK", "SK", "T0KEN")


@pytest.mark.parametrize("missing", [{}, {"HUAWEICLOUD_SDK_SECURITY_TOKEN": ""}], ids=["absent", "empty"])
def test_the_security_token_of_the_environment_is_optional(missing: dict[str, str]) -> None:
    environment = {"HUAWEICLOUD_SDK_AK": "AK", "HUAWEICLOUD_SDK_SK": "SK", **missing}
    assert from_environment(environment) == AccessKey("AK", "SK", None)


@pytest.mark.parametrize("value", [None, "", " \n"], ids=["absent", "empty", "blank"])
@pytest.mark.parametrize("name", ["HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK"])
def test_a_missing_variable_is_named(name: str, value: str | None) -> None:
    environment = {key: text for key, text in {**ENVIRONMENT, name: value}.items() if text is not None}
    with pytest.raises(ModelArtsConfigurationError, match=f"^{name} missing"):
        from_environment(environment)


@pytest.mark.parametrize("around", ["{}\n", " {} ", "\t{}\r\n"])
def test_white_space_around_a_variable_is_removed(around: str) -> None:
    environment = {name: around.format(value) for name, value in ENVIRONMENT.items()}
    assert from_environment(environment) == AccessKey("AK", "SK", "T0KEN")


def test_both_missing_variables_are_named() -> None:
    with pytest.raises(ModelArtsConfigurationError, match="HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK missing"):
        from_environment({})


SECRETS = {"S3CRET", "T0KEN"}


@pytest.mark.parametrize(
    "one",
    [
        AccessKey("AK", "S3CRET", "T0KEN"),
        StaticToken("T0KEN"),
        replace(USER, password="S3CRET"),
        InstanceAgency(),
        from_environment({**ENVIRONMENT, "HUAWEICLOUD_SDK_SK": "S3CRET"}),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_repr_of_credentials_has_no_secret(one: Credentials) -> None:
    assert not any(secret in text for secret in SECRETS for text in (repr(one), str(one)))


def test_no_repr_while_obtaining_has_a_secret(process: Process) -> None:
    process.obtain(replace(USER, password="S3CRET"), token("T0KEN"))
    result = process.obtain(AGENCY, session_token("T0KEN"), security_key())
    shown = repr([result.steps, process.context(), process.cache])
    assert not any(secret in shown for secret in SECRETS)


@pytest.mark.parametrize(
    ("one", "secrets"),
    [
        (AccessKey("AK", "SK"), ("SK",)),
        (AccessKey("AK", "SK", "T"), ("SK", "T")),
        (StaticToken("T"), ("T",)),
        (USER, ("the-password",)),
        (AGENCY, ()),
    ],
    ids=["key", "temporary key", "token", "password", "agency"],
)
def test_credentials_list_their_secrets(one: Credentials, secrets: tuple[str, ...]) -> None:
    assert one.secrets == secrets


def test_an_error_of_a_renewal_has_its_operation(process: Process) -> None:
    error: ModelArtsError = process.obtain(AGENCY, *[TIMEOUT] * 6).error
    assert error.operation == "GetSecurityKey"
