"""The table of a connection's fields in the documentation, generated from their declaration."""

from airflow_modelarts.connection.fields import EXTRAS, STANDARD_FIELDS


def fields_table() -> str:
    """Return the Markdown table of the connection's fields, without a line feed at its end."""
    fields = {
        **{f"`{name}`": field for name, field in STANDARD_FIELDS.items()},
        **{f"extra `{name}`": field for name, field in EXTRAS.items()},
    }
    rows = [f"| {name} | {field.label} | {field.help} |" for name, field in fields.items()]
    return "\n".join(["| field | label in the form | meaning |", "| --- | --- | --- |", *rows])
