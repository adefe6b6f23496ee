"""Mutated JSON: valid documents with replaced values, and with removed, repeated or swapped bytes."""

import json
from dataclasses import dataclass
from typing import Any, Self

from tests.security.draws import Draws, one_in, pick


@dataclass(frozen=True)
class Document:
    """A JSON text and the positions of its values.

    :param spans: beginning and end of each value, the whole document first.
    """

    text: bytes
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, value: Any) -> Self:
        """Encode a value."""
        parts: list[bytes] = []
        spans: list[tuple[int, int]] = []
        _write(value, parts, spans)
        return cls(b"".join(parts), tuple(sorted(spans, key=lambda span: (span[0], -span[1]))))


def _write(value: Any, parts: list[bytes], spans: list[tuple[int, int]]) -> None:
    start = sum(map(len, parts))
    if isinstance(value, dict):
        parts.append(b"{")
        for number, (key, item) in enumerate(value.items()):
            parts.append((b"," if number else b"") + json.dumps(key).encode() + b":")
            _write(item, parts, spans)
        parts.append(b"}")
    elif isinstance(value, list):
        parts.append(b"[")
        for number, item in enumerate(value):
            parts.append(b"," if number else b"")
            _write(item, parts, spans)
        parts.append(b"]")
    else:
        parts.append(json.dumps(value).encode())
    spans.append((start, sum(map(len, parts))))


#: Values that parsers often handle wrongly, and some that are not JSON.
ODD_VALUES: tuple[bytes, ...] = (
    *(b"null", b"true", b"false", b"0", b"1", b"2", b"3", b"4", b"5", b"-1", b"-0", b"1.5", b"1.0", b"0.1e1"),
    *(b"1e999", b"-1e999", b"NaN", b"Infinity", b"-Infinity", b"1e-999"),
    *(b"9223372036854775808", b"-9223372036854775809", b"1" + b"0" * 400, b"7" * 4300, b"7" * 5000),
    *(b'""', b'" "', b'"x"', b'"2"', b'"true"', b'"null"', b'"0"', b'"."', b'".."', b'"a/b?c#d"'),
    *(
        b'"\\ud800"',
        b'"\\udfff\\ud800"',
        b'"\\u0000"',
        b'"\\u001b[31m"',
        b'"\\r\\nX: y"',
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
    ),
    *('"漢字😀\u202e"'.encode(), b'"' + b"x" * 2000 + b'"', b'"\n"', b'"\\x"', b'"unclosed'),
    *(b"[]", b"{}", b"[[]]", b"[null]", b'{"":null}', b'[{"task_id":null}]', b"[{}, {}, {}]", b'{"a":1,"a":2}'),
    *(b"[" * 150 + b"]" * 150, b'{"a":' * 150 + b"1" + b"}" * 150, b"[" * 3000 + b"]" * 3000, b"[" * 3000),
    *(
        b'"[1e999]"',
        b'"{\\"a\\": NaN}"',
        b'"[' + b"[" * 2000 + b'"',
        b'"{\\"a\\": \\"\\\\ud800\\"}"',
        b'"[1,"',
        b'" {}"',
    ),
    *(b'"9999-12-31T23:59:59-23:59"', b'"0001-01-01T00:00:00+23:59"', b'"2026-02-30T00:00:00Z"', b'"2026-01-31"'),
    *(b'{"model_config": {}, "model_fields": 1, "to_json": 2, "__class__": 3}', b'{"$ref": "#"}'),
)
#: Bodies that are not JSON of any operation.
ODD_BODIES: tuple[bytes, ...] = (
    *(b"", b" ", b"\n", b"null", b"[]", b"{}", b'""', b"0", b"true", b"\x00", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}"),
    b"<!DOCTYPE html><html><title>502</title><body>Bad gateway</body></html>",
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    *(b"[" * 100_000, b'{"a":' * 50_000, b'{"error":' * 20_000, b"{}" * 1000, b"{" * 200, b"-" * 100, b"1" * 10_000),
)
_TOKENS = (b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\x00", b"\xff", b"\\u", b"e999", b"NaN", b"null", b"\xc3")


def replace_values(draws: Draws, document: Document, odd_values: tuple[bytes, ...] = ODD_VALUES) -> bytes:
    """Replace one to three values of a document by odd ones."""
    text, end = document.text, len(document.text)
    for _ in range(1 + draws.below(3)):
        start, stop = pick(draws, document.spans)
        if stop > end:  # after or around a value that was replaced already
            continue
        text, end = text[:start] + pick(draws, odd_values) + text[stop:], start
    return text


def mutate_bytes(draws: Draws, text: bytes) -> bytes:
    """Remove, repeat, insert or replace some bytes of a text."""
    for _ in range(1 + draws.below(4)):
        place, length = draws.below(len(text) + 1), 1 + draws.below(16)
        match draws.below(5):
            case 0:
                text = text[:place] + text[place + length :]
            case 1:
                text = text[:place] + text[place : place + length] * 2 + text[place + length :]
            case 2:
                text = text[:place] + pick(draws, _TOKENS) + text[place:]
            case 3:
                text = text[:place] + draws.raw(length) + text[place + length :]
            case 4:
                text = text[:place]
    return text


def body(draws: Draws, document: Document, odd_values: tuple[bytes, ...] = ODD_VALUES) -> bytes:
    """Return a document unchanged, with replaced values or with mutated bytes, or another body."""
    match draws.below(8):
        case 0 | 1 | 2:
            return document.text
        case 3 | 4 | 5:
            return replace_values(draws, document, odd_values)
        case 6:
            return mutate_bytes(draws, document.text)
    return draws.raw(40) if one_in(draws, 3) else pick(draws, ODD_BODIES)
