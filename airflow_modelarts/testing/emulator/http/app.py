"""The emulator's FastAPI application: the routes of ModelArts and IAM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, cast

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse

from airflow_modelarts import __version__
from airflow_modelarts.api import models
from airflow_modelarts.testing.emulator.control.faults import HttpResponse
from airflow_modelarts.testing.emulator.control.state import EmulatorState
from airflow_modelarts.testing.emulator.http.control_api import control_router
from airflow_modelarts.testing.emulator.http.middleware import GatewayMiddleware
from airflow_modelarts.testing.emulator.http.object_store import ObjectStore
from airflow_modelarts.testing.emulator.http.openapi import ErrorBody, KeystoneErrorBody, describe_api
from airflow_modelarts.testing.emulator.http.responses import json_response
from airflow_modelarts.testing.emulator.service import iam, validation
from airflow_modelarts.testing.emulator.service.errors import ServiceError
from airflow_modelarts.testing.emulator.service.projects import Offset, TaskQuery, VersionQuery
from airflow_modelarts.testing.emulator.service.results import ResultQuery

TASKS = "/v2/{project_id}/processor-tasks"
TASK = TASKS + "/{task_id}"
VERSIONS = TASK + "/versions"
VERSION = VERSIONS + "/{version_id}"

ProjectId = Annotated[str, Path(description="32 hex digits")]
TaskId = Annotated[str, Path(description="the processing task's id")]
VersionId = Annotated[str, Path(description="the version's id")]
ItemsLimit = Annotated[int, Query(ge=1, le=1000, description="entries per page")]
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "the request is refused, or the task does not exist",
        401: "the credentials are refused",
        403: "the credentials do not permit this, or the task's status does not",
        404: "the task or the API does not exist",
    }.items()
}


def create_app(state: EmulatorState, object_store: ObjectStore | None = None) -> FastAPI:
    """Return the application that serves a service.

    :param object_store: where the setting ``check_inputs`` looks inputs up; default one of its own.
    """
    object_store = object_store or ObjectStore(state)
    app = FastAPI(
        title="ModelArts emulator",
        version=__version__,
        description="The processing-task API of ModelArts and the tokens of IAM, emulated for tests.",
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_iam(app, state)
    _add_tasks(app, state, object_store)
    _add_versions(app, state, object_store)
    app.include_router(control_router(state))
    app.add_api_route("/", _overview(state), include_in_schema=False, response_class=HTMLResponse)
    app.add_exception_handler(RequestValidationError, _handle_invalid_request)
    app.add_middleware(GatewayMiddleware, state=state)
    app.openapi = lambda: describe_api(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _add_iam(app: FastAPI, state: EmulatorState) -> None:
    @app.post(
        "/v3/auth/tokens",
        operation_id="KeystoneCreateUserTokenByPassword",
        tags=["IAM"],
        status_code=201,
        responses={status: {"model": KeystoneErrorBody} for status in (400, 401)},
    )
    async def create_token(request: Request) -> Response:
        try:
            body = validation.read_json(await request.body())
        except ServiceError:
            body = None  # IAM refuses it with an error of its own
        token, document = iam.create_token(
            body,
            state.accounts,
            {project.project_id: project.name for project in state.projects.values()},
            now=state.gateway_time,
            lifetime=state.settings.token_lifetime,
        )
        return _response(json_response(document, 201, {"X-Subject-Token": token}))

    # Not in the schema, which describes the processing-task API and how to authenticate for it.
    @app.post(
        "/v3.0/OS-CREDENTIAL/securitytokens",
        operation_id="CreateTemporaryAccessKeyByToken",
        status_code=201,
        include_in_schema=False,
    )
    async def create_temporary_key(request: Request) -> Response:
        try:
            body = validation.read_json(await request.body())
        except ServiceError:
            body = None
        token = request.headers.get("x-auth-token")
        document = iam.create_temporary_key(body, token, state.accounts, now=state.gateway_time)
        return _response(json_response(document, 201))


# FastAPI does not parse the bodies: the service validates them, and answers with its own codes.


def _add_tasks(app: FastAPI, state: EmulatorState, object_store: ObjectStore) -> None:
    @_operation(app, "POST", TASKS, "CreateProcessorTask", models.CreatedTask)
    async def create_task(project_id: ProjectId, request: Request) -> Response:
        body = validation.read_json(await request.body())
        if state.settings.check_inputs:
            await object_store.check_inputs(body)
        return _json({"task_id": state.create_task(project_id, body).task_id})

    @_operation(app, "GET", TASKS, "ListProcessorTasks", models.ProcessorTaskPage)
    async def list_tasks(project_id: ProjectId, query: Annotated[TaskQuery, Query()]) -> Response:
        return _json(state.list_tasks(project_id, query))

    # Before DescribeProcessorTask, whose path would match it as well.
    @_operation(app, "GET", TASKS + "/items", "ListProcessorTaskItems", models.ProcessorTaskItemPage)
    async def list_items(project_id: ProjectId, offset: Offset = 0, limit: ItemsLimit = 1000) -> Response:
        return _json(state.list_items(offset, limit))

    @_operation(app, "GET", TASK, "DescribeProcessorTask", models.ProcessorTask)
    async def describe_task(project_id: ProjectId, task_id: TaskId) -> Response:
        return _json(state.describe_task(project_id, task_id))

    @_operation(app, "PUT", TASK, "UpdateProcessorTask", models.Empty)
    async def update_task(project_id: ProjectId, task_id: TaskId, request: Request) -> Response:
        state.update_task(project_id, task_id, validation.read_json(await request.body()))
        return _json({})

    @_operation(app, "DELETE", TASK, "DeleteProcessorTask", models.Empty)
    async def delete_task(project_id: ProjectId, task_id: TaskId) -> Response:
        state.delete_task(project_id, task_id)
        return _json({})


def _add_versions(app: FastAPI, state: EmulatorState, object_store: ObjectStore) -> None:
    @_operation(app, "POST", VERSIONS, "CreateProcessorTaskVersion", models.CreatedVersion)
    async def create_version(project_id: ProjectId, task_id: TaskId, request: Request) -> Response:
        body = validation.read_json(await request.body())
        if state.settings.check_inputs:
            await object_store.check_inputs(body)
        return _json({"version_id": state.create_version(project_id, task_id, body).version_id})

    @_operation(app, "GET", VERSIONS, "ListProcessorTaskVersions", models.ProcessorTaskVersionPage)
    async def list_versions(
        project_id: ProjectId, task_id: TaskId, query: Annotated[VersionQuery, Query()]
    ) -> Response:
        return _json(state.list_versions(project_id, task_id, query))

    @_operation(app, "GET", VERSION, "DescribeProcessorTaskVersion", models.ProcessorTaskVersion)
    async def describe_version(project_id: ProjectId, task_id: TaskId, version_id: VersionId) -> Response:
        return _json(state.describe_version(project_id, task_id, version_id))

    @_operation(app, "DELETE", VERSION, "DeleteProcessorTaskVersion", models.Empty)
    async def delete_version(project_id: ProjectId, task_id: TaskId, version_id: VersionId) -> Response:
        state.delete_version(project_id, task_id, version_id)
        return _json({})

    @_operation(app, "POST", VERSION + "/stop", "StopProcessorTaskVersion", models.Empty)
    async def stop_version(project_id: ProjectId, task_id: TaskId, version_id: VersionId) -> Response:
        state.stop_version(project_id, task_id, version_id)
        return _json({})

    @_operation(app, "GET", VERSION + "/results", "ListProcessorTaskVersionResults", models.SampleResultPage)
    async def list_results(
        project_id: ProjectId, task_id: TaskId, version_id: VersionId, query: Annotated[ResultQuery, Query()]
    ) -> Response:
        return _json(state.list_results(project_id, task_id, version_id, query))


def _operation(
    app: FastAPI, method: str, path: str, operation_id: str, model: type[models.ApiModel]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator of an operation's route."""
    return app.api_route(
        path,
        methods=[method],
        operation_id=operation_id,
        tags=["ModelArts"],
        summary=operation_id,
        responses={200: {"model": model}, **ERRORS},
    )


