"""Tests of whole calls: authorization, renewal of credentials, reading the connection again, paging."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api import models, operations
from airflow_modelarts.api.client import ClientConfig, call, pages
from airflow_modelarts.api.credentials import (
    AccessKey,
    Credentials,
    InstanceAgency,
    PasswordToken,
    StaticToken,
    TokenCache,
)
from airflow_modelarts.api.errors import (
    ModelArtsAuthenticationError,
    ModelArtsConfigurationError,
    ModelArtsNotFoundError,
    ModelArtsRequestError,
    ModelArtsThrottledError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.http import ConnectionReadError, ReadConnection, Request, Response
from airflow_modelarts.api.models import Empty, ProcessorTask
from airflow_modelarts.api.operations import Page
from tests.support.flows import (
    ACCESS_KEY,
    BROKEN,
    ENDPOINT,
    FIVE_TIMES,
    NOON,
    ONCE,
    PROJECT_ID,
    REFUSED_CONNECTION,
    SECRET_KEY,
    TIMEOUT,
    UNKNOWN_NAME,
    Answer,
    Clock,
    FlowResult,
    answer,
    client,
    refuse,
    run_flow,
)

DESCRIBE = operations.describe_processor_task("abc")
DELETE = operations.delete_processor_task("abc")
CREATE = operations.create_processor_task(name="n", template={"id": "t"}, data_source={"type": "OBS"})
TASK = answer({"task_id": "abc", "status": 1})

USER = PasswordToken("https://iam.example", "user", "the-password", "domain")
OTHER_KEY = AccessKey("AK2", "another-secret-key")


def token(name: str = "T1") -> Response:
    """Return IAM's answer with a token for a day."""
    return answer({"token": {"expires_at": "2026-02-01T12:00:00.000000Z"}}, 201, x_subject_token=name)


def describe(*answers: Answer, clients: tuple[ClientConfig, ...]) -> FlowResult[ProcessorTask]:
    return run_flow(call(DESCRIBE, ONCE), answers, clients=clients)


def test_a_call_reads_the_connection_first() -> None:
    assert next(call(DESCRIBE, ONCE)) == ReadConnection()


def test_a_call_returns_the_parsed_answer() -> None:
    assert describe(TASK, clients=(client(),)).value == ProcessorTask(task_id="abc", status=1)


def test_a_call_goes_to_the_project_at_the_endpoint() -> None:
    assert describe(TASK, clients=(client(),)).requests[0].url == f"{ENDPOINT}/v2/{PROJECT_ID}/processor-tasks/abc"


def test_a_project_id_is_escaped_as_one_path_segment() -> None:
    result = describe(TASK, clients=(client(project_id="../ü"),))
    assert result.requests[0].url == f"{ENDPOINT}/v2/..%2F%C3%BC/processor-tasks/abc"


def test_a_call_sends_the_operations_method_query_and_body() -> None:
    result = run_flow(call(CREATE, ONCE), [answer({"task_id": "t"})], clients=[client()])
    assert (result.requests[0].method, result.requests[0].body) == ("POST", CREATE.body)


def test_a_call_sends_json_headers() -> None:
    headers = describe(TASK, clients=(client(),)).requests[0].headers
    assert (headers["Accept"], headers["Content-Type"]) == ("application/json", "application/json")


def test_an_access_key_signs_the_request_for_its_project() -> None:
    headers = describe(TASK, clients=(client(),)).requests[0].headers
    assert headers["Authorization"].startswith("SDK-HMAC-SHA256 Access=AK, ")
    assert headers["X-Project-Id"] == PROJECT_ID


def test_a_token_is_sent_unchanged() -> None:
    assert describe(TASK, clients=(client(StaticToken("T")),)).requests[0].headers["X-Auth-Token"] == "T"


def test_every_attempt_has_a_signature_with_its_own_time() -> None:
    clock = Clock()
    flow = call(DESCRIBE, FIVE_TIMES)
    result = run_flow(flow, [TIMEOUT, refuse(503), TASK], clients=[client(clock=clock)], clock=clock)
    assert [request.headers["X-Sdk-Date"] for request in result.requests] == [
        "20260131T120000Z",
        "20260131T120002Z",
        "20260131T120005Z",
    ]
    assert len({request.headers["Authorization"] for request in result.requests}) == 3


