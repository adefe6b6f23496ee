"""Tests of refused credentials: renewing a token or key, and reading the connection again."""

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_modelarts.api import errors, models
from airflow_modelarts.api.client import ClientConfig, call
from airflow_modelarts.api.credentials import Credentials, InstanceAgency, StaticToken, TokenCache
from airflow_modelarts.api.http import ConnectionReadError, ReadConnection, Request, Response
from airflow_modelarts.api.models import ProcessorTask
from tests.support.credentials import USER, security_key, token
from tests.support.flows import (
    ACCESS_KEY,
    CREATE,
    DELETE,
    DESCRIBE,
    FIVE_TIMES,
    NOON,
    ONCE,
    OTHER_KEY,
    PROJECT_ID,
    REFUSED_CONNECTION,
    SECRET_KEY,
    TASK,
    TIMEOUT,
    UNKNOWN_NAME,
    Answer,
    Clock,
    FlowResult,
    answer,
    client,
    describe,
    refuse,
    run_flow,
)


@pytest.mark.parametrize("credentials", [ACCESS_KEY, StaticToken("T")], ids=["key", "token"])
def test_refused_static_credentials_are_sent_again_only_if_the_connection_changed(credentials: Credentials) -> None:
    one = client(credentials)
    result = describe(refuse(401), clients=(one, one))
    assert isinstance(result.error, errors.ModelArtsAuthenticationError)
    assert len(result.requests) == 1


def test_the_connection_is_read_again_with_the_client_that_was_refused() -> None:
    one = client()
    assert describe(refuse(401), clients=(one, one)).readings == [ReadConnection(), ReadConnection(refused=one)]


def test_clients_with_different_clocks_and_caches_are_equal() -> None:
    result = describe(refuse(401), clients=(client(), client(cache=TokenCache(), clock=Clock(NOON + 1))))
    assert len(result.requests) == 1


def test_a_rotated_key_is_used() -> None:
    result = describe(refuse(401), TASK, clients=(client(), client(OTHER_KEY)))
    assert result.value == ProcessorTask(task_id="abc", status=1)
    assert "Access=AK2," in result.requests[1].headers["Authorization"]


@pytest.mark.parametrize(
    "change", [{"endpoint": "https://new.example"}, {"project_id": "f" * 32}], ids=["endpoint", "project"]
)
def test_any_change_of_the_connection_is_tried(change: dict[str, Any]) -> None:
    assert describe(refuse(401), TASK, clients=(client(), replace(client(), **change))).value


def test_a_refused_rotated_key_ends_the_call() -> None:
    result = describe(refuse(401), refuse(401), clients=(client(), client(OTHER_KEY)))
    assert isinstance(result.error, errors.ModelArtsAuthenticationError)
    assert len(result.readings) == 2


@pytest.mark.parametrize("refused", [refuse(403), refuse(400, "ModelArts.0204")], ids=["403", "token without project"])
def test_a_missing_permission_reads_the_connection_again_once(refused: Response) -> None:
    one = client()
    assert len(describe(refused, clients=(one, one)).readings) == 2


@pytest.mark.parametrize("refused", [refuse(404), refuse(400), refuse(429), refuse(500), TIMEOUT, REFUSED_CONNECTION])
def test_the_connection_is_read_once_if_the_credentials_are_not_refused(refused: Answer) -> None:
    assert len(describe(refused, clients=(client(),)).readings) == 1


def test_a_token_is_obtained_and_used() -> None:
    result = describe(token("T1"), TASK, clients=(client(USER),))
    assert result.requests[0].url == "https://iam.example/v3/auth/tokens"
    assert result.requests[1].headers["X-Auth-Token"] == "T1"


def test_a_refused_token_is_renewed_and_the_call_succeeds() -> None:
    result = describe(token("T1"), refuse(401), token("T2"), TASK, clients=(client(USER),))
    assert result.value
    assert [request.headers.get("X-Auth-Token") for request in result.requests] == [None, "T1", None, "T2"]


def test_the_next_call_uses_a_renewed_token() -> None:
    one = client(USER)
    describe(token("T1"), refuse(401), token("T2"), TASK, clients=(one,))
    assert describe(TASK, clients=(one,)).requests[0].headers["X-Auth-Token"] == "T2"


