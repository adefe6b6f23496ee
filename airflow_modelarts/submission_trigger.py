"""The trigger that submits: it waits for its turn in the submission queue of its connection, then for the end."""

from __future__ import annotations

import json
import time
import zlib
from base64 import b64decode, b64encode
from contextlib import suppress
from functools import cached_property
from sys import intern
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_modelarts.api import operations, procedures
from airflow_modelarts.api.arguments import ArgumentError, check_text, read_flag
from airflow_modelarts.api.capacity import ONE_ATTEMPT, dump_refusal, load_refusal
from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.http import Flow
from airflow_modelarts.api.models import CreatedTask
from airflow_modelarts.api.operations import Operation
from airflow_modelarts.hooks import ModelArtsAsyncHook
from airflow_modelarts.polling import submission_queue
from airflow_modelarts.polling.submission_queue import (
    Checking,
    DeadlineError,
    SubmissionQueue,
    Submitted,
    Ticket,
    Waiting,
)
from airflow_modelarts.triggers import ProcessorTaskTrigger

#: The XCom key of the id, which a restarted trigger reads.
ID_KEY = "processor_task_id"
QUEUED_KEY = "queued_seconds"
#: Seconds after which a trigger that starts may be a restarted one, whose predecessor may have submitted.
RESTART_AFTER = 10.0
#: Characters of JSON; a longer body is compressed, since Airflow's encryption makes a row larger by a third.
MAX_PLAIN_BODY = 8 * 1024
#: What many requests have in common: with it a packed request is half as large.
_USUAL_BODY = (
    b'{"inputs": [{"type": "DATASET", "source": "", "version_id": ""}], "work_path": {"type": "DATASET", "path": "", '
    b'"version_name": "V0001"}, "description": "", "create_version": true, "workspace_id": "0", "template": '
    b'{"id": "sys_data_", "operator_params": [{"name": "", "advanced_params_switch": false, "params": '
    b'{"task_type": "image_classification", "dataset_type": "manifest", "'
)
#: The arguments that are stored as they are.
_OWN = (
    *("name", "priority_weight", "queued_since", "refusal", "refusals", "is_ours", "deadline"),
    *("wait_for_completion", "push_ids"),
)


