"""The triggers: what a deferred wait is while no worker has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.exchange import Retries
from airflow_modelarts.api.statuses import ProcessorTaskStatus, outcome, status_name
from airflow_modelarts.hooks import ModelArtsAsyncHook
from airflow_modelarts.watcher import Changed, Ended, News, OutageBegan, OutageEnded, watch


class ProcessorTaskTrigger(BaseTrigger):
    """
    Waits until a processing task has ended, together with all other waits on the same connection and project.

    Its event is ``{"task_id": …, "status": 2}``, or ``{"task_id": …, "error": …}`` when waiting longer makes no sense;
    what that means is for the worker to say. It never carries the result, which can be megabytes.

    :param processor_task_id: the processing task's id; empty when ``upstream`` tells it.
    :param modelarts_conn_id: the Airflow connection.
    :param project_id: instead of the connection's.
    :param poll_interval: seconds between two looks at the task, at most.
    :param workspace_id: the task's workspace, if it is known.
    :param look_at_once: whether no worker has looked at the task before.
    :param upstream: ``{"task_id": …, "key": …}`` of the XCom that holds the id, where the wait starts in the triggerer.
    :param end_from_trigger: whether the wait may succeed here, without a worker.
    :param failed_statuses: ends that are for the worker to judge even then.
    :param stop_on_kill: whether the running versions of the task are stopped when a user kills the Airflow task.
    :param forgotten: what another version of this package stored; a row that cannot be read would be lost silently.
    """

    def __init__(
        self,
        processor_task_id: str = "",
        modelarts_conn_id: str = "modelarts_default",
        project_id: str | None = None,
        poll_interval: float = 60.0,
        workspace_id: str | None = None,
        look_at_once: bool = False,
        upstream: dict[str, str] | None = None,
        end_from_trigger: bool = False,
        failed_statuses: Iterable[int] = (ProcessorTaskStatus.FAILED, ProcessorTaskStatus.STOPPED),
        stop_on_kill: bool = False,
        **forgotten: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own has no annotations
        self.processor_task_id = processor_task_id
        self.modelarts_conn_id = modelarts_conn_id
        self.project_id = project_id
        self.poll_interval = float(poll_interval)
        self.workspace_id = workspace_id
        self.look_at_once = look_at_once
        self.upstream = upstream
        self.end_from_trigger = end_from_trigger
        self.failed_statuses = [int(status) for status in failed_statuses]
        self.stop_on_kill = stop_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger again: no secret, and nothing but JSON."""
        return (
            "airflow_modelarts.triggers.ProcessorTaskTrigger",
            {
                "processor_task_id": self.processor_task_id,
                "modelarts_conn_id": self.modelarts_conn_id,
                "project_id": self.project_id,
                "poll_interval": self.poll_interval,
                "workspace_id": self.workspace_id,
                "look_at_once": self.look_at_once,
                "upstream": self.upstream,
                "end_from_trigger": self.end_from_trigger,
                "failed_statuses": self.failed_statuses,
                "stop_on_kill": self.stop_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, log what changes, and yield one event."""
        if self.upstream is not None:
            self.processor_task_id = await self._read_upstream(self.upstream)
        try:
            async with aclosing(self._watch()) as news:
                async for latest in news:
                    self._say(latest)
                    if isinstance(latest, Ended):
                        yield await self._event(latest.status)
        except ModelArtsError as error:
            self.log.warning("%s", error)
            yield TriggerEvent({"task_id": self.processor_task_id, "error": str(error)})

    def _watch(self) -> Any:
        return watch(
            (self.modelarts_conn_id, self.project_id),
            # The wait itself is the retry.
            lambda: ModelArtsAsyncHook(self.modelarts_conn_id, project_id=self.project_id, retries=Retries(attempts=1)),
            processor_task_id=self.processor_task_id,
            interval=self.poll_interval,
            workspace_id=self.workspace_id,
            look_at_once=self.look_at_once,
        )

    async def _event(self, status: int) -> TriggerEvent:
        if not self.end_from_trigger or status in self.failed_statuses:
            return TriggerEvent({"task_id": self.processor_task_id, "status": status})
        await self._push_return_value(outcome(self.processor_task_id, status))
        return TaskSuccessEvent()

    async def _push_return_value(self, value: dict[str, Any]) -> None:
        """Push the XCom as a worker does: those of an event arrive downstream as text (Airflow 3.3)."""
        from airflow.providers.common.compat.sdk import XCom

        instance: Any = self.task_instance
        await asyncio.to_thread(
            XCom.set,
            key="return_value",
            value=value,
            task_id=instance.task_id,
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            map_index=instance.map_index,
        )

    def _say(self, news: News) -> None:
        match news:
            case Changed(status) | Ended(status):
                self.log.info("Processing task '%s' is %s.", self.processor_task_id, status_name(status))
            case OutageBegan(error):
                self.log.warning("%s The wait goes on.", error)
            case OutageEnded():
                self.log.info("ModelArts answers again.")

    async def _read_upstream(self, upstream: dict[str, str]) -> Any:
        """Read the id that an earlier task pushed: a trigger gets no resolved XComArg."""
        from airflow.providers.common.compat.sdk import XCom

        instance: Any = self.task_instance
        value = None
        map_indexes = [instance.map_index] if instance.map_index < 0 else [instance.map_index, -1]
        for map_index in map_indexes:  # of a task in the same mapped group, or of one outside of it
            value = await asyncio.to_thread(
                XCom.get_one,
                key=upstream["key"],
                task_id=upstream["task_id"],
                dag_id=instance.dag_id,
                run_id=instance.run_id,
                map_index=map_index,
            )
            if value is not None:
                break
        return value  # if it is no id, describing it says so

    async def on_kill(self) -> None:
        """Stop the running versions of the task, if it is the operator's own (StopProcessorTaskVersion)."""
        if not self.stop_on_kill:
            return
        async with ModelArtsAsyncHook(self.modelarts_conn_id, project_id=self.project_id) as hook:
            async for version in hook.list_processor_task_versions(self.processor_task_id):
                if version.task_version_id and version.status in (
                    ProcessorTaskStatus.INITIALIZED,
                    ProcessorTaskStatus.RUNNING,
                ):
                    await hook.stop_processor_task_version(self.processor_task_id, version.task_version_id)
                    self.log.info(
                        "Stopped version '%s' of processing task '%s'.",
                        version.task_version_id,
                        self.processor_task_id,
                    )
