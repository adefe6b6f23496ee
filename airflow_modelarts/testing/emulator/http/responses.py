"""What the emulator says over HTTP: answers, and refusals that become one. No state and no server."""

from __future__ import annotations

import copyreg
import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from airflow_modelarts.api.error_codes import CODES

#: The HTTP status of a code where it is not 400, by the contract's error table.
HTTP_STATUS = {
    "APIGW.0101": 404,
    "APIGW.0201": 504,
    "APIGW.0301": 401,
    "APIG.0301": 401,
    # Not in the contract's table: what the vendor's gateway answers to a caller without permission for the project.
    "APIGW.0302": 403,
    "APIGW.0303": 401,
    "APIGW.0307": 401,
    "APIGW.0308": 429,
    "APIG.0308": 429,
    "ModelArts.0202": 401,
    "ModelArts.0203": 403,
    "ModelArts.0206": 403,
    "ModelArts.4127": 401,
    "ModelArts.4613": 403,
    "ModelArts.4614": 500,
    "ModelArts.4750": 401,
    "ModelArts.4826": 401,
    "ModelArts.4850": 403,
}

#: How a missing task is told: HTTP 400 with a code (the reference's error table), HTTP 404 with another body, or
#: HTTP 404 with none (the reference's operation page says no more than the status).
NotFoundShape = Literal["modelarts", "http404", "http404_empty"]


@dataclass(frozen=True)
class HttpResponse:
    """A complete HTTP answer; the front adds ``Date``, ``X-Request-Id`` and the length."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def to_json(value: Any) -> bytes:
    """Encode JSON in ASCII: it can hold anything that a request held, a lone surrogate included."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    """Answer with JSON."""
    return HttpResponse(status, to_json(value), {"Content-Type": "application/json;charset=utf-8", **(headers or {})})


class ServiceError(Exception):  # it is what the service means to answer, not an error of the emulator
    """
    The service refuses a request.

    :param code: for example ``ModelArts.4700``; it decides the HTTP status unless ``status`` is given.
    :param message: the service's words; by default what the contract says the code means.
    """

    def __init__(self, code: str, message: str | None = None, *, status: int | None = None) -> None:
        self.code = code
        self.message = message or (CODES[code].meaning if code in CODES else code)
        self.status = status or HTTP_STATUS.get(code, 400)
        super().__init__(f"{self.code}: {self.message}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle without another call of ``__init__``, which wants more than the message."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]  # typeshed lacks it

    def answer(self, request_id: str) -> HttpResponse:
        """Return the answer; the gateway's carry the request id in their body too."""
        body = {"error_code": self.code, "error_msg": self.message}
        if self.code.startswith("APIG"):
            body["request_id"] = request_id
        return json_answer(body, self.status)


class NotFoundError(ServiceError):
    """There is no such task or version, told in the shape that the settings ask for."""

    def __init__(self, code: str, message: str, shape: NotFoundShape) -> None:
        super().__init__(code, message, status=400 if shape == "modelarts" else 404)
        self.shape = shape

    def answer(self, request_id: str) -> HttpResponse:
        """Return the answer in its shape."""
        if self.shape == "modelarts":
            return super().answer(request_id)
        if self.shape == "http404_empty":
            return HttpResponse(404)
        return json_answer({"status": 404, "error": "Not Found", "message": self.message}, 404)


class KeystoneError(ServiceError):
    """IAM refuses a request, in Keystone's shape."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__("Keystone", message, status=status)

    def answer(self, request_id: str) -> HttpResponse:
        """Return the answer in Keystone's shape."""
        error = {"code": self.status, "message": self.message, "title": HTTPStatus(self.status).phrase}
        return json_answer({"error": error}, self.status)
