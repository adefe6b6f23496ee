"""The HTML page of an audit: one file that loads nothing else, and whose markup no text of the service can change."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.audit import AuditRules, Window, audit, charts, milliseconds
from airflow_modelarts.audit.html import ROWS, page
from airflow_modelarts.audit.report import KEPT_FINDINGS
from airflow_modelarts.audit.text import percent

START = datetime(2026, 11, 23, tzinfo=UTC)
DAY = Window(START, START + timedelta(days=1))
HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>&amp;"
RULES = AuditRules(longest_seconds=60, stuck_after_seconds=60, allowed_output_prefixes=["obs://b/out"])
OPTIONAL_ENDS = {"td", "th"}
VOID = {"meta", "wbr", "br"}


class Page(HTMLParser):
    """Collects elements, attributes, text and style, and checks that every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text = self.style = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(name, value or "") for name, value in attributes]
        if tag not in VOID | OPTIONAL_ENDS:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["style"]:
            self.style += data
        else:
            self.text += f"{data} "


def tasks(count: int = 1, **fields: Any) -> list[ProcessorTask]:
    usual = {"status": 2, "create_time": milliseconds(START), "duration_seconds": 30, "template": {"id": "cleaning"}}
    usual["work_path"] = {"type": "OBS", "path": "obs://b/out/"}
    return [ProcessorTask.model_validate({**usual, "task_id": f"t{number}", **fields}) for number in range(count)]


def page_of(found: Iterable[ProcessorTask], window: Window = DAY, rules: AuditRules = RULES, **facts: str) -> str:
    return page(audit(found, window=window, now=window.end + timedelta(hours=1), rules=rules), facts)


def test_no_text_of_the_service_becomes_markup() -> None:
    names = ("task_id", "name", "description", "error_msg", "version_name", "workspace_id", "result")
    hostile: dict[str, Any] = dict.fromkeys(names, HOSTILE)
    hostile |= {"template": {"id": HOSTILE, "name": HOSTILE}, "data_source": {"type": HOSTILE, "source": HOSTILE}}
    place = {"type": "OBS", "path": HOSTILE, "output_path": f"obs://{HOSTILE}", "name": HOSTILE}
    every_kind = [
        *tasks(**hostile, status=3, work_path=place),
        *tasks(**hostile, status=1, duration_seconds=9000),
        *tasks(**hostile, work_path=None),
    ]
    html = page_of(every_kind, **{HOSTILE: HOSTILE})
    read = Page(html)
    assert not {"script", "img"} & set(read.elements)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert "<script>alert('x')</script>" in read.text


@given(st.text(), st.text(), st.text())
def test_no_text_changes_the_elements_of_the_page(name: str, message: str, template: str) -> None:
    plain = Page(page_of(tasks(status=3, name="n", error_msg="m", template={"id": "t"})))
    read = Page(page_of(tasks(status=3, name=name or "n", error_msg=message, template={"id": template or "t"})))
    assert read.elements == plain.elements


def test_the_page_loads_nothing_and_its_policy_forbids_it() -> None:
    read = Page(page_of([*tasks(20, status=3), *tasks(5, status=1)]))
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in read.attributes
    assert not {"link", "script", "img", "iframe", "object", "base", "form"} & set(read.elements)
    places = [value for name, value in read.attributes if name in ("href", "src", "action", "xlink:href")]
    assert all(place.startswith("#") for place in places)
    assert not re.search(r"url\(|@import", read.style)


def test_the_page_has_the_window_the_broken_rules_and_the_counts() -> None:
    found = [*tasks(3), *tasks(status=3, error_msg="the bucket is full")]
    text = " ".join(Page(page_of(found, Project="p-1", Run="scheduled__2026")).text.split())
    assert "Processing tasks, 23 November 2026" in text
    assert "Tasks created from 2026-11-23 00:00 to 2026-11-24 00:00 UTC, as of 2026-11-24 01:00 UTC." in text
    assert "1 of 5 rules is broken 1 task has failed" in text
    assert "4 tasks of 1 template 3 completed 75 % of ended tasks 1 failed 25 % of ended tasks 0 active" in text
    assert "the bucket is full" in text
    assert "Project p-1 Run scheduled__2026" in text


def test_the_page_lists_the_rules_that_hold_and_those_that_are_not_checked() -> None:
    rules = AuditRules(failures_allowed=5, allowed_output_prefixes=[], outputs_required=False)
    text = " ".join(Page(page_of(tasks(work_path=None), rules=rules)).text.split())
    assert "All 2 rules hold" in text
    assert "failures_ allowed 5 0 holds" in text
    assert "longest_ seconds - - not checked" in text
    assert "allowed_ output_ prefixes nowhere 0 holds" in text


def test_a_window_without_tasks_has_no_charts() -> None:
    read = Page(page_of([]))
    assert "No task was created in this window." in read.text
    assert not read.elements["svg"]


