"""How an error is written in an answer: the code, the text and the request id in any of the shapes they come in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, NamedTuple

from airflow_modelarts.api.http import Response
from airflow_modelarts.api.json_reading import without_byte_order_mark

#: The pairs under which a code and a text come, in the order in which the vendor's SDK looks for them.
_PAIRS = (("error_code", "error_msg"), ("errorCode", "errorMsg"), ("code", "message"))
#: Where a code, a text or a request id may stand by itself.
_CODES = ("error_code", "errorCode", "code")
_TEXTS = ("error_msg", "errorMsg", "error_message", "errorMessage", "message", "title", "error")
_REQUEST_IDS = ("request_id", "requestId", "requestID", "RequestId")
#: What else stands beside them where an answer is nothing but an error.
_BESIDE = ("is_success", "error", "encoded_authorization_message")
_ONLY_IN_ERRORS = frozenset((*_CODES, *_TEXTS, *_REQUEST_IDS, *_BESIDE))
#: How deep in a body an error may be nested: ``{"error": {…}}`` and ``{"badRequest": {…}}`` are two levels.
_LEVELS = 8
#: Where XML, as object stores and some gateways write it, has the same; and what of a web page is a text.
_XML = {name: re.compile(rf"(?is)<{name}>([^<]{{1,2000}})</{name}>") for name in ("Code", "Message", "RequestId")}
_TITLE = re.compile(r"(?is)<title>([^<]{1,2000})</title>")
#: Charsets in which gateways write instead of JSON's, and how Python reads them.
_CODECS = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "iso-8859-1": "cp1252",
    "windows-1252": "cp1252",
}
#: How much of a body that is no JSON is looked at, in characters.
_LONGEST_TEXT = 20_000


class ErrorBody(NamedTuple):
    """What an answer says of an error."""

    code: str | None = None
    text: str = ""
    request_id: str | None = None
    encoded_authorization_message: str | None = None


def read_error(response: Response) -> ErrorBody:
    """Read an error in any of the shapes that the vendor's SDK reads, and in a few more."""
    header = response.headers.get("x-request-id") or None
    charset = re.search(r"(?i)charset=[\"']?([\w-]+)", response.headers.get("content-type", ""))
    codec = _CODECS.get(charset[1].lower(), "utf-8") if charset else "utf-8"
    written = without_byte_order_mark(response.body).decode(codec, "replace")
    try:
        body = json.loads(written)
    except (ValueError, RecursionError):
        body = None if written.lstrip()[:1] in ("{", "[") else written  # the text of what is cut off tells nothing
    if isinstance(body, str):
        return _read_text(body, header)
    if not isinstance(body, dict | list):
        return ErrorBody(request_id=header)
    levels = list(_levels(body, dict))
    if not any(_first(levels, names) for names in (_CODES, _TEXTS)):
        levels = list(_levels(body, dict | list))  # the vendor's SDK does not look into lists
    # The vendor's SDK lets the last one count.
    pairs = [pair for level in levels if (pair := _pair(level))]
    code, text = pairs[-1] if pairs else (_first(levels, _CODES), "")
    return ErrorBody(
        code,
        text or _first(levels, _TEXTS) or "",
        _first(levels, _REQUEST_IDS) or header,
        _first(levels, ("encoded_authorization_message",)),
    )


def is_error_alone(body: bytes) -> bool:
    """Whether JSON is an error and nothing else; a task that failed may have an error's fields beside its own."""
    if len(body) > _LONGEST_TEXT or not any(name.encode() in body for name in _CODES):
        return False
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and _ONLY_IN_ERRORS.issuperset(content) and bool(_first([content], _CODES))


def _read_text(text: str, header: str | None) -> ErrorBody:
    """Read an error that is no JSON: XML, a web page of which the title counts, or a text."""
    text = text[:_LONGEST_TEXT].strip()
    if not text.startswith("<"):
        return ErrorBody(None, "" if "\x00" in text or "\ufffd" in text else text, header)
    code, said, request_id = (found[1].strip() if (found := one.search(text)) else "" for one in _XML.values())
    title = _TITLE.search(text)
    return ErrorBody(code or None, said or (title[1].strip() if title else ""), request_id or header)


def _levels(body: Any, kinds: type | UnionType, depth: int = 1) -> Iterator[Mapping[str, Any]]:
    """Yield an object and those within it, down to the first ones that have a code and a text."""
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
    """Return a text or a number as text, and nothing for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else ""
