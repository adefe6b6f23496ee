"""HTTP responses of the emulator: JSON, and the errors of the service in the shapes of ModelArts, gateway and IAM."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from airflow_modelarts.testing.emulator.control.faults import HttpResponse
from airflow_modelarts.testing.emulator.service.errors import KeystoneError, NotFoundError, ServiceError
from airflow_modelarts.testing.emulator.service.settings import NotFoundShape

#: The HTTP status of a code where it is not 400, by the contract's error table.
HTTP_STATUS = {
    **dict.fromkeys(("APIGW.0301", "APIG.0301", "APIGW.0303", "APIGW.0307"), 401),
    **dict.fromkeys(("ModelArts.0202", "ModelArts.4127", "ModelArts.4750", "ModelArts.4826"), 401),
    **dict.fromkeys(("ModelArts.0203", "ModelArts.0206", "ModelArts.4613", "ModelArts.4850"), 403),
    # Not in the contract's table: the vendor's gateway answers it when the caller has no access to the project.
    "APIGW.0302": 403,
    "APIGW.0101": 404,
    **dict.fromkeys(("APIGW.0308", "APIG.0308"), 429),
    "ModelArts.4614": 500,
    "APIGW.0201": 504,
}


def to_json(value: Any) -> bytes:
    """Encode JSON in ASCII, which can hold any text that a request held, such as a lone surrogate."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    """Return a response with a JSON body."""
    return HttpResponse(status, to_json(value), {"Content-Type": "application/json;charset=utf-8", **(headers or {})})


def error_response(
    error: ServiceError, request_id: str, not_found: NotFoundShape, headers: dict[str, str] | None = None
) -> HttpResponse:
    """Return the response for an error; ``not_found`` is the shape of that for a :class:`NotFoundError`."""
    if isinstance(error, NotFoundError) and not_found == "http404_empty":
        return HttpResponse(404)
    if isinstance(error, NotFoundError) and not_found == "http404":
        return json_response({"status": 404, "error": "Not Found", "message": error.message}, 404)
    status = error.status or HTTP_STATUS.get(error.code, 400)
    if isinstance(error, KeystoneError):
        title = HTTPStatus(status).phrase
        return json_response({"error": {"code": status, "message": error.message, "title": title}}, status)
    body = {"error_code": error.code, "error_msg": error.message}
    if error.code.startswith("APIG"):  # only the gateway's bodies carry the request id
        body["request_id"] = request_id
    return json_response(body, status, headers)
