"""Templated fields of sensor, operators and trigger: text stays text, and a field that rendered to nothing is refused.

An empty value would often mean something else: the connection's own project, or all tasks and not those of one dataset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from numbers import Number
from typing import Any, ClassVar

from airflow_modelarts.api.bodies import TEXT, Shape, read_text, replace_leaves
from airflow_modelarts.api.errors import ModelArtsRequestError

#: The shape of an argument that is text, or whatever a template of one expression returns.
TEXT_OR_VALUE = "text or value"
#: The shape of an id: text, or an integer that stands for its digits. Any other number is refused later.
ID = "id"
#: Characters of a template that an error quotes.
MAX_QUOTE = 200
#: Ends a template so that native rendering finds no Python literal in it, and Airflow no file name.
_END_OF_TEXT = "\x00"
_END_OF_LITERAL = "\x00\x00"
#: A filter for native rendering: a text with JSON is not a Python literal, in which escapes have other meanings.
_KEEP_TEXT = "modelarts_keep_text"


class TemplatedFields:
    """A mixin that prepares templated fields before Airflow renders them, and checks and reads the result."""

    #: Templated fields that may be empty.
    may_be_empty: frozenset[str] = frozenset()
    #: Templated fields in which an empty value is no value; as a whole they may not be empty.
    parts_may_be_empty: frozenset[str] = frozenset()
    #: The shapes of templated fields that differ from the usual shape.
    argument_shapes: ClassVar[Mapping[str, Shape]] = {}
    usual_shape: ClassVar[Shape] = TEXT
    #: Airflow's: how the names of files end whose content is a template.
    template_ext: Sequence[str]
    #: The templated fields before Airflow rendered them; it replaces their values.
    _written: Mapping[str, Any] = {}

    @property
    def _own_fields(self) -> Sequence[str]:
        """The templated fields that a class of this package declares; a user's subclass may have more."""
        of_this_package = (vars(one) for one in type(self).__mro__ if one.__module__.startswith("airflow_modelarts."))
        fields: Sequence[str] = next(one["template_fields"] for one in of_this_package if "template_fields" in one)
        return fields

    # Airflow has no public method that is called for mapped operators too.
    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        from jinja2.nativetypes import NativeEnvironment

        is_native = isinstance(jinja_env, NativeEnvironment)
        marked: list[str] = []
        if parent is self:  # and not an object in a field that has template fields of its own
            # A field that has been rendered before is no longer as it was written.
            self._written = {**{field: getattr(self, field, None) for field in template_fields}, **self._written}
            if is_native or self.template_ext:  # otherwise every text stays text, and none is a file name
                marked = [field for field in self._own_fields if field in template_fields]
        try:
            for field in marked:
                if id(getattr(self, field)) not in seen_oids:  # Airflow does not render what another task has pushed
                    self._replace(field, lambda value, shape: self._protect(value, shape, jinja_env))
            if is_native:
                jinja_env = jinja_env.overlay()
                jinja_env.filters = {**jinja_env.filters, _KEEP_TEXT: _keep_text}
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)  # type: ignore[misc]  # Airflow's
        finally:
            for field in marked:
                self._replace(field, lambda value, _: _unprotect(value, is_native))

    def _protect(self, value: Any, shape: Shape, jinja_env: Any) -> Any:
        """Mark the texts in a value that are to stay text, and those that are no file names."""
        expression, files = jinja_env.variable_start_string, tuple(self.template_ext)
        marks = (expression, jinja_env.block_start_string, jinja_env.comment_start_string)

        def protect(leaf: Any, leaf_shape: Shape) -> Any:
            if not isinstance(leaf, str):
                return leaf
            if leaf is value and isinstance(leaf_shape, Mapping) and leaf.endswith(files):
                return leaf
            text = leaf.removesuffix("\n")  # as Jinja does at the end of a template
            if not any(mark in leaf for mark in marks):
                return text + _END_OF_LITERAL
            if isinstance(leaf_shape, Mapping) and (inner := _only_expression(leaf, jinja_env)):
                return f"{expression}({inner})|{_KEEP_TEXT}{jinja_env.variable_end_string}"
            if leaf_shape in (TEXT, ID) or (leaf_shape is not None and not leaf.lstrip().startswith(expression)):
                return text + _END_OF_TEXT
            no_file = jinja_env.comment_start_string + jinja_env.comment_end_string
            return leaf + no_file if leaf.endswith(files) else leaf

        return replace_leaves(value, shape, protect)

    def _as_written(self, field: str) -> Any:
        return self._written.get(field, getattr(self, field, None))

    def _prepare_fields(self) -> None:
        """Read the fields, then refuse those that were given and are empty, such as the text "[]" of a list."""
        fields = [field for field in self._own_fields if field not in self.may_be_empty]
        written = {field: self._as_written(field) for field in fields}  # before reading replaces what was not rendered
        self._read_arguments()
        for field in fields:
            for place, as_written, value in _empty_parts(field, written[field], getattr(self, field)):
                if place != field and field in self.parts_may_be_empty:
                    continue
                raise ModelArtsRequestError(_explain_empty(place, as_written, value))

    def _read_arguments(self) -> None:
        """Read numbers as text wherever text belongs, and text as objects wherever these do."""
        for field in self._own_fields:
            self._replace(field, read_argument)

    def _replace(self, field: str, replace: Callable[[Any, Shape], Any]) -> None:
        value = getattr(self, field)
        replaced = replace(value, self.argument_shapes.get(field, self.usual_shape))
        # Airflow recognizes values by their identity, and examines each one that is set.
        if replaced is not value and (type(replaced) is not type(value) or replaced != value):
            setattr(self, field, replaced)


