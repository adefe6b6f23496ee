"""The triggers: what a deferred wait is while no worker has it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_modelarts.airflow_calls import call_airflow
from airflow_modelarts.api import procedures
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsRequestError
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus, outcome, read_ends, status_name
from airflow_modelarts.api.targets import Target
from airflow_modelarts.assets import obs_uri, typed_uri
from airflow_modelarts.hooks import ModelArtsAsyncHook
from airflow_modelarts.polling.snapshots import Checkpoint, Snapshot, poll_snapshots
from airflow_modelarts.polling.watcher import (
    DEFAULT_WORKSPACE,
    Changed,
    Ended,
    OutageBegan,
    OutageEnded,
    WaitEvent,
    watch,
)
from airflow_modelarts.templating import ID, TemplatedFields

if TYPE_CHECKING or AIRFLOW_V_3_0_PLUS:
    from airflow.triggers.base import BaseEventTrigger
else:  # Airflow 2 has no asset watchers
    BaseEventTrigger = BaseTrigger

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorTask

#: The XCom in which an operator that defers says in which try it does: a killed trigger knows by it whether it was.
DEFERRED_TRY_KEY = "modelarts_deferred_try"
#: Attempts to stop a version: at a second between two on average, they last the half minute that Airflow grants.
STOP_ATTEMPTS = 29
#: Seconds after which an event has left the triggerer for sure: it sends them about once a second.
SENT_AFTER = 5.0
#: Of a wait or a poll, which is its own retry, except where the service answers others and throttles for a moment.
POLL_RETRIES = RetryPolicy(attempts=1, throttled_attempts=10)
#: Stops in progress. asyncio holds no strong reference to a task, so it could be garbage collected.
_STOPPING: set[asyncio.Task[None]] = set()


class ProcessorTaskTrigger(TemplatedFields, BaseTrigger):
    """
    Waits until a processing task has ended, together with all other waits on the same connection and project.

    Its event is ``{"task_id": …, "status": 2}``, or ``{"task_id": …, "error": …}`` when waiting longer makes no sense;
    what that means is for the worker to say. For a version it has ``task_version_id`` too. It never carries the result,
    which can be megabytes.

    :param processor_task_id: the processing task's id; empty when ``upstream`` tells it.
    :param modelarts_conn_id: the Airflow connection.
    :param project_id: instead of the connection's.
    :param poll_interval: seconds between two looks at the task, at most.
    :param workspace_id: the task's workspace, if it is known.
    :param look_at_once: whether no worker has looked at the task before.
    :param upstream: ``{"task_id": …, "key": …}`` of the XCom that holds the id, where the wait starts in the triggerer.
    :param end_from_trigger: whether the wait may succeed here, without a worker.
    :param push_return_value: whether it pushes the XCom when it does so.
    :param failed_statuses: ends that are for the worker to judge even then, as numbers or names.
    :param task_version_id: the version to wait for; default None: the task itself.
    :param stop_on_kill: whether the running versions of the task are stopped when a user kills the Airflow task.
    :param forgotten: what another version of this package stored; a row that cannot be read would be lost silently.
        Rows of version 1.0.0 have the version as ``version_id``.
    :raises ValueError: ``failed_statuses`` has one that is no end.
    """

    #: The fields that templates may have made, where the wait starts in the triggerer.
    usual_shape = ID
    _own_fields = (
        "processor_task_id",
        "task_version_id",
        "modelarts_conn_id",
        "project_id",
        "workspace_id",
    )

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
        push_return_value: bool = True,
        failed_statuses: Iterable[int | str] = (ProcessorTaskStatus.FAILED, ProcessorTaskStatus.STOPPED),
        task_version_id: str | None = None,
        stop_on_kill: bool = False,
        **_ignored: Any,
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
        self.push_return_value = push_return_value
        self.failed_statuses = list(read_ends("failed_statuses", failed_statuses))
        self.task_version_id = _ignored.get("version_id") if task_version_id is None else task_version_id
        self.stop_on_kill = stop_on_kill
        self._undefined = ""

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
                "push_return_value": self.push_return_value,
                "failed_statuses": self.failed_statuses,
                "task_version_id": self.task_version_id,
                "stop_on_kill": self.stop_on_kill,
            },
        )

    def get_template_env(self, dag: Any = None) -> Any:
        """Return Airflow's environment, but with what is undefined as an error: it is one on a worker."""
        from jinja2 import StrictUndefined

        environment = super().get_template_env(dag)
        environment.undefined = StrictUndefined
        return environment

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Let Airflow render the fields, where the wait starts here; what is undefined is for the worker to say."""
        from jinja2 import UndefinedError

        try:
            super().render_template_fields(context, jinja_env)
        except UndefinedError as error:
            self._undefined = str(error)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, log what changes, and yield one event."""
        try:
            event = await self._wait()
        except ModelArtsError as error:
            self.log.warning("%s", error)
            event = TriggerEvent({**self._ids(), "error": str(error)})
        # Nothing may be left open here: whoever runs a trigger for its first event alone never comes back.
        yield event

    async def _wait(self) -> TriggerEvent:
        await self._prepare()
        async with aclosing(self._watch()) as event_stream:
            async for latest in event_stream:
                self._log_event(latest)
                if isinstance(latest, Ended):
                    return await self._event(latest.status)
        raise AssertionError("the news end with an end or an error")

    async def _prepare(self) -> None:
        """Complete the fields, and refuse those that rendered to nothing; the worker will say so too."""
        if self._undefined:
            raise ModelArtsRequestError(f"a template cannot be rendered: {self._undefined}")
        if self.upstream is not None:
            self.processor_task_id = await self._read_upstream(self.upstream)
        self._prepare_fields()

    def _ids(self) -> dict[str, str]:
        ids = {"task_id": self.processor_task_id}
        return ids if self.task_version_id is None else {**ids, "task_version_id": self.task_version_id}

    def _watch(self) -> Any:
        return watch(
            (self.modelarts_conn_id, self.project_id),
            lambda: ModelArtsAsyncHook(self.modelarts_conn_id, project_id=self.project_id, retries=POLL_RETRIES),
            processor_task_id=self.processor_task_id,
            version_id=self.task_version_id,
            interval=self.poll_interval,
            workspace_id=self.workspace_id,
            look_at_once=self.look_at_once,
        )

    async def _event(self, status: int) -> TriggerEvent:
        for_the_worker = TriggerEvent({**self._ids(), "status": status})
        if not self.end_from_trigger or status in self.failed_statuses:
            return for_the_worker
        if self.task_instance is None:  # dag.test() and its like, which resume the task whatever the event
            return for_the_worker
        try:
            if self.push_return_value:
                await self._push(outcome(self.processor_task_id, status, self.task_version_id))
        except Exception as error:  # whatever an XCom backend raises; the wait itself has succeeded
            self.log.warning("The XCom could not be pushed here, so a worker will: %s", error)
            return for_the_worker
        return TaskSuccessEvent()

    async def _push(self, value: dict[str, Any]) -> None:
        """Push the XCom as a worker does: those of an event arrive downstream as text (Airflow 3.3)."""
        from airflow.providers.common.compat.sdk import XCom

        instance: Any = self.task_instance
        await call_airflow(
            XCom.set,
            key="return_value",
            value=value,
            task_id=instance.task_id,
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            map_index=instance.map_index,
        )

    def _log_event(self, event_stream: WaitEvent) -> None:
        match event_stream:
            case Changed(status) | Ended(status):
                self.log.info("%s is %s.", self._what(), status_name(status))
            case OutageBegan(error):
                self.log.warning("%s The wait goes on.", error)
            case OutageEnded():
                self.log.info("ModelArts answers again.")

    async def _read_upstream(self, upstream: dict[str, str]) -> Any:
        """Read the id that an earlier task pushed: a trigger gets no resolved XComArg."""
        instance: Any = self.task_instance
        value = None
        map_indexes = [instance.map_index] if instance.map_index < 0 else [instance.map_index, -1]
        for map_index in map_indexes:  # of a task in the same mapped group, or of one outside of it
            value = await self._xcom(upstream["task_id"], upstream["key"], map_index)
            if value is not None:
                break
        return value  # if it is no id, describing it says so

    async def _xcom(self, task_id: str, key: str, map_index: int) -> Any:
        from airflow.providers.common.compat.sdk import XCom

        instance: Any = self.task_instance
        return await call_airflow(
            XCom.get_one,
            key=key,
            task_id=task_id,
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            map_index=map_index,
        )

    def _what(self) -> str:
        task = f"rocessing task '{self.processor_task_id}'"
        return f"P{task}" if self.task_version_id is None else f"Version '{self.task_version_id}' of p{task}"

    async def on_kill(self) -> None:
        """Stop the running versions of a task that the operator created (StopProcessorTaskVersion)."""
        if not self.stop_on_kill:
            return
        # Airflow cancels a trigger every second until it has ended, and with it whatever on_kill awaits.
        stopping = asyncio.create_task(self._stop_versions())
        _STOPPING.add(stopping)
        stopping.add_done_callback(_STOPPING.discard)
        await asyncio.shield(stopping)

    async def _stop_versions(self) -> None:
        if await self._is_left_to_another_triggerer():
            self.log.info("%s is not stopped: another triggerer waits for it.", self._what())
            return
        # A version in initialization cannot be stopped yet.
        retries = RetryPolicy(attempts=STOP_ATTEMPTS, max_delay=2.0, max_retry_after=2.0)
        target = Target(self.processor_task_id, self.task_version_id)
        try:
            async with ModelArtsAsyncHook(self.modelarts_conn_id, project_id=self.project_id) as hook:
                report = await hook.run(procedures.stop(target, retries))
        except ModelArtsError as error:
            self.log.warning("%s", error)
        else:
            report.log(self.log)

    async def _is_left_to_another_triggerer(self) -> bool:
        """Whether to stop nothing. If Airflow cannot be asked, the versions are stopped, since nothing else would."""
        try:
            return await self._is_still_deferred()
        except Exception as error:  # whatever Airflow raises there: the user has killed the task
            self.log.warning("Could not ask Airflow whether this try still waits (%s): stopping its versions.", error)
            return False

    async def _is_still_deferred(self) -> bool:
        """Whether this try is still deferred: a triggerer that was taken for dead kills triggers that have moved on."""
        instance: Any = self.task_instance
        if instance is None:
            return False
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        states = await call_airflow(
            RuntimeTaskInstance.get_task_states,
            dag_id=instance.dag_id,
            task_ids=[instance.task_id],
            run_ids=[instance.run_id],
            map_index=instance.map_index,
        )
        if "deferred" not in states.get(instance.run_id, {}).values():
            return False
        # The next try of a task that was cleared may be deferred already.
        deferred_try = await self._xcom(instance.task_id, DEFERRED_TRY_KEY, instance.map_index)
        return bool(deferred_try == instance.try_number)


