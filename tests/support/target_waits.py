"""Waits for a target as the trigger does, and hands each event to a function."""

from collections.abc import Callable, Hashable

from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling import watcher
from airflow_modelarts.polling.wait import DEFAULT_WORKSPACE, Ended, Wait, WaitEvent


async def wait_for_end(
    key: Hashable,
    open_api: Callable[[], watcher.Api],
    target: Target,
    *,
    workspace_id: str | None = None,
    interval: float,
    on_event: Callable[[WaitEvent], None],
    poll_at_once: bool = False,
) -> int:
    wait = Wait(target, interval, workspace_id=workspace_id or DEFAULT_WORKSPACE)
    joined = watcher.join(key, open_api, wait, poll_at_once=poll_at_once)
    try:
        while not isinstance(event := wait.take_event(), Ended):
            if event is None:
                await wait.next_event()
            else:
                on_event(event)
        on_event(event)
        return event.status
    finally:
        await joined.leave(wait)
