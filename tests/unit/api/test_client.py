"""Tests of whole calls: requests, answers, unknown outcomes, secrets."""

from dataclasses import replace
from typing import Any

import pytest

from airflow_modelarts.api import operations
from airflow_modelarts.api.client import call
from airflow_modelarts.api.credentials import StaticToken
from airflow_modelarts.api.errors import ModelArtsConfigurationError, ModelArtsNotFoundError, ModelArtsTransientError
from airflow_modelarts.api.http import ReadConnection, Response
from airflow_modelarts.api.models import Empty, ProcessorTask
from tests.support.credentials import USER, token
from tests.support.flows import (
    ACCESS_KEY,
    BROKEN,
    CREATE,
    DELETE,
    DESCRIBE,
    ENDPOINT,
    FIVE_TIMES,
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
    answer,
    client,
    describe,
    refuse,
    run_flow,
)


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


@pytest.mark.parametrize(
    ("before", "credentials", "secret"),
    [([], ACCESS_KEY, SECRET_KEY), ([], StaticToken("T0KEN"), "T0KEN"), ([token("T0KEN")], USER, "T0KEN")],
    ids=["secret key", "token", "obtained token"],
)
def test_an_error_quotes_no_secret(before: list[Answer], credentials: Any, secret: str) -> None:
    result = describe(*before, refuse(400, "ModelArts.0101", f"no {secret}"), clients=(client(credentials),))
    assert secret not in str(result.error)


def test_an_error_without_an_answer_names_the_endpoint() -> None:
    assert ENDPOINT in str(describe(REFUSED_CONNECTION, clients=(client(),)).error)


def test_the_repr_of_a_client_has_no_secret() -> None:
    shown = repr(client()) + repr(client(USER)) + repr(client(StaticToken("T0KEN")))
    assert not any(secret in shown for secret in (SECRET_KEY, "the-password", "T0KEN"))


DELETE_VERSION = operations.delete_processor_task_version("t", "v")


@pytest.mark.parametrize("operation", [DELETE, DELETE_VERSION], ids=lambda operation: operation.name)
@pytest.mark.parametrize("not_found", [refuse(404, "ModelArts.4700"), refuse(400, "ModelArts.4700"), refuse(404)])
@pytest.mark.parametrize(
    "ambiguous",
    [[TIMEOUT], [BROKEN], [refuse(502)], [Response(200, {}, b"<html>")], [TIMEOUT, refuse(429)]],
    ids=["timeout", "broken", "502", "unreadable", "timeout then throttled"],
)
def test_not_found_after_a_lost_delete_is_success(operation: Any, ambiguous: list[Answer], not_found: Response) -> None:
    assert run_flow(call(operation, FIVE_TIMES), [*ambiguous, not_found], clients=[client()]).value == Empty()


@pytest.mark.parametrize("before", [[], [refuse(429)], [REFUSED_CONNECTION]], ids=["first", "throttled", "not sent"])
def test_not_found_is_raised_if_no_attempt_can_have_deleted_the_task(before: list[Answer]) -> None:
    result = run_flow(call(DELETE, FIVE_TIMES), [*before, refuse(404)], clients=[client()])
    assert isinstance(result.error, ModelArtsNotFoundError)


@pytest.mark.parametrize(
    "operation", [DESCRIBE, operations.stop_processor_task_version("t", "v")], ids=["read", "stop"]
)
def test_not_found_after_a_lost_answer_to_anything_else_is_raised(operation: Any) -> None:
    result = run_flow(call(operation, FIVE_TIMES), [TIMEOUT, refuse(404)], clients=[client()])
    assert isinstance(result.error, ModelArtsNotFoundError)


@pytest.mark.parametrize(
    ("answers", "credentials"),
    [
        ([token("T1"), TIMEOUT, refuse(401), token("T2")], [USER]),
        ([TIMEOUT, refuse(401)], [ACCESS_KEY, OTHER_KEY]),
        ([token(), TIMEOUT, refuse(401), refuse(401), token("T2")], [USER, replace(USER, password="new")]),
    ],
    ids=["renewed token", "rotated key", "rotated password"],
)
def test_not_found_is_success_after_a_lost_delete_and_a(answers: list[Answer], credentials: list[Any]) -> None:
    clients = [client(one) for one in credentials]
    assert run_flow(call(DELETE, FIVE_TIMES), [*answers, refuse(404)], clients=clients).value == Empty()


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
    assert result.value.status == 2


def test_an_answer_about_another_task_is_retried() -> None:
    other, this = (answer({"task_id": one, "status": 2}) for one in ("other", "abc"))
    result = run_flow(call(DESCRIBE, FIVE_TIMES), [other, this], clients=client())
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
    assert result.value.status == 1


def test_an_answer_may_omit_the_ids_of_a_version() -> None:
    result = run_flow(
        call(operations.describe_processor_task_version("t", "v"), ONCE), [answer({"status": 4})], clients=client()
    )
    assert result.value.status == 4


def test_the_outcome_of_a_create_without_a_token_is_known() -> None:
    result = run_flow(call(CREATE, ONCE), [TIMEOUT], clients=[client(USER)])
    assert isinstance(result.error, ModelArtsTransientError)
    assert not result.error.outcome_unknown


def test_an_endpoint_that_does_not_resolve_is_named_as_the_user_wrote_it() -> None:
    written = "region 'cn-nort-4' of connection 'mine' has no ModelArts endpoint that resolves: check its spelling"
    result = describe(UNKNOWN_NAME, clients=(replace(client(), unresolved=written),))
    assert isinstance(result.error, ModelArtsConfigurationError)
    assert str(result.error).startswith(f"{written}. DescribeProcessorTask of processing task 'abc' failed")


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
    assert task.error_msg == "no images"
