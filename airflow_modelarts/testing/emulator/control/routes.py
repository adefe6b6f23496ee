"""The control API under ``/emulator``: what a test in another process, or a person, turns about the service."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from airflow_modelarts.testing.emulator.control.fault_specs import FaultSeen, FaultSpec, fault_seen
from airflow_modelarts.testing.emulator.control.faults import Fault, Hold
from airflow_modelarts.testing.emulator.http.gateway import KeyRefusal, TokenRefusal
from airflow_modelarts.testing.emulator.http.responses import NotFoundShape, to_json
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.accounts import KeyPair, User
from airflow_modelarts.testing.emulator.service.state import EmulatorState
from airflow_modelarts.testing.emulator.service.tasks import HasMoreMeaning, ResultForm, Task, TaskRule
from airflow_modelarts.testing.emulator.service.validation import DEEPEST_JSON, check_depth

#: Seconds; longer than any test, and short enough for dates to stay dates.
LONGEST = 10.0 * 365 * 24 * 3600
Seconds = Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
AnyStatus = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
_REFUSALS: dict[int | str, str] = {400: "the order does not fit", 404: "there is no such thing"}
Name = Annotated[str, Field(min_length=1, max_length=1024)]


class _AsciiJson(JSONResponse):
    """JSON that can hold anything that a request held; FastAPI's own cannot hold half a character."""

    def render(self, content: Any) -> bytes:
        """Encode the answer."""
        return to_json(content)


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Advance(_Order):
    """Turn the tasks' clock."""

    seconds: Seconds


class SettingsChange(_Order):
    """What is given changes; see ``service.state.Settings`` for what each one means."""

    task_duration: Seconds | None = None
    sample_count: Count | None = None
    result_form: ResultForm | None = None
    not_found: NotFoundShape | None = None
    has_more: HasMoreMeaning | None = None
    refused_token: TokenRefusal | None = None
    refused_key: KeyRefusal | None = None
    token_lifetime: Seconds | None = None
    running_limit: Count | None = None
    unfinished_limit: Count | None = None
    task_quota: Count | None = None
    clock_offset: Annotated[float, Field(ge=-LONGEST, le=LONGEST, allow_inf_nan=False)] | None = None


class Failure(_Order):
    """How a task fails."""

    error_msg: str | None = None


class TaskChange(_Order):
    """
    What is given changes.

    ``error_msg`` only with ``status``; ``result`` and ``result_form`` both as soon as one is given. A ``status``
    outside 0 to 4 is shown as it is.
    """

    status: AnyStatus | None = None
    error_msg: str | None = None
    duration: Seconds | None = None
    result: Any = None
    result_form: ResultForm | None = None
    sample_count: Count | None = None


class NewTasks(_Order):
    """Tasks put there as if somebody had created them in the console."""

    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    name: Name | None = None
    template: Name = "sys_data_analyse"
    project_id: str = accounts.PROJECT_ID
    status: AnyStatus | None = None
    duration: Seconds | None = None
    error_msg: str | None = None


class Rule(_Order):
    """What becomes of runs created later; see :class:`~airflow_modelarts.testing.emulator.service.tasks.TaskRule`."""

    name: str = "*"
    times: Count | None = 1
    duration: Seconds | None = None
    status: Literal[2, 3, 4] = 2
    error_msg: str | None = None
    result: Any = None
    result_form: ResultForm | None = None
    sample_count: Count | None = None


class NewKey(_Order):
    """An access key pair; with a security token it is a temporary one."""

    access_key: Name
    secret_key: Name
    security_token: Name | None = None
    projects: frozenset[str] | None = None


class NewUser(_Order):
    """An IAM user; one of the same name gets the new password."""

    name: Name
    password: Name
    domain_name: Name = accounts.DOMAIN_NAME
    projects: frozenset[str] | None = None


class NewToken(_Order):
    """A token issued without a password."""

    project_id: str | None = accounts.PROJECT_ID
    lifetime: Seconds = 3600.0


class ControlRefusal(BaseModel):
    """Why an order was not carried out."""

    detail: str


class TaskSeen(BaseModel):
    """A task as its tester sees it."""

    task_id: str
    project_id: str
    name: str
    status: int
    body: dict[str, Any]
    version_ids: list[str]


