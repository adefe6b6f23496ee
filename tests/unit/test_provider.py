"""The provider info, checked against Airflow's schemas and its providers manager."""

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import Asset, BaseOperatorLink

from airflow_modelarts import __version__, provider
from airflow_modelarts.connection.fields import EXTRAS

AIRFLOW = Path(airflow.__file__).parent
ON_AIRFLOW_2 = airflow.__version__.startswith("2.")
has_a_form = pytest.mark.skipif(
    airflow.__version__.startswith(("3.0.", "3.1.")) and importlib.util.find_spec("flask_appbuilder") is None,
    reason="this Airflow builds the form from Flask-AppBuilder's widgets, which are not installed",
)


def test_the_provider_info_is_valid_against_airflows_schema() -> None:
    schema = json.loads((AIRFLOW / "provider_info.schema.json").read_text())
    jsonschema.validate(provider.get_provider_info(), schema)


@pytest.mark.skipif(ON_AIRFLOW_2, reason="the schema of Airflow 2 has no form fields")
@pytest.mark.parametrize("key", ["connection-types", "extra-links", "asset-uris", "dataset-uris"])
def test_it_is_valid_against_the_stricter_schema_of_provider_yaml(key: str) -> None:
    schema = json.loads((AIRFLOW / "provider.yaml.schema.json").read_text())["properties"][key]
    jsonschema.validate(provider.get_provider_info()[key], schema)


def test_the_entry_point_returns_the_provider_info() -> None:
    ours = "airflow_modelarts.provider:get_provider_info"
    (entry_point,) = [found for found in entry_points(group="apache_airflow_provider") if found.value == ours]
    assert entry_point.load()() == provider.get_provider_info()
    assert (entry_point.dist.name, entry_point.dist.version) == ("airflow-modelarts", __version__)


def test_every_module_and_class_that_it_names_exists() -> None:
    info = provider.get_provider_info()
    for kind in ("hooks", "sensors", "operators", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)
    for connection_type in info["connection-types"]:
        hook = load(connection_type["hook-class-name"])
        assert hook.conn_type == connection_type["connection-type"]
        assert hook.hook_name == connection_type["hook-name"]
    for name in info["extra-links"]:
        assert issubclass(load(name), BaseOperatorLink)
    for entry in [*info["asset-uris"], *info["dataset-uris"]]:
        assert callable(load(entry["handler"]))
        assert callable(load(entry["to_openlineage_converter"]))


def load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.fixture(scope="module")
def manager() -> object:
    from airflow.providers_manager import ProvidersManager

    return ProvidersManager()


@pytest.fixture(scope="module")
def form(manager: object) -> Any:
    """The connection's form as the API server of Airflow 3 returns it to the UI."""
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    forms = {one.connection_type: one for one in HookMetaService.hook_meta_data()}
    return forms["modelarts"]


@pytest.mark.skipif(not ON_AIRFLOW_2, reason="Airflow 3 returns the form through its API")
def test_the_form_of_airflow_2_has_every_extra_and_hides_secrets(manager: object) -> None:
    widgets = {
        name.removeprefix("extra__modelarts__"): widget
        for name, widget in manager.connection_form_widgets.items()  # type: ignore[attr-defined]
        if name.startswith("extra__modelarts__")
    }
    assert set(widgets) == set(EXTRAS)
    assert {name for name, widget in widgets.items() if widget.is_sensitive} == {"security_token"}


@pytest.mark.skipif(not ON_AIRFLOW_2, reason="Airflow 3 returns the form through its API")
def test_the_standard_fields_of_airflow_2_have_our_labels(manager: object) -> None:
    behaviour = manager.field_behaviours["modelarts"]  # type: ignore[attr-defined]
    assert set(behaviour["hidden_fields"]) == {"schema", "port", "extra"}
    assert behaviour["relabeling"]["login"] == "Access key or user"


@pytest.mark.skipif(ON_AIRFLOW_2, reason="Airflow 2 renders the form on the server")
@has_a_form
def test_the_form_has_every_extra_and_hides_secrets(form: Any) -> None:
    assert set(form.extra_fields) == set(EXTRAS)
    formats = {name: field["schema"].get("format") for name, field in form.extra_fields.items()}
    assert {name for name, kind in formats.items() if kind == "password"} == {"security_token"}


@pytest.mark.skipif(ON_AIRFLOW_2, reason="Airflow 2 renders the form on the server")
@has_a_form
def test_the_standard_fields_have_our_labels(form: Any) -> None:
    standard = form.standard_fields
    assert (standard.url_schema.hidden, standard.port.hidden, standard.host.hidden) == (True, True, False)
    assert standard.login.title == "Access key or user"


def test_airflow_registers_the_link(manager: object) -> None:
    assert "airflow_modelarts.links.ModelArtsConsoleLink" in manager.extra_links_class_names  # type: ignore[attr-defined]


def test_openlineage_converts_an_asset_in_obs() -> None:
    from airflow.providers.common.compat.openlineage.utils.utils import translate_airflow_asset

    dataset = translate_airflow_asset(Asset(uri="obs://bucket/out/"), None)
    assert (dataset.namespace, dataset.name) == ("obs://bucket", "out")


def test_importing_it_loads_neither_airflow_nor_pydantic() -> None:
    code = "import airflow_modelarts.provider, sys; print([m for m in ('airflow', 'pydantic') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.mark.skipif(ON_AIRFLOW_2, reason="Airflow 2 has no bundles of DAGs")
def test_airflow_finds_no_fault_with_the_providers_example_dags(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow 3.3 derives the module of a provider from the name of its distribution."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.providers_manager import ProvidersManager

    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
    (ours,) = [name for name in ProvidersManager().providers if "modelarts" in name]
    assert "dags-folder" in [bundle.name for bundle in DagBundlesManager().get_all_dag_bundles()]
    assert [line for line in caplog.messages if ours.replace("-", "_") in line] == []
