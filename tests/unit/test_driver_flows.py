"""Which errors of a step go back into a flow, for both drivers."""

import pytest

from airflow_modelarts.api.errors import ModelArtsConfigurationError
from airflow_modelarts.api.http import ConnectionReadError, ReadConnection, Request, Sleep, Step, TransportError
from airflow_modelarts.transport.exchange import as_outcome

REQUEST = Request("GET", "https://modelarts.example")
BROKEN = TransportError("reset by peer", kind="broken", sent=True)
NO_PROXY = ModelArtsConfigurationError("the proxy's address is not valid")


@pytest.mark.parametrize("error", [BROKEN, NO_PROXY])
def test_an_error_that_explains_a_request_goes_back_into_the_flow(error: Exception) -> None:
    assert as_outcome(error, REQUEST) is error


def test_a_connection_that_cannot_be_read_again_is_reported_to_the_flow() -> None:
    reported = as_outcome(NO_PROXY, ReadConnection(refused=object()))
    assert isinstance(reported, ConnectionReadError)
    assert reported.error is NO_PROXY


@pytest.mark.parametrize("step", [ReadConnection(), Sleep(1.0)])
def test_other_errors_end_the_flow(step: Step) -> None:
    with pytest.raises(ModelArtsConfigurationError):
        as_outcome(NO_PROXY, step)


def test_a_defect_ends_the_flow() -> None:
    with pytest.raises(ZeroDivisionError):
        as_outcome(ZeroDivisionError(), REQUEST)
