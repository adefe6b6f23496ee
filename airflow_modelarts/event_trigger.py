"""The trigger of asset watchers (Airflow 3): it turns snapshots of a project's tasks into one event for each end."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_modelarts.api.arguments import (
    read_flag,
    read_seconds,
    read_text,
    read_texts,
    refuse_unknown,
    warn_of_unknown_template,
)
from airflow_modelarts.api.ends import Origin, describe_end
from airflow_modelarts.api.places import PlaceFilter, output_uri, typed_uri
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, read_ends
from airflow_modelarts.api.targets import Target
from airflow_modelarts.hooks import ModelArtsAsyncHook
from airflow_modelarts.polling.checkpoint_store import CheckpointStore
from airflow_modelarts.polling.checkpoints import Checkpoint
from airflow_modelarts.polling.new_ends import new_ends
from airflow_modelarts.polling.outage import OutageLog, describe_error
from airflow_modelarts.polling.snapshots import Outage, Snapshot, poll_snapshots
from airflow_modelarts.polling.wait import DEFAULT_WORKSPACE
from airflow_modelarts.polling.watcher import POLL_RETRIES

if TYPE_CHECKING or AIRFLOW_V_3_0_PLUS:
    from airflow.triggers.base import BaseEventTrigger
else:  # Airflow 2 has no asset watchers
    BaseEventTrigger = BaseTrigger

if TYPE_CHECKING:
    from airflow_modelarts.api.listed_tasks import Listed
    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion

#: Events between two checkpoints while many tasks end at once. A stop in between repeats at most so many.
BURST = 200


class ProcessorTaskEventTrigger(BaseEventTrigger):
    """Fires whenever a processing task of a project ends, for an ``AssetWatcher`` (Airflow 3).

    All watchers on the same connection, project, workspace and interval share one poll and its further requests
    (Airflow 3.3). Delivery is at least once: a checkpoint of the emitted events is stored in the asset state store
    (Airflow 3.3). After a restart the trigger emits the ends that it missed: of tasks that were active before, of tasks
    created in the last day, and of those that were run again. Without a store, tasks that end while no triggerer runs
    produce no event.

    The event is what :func:`airflow_modelarts.api.ends.describe_end` returns: every documented field of the task but
    its result, and what identifies the end, such as ``dedupe_key``.

    No argument is rendered as a template.

    :param modelarts_conn_id: the Airflow connection, default ``modelarts_default``.
    :param project_id: instead of the connection's.
    :param workspace_id: the workspace whose tasks are watched, default "0".
    :param template_ids: only tasks of these templates, for example ``["sys_data_analyse"]``; default all. A template
        that the API reference does not document is a warning.
    :param sources: only tasks with one of these inputs: ids, for example of datasets, or places in OBS in any form. A
        place is a folder: ``obs://bucket/in`` selects it and what is below it. Default all.
    :param name_prefix: only tasks whose name begins with this.
    :param statuses: only these terminal statuses, as numbers or names; default completed (2), failed (3), stopped (4).
    :param poll_interval: seconds between two polls, or a timedelta; default 60.
    :param output_prefixes: only tasks that write to one of these folders in OBS or below it, or to a dataset with one
        of these ids; default all.
    :param versions: emit an event for each version that ends, and not one for the task; default false.
    :raises ArgumentError: an argument is unknown, or its value cannot be right. It is a ``ValueError`` and a
        ``TypeError``.
    """

    def __init__(
        self,
        modelarts_conn_id: str = "modelarts_default",
        project_id: str | None = None,
        workspace_id: str = DEFAULT_WORKSPACE,
        template_ids: Iterable[str] = (),
        sources: Iterable[str] = (),
        name_prefix: str = "",
        statuses: Iterable[int | str] = tuple(sorted(TERMINAL_STATUSES)),
        poll_interval: float | timedelta = 60.0,
        output_prefixes: Iterable[str] = (),
        versions: bool = False,
        **unknown: Any,  # Airflow passes what an earlier version stored, which had no other arguments
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own has no annotations
        self.modelarts_conn_id = read_text("modelarts_conn_id", modelarts_conn_id)
        self.project_id = None if project_id is None else read_text("project_id", project_id)
        self.workspace_id = read_text("workspace_id", workspace_id)
        self.template_ids = read_texts("template_ids", template_ids)
        self._inputs = PlaceFilter("sources", read_texts("sources", sources))
        self.sources = self._inputs.items
        self.name_prefix = read_text("name_prefix", name_prefix, may_be_empty=True)
        self.statuses = list(read_ends("statuses", statuses, may_be_empty=False))
        self.poll_interval = read_seconds("poll_interval", poll_interval)
        self._outputs = PlaceFilter("output_prefixes", read_texts("output_prefixes", output_prefixes))
        self.output_prefixes = self._outputs.items
        self.versions = read_flag("versions", versions)
        refuse_unknown(type(self).__name__, unknown, ProcessorTaskEventTrigger.serialize(self)[1])
        for template_id in self.template_ids:
            warn_of_unknown_template("an item of template_ids", template_id)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that Airflow stores: JSON, without secrets."""
        return (
            "airflow_modelarts.triggers.ProcessorTaskEventTrigger",
            {
                "modelarts_conn_id": self.modelarts_conn_id,
                "project_id": self.project_id,
                "workspace_id": self.workspace_id,
                "template_ids": self.template_ids,
                "sources": self.sources,
                "name_prefix": self.name_prefix,
                "statuses": self.statuses,
                "poll_interval": self.poll_interval,
                "output_prefixes": self.output_prefixes,
                "versions": self.versions,
            },
        )

    def shared_stream_key(self) -> Hashable:
        """Return the key under which Airflow shares one poll among triggers."""
        return ("modelarts", self.modelarts_conn_id, self.project_id, self.workspace_id, self.poll_interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Snapshot | Outage]:
        """Poll for all triggers that share a stream."""
        async with aclosing(cls(**kwargs)._snapshots()) as stream:
            async for snapshot in stream:
                yield snapshot

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Snapshot | Outage]
    ) -> AsyncIterator[TriggerEvent]:
        """Emit the ends that this trigger selects."""
        async with aclosing(self._events(shared_stream)) as events:
            async for event in events:
                yield event

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll for this trigger alone, where Airflow shares no polls."""
        async with aclosing(self._snapshots()) as stream, aclosing(self._events(stream)) as events:
            async for event in events:
                yield event

    async def _snapshots(self) -> AsyncGenerator[Snapshot | Outage, None]:
        hook = ModelArtsAsyncHook(self.modelarts_conn_id, project_id=self.project_id, retries=POLL_RETRIES)
        polls = poll_snapshots(hook, self.modelarts_conn_id, self.poll_interval, self.workspace_id)
        async with hook, aclosing(polls) as stream:
            async for polled in stream:
                yield polled

    async def _events(self, stream: AsyncIterator[Snapshot | Outage]) -> AsyncGenerator[TriggerEvent, None]:
        started, is_first = time.time(), True
        polling, reading = OutageLog(self.log), OutageLog(self.log)
        store = self._checkpoint_store()
        checkpoint = await store.load()
        async with store.saving():
            async for polled in stream:
                label = self._label(polled.origin)
                if isinstance(polled, Outage):
                    if polling.failed(f"{label} cannot poll", polled.error):
                        store.report(f"{label} cannot poll: {describe_error(polled.error)}")
                    continue
                polling.ended()
                store.report(None)
                checkpoint = checkpoint or Checkpoint.begin(polled.service_time(started))
                try:
                    snapshot = await checkpoint.extend(polled, time.time()) if is_first else polled
                except Exception as error:
                    reading.failed(f"{label} cannot read what it missed", error)
                    continue  # the next snapshot is another chance
                errors: list[BaseException] = []
                emitted = 0
                async with aclosing(new_ends(checkpoint, snapshot, self, errors.append)) as ends:
                    async for task, version in ends:
                        if emitted and emitted % BURST == 0:
                            store.save(checkpoint, snapshot.service_time(time.time()), after_events=True)
                            await store.flush()
                        emitted += 1
                        target = Target(task.task_id, version.task_version_id if version else None)
                        self.log.info("%s is %s.", target, (version or task).status_name)
                        yield TriggerEvent(describe_end(snapshot.origin, task, datetime.now(UTC), version))
                if errors:
                    reading.failed(f"{label} cannot read tasks that it must read by id", errors[-1])
                else:
                    reading.ended()
                checkpoint.cover(snapshot, is_first=is_first)
                is_first = False
                store.save(checkpoint, snapshot.service_time(time.time()), after_events=emitted > 0)

    def selects(self, task: ProcessorTask, version: ProcessorTaskVersion | None = None) -> bool:
        """Return whether an end is selected; that of a version has the version's status."""
        return (version or task).status in self.statuses and self._is_watched(task)

    def may_select(self, task: Listed) -> bool:
        """Return whether the end of an active task may be selected; what the task lacks may come later."""
        is_incomplete = (
            (self.template_ids and task.template is None)
            or (self.sources and not task.inputs and task.data_source is None)
            or (self.output_prefixes and task.work_path is None)
            or (self.name_prefix and task.name is None)
        )
        return bool(is_incomplete) or self._is_watched(task)

    def _is_watched(self, task: Listed) -> bool:
        inputs = [*(task.inputs or []), *([task.data_source] if task.data_source else [])]
        written_to = task.work_path.path if task.work_path else None
        return (
            (not self.template_ids or (task.template is not None and task.template.id in self.template_ids))
            and (
                not self.sources
                or any(self._inputs.selects(typed_uri(given.type, given.source), given.source) for given in inputs)
            )
            and (not self.output_prefixes or self._outputs.selects(output_uri(task), written_to))
            and (task.name or "").startswith(self.name_prefix)
        )

    def _selection(self) -> dict[str, Any]:
        """Return the arguments that select ends; neither the order of a list nor the interval changes the selection."""
        arguments = {name: value for name, value in self.serialize()[1].items() if name != "poll_interval"}
        own = ProcessorTaskEventTrigger.serialize(self)[1]  # a subclass may have others
        return {
            name: sorted(value) if name in own and isinstance(value, list) else value
            for name, value in arguments.items()
        }

    def _checkpoint_store(self) -> CheckpointStore:
        owner = getattr(self, "triggerer_job_id", None)  # the triggerer sets it
        return CheckpointStore(
            self._stores(), self._checkpoint_key(), self._scope(), owner, self.log, label=self._label()
        )

    def _chosen(self) -> dict[str, Any]:
        """Return the selection without the defaults: an argument that a later version adds must not change it."""
        usual = ProcessorTaskEventTrigger()._selection()
        return {name: value for name, value in self._selection().items() if name not in usual or value != usual[name]}

    def _checkpoint_key(self) -> str:
        """Return the checkpoint's key in the asset state store: an asset can have several triggers."""
        return f"modelarts_processor_tasks_{_digest(self._chosen())}"

    def _scope(self) -> str:
        """Return what is watched, whatever is selected of it."""
        return _digest([self.modelarts_conn_id, self.project_id, self.workspace_id])

    def _label(self, origin: Origin | None = None) -> str:
        """Return how the log names this watcher."""
        chosen = self._chosen() | {"modelarts_conn_id": self.modelarts_conn_id, "workspace_id": self.workspace_id}
        if project_id := origin.project_id if origin else self.project_id:
            chosen["project_id"] = project_id
        return f"The watcher with {', '.join(f'{name}={value!r}' for name, value in sorted(chosen.items()))}"

    def _stores(self) -> list[Any]:
        """Return the state store of each watched asset: equal watchers of several assets share one trigger."""
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return []
        # A trigger gets the assets' names in no other way, and the accessor as a whole serves one asset only.
        return list(getattr(store, "_by_name", {}).values()) or [store]


def _digest(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