class RequestsSeen(BaseModel):
    """Requests by operation, and the newest of them."""

    counts: dict[str, int]
    requests: list[dict[str, Any]]


def control_router(state: EmulatorState) -> APIRouter:
    """
    Make the routes of the control API.

    :param state: the service they turn.
    """
    router = APIRouter(
        prefix="/emulator",
        tags=["control"],
        default_response_class=_AsciiJson,
        responses={status: {"model": ControlRefusal, "description": text} for status, text in _REFUSALS.items()},
    )
    _add_time_and_settings(router, state)
    _add_tasks(router, state)
    _add_faults(router, state)
    _add_accounts(router, state)
    return router


def _add_time_and_settings(router: APIRouter, state: EmulatorState) -> None:
    @router.post("/reset")
    async def reset() -> None:
        """Forget tasks, rules, faults, requests, accounts and settings."""
        state.reset()

    @router.post("/clock/advance")
    async def advance(order: Advance) -> dict[str, float]:
        """Turn the tasks' clock; signatures and tokens are not affected."""
        state.clock.advance(order.seconds)
        return {"now": state.clock.now()}

    @router.get("/settings")
    async def settings() -> dict[str, Any]:
        """Show the settings."""
        return asdict(state.settings)

    @router.patch("/settings")
    async def change_settings(change: SettingsChange) -> dict[str, Any]:
        """Change settings."""
        for name, value in change.model_dump(exclude_none=True).items():
            setattr(state.settings, name, value)
        return asdict(state.settings)

    @router.get("/requests")
    async def requests(operation: str | None = None, last: Count = 100) -> RequestsSeen:
        """Show the requests seen: no headers, no bodies."""
        entries = state.log.entries(operation)
        return RequestsSeen(
            counts=state.log.counts(), requests=[asdict(entry) for entry in entries[max(0, len(entries) - last) :]]
        )

    @router.delete("/requests")
    async def forget_requests() -> None:
        """Forget the requests seen."""
        state.log.clear()


def _add_tasks(router: APIRouter, state: EmulatorState) -> None:
    def find(task_id: str) -> Task:
        try:
            return state.find_task(task_id)
        except KeyError:
            raise HTTPException(404, f"no task {task_id!r}") from None

    def seen(task: Task) -> TaskSeen:
        return TaskSeen(
            task_id=task.task_id,
            project_id=task.project_id,
            name=task.name,
            status=task.run.status(state.clock.now()),
            body=task.body,
            version_ids=[version.version_id for version in task.versions],
        )

    @router.get("/tasks")
    async def tasks(last: Count = 100) -> list[TaskSeen]:
        """Show the newest tasks of all projects, with the bodies that created them."""
        known = state.all_tasks()
        return [seen(task) for task in known[max(0, len(known) - last) :]]

    @router.post("/tasks")
    async def add_tasks(order: NewTasks) -> list[str]:
        """Put tasks there, and return their ids."""
        if order.project_id not in state.projects:
            raise HTTPException(404, f"no project {order.project_id!r}")
        return [task.task_id for task in state.add_tasks(**order.model_dump())]

    @router.get("/tasks/{task_id}")
    async def task(task_id: str) -> TaskSeen:
        """Show one task."""
        return seen(find(task_id))

    @router.patch("/tasks/{task_id}")
    async def change_task(task_id: str, change: TaskChange) -> TaskSeen:
        """Change a task, or its newest version."""
        found = find(task_id)
        if change.duration is not None:
            state.set_duration(task_id, change.duration)
        if change.status is not None:
            state.set_status(task_id, change.status, error_msg=change.error_msg)
        if change.model_fields_set & {"result", "result_form"}:
            _refuse_deep(change.result)
            state.set_result(task_id, change.result, form=change.result_form)
        if change.sample_count is not None:
            if not found.versions:
                raise HTTPException(400, f"task {task_id!r} has no version")
            state.set_sample_count(task_id, change.sample_count)
        return seen(found)

    @router.post("/tasks/{task_id}/finish")
    async def finish(task_id: str) -> TaskSeen:
        """Let a task complete now."""
        found = find(task_id)
        state.finish(task_id)
        return seen(found)

    @router.post("/tasks/{task_id}/fail")
    async def fail(task_id: str, failure: Failure | None = None) -> TaskSeen:
        """Let a task fail now."""
        found = find(task_id)
        state.fail(task_id, failure.error_msg if failure else None)
        return seen(found)

    @router.post("/tasks/{task_id}/stop")
    async def stop(task_id: str) -> TaskSeen:
        """Let a task be stopped now, as from the console."""
        found = find(task_id)
        state.stop(task_id)
        return seen(found)

    @router.post("/rules")
    async def add_rule(rule: Rule) -> None:
        """Decide what becomes of runs created later; the first rule that matches counts."""
        _refuse_deep(rule.result)
        state.add_rule(TaskRule(**rule.model_dump()))

    @router.delete("/rules")
    async def forget_rules() -> None:
        """Forget all rules."""
        state.rules.clear()