def test_a_call_follows_its_retry_policy() -> None:
    result = run_flow(call(DESCRIBE, FIVE_TIMES), [refuse(503)] * 5, clients=[client()])
    assert result.sleeps == [1, 2, 4, 8]


def test_a_call_draws_its_delays_from_the_clients_random_source() -> None:
    result = run_flow(call(DESCRIBE, FIVE_TIMES), [refuse(503), TASK], clients=[client(random=lambda: 0.25)])
    assert result.sleeps == [0.25]


@pytest.mark.parametrize("credentials", [ACCESS_KEY, StaticToken("T")], ids=["key", "token"])
def test_refused_static_credentials_are_sent_again_only_if_the_connection_changed(credentials: Credentials) -> None:
    one = client(credentials)
    result = describe(refuse(401), clients=(one, one))
    assert isinstance(result.error, ModelArtsAuthenticationError)
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
    assert isinstance(result.error, ModelArtsAuthenticationError)
    assert len(result.readings) == 2


@pytest.mark.parametrize("refusal", [refuse(403), refuse(400, "ModelArts.0204")], ids=["403", "token without project"])
def test_a_missing_permission_reads_the_connection_again_once(refusal: Response) -> None:
    one = client()
    assert len(describe(refusal, clients=(one, one)).readings) == 2


@pytest.mark.parametrize("refusal", [refuse(404), refuse(400), refuse(429), refuse(500), TIMEOUT, REFUSED_CONNECTION])
def test_the_connection_is_read_once_if_the_credentials_are_not_refused(refusal: Answer) -> None:
    assert len(describe(refusal, clients=(client(),)).readings) == 1


def test_a_token_is_obtained_and_used() -> None:
    result = describe(token("T1"), TASK, clients=(client(USER),))
    assert result.requests[0].url == "https://iam.example/v3/auth/tokens"
    assert result.requests[1].headers["X-Auth-Token"] == "T1"


def test_the_next_call_uses_the_same_token() -> None:
    one = client(USER)
    describe(token("T1"), TASK, clients=(one,))
    assert describe(TASK, clients=(one,)).requests[0].headers["X-Auth-Token"] == "T1"


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
    assert isinstance(result.error, ModelArtsAuthenticationError)
    assert [type(step) for step in result.steps] == [ReadConnection, *[Request] * 4, ReadConnection]


def test_a_changed_password_is_read_from_the_connection() -> None:
    changed = client(replace(USER, password="new"))
    refused = [token("T1"), refuse(401), refuse(401)]
    result = describe(*refused, token("T2"), TASK, clients=(client(USER), changed))
    assert result.value
    assert json.loads(result.requests[3].body)["auth"]["identity"]["password"]["user"]["password"] == "new"


def test_a_refused_password_reads_the_connection_again_once() -> None:
    one = client(USER)
    result = describe(refuse(401), clients=(one, one))
    assert isinstance(result.error, ModelArtsAuthenticationError)
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
    assert isinstance(error, ModelArtsConfigurationError)
    assert "iam_endpoint" in str(error)


def test_a_create_with_a_refused_token_is_repeated_with_the_new_token() -> None:
    result = run_flow(
        call(CREATE, ONCE),
        [token("T1"), refuse(401), token("T2"), answer({"task_id": "t"})],
        clients=[client(USER)],
    )
    assert result.value == models.CreatedTask(task_id="t")


def test_an_error_quotes_neither_the_secret_key_nor_the_token() -> None:
    message = f"{SECRET_KEY} and T0KEN"
    by_key = describe(refuse(400, "ModelArts.0101", message), clients=(client(),)).error
    by_token = describe(refuse(400, "ModelArts.0101", message), clients=(client(StaticToken("T0KEN")),)).error
    assert SECRET_KEY not in str(by_key)
    assert "T0KEN" not in str(by_token)


def test_an_error_does_not_quote_an_obtained_token() -> None:
    result = describe(token("T0KEN"), refuse(400, "ModelArts.0101", "T0KEN"), clients=(client(USER),))
    assert "T0KEN" not in str(result.error)


def test_an_error_without_an_answer_names_the_endpoint() -> None:
    assert ENDPOINT in str(describe(REFUSED_CONNECTION, clients=(client(),)).error)


def test_the_repr_of_a_client_has_no_secret() -> None:
    shown = repr(client()) + repr(client(USER)) + repr(client(StaticToken("T0KEN")))
    assert not any(secret in shown for secret in (SECRET_KEY, "the-password", "T0KEN"))


