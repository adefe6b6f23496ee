"""Random answers: mutated examples of the contract, errors, odd headers, and quotes of the request."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow_modelarts.api.error_codes import CODES
from airflow_modelarts.api.http import Request, Response, TransportError
from tests.security.draws import Draws, one_in, pick
from tests.security.mutations import ODD_VALUES, Document, body

EXAMPLES = Path(__file__).parents[1] / "data" / "contract" / "examples"
#: The signature of every signed link in these answers; no output of the package may contain it.
LINK_SIGNATURE = "MARK-OF-A-SIGNED-LINK"
#: Replaced in an answer by a quote of the request.
ECHO = b"<echo of the request>"
#: Headers of a request whose values nothing may quote.
SECRET_HEADERS = ("X-Auth-Token", "X-Security-Token", "X-Metadata-Token")

_LINKS = (
    f"https://b.obs.example/k?AccessKeyId=A&Expires=1&Signature={LINK_SIGNATURE}",
    f"https://b.obs.example/k?X-Amz-Date=1&X-Amz-Signature={LINK_SIGNATURE}&X-Amz-Expires=9",
    f"see obs://b/k?signature={LINK_SIGNATURE}, and 'https://b/{{}}?x=1;Signature={LINK_SIGNATURE}' too",
    f'<a href="HTTPS://b/k?a=%20&SIGNATURE={LINK_SIGNATURE}">漢</a>',
)
_FEATURES: dict[str, Any] = {"sample_count": 100, "labels": [{"name": "cat", "count": 60}], "mean": 0.5}
_IN_STRINGS = json.dumps(json.dumps({**_FEATURES, "links": list(_LINKS)})).encode()
SIGNED_LINKS = (
    *(json.dumps(link).encode() for link in _LINKS),
    json.dumps({"signed_origin_source": _LINKS[0], "kept": [{"signed_x": {"deep": _LINKS[1]}}, _LINKS[2]]}).encode(),
    _IN_STRINGS,
    json.dumps(_LINKS[0]).replace("=", "\\u003d").replace("/", "\\/").encode(),
    json.dumps(_LINKS[0]).replace("Signature", "Sign\\u0061ture").encode(),
)
_ECHOES = (b'"' + ECHO + b'"', b'"no: ' + ECHO + b'."', b'["' + ECHO + b'"]')
VALUES = (*ODD_VALUES, *SIGNED_LINKS * 2, *_ECHOES * 3)


def _example(name: str) -> dict[str, Any]:
    example: dict[str, Any] = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    return example


_TASK = _example("describe-feature-analysis.json")
_VERSION = {
    **{"task_id": "t", "task_version_id": "v", "version_name": "V001", "status": 1, "create_time": 1606373999627},
    **{"update_time": 1606373999628, "duration_seconds": 3, "description": "d", "origin_sample_count": 1},
    **{name: _TASK[name] for name in ("inputs", "template")},
    "work_path": {"type": "OBS", "path": "obs://b/out", "output_path": "/datasets/demo", "version_name": "V001"},
}
_SAMPLE = {
    **{"sample_id": "s", "version_id": "v", "result_property": 1, "result_description": [["a", "b"]]},
    **{"origin_source": "obs://b/k", "new_source": "obs://b/n", "signed_origin_source": _LINKS[0]},
    "signed_new_source": _LINKS[1],
}
#: Valid answers of each operation.
GOOD: dict[str, tuple[Document, ...]] = {
    "CreateProcessorTask": (Document.of({"task_id": "AcYfsdfhGyrWL5TtahH"}),),
    "CreateProcessorTaskVersion": (Document.of({"version_id": "v"}),),
    "DescribeProcessorTask": (
        Document.of(_TASK),
        Document.of({**_TASK, "result": {**_FEATURES, "links": list(_LINKS)}}),
        Document.of({**_TASK, "result": json.dumps(_FEATURES)}),
        Document.of({"task_id": "t", "status": 3, "error_msg": _LINKS[0], "work_path": _VERSION["work_path"]}),
    ),
    "DescribeProcessorTaskVersion": (Document.of(_VERSION),),
    "ListProcessorTasks": (
        Document.of({"count": 3, "tasks": [_TASK, {**_TASK, "task_id": "t2"}]}),
        Document.of({"count": 9, "tasks": [{"task_id": f"t{n}", "status": n} for n in range(4)]}),
        Document.of({"count": 1, "tasks": [{**_TASK, "result": {"links": list(_LINKS)}}]}),
    ),
    "ListProcessorTaskVersions": (Document.of({"count": 2, "versions": [_VERSION, _VERSION]}),),
    "ListProcessorTaskItems": (
        Document.of(
            {"total": 2, "items": [{"template_id": "sys_data_analyse", "label_en": "e", "label_zh": "漢"}, {}]}
        ),
    ),
    "ListProcessorTaskVersionResults": (Document.of({"count": 4, "has_more": True, "results": [_SAMPLE, _SAMPLE]}),),
    "UpdateProcessorTask": (Document.of({}),),
    "token": (
        Document.of({"token": {"expires_at": "2026-02-01T12:00:00.000000Z", "project": {"id": "p"}}}),
        Document.of({"token": {"expires_at": "2026-01-31T12:00:01.000000Z"}}),
    ),
    "key": (
        Document.of(
            {
                "credential": {
                    **{"access": "AKTEMP", "secret": "temporary-secret", "securitytoken": "temporary-token"},
                    "expires_at": "2026-02-01T12:00:00.000000Z",
                }
            }
        ),
    ),
}
_ECHO_TEXT = ECHO.decode()
BAD = (
    *(Document.of({"error_code": code, "error_msg": "an error"}) for code in CODES),
    *(Document.of({"error_code": code, "error_msg": _ECHO_TEXT, "request_id": _ECHO_TEXT}) for code in CODES),
    Document.of({"error_code": _ECHO_TEXT, "error_msg": f"see {_LINKS[0]}"}),
    Document.of({"error_code": "ModelArts.9999", "error_msg": _ECHO_TEXT * 3}),
    *(Document.of({"error": {"code": 401, "message": text, "title": text}}) for text in ("Unauthorized", _ECHO_TEXT)),
    Document.of({"status": 404, "error": "Not Found", "message": _ECHO_TEXT}),
)
STATUSES = (
    *(200,) * 16,
    *(201, 201, 202, 204, 206, 300, 301, 302, 304, 307, 308),
    *(400, 401, 401, 403, 404, 405, 408, 409, 410, 413, 418, 422, 425, 429, 429, 431, 451),
    *(500, 502, 503, 503, 504, 511, 599, 100, 101, 0, -1, 999),
)
_NUMBERS = ("0", "1", "30", "-1", "1.5", "99999999999", "١٢", " 7 ", "1e3", "NaN")
_DATES = (
    *("Sat, 31 Jan 2026 12:00:05 GMT", "Sat, 31 Jan 2026 13:00:00 GMT", "Sat, 31 Jan 2026 11:00:00 GMT"),
    *("Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359", ""),
    *("1 Jan 99999999999 00:00:00 GMT", "1 Jan 2026 00:00:00 +99999999999999", "31 Feb 2026", ",", "Jan", "0 0 0 0 0"),
)
HEADERS: dict[str, tuple[str, ...]] = {
    "content-type": (
        "application/json",
        "application/json;charset=utf-8",
        "text/html",
        "",
        _ECHO_TEXT,
        "x" * 300,
        "\x00",
    ),
    "retry-after": (*_NUMBERS, *_DATES, _ECHO_TEXT),
    "date": (*_DATES, _ECHO_TEXT),
    "x-request-id": ("0123456789abcdef", "", _ECHO_TEXT, "\r\nx: y", "é", "x" * 5000),
    "x-subject-token": (
        "MIIa-new-token",
        "MIIanother",
        "MII" * 2000,
        "",
        " ",
        "a b",
        "a\r\nb",
        "é",
        "漢",
        "\x00",
        "\ud800",
    ),
    "location": ("https://elsewhere.example/", "/", _ECHO_TEXT),
    "set-cookie": ("session=1",),
}
_METADATA_TOKENS = (b"metadata-token", b"", b"\n", b" t \n", b"a\r\nX-Evil: 1", b"\xff\x00", b"t" * 5000, b"<html>")
FAULTS = (
    TransportError("connection refused", kind="connect", sent=False),
    TransportError("no such host", kind="name", sent=False),
    TransportError("self-signed", kind="certificate", sent=False),
    TransportError("reset by peer", kind="broken", sent=True),
    TransportError("read timed out", kind="timeout", sent=True),
    TransportError("more than 64 MiB", kind="too_large", sent=True),
)


def answer(draws: Draws, request: Request, kind: str) -> Response | TransportError:
    """Return a random answer to a request.

    :param kind: the kind of the request: an operation, ``token``, ``key`` or ``metadata token``.
    """
    if one_in(draws, 24):
        return pick(draws, FAULTS)
    status = pick(draws, STATUSES) if one_in(draws, 2) else 201 if kind == "token" else 200
    if kind == "metadata token":
        return Response(status, _headers(draws, request, kind), pick(draws, _METADATA_TOKENS))
    documents = GOOD.get(kind, GOOD["UpdateProcessorTask"])
    if one_in(draws, 2) if status >= 300 else one_in(draws, 16):
        documents = BAD
    elif one_in(draws, 16):
        documents = GOOD[pick(draws, tuple(GOOD))]
    text = body(draws, pick(draws, documents), VALUES)
    if ECHO in text:
        text = text.replace(ECHO, _in_json(echo(draws, request)))
    return Response(status, _headers(draws, request, kind), text)


def echo(draws: Draws, request: Request) -> str:
    """Return a request in one of the forms in which a service may quote it."""
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    match draws.below(4):
        case 0:
            return pick(draws, [*lines, request.url])
        case 1:
            return f"{request.method} {request.url} " + " ".join(lines) + request.body.decode("utf-8", "replace")
        case 2:
            return json.dumps({"headers": dict(request.headers), "body": request.body.decode("utf-8", "replace")})
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in request.headers.items())


def _headers(draws: Draws, request: Request, kind: str) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if kind == "token":
        headers["x-subject-token"] = "MIIa-token"
    for _ in range(draws.below(4) if one_in(draws, 2) else 0):
        name = pick(draws, tuple(HEADERS))
        value = pick(draws, HEADERS[name])
        headers[name] = value.replace(_ECHO_TEXT, echo(draws, request)) if _ECHO_TEXT in value else value
    return headers


def _in_json(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()