class ProcessorTaskEventTrigger(BaseEventTrigger):
    """
    Fires whenever a processing task of a project ends, for an ``AssetWatcher`` (Airflow 3).

    All watchers on the same connection, project, workspace and interval share one poll where Airflow can do that (3.3).
    What was told is kept in the asset state store where Airflow has one (3.3), so that a triggerer may be restarted: it
    reaches back a day for tasks created meanwhile, and without a limit for those that were active. Without a store, the
    ends that happen while no triggerer runs are not told.

    The event is the task under the API's field names, plus ``status_name``, without its result.

    :param modelarts_conn_id: the Airflow connection, default ``modelarts_default``.
    :param project_id: instead of the connection's.
    :param workspace_id: whose tasks are watched, default "0".
    :param template_ids: only tasks of these templates, for example ``["sys_data_analyse"]``; default all.
    :param sources: only tasks with one of these as an input, for example dataset ids, or places in OBS, however they
        are written; default all.
    :param name_prefix: only tasks whose name begins so.
    :param statuses: only these ends, as numbers or names; default completed (2), failed (3) and stopped (4).
    :param poll_interval: seconds between two looks, default 60.
    :param forgotten: what another version of this package stored.
    :raises ValueError: ``statuses`` has one that is no end.
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
        poll_interval: float = 60.0,
        **_ignored: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own has no annotations
        self.modelarts_conn_id = modelarts_conn_id
        self.project_id = project_id
        self.workspace_id = workspace_id
        self.template_ids = list(template_ids)
        self.sources = list(sources)
        self.name_prefix = name_prefix
        self.statuses = list(read_ends("statuses", statuses))
        self.poll_interval = float(poll_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger again: no secret, and nothing but JSON."""
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
            },
        )

    def shared_stream_key(self) -> Hashable:
        """Return what triggers must have in common to share a poll."""
        return ("modelarts", self.modelarts_conn_id, self.project_id, self.workspace_id, self.poll_interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Snapshot]:
        """Poll for all the triggers that share a stream."""
        async with aclosing(cls(**kwargs)._snapshots()) as stream:
            async for snapshot in stream:
                yield snapshot

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Snapshot]) -> AsyncIterator[TriggerEvent]:
        """Pick out the ends that this trigger is for."""
        async with aclosing(self._events(shared_stream)) as events:
            async for event in events:
                yield event

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll for this trigger alone, where Airflow cannot share."""
        async with aclosing(self._snapshots()) as stream, aclosing(self._events(stream)) as events:
            async for event in events:
                yield event

    def _hook(self) -> ModelArtsAsyncHook:
        return ModelArtsAsyncHook(self.modelarts_conn_id, project_id=self.project_id, retries=POLL_RETRIES)

    async def _snapshots(self) -> AsyncGenerator[Snapshot, None]:
        async with (
            self._hook() as hook,
            aclosing(poll_snapshots(hook, self.poll_interval, self.workspace_id)) as stream,
        ):
            async for snapshot in stream:
                yield snapshot

    async def _events(self, stream: AsyncIterator[Snapshot]) -> AsyncGenerator[TriggerEvent, None]:
        checkpoint = await self._load() or Checkpoint(watermark=int(time.time() * 1000))
        is_first = True
        async with self._hook() as hook, self._keeping() as keep:
            async for seen in stream:
                snapshot = await checkpoint.backfill(hook, seen, self.workspace_id) if is_first else seen
                if snapshot is None:
                    continue  # the next one will do
                is_first = False
                ended, lost = checkpoint.diff(snapshot)
                keep_at = 0.0
                for task in filter(self._is_wanted, [*ended, *await checkpoint.describe_missing(hook, lost)]):
                    self.log.info("Processing task '%s' is %s.", task.task_id, task.status_name)
                    yield TriggerEvent(task.to_json())
                    # A crash in between tells an end twice rather than not at all.
                    keep_at = asyncio.get_running_loop().time() + SENT_AFTER
                keep((keep_at, checkpoint.store()))

    def _is_wanted(self, task: ProcessorTask) -> bool:
        inputs = [*(task.inputs or []), *([task.data_source] if task.data_source else [])]
        # A place in OBS can be written in several ways.
        wanted = {obs_uri(source) or source for source in self.sources}
        return (
            task.status in self.statuses
            and (not self.template_ids or (task.template is not None and task.template.id in self.template_ids))
            and (not wanted or any((typed_uri(given.type, given.source) or given.source) in wanted for given in inputs))
            and (task.name or "").startswith(self.name_prefix)
        )

    def _selection(self) -> dict[str, Any]:
        """Return what decides which ends are told: the order of a list does not, nor does how often it looks."""
        arguments = {name: value for name, value in self.serialize()[1].items() if name != "poll_interval"}
        return {name: sorted(value) if isinstance(value, list) else value for name, value in arguments.items()}

    def _checkpoint_key(self) -> str:
        """Under which name the asset state store keeps what this trigger knows: an asset can have several."""
        # Without the defaults, so that an argument more in a later version changes no key.
        usual = ProcessorTaskEventTrigger()._selection()
        chosen = {name: value for name, value in self._selection().items() if value != usual[name]}
        settings = json.dumps(chosen, sort_keys=True)
        return f"modelarts_processor_tasks_{hashlib.sha256(settings.encode()).hexdigest()[:16]}"

    def _stores(self) -> list[Any]:
        """Return the store of each asset that is watched: those whose watchers are equal have one trigger in common."""
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return []
        # Airflow tells a trigger the assets' names in no other way, and the whole serves one asset alone.
        return list(getattr(store, "_by_name", {}).values()) or [store]

    async def _load(self) -> Checkpoint | None:
        stored = [Checkpoint.restore(await store.aget(self._checkpoint_key())) for store in self._stores()]
        # An asset may have joined after the others, or have been away.
        return max(filter(None, stored), key=lambda checkpoint: checkpoint.watermark, default=None)

    @asynccontextmanager
    async def _keeping(self) -> AsyncGenerator[Callable[[tuple[float, dict[str, Any]]], None], None]:
        """Store what is known beside the work, so that no picture waits for it; takes when, by the loop's clock."""
        checkpoints: asyncio.Queue[tuple[float, dict[str, Any]]] = asyncio.Queue()
        keeper = asyncio.create_task(self._keep(checkpoints))
        try:
            yield checkpoints.put_nowait
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self, checkpoints: asyncio.Queue[tuple[float, dict[str, Any]]]) -> None:
        while True:
            keep_at, known = await checkpoints.get()
            while not checkpoints.empty():  # the last one says it all
                later, known = checkpoints.get_nowait()
                keep_at = max(keep_at, later)
            await asyncio.sleep(keep_at - asyncio.get_running_loop().time())
            try:
                for store in self._stores():
                    await store.aset(self._checkpoint_key(), known)
            except Exception as error:  # whatever the store raises; each picture is another try
                self.log.warning("What was told could not be noted, so a restart would tell it again: %s", error)
