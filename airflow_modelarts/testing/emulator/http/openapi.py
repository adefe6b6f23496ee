"""The OpenAPI document of the emulator, including what FastAPI cannot derive from the routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from airflow_modelarts.api import request_models
from airflow_modelarts.testing.emulator.service import accounts

BODIES: dict[str, type[BaseModel]] = {
    "CreateProcessorTask": request_models.CreateProcessorTaskRequest,
    "UpdateProcessorTask": request_models.UpdateProcessorTaskRequest,
    "CreateProcessorTaskVersion": request_models.CreateProcessorTaskVersionRequest,
}
_TASK_EXAMPLE = {
    "name": "V001",
    "data_source": {"type": "DATASET", "source": "X6c3N3eztX7cr3Arvqu"},
    "template": {"id": "sys_data_analyse", "operator_params": [{"id": "sys_data_analyse", "params": {"op_list": []}}]},
    "version_id": "J4Eh2FDEWH1qnDlD3hQ",
}
_DOMAIN_EXAMPLE = {"name": accounts.DOMAIN_NAME}
_USER_EXAMPLE = {"name": accounts.USER_NAME, "password": accounts.PASSWORD, "domain": _DOMAIN_EXAMPLE}
EXAMPLES: dict[str, dict[str, Any]] = {
    "CreateProcessorTask": _TASK_EXAMPLE,
    "UpdateProcessorTask": {"description": "checked by hand"},
    "CreateProcessorTaskVersion": {
        "name": "PRE-e77c",
        "inputs": [{"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}],
        "template": {"id": "sys_data_validation"},
    },
    "KeystoneCreateUserTokenByPassword": {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": _USER_EXAMPLE}},
            "scope": {"project": {"id": accounts.PROJECT_ID}},
        }
    },
}
SECURITY_SCHEMES = {
    "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token", "description": "a token of IAM"},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "SDK-HMAC-SHA256 Access=…, SignedHeaders=…, Signature=…; with X-Sdk-Date and X-Project-Id",
    },
}


class ErrorBody(BaseModel):
    """An error of ModelArts or its gateway; some errors have another body."""

    error_code: str | None = None
    error_msg: str | None = None
    request_id: str | None = None


class KeystoneErrorDetail(BaseModel):
    """The error's HTTP status, message and title."""

    code: int
    message: str
    title: str


class KeystoneErrorBody(BaseModel):
    """An error of IAM."""

    error: KeystoneErrorDetail


def describe_api(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, built at the first call."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document.setdefault("components", {})
        _, bodies = models_json_schema(
            [(model, "validation") for model in BODIES.values()], ref_template="#/components/schemas/{model}"
        )
        components.setdefault("schemas", {}).update(bodies["$defs"])
        components["securitySchemes"] = SECURITY_SCHEMES
        for path, operations in document["paths"].items():
            if not path.startswith("/emulator"):
                for operation in operations.values():
                    _complete(operation)
        app.openapi_schema = document
    return app.openapi_schema


def _complete(operation: dict[str, Any]) -> None:
    """Complete an operation with its body and its security, and remove FastAPI's answer 422."""
    name = operation["operationId"]
    operation["responses"].pop("422", None)
    if operation["tags"] != ["IAM"] or name == "KeystoneListProjects":
        operation["security"] = [{"token": []}, {"signature": []}]
    if name in EXAMPLES:
        model = BODIES.get(name)
        schema = {"$ref": f"#/components/schemas/{model.__name__}"} if model else {"type": "object"}
        content = {"application/json": {"schema": schema, "example": EXAMPLES[name]}}
        operation["requestBody"] = {"required": True, "content": content}
