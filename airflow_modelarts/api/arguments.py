"""Reading of arguments that DAG authors write. DAG files load it, so it imports nothing that is slow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from numbers import Number, Real
from typing import Any

#: The templates that the API reference documents. An installation can offer others (ListProcessorTaskItems).
TEMPLATE_IDS = (
    "sys_data_analyse",
    "sys_data_cleaning",
    "sys_data_augmentation",
    "sys_data_validation",
    "sys_data_selection",
)
#: Arguments that an error names, at most: an operator has many of Airflow's own.
MAX_NAMED = 20
#: The beginnings of Jinja's expressions, blocks and comments.
TEMPLATE_MARKS = ("{{", "{%", "{#")


class ArgumentError(TypeError, ValueError):
    """An argument is unknown, or its value cannot be right.

    It is a ``TypeError`` because a triggerer ends at any other exception of a trigger's constructor.
    """


#: What operators of other providers call a limit of polls.
LIMITS_OF_ATTEMPTS = ("max_attempts", "waiter_max_attempts")


def refuse_unknown(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse arguments that a class does not have.

    :param owner: the name of the class, for the error.
    :param given: names of arguments that no parameter took.
    :param known: names of the parameters.
    :raises ArgumentError: there is one; the message has the nearest known name.
    """
    known = sorted(known)
    for name in given:
        nearest = _nearest(name, known)
        named = f"it has {', '.join(known)}" if len(known) <= MAX_NAMED else "its docstring names its arguments"
        way_out = f"write {nearest}=" if nearest else named
        if name in LIMITS_OF_ATTEMPTS:
            way_out = "limit the wait by execution_timeout=, or that of a sensor by timeout="
        raise ArgumentError(f"{owner} has no argument {name!r}: {way_out}")


def read_seconds(name: str, given: object) -> float:
    """Read an interval from a number of seconds or a timedelta.

    :raises ArgumentError: it is not finite and greater than 0.
    """
    seconds: Any = given.total_seconds() if isinstance(given, timedelta) else given
    if isinstance(seconds, Real) and not isinstance(seconds, bool):
        try:
            read = float(seconds)
        except OverflowError:
            read = math.inf
        if 0 < read < math.inf:
            return read
    raise ArgumentError(f"{name} is {given!r}: give seconds as a finite number greater than 0, for example 60")


def read_flag(name: str, given: object) -> bool:
    """Read a truth value.

    :raises ArgumentError: it is something else, such as the text "False".
    """
    if not isinstance(given, bool):
        raise ArgumentError(f"{name} is {given!r}: give True or False")
    return given


def read_text(name: str, given: object, *, may_be_empty: bool = False) -> str:
    """Read a text that is not rendered; an integer stands for its digits.

    :raises ArgumentError: it is something else, blank, or a template.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    if not isinstance(given, str):
        raise ArgumentError(f"{name} is {given!r}: give a text, or leave it out for its default")
    if not given.strip() and not (may_be_empty and not given):
        raise ArgumentError(f"{name} is {given!r}, which is no value: give a text, or leave it out for its default")
    if is_template(given):
        raise ArgumentError(f"{name} is {given!r}: templates are not rendered here; give the value itself")
    return given


def read_texts(name: str, given: object) -> list[str]:
    """Read a list of texts, see :func:`read_text`.

    :return: in alphabetical order and without duplicates, so that equal sets and lists are stored equally.
    :raises ArgumentError: it is not a list, or contains something else than texts.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        shown = [given] if isinstance(given, str) and given else ["…"]
        raise ArgumentError(f"{name} is {given!r}: give a list of texts, for example {shown!r}")
    return sorted({read_text(f"an item of {name}", one) for one in given})


def read_optional_flag(name: str, given: object) -> bool | None:
    """Read a truth value that can also be None; see :func:`read_flag`."""
    return None if given is None else read_flag(name, given)


def check_text(name: str, given: object) -> None:
    """Check an argument of an operator that is text or a template; what another task gives is not known yet.

    :raises ArgumentError: it is anything else than a text, or a finite number, a date or a truth value, which stand for
        their text.
    """
    is_not_finite = isinstance(given, float) and not math.isfinite(given)
    if is_not_finite or not (isinstance(given, str | Number | date) or is_reference(given)):
        raise ArgumentError(f"{name} is {given!r}: give a text")


def check_path(name: str, given: object) -> None:
    """Check an argument that is a path, such as an ``ObjectStoragePath``, or its text; see :func:`check_text`."""
    if not hasattr(given, "parts"):
        check_text(name, given)


def check_optional_text(name: str, given: object) -> None:
    """Check an argument that can also be None; see :func:`check_text`."""
    if given is not None:
        check_text(name, given)


def check_template_id(name: str, given: object) -> None:
    """Check the id of a template, which can be None; one that the API reference does not document is a warning."""
    check_optional_text(name, given)
    warn_of_unknown_template(name, given)


def check_choice(*choices: str) -> Callable[[str, object], None]:
    """Return a check that an argument is None or one of these texts."""

    def check(name: str, given: object) -> None:
        if given is not None and given not in choices:
            raise ArgumentError(f"{name} is {given!r}: it must be {' or '.join(map(repr, choices))}")

    return check


def is_template(given: object) -> bool:
    """Return whether a text is a template, so that its value is known only when the task runs."""
    return isinstance(given, str) and any(mark in given for mark in TEMPLATE_MARKS)


def is_reference(given: object) -> bool:
    """Return whether a value is one of Airflow's references to XComs, parameters and values of mapped tasks."""
    return hasattr(given, "resolve")


def warn_of_unknown_template(name: str, given: object) -> None:
    """Warn if a text is no template's id that the reference documents; an installation can offer others."""
    is_empty = isinstance(given, str) and given.strip() in ("", "None")  # which is an error of its own
    if not isinstance(given, str) or is_empty or given in TEMPLATE_IDS or is_template(given):
        return
    nearest = _nearest(given, TEMPLATE_IDS)
    way_out = f"did you mean {nearest!r}?" if nearest else f"documented are {', '.join(TEMPLATE_IDS)}"
    warnings.warn(f"{name} is {given!r}, a template that the API reference does not document: {way_out}", stacklevel=3)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), n=1, cutoff=0.55)), None)
