"""What must not be shown of a text of the service: signed links, secrets, and characters that no log can hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

#: How much of the service's own words an error quotes, in characters.
QUOTED_LENGTH = 500

# What follows a link's scheme, up to where it must end. No part can match in two ways, so it takes linear time.
_LINK = re.compile(r"://[^\s\"'<>]*")
# A signature, or a hash that is as long; a gateway can quote the header that it refused.
_HEXADECIMAL_SIGNATURE = re.compile(r"[0-9A-Fa-f]{64,}")
# Control characters and line separators move a terminal's cursor or begin another line of a log; marks of writing
# direction show a text in another order than it has; halves of characters can be encoded by no log.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")

# A query's punctuation as it is, and as URLs, HTML and JSON escape it, also when they do so several times.
_MARK = (
    r"(?:&(?:amp;|#0*38;|#x0*26;)*|[?;#]|&(?:quest|num|semi);|%(?:25)*(?:3F|26|3B|23)"
    r"|\\{1,8}(?:u00|x)(?:3F|26|3B|23))"
)
_EQUALS = r"[ \t]{0,9}(?:=|%(?:25)*3D|\\{1,8}(?:u00|x)3D|&(?:amp;)*(?:#0*61|#x0*3D|equals);)"
_HYPHEN = r"(?:-|_|%(?:25)*2D)"
_VENDOR = rf"(?:x{_HYPHEN}[a-z]{{1,9}}{_HYPHEN})"
# Whoever has one of these can fetch what was signed.
_SECRET_NAMES = rf"{_VENDOR}?(?:signature|security{_HYPHEN}?token)"
# These stand beside them, and name the key, its right and the time.
_NAMES = (
    rf"(?:{_SECRET_NAMES}|(?:AWS|OSS)?AccessKeyId|GoogleAccessId|Expires"
    rf"|{_VENDOR}(?:algorithm|credential|date|expires|signed{_HYPHEN}?headers|access{_HYPHEN}?key))"
)
# The same as headers, of which debug output is full, and as fields of JSON; IAM's tokens come so alone.
_HEADER = (
    rf"(?:x{_HYPHEN}(?:[a-z]{{1,9}}{_HYPHEN})?(?:signature|security{_HYPHEN}?token)|x[-_](?:auth|subject)[-_]token)"
    rf"(?:\\{{0,8}}[\"']?[ \t]{{0,9}}:[ \t]{{0,9}}(?:\\{{0,8}}[\"'])?|{_EQUALS})"
)
# A parameter that follows no mark begins a word. After a slash it is a folder, as in /signature=1/; and a number or a
# truth value is no signature.
_BEGINNING = r"(?<![\w./%+-])"
_NO_SIGNATURE = r"(?![ \t]{0,9}(?:\d{1,9}|true|false|null|none)(?:[\s\"'<>,.;:)\]}]|\Z))"
_SECRET_PARAMETER = re.compile(
    rf"(?i){_MARK}{_SECRET_NAMES}{_EQUALS}|{_BEGINNING}(?:{_SECRET_NAMES}{_EQUALS}|{_HEADER}){_NO_SIGNATURE}"
)
_PARAMETER = re.compile(
    rf"(?i)(?:{_MARK}{_NAMES}{_EQUALS}|(?P<alone>{_BEGINNING}(?:{_NAMES}{_EQUALS}|{_HEADER})){_NO_SIGNATURE})"
    r"[ \t]{0,9}\\{0,8}[\"']?"
)
# Tells most texts without a signature faster than the patterns above.
_SECRET_WORD = re.compile(r"(?i)signature|security|x[-_](?:auth|subject)")
# Where a word ends that a link is in; within JSON a quotation mark is escaped.
_END_OF_WORD = re.compile(r"\\{0,8}[\"']|[\s<>]")

_CHUNK_BYTES = 1024 * 1024
#: Of these, a body holds one if it holds a signed link. JSON can write any letter as an escape.
_SECRET_BYTES = (
    *(b"signature", b"security", b"signed_", b"\\u00"),
    *(b"x-auth", b"x_auth", b"x-subject", b"x_subject"),
)


def printable(text: str) -> str:
    """Return a text with a space for what no line of a log can hold: control characters, halves of characters."""
    return _UNPRINTABLE.sub(" ", text)


def redact(text: str, secrets: Sequence[str], *, longest: int = QUOTED_LENGTH) -> str:
    """
    Take secrets, signatures, the queries of links and what no log can hold out of a service's text; shorten it.

    :param longest: characters that may be left of it.
    """
    spellings = {spelling for secret in filter(None, secrets) for spelling in _spellings(secret)}
    for spelling in sorted(spellings, key=len, reverse=True):  # one can hold another
        text = text.replace(spelling, "***")
    text = _without_signatures(_HEXADECIMAL_SIGNATURE.sub("***", text), "?…")
    text = printable(_LINK.sub(_without_query, text))
    return text if len(text) <= longest else text[:longest] + "…"


def without_signed_links(value: Any) -> Any:
    """Return JSON without the ``signed_…`` fields, and with the query cut off each signed link in its strings."""
    if isinstance(value, dict):
        return {
            without_signed_links(key): without_signed_links(item)
            for key, item in value.items()
            if not _names_a_signed_link(key)
        }
    if isinstance(value, list):
        return [without_signed_links(item) for item in value]
    return _without_signatures(value, "") if isinstance(value, str) else value


def has_signature(text: str) -> bool:
    """Whether a text has a signature or a security token among the parameters of a link."""
    return bool(_SECRET_WORD.search(text) and _SECRET_PARAMETER.search(text))


def may_hold_a_signed_link(body: bytes) -> bool:
    """Whether JSON can hold a signed link, or a field for one; False is certain, and found out in little time."""
    overlap = max(map(len, _SECRET_BYTES))
    for start in range(0, len(body), _CHUNK_BYTES):
        chunk = body[start : start + _CHUNK_BYTES + overlap].lower()
        if any(mark in chunk for mark in _SECRET_BYTES):
            return True
    return False


def _without_signatures(text: str, cut: str) -> str:
    """
    Cut the queries off that hold a signature, whatever stands before them.

    :param cut: what to put in the place of a query. A parameter that stands alone keeps its name.
    """
    if not has_signature(text):
        return text
    kept: list[str] = []
    position = 0
    while found := _PARAMETER.search(text, position):
        begin = found.start()
        # What precedes it in the same query: parameters that are no secret, and of no use without it.
        query = text.rfind("?", position, begin)
        if query >= 0 and not _END_OF_WORD.search(text, query, begin):
            begin = query
        ended = _END_OF_WORD.search(text, found.end())
        alone = found["alone"] if begin == found.start() else None
        kept += [text[position:begin], f"{alone}…" if alone else cut]
        position = ended.start() if ended else len(text)
    return "".join([*kept, text[position:]])


def _spellings(secret: str) -> Iterator[str]:
    """Return a secret as a service may quote it: as it is, and as JSON, JSON within JSON, and URLs write it."""
    yield from (secret, quote(secret, safe="", errors="replace"), quote(secret, errors="replace"))
    for ensure_ascii in (True, False):
        once = json.dumps(secret, ensure_ascii=ensure_ascii)[1:-1]
        yield from (once, json.dumps(once, ensure_ascii=ensure_ascii)[1:-1])


def _without_query(link: re.Match[str]) -> str:
    address, *query = re.split("[?&;]", link.group(), maxsplit=1)  # some write a query without its mark
    return f"{address}?…" if any(query) else link.group()


def _names_a_signed_link(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("signed_")
