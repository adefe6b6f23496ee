"""The triggers that Airflow's triggerer runs: for deferred waits in here, for asset watchers in ``event_trigger``.

From the triggerer's poll to the XCom: ``ProcessorTaskTrigger.run`` joins the watcher of its connection
(``polling.watcher``), which polls for all waits and hands each one its events (``polling.wait``). At a terminal status
the trigger yields one event with that status. Airflow then resumes the operator or sensor on a worker
(``execute_complete``), which reads what it needs and returns the XCom. With ``end_from_trigger`` the trigger pushes the
XCom itself, and no worker is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_modelarts.airflow_calls import call_airflow, finish
from airflow_modelarts.api import procedures
from airflow_modelarts.api.arguments import (
    ArgumentError,
    check_optional_text,
    check_text,
    read_flag,
    read_seconds,
    refuse_unknown,
)
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsRequestError
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.api.statuses import ProcessorTaskStatus, outcome, read_ends, status_name
from airflow_modelarts.api.targets import Target
from airflow_modelarts.event_trigger import ProcessorTaskEventTrigger
from airflow_modelarts.hooks import ModelArtsAsyncHook
from airflow_modelarts.polling import submission_queue
from airflow_modelarts.polling.outage import log_outage_began, log_outage_ended
from airflow_modelarts.polling.wait import DEFAULT_WORKSPACE, Changed, Ended, OutageBegan, OutageEnded, Wait, WaitEvent
from airflow_modelarts.polling.watcher import POLL_RETRIES, join
from airflow_modelarts.templating import ID, TemplatedFields

#: Airflow stores the path ``airflow_modelarts.triggers.ProcessorTaskEventTrigger``, so the class stays importable here.
__all__ = ["ProcessorTaskEventTrigger", "ProcessorTaskTrigger"]

#: The XCom key under which a deferring operator stores its try number. A killed trigger compares it with its own.
DEFERRED_TRY_KEY = "modelarts_deferred_try"
#: Attempts to stop a version: at a second between two on average, they last the half minute that Airflow grants.
STOP_ATTEMPTS = 29
#: How often Airflow is asked whether a try is still deferred, and the seconds between two attempts.
ASK_AIRFLOW_ATTEMPTS = 3
ASK_AIRFLOW_DELAY = 2.0


class ProcessorTaskTrigger(TemplatedFields, BaseTrigger):
    """Waits until a processing task has ended. All waits on the same connection and project share one poll.

    The event is ``{"task_id": …, "status": 2}``, or ``{"task_id": …, "error": …}`` if waiting longer makes no sense.
    For a version it has ``task_version_id`` too. The worker decides what a status or an error means. An event never has
    the result, which can be megabytes.

    :param processor_task_id: the processing task's id; empty if ``upstream`` is given.
    :param modelarts_conn_id: the Airflow connection.
    :param project_id: instead of the connection's.
    :param poll_interval: seconds between two polls of the task, at most.
    :param workspace_id: the task's workspace, if it is known.
    :param look_at_once: whether to poll at once, because no worker has done so.
    :param upstream: ``{"task_id": …, "key": …}`` of the XCom that holds the id, if the wait starts in the triggerer.
    :param end_from_trigger: whether the wait may succeed here, without a worker.
    :param push_return_value: whether the trigger then pushes the XCom.
    :param failed_statuses: terminal statuses that a worker handles even then, as numbers or names.
    :param task_version_id: the version to wait for; default None: the task itself.
    :param stop_on_kill: whether the running versions of the task are stopped when a user kills the Airflow task.
    :param stored: what an earlier version of this package stored under another name: 1.0.0 stored ``task_version_id``
        as ``version_id``.
    :raises ArgumentError: an argument is unknown, or its value cannot be right. It is a ``ValueError`` and a
        ``TypeError``.
    """

    #: The fields that may come from templates, if the wait starts in the triggerer.
    usual_shape = ID
    _undefined = ""  # why a template cannot be rendered
    _own_fields = ("processor_task_id", "task_version_id", "modelarts_conn_id", "project_id", "workspace_id")

    def __init__(
        self,
        processor_task_id: str = "",
        modelarts_conn_id: str = "modelarts_default",
        project_id: str | None = None,
        poll_interval: float | timedelta = 60.0,
        workspace_id: str | None = None,
        look_at_once: bool = False,
        upstream: dict[str, str] | None = None,
        end_from_trigger: bool = False,
        push_return_value: bool = True,
        failed_statuses: Iterable[int | str] = (ProcessorTaskStatus.FAILED, ProcessorTaskStatus.STOPPED),
        task_version_id: str | None = None,
        stop_on_kill: bool = False,
        **stored: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own has no annotations
        check_text("processor_task_id", processor_task_id)
        check_text("modelarts_conn_id", modelarts_conn_id)
        check_optional_text("project_id", project_id)
        check_optional_text("workspace_id", workspace_id)
        check_optional_text("task_version_id", task_version_id)
        self.processor_task_id = processor_task_id
        self.modelarts_conn_id = modelarts_conn_id
        self.project_id = project_id
        self.poll_interval = read_seconds("poll_interval", poll_interval)
        self.workspace_id = workspace_id
        self.look_at_once = read_flag("look_at_once", look_at_once)
        if upstream is not None and not _is_xcom(upstream):
            raise ArgumentError(f"upstream is {upstream!r}: give {{'task_id': …, 'key': …}} of an XCom")
        self.upstream = upstream
        self.end_from_trigger = read_flag("end_from_trigger", end_from_trigger)
        self.push_return_value = read_flag("push_return_value", push_return_value)
        self.failed_statuses = list(read_ends("failed_statuses", failed_statuses))
        former = stored.pop("version_id", None)
        self.task_version_id = former if task_version_id is None else task_version_id
        self.stop_on_kill = read_flag("stop_on_kill", stop_on_kill)
        refuse_unknown(type(self).__name__, stored, ProcessorTaskTrigger.serialize(self)[1])

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that Airflow stores: JSON, without secrets."""
        others = ("poll_interval", "look_at_once", "upstream", "end_from_trigger", "push_return_value")
        names = (*self._own_fields, *others, "failed_statuses", "stop_on_kill")
        return "airflow_modelarts.triggers.ProcessorTaskTrigger", {name: getattr(self, name) for name in names}

    def get_template_env(self, dag: Any = None) -> Any:
        """Return Airflow's environment, in which undefined names are errors, as they are on a worker."""
        from jinja2 import StrictUndefined

        environment = super().get_template_env(dag)
        environment.undefined = StrictUndefined
        return environment

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Let Airflow render the fields, if the wait starts here; an undefined name becomes an event for the worker."""
        from jinja2 import UndefinedError

        try:
            super().render_template_fields(context, jinja_env)
        except UndefinedError as error:
            self._undefined = str(error)

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._log = None  # the logger has the name of its class

    @property
    def log(self) -> Any:
        """The logger of the class: with one for each trigger, a wait would take a kilobyte more."""
        return self.logger()

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, log what changes, and yield one event."""
        try:
            event = await self._wait()
        except ModelArtsError as error:
            self.log.warning("%s", error)
            event = TriggerEvent({**self._ids(), "error": str(error)})
        # Nothing may be open here: a caller that needs only the first event does not resume this generator.
        yield event

    async def _wait(self) -> TriggerEvent:
        await self._prepare()
        if self.look_at_once:  # no worker has pushed the link
            await self._link()
        if self.task_version_id is not None:
            submission_queue.note_start(self._key)
        wait = Wait(self._target(), self.poll_interval, workspace_id=self.workspace_id or DEFAULT_WORKSPACE)
        watcher = join(self._key, self._open_api, wait, poll_at_once=self.look_at_once)
        try:
            while not isinstance(event := wait.take_event(), Ended):
                if event is None:
                    await wait.next_event()
                else:
                    self._log_event(event)
        finally:
            await watcher.leave(wait)
        self._log_event(event)
        submission_queue.note_end(self._key, wait.target)
        return await self._event(event.status)

    def _open_api(self) -> ModelArtsAsyncHook:
        return ModelArtsAsyncHook(self.modelarts_conn_id, project_id=self.project_id, retries=POLL_RETRIES)

    async def _prepare(self) -> None:
        """Complete the fields, and refuse empty ones, as the worker will do with the same message."""
        if self._undefined:
            raise ModelArtsRequestError(f"a template cannot be rendered: {self._undefined}")
        if self.upstream is not None:
            self.processor_task_id = await self._read_upstream(self.upstream)
        self._prepare_fields()

    @property
    def _key(self) -> tuple[str, str | None]:
        """What the triggers share that share a watcher and a submission queue."""
        return self.modelarts_conn_id, self.project_id

    def _ids(self) -> dict[str, Any]:
        ids = {"task_id": self.processor_task_id}
        return ids if self.task_version_id is None else {**ids, "task_version_id": self.task_version_id}

    def _target(self) -> Target:
        return Target(self.processor_task_id, self.task_version_id)

    async def _event(self, status: int) -> TriggerEvent:
        for_the_worker = TriggerEvent({**self._ids(), "status": status})
        if not self.end_from_trigger or status in self.failed_statuses:
            return for_the_worker
        if self.task_instance is None:  # for example in dag.test(), which resumes the task after any event
            return for_the_worker
        try:
            if self.push_return_value:
                await self._push("return_value", outcome(self.processor_task_id, status, self.task_version_id))
        except Exception as error:  # whatever an XCom backend raises; the wait itself has succeeded
            self.log.warning("The XCom could not be pushed here, so a worker will: %s", error)
            return for_the_worker
        return TaskSuccessEvent()

    async def _push(self, key: str, value: Any) -> None:
        """Push an XCom as a worker does: those of an event arrive downstream as text (Airflow 3.3)."""
        from airflow.providers.common.compat.sdk import XCom

        instance: Any = self.task_instance
        await call_airflow(
            XCom.set,
            key=key,
            value=value,
            task_id=instance.task_id,
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            map_index=instance.map_index,
        )

    async def _link(self) -> None:
        """Push the link to the console; the wait itself reports what is wrong with the connection."""
        from airflow_modelarts.links import ModelArtsConsoleLink, console_url

        if self.task_instance is None:  # for example in dag.test()
            return
        try:
            async with ModelArtsAsyncHook(self.modelarts_conn_id, project_id=self.project_id) as hook:
                url = console_url(await hook.settings(), self.processor_task_id)
            if url:
                await self._push(ModelArtsConsoleLink().xcom_key, url)
        except Exception as error:  # whatever an XCom backend raises
            self.log.warning("The link to the console cannot be stored: %s", error)

    def _log_event(self, event: WaitEvent) -> None:
        match event:
            case Changed(status) | Ended(status):
                self.log.info("%s is %s.", self._target(), status_name(status))
            case OutageBegan(error):
                log_outage_began(self.log, error)
            case OutageEnded():
                log_outage_ended(self.log)

    async def _read_upstream(self, upstream: dict[str, str]) -> Any:
        """Read the id that an upstream task pushed: Airflow resolves no XComArg for a trigger."""
        instance: Any = self.task_instance
        # A task in the same mapped task group, then one outside of it.
        for map_index in dict.fromkeys((instance.map_index, -1)):
            value = await self._xcom(upstream["task_id"], upstream["key"], map_index)
            if value is not None:
                return value  # anything but an id is refused when the wait starts
        return None

    async def _xcom(self, task_id: str, key: str, map_index: int) -> Any:
        from airflow.providers.common.compat.sdk import XCom

        instance: Any = self.task_instance
        return await call_airflow(
            XCom.get_one, key=key, task_id=task_id, dag_id=instance.dag_id, run_id=instance.run_id, map_index=map_index
        )

    async def on_kill(self) -> None:
        """Stop the running versions of a task that the operator created (StopProcessorTaskVersion)."""
        if not self.stop_on_kill:
            return
        # Airflow cancels a trigger every second until it has ended, and with it whatever on_kill awaits.
        await finish(self._stop_versions())

    async def _stop_versions(self) -> None:
        target = self._target()
        if reason := await self._why_not_stop():
            self.log.warning("%s is not stopped: %s.", target, reason)
            return
        # A version in initialization cannot be stopped yet.
        retries = RetryPolicy(attempts=STOP_ATTEMPTS, max_delay=2.0, max_retry_after=2.0)
        try:
            async with ModelArtsAsyncHook(self.modelarts_conn_id, project_id=self.project_id) as hook:
                report = await hook.run(procedures.stop(target, retries))
        except ModelArtsError as error:
            self.log.warning("%s", error)
        else:
            report.log(self.log)

    async def _why_not_stop(self) -> str:
        """Say why nothing may be stopped; empty if the user has killed this try.

        A try that is still deferred was not killed: another triggerer has taken it over. If Airflow does not answer,
        nothing is stopped either, since stopping what another triggerer waits for is worse.
        """
        if self.task_instance is None:
            return ""
        for attempt in range(1, ASK_AIRFLOW_ATTEMPTS + 1):
            try:
                is_deferred = await self._is_still_deferred()
                return "another triggerer waits for it" if is_deferred else ""
            except Exception as error:  # whatever Airflow's channel raises
                if _is_refused_by_airflow(error):  # Airflow 3.4 answers so when the try is over
                    return ""
                if attempt == ASK_AIRFLOW_ATTEMPTS:
                    return f"Airflow does not tell whether another triggerer waits for it ({error})"
            await asyncio.sleep(ASK_AIRFLOW_DELAY)
        raise AssertionError("the last attempt returns")

    async def _is_still_deferred(self) -> bool:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        instance: Any = self.task_instance
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


def _is_xcom(upstream: object) -> bool:
    return isinstance(upstream, dict) and {"task_id", "key"} <= upstream.keys()


def _is_refused_by_airflow(error: Exception) -> bool:
    """Return whether Airflow's API answered with HTTP 4xx, such as 403 "Task instance is not a live attempt"."""
    detail = getattr(getattr(error, "error", None), "detail", None)
    status = detail.get("status_code") if isinstance(detail, dict) else None
    return isinstance(status, int) and 400 <= status < 500
