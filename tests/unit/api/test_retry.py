"""Tests of retries: which failures are retried, the delays, and the error at the end."""

import heapq
import itertools
import random
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_modelarts.api.capacity import ONE_ATTEMPT, without_waiting
from airflow_modelarts.api.errors import ModelArtsBusyError, ModelArtsError, ModelArtsThrottledError
from airflow_modelarts.api.http import Flow, Request, Response, Sleep, TransportError
from airflow_modelarts.api.retry import DEFAULT_RETRIES, Idempotency, RetryingRequest, RetryPolicy
from tests.support.flows import (
    BAD_CERTIFICATE,
    BROKEN,
    FIVE_TIMES,
    NOON,
    PLAIN_HTTP,
    REFUSED_CONNECTION,
    TIMEOUT,
    TOO_LARGE,
    UNKNOWN_NAME,
    Clock,
    answer,
    no_jitter,
    refuse,
    run_flow,
)

REQUEST = Request("GET", "https://modelarts.example/")
OK = answer({}, 200)


def parse(response: Response) -> str:
    """Read an answer that must be an empty object."""
    if response.body.strip() != b"{}":
        raise ValueError(f"not mine: {response.body!r}")
    return "done"


def run(
    *,
    idempotency: Idempotency = Idempotency.ALWAYS,
    retries: RetryPolicy = FIVE_TIMES,
    clock: Clock | None = None,
    random: Callable[[], float] = no_jitter,
    build: Callable[[], Request] = lambda: REQUEST,
    secrets: tuple[str, ...] = (),
) -> Flow[str]:
    request = RetryingRequest(
        "DescribeX", "x 'abc'", "https://modelarts.example", idempotency, secrets, retries, clock or Clock(), random
    )
    return request.run(build, parse)


#: Failures: whether an idempotent request is retried, and whether a create is.
FAILURES: dict[str, tuple[Response | TransportError, bool, bool]] = {
    "connection refused": (REFUSED_CONNECTION, True, True),
    "unknown name": (UNKNOWN_NAME, True, True),
    "broken before sending": (TransportError("broken pipe", kind="broken", sent=False), True, True),
    "broken after sending": (BROKEN, True, False),
    "timeout after sending": (TIMEOUT, True, False),
    "timeout before sending": (TransportError("connecting timed out", kind="timeout", sent=False), True, True),
    "certificate": (BAD_CERTIFICATE, False, False),
    "plain http": (PLAIN_HTTP, False, False),
    "too large": (TOO_LARGE, False, False),
    "408": (refuse(408), True, False),
    "425": (refuse(425), True, False),
    "429": (refuse(429), True, True),
    "429 with Retry-After": (refuse(429, retry_after="3"), True, True),
    "APIGW.0308": (refuse(429, "APIGW.0308"), True, True),
    "APIG.0308": (refuse(429, "APIG.0308"), True, True),
    "500": (refuse(500), True, False),
    "501": (refuse(501), True, False),
    "502": (refuse(502), True, False),
    "502 page": (Response(502, {"content-type": "text/html"}, b"<html>bad gateway</html>"), True, False),
    "503": (refuse(503), True, False),
    "503 with Retry-After": (refuse(503, retry_after="3"), True, False),
    "504": (refuse(504), True, False),
    "APIGW.0201": (refuse(504, "APIGW.0201"), True, False),
    "200 page": (Response(200, {"content-type": "text/html"}, b"<html>"), True, False),
    "200 cut off": (Response(200, {}, b'{"task_i'), True, False),
    "200 nothing": (Response(200, {}, b""), True, False),
    "ModelArts.4409": (refuse(400, "ModelArts.4409"), True, True),
    "ModelArts.4616": (refuse(400, "ModelArts.4616"), True, True),
    "ModelArts.4704": (refuse(400, "ModelArts.4704"), True, True),
    "ModelArts.4850": (refuse(403, "ModelArts.4850"), True, True),
    "400": (refuse(400), False, False),
    "401": (refuse(401), False, False),
    "403": (refuse(403), False, False),
    "404": (refuse(404), False, False),
    "405": (refuse(405), False, False),
    "409": (refuse(409), False, False),
    "ModelArts.4614": (refuse(500, "ModelArts.4614"), True, False),
    "503 with ModelArts.4700": (refuse(503, "ModelArts.4700"), True, False),
    "500 with ModelArts.4709": (refuse(500, "ModelArts.4709"), True, False),
    "503 with APIGW.0308": (refuse(503, "APIGW.0308"), True, False),
    "504 with APIGW.0301": (refuse(504, "APIGW.0301"), True, False),
    "ModelArts.4700": (refuse(400, "ModelArts.4700"), False, False),
    "ModelArts.4709": (refuse(400, "ModelArts.4709"), False, False),
    "302": (Response(302, {"location": "https://elsewhere.example/"}), False, False),
}
TABLE = [
    pytest.param(idempotency, failure, again, id=f"{name}-{idempotency.value}")
    for name, (failure, always, if_not_done) in FAILURES.items()
    for idempotency, again in ((Idempotency.ALWAYS, always), (Idempotency.IF_NOT_DONE, if_not_done))
]
table = pytest.mark.parametrize(("idempotency", "failure", "again"), TABLE)


