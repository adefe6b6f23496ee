"""The emulator as an application: the routes of ModelArts and IAM, and their OpenAPI page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse

from airflow_modelarts import __version__
from airflow_modelarts.api import models
from airflow_modelarts.testing.emulator.control.routes import control_router
from airflow_modelarts.testing.emulator.http.middleware import GatewayMiddleware
from airflow_modelarts.testing.emulator.http.openapi import ErrorBody, KeystoneErrorBody, describe_api
from airflow_modelarts.testing.emulator.http.responses import HttpResponse, ServiceError, json_answer
from airflow_modelarts.testing.emulator.service import iam, validation
from airflow_modelarts.testing.emulator.service.projects import Order, SortBy, TaskQuery, VersionQuery, VersionSortBy
from airflow_modelarts.testing.emulator.service.state import EmulatorState

TASKS = "/v2/{project_id}/processor-tasks"
TASK = TASKS + "/{task_id}"
VERSIONS = TASK + "/versions"
VERSION = VERSIONS + "/{version_id}"

ProjectId = Annotated[str, Path(description="32 hex digits")]
TaskId = Annotated[str, Path(description="the processing task's id")]
VersionId = Annotated[str, Path(description="the version's id")]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1, description="the page's number, from 0")]
PageLimit = Annotated[int, Query(ge=1, le=100, description="entries a page")]
ItemsLimit = Annotated[int, Query(ge=1, le=1000, description="entries a page")]
Status = Annotated[int | None, Query(ge=0, le=4)]
SourceType = Annotated[Literal["OBS", "TASK", "DATASET", "CUSTOM"] | None, Query()]
VersionIds = Annotated[str | None, Query(description="dataset version ids, separated by commas")]
ResultProperty = Annotated[int, Query(ge=-1, le=3, description="-1 all, 0 reserved, 1 modified, 2 deleted, 3 added")]
ProcessParameter = Annotated[str | None, Query(description="an OBS image operation for the links")]
#: The body of a request is read by the service itself: its refusals are the service's, not FastAPI's.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "the request is refused, or there is no such task",
        401: "the credentials are refused",
        403: "forbidden for these credentials, or for now",
        404: "there is no such task, or no such API",
    }.items()
}


def create_app(state: EmulatorState) -> FastAPI:
    """
    Make the application.

    :param state: the service it serves.
    """
    app = FastAPI(
        title="ModelArts emulator",
        version=__version__,
        description="The processing-task API of ModelArts, and IAM's tokens, as a local stand-in for tests.",
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_iam(app, state)
    _add_tasks(app, state)
    _add_versions(app, state)
    app.include_router(control_router(state))
    app.add_api_route("/", _overview(state), include_in_schema=False, response_class=HTMLResponse)
    app.add_exception_handler(ServiceError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
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
            body = None  # IAM has its own words for it
        return _response(
            iam.create_token(
                body,
                state.accounts,
                {project.project_id: project.name for project in state.projects.values()},
                now=state.gateway_time,
                lifetime=state.settings.token_lifetime,
            )
        )


def _add_tasks(app: FastAPI, state: EmulatorState) -> None:
    def operation(
        method: str, path: str, operation_id: str, model: type[models.ApiModel]
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return _operation(app, method, path, operation_id, model)

    @operation("POST", TASKS, "CreateProcessorTask", models.CreatedTask)
    async def create_task(project_id: ProjectId, request: Request) -> Response:
        body = validation.read_json(await request.body())
        return _json({"task_id": state.create_task(project_id, body).task_id})

    @operation("GET", TASKS, "ListProcessorTasks", models.ProcessorTaskPage)
    async def list_tasks(
        project_id: ProjectId,
        offset: Offset = 0,
        limit: PageLimit = 10,
        order: Order = "desc",
        sort_by: SortBy = "create_time",
        status: Status = None,
        task_type: str | None = None,
        task_name: str | None = None,
        source_type: SourceType = None,
        source: str | None = None,
        version_id: VersionIds = None,
        workspace_id: str = "0",
        query_current: bool = False,
        return_result: bool = True,
    ) -> Response:
        query = TaskQuery(
            offset=offset,
            limit=limit,
            order=order,
            sort_by=sort_by,
            status=status,
            task_type=task_type,
            task_name=task_name,
            source_type=source_type,
            source=source,
            version_ids=frozenset(version_id.split(",")) if version_id else None,
            workspace_id=workspace_id,
            query_current=query_current,
        )
        return _json(state.list_tasks(project_id, query, return_result=return_result))

    # Before DescribeProcessorTask, whose path it would match as well.
    @operation("GET", TASKS + "/items", "ListProcessorTaskItems", models.ProcessorTaskItemPage)
    async def list_items(project_id: ProjectId, offset: Offset = 0, limit: ItemsLimit = 1000) -> Response:
        return _json(state.list_items(offset, limit))

    @operation("GET", TASK, "DescribeProcessorTask", models.ProcessorTask)
    async def describe_task(project_id: ProjectId, task_id: TaskId) -> Response:
        return _json(state.describe_task(project_id, task_id))

    @operation("PUT", TASK, "UpdateProcessorTask", models.Empty)
    async def update_task(project_id: ProjectId, task_id: TaskId, request: Request) -> Response:
        state.update_task(project_id, task_id, validation.read_json(await request.body()))
        return _json({})

    @operation("DELETE", TASK, "DeleteProcessorTask", models.Empty)
    async def delete_task(project_id: ProjectId, task_id: TaskId) -> Response:
        state.delete_task(project_id, task_id)
        return _json({})


def _add_versions(app: FastAPI, state: EmulatorState) -> None:
    def operation(
        method: str, path: str, operation_id: str, model: type[models.ApiModel]
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return _operation(app, method, path, operation_id, model)

    @operation("POST", VERSIONS, "CreateProcessorTaskVersion", models.CreatedVersion)
    async def create_version(project_id: ProjectId, task_id: TaskId, request: Request) -> Response:
        body = validation.read_json(await request.body())
        return _json({"version_id": state.create_version(project_id, task_id, body).version_id})

    @operation("GET", VERSIONS, "ListProcessorTaskVersions", models.ProcessorTaskVersionPage)
    async def list_versions(
        project_id: ProjectId,
        task_id: TaskId,
        offset: Offset = 0,
        limit: PageLimit = 100,
        order: Order = "desc",
        sort_by: VersionSortBy = "create_time",
    ) -> Response:
        query = VersionQuery(offset=offset, limit=limit, order=order, sort_by=sort_by)
        return _json(state.list_versions(project_id, task_id, query))

    @operation("GET", VERSION, "DescribeProcessorTaskVersion", models.ProcessorTaskVersion)
    async def describe_version(project_id: ProjectId, task_id: TaskId, version_id: VersionId) -> Response:
        return _json(state.describe_version(project_id, task_id, version_id))

    @operation("DELETE", VERSION, "DeleteProcessorTaskVersion", models.Empty)
    async def delete_version(project_id: ProjectId, task_id: TaskId, version_id: VersionId) -> Response:
        state.delete_version(project_id, task_id, version_id)
        return _json({})

    @operation("POST", VERSION + "/stop", "StopProcessorTaskVersion", models.Empty)
    async def stop_version(project_id: ProjectId, task_id: TaskId, version_id: VersionId) -> Response:
        state.stop_version(project_id, task_id, version_id)
        return _json({})

    @operation("GET", VERSION + "/results", "ListProcessorTaskVersionResults", models.SampleResultPage)
    async def list_results(
        project_id: ProjectId,
        task_id: TaskId,
        version_id: VersionId,
        offset: Offset = 0,
        limit: PageLimit = 10,
        result_property: ResultProperty = -1,
        process_parameter: ProcessParameter = None,
    ) -> Response:
        results = state.list_results(
            project_id,
            task_id,
            version_id,
            result_property=result_property,
            offset=offset,
            limit=limit,
            process_parameter=process_parameter,
        )
        return _json(results)


def _operation(
    app: FastAPI, method: str, path: str, operation_id: str, model: type[models.ApiModel]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return app.api_route(
        path,
        methods=[method],
        operation_id=operation_id,
        tags=["ModelArts"],
        summary=operation_id,
        responses={200: {"model": model}, **ERRORS},
    )


def _json(value: Any) -> Response:
    return _response(json_answer(value))


def _response(answer: HttpResponse) -> Response:
    return Response(answer.body, answer.status, answer.headers)


async def _refused(request: Request, error: Exception) -> Response:
    return _response(cast(ServiceError, error).answer(request.scope["request_id"]))


async def _invalid(request: Request, error: Exception) -> Response:
    """Say what is wrong with a query as the service does; the control API says it as FastAPI does."""
    invalid = cast(RequestValidationError, error)
    if request.url.path.startswith("/emulator"):
        # Without the input that FastAPI's own handler repeats: not all of it can be written as JSON.
        kept = [{name: fault[name] for name in ("type", "loc", "msg")} for fault in invalid.errors()]
        return _response(json_answer({"detail": kept}, 422))
    faults = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in invalid.errors())
    return _response(ServiceError("ModelArts.0107", faults).answer(request.scope["request_id"]))


def _overview(state: EmulatorState) -> Callable[[], Any]:
    async def overview() -> HTMLResponse:
        """Say in one page what this is."""
        counts = "".join(f"<li>{name}: {count}" for name, count in sorted(state.log.counts().items()))
        return HTMLResponse(
            "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>ModelArts emulator</title>"
            "<body style='font:16px/1.5 sans-serif;max-width:40em;margin:2em auto'>"
            f"<h1>ModelArts emulator</h1><p>{len(state.all_tasks())} processing tasks. "
            "<a href=/docs>API and control API</a>, <a href=/emulator/tasks>tasks</a>, "
            f"<a href=/emulator/requests>requests</a>.<p>Requests seen:<ul>{counts or '<li>none yet'}</ul>"
        )

    return overview