def test_a_call_ends_after_one_renewal_and_one_reading_of_the_connection() -> None:
    one = client(USER)
    result = describe(token("T1"), refuse(401), token("T2"), refuse(401), clients=(one, one))
    assert isinstance(result.error, errors.ModelArtsAuthenticationError)
    assert [type(step) for step in result.steps] == [ReadConnection, *[Request] * 4, ReadConnection]


def test_a_changed_password_is_read_from_the_connection() -> None:
    changed = client(replace(USER, password="new"))
    result = describe(token(), refuse(401), refuse(401), token("T2"), TASK, clients=(client(USER), changed))
    assert result.value
    assert json.loads(result.requests[3].body)["auth"]["identity"]["password"]["user"]["password"] == "new"


def test_a_refused_password_reads_the_connection_again_once() -> None:
    one = client(USER)
    result = describe(refuse(401), clients=(one, one))
    assert isinstance(result.error, errors.ModelArtsAuthenticationError)
    assert len(result.readings) == 2


def test_a_token_without_permission_is_not_renewed() -> None:
    one = client(USER)
    assert len(describe(token("T1"), refuse(403), clients=(one, one)).requests) == 2


def test_a_renewed_token_that_is_the_same_is_not_sent_again() -> None:
    one = client(USER)
    assert len(describe(token("T1"), refuse(401), token("T1"), clients=(one, one)).requests) == 3


def test_an_outage_of_iam_is_a_temporary_error() -> None:
    assert describe(refuse(503), clients=(client(USER),)).error.temporary


@pytest.mark.parametrize(
    "answered",
    [refuse(404), refuse(405), refuse(400), refuse(302), UNKNOWN_NAME],
    ids=["404", "405", "400", "302", "name"],
)
def test_a_wrong_iam_endpoint_is_a_configuration_error_and_not_a_missing_task(answered: Answer) -> None:
    error = describe(answered, clients=(client(USER),)).error
    assert isinstance(error, errors.ModelArtsConfigurationError)
    assert "iam_endpoint" in str(error)


def test_a_create_with_a_refused_token_is_repeated_with_the_new_token() -> None:
    result = run_flow(
        call(CREATE, ONCE), [token("T1"), refuse(401), token("T2"), answer({"task_id": "t"})], clients=[client(USER)]
    )
    assert result.value == models.CreatedTask(task_id="t")


CODES_401 = (None, "ModelArts.0202", "ModelArts.4127", "APIGW.0301", "APIGW.0307")
REFUSED_TOKEN = [
    *(refuse(401, code) for code in CODES_401),
    *(refuse(403, code) for code in ("ModelArts.0203", "ModelArts.0206", "APIGW.0307", "APIG.0307", "ModelArts.4127")),
    answer({"error": {"code": 401, "message": "no", "title": "Unauthorized"}}, 401),
]


@pytest.mark.parametrize("refused", REFUSED_TOKEN, ids=lambda refused: f"{refused.status} {refused.body[:40]!r}")
def test_a_refused_token_is_renewed_once_with_any_http_status(refused: Response) -> None:
    renewed = run_flow(call(DESCRIBE, ONCE), [token(), refused, token("T2"), TASK], clients=client(USER))
    assert renewed.value is not None
    in_vain = run_flow(call(DESCRIBE, ONCE), [token(), refused, token("T2"), refused], clients=[client(USER)] * 2)
    assert isinstance(in_vain.error, errors.ModelArtsAuthenticationError)


@pytest.mark.parametrize("code", ["ModelArts.0203", "ModelArts.0206"])
def test_a_refused_static_token_reads_the_connection_again(code: str) -> None:
    clients = [client(StaticToken("old")), client(StaticToken("new"))]
    result = run_flow(call(DESCRIBE, ONCE), [refuse(403, code), TASK], clients=clients)
    assert [request.headers["X-Auth-Token"] for request in result.requests] == ["old", "new"]


@pytest.mark.parametrize(
    "code", [None, "ModelArts.0108", "ModelArts.4310", "ModelArts.4336", "APIGW.0302", "ModelArts.0112"]
)
def test_a_missing_permission_does_not_renew_the_token(code: str | None) -> None:
    result = run_flow(call(DESCRIBE, ONCE), [token(), refuse(403, code)], clients=[client(USER)] * 2)
    assert isinstance(result.error, errors.ModelArtsAuthenticationError)
    assert not result.error.asks_for_new_credentials


