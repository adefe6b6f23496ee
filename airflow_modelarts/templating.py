"""
Templated fields that were given and rendered to nothing.

Nothing would often mean something else: the connection's own project, all tasks instead of those of one dataset. So it
is refused, by sensor, operators and trigger alike, and before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Characters of a template that an error quotes.
LONGEST_QUOTE = 200


class RefusesEmptyFields:
    """For sensor, operators and trigger: knows how each templated field was written, and refuses empty ones."""

    #: Templated fields for which nothing is a value of its own.
    may_be_empty: frozenset[str] = frozenset()
    #: The templated fields as they were before Airflow rendered them, and put the result in their place.
    _written: Mapping[str, Any] = {}

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], *arguments: Any, **named: Any
    ) -> None:
        """Note the fields as they are written, then let Airflow render them; mapped instances come by here too."""
        if parent is self:  # not something in a field that has fields of its own
            fields = {name: getattr(self, name, None) for name in template_fields}
            # What has been rendered before is not what was written.
            self._written = {**fields, **self._written}
        super()._do_render_template_fields(parent, template_fields, *arguments, **named)  # type: ignore[misc]  # Airflow's

    def _as_written(self, name: str) -> Any:
        return self._written.get(name, getattr(self, name, None))

    def _refuse_empty_fields(self, names: Iterable[str]) -> None:
        """
        Refuse what was given and is nothing.

        :param names: of the fields.
        :raises ModelArtsRequestError: one is nothing; the message names it, how it was written, and the way out.
        """
        from airflow_modelarts.api.errors import ModelArtsRequestError

        for name in names:
            if name in self.may_be_empty:
                continue
            for place, written, value in _empty_parts(name, self._as_written(name), getattr(self, name)):
                raise ModelArtsRequestError(_explain(place, written, value))


def own_template_fields(operator: type) -> Sequence[str]:
    """Return the templated fields that a class of this package declares; those of users' subclasses are their own."""
    of_this_package = (vars(one) for one in operator.__mro__ if one.__module__.startswith("airflow_modelarts."))
    fields: Sequence[str] = next(one["template_fields"] for one in of_this_package if "template_fields" in one)
    return fields


def is_nothing(value: Any) -> bool:
    """Whether a value is what a template makes of nothing: empty, blank, None, its text, or Jinja's undefined."""
    if value is None or _is_undefined(value):
        return True
    return isinstance(value, str) and value.strip() in ("", "None")


def as_text(value: Any) -> Any:
    """Return an id as a text where native rendering has made a number of its digits; anything else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_undefined(value: Any) -> bool:
    # By name, since a DAG file must not pay for Jinja, and a strict one raises at nearly every question.
    return any(one.__name__ == "Undefined" and one.__module__.startswith("jinja2") for one in type(value).__mro__)


def _empty_parts(place: str, written: Any, value: Any) -> Iterable[tuple[str, Any, Any]]:
    """Yield what is nothing of a field and, if it is a dict or a list, of what was written in it."""
    if is_nothing(value):
        # None that was written is no value given; a text was.
        if value is not None or written is not None:
            yield place, written, value
    elif isinstance(value, Mapping) and isinstance(written, Mapping):
        for key in written.keys() & value.keys():
            yield from _rendered_parts(f"{place}[{key!r}]", written[key], value[key])
    elif _is_list(value) and _is_list(written) and len(value) == len(written):
        for number, (before, after) in enumerate(zip(written, value, strict=True)):
            yield from _rendered_parts(f"{place}[{number}]", before, after)
    elif isinstance(value, Mapping | Sequence | set) and not value and written is not value:
        yield place, written, value


def _rendered_parts(place: str, written: Any, value: Any) -> Iterable[tuple[str, Any, Any]]:
    """Yield what has become nothing; what was written so inside of a dict or a list is for the service to judge."""
    if not is_nothing(written):
        yield from _empty_parts(place, written, value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _explain(place: str, written: Any, value: Any) -> str:
    field = place.partition("[")[0]
    kind = "undefined" if _is_undefined(value) else repr(value)
    way_out = f"If another task gives it, check what that pushed; leave {field} out for its default, if it has one"
    if is_nothing(written):
        return f"{place} is {kind}, which is no value. {way_out}"
    quoted = repr(written) if isinstance(written, str) else str(written)
    if len(quoted) > LONGEST_QUOTE:
        quoted = f"{quoted[:LONGEST_QUOTE]}…"
    return (
        f"{place} rendered to nothing ({kind}) from {quoted}: what that refers to has no value in this run. "
        f"Give it one, or the template a default. {way_out}"
    )