def test_tasks_without_create_time_are_counted() -> None:
    assert "7 more have no creation time." in page_of(tasks(7, create_time=None))


def test_one_task_is_no_plural() -> None:
    text = " ".join(Page(page_of([*tasks(), *tasks(create_time=None)])).text.split())
    assert "1 task of 1 template" in text
    assert "1 more has no creation time." in text


def test_each_chart_shows_every_status_that_occurs() -> None:
    statuses = {0: "initialized", 1: "running", 2: "completed", 3: "failed", 4: "stopped", 9: "unknown (9)"}
    html = page_of([one for status in statuses for one in tasks(2, status=status)])
    donut, bars, timeline = re.findall(r"(?s)<figure.*?</figure>", html)[:3]
    for name in statuses.values():
        kind = name.split()[0]
        assert f"<title>{name}: 2</title>" in donut
        assert f"<title>2 {kind}</title>" in bars
        assert f"<title>23 Nov 00:00: 2 {kind}</title>" in timeline


def test_templates_beyond_the_largest_share_a_bar() -> None:
    found = [one for number in range(9) for one in tasks(10 - number, template={"id": f"template-{number}"})]
    figures = "".join(re.findall(r"(?s)<figure.*?</figure>", page_of(found)))
    assert "template-4" in figures
    assert "template-5" not in figures
    assert len(re.findall(rf">{charts.OTHERS}<", figures)) == 2


def test_every_table_has_headers_with_a_scope_and_every_row_a_header() -> None:
    html = page_of([*tasks(20, status=3), *tasks(3, status=1, duration_seconds=9000)])
    tables = re.findall(r"(?s)<table.*?</table>", html)
    assert len(tables) >= 5
    for table in tables:
        assert re.search(r'<table[^>]* aria-labelledby="[\w-]+"|<caption>', table)
        assert '<th scope="col"' in table.partition("</thead>")[0]
        assert not re.search(r"<th(?! [^>]*scope=|ead)", table)
        rows = re.findall(r"<tr[ >].*?(?=<tr[ >]|</tbody>)", table.partition("</thead>")[2], re.DOTALL)
        assert rows
        assert all(re.match(r'<tr[^>]*><th scope="row', row) for row in rows)


def test_what_a_picture_shows_is_text_too() -> None:
    found = [*tasks(3), *tasks(2, status=3), *tasks(1, status=4, template={"id": "other"})]
    text = " ".join(Page(page_of(found)).text.split())
    assert "cleaning 5 3 completed 2 failed 3 completed, 2 failed other 1 1 stopped 1 stopped" in text
    assert "Tasks by creation time (UTC) From completed stopped failed 23 Nov 00:00 3 1 2" in text