@pytest.mark.parametrize("not_found", [refuse(404, "ModelArts.4700"), refuse(400, "ModelArts.4700"), refuse(404)])
@pytest.mark.parametrize(
    "ambiguous",
    [[TIMEOUT], [BROKEN], [refuse(502)], [Response(200, {}, b"<html>")], [TIMEOUT, refuse(429)]],
    ids=["timeout", "broken", "502", "unreadable", "timeout then throttled"],
)
def test_not_found_after_a_lost_answer_to_a_delete_is_success(ambiguous: list[Answer], not_found: Response) -> None:
    assert run_flow(call(DELETE, FIVE_TIMES), [*ambiguous, not_found], clients=[client()]).value == Empty()


@pytest.mark.parametrize("before", [[], [refuse(429)], [REFUSED_CONNECTION]], ids=["first", "throttled", "not sent"])
def test_not_found_is_raised_if_no_attempt_can_have_deleted_the_task(before: list[Answer]) -> None:
    result = run_flow(call(DELETE, FIVE_TIMES), [*before, refuse(404)], clients=[client()])
    assert isinstance(result.error, ModelArtsNotFoundError)


def test_not_found_after_a_lost_answer_to_a_read_is_raised() -> None:
    result = run_flow(call(DESCRIBE, FIVE_TIMES), [TIMEOUT, refuse(404)], clients=[client()])
    assert isinstance(result.error, ModelArtsNotFoundError)


def test_not_found_after_a_lost_answer_to_a_stop_is_raised() -> None:
    stop = operations.stop_processor_task_version("t", "v")
    result = run_flow(call(stop, FIVE_TIMES), [TIMEOUT, refuse(404)], clients=[client()])
    assert isinstance(result.error, ModelArtsNotFoundError)


def test_not_found_after_a_lost_answer_to_deleting_a_version_is_success() -> None:
    delete = operations.delete_processor_task_version("t", "v")
    assert run_flow(call(delete, FIVE_TIMES), [TIMEOUT, refuse(404)], clients=[client()]).value == Empty()


def test_not_found_is_success_after_a_lost_delete_and_a_renewed_token() -> None:
    answers: list[Answer] = [token("T1"), TIMEOUT, refuse(401), token("T2"), refuse(404)]
    assert run_flow(call(DELETE, FIVE_TIMES), answers, clients=[client(USER)]).value == Empty()


def test_not_found_is_success_after_a_lost_delete_and_a_rotated_key() -> None:
    answers: list[Answer] = [TIMEOUT, refuse(401), refuse(404)]
    result = run_flow(call(DELETE, FIVE_TIMES), answers, clients=[client(), client(OTHER_KEY)])
    assert result.value == Empty()


def test_not_found_is_success_after_a_lost_delete_and_a_rotated_password() -> None:
    answers: list[Answer] = [token("T1"), TIMEOUT, refuse(401), refuse(401), token("T2"), refuse(404)]
    changed = client(replace(USER, password="new"))
    assert run_flow(call(DELETE, FIVE_TIMES), answers, clients=[client(USER), changed]).value == Empty()


def test_the_outcome_of_a_lost_delete_stays_unknown_if_no_token_can_be_obtained() -> None:
    answers: list[Answer] = [token("T1"), TIMEOUT, refuse(401), *[refuse(503)] * 5]
    assert run_flow(call(DELETE, FIVE_TIMES), answers, clients=[client(USER)]).error.outcome_unknown


@pytest.mark.parametrize("status", [500, 503, 504])
@pytest.mark.parametrize("ambiguous", [refuse(504), TIMEOUT], ids=["504", "timeout"])
def test_a_server_error_with_a_code_of_a_missing_task_is_not_success(ambiguous: Answer, status: int) -> None:
    gateway = refuse(status, "ModelArts.4700", "Unavailable gateway.")
    result = run_flow(call(DELETE, FIVE_TIMES), [ambiguous, *[gateway] * 4], clients=client())
    assert isinstance(result.error, ModelArtsTransientError)


def test_a_web_page_that_is_not_found_is_not_success_of_a_delete() -> None:
    page = Response(404, {"content-type": "text/html"}, b"<html>404</html>")
    result = run_flow(call(DELETE, FIVE_TIMES), [refuse(504), page], clients=client())
    assert isinstance(result.error, ModelArtsConfigurationError)


