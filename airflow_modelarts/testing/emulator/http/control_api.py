"""The control API under ``/emulator``, for people and for tests in another process."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from airflow_modelarts.testing.emulator.control.faults import AnyFault, Fault, Hold
from airflow_modelarts.testing.emulator.control.log import LoggedRequest
from airflow_modelarts.testing.emulator.control.state import EmulatorState
from airflow_modelarts.testing.emulator.http.responses import to_json
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.accounts import KeyPair, User
from airflow_modelarts.testing.emulator.service.settings import Count, Name, ResultForm, Seconds, Settings
from airflow_modelarts.testing.emulator.service.tasks import COMPLETED, FAILED, STOPPED, Task, TaskRule
from airflow_modelarts.testing.emulator.service.validation import MAX_JSON_DEPTH, check_depth

AnyStatus = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]


class _AsciiJson(JSONResponse):
    """JSON that can hold any text of a request; FastAPI's own cannot encode a lone surrogate."""

    def render(self, content: Any) -> bytes:
        """Encode the response."""
        return to_json(content)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Advance(_Body):
    """Advances the clock of the tasks."""

    seconds: Seconds


class Failure(_Body):
    """How a task fails."""

    error_msg: str | None = None


class TaskChange(_Body):
    """Changes the fields that are given.

    ``error_msg`` needs ``status``. ``result`` and ``result_form`` are set together. A ``status`` outside 0 to 4 is
    shown unchanged.
    """

    status: AnyStatus | None = None
    error_msg: str | None = None
    duration: Seconds | None = None
    result: Any = None
    result_form: ResultForm | None = None
    sample_count: Count | None = None


class NewTasks(_Body):
    """Tasks to add as if they had been created in the console."""

    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    name: Name | None = None
    template: Name = "sys_data_analyse"
    project_id: str = accounts.PROJECT_ID
    status: AnyStatus | None = None
    duration: Seconds | None = None
    error_msg: str | None = None
    create_time: AwareDatetime | None = None


class NewToken(_Body):
    """A token to issue without a password."""

    project_id: str | None = accounts.PROJECT_ID
    lifetime: Seconds = 3600.0


class ControlError(BaseModel):
    """Why a request of the control API failed."""

    detail: str


class ShownTask(BaseModel):
    """A task, its current status, and the body that created it."""

    task_id: str
    project_id: str
    name: str
    status: int
    body: dict[str, Any]
    version_ids: list[str]


class ShownFault(BaseModel):
    """A fault, the number of calls it still applies to, and the number it was applied to."""

    model_config = ConfigDict(from_attributes=True)

    fault_id: int
    kind: str
    times: int | None
    hits: int
    method: str | None
    path: str | None
    operation: str | None


class ShownRequests(BaseModel):
    """The number of requests by operation, that of refusals by operation and error code, and the newest requests."""

    counts: dict[str, int]
    refusals: dict[str, dict[str, int]]
    requests: list[LoggedRequest]


_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ControlError, "description": "the task or fault cannot be changed like this"},
    404: {"model": ControlError, "description": "the task, project, fault, key or user does not exist"},
}


def control_router(state: EmulatorState) -> APIRouter:
    """Return the routes of the control API, which control a service."""
    router = APIRouter(prefix="/emulator", tags=["control"], default_response_class=_AsciiJson, responses=_ERRORS)
    _add_time_and_settings(router, state)
    _add_tasks(router, state)
    _add_faults(router, state)
    _add_accounts(router, state)
    return router


def _add_time_and_settings(router: APIRouter, state: EmulatorState) -> None:
    @router.post("/reset")
    async def reset() -> None:
        """Remove tasks, rules, faults and logged requests; restore accounts, settings and clock."""
        state.reset()

    @router.post("/clock/advance")
    async def advance(body: Advance) -> dict[str, float]:
        """Advance the clock of the tasks; signatures and tokens are not affected."""
        state.clock.advance(body.seconds)
        return {"now": state.clock.now()}

    @router.get("/settings")
    async def settings() -> dict[str, Any]:
        """Show the settings."""
        return asdict(state.settings)

    @router.patch("/settings")
    async def change_settings(
        change: Annotated[Settings, BeforeValidator(_without_nulls)], request: Request
    ) -> dict[str, Any]:
        """Change the settings that are given, and show all."""
        for name in _without_nulls(await request.json()):
            setattr(state.settings, name, getattr(change, name))
        return asdict(state.settings)

    @router.get("/requests")
    async def requests(operation: str | None = None, last: Count = 100) -> ShownRequests:
        """Show the logged requests, without headers and bodies."""
        return ShownRequests(
            counts=state.log.counts(),
            refusals=state.log.refusals_by_operation(),
            requests=list(deque(state.log.entries(operation), last)),
        )

    @router.delete("/requests")
    async def clear_requests() -> None:
        """Remove the logged requests."""
        state.log.clear()


