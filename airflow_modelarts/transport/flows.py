"""Advancing a flow by one step, and which errors of a step go back into it: the same for both drivers."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.http import ConnectionReadError, ReadConnection, Request, Step, TransportError
from airflow_modelarts.api.operations import Page

T = TypeVar("T")
AnyFlow: TypeAlias = Generator[Step | Page[Any], Any, Any]


@dataclass(frozen=True, slots=True)
class Returned(Generic[T]):
    """The value that a flow returned."""

    value: T


def resume(flow: AnyFlow, outcome: Any) -> Step | Page[Any] | Returned[Any]:
    """
    Resume a flow with the outcome of its last step, and return its next step, page or value.

    :param outcome: the result of the step, or the exception to raise in the flow; None at the beginning.
    """
    try:
        return flow.throw(outcome) if isinstance(outcome, BaseException) else flow.send(outcome)
    except StopIteration as end:
        return Returned(end.value)


def as_outcome(error: Exception, step: Step | Page[Any] | Returned[Any]) -> Exception:
    """
    Return the exception to raise in the flow after an error of a step.

    :raises Exception: the error itself, if the flow does not handle it.
    """
    # A procedure must learn of any error that this package explains, such as a proxy's address that is not valid.
    if isinstance(error, TransportError) or (isinstance(step, Request) and isinstance(error, ModelArtsError)):
        return error
    if isinstance(step, ReadConnection) and step.refused is not None:
        return ConnectionReadError(error)
    raise error
