"""What Airflow reads about this package: its modules, its connection type with the form, its links and its assets."""

from __future__ import annotations

from typing import Any

CONNECTION_TYPE = "modelarts"
INTEGRATION = "Huawei Cloud ModelArts"


def _field(label: str, description: str, *, secret: bool = False, **schema: Any) -> dict[str, Any]:
    if secret:
        schema["format"] = "password"
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


#: The extras of a connection, as fields of its form.
CONN_FIELDS: dict[str, dict[str, Any]] = {
    "auth": _field(
        "Authentication",
        "access_key: an access key and its secret key. password: an IAM user and its password. token: an IAM token "
        "alone. agency: the identity of the Elastic Cloud Server. environment: HUAWEICLOUD_SDK_AK and "
        "HUAWEICLOUD_SDK_SK of workers and triggerers.",
        enum=["access_key", "password", "token", "agency", "environment"],
        default="access_key",
    ),
    "project_id": _field("Project ID", "The 32-digit ID of the project in the region, from 'My Credentials'."),
    "region": _field("Region", "For example cn-north-4 or eu-de; tells where ModelArts is when Endpoint is empty."),
    "iam_endpoint": _field(
        "IAM endpoint", "Only for Authentication 'password', where Endpoint does not tell it: host or URL of IAM."
    ),
    "domain_name": _field("Domain name", "Only for Authentication 'password': the account to which the user belongs."),
    "project_name": _field(
        "Project name", "Only for Authentication 'password': scopes the token by this name instead of the project ID."
    ),
    "security_token": _field("Security token", "Only for a temporary access key.", secret=True),
    "verify": _field(
        "Verify TLS", "true (default), false, or the path of a file of certificate authorities on every machine."
    ),
    "connect_timeout": _field("Connect timeout", "Seconds, default 10."),
    "read_timeout": _field(
        "Read timeout", "Seconds without a byte of an answer, default 60; more than 300 has no effect."
    ),
    "console_url": _field(
        "Console URL",
        "URL of the web console, for the link in the UI; {region}, {project_id} and {processor_task_id} in it are "
        "filled in. By default the region's public console, if there is one.",
    ),
}

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "port", "extra"],
    "relabeling": {
        "host": "Endpoint",
        "login": "Access key or user",
        "password": "Secret key, password or token",  # nosec B105 - a label
    },
    "placeholders": {"host": "modelarts.eu-de.otc.t-systems.com"},
}


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow's providers manager asks for, valid against its ``provider_info.schema.json``."""
    asset_uris = [
        {
            "schemes": ["obs"],
            "handler": "airflow_modelarts.assets.sanitize_uri",
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
        "hooks": [_modules("hooks")],
        "sensors": [_modules("sensors")],
        "operators": [_modules("operators")],
        "triggers": [_modules("triggers")],
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": "airflow_modelarts.hooks.ModelArtsHook",
                "hook-name": "ModelArts",
                "conn-fields": CONN_FIELDS,
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
            }
        ],
        "extra-links": ["airflow_modelarts.links.ModelArtsConsoleLink"],
        "asset-uris": asset_uris,
        "dataset-uris": asset_uris,  # as Airflow 2 calls them
    }


def ui_field_behaviour() -> dict[str, Any]:
    """Return the same for Airflow 2, which asks the hook and spells its keys with underscores."""
    return {key.replace("-", "_"): value for key, value in UI_FIELD_BEHAVIOUR.items()}


def connection_form_widgets() -> dict[str, Any]:
    """Return the form's fields for Airflow 2, which draws them with Flask-AppBuilder."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from wtforms import PasswordField, StringField

    def widget(field: dict[str, Any]) -> Any:
        secret = field["schema"].get("format") == "password"
        kind, look = (PasswordField, BS3PasswordFieldWidget) if secret else (StringField, BS3TextFieldWidget)
        return kind(field["label"], widget=look(), description=field["description"])

    return {name: widget(field) for name, field in CONN_FIELDS.items()}


def _modules(name: str) -> dict[str, Any]:
    return {"integration-name": INTEGRATION, "python-modules": [f"airflow_modelarts.{name}"]}