def read_argument(value: Any, shape: Shape) -> Any:
    """Return an argument in the form of the API; what cannot be read is left for the API's models to refuse."""

    def read(leaf: Any, leaf_shape: Shape) -> Any:
        if isinstance(leaf, str) and (
            isinstance(leaf_shape, Mapping) or (leaf_shape == TEXT_OR_VALUE and leaf.lstrip().startswith("["))
        ):
            found = read_text(leaf)
            return leaf if found is leaf else read_argument(found, leaf_shape)
        if isinstance(leaf, Number) and leaf_shape in (TEXT, TEXT_OR_VALUE):
            return str(leaf)
        if isinstance(leaf, int) and not isinstance(leaf, bool) and leaf_shape == ID:
            return str(leaf)
        return str(leaf) if isinstance(leaf, date) and leaf_shape == TEXT else leaf

    return replace_leaves(value, shape, read)


def is_empty(value: Any) -> bool:
    """Whether a value is what an empty template renders to: an empty or blank text, ``None`` or Jinja's undefined."""
    if value is None or _is_undefined(value):
        return True
    return isinstance(value, str) and value.strip() in ("", "None")


def _unprotect(value: Any, is_native: bool) -> Any:
    def unprotect(leaf: Any, _: Shape) -> Any:
        if not isinstance(leaf, str):
            return leaf
        if leaf.endswith(_END_OF_LITERAL):
            return leaf.removesuffix(_END_OF_LITERAL)
        if leaf.endswith(_END_OF_TEXT):
            text = leaf.removesuffix(_END_OF_TEXT)
            return None if is_native and text == "None" else text  # as native rendering does
        return leaf

    return replace_leaves(value, None, unprotect)


def _keep_text(value: Any) -> Any:
    return value + _END_OF_LITERAL if isinstance(value, str) else value


def _only_expression(text: str, jinja_env: Any) -> str:
    """Return the expression of a template that has nothing else, for native rendering; empty for any other text."""
    from jinja2.nativetypes import NativeEnvironment

    marks = (jinja_env.variable_start_string, jinja_env.variable_end_string)
    inner = text.strip().removeprefix(marks[0]).removesuffix(marks[1])
    is_alone = text.strip() == f"{marks[0]}{inner}{marks[1]}" and not any(mark in inner for mark in marks)
    # A minus or plus at the edge controls white space.
    return re.sub(r"^[-+]|[-+]$", "", inner) if is_alone and isinstance(jinja_env, NativeEnvironment) else ""


def _is_undefined(value: Any) -> bool:
    # By name: importing Jinja is slow for a DAG file, and a strict undefined raises at nearly every operation.
    return any(one.__name__ == "Undefined" and one.__module__.startswith("jinja2") for one in type(value).__mro__)


def _empty_parts(place: str, written: Any, value: Any) -> Iterable[tuple[str, Any, Any]]:
    """Yield the empty parts of a field: the field itself, or values in a dict or a list that were not written empty."""
    if is_empty(value):
        if value is not None or written is not None:  # None that was written is the default
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
    if not is_empty(written):  # what was written empty inside of a dict or a list is for the service to judge
        yield from _empty_parts(place, written, value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _explain_empty(place: str, written: Any, value: Any) -> str:
    field = place.partition("[")[0]
    shown = "undefined" if _is_undefined(value) else repr(value)
    way_out = f"If another task gives it, check what that pushed; leave {field} out for its default, if it has one"
    if is_empty(written):
        return f"{place} is {shown}, which is no value. {way_out}"
    quoted = repr(written) if isinstance(written, str) else str(written)
    if len(quoted) > MAX_QUOTE:
        quoted = f"{quoted[:MAX_QUOTE]}…"
    return (
        f"{place} rendered to nothing ({shown}) from {quoted}: what that refers to has no value in this run. "
        f"Give it one, or the template a default. {way_out}"
    )
