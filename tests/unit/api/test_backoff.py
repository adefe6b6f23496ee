"""Tests of the delays between retries and between polls."""

from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.api.backoff import exponential_delay, with_jitter


def test_delay_doubles_with_each_failure_up_to_the_maximum():
    assert [exponential_delay(0.5, failures, 3.0) for failures in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(st.floats(0, 3600), st.integers(1, 10_000), st.floats(0, 3600))
def test_delay_of_any_number_of_failures_is_within_the_maximum(initial_delay, failures, max_delay):
    assert 0 <= exponential_delay(initial_delay, failures, max_delay) <= max_delay


@given(st.floats(0, 3600), st.floats(0, 1, exclude_max=True))
def test_jitter_draws_between_zero_and_the_delay_unless_told_otherwise(delay, drawn):
    assert 0 <= with_jitter(delay, lambda: drawn) <= delay
    assert 0.8 * delay <= with_jitter(delay, lambda: drawn, low=0.8, high=1.2) <= 1.2 * delay * (1 + 1e-12)
