"""
Snapshots of a project's processing tasks, for the asset events.

The API reports neither when a task ended nor in which order tasks ended. So each poll takes a snapshot: the active
tasks and the recently created ones. ``polling.checkpoints`` compares snapshots to find the tasks that ended in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.polling.outage import backoff_with_jitter, log_outage_began, log_outage_ended
from airflow_modelarts.polling.plan import ACTIVE
from airflow_modelarts.polling.wait import DEFAULT_WORKSPACE
from airflow_modelarts.polling.watcher import Api

log = logging.getLogger(__name__)

#: Seconds by which a snapshot overlaps the one before: clocks differ, and a list shifts while it is read.
OVERLAP = 600.0
#: Seconds that the first snapshot covers: tasks that were created while no triggerer ran are found up to this age.
FIRST_PERIOD = 86400.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    The tasks that one poll found.

    :param active: the active tasks by id.
    :param recent: the tasks created since ``since``, by id, terminal or not.
    :param since: milliseconds since the epoch.
    """

    active: Mapping[str, ProcessorTask]
    recent: Mapping[str, ProcessorTask]
    since: int


async def poll_snapshots(
    api: Api, interval: float, workspace_id: str = DEFAULT_WORKSPACE
) -> AsyncGenerator[Snapshot, None]:
    """
    Yield a snapshot every ``interval`` seconds, without end. An outage is waited out; its begin and end are logged.

    An error that waiting does not cure, such as a refused key, is logged and retried too: the connection may be
    corrected, and if the trigger failed, Airflow would restart it every second.
    """
    since, failures = time.time() - FIRST_PERIOD, 0
    while True:
        began, pause = time.time(), interval
        try:
            snapshot = await take_snapshot(api, int(since * 1000), workspace_id)
        except ModelArtsError as error:
            failures += 1
            pause = backoff_with_jitter(interval, failures, error)
            if failures == 1:
                log_outage_began(log, error, "Polling for processing tasks that end")
        else:
            if failures:
                log_outage_ended(log)
            since, failures = began - OVERLAP, 0
            yield snapshot
        await asyncio.sleep(pause)


async def take_snapshot(api: Api, since: int, workspace_id: str) -> Snapshot:
    """
    List the active tasks, and those created since ``since`` (ListProcessorTasks).

    :param since: milliseconds since the epoch.
    """
    active: dict[str, ProcessorTask] = {}
    for status in ACTIVE:
        listing = operations.list_processor_tasks(status=status, workspace_id=workspace_id)
        async with aclosing(api.pages(listing)) as pages:
            async for page in pages:
                active |= {task.task_id: task for task in page.items if not task.is_terminal}
    recent: dict[str, ProcessorTask] = {}
    listing = operations.list_processor_tasks(workspace_id=workspace_id, sort_by="create_time", order="desc")
    async with aclosing(api.pages(listing)) as pages:
        async for page in pages:
            # A task without a creation time is taken as recent: the list is ordered, and its neighbours are recent.
            new = [task for task in page.items if task.create_time is None or task.create_time >= since]
            recent |= {task.task_id: task for task in new}
            if len(new) < len(page.items):
                break
    return Snapshot(active, recent, since)
