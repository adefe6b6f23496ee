"""The routes that issue credentials: IAM, STS, pod identity, and the metadata service of a server."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from airflow_modelarts.testing.emulator.control.faults import HttpResponse
from airflow_modelarts.testing.emulator.control.state import EmulatorState
from airflow_modelarts.testing.emulator.http.gateway import RawRequest, authenticate
from airflow_modelarts.testing.emulator.http.openapi import ErrorBody, KeystoneErrorBody
from airflow_modelarts.testing.emulator.http.responses import json_response
from airflow_modelarts.testing.emulator.service import iam, trust, validation
from airflow_modelarts.testing.emulator.service.accounts import KeyPair
from airflow_modelarts.testing.emulator.service.errors import ServiceError


def add_iam(app: FastAPI, state: EmulatorState) -> None:
    """Add the routes of IAM, STS and pod identity."""

    @_route(app, "POST", "/v3/auth/tokens", "KeystoneCreateUserTokenByPassword", 201)
    async def create_token(request: Request) -> Response:
        token, document = iam.create_token(
            await _json_of(request),
            state.accounts,
            _project_names(state),
            now=state.gateway_time,
            lifetime=state.settings.token_lifetime,
        )
        return _response(json_response(document, 201, {"X-Subject-Token": token}))

    @_route(app, "POST", "/v3.0/OS-AUTH/id-token/tokens", "CreateUnscopedTokenByIdToken", 201)
    async def create_token_of_id_token(request: Request) -> Response:
        token = iam.create_token_of_id_token(
            await _json_of(request),
            request.headers.get("x-idp-id"),
            state.accounts,
            now=state.gateway_time,
            lifetime=state.settings.token_lifetime,
        )
        return _response(json_response({"token": {"methods": ["mapped"]}}, 201, {"X-Subject-Token": token}))

    @_route(app, "POST", "/v3.0/OS-CREDENTIAL/securitytokens", "CreateTemporaryAccessKey", 201)
    async def create_security_token(request: Request) -> Response:
        body = await request.body()
        document = iam.create_security_token(
            await _json_of(request), _issuer(state), lambda: _authenticate(state, request, body)
        )
        return _response(json_response(document, 201))

    @_route(app, "GET", "/v3/projects", "KeystoneListProjects")
    async def list_projects(request: Request) -> Response:
        _authenticate(state, request, await request.body())
        return _response(json_response(iam.list_projects(_project_names(state), request.query_params.get("name"))))

    @_route(app, "POST", "/v5/agencies/assume-with-oidc", "AssumeAgencyWithOIDC")
    async def assume_agency_with_oidc(request: Request) -> Response:
        return _response(json_response(iam.assume_agency_with_oidc(await _json_of(request), _issuer(state))))

    @_route(app, "POST", "/pod-identity/credentials", "GetPodIdentityCredentials")
    async def issue_for_pod(request: Request) -> Response:
        return _response(json_response(iam.issue_for_pod(request.headers.get("authorization"), _issuer(state))))


def add_metadata(app: FastAPI, state: EmulatorState) -> None:
    """Add the routes of the metadata service, which a server knows at a link-local address."""

    @_route(app, "PUT", "/meta-data/latest/api/token", "CreateMetadataToken")
    async def create_metadata_token(request: Request) -> Response:
        if not state.settings.has_metadata_tokens:
            return Response("404 Not Found", 404)
        lifetime = request.headers.get("x-metadata-token-ttl-seconds", "")
        if not (lifetime.isascii() and lifetime.isdecimal() and len(lifetime) < 6 and 1 <= int(lifetime) <= 21600):
            return Response("X-Metadata-Token-Ttl-Seconds must be between 1 and 21600", 400)
        return Response(trust.METADATA_TOKEN, 200, media_type="text/plain")

    @_route(app, "GET", "/openstack/latest/securitykey", "GetSecurityKey")
    async def get_security_key(request: Request) -> Response:
        given = request.headers.get("x-metadata-token", "").encode()
        if state.settings.has_metadata_tokens and not secrets.compare_digest(given, trust.METADATA_TOKEN.encode()):
            return Response("401 Unauthorized", 401)
        if not state.settings.has_server_agency:
            return Response("Please configure Cloud Service Agency first", 401)
        return _response(json_response(iam.key_document(_issuer(state).issue("server", iam.UNASKED_LIFETIME))))


def _route(
    app: FastAPI, method: str, path: str, operation_id: str, status: int = 200
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    model = KeystoneErrorBody if path.startswith("/v3") else ErrorBody
    return app.api_route(
        path,
        methods=[method],
        operation_id=operation_id,
        tags=["IAM"],
        status_code=status,
        responses={
            code: {"model": KeystoneErrorBody | ErrorBody if code == 401 else model} for code in (400, 401, 403, 404)
        },
    )


def _issuer(state: EmulatorState) -> iam.Issuer:
    return iam.Issuer(state.accounts, state.gateway_time, state.settings.temporary_key_lifetime)


def _project_names(state: EmulatorState) -> dict[str, str]:
    return {project.project_id: project.name for project in state.projects.values()}


def _authenticate(state: EmulatorState, request: Request, body: bytes) -> frozenset[str] | None:
    """Return the projects of the caller, None for all; raise ServiceError if it is unknown."""
    caller = authenticate(
        RawRequest.of(request.scope, body), accounts=state.accounts, settings=state.settings, now=state.gateway_time
    )
    if isinstance(caller, KeyPair):
        return caller.projects
    return None if caller.project_id is None else frozenset({caller.project_id})


async def _json_of(request: Request) -> Any:
    """Return the JSON of a request's body; None if it is none, which IAM refuses with an error of its own."""
    try:
        return validation.read_json(await request.body())
    except ServiceError:
        return None


def _response(response: HttpResponse) -> Response:
    return Response(response.body, response.status, response.headers)