def test_a_server_error_with_a_code_of_a_missing_task_is_retried() -> None:
    answers = [refuse(503, "ModelArts.4700"), answer({"task_id": "abc", "status": 2})]
    result = run_flow(call(DESCRIBE, FIVE_TIMES), answers, clients=client())
    assert result.value is not None
    assert result.value.status == 2


REFUSED_TOKEN = [
    refuse(401),
    refuse(403, "ModelArts.0203"),
    refuse(403, "ModelArts.0206"),
    refuse(401, "ModelArts.0202"),
    refuse(401, "ModelArts.4127"),
    refuse(401, "APIGW.0301"),
    refuse(401, "APIGW.0307"),
    refuse(403, "APIGW.0307"),
    refuse(403, "ModelArts.4127"),
    answer({"error": {"code": 401, "message": "no", "title": "Unauthorized"}}, 401),
]


@pytest.mark.parametrize("refusal", REFUSED_TOKEN, ids=lambda refusal: f"{refusal.status} {refusal.body[:40]!r}")
def test_a_refused_token_is_renewed_once_with_any_http_status(refusal: Response) -> None:
    renewed = run_flow(call(DESCRIBE, ONCE), [token(), refusal, token("T2"), TASK], clients=client(USER))
    assert renewed.value is not None
    in_vain = run_flow(call(DESCRIBE, ONCE), [token(), refusal, token("T2"), refusal], clients=[client(USER)] * 2)
    assert isinstance(in_vain.error, ModelArtsAuthenticationError)


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
    assert isinstance(result.error, ModelArtsAuthenticationError)
    assert not result.error.asks_for_new_credentials


@pytest.mark.parametrize("code", ["ModelArts.4750", "ModelArts.4826"])
def test_a_request_error_with_http_401_does_not_renew_the_token(code: str) -> None:
    result = run_flow(call(DESCRIBE, ONCE), [token(), refuse(401, code)], clients=client(USER))
    assert isinstance(result.error, ModelArtsRequestError)


def test_an_answer_about_another_task_is_retried() -> None:
    other, this = (answer({"task_id": one, "status": 2}) for one in ("other", "abc"))
    result = run_flow(call(DESCRIBE, FIVE_TIMES), [other, this], clients=client())
    assert result.value is not None
    assert result.value.task_id == "abc"
    lasting = run_flow(call(DESCRIBE, ONCE), [other], clients=client()).error
    assert isinstance(lasting, ModelArtsTransientError)
    assert "returned another object" in str(lasting)


@pytest.mark.parametrize(
    "other", [{"task_version_id": "w"}, {"task_id": "u"}, {"task_id": "u", "task_version_id": "v"}]
)
def test_an_answer_about_another_version_is_retried(other: dict[str, str]) -> None:
    answers = [answer({**other, "status": 2}), answer({"task_version_id": "v", "task_id": "t", "status": 1})]
    result = run_flow(call(operations.describe_processor_task_version("t", "v"), FIVE_TIMES), answers, clients=client())
    assert result.value is not None
    assert result.value.status == 1


def test_an_answer_may_omit_the_ids_of_a_version() -> None:
    result = run_flow(
        call(operations.describe_processor_task_version("t", "v"), ONCE), [answer({"status": 4})], clients=client()
    )
    assert result.value is not None
    assert result.value.status == 4


def test_the_outcome_of_a_create_with_a_lost_answer_is_unknown() -> None:
    assert run_flow(call(CREATE, FIVE_TIMES), [TIMEOUT], clients=[client()]).error.outcome_unknown


def test_the_outcome_of_a_create_that_was_not_sent_is_known() -> None:
    result = run_flow(call(CREATE, FIVE_TIMES), [REFUSED_CONNECTION] * 5, clients=[client()])
    assert not result.error.outcome_unknown


def test_the_outcome_of_a_create_without_a_token_is_known() -> None:
    result = run_flow(call(CREATE, ONCE), [TIMEOUT], clients=[client(USER)])
    assert isinstance(result.error, ModelArtsTransientError)
    assert not result.error.outcome_unknown


class Listed:
    """A service's list of tasks that can change between two answers."""

    def __init__(self, ids: list[str], *, shift: Iterator[list[str]] | None = None, **extra: Any) -> None:
        self.ids = ids
        self.shift = shift
        self.extra = extra
        self.asked: list[int] = []

    def __call__(self, request: Request) -> Response:
        query = dict(parse_qsl(urlsplit(request.url).query))
        limit, offset = int(query["limit"]), int(query["offset"])
        self.asked.append(offset)
        part = self.ids[offset * limit : (offset + 1) * limit]
        content = {"count": len(self.ids), "tasks": [{"task_id": one} for one in part], **self.extra}
        if self.shift is not None:
            self.ids = next(self.shift, self.ids)
        return answer({name: value for name, value in content.items() if value is not None})


