"""Calls to blocking functions of Airflow from an event loop or a signal handler, neither of which may block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

P = ParamSpec("P")
T = TypeVar("T")

#: Calls in progress. asyncio holds no strong reference to a task, so it could be garbage collected.
_RUNNING: set[asyncio.Task[Any]] = set()


async def call_airflow(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function of Airflow without blocking the event loop.

    Such a function may send a request to the supervisor. In Airflow 3.0 and 3.1 that channel belongs to the triggerer's
    event loop. From a plain thread the request would run on a second loop, and from then on triggers would receive each
    other's responses. ``sync_to_async`` runs it on the right loop. If it were cancelled between request and response,
    the next request would receive that response. So the call continues when the caller is cancelled.

    :param function: called with the arguments that follow.
    """
    return await finish(sync_to_async(function)(*args, **kwargs))


async def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine, which continues when the caller is cancelled."""
    call = asyncio.ensure_future(coroutine)
    _RUNNING.add(call)
    call.add_done_callback(_RUNNING.discard)
    return await asyncio.shield(call)


def call_airflow_in_time(function: Callable[[], T], seconds: float, default: T) -> T:
    """Call a blocking function of Airflow from a worker's signal handler; return the default if that takes too long.

    The signal may have interrupted the main thread while it held the lock of its channel to the supervisor, which it
    does not release before the handler returns. So another thread calls, and waits for that lock (since Airflow 3.2).

    :param function: called without arguments.
    :param seconds: how long to wait for the result.
    """
    answers: list[T] = []
    asking = threading.Thread(target=lambda: answers.append(function()), daemon=True)
    asking.start()
    asking.join(seconds)
    return answers[0] if answers else default
