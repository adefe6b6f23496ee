"""Calls to blocking functions of Airflow from where one must not block: an event loop, a signal handler."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

P = ParamSpec("P")
T = TypeVar("T")

#: Calls that are under way; asyncio itself would let them be collected.
_RUNNING: set[asyncio.Task[Any]] = set()


async def call_airflow(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call a blocking function of Airflow without blocking the event loop.

    Such a function may ask the supervisor. In Airflow 3.0 and 3.1 its channel belongs to the triggerer's event loop:
    from a bare thread the request runs on a second loop, and from then on all triggers get each other's answers.
    ``sync_to_async`` brings it back to the right one. Cancelled there between a request and its answer, Airflow leaves
    the answer to whoever asks next. So the call goes on when the caller is cancelled.

    :param function: what to call, with the arguments that follow.
    """
    call = asyncio.ensure_future(sync_to_async(function)(*args, **kwargs))
    _RUNNING.add(call)
    call.add_done_callback(_RUNNING.discard)
    return await asyncio.shield(call)


def call_airflow_in_time(function: Callable[[], T], seconds: float, default: T) -> T:
    """
    Call a blocking function of Airflow from a worker's signal handler; return the default if that takes too long.

    The signal may have interrupted the main thread while that held the lock of its channel to the supervisor, which is
    not given back before the handler returns. So another thread asks, and waits for that lock (since Airflow 3.2).

    :param function: what to call.
    :param seconds: for which its answer is waited for.
    """
    answers: list[T] = []
    asking = threading.Thread(target=lambda: answers.append(function()), daemon=True)
    asking.start()
    asking.join(seconds)
    return answers[0] if answers else default
