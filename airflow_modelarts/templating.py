"""Templated fields of sensor, operators and trigger: text stays text, and a field that rendered to nothing is refused.

An empty value would often mean something else: the connection's own project, or all tasks and not those of one dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from airflow_modelarts.api.bodies import TEXT, Shape

#: The shape of an argument that is text, or whatever a template of one expression returns.
TEXT_OR_VALUE = "text or value"
#: The shape of an id: text, or an integer that stands for its digits. Any other number is refused later.
ID = "id"


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

        from airflow_modelarts.rendering import FILTERS, protect, unprotect

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
                    self._replace(field, lambda value, shape: protect(value, shape, jinja_env, self.template_ext))
            if is_native:
                jinja_env = jinja_env.overlay()
                jinja_env.filters = {**jinja_env.filters, **FILTERS}
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)  # type: ignore[misc]  # Airflow's
        finally:
            for field in marked:
                self._replace(field, lambda value, _: unprotect(value, is_native=is_native))

    def _as_written(self, field: str) -> Any:
        return self._written.get(field, getattr(self, field, None))

    def _prepare_fields(self) -> None:
        """Read the fields, then refuse those that were given and are empty, such as the text "[]" of a list."""
        from airflow_modelarts.api.errors import ModelArtsRequestError
        from airflow_modelarts.rendering import empty_parts, explain_empty

        fields = [field for field in self._own_fields if field not in self.may_be_empty]
        written = {field: self._as_written(field) for field in fields}  # before reading replaces what was not rendered
        self._read_arguments()
        for field in fields:
            for place, as_written, value in empty_parts(field, written[field], getattr(self, field)):
                if place != field and field in self.parts_may_be_empty:
                    continue
                raise ModelArtsRequestError(explain_empty(place, as_written, value))

    def _read_arguments(self) -> None:
        """Read numbers as text wherever text belongs, and text as objects wherever these do."""
        from airflow_modelarts.rendering import read_argument

        for field in self._own_fields:
            self._replace(field, read_argument)

    def _replace(self, field: str, replace: Callable[[Any, Shape], Any]) -> None:
        value = getattr(self, field)
        replaced = replace(value, self.argument_shapes.get(field, self.usual_shape))
        # Airflow recognizes values by their identity, and examines each one that is set.
        if replaced is not value and (type(replaced) is not type(value) or replaced != value):
            setattr(self, field, replaced)