@table
def test_a_failure_is_retried_or_not(idempotency: Idempotency, failure: Response | TransportError, again: bool) -> None:
    result = run_flow(run(idempotency=idempotency), [failure, OK] if again else [failure])
    assert result.returned == ("done" if again else None)
    assert len(result.requests) == (2 if again else 1)


@table
def test_a_permanent_failure_is_raised_after_the_last_attempt(
    idempotency: Idempotency, failure: Response | TransportError, again: bool
) -> None:
    attempts = 5 if again else 1
    if failure is UNKNOWN_NAME:
        attempts = 2  # a failed name lookup is retried once
    result = run_flow(run(idempotency=idempotency), [failure] * attempts)
    assert isinstance(result.error, ModelArtsError)
    assert len(result.sleeps) == attempts - 1


@pytest.mark.parametrize("attempts", [1, 2, 7])
def test_a_request_is_sent_as_often_as_the_retry_policy_allows(attempts: int) -> None:
    assert len(run_flow(run(retries=RetryPolicy(attempts=attempts)), [refuse(503)] * attempts).requests) == attempts


def test_zero_attempts_raise_value_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        next(run(retries=RetryPolicy(attempts=0)))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_status_from_200_to_299_is_a_success(status: int) -> None:
    result = run_flow(run(), [answer({}, status)])
    assert (result.value, result.steps) == ("done", [REQUEST])


def test_the_last_failure_is_raised() -> None:
    error = run_flow(run(retries=RetryPolicy(attempts=2)), [refuse(503), refuse(429)]).error
    assert type(error) is ModelArtsThrottledError


@pytest.mark.parametrize("failure", [refuse(400), TIMEOUT, answer("S3CRET")], ids=["refused", "timeout", "unreadable"])
def test_an_error_is_not_chained_to_its_cause(failure: Response | TransportError) -> None:
    error = run_flow(run(retries=RetryPolicy(attempts=1)), [failure]).error
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_every_attempt_builds_its_request() -> None:
    numbers = itertools.count()
    result = run_flow(run(build=lambda: Request("GET", f"https://h/{next(numbers)}")), [refuse(503), TIMEOUT, OK])
    assert [request.url for request in result.requests] == ["https://h/0", "https://h/1", "https://h/2"]


def test_delays_double_up_to_the_maximum() -> None:
    retries = RetryPolicy(attempts=9, initial_delay=1.0, max_delay=30.0)
    assert run_flow(run(retries=retries), [TIMEOUT] * 9).sleeps == [1, 2, 4, 8, 16, 30, 30, 30]


def test_delays_are_drawn_between_zero_and_their_bound() -> None:
    draws = iter([0.0, 0.5, 0.25, 0.999])
    assert run_flow(run(random=lambda: next(draws)), [TIMEOUT] * 5).sleeps == [0, 1, 1, 8 * 0.999]