def _add_faults(router: APIRouter, state: EmulatorState) -> None:
    def find(fault_id: int) -> Fault:
        for fault in state.faults.all():
            if fault.fault_id == fault_id:
                return fault
        raise HTTPException(404, f"no fault {fault_id}")

    def find_hold(fault_id: int) -> Hold:
        fault = find(fault_id)
        if not isinstance(fault, Hold):
            raise HTTPException(400, f"fault {fault_id} holds nothing")
        return fault

    @router.get("/faults")
    async def faults() -> list[FaultSeen]:
        """Show the faults that wait for calls, and those that hold some."""
        return [fault_seen(fault) for fault in state.faults.all()]

    @router.post("/faults")
    async def add_fault(order: FaultSpec) -> FaultSeen:
        """Make the next calls that match go wrong."""
        return fault_seen(state.faults.add(order.to_fault()))

    @router.delete("/faults")
    async def clear_faults() -> None:
        """Take all faults back, and drop what they hold."""
        state.faults.clear()

    @router.delete("/faults/{fault_id}")
    async def remove_fault(fault_id: int) -> None:
        """Take one fault back, and drop what it holds."""
        state.faults.remove(find(fault_id))

    @router.post("/faults/{fault_id}/release")
    async def release(fault_id: int) -> None:
        """Let the calls go on that a fault holds."""
        hold = find_hold(fault_id)
        hold.release()
        state.faults.remove(hold)

    @router.post("/faults/{fault_id}/drop")
    async def drop(fault_id: int) -> None:
        """End the connections of the calls that a fault holds."""
        state.faults.remove(find_hold(fault_id))


def _add_accounts(router: APIRouter, state: EmulatorState) -> None:
    @router.post("/access-keys")
    async def add_key(key: NewKey) -> None:
        """Let a key pair in, in the place of one with the same access key."""
        state.accounts.add_key(KeyPair(**key.model_dump()))

    @router.delete("/access-keys/{access_key}")
    async def remove_key(access_key: str) -> None:
        """Let a key pair in no more."""
        if not state.accounts.remove_key(access_key):
            raise HTTPException(404, "no such access key")

    @router.post("/users")
    async def add_user(user: NewUser) -> None:
        """Let a user in, or change a password."""
        state.accounts.add_user(User(**user.model_dump()))

    @router.delete("/users/{name}")
    async def remove_user(name: str, domain_name: str = accounts.DOMAIN_NAME) -> None:
        """Let a user in no more; tokens already issued stay valid."""
        if not state.accounts.remove_user(name, domain_name):
            raise HTTPException(404, "no such user")

    @router.post("/tokens")
    async def issue_token(order: NewToken) -> dict[str, str]:
        """Issue a token without a password."""
        token = state.accounts.issue_token(order.project_id, now=state.gateway_time, lifetime=order.lifetime)
        return {"token": token.value}

    @router.post("/tokens/expire")
    async def expire_tokens() -> dict[str, int]:
        """Make every token that has been issued invalid at once."""
        return {"expired": state.accounts.expire_tokens()}


def _refuse_deep(result: Any) -> None:
    """Refuse a result that could not be sent, since writing JSON takes a frame of the stack for each level."""
    try:
        check_depth(result, DEEPEST_JSON)
    except ValueError as error:
        raise HTTPException(400, f"result: {error}") from None