def test_no_heading_skips_a_level() -> None:
    levels = [int(level) for level in re.findall(r"<h(\d)", page_of([*tasks(20, status=3), *tasks(5)]))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_page_has_one_banner_and_one_main_part() -> None:
    html = page_of(tasks())
    assert re.search(r"(?s)<body>\s*<header>.*</header>\s*<main>.*</main></body>", html)


def channel(value: int) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    wide = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    red, green, blue = (channel(int(wide[index : index + 2], 16)) for index in (0, 2, 4))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2 defines it."""
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_enough_contrast(scheme: int) -> None:
    style = re.findall(r":root \{(.*?)\}", Page(page_of([])).style, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#\w+)", style))
    for kind in (*charts.KINDS, "plain"):
        for ground in ("card", "track"):
            assert contrast(colours[kind], colours[ground]) >= 3, (kind, ground)
    for text in ("ink", "soft", "good", "bad"):
        for ground in ("card", "page"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def test_paper_has_the_folded_rows_and_light_colours() -> None:
    style = Page(page_of([])).style
    printed = style.partition("@media print {")[2]
    assert "details:not([open]) + table .more { display: table-row-group; }" in printed
    narrow_or_dark = re.findall(r"@media ([^{]*(?:max-width|prefers-color-scheme)[^{]*)\{", style)
    assert narrow_or_dark
    assert all(query.startswith("screen ") for query in narrow_or_dark), "a page of paper is narrow, and not dark"


def test_an_audit_without_tasks_says_that_there_was_nothing_to_check() -> None:
    text = " ".join(Page(page_of([])).text.split())
    assert "There was no task to check" in text
    assert "failures_ allowed 0 0 nothing to check" in text
    assert "hold" not in text


def test_rules_of_a_template_are_beside_the_general_ones() -> None:
    rules = AuditRules(failure_rate_allowed=0.05, tasks_required=1, by_template={"slow": {"longest_seconds": "2h"}})
    text = " ".join(Page(page_of([*tasks(9), *tasks(status=3)], rules=rules)).text.split())
    assert "failure_ rate_ allowed 5 % 10 % broken" in text
    assert "tasks_ required 1 10 holds" in text
    assert "longest_ seconds - slow: 2 h 0 holds" in text


@pytest.mark.parametrize("url", ["https://c.example.com/t0?a=1&b=2", "http://c.example.com/", "javascript:x"])
def test_a_finding_links_to_a_console_that_is_reached_by_https(url: str) -> None:
    report = audit(tasks(status=3), window=DAY, now=DAY.end, rules=RULES, console_url=lambda task_id: url)
    links = [value for name, value in Page(page(report)).attributes if name == "href" and value[:1] != "#"]
    assert links == ([url] if url.startswith("https:") else [])


@pytest.mark.parametrize(
    ("zone", "start", "end", "title"),
    [
        ("Europe/Berlin", datetime(2026, 11, 22, 23, tzinfo=UTC), timedelta(hours=24), "23 November 2026"),
        ("Europe/Berlin", datetime(2026, 10, 24, 22, tzinfo=UTC), timedelta(hours=25), "25 October 2026"),
        ("UTC", datetime(2026, 10, 24, 22, tzinfo=UTC), timedelta(hours=24), "24 Oct 2026 22:00 to 25 Oct 2026 22:00"),
    ],
)
def test_the_title_is_the_day_in_the_zone_that_was_chosen(
    zone: str, start: datetime, end: timedelta, title: str
) -> None:
    window = Window(start, start + end)
    report = audit(tasks(status=3, create_time=milliseconds(start)), window=window, now=window.end)
    html = page(replace(report, zone=ZoneInfo(zone)))
    assert f"<title>Processing tasks, {title}</title>" in html
    assert f"Created ({zone})" in html
    assert f"{start.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}</td>" in html.replace("\n", "</td>\n")


def test_a_long_table_expands_and_a_very_long_one_refers_to_the_json() -> None:
    read = Page(page_of(tasks(ROWS + 20, status=3)))
    assert read.elements["details"] == 1
    assert "94 more" in read.text
    assert "20 more are not on this page; the JSON file has them." in " ".join(read.text.split())


@pytest.mark.parametrize(
    ("rows_path", "where"),
    [
        ("s3://b/rows.jsonl", "every task is in s3://b/rows.jsonl ."),
        (None, "no file has those, since rows_path is not"),
    ],
)
def test_the_page_says_how_many_findings_the_json_left_out(rows_path: str | None, where: str) -> None:
    report = audit(tasks(KEPT_FINDINGS + 2000, status=3), window=DAY, now=DAY.end, rules=RULES)
    assert report.to_json()["findings"]["failed"]["left_out"] == 2000
    text = " ".join(Page(page(replace(report, rows_path=rows_path))).text.split())
    assert f"11,900 more are not on this page; the JSON file has all but 2,000; {where}" in text


@pytest.mark.parametrize(
    ("length", "title", "times"),
    [
        (timedelta(hours=3), "23 Nov 2026 00:00 to 23 Nov 2026 03:00", ["00:00", "00:30"]),
        (timedelta(days=10), "23 Nov 2026 00:00 to 3 Dec 2026 00:00", ["23 Nov", "25 Nov"]),
    ],
)
def test_title_and_time_labels_fit_the_window(length: timedelta, title: str, times: list[str]) -> None:
    html = page_of(tasks(), Window(START, START + length))
    assert f"<h1>Processing tasks, {title}</h1>" in html
    assert re.findall(r'<span style="left:[\d.]+%">([^<]*)</span>', html)[:2] == times


@given(st.integers(1, 10**9))
def test_a_scale_ends_at_an_even_number_at_most_twice_as_large(number: int) -> None:
    top = charts.round_up(number)
    assert number <= top <= max(2 * number, 2)
    assert top % 2 == 0


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [(0, 5, "0 %"), (5, 5, "100 %"), (1, 1000, "< 1 %"), (999, 1000, "99 %"), (1, 3, "33 %")],
)
def test_only_exact_shares_are_0_and_100_percent(part: int, whole: int, words: str) -> None:
    assert percent(part, whole) == words


def test_a_narrow_screen_hides_cells_and_histogram_rows_without_a_value() -> None:
    html = page_of(tasks(status=3, name="n", template=None, error_msg=None, duration_seconds=None, work_path=None))
    assert re.findall(r'<td[^>]*absent">(.*)', html) == ["-", "-", "-"]  # template, duration and message
    html = page_of(tasks(status=3, name="n", error_msg="m"))
    assert not re.findall(r'<td[^>]*absent">', html)
    assert html.count('<div class="absent">') == len(charts.DURATION_GROUPS) - 1
    narrow = Page(html).style.partition("@media screen and (max-width: 760px)")[2]
    assert ".histogram .absent, .findings tbody tr td.absent { display: none; }" in narrow


def test_template_and_style_are_read_as_utf_8_in_any_locale() -> None:
    code = "from airflow_modelarts.audit.html import _template; _template()"
    strict = ["-X", "warn_default_encoding", "-W", "error::EncodingWarning"]
    finished = subprocess.run([sys.executable, *strict, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "✕" in Page(page_of([])).style
