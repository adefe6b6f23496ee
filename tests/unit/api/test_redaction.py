"""Tests of removing signed links, secrets and unprintable characters from texts of the service."""

import html
import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api import error_mapping, models
from airflow_modelarts.api.http import Response
from airflow_modelarts.api.places import obs_uri
from airflow_modelarts.api.redaction import (
    has_signature,
    may_hold_a_signed_link,
    printable,
    redact,
    without_signed_links,
)
from tests.support.flows import NOON, answer

SECRETS = ("S3CRET", "T0KEN", "AK1D")
QUERY = "AccessKeyId=AK1D&Expires=1767225600&x-obs-security-token=T0KEN&Signature=S3CRET%2Fx%3D"
AMAZONS = "X-Amz-Algorithm=A&X-Amz-Credential=AK1D%2F1&X-Amz-Security-Token=T0KEN&X-Amz-Signature=S3CRET"
TOKEN_ONLY = "x-obs-security-token=T0KEN&AccessKeyId=AK1D"

FORMS = {
    "a link": "https://b.obs.example/k/cat.jpg?{}",
    "no scheme": "GET /bucket/cat.jpg?{} returned 403",
    "an apostrophe in the path": "https://b.obs.example/it's/cat.jpg?{}",
    "an angle bracket in the path": "https://b.obs.example/a<b>c.jpg?{} x",
    "a quotation mark in the path": 'cannot read "b"c.jpg?{}',
    "a space in the path": "/bucket/my cat.jpg?{} x",
    "escaped slashes": r'{{"u": "https:\/\/b.obs.example\/cat.jpg?{}", "v": 1}}',
    "the query alone": "{}",
    "the query alone in a sentence": "the query was {} and it failed",
    "in parentheses": "(see {})",
    "after a colon": "query:{}",
    "after another parameter": "/k?x-image-process=style%2Fa&{}",
    "before another parameter": "/k?{}&x-image-process=a",
    "after a semicolon": "https://b/k;{}",
    "after an ampersand": "https://b/k&{}",
    "in a fragment": "https://b/k#{}",
    "twice": "https://b/k?{0} and then /l?{0}",
    "over lines": "first\nGET /k?{}\nlast",
    "in quotes": "'{}'",
    "in XML": "<Resource>/b/k?{}</Resource>",
}
SPELLINGS = {
    "as it is": str,
    "lower case": lambda text: text.replace("Signature", "signature").replace("AccessKeyId", "accesskeyid"),
    "upper case": lambda text: text.replace("Signature", "SIGNATURE").replace("Amz", "AMZ").replace("obs", "OBS"),
    "URL": lambda text: quote(text, safe=""),
    "URL twice": lambda text: quote(quote(text, safe=""), safe=""),
    "URL in lower case": lambda text: quote(text, safe="").replace("%3D", "%3d").replace("%26", "%26"),
    "HTML": html.escape,
    "HTML twice": lambda text: html.escape(html.escape(text)),
    "HTML by number": lambda text: text.replace("&", "&#38;").replace("=", "&#61;"),
    "HTML by hexadecimal number": lambda text: text.replace("&", "&#x26;").replace("=", "&#x3D;"),
    "Java's JSON": lambda text: text.replace("&", "\\u0026").replace("=", "\\u003d"),
    "JSON in JSON": lambda text: text.replace("&", "\\\\u0026").replace("=", "\\\\u003D"),
    "JavaScript": lambda text: text.replace("&", "\\x26").replace("=", "\\x3d"),
    "underscores": lambda text: text.replace("x-obs-security-token", "x_obs_security_token"),
}


def assert_no_secret(text: str) -> None:
    assert not [secret for secret in SECRETS if secret in text], text


@pytest.mark.parametrize("query", [QUERY, AMAZONS, TOKEN_ONLY], ids=["OBS", "S3", "token only"])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("form", FORMS)
def test_a_signature_is_removed_with_any_text_before_it(form: str, spelling: str, query: str) -> None:
    text = FORMS[form].format(SPELLINGS[spelling](query))
    assert_no_secret(without_signed_links(text))
    assert_no_secret(redact(text, []))
    assert_no_secret(json.dumps(without_signed_links({"a": [text], text: 1})))


