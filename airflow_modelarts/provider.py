"""What Airflow reads about this package: its modules, its connection type with the form, its links and its assets."""

from __future__ import annotations

from typing import Any

from airflow_modelarts.connection.fields import EXTRAS, HIDDEN_FIELDS, STANDARD_FIELDS, Field

CONNECTION_TYPE = "modelarts"
INTEGRATION = "Huawei Cloud ModelArts"


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow's providers manager asks for, valid against its ``provider_info.schema.json``."""
    asset_uris = [
        {
            "schemes": ["obs"],
            "handler": "airflow_modelarts.assets.sanitize_uri",
            "factory": "airflow_modelarts.assets.create_asset",
            "to_openlineage_converter": "airflow_modelarts.lineage.convert_asset_to_openlineage",
        }
    ]
    return {
        "package-name": "airflow-modelarts",
        "name": "ModelArts",
        "description": "Processing tasks of `Huawei Cloud ModelArts <https://www.huaweicloud.com/intl/en-us/product/"
        "modelarts.html>`__: run them, wait for them, read them.",
        "integrations": [
            {
                "integration-name": INTEGRATION,
                "external-doc-url": "https://support.huaweicloud.com/intl/en-us/modelarts/index.html",
                "tags": ["service"],
            }
        ],
        **{
            kind: [{"integration-name": INTEGRATION, "python-modules": [f"airflow_modelarts.{kind}"]}]
            for kind in ("hooks", "sensors", "operators", "triggers")
        },
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": "airflow_modelarts.hooks.ModelArtsHook",
                "hook-name": "ModelArts",
                "conn-fields": {name: _form_field(field) for name, field in EXTRAS.items()},
                "ui-field-behaviour": {name.replace("_", "-"): value for name, value in ui_field_behaviour().items()},
            }
        ],
        "filesystems": ["airflow_modelarts.filesystem"],
        "extra-links": [
            f"airflow_modelarts.links.{name}" for name in ("ModelArtsConsoleLink", "ModelArtsAuditReportLink")
        ],
        "asset-uris": asset_uris,
        "dataset-uris": asset_uris,  # as Airflow 2 calls them
    }


def _form_field(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": ["string", "null"]}
    if field.is_secret:
        schema["format"] = "password"
    if field.choices:
        schema |= {"enum": list(field.choices), "default": field.default}
    return {"label": field.label, "description": _plain_help(field), "schema": schema}


def ui_field_behaviour() -> dict[str, Any]:
    """Return how the form shows Airflow's own fields, with the keys of Airflow 2; Airflow 3 has hyphens in them."""
    return {
        "hidden_fields": list(HIDDEN_FIELDS),
        "relabeling": {name: field.label for name, field in STANDARD_FIELDS.items()},
        "placeholders": {name: field.placeholder for name, field in STANDARD_FIELDS.items() if field.placeholder},
    }


def connection_form_widgets() -> dict[str, Any]:
    """Return the widgets of the extras for the form of Airflow 2, which uses Flask-AppBuilder."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from wtforms import PasswordField, StringField

    def widget(field: Field) -> Any:
        kind, look = (PasswordField, BS3PasswordFieldWidget) if field.is_secret else (StringField, BS3TextFieldWidget)
        return kind(field.label, widget=look(), description=_plain_help(field))

    return {name: widget(field) for name, field in EXTRAS.items()}


def _plain_help(field: Field) -> str:
    return field.help.replace("`", "")
