"""An audit's report as one HTML page that needs nothing else. Every text of the service's is escaped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from html import escape
from importlib.resources import files
from itertools import pairwise

from airflow_modelarts.audit import (
    CHECKS,
    DURATION_BOUNDS,
    AuditReport,
    AuditRules,
    Check,
    Finding,
    Findings,
    Window,
    format_datetime,
    format_duration,
)

#: Rows of a table, of which some are seen at once and more when asked for; the rest is in the JSON file.
ROWS, ROWS_AT_ONCE = 100, 6
#: Templates with bars of their own; the others share theirs.
TEMPLATES = 6
OTHERS = "others"
#: Times that a timeline names.
TICKS = 6
DAY_SECONDS = 24 * 60 * 60

#: In a cell for what is not known.
NOTHING = "-"

# In this order they are stacked. What the reference does not document is one kind here.
_STATUSES = ("completed", "running", "initialized", "stopped", "failed", "unknown")


def page(report: AuditReport, facts: Mapping[str, str] | None = None) -> str:
    """
    Return the report as a page.

    :param facts: what else to say at its end, such as the project, by name.
    """
    title = f"Processing tasks, {_when(report.window)}"
    body = "".join(
        [
            f"<header><p>ModelArts audit</p><h1>{escape(title)}</h1>{_lead(report)}</header>",
            _verdict(report),
            _headline(report),
            _charts(report) if report.total else '<p class="card empty">No task was created in this window.</p>',
            *(_table(check, report.findings[check.name], report.rules) for check in CHECKS),
            _rules(report),
            _footer(report, facts or {}),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        # Escaping is what keeps scripts out; this is for the day when it does not.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f"<style>{_style()}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def _style() -> str:
    return files("airflow_modelarts.audit").joinpath("html.css").read_text(encoding="utf-8")


def _when(window: Window) -> str:
    start = window.start.astimezone(UTC)
    is_a_day = window.end - window.start == timedelta(days=1) and start == start.replace(hour=0, minute=0, second=0)
    return _day(start, year=True) if is_a_day else f"{_date_and_time(start)} to {_date_and_time(window.end)}"


def _day(moment: datetime, *, year: bool = False) -> str:
    return f"{moment.day} {moment:%B %Y}" if year else f"{moment.day} {moment:%b}"


def _date_and_time(moment: datetime) -> str:
    moment = moment.astimezone(UTC)
    return f"{_day(moment)} {moment:%H:%M}"


def _lead(report: AuditReport) -> str:
    undated = f" {_number(report.undated)} more do not say when they were created." if report.undated else ""
    made_at = format_datetime(report.made_at)
    return f"<p>Created from {escape(str(report.window))}, as they were on {made_at} UTC.{undated}</p>"


def _verdict(report: AuditReport) -> str:
    checked = sum(_bound(check, report.rules) is not None for check in CHECKS)
    if not report.broken_rules:
        return f'<section class="card verdict good"><h2>All {checked} rules hold</h2></section>'
    anchors = {check.rule: check.name for check in CHECKS}
    items = "".join(
        f'<li><a href="#{anchors[broken.rule]}">{escape(broken.message)}</a></li>' for broken in report.broken_rules
    )
    broken = len(report.broken_rules)
    title = f"{broken} of {checked} rules {'is' if broken == 1 else 'are'} broken"
    return f'<section class="card verdict bad"><h2>{title}</h2><ul>{items}</ul></section>'


def _headline(report: AuditReport) -> str:
    counts = _by_kind(report.by_status)
    ended = counts["completed"] + counts["failed"] + counts["stopped"]
    active = f"{_number(counts['running'])} running, {_number(counts['initialized'])} initialized"
    tiles = [
        ("", report.total, "tasks", f"of {_plural(len(report.by_template), 'template')}"),
        ("", counts["completed"], "completed", _of_ended(counts["completed"], ended)),
        ("bad", counts["failed"], "failed", _of_ended(counts["failed"], ended)),
        ("", counts["running"] + counts["initialized"], "active", active),
    ]
    return '<section class="tiles">{}</section>'.format(
        "".join(
            f'<div class="card tile {colour if count else ""}"><b>{_number(count)}</b><span>{label}</span>'
            f"<small>{note}</small></div>"
            for colour, count, label, note in tiles
        )
    )


def _of_ended(count: int, ended: int) -> str:
    return f"{_percent(count, ended)} of what has ended" if ended else "none has ended"


# Charts: SVG draws the shapes, which stretch, and HTML the words, which do not.


def _charts(report: AuditReport) -> str:
    return (
        '<section class="charts">'
        f'<figure class="card"><figcaption>Status</figcaption>{_donut(report.by_status)}</figure>'
        f'<figure class="card"><figcaption>Templates</figcaption>{_template_bars(report)}</figure>'
        '<figure class="card wide"><figcaption>Created, '
        f"{format_duration(report.window.step_seconds)} a column</figcaption>"
        f"{_timeline(report)}</figure>{_histograms(report)}</section>"
    )


def _donut(by_status: Mapping[str, int]) -> str:
    total, turned, rings, rows = sum(by_status.values()), 0.0, [], []
    ordered = sorted(by_status.items(), key=lambda item: (_STATUSES.index(_kind(item[0])), item[0]))
    for status, count in ordered:
        share = 100 * count / total
        # A hairline between two neighbours; a very small share stays visible.
        drawn = max(share - (0.6 if len(ordered) > 1 else 0), 0.3)
        rings.append(
            f'<circle class="{_kind(status)}" r="48" cx="64" cy="64" pathLength="100" '
            f'stroke-dasharray="{drawn:.2f} 100" stroke-dashoffset="{-turned:.2f}">'
            f"<title>{escape(status)}: {_number(count)}</title></circle>"
        )
        rows.append(
            f'<li><i class="{_kind(status)}"></i><span>{escape(status)}</span><b>{_number(count)}</b>'
            f"<small>{_percent(count, total)}</small></li>"
        )
        turned += share
    says = ", ".join(f"{count} {status}" for status, count in ordered)
    size = min(21, 108 // len(_number(total)))  # so that the number fits into the ring
    return (
        f'<div class="donut"><svg viewBox="0 0 128 128" role="img" aria-label="{escape(says)}">{"".join(rings)}'
        f'<text x="64" y="66" style="font-size:{size}px">{_number(total)}</text>'
        f'<text class="small" x="64" y="82">tasks</text></svg>'
        f"<ul>{''.join(rows)}</ul></div>"
    )


def _template_bars(report: AuditReport) -> str:
    rows = _templates(report)
    longest = max(sum(counts.values()) for _, counts in rows)
    bars = "".join(
        f'<div class="bar"><span>{escape(template)}</span><b>{_number(sum(counts.values()))}</b>'
        f"{_stacked_bar(counts, longest)}</div>"
        for template, counts in rows
    )
    return bars + _legend(report.by_status)


def _templates(report: AuditReport) -> list[tuple[str, Counter[str]]]:
    """Return the counts by status of the largest templates, and of the others together."""
    counts = {template: Counter(by_status) for template, by_status in report.by_template.items()}
    ordered = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
    if len(ordered) <= TEMPLATES:
        return ordered
    rest = sum((by_status for _, by_status in ordered[TEMPLATES - 1 :]), Counter[str]())
    return [*ordered[: TEMPLATES - 1], (OTHERS, rest)]


def _stacked_bar(by_status: Mapping[str, int], longest: int) -> str:
    rects, x = [], 0.0
    for kind, count in _in_order(by_status):
        width = 1000 * count / longest
        rects.append(
            f'<rect class="{kind}" x="{x:.1f}" width="{width:.1f}" height="10">'
            f"<title>{_number(count)} {kind}</title></rect>"
        )
        x += width
    return f'<svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">{"".join(rects)}</svg>'


def _timeline(report: AuditReport) -> str:
    window, step = report.window, report.window.step_seconds
    columns = math.ceil((window.end - window.start).total_seconds() / step)
    top = _round_up(max(sum(counts.values()) for counts in report.timeline.values()))
    rects = []
    for number, by_status in sorted(report.timeline.items()):
        y, when = 100.0, _date_and_time(window.start + timedelta(seconds=number * step))
        for kind, count in _in_order(by_status):
            height = 100 * count / top
            y -= height
            rects.append(
                f'<rect class="{kind}" x="{number * 10 + 1}" y="{y:.2f}" width="8" height="{height:.2f}">'
                f"<title>{when}: {_number(count)} {kind}</title></rect>"
            )
    scale = "".join(f"<span>{_number(value)}</span>" for value in (top, top // 2, 0))
    return (
        f'<div class="timeline"><div class="scale" aria-hidden="true">{scale}</div><div class="plot">'
        f'<svg viewBox="0 0 {columns * 10} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Tasks by the time of their creation">{"".join(rects)}</svg></div>'
        f'<div class="times" aria-hidden="true">{_times(window, columns)}</div></div>{_legend(report.by_status)}'
    )


def _times(window: Window, columns: int) -> str:
    step = window.step_seconds
    by_day = columns * step > 2 * DAY_SECONDS
    # A label that is a day stands at its beginning, if the window begins with one.
    unit = max(DAY_SECONDS // step, 1) if by_day else 1
    every = math.ceil(columns / TICKS / unit) * unit
    labels = []
    for number in range(0, columns, every):
        moment = (window.start + timedelta(seconds=number * step)).astimezone(UTC)
        text = _day(moment) if by_day else f"{moment:%H:%M}"
        labels.append(f'<span style="left:{100 * number / columns:.2f}%">{text}</span>')
    return "".join(labels)


def _histograms(report: AuditReport) -> str:
    rows = _durations(report)
    if not rows:
        return ""
    most = max(max(groups) for _, groups in rows)
    charts = "".join(
        f'<div><h3>{escape(template)}</h3><div class="histogram">{"".join(_groups(groups, most))}</div></div>'
        for template, groups in rows
    )
    return (
        '<figure class="card wide"><figcaption>How long it took, tasks that have ended</figcaption>'
        f'<div class="histograms">{charts}</div></figure>'
    )


def _durations(report: AuditReport) -> list[tuple[str, list[int]]]:
    ordered = sorted(report.durations.items(), key=lambda item: (-sum(item[1]), item[0]))
    if len(ordered) <= TEMPLATES:
        return [(template, list(groups)) for template, groups in ordered]
    rest = [sum(column) for column in zip(*(groups for _, groups in ordered[TEMPLATES - 1 :]), strict=True)]
    return [*((template, list(groups)) for template, groups in ordered[: TEMPLATES - 1]), (OTHERS, rest)]


def _groups(groups: Iterable[int], most: int) -> Iterator[str]:
    limits = [format_duration(bound) for bound in DURATION_BOUNDS]
    names = [f"< {limits[0]}", *(f"{a} to {b}" for a, b in pairwise(limits)), f"≥ {limits[-1]}"]
    for name, count in zip(names, groups, strict=True):
        yield (
            f'<span>{escape(name)}</span><svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="plain" width="{1000 * count / most:.1f}" height="10"/></svg>'
            f"<b>{_number(count) if count else ''}</b>"
        )


def _legend(by_status: Mapping[str, int]) -> str:
    items = "".join(f'<li><i class="{kind}"></i>{kind}</li>' for kind, _ in _in_order(by_status))
    return f'<ul class="legend">{items}</ul>'


def _in_order(by_status: Mapping[str, int]) -> list[tuple[str, int]]:
    counts = _by_kind(by_status)
    return [(kind, counts[kind]) for kind in _STATUSES if counts[kind]]


def _by_kind(by_status: Mapping[str, int]) -> Counter[str]:
    counts = Counter[str]()
    for status, count in by_status.items():
        counts[_kind(status)] += count
    return counts


def _kind(status: str) -> str:
    return status if status in _STATUSES else "unknown"


def _round_up(number: int) -> int:
    """Return the next number that a scale can end with: even, so that there is a middle, and otherwise round."""
    size: int = 10 ** max(len(str(number)) - 2, 0)
    ends = (2, 4, 6, 8, 10, 12, 16, 20, 24, 30, 40, 50, 60, 80, 100)
    return next(end * size for end in ends if end * size >= number)


# Tables


def _table(check: Check, findings: Findings, rules: AuditRules) -> str:
    if not findings.count:
        return ""
    rows = [_row(finding) for finding in findings.kept[:ROWS]]
    more = findings.count - len(rows)
    rest = f"<p>{_number(more)} more are not on this page; the JSON file has them.</p>" if more else ""
    head = f"<th>Task<th>Template<th>Status<th>Created (UTC)<th>Took<th>{check.column}"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows[:ROWS_AT_ONCE])}</tbody></table>"
    if further := rows[ROWS_AT_ONCE:]:
        summary = f"<summary>{_number(len(further))} more</summary>"
        table += f"<details>{summary}<table><tbody>{''.join(further)}</tbody></table></details>"
    colour = "bad" if check.verdict(findings.count, rules) else ""
    title = f'<h2 class="{colour}">{check.title} <span>{_number(findings.count)}</span></h2>'
    return f'<section class="card" id="{check.name}">{title}{table}{rest}</section>'


def _row(finding: Finding) -> str:
    created = NOTHING
    if finding.create_time is not None:
        created = f"{datetime.fromtimestamp(finding.create_time // 1000, UTC):%Y-%m-%d %H:%M}"
    took = NOTHING if finding.duration_seconds is None else format_duration(finding.duration_seconds)
    name = f"<b>{escape(finding.name)}</b>" if finding.name else ""
    status = escape(finding.status_name)
    return (
        f"<tr><td>{name}<code>{escape(finding.task_id)}</code>"
        f'<td data-is="Template">{escape(finding.template_id or NOTHING)}'
        f'<td data-is="Status"><i class="{_kind(finding.status_name)}"></i>{status}'
        f'<td data-is="Created">{created}<td data-is="Took">{took}'
        f'<td class="detail">{escape(finding.detail or NOTHING)}</tr>'
    )


def _rules(report: AuditReport) -> str:
    broken = {broken.rule for broken in report.broken_rules}
    rows = []
    for check in CHECKS:
        bound = _bound(check, report.rules)
        state = "not checked" if bound is None else "broken" if check.rule in broken else "holds"
        rows.append(
            f'<tr class="{state.replace(" ", "-")}"><td><code>{check.rule.replace("_", "_<wbr>")}</code>'
            f"<td>{bound or NOTHING}<td>{_number(report.findings[check.name].count)}<td>{state}</tr>"
        )
    return (
        '<section class="card"><h2>Rules</h2><table class="rules"><thead><tr><th>Rule<th>Allowed<th>Found<th>State</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></section>"
    )


def _bound(check: Check, rules: AuditRules) -> str | None:
    """Return what a rule allows, as HTML; None when it is not checked."""
    value = getattr(rules, check.rule)
    if value is None or value is False:
        return None
    if value is True:
        return "required"
    if isinstance(value, tuple):
        return "<br>".join(f"<code>{escape(place)}</code>" for place in value) or "nowhere"
    return format_duration(value) if check.rule.endswith("seconds") else _number(value)


def _footer(report: AuditReport, facts: Mapping[str, str]) -> str:
    return "<footer>{}</footer>".format(
        "".join(f"<span>{escape(name)} <code>{escape(fact)}</code></span>" for name, fact in facts.items())
    )


# Numbers


def _number(number: int) -> str:
    return f"{number:,}"


def _percent(part: int, whole: int) -> str:
    """Return a share as HTML; it is 0 % and 100 % only if it is."""
    share = 100 * part / whole
    if part and share < 1:
        return "&lt; 1 %"
    return f"{math.floor(share) if part < whole and share > 99 else round(share)} %"


def _plural(count: int, noun: str) -> str:
    return f"{_number(count)} {noun}{'' if count == 1 else 's'}"