@pytest.mark.parametrize("spelling", ["as it is", "URL", "HTML", "Java's JSON"])
@pytest.mark.parametrize("form", FORMS)
def test_a_signature_is_removed_from_tasks_and_errors(form: str, spelling: str) -> None:
    text = FORMS[form].format(SPELLINGS[spelling](QUERY))
    content = {"task_id": "t", "error_msg": text, "result": {"a": [text]}, "name": text, "work_path": {"path": text}}
    task = models.parse(models.ProcessorTask, json.dumps(content).encode())
    assert_no_secret(task.error_msg or "")
    assert_no_secret(json.dumps([task.result, task.to_json()]))
    version = models.parse(models.ProcessorTaskVersion, json.dumps({"error_msg": text}).encode())
    assert_no_secret(version.error_msg or "")
    response = answer({"error_code": "ModelArts.4312", "error_msg": text}, 400)
    assert_no_secret(str(error_mapping.from_response(response, operation="X", target="x", secrets=(), now=NOON)))


@pytest.mark.parametrize(
    "query",
    ["sv=2025&se=2026-01-01&sr=b&sig=S3CRET%2Fx%3D", "token=T0KEN", "access_token=T0KEN&a=1", "a=1&auth-token=T0KEN"],
)
@pytest.mark.parametrize("spelling", ["as it is", "URL", "HTML", "Java's JSON", "JSON in JSON"])
@pytest.mark.parametrize("form", FORMS)
def test_a_token_or_a_signature_of_another_service_is_removed(form: str, spelling: str, query: str) -> None:
    text = FORMS[form].format(SPELLINGS[spelling](query))
    assert_no_secret(without_signed_links(text))
    assert_no_secret(redact(text, []))
    content = json.dumps({"task_id": "t", "result": [text], "error_msg": text}).encode()
    task = models.parse(models.ProcessorTask, content)
    assert_no_secret(f"{task.result} {task.error_msg}")


@pytest.mark.parametrize("name", ["signature", "Signature", "sig", "securityToken", "security_token", "access_token"])
@pytest.mark.parametrize(
    "dump", [json.dumps, repr, lambda value: json.dumps(json.dumps(value))], ids=["JSON", "repr", "twice"]
)
def test_a_signature_in_json_within_a_text_is_removed(name: str, dump: Callable[[object], str]) -> None:
    text = f"sent {dump({'key': 'k', name: 'S3CRET', 'v': 1})} to OBS"
    assert_no_secret(redact(text, []))
    cut = without_signed_links(text)
    assert_no_secret(cut)
    assert cut.startswith("sent ")
    assert cut.endswith(" to OBS")
    assert "v" in cut


def test_the_text_around_a_query_is_kept() -> None:
    text = f"GET /bucket/cat.jpg?{QUERY} returned 403"
    assert without_signed_links(text) == "GET /bucket/cat.jpg returned 403"
    assert redact(text, []) == "GET /bucket/cat.jpg?… returned 403"
    assert without_signed_links(f"/it's.jpg?{QUERY}") == "/it's.jpg"
    inner = json.dumps({"u": f"/k?{QUERY}", "v": 1})
    assert json.loads(without_signed_links(inner)) == {"u": "/k", "v": 1}
    assert json.loads(json.loads(without_signed_links(json.dumps(inner)))) == {"u": "/k", "v": 1}


@pytest.mark.parametrize(
    "text", ["signature=S3CRET", "the Signature = S3CRET, they said", 'Signature="S3CRET"', "(Signature=S3CRET)"]
)
def test_a_signature_in_a_sentence_is_removed(text: str) -> None:
    assert "ignature" in without_signed_links(text)
    assert_no_secret(without_signed_links(text))


@pytest.mark.parametrize(
    "text",
    [
        "X-Security-Token: S3CRET",
        "x-obs-security-token : S3CRET",
        "X-Amz-Signature:S3CRET end",
        "headers were {'X-Auth-Token': 'S3CRET', 'Accept': '*/*'}",
        '{"X-Security-Token": "S3CRET", "v": 1}',
        json.dumps({"headers": json.dumps({"X-Security-Token": "S3CRET"})}),
        "X-Subject-Token=S3CRET",
    ],
)
def test_a_header_with_credentials_is_removed(text: str) -> None:
    assert "S3CRET" not in redact(text, [])
    assert "S3CRET" not in json.dumps(without_signed_links({"a": [text]}))
    task = models.parse(models.ProcessorTask, json.dumps({"task_id": "t", "error_msg": text}).encode())
    assert "S3CRET" not in f"{task.error_msg} {json.dumps(task.to_json())}"


