"""Tests of the rate limiter, with a clock that only the test moves."""

import gc
import math
import threading
from collections.abc import Generator
from typing import Any

import pytest

from airflow_modelarts.api import rate
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsThrottledError, ModelArtsTransientError
from airflow_modelarts.api.http import Flow, Request, Sleep
from airflow_modelarts.api.rate import RateLimiter, RateLimiters, Turn
from airflow_modelarts.api.retry import Idempotency, RetryingRequest, RetryPolicy
from tests.support.flows import Clock, answer, no_jitter, refuse, run_flow

REQUEST = Request("GET", "https://modelarts.example/")
OK = answer({}, 200)


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def limiter(clock: Clock) -> RateLimiter:
    return RateLimiter(clock)


def throttled(retry_after: float | None = None) -> ModelArtsError:
    return ModelArtsThrottledError("too many requests", http_status=429, retry_after=retry_after)


def unavailable() -> ModelArtsError:
    return ModelArtsTransientError("unavailable", http_status=503)


def turn_of(flow: Flow[Turn], clock: Clock) -> Turn:
    """Wait for a turn; sleeps move the clock."""
    try:
        while True:
            step = next(flow)
            assert isinstance(step, Sleep)
            clock.now += step.seconds
    except StopIteration as end:
        turn: Turn = end.value
        return turn


def send(limiter: RateLimiter, clock: Clock, error: ModelArtsError | None = None) -> float:
    """Send a request, and return the seconds that it waited for its turn."""
    began = clock.now
    turn = turn_of(limiter.wait(60.0), clock)
    if error is None:
        limiter.answered(turn)
    else:
        limiter.record_error(turn, error)
    return clock.now - began


def test_there_is_no_limit_before_the_service_throttles(limiter: RateLimiter, clock: Clock) -> None:
    assert [send(limiter, clock) for _ in range(1000)] == [0.0] * 1000
    assert limiter.rate == math.inf


def test_the_first_rate_is_a_part_of_the_measured_rate(limiter: RateLimiter, clock: Clock) -> None:
    for _ in range(10):
        send(limiter, clock)
    send(limiter, clock, throttled())
    assert limiter.rate == pytest.approx(10 * rate.DECREASE)
    assert send(limiter, clock) == pytest.approx(1 / 7)


def test_answers_increase_the_rate_and_throttling_decreases_it(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, throttled())
    rates = []
    for _ in range(5):
        send(limiter, clock)
        rates.append(limiter.rate)
    assert rates == sorted(set(rates))
    send(limiter, clock, throttled())
    assert limiter.rate <= rates[-1] * rate.DECREASE


def test_each_answer_adds_the_same_below_the_throttled_rate(limiter: RateLimiter, clock: Clock) -> None:
    for _ in range(10):
        send(limiter, clock)
    for error in (throttled(), None, None, throttled()):  # the second time, the throttled rate is known
        send(limiter, clock, error)
    rates = [limiter.rate]
    for _ in range(5):
        send(limiter, clock)
        rates.append(limiter.rate)
    step = rate.INCREASE * rates[0]
    assert rates == pytest.approx([rates[0] + number * step for number in range(6)])


def test_requests_sent_before_a_decrease_do_not_decrease_the_rate_again(limiter: RateLimiter, clock: Clock) -> None:
    turns = [turn_of(limiter.wait(60.0), clock) for _ in range(8)]
    limiter.answered(turns[0])
    for turn in turns[1:]:
        limiter.record_error(turn, throttled())
    assert limiter.rate == pytest.approx(rate.DECREASE)


def test_an_outage_does_not_decrease_the_rate(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock)
    send(limiter, clock, throttled())
    before = limiter.rate
    for _ in range(20):
        clock.now += 300
        send(limiter, clock, throttled())
        send(limiter, clock, unavailable())
    assert limiter.rate == before


def test_a_long_time_without_throttling_ends_the_limit(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, throttled())
    clock.now += rate.UNLIMITED_AFTER + 1
    send(limiter, clock)
    assert limiter.rate == math.inf


