"""Removes secrets, signed links and unprintable characters from texts of the service. No other module redacts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

#: Characters of a service's text that an error quotes.
QUOTED_LENGTH = 500

# A link after its scheme. No part can match in two ways, so it takes linear time.
_LINK = re.compile(r"://[^\s\"'<>]*")
# A signature, or a hash of the same length; a gateway can quote the header that it refused.
_HEXADECIMAL_SIGNATURE = re.compile(r"[0-9A-Fa-f]{64,}")
# Control characters and line separators move a terminal's cursor or begin another line of a log. Direction marks
# change the order of the characters. Halves of surrogate pairs cannot be encoded.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")

# The punctuation of a query, plain and as URLs, HTML and JSON escape it, also repeatedly.
_MARK = (
    r"(?:&(?:amp;|#0*38;|#x0*26;)*|[?;#]|&(?:quest|num|semi);|%(?:25)*(?:3F|26|3B|23)"
    r"|\\{1,8}(?:u00|x)(?:3F|26|3B|23))"
)
_EQUALS = r"[ \t]{0,9}(?:=|%(?:25)*3D|\\{1,8}(?:u00|x)3D|&(?:amp;)*(?:#0*61|#x0*3D|equals);)"
_HYPHEN = r"(?:-|_|%(?:25)*2D)"
_VENDOR = rf"(?:x{_HYPHEN}[a-z]{{1,9}}{_HYPHEN})"
_SIGNATURES = rf"{_VENDOR}?(?:sig(?:nature)?|(?:access|auth|security|session){_HYPHEN}?token)"
# A link with one of these parameters authorizes a download.
_SECRET_NAMES = rf"(?:{_SIGNATURES}|{_VENDOR}?token)"
# These accompany them: the key, its permission and the time.
_NAMES = (
    rf"(?:{_SECRET_NAMES}|(?:AWS|OSS)?AccessKeyId|GoogleAccessId|Expires"
    rf"|{_VENDOR}(?:algorithm|credential|date|expires|signed{_HYPHEN}?headers|access{_HYPHEN}?key))"
)
# The same as headers, as in debug output. IAM tokens have only this form.
_HEADER = (
    rf"(?:x{_HYPHEN}(?:[a-z]{{1,9}}{_HYPHEN})?(?:signature|security{_HYPHEN}?token)|x[-_](?:auth|subject)[-_]token)"
    rf"(?:\\{{0,8}}[\"']?[ \t]{{0,9}}:[ \t]{{0,9}}(?:\\{{0,8}}[\"'])?|{_EQUALS})"
)
# The same as a text in JSON.
_MEMBER = rf"{_SIGNATURES}\\{{0,8}}[\"'][ \t]{{0,9}}:[ \t]{{0,9}}\\{{0,8}}[\"']"
# A parameter without a mark before it begins a word. After a slash it is a folder, as in /signature=1/. A number or a
# truth value is not a signature.
_BEGINNING = r"(?<![\w./%+-])"
_NO_SIGNATURE = r"(?![ \t]{0,9}(?:\d{1,9}|true|false|null|none)(?:[\s\"'<>,.;:)\]}]|\Z))"
_SECRET_PARAMETER = re.compile(
    rf"(?i){_MARK}{_SECRET_NAMES}{_EQUALS}|{_BEGINNING}(?:{_SECRET_NAMES}{_EQUALS}|{_HEADER}|{_MEMBER})"
    rf"{_NO_SIGNATURE}"
)
_PARAMETER = re.compile(
    rf"(?i)(?:{_MARK}{_NAMES}{_EQUALS}|(?P<alone>{_BEGINNING}(?:{_NAMES}{_EQUALS}|{_HEADER}|{_MEMBER})){_NO_SIGNATURE})"
    r"[ \t]{0,9}\\{0,8}[\"']?"
)
# Excludes most texts without a signature faster than the patterns above.
_SECRET_WORD = re.compile(r"(?i)sig(?:nature)?(?![a-z])|token(?![a-z])")
# The end of a link; within JSON a quotation mark is escaped.
_END_OF_WORD = re.compile(r"\\{0,8}[\"']|[\s<>]")

_CHUNK_BYTES = 64 * 1024
# The JSON of a signed link, or of a field for one, has one of these in lower case. An escaped letter can be part of any
# name. An unescaped quotation mark ends the text, so that no value can follow the name. By a letter of each, since one
# letter that is absent is found out at once.
_MAY_BE_SECRET = {
    b"g": re.compile(rb"sig(?:(?:nature)?[ \t]{0,9}[=%&:;'\\]|ned_(?<=\"signed_))"),
    b"k": re.compile(rb"token[ \t]{0,9}[=%&:;'\\]"),
    b"\\": re.compile(rb"\\u00(?:[4-7]|3[0-9])"),
}
#: Bytes of the longest of these.
_LONGEST_NAME = 32


def printable(text: str) -> str:
    """Return a text with a space in place of each unprintable character."""
    return _UNPRINTABLE.sub(" ", text)


def redact(text: str, secrets: Sequence[str], *, longest: int = QUOTED_LENGTH) -> str:
    """Remove secrets, signatures, queries of links and unprintable characters, and shorten the text to ``longest``."""
    spellings = {spelling for secret in filter(None, secrets) for spelling in _spellings(secret)}
    for spelling in sorted(spellings, key=len, reverse=True):  # one can contain another
        text = text.replace(spelling, "***")
    text = _without_signatures(_HEXADECIMAL_SIGNATURE.sub("***", text), "?…")
    text = printable(_LINK.sub(_without_query, text))
    return text if len(text) <= longest else text[:longest] + "…"


def without_signed_links(value: Any) -> Any:
    """Return JSON without the ``signed_…`` fields, and with signed links in its strings shortened to their address."""
    if isinstance(value, dict):
        return {
            without_signed_links(key): without_signed_links(item)
            for key, item in value.items()
            if not (isinstance(key, str) and key.startswith("signed_"))
        }
    if isinstance(value, list):
        return [without_signed_links(item) for item in value]
    return _without_signatures(value, "") if isinstance(value, str) else value


def has_signature(text: str) -> bool:
    """Whether a text contains a signature or a security token as a parameter of a link."""
    return bool(_SECRET_WORD.search(text) and _SECRET_PARAMETER.search(text))


def may_hold_a_signed_link(body: bytes) -> bool:
    """Whether JSON may contain a signed link or a field for one. It is fast, and False is certain."""
    for start in range(0, len(body), _CHUNK_BYTES):
        chunk = body[start : start + _CHUNK_BYTES + _LONGEST_NAME].lower()
        if any(letter in chunk and pattern.search(chunk) for letter, pattern in _MAY_BE_SECRET.items()):
            return True
    return False


def _without_signatures(text: str, cut: str) -> str:
    """Put ``cut`` in place of each query with a signature. A parameter that is not part of a query keeps its name."""
    if not has_signature(text):
        return text
    kept: list[str] = []
    position = 0
    while found := _PARAMETER.search(text, position):
        begin = found.start()
        # Remove the whole query: the parameters before this one are useless without it.
        query = text.rfind("?", position, begin)
        if query >= 0 and not _END_OF_WORD.search(text, query, begin):
            begin = query
        ended = _END_OF_WORD.search(text, found.end())
        alone = found["alone"] if begin == found.start() else None
        kept += [text[position:begin], f"{alone}…" if alone else cut]
        position = ended.start() if ended else len(text)
    return "".join([*kept, text[position:]])


def _spellings(secret: str) -> Iterator[str]:
    """Yield the forms in which a service may quote a secret: plain, and escaped for JSON, JSON in JSON and URLs."""
    yield from (secret, quote(secret, safe="", errors="replace"), quote(secret, errors="replace"))
    for ensure_ascii in (True, False):
        once = json.dumps(secret, ensure_ascii=ensure_ascii)[1:-1]
        yield from (once, json.dumps(once, ensure_ascii=ensure_ascii)[1:-1])


def _without_query(link: re.Match[str]) -> str:
    address, *query = re.split("[?&;]", link.group(), maxsplit=1)  # some services write a query without a question mark
    return f"{address}?…" if any(query) else link.group()