def read_all(service: Listed, limit: int = 3) -> FlowResult[None]:
    return run_flow(pages(operations.list_processor_tasks(limit=limit), ONCE), service, clients=client(), max_steps=400)


def ids_of(result: FlowResult[None]) -> list[str]:
    return [task.task_id for page in result.pages for task in page.items]


def numbered(count: int) -> list[str]:
    return [f"t{number}" for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 20])
def test_a_list_is_read_completely(count: int) -> None:
    assert ids_of(read_all(Listed(numbered(count)))) == numbered(count)


def test_the_offset_is_the_page_number_from_0() -> None:
    service = Listed(numbered(8))
    read_all(service)
    assert service.asked == [0, 1, 2]


@pytest.mark.parametrize(
    ("count", "fields", "requests"),
    [
        (0, {}, 1),
        (2, {}, 1),
        (3, {}, 1),
        (3, {"count": None}, 2),
        (4, {"count": None}, 2),
        (6, {"count": 6}, 2),
        (6, {"count": 7}, 3),
        (3, {"has_more": False, "count": 99}, 2),
        (3, {"has_more": True, "count": 3}, 1),
        (6, {"has_more": False}, 2),
        (6, {"has_more": False, "count": None}, 3),
        (7, {"has_more": False, "count": None}, 3),
        (7, {"has_more": True, "count": None}, 3),
        (7, {"has_more": "perhaps", "count": "many"}, 3),
        (6, {"count": 0}, 3),
        (6, {"count": -1}, 3),
        (6, {"count": {}}, 3),
        (6, {"count": "6"}, 2),
        (6, {"count": 6.0}, 2),
        (6, {"count": True}, 3),
    ],
    ids=str,
)
def test_no_page_is_requested_without_need(count: int, fields: dict[str, Any], requests: int) -> None:
    service = Listed(numbered(count), **fields)
    read_all(service)
    assert len(service.asked) == requests


def test_a_short_page_ends_a_list_with_any_count() -> None:
    service = Listed(numbered(4), count=1000)
    assert ids_of(read_all(service)) == numbered(4)
    assert service.asked == [0, 1]


def test_a_repeated_item_is_returned_once() -> None:
    # A task is created at the top between the pages, so the last item of the first page is repeated.
    service = Listed(numbered(5), shift=iter([["new", *numbered(5)]]))
    assert ids_of(read_all(service)) == numbered(5)


@pytest.mark.parametrize("created", [1, 3, 4, 5, 6, 7, 30])
def test_many_items_created_between_two_pages_do_not_end_the_list(created: int) -> None:
    new = [f"new{number}" for number in range(created)]
    service = Listed([*numbered(6), *"abcd"], shift=iter([[*numbered(6), *"abcd"], [*new, *numbered(6), *"abcd"]]))
    assert set(ids_of(read_all(service))) >= {*numbered(6), *"abcd"}


def test_a_list_ends_although_its_count_always_grows() -> None:
    numbers = itertools.count(100, 100)
    turns = itertools.cycle(["abc", "def", "ghi"])

    def stuck(request: Request) -> Response:
        return answer({"count": next(numbers), "has_more": True, "tasks": [{"task_id": one} for one in next(turns)]})

    result = run_flow(pages(operations.list_processor_tasks(limit=3), ONCE), stuck, clients=client(), max_steps=50)
    assert ids_of(result) == [*"abcdefghi"]
    assert len(result.requests) == 7


def test_an_item_repeated_on_one_page_is_returned_once() -> None:
    assert ids_of(read_all(Listed(["a", "a", "b"]))) == ["a", "b"]


def test_a_repeated_page_ends_the_list() -> None:
    def stuck(request: Request) -> Response:
        return answer({"tasks": [{"task_id": one} for one in "abc"]})

    result = run_flow(pages(operations.list_processor_tasks(limit=3), ONCE), stuck, clients=client())
    assert ids_of(result) == ["a", "b", "c"]
    assert len(result.requests) == 2