@settings(deadline=None)
@given(st.integers(1, 100_000), st.floats(0, 1, exclude_max=True), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_delay_never_exceeds_the_maximum(attempt: int, drawn: float, first: float, longest: float) -> None:
    pause = RetryPolicy(initial_delay=first, max_delay=longest).delay(attempt, None, lambda: drawn)
    assert 0 <= pause <= min(longest, first * 2.0 ** min(attempt, 60))


@pytest.mark.parametrize("refused", [(429,), (503,), (400, "ModelArts.4616")], ids=["throttled", "503", "busy"])
@pytest.mark.parametrize(("value", "pause"), [("0", 0), ("3", 3), ("60", 60), ("61", 60), ("86400", 60), ("soon", 0.5)])
def test_retry_after_is_honoured_up_to_its_maximum_without_jitter(refused: Any, value: str, pause: float) -> None:
    assert run_flow(run(random=lambda: 0.5), [refuse(*refused, retry_after=value), OK]).sleeps == [pause]


def test_a_retry_after_date_is_honoured() -> None:
    clock = Clock()
    # The request moves the clock by a second.
    date = formatdate(NOON + 21, usegmt=True)
    assert run_flow(run(clock=clock), [refuse(429, retry_after=date), OK], clock=clock).sleeps == [20]


@pytest.mark.parametrize(
    ("failures", "unknown"),
    [
        ([TIMEOUT], True),
        ([BROKEN], True),
        ([TOO_LARGE], True),
        ([refuse(500)], True),
        ([refuse(504)], True),
        ([refuse(408)], True),
        ([Response(200, {}, b"<html>")], True),
        ([refuse(400)], False),
        ([refuse(404)], False),
        ([REFUSED_CONNECTION, refuse(400)], False),
        ([refuse(429), refuse(400)], False),
        ([refuse(400, "ModelArts.4616"), TIMEOUT], True),
        ([REFUSED_CONNECTION] * 5, False),
        ([refuse(429)] * 5, False),
        ([BAD_CERTIFICATE], False),
    ],
    ids=lambda case: None if isinstance(case, bool) else "+".join(str(getattr(one, "status", one)) for one in case),
)
def test_the_error_of_a_create_has_outcome_unknown(failures: list[Response | TransportError], unknown: bool) -> None:
    assert run_flow(run(idempotency=Idempotency.IF_NOT_DONE), failures).error.outcome_unknown is unknown


@pytest.mark.parametrize("ambiguous", [TIMEOUT, BROKEN, refuse(502)], ids=["timeout", "broken", "502"])
def test_a_refusal_after_a_lost_answer_leaves_the_outcome_unknown(ambiguous: Response | TransportError) -> None:
    assert run_flow(run(), [ambiguous, refuse(429), refuse(404)]).error.outcome_unknown


@pytest.mark.parametrize("defect", [KeyError("x"), AttributeError("x"), RecursionError("x")], ids=repr)
def test_an_unexpected_exception_of_the_parser_is_raised(defect: Exception) -> None:
    def broken(response: Response) -> str:
        raise defect

    request = RetryingRequest("X", "x", "https://h", Idempotency.ALWAYS, (), FIVE_TIMES, Clock(), no_jitter)
    with pytest.raises(type(defect)):
        run_flow(request.run(lambda: REQUEST, broken), [OK])


PATIENT = RetryPolicy(attempts=2, throttled_attempts=3)


@pytest.mark.parametrize("idempotency", Idempotency)
def test_a_throttled_request_has_extra_attempts(idempotency: Idempotency) -> None:
    assert run_flow(run(idempotency=idempotency, retries=PATIENT), [refuse(429)] * 4 + [OK]).value == "done"
    assert len(run_flow(run(idempotency=idempotency, retries=PATIENT), [refuse(429)] * 5).requests) == 5


def test_throttling_does_not_use_up_the_attempts_for_other_failures() -> None:
    answers = [refuse(429), refuse(429), refuse(400, "ModelArts.4409"), refuse(429), OK]
    assert run_flow(run(idempotency=Idempotency.IF_NOT_DONE, retries=PATIENT), answers).value == "done"
    twice_busy = [refuse(429), *[refuse(400, "ModelArts.4409")] * 2]
    assert isinstance(
        run_flow(run(idempotency=Idempotency.IF_NOT_DONE, retries=PATIENT), twice_busy).error, ModelArtsBusyError
    )


def test_a_throttled_create_is_not_repeated_if_its_outcome_is_unknown() -> None:
    result = run_flow(run(idempotency=Idempotency.IF_NOT_DONE, retries=PATIENT), [refuse(429), refuse(503)])
    assert result.error.outcome_unknown


@pytest.mark.parametrize(("creators", "per_second", "burst"), [(30, 2.0, 5), (30, 1.0, 5), (100, 2.0, 5)])
def test_many_concurrent_creates_all_succeed(creators: int, per_second: float, burst: int) -> None:
    """A gateway that accepts a number of requests a second, and its callers with the default retry policy."""
    draws = random.Random(7)
    now, tokens, filled_at = 0.0, float(burst), 0.0
    due: list[tuple[float, int]] = [(0.0, number) for number in range(creators)]
    flows = [
        run(idempotency=Idempotency.IF_NOT_DONE, retries=DEFAULT_RETRIES, random=draws.random) for _ in range(creators)
    ]
    for flow in flows:
        assert isinstance(flow.send(None), Request)
    done = 0
    while due:
        now, number = heapq.heappop(due)
        tokens, filled_at = min(float(burst), tokens + (now - filled_at) * per_second), now
        lets_in = tokens >= 1
        tokens -= lets_in
        try:
            step = flows[number].send(OK if lets_in else refuse(429))
        except StopIteration:
            done += 1
            continue
        assert isinstance(step, Sleep)
        assert isinstance(flows[number].send(None), Request)
        heapq.heappush(due, (now + step.seconds, number))
    assert done == creators


@pytest.mark.parametrize(
    "failure", [refuse(429), refuse(503), refuse(400, "ModelArts.4409"), REFUSED_CONNECTION, TIMEOUT]
)
def test_an_error_that_the_caller_waits_out_ends_the_call_at_once(failure: Response | TransportError) -> None:
    assert run_flow(run(retries=ONE_ATTEMPT), [failure]).error.temporary


def test_a_resolver_that_fails_once_does_not_end_a_submission_that_waits() -> None:
    assert run_flow(run(retries=ONE_ATTEMPT), [UNKNOWN_NAME, OK]).value == "done"


def test_a_caller_that_does_not_wait_for_capacity_repeats_all_but_a_limit() -> None:
    retries = without_waiting(FIVE_TIMES)
    assert run_flow(run(retries=retries), [refuse(429), refuse(503), OK]).value == "done"
    assert run_flow(run(retries=retries), [refuse(429), refuse(400, "ModelArts.4409")]).error.temporary