def _add_tasks(router: APIRouter, state: EmulatorState) -> None:
    def find(task_id: str) -> Task:
        try:
            return state.find_task(task_id)
        except KeyError:
            raise HTTPException(404, f"no task {task_id!r}") from None

    def shown(task: Task) -> ShownTask:
        return ShownTask(
            task_id=task.task_id,
            project_id=task.project_id,
            name=task.name,
            status=task.run.status(state.clock.now()),
            body=task.body,
            version_ids=[version.version_id for version in task.versions],
        )

    def end(task_id: str, status: int, error_msg: str | None = None) -> ShownTask:
        found = find(task_id)
        state.set_status(task_id, status, error_msg=error_msg)
        return shown(found)

    @router.get("/tasks")
    async def tasks(last: Count = 100) -> list[ShownTask]:
        """Show the newest tasks of all projects, with the bodies that created them."""
        return [shown(task) for task in deque(state.all_tasks(), last)]

    @router.post("/tasks")
    async def add_tasks(body: NewTasks) -> list[str]:
        """Add tasks, and return their ids."""
        if body.project_id not in state.projects:
            raise HTTPException(404, f"no project {body.project_id!r}")
        return [task.task_id for task in state.add_tasks(**body.model_dump())]

    @router.get("/tasks/{task_id}")
    async def task(task_id: str) -> ShownTask:
        """Show one task."""
        return shown(find(task_id))

    @router.patch("/tasks/{task_id}")
    async def change_task(task_id: str, change: TaskChange) -> ShownTask:
        """Change a task or its newest version."""
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
        return shown(found)

    @router.post("/tasks/{task_id}/finish")
    async def finish(task_id: str) -> ShownTask:
        """Complete a task now."""
        return end(task_id, COMPLETED)

    @router.post("/tasks/{task_id}/fail")
    async def fail(task_id: str, failure: Failure | None = None) -> ShownTask:
        """Fail a task now."""
        return end(task_id, FAILED, failure.error_msg if failure else None)

    @router.post("/tasks/{task_id}/stop")
    async def stop(task_id: str) -> ShownTask:
        """Stop a task now, as from the console."""
        return end(task_id, STOPPED)

    @router.post("/rules")
    async def add_rule(rule: TaskRule) -> None:
        """Add a rule for runs that are created later; the first rule that matches applies."""
        _refuse_deep(rule.result)
        state.add_rule(rule)

    @router.delete("/rules")
    async def clear_rules() -> None:
        """Remove all rules."""
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
            raise HTTPException(400, f"fault {fault_id} is not a hold")
        return fault

    @router.get("/faults")
    async def faults() -> list[ShownFault]:
        """Show the faults that wait for calls or hold some."""
        return [ShownFault.model_validate(fault) for fault in state.faults.all()]

    @router.post("/faults")
    async def add_fault(fault: AnyFault) -> ShownFault:
        """Add a fault; it applies to the next calls that match."""
        return ShownFault.model_validate(state.faults.add(fault))

    @router.delete("/faults")
    async def clear_faults() -> None:
        """Remove all faults, and drop the calls that they hold."""
        state.faults.clear()

    @router.delete("/faults/{fault_id}")
    async def remove_fault(fault_id: int) -> None:
        """Remove a fault, and drop the calls that it holds."""
        state.faults.remove(find(fault_id))

    @router.post("/faults/{fault_id}/release")
    async def release(fault_id: int) -> None:
        """Release the calls that a fault holds."""
        hold = find_hold(fault_id)
        hold.release()
        state.faults.remove(hold)

    @router.post("/faults/{fault_id}/drop")
    async def drop(fault_id: int) -> None:
        """Drop the calls that a fault holds: reset their connections."""
        state.faults.remove(find_hold(fault_id))


def _add_accounts(router: APIRouter, state: EmulatorState) -> None:
    @router.post("/access-keys")
    async def add_key(key: KeyPair) -> None:
        """Accept a key pair; it replaces one with the same access key."""
        state.accounts.add_key(key)

    @router.delete("/access-keys/{access_key}")
    async def remove_key(access_key: str) -> None:
        """Remove a key pair."""
        if not state.accounts.remove_key(access_key):
            raise HTTPException(404, "no such access key")

    @router.post("/users")
    async def add_user(user: User) -> None:
        """Accept a user; it replaces one with the same name, for example to change the password."""
        state.accounts.add_user(user)

    @router.delete("/users/{name}")
    async def remove_user(name: str, domain_name: str = accounts.DOMAIN_NAME) -> None:
        """Remove a user; tokens already issued stay valid."""
        if not state.accounts.remove_user(name, domain_name):
            raise HTTPException(404, "no such user")

    @router.post("/tokens")
    async def issue_token(body: NewToken) -> dict[str, str]:
        """Issue a token without a password."""
        token = state.accounts.issue_token(body.project_id, now=state.gateway_time, lifetime=body.lifetime)
        return {"token": token.value}

    @router.post("/tokens/expire")
    async def expire_tokens() -> dict[str, int]:
        """Revoke all tokens."""
        return {"expired": state.accounts.expire_tokens()}


def _refuse_deep(result: Any) -> None:
    """Refuse a result that cannot be sent: encoding JSON takes a stack frame for each level."""
    try:
        check_depth(result, MAX_JSON_DEPTH)
    except ValueError as error:
        raise HTTPException(400, f"result: {error}") from None


def _without_nulls(body: Any) -> Any:
    """Return a body without null fields: they change nothing."""
    return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body
