"""The arguments of operators: text stays text when Airflow renders it natively, and objects may be given as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from numbers import Number
from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_modelarts.api.bodies import LISTS, TEXT, Shape, example, read_text, replace_leaves
from airflow_modelarts.templating import own_template_fields

#: The shape of an argument that is text, or whatever a template of one expression returns.
TEXT_OR_VALUE = "text or value"
#: Ends a template so that native rendering finds no Python literal in it, and Airflow no file name.
_END_OF_TEXT = "\x00"
_END_OF_LITERAL = "\x00\x00"


class TypedArguments(BaseOperator):
    """
    An operator whose templated fields have shapes, by default that of text.

    With ``render_template_as_native_obj=True`` Airflow reads each rendered text as a Python literal, so that the name
    "20261125" becomes a number, "2026_11_25" as well, and the description "1, 2" a tuple. Text is kept as it is here.
    """

    #: The templated fields that are not text.
    argument_shapes: ClassVar[Mapping[str, Shape]] = {}

    # Airflow offers no public method that knows the field and is called for mapped operators too.
    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        from jinja2.nativetypes import NativeEnvironment

        is_native = isinstance(jinja_env, NativeEnvironment)
        own = [field for field in own_template_fields(type(self)) if parent is self and field in template_fields]
        try:
            for field in own:
                if id(getattr(self, field)) not in seen_oids:  # what another task has pushed is no template
                    self._replace(field, lambda value, shape: self._protect(value, shape, jinja_env))
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        finally:
            for field in own:
                self._replace(field, lambda value, _: _unprotect(value, is_native))

    def _protect(self, value: Any, shape: Shape, jinja_env: Any) -> Any:
        """Mark the texts in a value that are to stay text, and those that are no names of files."""
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
            if leaf_shape == TEXT or (leaf_shape is not None and not leaf.lstrip().startswith(expression)):
                return text + _END_OF_TEXT
            no_file = jinja_env.comment_start_string + jinja_env.comment_end_string
            return leaf + no_file if leaf.endswith(files) else leaf

        return replace_leaves(value, shape, protect)

    def _read_arguments(self) -> None:
        """Read numbers as text wherever text belongs, and text as objects wherever these do."""
        for field in own_template_fields(type(self)):
            self._replace(field, read_argument)

    def _replace(self, field: str, replace: Callable[[Any, Shape], Any]) -> None:
        value = getattr(self, field)
        replaced = replace(value, self.argument_shapes.get(field, TEXT))
        # Airflow knows values by their identity, and looks into each that is set.
        if replaced is not value and (type(replaced) is not type(value) or replaced != value):
            setattr(self, field, replaced)


def read_argument(value: Any, shape: Shape) -> Any:
    """Return an argument as the API wants it; what cannot be read is left for the API's models to refuse."""

    def read(leaf: Any, leaf_shape: Shape) -> Any:
        if isinstance(leaf, str) and (
            isinstance(leaf_shape, Mapping) or (leaf_shape == TEXT_OR_VALUE and leaf.lstrip().startswith("["))
        ):
            found = read_text(leaf)
            return leaf if found is leaf else read_argument(found, leaf_shape)
        if isinstance(leaf, Number) and leaf_shape in (TEXT, TEXT_OR_VALUE):
            return str(leaf)
        return str(leaf) if isinstance(leaf, date) and leaf_shape == TEXT else leaf

    return replace_leaves(value, shape, read)


def check_object(field: str, value: Any) -> None:
    """
    Check an argument that is an object or a list of objects when the DAG is parsed.

    :raises ValueError: it is a literal that cannot become one, whatever happens to it.
    """
    read = _read_literal(value)
    other_kind = Mapping if field in LISTS else list | tuple
    if isinstance(read, str | bytes | Number | other_kind):
        raise ValueError(f"{field} is {repr(value)[:200]}: give {example(field, value)}")
    for number, item in enumerate(read if isinstance(read, list | tuple) else ()):
        if isinstance(_read_literal(item), str | bytes | Number | list | tuple):
            raise ValueError(f"{field}[{number}] is {repr(item)[:200]}: give {example(field, item, item=True)}")


def _read_literal(value: Any) -> Any:
    """Return what a literal is; None when only a run can tell."""
    if not isinstance(value, str):
        return value
    is_open = any(mark in value for mark in ("{{", "{%", "{#")) or value.endswith(".json")
    return None if is_open else read_text(value)


def _unprotect(value: Any, is_native: bool) -> Any:
    def unprotect(leaf: Any, _: Shape) -> Any:
        if not isinstance(leaf, str):
            return leaf
        if leaf.endswith(_END_OF_LITERAL):
            return leaf.removesuffix(_END_OF_LITERAL)
        if leaf.endswith(_END_OF_TEXT):
            text = leaf.removesuffix(_END_OF_TEXT)
            return None if is_native and text == "None" else text  # as native rendering has it
        return leaf

    return replace_leaves(value, None, unprotect)