class ProcessorTaskSubmissionTrigger(ProcessorTaskTrigger):
    """Creates a processing task when the service has room for it, then waits for its end.

    The event is ``{"task_id": …, "name": …, "status": 2, "queued_seconds": 3.5}``; without ``status`` if the wait for
    the end is not wanted. It is ``{"name": …, "error": …, "error_class": …, "outcome_unknown": …}`` if the submission
    was refused for good, and ``{"turn": …}`` with the time when the wait began if a worker submits, and ``refusals`` if
    earlier turns were refused.

    An earlier triggerer may have submitted the same and stopped before it noted that. So the first refusal is followed
    by a lookup of the name, and a task that has the name is adopted.

    :param name: the unique name of the processing task; empty without a body.
    :param body: the fields of the request beside the name, as a dict or its JSON; None if a worker submits.
    :param priority_weight: entries with a higher one are submitted first.
    :param queued_since: when the wait for capacity began, in seconds since the epoch.
    :param refusal: why the service refused what a worker submitted in its turn, by ``dump_refusal``; None if it has
        not.
    :param refusals: how often that was for a reason of this entry alone, such as a busy dataset.
    :param is_ours: whether nobody else can create a task of this name. Otherwise a task that has it is adopted only if
        an earlier triggerer may have submitted it, and if its request is the same.
    :param deadline: when ``execution_timeout`` is over, in seconds since the epoch; None for no limit. After it the
        event is ``{"name": …, "timed_out": True}``, with ``task_id`` if a request that was under way has submitted.
    :param wait_for_completion: whether to wait for the end, too.
    :param push_ids: whether ``processor_task_id`` and ``queued_seconds`` are pushed as XComs.
    :param arguments: those of :class:`~airflow_modelarts.triggers.ProcessorTaskTrigger`.
    :raises ArgumentError: an argument is unknown, or its value cannot be right.
    """

    # With more than 30 fields in the dicts of its objects, a class takes 1.5 KB more for each.
    __slots__ = (*_OWN, "_is_restarted", "_packed", "_queued_seconds", "_ticket")

    def __init__(
        self,
        name: str = "",
        body: dict[str, Any] | str | None = None,
        priority_weight: int = 1,
        queued_since: float = 0.0,
        refusal: dict[str, Any] | None = None,
        refusals: int = 0,
        is_ours: bool = True,
        deadline: float | None = None,
        wait_for_completion: bool = True,
        push_ids: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        check_text("name", name)
        self.name = name
        text = read_body(body)
        self._packed = None if text is None else _pack(text)
        self.priority_weight = int(priority_weight)
        self.queued_since = float(queued_since)
        self.refusal = refusal
        self.refusals = refusals
        self.deadline = deadline
        self.is_ours = read_flag("is_ours", is_ours)
        self.wait_for_completion = read_flag("wait_for_completion", wait_for_completion)
        self.push_ids = read_flag("push_ids", push_ids)
        self._is_restarted = False
        self._queued_seconds: float | None = None
        self._ticket: Ticket | None = None

    @property
    def body(self) -> dict[str, Any] | None:
        """The fields of the request beside the name; None if a worker submits."""
        return None if self._packed is None else json.loads(_unpack(self._packed))

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that Airflow stores: JSON, without secrets."""
        body = None if self._packed is None else store_body(_unpack(self._packed))
        own = {**{name: getattr(self, name) for name in _OWN}, "body": body}
        return "airflow_modelarts.submission_trigger.ProcessorTaskSubmissionTrigger", {**super().serialize()[1], **own}

    async def _wait(self) -> TriggerEvent:
        # The fields are those that a worker has rendered and checked.
        self._is_restarted = time.time() - self.queued_since > RESTART_AFTER
        if self._is_restarted and self._packed is not None and await self._recall_id():
            return await self._follow()
        ticket = self._ticket = self._make_ticket()
        queue = self._join(ticket)
        try:
            try:
                while not isinstance(event := ticket.take_event(), Submitted):
                    if event is None:
                        await ticket.next_event()
                    else:
                        self._log_queued(event)
            except DeadlineError:
                return await self._time_out(ticket)
            except ModelArtsError as error:
                self.log.warning("%s", error)
                return TriggerEvent({"name": self.name, **dump_refusal(error)})
            self._note_submitted(event)
            if event.external_id is None:
                return self._turn(ticket)
            await self._announce(queue.api)
            return await self._follow()
        finally:
            await queue.leave(ticket)

    def _make_ticket(self) -> Ticket:
        if (body := self.body) is None:
            return Ticket(self.priority_weight, self.queued_since, refusals=self.refusals)
        template = intern(str((body.get("template") or {}).get("id") or ""))  # one text for all that have the template
        return Ticket(self.priority_weight, self.queued_since, template, self, self.refusals)

    def _join(self, ticket: Ticket) -> SubmissionQueue:
        return submission_queue.join(
            self._key,
            lambda: ModelArtsAsyncHook(self.modelarts_conn_id, project_id=self.project_id),
            ticket,
            poll_interval=self.poll_interval,
            timeout=None if self.deadline is None else self.deadline - time.time(),
            refusal=load_refusal(self.refusal) if self.refusal else None,
        )

    def _turn(self, ticket: Ticket) -> TriggerEvent:
        refusals = {"refusals": ticket.refusals} if ticket.refusals else {}
        return TriggerEvent({"turn": self.queued_since, **refusals})

    async def _time_out(self, ticket: Ticket) -> TriggerEvent:
        """Return the event for a worker, when the outcome of a request that is under way is known."""
        ticket.has_left = True
        if ticket.under_way is not None:
            await ticket.under_way
        submitted = {"task_id": ticket.external_id} if ticket.external_id else {}
        return TriggerEvent({"name": self.name, "timed_out": True, **submitted})

    async def _follow(self) -> TriggerEvent:
        return await super()._wait() if self.wait_for_completion else TriggerEvent(self._ids())

    def _ids(self) -> dict[str, Any]:
        queued = {} if self._queued_seconds is None else {QUEUED_KEY: self._queued_seconds}
        return {**super()._ids(), "name": self.name, **queued}

    # The submission

    @cached_property
    def _submission(self) -> procedures.Submission:
        """What the attempts share; an entry that has made none does without."""
        return procedures.Submission(
            may_exist=self.is_ours or self._is_restarted,
            is_ours=self.is_ours,
            is_first=not self._is_restarted,
            waits=True,
            retries=ONE_ATTEMPT,
            is_killed=lambda: self._ticket is not None and self._ticket.has_left,
            on_lookup=self._on_lookup,
        )

    def attempt(self) -> Flow[str]:
        """Return the procedure that submits once; the queue runs it."""
        return procedures.create_task(self._operation(), self.name, self.workspace_id, self._submission)

    def _operation(self) -> Operation[CreatedTask]:
        return operations.create_processor_task(name=self.name, **(self.body or {}))

    def _on_lookup(self, error: ModelArtsError) -> None:
        if self._ticket is not None and error.outcome_unknown:
            self._ticket.emit(Checking(error))

    def _log_queued(self, event: Waiting | Checking) -> None:
        """Log in the Airflow task's own log: the queue works for many."""
        match event:
            case Waiting(reason, position, total):
                self.log.info("waiting for capacity: %s; position %s of %s", reason, position, total)
            case Checking(error):
                self.log.warning("%s Checking whether it was created anyway.", error)

    def _note_submitted(self, event: Submitted) -> None:
        self._queued_seconds = round(max(time.time() - self.queued_since, 0.0), 3)
        self.processor_task_id = event.external_id or ""
        if event.has_waited:
            what = "submitted" if event.external_id else "a worker submits now"
            self.log.info("waited %.1f s for capacity; %s", self._queued_seconds, what)
        if event.external_id:
            self.log.info("Processing task '%s' is named '%s'.", event.external_id, self.name)

    async def _announce(self, api: Any) -> None:
        """Push the id, so that it is known while the task runs; the worker that resumes pushes it too."""
        from airflow_modelarts.links import ModelArtsConsoleLink, console_url

        if self.task_instance is None:  # for example in dag.test()
            return
        try:
            if self.push_ids:
                await self._push(ID_KEY, self.processor_task_id)
                await self._push(QUEUED_KEY, self._queued_seconds)
            if url := console_url(await api.settings(), self.processor_task_id):
                await self._push(ModelArtsConsoleLink().xcom_key, url)
        except Exception as error:  # whatever an XCom backend raises
            self.log.warning("The id could not be pushed here, so a worker will: %s", error)

    async def _recall_id(self) -> bool:
        """Return whether this trigger has submitted before it was restarted; the id is in the XCom that it pushed."""
        if self.task_instance is None or not self.push_ids:
            return False
        instance: Any = self.task_instance
        try:
            recalled = await self._xcom(instance.task_id, ID_KEY, instance.map_index)
        except Exception as error:  # whatever an XCom backend raises; the name finds the task, too
            self.log.warning("The id that was pushed before cannot be read: %s", error)
            return False
        self.processor_task_id = recalled or ""
        return bool(recalled)

    # A user kills the Airflow task

    async def _stop_versions(self) -> None:
        """Stop what was submitted; a request that was under way has an outcome by then."""
        if self._ticket is not None and not self.processor_task_id:
            if self._ticket.under_way is not None:
                await self._ticket.under_way
            self.processor_task_id = self._ticket.external_id or await self._find_submitted(self._ticket)
            if not self.processor_task_id:
                self.log.info("'%s' was not submitted: the Airflow task was killed while it waited.", self.name)
        if self.processor_task_id:
            await super()._stop_versions()

    async def _find_submitted(self, ticket: Ticket) -> str:
        """Look the name up, unless it is certain that nothing was submitted."""
        is_possible = self._submission.may_exist and (ticket.under_way is not None or self._is_restarted)
        if self._packed is None or not is_possible:
            return ""
        try:
            async with ModelArtsAsyncHook(self.modelarts_conn_id, project_id=self.project_id) as hook:
                body = None if self.is_ours else self._operation().body
                found = await hook.run(procedures.find_task(self.name, self.workspace_id, body=body))
        except ModelArtsError as error:
            self.log.warning("%s", error)
            return ""
        return found.task_id if found else ""


def read_body(body: object) -> str | None:
    """Return a request's fields as JSON.

    :param body: a dict, its JSON, what :func:`store_body` returned, or None.
    :raises ArgumentError: it is anything else.
    """
    fields = body
    if isinstance(body, str):
        with suppress(ValueError, zlib.error):
            fields = json.loads(body if body.startswith("{") else zlib.decompress(b64decode(body)))
    if fields is not None and not isinstance(fields, dict):
        raise ArgumentError(f"body is {body!r}: give the fields of the request as a dict or its JSON, or None")
    return None if fields is None else json.dumps(fields)


def store_body(text: str) -> str:
    """Return the JSON of a request as the trigger's row stores it: compressed if it is large."""
    return text if len(text) <= MAX_PLAIN_BODY else b64encode(zlib.compress(text.encode())).decode()


def _pack(text: str) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS, zdict=_USUAL_BODY)
    return packing.compress(text.encode()) + packing.flush()


def _unpack(packed: bytes) -> str:
    return zlib.decompressobj(-zlib.MAX_WBITS, zdict=_USUAL_BODY).decompress(packed).decode()