@pytest.mark.parametrize("code", ["ModelArts.4750", "ModelArts.4826"])
def test_a_request_error_with_http_401_does_not_renew_the_token(code: str) -> None:
    result = run_flow(call(DESCRIBE, ONCE), [token(), refuse(401, code)], clients=client(USER))
    assert isinstance(result.error, errors.ModelArtsRequestError)


UNREAD = ConnectionReadError(errors.ModelArtsConfigurationError("connection 'mine' is not there"))
UNREADABLE = ConnectionReadError(RuntimeError("password=the-secret-key"))


def read_again(*readings: ClientConfig | ConnectionReadError, answers: tuple[Answer, ...]) -> FlowResult[ProcessorTask]:
    return run_flow(call(DESCRIBE, ONCE), answers, clients=(client(), *readings))


@pytest.mark.parametrize("failure", [UNREAD, UNREADABLE], ids=["missing", "unreadable"])
def test_a_connection_that_cannot_be_read_again_is_read_later(failure: ConnectionReadError) -> None:
    result = read_again(*[failure] * 4, client(OTHER_KEY), answers=(refuse(401), TASK))
    assert result.value
    assert result.sleeps == [1, 2, 4, 8]


def test_an_unchanged_connection_is_still_refused() -> None:
    result = read_again(UNREAD, client(), answers=(refuse(401),))
    assert isinstance(result.error, errors.ModelArtsAuthenticationError)


def test_reading_the_connection_again_ends_after_a_minute() -> None:
    result = read_again(*[UNREAD] * 7, answers=(refuse(401),))
    assert result.error is UNREAD.error
    assert sum(result.sleeps) == 60


def test_reading_the_connection_again_takes_half_a_minute_at_least() -> None:
    without_jitter = client(random=lambda: 0.0)
    result = run_flow(call(DESCRIBE, ONCE), (refuse(401),), clients=(without_jitter, *[UNREAD] * 7))
    assert sum(result.sleeps) == 30


def test_an_outage_of_the_secrets_backend_is_temporary_and_not_quoted() -> None:
    error = read_again(*[UNREADABLE] * 7, answers=(refuse(401),)).error
    assert isinstance(error, errors.ModelArtsTransientError)
    assert "could not be read again (RuntimeError)" in str(error)
    assert SECRET_KEY not in str(error)


def test_the_outcome_stays_unknown_if_the_connection_cannot_be_read_again() -> None:
    result = run_flow(call(DELETE, FIVE_TIMES), [TIMEOUT, refuse(401)], clients=(client(), *[UNREAD] * 7))
    assert result.error.outcome_unknown


@pytest.mark.parametrize(
    "refused", [refuse(401), refuse(403), refuse(404), refuse(400, "ModelArts.0210"), refuse(404, "ModelArts.4700")]
)
@pytest.mark.parametrize(
    ("project_id", "hint"),
    [
        ("eu-de_project", "looks like a project's name"),
        ("0123", "does not look like one"),
        (PROJECT_ID + "0", "does not look like one"),
        (PROJECT_ID, None),
        (PROJECT_ID.upper(), None),
    ],
)
def test_a_refusal_mentions_a_project_id_of_unusual_form(refused: Response, project_id: str, hint: str | None) -> None:
    one = client(project_id=project_id)
    error = run_flow(call(DESCRIBE, ONCE), [refused], clients=one).error
    assert (hint or "32 hex digits") in str(error) if hint else "32 hex digits" not in str(error)


@pytest.mark.parametrize("refused", [refuse(403, "ModelArts.0206"), refuse(401, "APIGW.0301")], ids=["403", "401"])
def test_a_refused_temporary_key_of_the_agency_is_renewed_once(refused: Response) -> None:
    no_token = refuse(404)  # the older metadata service has no session tokens
    answers = [no_token, security_key("AK1"), refused, no_token, security_key("AK2"), TASK]
    result = describe(*answers, clients=(client(InstanceAgency()),))
    assert result.value is not None
    signed = [request.headers["Authorization"] for request in result.requests if "Authorization" in request.headers]
    assert [text.split("Access=")[1][:3] for text in signed] == ["AK1", "AK2"]
