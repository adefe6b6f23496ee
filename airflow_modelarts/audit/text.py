"""How the audit writes times and durations, and how it shows text of the service."""

from __future__ import annotations

import math
from calendar import timegm
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Characters of a name or an id that a report keeps; the service's own are shorter.
MAX_NAME = 200


def milliseconds(moment: datetime) -> int:
    """Return a moment as the API writes it: milliseconds since the epoch.

    It is rounded down: all tasks created before that millisecond exist at the moment.
    """
    return timegm(moment.utctimetuple()) * 1000 + moment.microsecond // 1000


def from_milliseconds(moment: int) -> datetime:
    """Return a moment of the API in UTC."""
    return EPOCH + timedelta(milliseconds=moment)


def iso(moment: datetime) -> str:
    """Return a moment in UTC as ISO 8601 text."""
    return moment.astimezone(UTC).isoformat()


def read_timezone(name: object) -> ZoneInfo:
    """Return the time zone of a name such as ``Europe/Berlin``.

    :raises ValueError: no zone has this name.
    """
    try:
        return ZoneInfo(str(name))
    except (KeyError, ValueError, OSError):  # not found, no name of a file, a folder of zones
        raise ValueError(f"timezone is {name!r}: give the name of a zone such as 'Europe/Berlin' or 'UTC'") from None


def format_datetime(moment: datetime, zone: tzinfo = UTC) -> str:
    """Return a moment in a time zone to the minute; to the second unless that is zero."""
    moment = moment.astimezone(zone)
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment.second else f"{moment:%Y-%m-%d %H:%M}"


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units, for example ``2 h 5 min``."""
    left, parts = max(int(seconds), 0), []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number:,} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def percent(part: int, whole: int) -> str:
    """Return a share in percent. Only exact shares are written as 0 % and 100 %."""
    share = 100 * part / whole
    if part and share < 1:
        return "< 1 %"
    return f"{math.floor(share) if part < whole and share > 99 else round(share)} %"


def sanitize(text: str, limit: int = MAX_NAME) -> str:
    """Return text of the service on one line, without signed links, cut to ``limit`` characters."""
    from airflow_modelarts.api.redaction import printable, without_signed_links

    return shorten(printable(without_signed_links(text)), limit)


def shorten(text: str, limit: int) -> str:
    """Cut text to ``limit`` characters, the last of them an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