def test_a_repeated_page_with_other_durations_ends_the_list() -> None:
    seconds = itertools.count()

    def stuck(request: Request) -> Response:
        return answer({"tasks": [{"task_id": one, "duration_seconds": next(seconds)} for one in "abc"]})

    result = run_flow(pages(operations.list_processor_tasks(limit=3), ONCE), stuck, clients=client(), max_steps=50)
    assert ids_of(result) == ["a", "b", "c"]


def test_alternating_pages_end_the_list() -> None:
    turns = itertools.cycle(["abc", "def"])

    def stuck(request: Request) -> Response:
        return answer({"count": 99, "tasks": [{"task_id": one} for one in next(turns)]})

    result = run_flow(pages(operations.list_processor_tasks(limit=3), ONCE), stuck, clients=client(), max_steps=50)
    assert ids_of(result) == ["a", "b", "c", "d", "e", "f"]


def test_items_without_an_id_are_all_returned() -> None:
    body = {"total": 2, "items": [{"label_en": "a"}, {"label_en": "b"}]}
    result = run_flow(pages(operations.list_processor_task_items(), ONCE), [answer(body)], clients=client())
    assert [item.label_en for page in result.pages for item in page.items] == ["a", "b"]


def test_a_page_has_the_count_and_has_more_of_the_answer() -> None:
    body = {"count": 7, "has_more": False, "results": [{"sample_id": "s"}]}
    flow = pages(operations.list_processor_task_version_results("t", "v"), ONCE)
    page: Page[Any] = run_flow(flow, [answer(body)], clients=client()).pages[0]
    assert (page.count, page.has_more, len(page.items)) == (7, False, 1)


def test_a_page_is_yielded_before_the_next_one_is_requested() -> None:
    flow = pages(operations.list_processor_tasks(limit=1), ONCE)
    assert flow.send(None) == ReadConnection()
    assert isinstance(flow.send(client()), Request)
    assert isinstance(flow.send(answer({"count": 2, "tasks": [{"task_id": "a"}]})), Page)
    assert flow.send(None) == ReadConnection()


def test_a_failed_page_is_retried() -> None:
    first, second = (answer({"count": 2, "tasks": [{"task_id": one}]}) for one in "ab")
    flow = pages(operations.list_processor_tasks(limit=1), FIVE_TIMES)
    assert ids_of(run_flow(flow, [first, TIMEOUT, refuse(503), second], clients=client())) == ["a", "b"]


def test_a_page_that_fails_permanently_ends_the_list_with_its_error() -> None:
    first = answer({"count": 2, "tasks": [{"task_id": "a"}]})
    result = run_flow(pages(operations.list_processor_tasks(limit=1), ONCE), [first, refuse(429)], clients=client())
    assert isinstance(result.error, ModelArtsThrottledError)
    assert ids_of(result) == ["a"]


@pytest.mark.parametrize("has_more", [True, False, None, "x", 0])
@pytest.mark.parametrize("counted", [True, False])
def test_250_samples_are_returned_with_any_has_more(has_more: Any, counted: bool) -> None:
    def serve(request: Request) -> Response:
        query = dict(parse_qsl(urlsplit(request.url).query))
        limit, offset = int(query["limit"]), int(query["offset"])
        numbers = range(250)[offset * limit : (offset + 1) * limit]
        content = {"results": [{"sample_id": str(number)} for number in numbers], "has_more": has_more}
        return answer(content | ({"count": 250} if counted else {}))

    flow = pages(operations.list_processor_task_version_results("t", "v"), ONCE)
    result: FlowResult[None] = run_flow(flow, serve, clients=client())
    assert [one.sample_id for page in result.pages for one in page.items] == [str(number) for number in range(250)]
    assert len(result.requests) == 3


def test_the_count_may_change_while_a_list_is_read() -> None:
    service = Listed(numbered(6), shift=iter([numbered(6), numbered(8)]))
    assert ids_of(read_all(service)) == numbered(6)
    service = Listed(numbered(6), shift=iter([numbered(8)]))
    assert ids_of(read_all(service)) == numbered(8)
    service = Listed(numbered(9), shift=iter([numbered(6)]))
    assert ids_of(read_all(service)) == numbered(6)


@pytest.mark.parametrize("created", [4, 6])
def test_a_full_page_of_known_items_does_not_end_a_list_without_a_count(created: int) -> None:
    new = [f"new{number}" for number in range(created)]
    service = Listed(
        [*numbered(6), *"abcd"], shift=iter([[*numbered(6), *"abcd"], [*new, *numbered(6), *"abcd"]]), count=None
    )
    assert set(ids_of(read_all(service))) >= {*numbered(6), *"abcd"}


