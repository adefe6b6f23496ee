"""Tests of IAM tokens for a user and password."""

import json
from dataclasses import replace

import pytest

from airflow_modelarts.api import errors
from airflow_modelarts.api.credentials import StaticToken
from airflow_modelarts.api.http import Response
from tests.support.credentials import DAY, USER, Process, at, token
from tests.support.flows import (
    FIVE_TIMES,
    NOON,
    PROJECT_ID,
    REFUSED_CONNECTION,
    TIMEOUT,
    TOO_LARGE,
    UNKNOWN_NAME,
    answer,
    refuse,
)


def test_the_request_for_a_token_has_the_form_of_the_contract(process: Process) -> None:
    request = process.obtain(USER, token()).requests[0]
    assert (request.method, request.url) == ("POST", "https://iam.example/v3/auth/tokens")
    assert set(request.headers) == {"Content-Type", "Accept"}, "no credentials"
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


def test_a_token_may_have_several_kib(process: Process) -> None:
    assert process.obtain(USER, token("M" * 16_000)).value == StaticToken("M" * 16_000)


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
        {"user_name": "use", "domain_name": "rdomain"},
    ],
    ids=lambda change: " and ".join(change),
)
def test_credentials_that_differ_share_no_token(process: Process, change: dict[str, str]) -> None:
    process.obtain(USER, token("T1"))
    assert process.obtain(replace(USER, **change), token("T2")).value == StaticToken("T2")


def test_two_projects_share_no_token(process: Process) -> None:
    process.obtain(USER, token("T1"))
    assert process.obtain(USER, token("T2"), project_id="f" * 32).value == StaticToken("T2")


@pytest.mark.parametrize(
    ("life", "left", "kept"), [(DAY, 301, 1), (DAY, 299, 0), (DAY, -10, 0), (100, 15, 1), (100, 5, 0)]
)
def test_a_token_is_renewed_five_minutes_before_expiry_or_after_nine_tenths_of_its_life(
    process: Process, life: float, left: float, kept: bool
) -> None:
    process.obtain(USER, token("T1", expires_at=NOON + life))
    process.clock.now = NOON + life - left
    answers = () if kept else (token("T2", expires_at=NOON + 2 * DAY),)
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


UNREADABLE = {
    "no token": answer({"token": {"expires_at": at(NOON)}}, 201),
    "empty token": answer({"token": {"expires_at": at(NOON)}}, 201, x_subject_token=""),
    "no expiry": answer({"token": {}}, 201, x_subject_token="T0KEN"),
    "null expiry": answer({"token": {"expires_at": None}}, 201, x_subject_token="T0KEN"),
    "number": answer({"token": {"expires_at": 17}}, 201, x_subject_token="T0KEN"),
    "no date": answer({"token": {"expires_at": "tomorrow"}}, 201, x_subject_token="T0KEN"),
    "array": answer({"token": []}, 201, x_subject_token="T0KEN"),
    "nothing": answer({}, 201, x_subject_token="T0KEN"),
    "list": answer([], 201, x_subject_token="T0KEN"),
    "empty": answer(None, 201, x_subject_token="T0KEN"),
    "html": Response(201, {"x-subject-token": "T0KEN"}, b"<html>"),
    "bytes": Response(201, {"x-subject-token": "T0KEN"}, b"\xff"),
    "deep": Response(201, {"x-subject-token": "T0KEN"}, b"[" * 100_000),
}


@pytest.mark.parametrize("response", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_answer_of_iam_is_a_temporary_error_without_quotes(process: Process, response: Response) -> None:
    error = process.obtain(USER, response).error
    assert isinstance(error, errors.ModelArtsTransientError)
    assert "T0KEN" not in str(error)


def test_an_unreadable_answer_of_iam_is_retried() -> None:
    assert Process(FIVE_TIMES).obtain(USER, answer({}, 201), TIMEOUT, refuse(503), token("T1")).value


def test_a_refused_password_quotes_keystone(process: Process) -> None:
    body = {"error": {"code": 401, "message": "The username or password is wrong.", "title": "Unauthorized"}}
    assert "The username or password is wrong." in str(process.obtain(USER, answer(body, 401)).error)


def test_a_refused_password_is_not_retried() -> None:
    assert len(Process(FIVE_TIMES).obtain(USER, refuse(401)).requests) == 1


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
    assert isinstance(error, errors.ModelArtsConfigurationError)
    assert str(error).startswith(f"project_name 'eu-de_other' is the project {other}")
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


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_of_iam_names_every_setting_that_can_be_wrong(process: Process, status: int) -> None:
    error = process.obtain(NAMED, refuse(status)).error
    assert type(error) is (
        errors.ModelArtsAuthenticationError if status in (401, 403) else errors.ModelArtsConfigurationError
    )
    assert error.http_status == status
    settings = ("domain_name 'domain'", "login 'user'", "project_name 'eu-de_other'", "iam_endpoint")
    assert all(named in str(error) for named in ("KeystoneCreateUserTokenByPassword", *settings))
    assert "Change the request" not in str(error)
    assert "the-password" not in str(error)


def test_a_refusal_of_iam_mentions_a_project_name_given_as_project_id(process: Process) -> None:
    error = process.obtain(USER, refuse(401), project_id="eu-de_project").error
    assert "project_id 'eu-de_project' looks like a project's name" in str(error)


def test_a_too_large_token_is_a_configuration_error(process: Process) -> None:
    error = process.obtain(USER, TOO_LARGE).error
    assert isinstance(error, errors.ModelArtsConfigurationError)
    assert "fewer roles" in str(error)


def test_an_iam_host_that_does_not_resolve_is_named_as_the_user_wrote_it(process: Process) -> None:
    error = process.obtain(replace(USER, unresolved="region 'eu-dee' has no IAM endpoint"), UNKNOWN_NAME).error
    assert str(error).startswith("region 'eu-dee' has no IAM endpoint.")
    assert "project_name" not in str(error)
