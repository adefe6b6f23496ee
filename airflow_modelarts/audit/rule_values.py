"""How the values of audit rules are read: numbers, durations and lists, also as the text that templates render."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence, Set
from datetime import timedelta
from typing import Any

from airflow_modelarts.api.arguments import is_template
from airflow_modelarts.api.bodies import read_text
from airflow_modelarts.api.places import obs_uri

#: Texts that stand for no value, as an empty template and a None in a template render.
_NOT_GIVEN = ("", "none", "null")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_UNITS = {
    "weeks": "w(?:eeks?)?",
    "days": "d(?:ays?)?",
    "hours": "h(?:ours?|rs?)?",
    "minutes": "m(?:in(?:ute)?s?)?",
    "seconds": "s(?:ec(?:ond)?s?)?",
}
#: A duration with units such as ``1 d 12 h``, in ISO 8601 such as ``PT12H``, and as Python writes a timedelta.
#: They are compiled when they are first used, since DAG files import this module.
_DURATIONS = (
    r"[\s,]*".join(rf"(?:(?P<{unit}>{_NUMBER})\s*{word})?" for unit, word in _UNITS.items()),
    rf"P(?:(?P<weeks>{_NUMBER})W)?(?:(?P<days>{_NUMBER})D)?"
    rf"(?:T(?:(?P<hours>{_NUMBER})H)?(?:(?P<minutes>{_NUMBER})M)?(?:(?P<seconds>{_NUMBER})S)?)?",
    r"(?:(?P<days>\d+) days?, )?(?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>\d\d(?:\.\d+)?)",
)


def is_given(value: Any) -> bool:
    """Whether a value is more than a text that stands for none."""
    return not (isinstance(value, str) and value.strip().lower() in _NOT_GIVEN)


def read_count(name: str, value: Any) -> int:
    """Read a number of tasks."""
    number = _number(value)
    if number is None or not number.is_integer():
        raise _mistake(name, value, "a whole number that is not negative, or None")
    return int(number)


def read_share(name: str, value: Any) -> float:
    """Read a share from 0 to 1; a text may be in percent."""
    text = value.strip() if isinstance(value, str) else ""
    number = _number(text.removesuffix("%")) if text.endswith("%") else _number(value)
    share = number / 100 if number is not None and text.endswith("%") else number
    if share is None or share > 1:
        raise _mistake(name, value, "a share from 0 to 1 such as 0.05, or None")
    return share


def read_seconds(name: str, value: Any) -> float:
    """Read a duration in seconds from a number, a timedelta, or the text of one."""
    number = _number(value.total_seconds() if isinstance(value, timedelta) else value)
    if number is None and isinstance(value, str):
        number = _duration(value.strip())
    if number is None:
        raise _mistake(name, value, "seconds, a timedelta or a text such as '12h', or None")
    return int(number) if number.is_integer() else number


def read_truth(name: str, value: Any) -> bool:
    """Read a truth value."""
    word = str(value).strip().lower() if isinstance(value, bool | int | str) else None
    if word not in (*_TRUE, *_FALSE):
        raise _mistake(name, value, "True or False")
    return word in _TRUE


def read_prefixes(name: str, value: Any) -> tuple[str, ...]:
    """Read places in OBS from a list, the text of a list, or one text, as URIs."""
    listed = read_text(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    if isinstance(listed, str):
        listed = [listed]
    if not isinstance(listed, Sequence | Set) or isinstance(listed, bytes):
        raise _mistake(name, value, "a list of places in OBS such as ['obs://bucket/folder'], or None")
    places = listed if isinstance(listed, Sequence) else sorted(listed, key=str)
    return tuple(_read_prefix(name, place) for place in places)


#: How the value of each rule is read. The names are the fields of AuditRules, without the rules by template.
READERS: dict[str, Callable[[str, Any], Any]] = {
    "failures_allowed": read_count,
    "failure_rate_allowed": read_share,
    "stopped_allowed": read_count,
    "tasks_required": read_count,
    "longest_seconds": read_seconds,
    "stuck_after_seconds": read_seconds,
    "allowed_output_prefixes": read_prefixes,
    "outputs_required": read_truth,
}


def _mistake(name: str, value: Any, way_out: str) -> ValueError:
    if is_template(value):
        way_out = "the rules as a dict, which Airflow renders; it renders nothing in AuditRules"
    return ValueError(f"{name} is {repr(value)[:200]}: give {way_out}")


def _number(value: Any) -> float | None:
    """Return a finite number that is not negative; None for anything else, also for a truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < math.inf else None


def _duration(text: str) -> float | None:
    for pattern in _DURATIONS:
        found = re.fullmatch(pattern, text, re.IGNORECASE)
        if found and (parts := {unit: float(number) for unit, number in found.groupdict().items() if number}):
            try:
                return timedelta(**parts).total_seconds()
            except OverflowError:
                return None
    return None


def _read_prefix(name: str, place: Any) -> str:
    uri = obs_uri(place, is_in_obs=True) if isinstance(place, str) else None
    if uri is None:
        raise ValueError(f"{name} has {repr(place)[:200]}: write places in OBS as obs://bucket/folder")
    return uri
