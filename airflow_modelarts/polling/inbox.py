"""The events for one trigger. It takes them in its own asyncio task, since its log lines belong to its Airflow task."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass, field
from typing import Generic, TypeVar

E = TypeVar("E")


@dataclass(slots=True, eq=False)
class Inbox(Generic[E]):
    """What a loop that works for many triggers hands to one of them: events, and maybe an error after them."""

    # A tuple, since the empty one takes no memory.
    _events: tuple[E, ...] = field(default=(), init=False)
    _error: BaseException | None = field(default=None, init=False)
    _waker: asyncio.Future[None] | None = field(default=None, init=False)

    def take_event(self) -> E | None:
        """Return the next event, or None if there is none yet; raise the error after the last event."""
        if self._events:
            event, self._events = self._events[0], self._events[1:]
            return event
        if self._error is not None:
            raise self._error
        return None

    def next_event(self) -> asyncio.Future[None]:
        """Return a future that is done when there is an event or an error."""
        self._waker = asyncio.get_running_loop().create_future()
        return self._waker

    def emit(self, event: E) -> None:
        """Hand over an event."""
        self._events += (event,)
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Hand over an error; the first one counts."""
        self._error = self._error or _copy(error)
        self._wake()

    def _wake(self) -> None:
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)


def _copy(error: BaseException) -> BaseException:
    """Return a copy of an exception for one trigger: each raise adds to the traceback of the exception it raises."""
    try:
        return copy.copy(error).with_traceback(error.__traceback__)
    except Exception:  # its class cannot be made from its ``args``
        return error
