"""Tests of the token cache: shared, failed and closed renewals."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from airflow_modelarts.api.credentials import AccessKey, Authorizer, StaticToken
from airflow_modelarts.api.credentials.base import RENEWAL_POLL
from airflow_modelarts.api.errors import ModelArtsAuthenticationError
from airflow_modelarts.api.http import Request, Sleep
from tests.support.credentials import AGENCY, USER, Process, security_key, session_token, token
from tests.support.flows import FIVE_TIMES, refuse


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


def started(process: Process) -> list[Generator[Any, Any, Authorizer]]:
    """Return two flows for one token: the first requests it, the second waits."""
    flows = [process.flow(USER), process.flow(USER)]
    for flow in flows:
        start(flow)
    return flows


def test_of_two_concurrent_callers_one_requests_a_token_and_one_sleeps(process: Process) -> None:
    first, second = process.flow(USER), process.flow(USER)
    assert isinstance(start(first), Request)
    assert start(second) == Sleep(RENEWAL_POLL)
    assert second.send(None) == Sleep(RENEWAL_POLL)


def test_a_waiting_caller_gets_the_token_of_the_other(process: Process) -> None:
    first, second = started(process)
    assert finish(first, token("T1")) == finish(second) == StaticToken("T1")


def test_a_waiting_caller_gets_the_error_of_the_other(process: Process) -> None:
    first, second = started(process)
    with pytest.raises(ModelArtsAuthenticationError) as firsts:
        first.send(refuse(401, x_request_id="r-1"))
    with pytest.raises(ModelArtsAuthenticationError) as seconds:
        second.send(None)
    assert seconds.value is not firsts.value
    assert (str(seconds.value), vars(seconds.value)) == (str(firsts.value), vars(firsts.value))


def test_a_waiting_caller_renews_itself_if_the_other_flow_is_closed(process: Process) -> None:
    first, second = started(process)
    first.close()
    assert isinstance(second.send(None), Request)
    assert finish(second, token("T1")) == StaticToken("T1")


def test_a_renewal_with_an_unexpected_exception_does_not_block_the_next_one(process: Process) -> None:
    first, second = started(process)
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
    first, second = started(process)
    assert first.send(refuse(503)) == Sleep(1.0)
    assert second.send(None) == Sleep(RENEWAL_POLL)
    assert isinstance(first.send(None), Request)
    assert finish(first, token("T1")) == finish(second) == StaticToken("T1")


def test_a_cache_holds_no_password(process: Process) -> None:
    process.obtain(USER, token("T1"))
    assert "the-password" not in str(vars(process.cache))
