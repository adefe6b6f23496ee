"""How an error is written in an answer: the code, the text and the request id in any of the shapes they come in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_modelarts.api.transport import Response

#: The pairs under which a code and a text come, in the order in which the vendor's SDK looks for them.
_PAIRS = (("error_code", "error_msg"), ("errorCode", "errorMsg"), ("code", "message"))
#: Where a code, a text or a request id may stand by itself.
_CODES = ("error_code", "errorCode", "code")
_TEXTS = ("error_msg", "errorMsg", "error_message", "errorMessage", "message", "title", "error")
_REQUEST_IDS = ("request_id", "requestId", "requestID", "RequestId")
#: How deep in a body an error may be nested: ``{"error": {…}}`` and ``{"badRequest": {…}}`` are two levels.
_LEVELS = 8


class ErrorBody(NamedTuple):
    """What an answer says of an error."""

    code: str | None = None
    text: str = ""
    request_id: str | None = None
    encoded_authorization_message: str | None = None


def read_error(response: Response) -> ErrorBody:
    """Read an error in any of the shapes that the vendor's SDK reads, and in a few more."""
    header = response.headers.get("x-request-id") or None
    try:
        body = json.loads(response.body)
    except UnicodeDecodeError:  # a gateway may write another charset; codes are ASCII
        body = _json_or_none(response.body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return ErrorBody(request_id=header)
    levels = list(_levels(body))
    # The vendor's SDK lets the last one count.
    pairs = [pair for level in levels if (pair := _pair(level))]
    code, text = pairs[-1] if pairs else (_first(levels, _CODES), "")
    return ErrorBody(
        code,
        text or _first(levels, _TEXTS) or "",
        _first(levels, _REQUEST_IDS) or header,
        _first(levels, ("encoded_authorization_message",)),
    )


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _levels(body: Mapping[str, Any], depth: int = 1) -> Iterator[Mapping[str, Any]]:
    """Yield an object and those within it, down to the first ones that have a code and a text."""
    yield body
    if depth < _LEVELS and not any(code in body and text in body for code, text in _PAIRS):
        for inner in body.values():
            if isinstance(inner, dict):
                yield from _levels(inner, depth + 1)


def _pair(level: Mapping[str, Any]) -> tuple[str | None, str] | None:
    for code, text in _PAIRS:
        if code in level and text in level:
            return _text(level[code]) or None, _text(level[text])
    return None


def _first(levels: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str | None:
    return next((text for level in levels for name in names if (text := _text(level.get(name)))), None)


def _text(value: object) -> str:
    """Return a text or a number as text, and nothing for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else ""