def _json(value: Any) -> Response:
    return _response(json_response(value))


def _response(response: HttpResponse) -> Response:
    return Response(response.body, response.status, response.headers)


async def _handle_invalid_request(request: Request, error: Exception) -> Response:
    """Refuse a query as the service does; the control API answers like FastAPI."""
    problems = cast(RequestValidationError, error).errors()
    if request.url.path.startswith("/emulator"):
        # Without the input, which FastAPI's own handler repeats: not every input can be encoded as JSON.
        detail = [{name: problem[name] for name in ("type", "loc", "msg")} for problem in problems]
        return _response(json_response({"detail": detail}, 422))
    message = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in problems)
    raise ServiceError("ModelArts.0107", message)


def _overview(state: EmulatorState) -> Callable[[], Any]:
    async def overview() -> HTMLResponse:
        """Describe the emulator in one page."""
        counts = "".join(f"<li>{name}: {count}" for name, count in sorted(state.log.counts().items()))
        return HTMLResponse(
            "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>ModelArts emulator</title>"
            "<body style='font:16px/1.5 sans-serif;max-width:40em;margin:2em auto'>"
            f"<h1>ModelArts emulator</h1><p>{len(state.all_tasks())} processing tasks. "
            "<a href=/docs>API and control API</a>, <a href=/emulator/tasks>tasks</a>, "
            f"<a href=/emulator/requests>requests</a>.<p>Requests:<ul>{counts or '<li>none yet'}</ul>"
        )

    return overview