def test_an_unused_rate_does_not_increase(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, throttled())
    before = limiter.rate
    for _ in range(20):
        clock.now += 10
        send(limiter, clock)
    assert limiter.rate == before


@pytest.mark.parametrize(("error", "slowest"), [(throttled(), rate.MIN_RATE), (unavailable(), 0.5)])
def test_the_rate_has_a_minimum(limiter: RateLimiter, clock: Clock, error: ModelArtsError, slowest: float) -> None:
    for _ in range(100):
        send(limiter, clock)
        send(limiter, clock, error)
    assert limiter.rate == pytest.approx(slowest, rel=0.05)


def test_503_counts_only_while_others_are_answered(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, unavailable())
    assert limiter.rate == math.inf
    send(limiter, clock)
    send(limiter, clock, unavailable())
    assert limiter.rate < math.inf


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refused_request_counts_as_answered(limiter: RateLimiter, clock: Clock, status: int) -> None:
    send(limiter, clock, ModelArtsError("no", http_status=status))
    assert limiter.record_error(turn_of(limiter.wait(60.0), clock), throttled())


@pytest.mark.parametrize("status", [None, 500, 502])
def test_another_error_changes_nothing(limiter: RateLimiter, clock: Clock, status: int | None) -> None:
    send(limiter, clock, ModelArtsTransientError("no", http_status=status))
    assert not limiter.record_error(turn_of(limiter.wait(60.0), clock), throttled())


def test_no_request_is_sent_during_a_retry_after(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, throttled(retry_after=30))
    assert send(limiter, clock) == pytest.approx(30)


def test_the_retry_after_of_another_request_has_the_same_maximum(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, throttled(retry_after=5000))
    began = clock.now
    turn_of(limiter.wait(2.0), clock)
    assert clock.now - began == pytest.approx(2)


def test_an_answer_ends_a_retry_after(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, throttled(retry_after=5000))
    assert send(limiter, clock) == pytest.approx(60)
    assert send(limiter, clock) < 2


def test_turns_have_the_order_of_the_requests(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, throttled())
    waiting: list[tuple[int, Generator[Any, Any, Turn]]] = [(number, limiter.wait(60.0)) for number in range(5)]
    wakes = {number: clock.now + next(flow).seconds for number, flow in waiting}
    order = []
    while waiting:
        number, flow = min(waiting, key=lambda entry: wakes[entry[0]])
        clock.now = max(clock.now, wakes[number])
        try:
            wakes[number] = clock.now + next(flow).seconds
        except StopIteration:
            order.append(number)
            waiting.remove((number, flow))
    assert order == [0, 1, 2, 3, 4]


def test_a_closed_flow_does_not_delay_the_others(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, throttled())
    flows = [limiter.wait(60.0) for _ in range(100)]
    for flow in flows:
        next(flow)
    for flow in flows:
        flow.close()
    assert send(limiter, clock) <= 1 / rate.DECREASE + 0.001


def test_an_abandoned_flow_delays_the_others_by_one_interval(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, throttled())
    interrupted = limiter.wait(60.0)
    next(interrupted)
    assert send(limiter, clock) <= 2 / rate.DECREASE + 0.001
    interrupted.close()


def test_a_copy_takes_no_lock_and_has_no_waiting_requests(limiter: RateLimiter, clock: Clock) -> None:
    """As in a signal handler that interrupts the code with the lock."""
    send(limiter, clock, throttled())
    clock.now += 10
    interrupted = [limiter.wait(60.0) for _ in range(100)]
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with limiter._lock:
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    clone = limiter.copy()
    assert send(clone, clock) == 0.0
    assert clone.rate == pytest.approx(limiter.rate)
    release.set()
    holder.join()
    for flow in interrupted:
        flow.close()


def test_a_flow_that_is_garbage_collected_while_the_lock_is_held_is_removed(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, throttled())
    abandoned = limiter.wait(60.0)
    next(abandoned)
    with limiter._lock:
        del abandoned
        gc.collect()
    assert limiter._waiting == []