def test_the_text_beside_a_header_is_kept() -> None:
    inner = json.dumps({"X-Security-Token": "S3CRET", "v": 1})
    assert json.loads(without_signed_links(inner))["v"] == 1


PROSE = [
    "the X-Auth-Token header is missing",
    "Signature: none",
    "what? signature=1",
    "signature=true",
    "the signature is invalid",
    "SignatureDoesNotMatch: check it",
    "obs://bucket/signature=abc/part-0.parquet",
    "https://h.example/?q=1&expires=2",
    "Expires=Thu, 01 Jan 2026 00:00:00 GMT",
    "my_signature=abc",
    "https://h.example/?design=1&page_token=2",
    "tokens=abc",
    '{"signature": null, "tokens": "abc", "design": "x"}',
    '{"signature": {"name": "f"}}',
    "obs://bucket/token=abc/part-0.parquet",
    "the token is missing; sig: x",
    "security token is missing",
    "x" * 1000,
    "",
]


@pytest.mark.parametrize("text", PROSE)
def test_a_text_without_a_signature_parameter_is_unchanged(text: str) -> None:
    assert without_signed_links(text) == text
    assert not has_signature(text)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            [*"?&;=%/\\\"' <>.-_sS1", "ignature", "Signature", "x-amz-", "u0026", "%26", "Expires", "token", ": "]
        ),
        max_size=30,
    ).map("".join)
)
@example("?Signature=a=b")
def test_any_text_without_a_signature_is_unchanged_and_any_other_loses_it(text: str) -> None:
    cut = without_signed_links(text)
    if not has_signature(text):
        assert cut == text
    assert without_signed_links(cut) == cut or "…" in cut


@pytest.mark.parametrize(
    "piece",
    [
        *("\\", "%25", "&amp;", "&#0", "signature", "&signature=", "?signature=1 ", "x-a-", "security%25"),
        *("x-aaaaaaaaa-", "a", "a.", "a://", "a://b?", "https://x/y?z=1,", "https://x/y?signatur=1,", "x ? "),
        *('Signature="', "#", "signature=\t", " Expires=", "?Signature=S ", "?'", "a?", "&amp;signature", "\\u0026"),
    ],
)
@pytest.mark.parametrize("before", ["", "/k?Signature=S "])
def test_a_long_hostile_text_takes_linear_time(piece: str, before: str) -> None:
    def seconds(length: int) -> float:
        text = before + piece * (length // len(piece))
        started = time.process_time()
        cut = without_signed_links(text)
        redact(text, ["a-secret"])
        took = time.process_time() - started
        assert has_signature(text) or cut == text
        return took

    shorter = min(seconds(15_000) for _ in range(3))
    # Ten times the length takes ten times as long on any machine. In quadratic time it takes a hundred times.
    assert any(seconds(150_000) < 35 * shorter + 0.02 for _ in range(3))


@pytest.mark.parametrize(
    "place", [f"obs://b/k%3F{QUERY}", f"/b/k;{QUERY}", f"obs://b/k%26{quote(QUERY)}", f"/b/k%3F{quote(QUERY, safe='')}"]
)
def test_a_signed_path_has_no_asset(place: str) -> None:
    uri = obs_uri(place)
    assert uri is None or not [secret for secret in SECRETS if secret in uri]


def test_a_folder_named_like_a_signature_is_a_path() -> None:
    assert obs_uri("obs://b/signature=abc/part") == "obs://b/signature=abc/part"


@pytest.mark.parametrize(
    "word", [b"Signature", b"SIGNATURE", b"sIGNATURe", b"Token", b"Sig", b'"signed_', b"Sign\\u0061ture"]
)
@pytest.mark.parametrize("before", [0, 1024 * 1024 - 4, 1024 * 1024, 3 * 1024 * 1024 - 1])
def test_a_body_with_a_signed_link_is_found_in_any_letter_case(word: bytes, before: int) -> None:
    assert may_hold_a_signed_link(b" " * before + word + b"=1")
    assert not may_hold_a_signed_link(b" " * before + b"sig")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    "query", [QUERY, AMAZONS, TOKEN_ONLY, "sig \t= S3CRET", "x-auth-token: T0KEN", "'sig' : 'S3CRET'"]
)
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_the_json_of_any_signed_link_may_hold_one(form: str, spelling: str, query: str, ensure_ascii: bool) -> None:
    value: object = {"link": FORMS[form].format(SPELLINGS[spelling](query))}
    for _ in range(3):  # an object, and its JSON in a text, and that once more
        assert may_hold_a_signed_link(json.dumps(value, ensure_ascii=ensure_ascii).encode())
        value = {"result": json.dumps(value, ensure_ascii=ensure_ascii)}


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *"?&;#=:'\" \t\\",
                "sig",
                "Signature",
                "TOKEN",
                "x-",
                "auth-",
                "security_",
                "%3D",
                "&amp;",
                "\\u003d",
                "signed_",
                "v",
            ]
        ),
        max_size=8,
    ).map("".join)
)
@example("&Signature\t =v")
def test_json_that_may_hold_no_signed_link_holds_none(text: str) -> None:
    for value in (text, {text: 1}, json.dumps({text: [text]})):
        if not may_hold_a_signed_link(json.dumps(value).encode()):
            assert without_signed_links(value) == value


