"""Reads the code, the text and the request id of an error from the body of an answer, in any of its known forms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, NamedTuple

from airflow_modelarts.api.http import Response
from airflow_modelarts.api.json_reading import without_byte_order_mark

#: Pairs of fields for a code and a text, in the order in which the vendor's SDK looks for them.
_PAIRS = (("error_code", "error_msg"), ("errorCode", "errorMsg"), ("code", "message"))
#: Fields for a code, a text or a request id alone.
_CODES = ("error_code", "errorCode", "code")
_TEXTS = ("error_msg", "errorMsg", "error_message", "errorMessage", "message", "title", "error")
_REQUEST_IDS = ("request_id", "requestId", "requestID", "RequestId")
#: Further fields of an answer that is only an error.
_OTHERS = ("is_success", "error", "encoded_authorization_message")
_ONLY_IN_ERRORS = frozenset((*_CODES, *_TEXTS, *_REQUEST_IDS, *_OTHERS))
#: How deeply an error may be nested: ``{"error": {…}}`` and ``{"badRequest": {…}}`` are two levels.
_LEVELS = 8
#: The same in XML, as object stores and some gateways send it; and the title of a web page.
_XML = {name: re.compile(rf"(?is)<{name}>([^<]{{1,2000}})</{name}>") for name in ("Code", "Message", "RequestId")}
_TITLE = re.compile(r"(?is)<title>([^<]{1,2000})</title>")
#: Charsets that gateways use besides UTF-8, and Python's codecs for them.
_CODECS = {
    **dict.fromkeys(("gb2312", "gbk", "gb18030"), "gb18030"),
    **dict.fromkeys(("iso-8859-1", "windows-1252"), "cp1252"),
}
#: Characters of a body that are searched for an error.
_MAX_TEXT = 20_000


class ErrorBody(NamedTuple):
    """The error in the body of an answer."""

    code: str | None = None
    text: str = ""
    request_id: str | None = None
    encoded_authorization_message: str | None = None


def read_error(response: Response) -> ErrorBody:
    """Read an error in any form that the vendor's SDK reads, and in a few more."""
    header = response.headers.get("x-request-id") or None
    charset = re.search(r"(?i)charset=[\"']?([\w-]+)", response.headers.get("content-type", ""))
    codec = _CODECS.get(charset[1].lower(), "utf-8") if charset else "utf-8"
    text = without_byte_order_mark(response.body).decode(codec, "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None if text.lstrip()[:1] in ("{", "[") else text  # truncated JSON is not quoted
    if isinstance(body, str):
        return _read_text(body, header)
    if not isinstance(body, dict | list):
        return ErrorBody(request_id=header)
    levels = list(_levels(body, dict))
    if not any(_first(levels, names) for names in (_CODES, _TEXTS)):
        levels = list(_levels(body, dict | list))  # the vendor's SDK does not look into lists
    # The vendor's SDK uses the last pair.
    pairs = [pair for level in levels if (pair := _pair(level))]
    code, message = pairs[-1] if pairs else (_first(levels, _CODES), "")
    return ErrorBody(
        code,
        message or _first(levels, _TEXTS) or "",
        _first(levels, _REQUEST_IDS) or header,
        _first(levels, ("encoded_authorization_message",)),
    )


def is_error_alone(body: bytes) -> bool:
    """Whether JSON has only the fields of an error. A failed task can have such fields beside its own."""
    if len(body) > _MAX_TEXT or not any(name.encode() in body for name in _CODES):
        return False
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and _ONLY_IN_ERRORS.issuperset(content) and bool(_first([content], _CODES))


def _read_text(text: str, header: str | None) -> ErrorBody:
    """Read an error that is not JSON: XML, a web page with a title, or a plain text."""
    text = text[:_MAX_TEXT].strip()
    if not text.startswith("<"):
        return ErrorBody(None, "" if "\x00" in text or "\ufffd" in text else text, header)
    code, message, request_id = (
        found[1].strip() if (found := pattern.search(text)) else "" for pattern in _XML.values()
    )
    title = _TITLE.search(text)
    return ErrorBody(code or None, message or (title[1].strip() if title else ""), request_id or header)


def _levels(body: Any, kinds: type | UnionType, depth: int = 1) -> Iterator[Mapping[str, Any]]:
    """Yield an object and the objects within it, down to the first ones with a code and a text."""
    if isinstance(body, dict):
        yield body
    if depth < _LEVELS and not (isinstance(body, dict) and _pair(body)):
        for inner in body.values() if isinstance(body, dict) else body:
            if isinstance(inner, kinds):
                yield from _levels(inner, kinds, depth + 1)


def _pair(level: Mapping[str, Any]) -> tuple[str | None, str] | None:
    for code, text in _PAIRS:
        if code in level and text in level and (pair := (_text(level[code]) or None, _text(level[text]))) != (None, ""):
            return pair
    return None


def _first(levels: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str | None:
    return next((text for level in levels for name in names if (text := _text(level.get(name)))), None)


def _text(value: object) -> str:
    """Return a text or a number as text, and "" for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else ""