ids = st.lists(st.integers(0, 30).map(str), max_size=25)
unique_ids = st.lists(st.integers(0, 99).map(str), max_size=40, unique=True)
counts = st.none() | st.integers(-1, 60)


@settings(deadline=None, max_examples=100)
@given(unique_ids, st.integers(1, 12), st.booleans(), st.booleans())
def test_a_list_that_does_not_change_is_returned_completely_and_in_order(
    listed: list[str], limit: int, counted: bool, has_more: bool
) -> None:
    def serve(request: Request) -> Response:
        offset = int(dict(parse_qsl(urlsplit(request.url).query))["offset"])
        part, rest = listed[offset * limit : (offset + 1) * limit], listed[(offset + 1) * limit :]
        content: dict[str, Any] = {"tasks": [{"task_id": one} for one in part]}
        content |= {"count": len(listed)} if counted else {}
        content |= {"has_more": bool(rest) is has_more}
        return answer(content)

    result = run_flow(pages(operations.list_processor_tasks(limit=limit), ONCE), serve, clients=client())
    assert ids_of(result) == listed
    assert len(result.requests) <= len(listed) // limit + 1


@settings(deadline=None, max_examples=100)
@given(st.lists(ids, min_size=1, max_size=8), st.integers(1, 12), counts, st.none() | st.booleans())
@example([["1"], ["2"]], 1, None, True)
def test_a_list_that_shifts_ends_and_returns_no_item_twice(
    shifts: list[list[str]], limit: int, count: int | None, has_more: bool | None
) -> None:
    service = Listed(shifts[0], shift=iter(shifts[1:]), count=count, has_more=has_more)
    returned = ids_of(read_all(service, limit))
    assert len(returned) == len(set(returned))
    assert set(returned) <= {one for shift in shifts for one in shift}


@settings(deadline=None, max_examples=100)
@given(st.lists(ids, min_size=1, max_size=6), st.integers(1, 6), counts, st.none() | st.booleans(), st.booleans())
@example([["1", "2"], ["2", "1"]], 2, 99, None, False)
def test_a_list_ends_although_the_service_ignores_the_offset(
    answers: list[list[str]], limit: int, count: int | None, has_more: bool | None, changing: bool
) -> None:
    turns = itertools.cycle(answers)
    numbers = itertools.count()

    def serve(request: Request) -> Response:
        extra = {"duration_seconds": next(numbers)} if changing else {}
        content = {"count": count, "has_more": has_more, "tasks": [{"task_id": one, **extra} for one in next(turns)]}
        return answer(content)

    result = run_flow(pages(operations.list_processor_tasks(limit=limit), ONCE), serve, clients=client(), max_steps=200)
    returned = ids_of(result)
    assert len(returned) == len(set(returned))


UNREAD = ConnectionReadError(ModelArtsConfigurationError("connection 'mine' is not there"))
UNREADABLE = ConnectionReadError(RuntimeError("password=the-secret-key"))


def read_again(*readings: ClientConfig | ConnectionReadError, answers: tuple[Answer, ...]) -> FlowResult[ProcessorTask]:
    return run_flow(call(DESCRIBE, ONCE), answers, clients=(client(), *readings))


@pytest.mark.parametrize("failure", [UNREAD, UNREADABLE], ids=["missing", "unreadable"])
def test_a_connection_that_cannot_be_read_again_is_read_later(failure: ConnectionReadError) -> None:
    result = read_again(*[failure] * 4, client(OTHER_KEY), answers=(refuse(401), TASK))
    assert result.value
    assert result.sleeps == [1, 2, 4, 8]


def test_an_unchanged_connection_ends_with_the_refusal() -> None:
    result = read_again(UNREAD, client(), answers=(refuse(401),))
    assert isinstance(result.error, ModelArtsAuthenticationError)


def test_reading_the_connection_again_ends_after_a_minute() -> None:
    result = read_again(*[UNREAD] * 7, answers=(refuse(401),))
    assert result.error is UNREAD.error
    assert sum(result.sleeps) == 60


