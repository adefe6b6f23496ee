"""Advancing a flow by one step, and which errors of a step go back into it: the same for both drivers."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.http import ConnectionReadError, ReadConnection, Request, Step, TransportError
from airflow_modelarts.api.operations import ListOperation, Page

log = logging.getLogger(__name__)

T = TypeVar("T")
AnyFlow: TypeAlias = Generator[Step | Page[Any], Any, Any]


#: Unreadable items of a page that the log names.
LOGGED_ITEMS = 3


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


def log_unreadable(operation: ListOperation[Any], page: Page[Any]) -> None:
    """Log the items of a page that could not be read, since whoever iterates over the items does not see them."""
    if page.unreadable:
        items = ", ".join(f"item {item.index + 1} ({item.reason})" for item in page.unreadable[:LOGGED_ITEMS])
        more = f" and {len(page.unreadable) - LOGGED_ITEMS} more" if len(page.unreadable) > LOGGED_ITEMS else ""
        text = "%s left out what it could not read on page %s: %s%s."
        log.warning(text, operation.name, page.number + 1, items, more)
