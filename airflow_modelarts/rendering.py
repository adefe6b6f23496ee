"""The texts of templated fields before and after Airflow renders them. Only a task that runs imports it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from numbers import Number
from typing import Any

from airflow_modelarts.api.bodies import TEXT, Shape, read_text, replace_leaves
from airflow_modelarts.templating import ID, TEXT_OR_VALUE

#: Characters of a template that an error quotes.
MAX_QUOTE = 200
#: Ends a template so that native rendering finds no Python literal in it, and Airflow no file name.
_END_OF_TEXT = "\x00"
_END_OF_LITERAL = "\x00\x00"
#: A filter for native rendering: a text with JSON is not a Python literal, in which escapes have other meanings.
_KEEP_TEXT = "modelarts_keep_text"


def protect(value: Any, shape: Shape, jinja_env: Any, template_ext: Sequence[str]) -> Any:
    """Mark the texts in a value that are to stay text, and those that are no file names."""
    expression, files = jinja_env.variable_start_string, tuple(template_ext)
    begins = (expression, jinja_env.block_start_string, jinja_env.comment_start_string)

    def mark(leaf: Any, leaf_shape: Shape) -> Any:
        if not isinstance(leaf, str):
            return leaf
        if leaf is value and isinstance(leaf_shape, Mapping) and leaf.endswith(files):
            return leaf
        text = leaf.removesuffix("\n")  # as Jinja does at the end of a template
        if not any(begin in leaf for begin in begins):
            return text + _END_OF_LITERAL
        if isinstance(leaf_shape, Mapping) and (inner := _only_expression(leaf, jinja_env)):
            return f"{expression}({inner})|{_KEEP_TEXT}{jinja_env.variable_end_string}"
        if leaf_shape in (TEXT, ID) or (leaf_shape is not None and not leaf.lstrip().startswith(expression)):
            return text + _END_OF_TEXT
        no_file = jinja_env.comment_start_string + jinja_env.comment_end_string
        return leaf + no_file if leaf.endswith(files) else leaf

    return replace_leaves(value, shape, mark)


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


def unprotect(value: Any, *, is_native: bool) -> Any:
    """Remove the marks from a rendered value."""

    def unmark(leaf: Any, _: Shape) -> Any:
        if not isinstance(leaf, str):
            return leaf
        if leaf.endswith(_END_OF_LITERAL):
            return leaf.removesuffix(_END_OF_LITERAL)
        if leaf.endswith(_END_OF_TEXT):
            text = leaf.removesuffix(_END_OF_TEXT)
            return None if is_native and text == "None" else text  # as native rendering does
        return leaf

    return replace_leaves(value, None, unmark)


def _keep_text(value: Any) -> Any:
    return value + _END_OF_LITERAL if isinstance(value, str) else value


#: The filters that marked templates use.
FILTERS = {_KEEP_TEXT: _keep_text}


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


def empty_parts(place: str, written: Any, value: Any) -> Iterable[tuple[str, Any, Any]]:
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
        yield from empty_parts(place, written, value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def explain_empty(place: str, written: Any, value: Any) -> str:
    """Return the error of an empty part."""
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
