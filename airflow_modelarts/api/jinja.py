"""Recognizes values that are still Jinja templates, which the API would take literally."""

from __future__ import annotations

#: Follows the value of a setting or an id in an error.
NOT_RENDERED = (
    "it is a template that was not rendered. Airflow renders the templated fields of operators and sensors once. It "
    "renders nothing in connections, in hooks and in the values that a template inserts"
)


def is_template(value: object) -> bool:
    """Whether a value is a text with Jinja's marks, which no setting and no id contains."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)