def test_threads_share_a_limiter(limiter: RateLimiter, clock: Clock) -> None:
    def work() -> None:
        for number in range(300):
            turn = turn_of(limiter.wait(1.0), Clock())
            if number % 10:
                limiter.answered(turn)
            else:
                limiter.record_error(turn, throttled())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert limiter._waiting == []
    assert 0 < limiter.rate < math.inf


def test_each_connection_has_one_limiter_and_the_oldest_are_dropped() -> None:
    limiters = RateLimiters(lambda: 0.0)
    assert limiters.find("a") is limiters.find("a")
    assert limiters.find("a") is not limiters.find("b")
    for number in range(2 * rate.MAX_CONNECTIONS):
        limiters.find(number)
    assert len(limiters._limiters) == rate.MAX_CONNECTIONS


# Retrying requests with a limiter


def retrying_request(
    limiter: RateLimiter, build: Any = lambda: REQUEST, *, idempotency: Idempotency = Idempotency.ALWAYS, **how: Any
) -> Flow[str]:
    retries = RetryPolicy(**{"attempts": 1, "throttled_attempts": 3, **how})
    request = RetryingRequest("X", "x", "https://h", idempotency, (), retries, lambda: 0.0, no_jitter, limiter=limiter)
    return request.run(build, lambda response: "done")


@pytest.mark.parametrize("idempotency", Idempotency)
def test_a_throttled_request_is_repeated_while_others_are_answered(
    limiter: RateLimiter, clock: Clock, idempotency: Idempotency
) -> None:
    send(limiter, clock)
    flow = retrying_request(limiter, idempotency=idempotency)
    result = run_flow(flow, [refuse(429), refuse(429), refuse(429), OK], clock=clock)
    assert result.value == "done"
    assert sum(result.sleeps) > 3 / rate.DECREASE


def test_a_throttled_request_is_not_repeated_endlessly(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock)
    result = run_flow(retrying_request(limiter), [refuse(429)] * 4, clock=clock)
    assert isinstance(result.error, ModelArtsThrottledError)


@pytest.mark.parametrize("how", [{"throttled_attempts": 0}, {}])
def test_a_throttled_request_is_not_repeated_more_often_if_no_other_is_answered(
    limiter: RateLimiter, clock: Clock, how: dict[str, Any]
) -> None:
    if how:
        send(limiter, clock)
    result = run_flow(retrying_request(limiter, **how), [refuse(429)], clock=clock)
    assert isinstance(result.error, ModelArtsThrottledError)


def test_503_is_repeated_twice_only(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock)
    result = run_flow(retrying_request(limiter, throttled_attempts=10), [refuse(503)] * 3)
    assert isinstance(result.error, ModelArtsTransientError)


def test_503_does_not_repeat_a_create(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock)
    result = run_flow(retrying_request(limiter, idempotency=Idempotency.IF_NOT_DONE), [refuse(503)], clock=clock)
    assert result.error.outcome_unknown


def test_a_retry_after_above_the_maximum_ends_the_extra_attempts(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock)
    result = run_flow(retrying_request(limiter), [refuse(429, retry_after="61")], clock=clock)
    assert result.sleeps == []


def test_a_request_waits_at_most_the_maximum_retry_after(limiter: RateLimiter, clock: Clock) -> None:
    flow = retrying_request(limiter, attempts=2, max_retry_after=5.0, throttled_attempts=0)
    result = run_flow(flow, [refuse(429, retry_after="90"), refuse(429, retry_after="90")], clock=clock)
    assert result.sleeps == [5.0]


def test_a_request_is_built_after_its_turn_came(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, clock, throttled())
    signed_at: list[float] = []

    def build() -> Request:
        signed_at.append(clock.now)
        return REQUEST

    before = clock.now
    assert run_flow(retrying_request(limiter, build), [OK], clock=clock).value == "done"
    assert signed_at[0] > before