@pytest.mark.parametrize(
    "value",
    [
        {"assigned_to": "design_team", "tokens": 3, "token": "a", "kind": "token", "signature": "b"},
        ["a signal", "the token is lost", "a=b&c=d", "50 %", "\u00e9\u00fc\u5b57<>&"],
    ],
)
def test_json_with_similar_words_certainly_holds_no_signed_link(value: object) -> None:
    assert not may_hold_a_signed_link(json.dumps(value).encode())


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\t", "\x00", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\u200f"]
)
def test_unprintable_characters_become_a_space(character: str) -> None:
    assert printable(f"a{character}b") == redact(f"a{character}b", []) == "a b"
    content = json.dumps({"task_id": "t", "status": 3, "error_msg": f"a{character}[31mb"}).encode()
    assert models.parse(models.ProcessorTask, content).error_msg == "a [31mb"
    assert models.parse(models.ProcessorTaskVersion, content).error_msg == "a [31mb"
    page = models.parse(models.ProcessorTaskPage, b'{"tasks": [' + content + b"]}")
    assert page.tasks
    assert page.tasks[0].error_msg == "a [31mb"
    assert page.tasks[0].to_json()["error_msg"] == "a [31mb"


@pytest.mark.parametrize("text", ["参数错误", "zażółć", "👩‍👩‍👧", "شكرا", "a  b", "naïve"])
def test_texts_of_any_language_are_kept(text: str) -> None:
    assert printable(text) == text


def test_names_are_kept_unchanged_since_they_are_compared() -> None:
    assert models.parse(models.ProcessorTask, b'{"task_id": "t", "name": "a\\nb"}').name == "a\nb"


def test_an_error_is_quoted_on_one_line() -> None:
    response = Response(400, {"x-request-id": "r\x1b[31m"}, b'{"error_code": "A\\n1", "error_msg": "b\\u2028c"}')
    error = error_mapping.from_response(response, operation="X", target="x", secrets=(), now=NOON)
    assert str(error).isprintable()


@pytest.mark.parametrize("half", ["\\ud83d", "\\uDE00", "\\ud83d\\u0041"])
def test_half_of_a_surrogate_pair_does_not_make_an_answer_unreadable(half: str) -> None:
    content = f'{{"task_id": "t", "status": 3, "error_msg": "cut {half}", "a": "\\\\ud83d \\ud83d\\ude00"}}'
    task = models.parse(models.ProcessorTask, content.encode())
    assert (task.status, (task.error_msg or "")[:5]) == (3, "cut \ufffd")
    assert task.to_json()["a"] == "\\ud83d \U0001f600"