def test_reading_the_connection_again_takes_half_a_minute_at_least() -> None:
    impatient = client(random=lambda: 0.0)
    result = run_flow(call(DESCRIBE, ONCE), (refuse(401),), clients=(impatient, *[UNREAD] * 7))
    assert sum(result.sleeps) == 30


def test_an_outage_of_the_secrets_backend_is_temporary_and_not_quoted() -> None:
    error = read_again(*[UNREADABLE] * 7, answers=(refuse(401),)).error
    assert isinstance(error, ModelArtsTransientError)
    assert "could not be read again (RuntimeError)" in str(error)
    assert SECRET_KEY not in str(error)


def test_the_outcome_stays_unknown_if_the_connection_cannot_be_read_again() -> None:
    result = run_flow(call(DELETE, FIVE_TIMES), [TIMEOUT, refuse(401)], clients=(client(), *[UNREAD] * 7))
    assert result.error.outcome_unknown


@pytest.mark.parametrize(
    "refusal", [refuse(401), refuse(403), refuse(404), refuse(400, "ModelArts.0210"), refuse(404, "ModelArts.4700")]
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
def test_a_refusal_mentions_a_project_id_of_unusual_form(refusal: Response, project_id: str, hint: str | None) -> None:
    one = client(project_id=project_id)
    error = run_flow(call(DESCRIBE, ONCE), itertools.repeat(refusal, 1), clients=one).error
    assert (hint or "32 hex digits") in str(error) if hint else "32 hex digits" not in str(error)


def test_an_endpoint_that_does_not_resolve_is_named_as_the_user_wrote_it() -> None:
    written = "region 'cn-nort-4' of connection 'mine' has no ModelArts endpoint that resolves: check its spelling"
    result = describe(UNKNOWN_NAME, clients=(replace(client(), unresolved=written),))
    assert isinstance(result.error, ModelArtsConfigurationError)
    assert str(result.error).startswith(f"{written}. DescribeProcessorTask of processing task 'abc' failed")


def security_key(name: str) -> Response:
    """Return the metadata service's answer with a temporary key for a day."""
    parts = {"access": name, "secret": f"secret-of-{name}", "securitytoken": "T"}
    return answer({"credential": {**parts, "expires_at": "2026-02-01T12:00:00.000000Z"}})


@pytest.mark.parametrize("refusal", [refuse(403, "ModelArts.0206"), refuse(401, "APIGW.0301")], ids=["403", "401"])
def test_a_refused_temporary_key_of_the_agency_is_renewed_once(refusal: Response) -> None:
    no_token = refuse(404)  # the older metadata service has no session tokens
    answers = [no_token, security_key("AK1"), refusal, no_token, security_key("AK2"), TASK]
    result = describe(*answers, clients=(client(InstanceAgency()),))
    assert result.value is not None
    signed = [request.headers["Authorization"] for request in result.requests if "Authorization" in request.headers]
    assert [text.split("Access=")[1][:3] for text in signed] == ["AK1", "AK2"]


SUCCESSFUL_ERRORS = [
    {"error_code": "ModelArts.0010", "error_msg": "broken inside"},
    {"is_success": False, "errorCode": "ModelArts.0010", "error_message": "broken inside", "request_id": "r"},
]


@pytest.mark.parametrize("body", SUCCESSFUL_ERRORS)
@pytest.mark.parametrize(
    "operation",
    [
        operations.delete_processor_task("t"),
        operations.stop_processor_task_version("t", "v"),
        operations.describe_processor_task_version("t", "v"),
        operations.list_processor_tasks().page(0),
        operations.list_processor_task_version_results("t", "v").page(0),
    ],
    ids=lambda operation: operation.name,
)
def test_an_error_with_the_status_of_a_success_is_not_an_empty_answer(operation: Any, body: dict[str, Any]) -> None:
    error = run_flow(call(operation, ONCE), [answer(body)], clients=(client(),)).error
    assert isinstance(error, ModelArtsTransientError)
    assert error.error_code == "ModelArts.0010"


@pytest.mark.parametrize(
    "body",
    [
        {"task_id": "t", "status": 3, "error_code": "ModelArts.4614", "error_msg": "no images"},
        {"task_id": "t", "status": 3, "error_msg": "no images"},
    ],
)
def test_a_failed_task_with_an_error_code_is_read_as_a_task(body: dict[str, Any]) -> None:
    task = run_flow(call(operations.describe_processor_task("t"), ONCE), [answer(body)], clients=(client(),)).value
    assert task is not None
    assert task.error_msg == "no images"
