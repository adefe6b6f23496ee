"""The example DAGs can be imported without a connection or a running Airflow."""

import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import airflow
import pytest

from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator
from tests.support.documents import EXAMPLES as RECIPES

EXAMPLES = sorted((Path(__file__).parents[2] / "dags_examples").glob("*.py"))
NEEDS_AIRFLOW_3 = {"downstream_on_completion"}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_dag_can_be_imported(file: Path) -> None:
    if file.stem in NEEDS_AIRFLOW_3 and airflow.__version__.startswith("2."):
        with pytest.raises(ImportError):
            runpy.run_path(str(file))
    else:
        runpy.run_path(str(file))


def test_the_documented_examples_exist() -> None:
    assert {file.stem for file in EXAMPLES} >= {
        "feature_analysis",
        "read_the_output",
        "wait_for_console_task",
        *NEEDS_AIRFLOW_3,
    }


MIDNIGHT = datetime(2026, 11, 24, tzinfo=UTC)
NOON = MIDNIGHT + timedelta(hours=12)


@pytest.mark.parametrize(
    ("dag_run", "name"),
    [
        ({"logical_date": MIDNIGHT - timedelta(days=1), "data_interval_end": MIDNIGHT}, "20261123T235959.html"),
        ({"logical_date": MIDNIGHT, "data_interval_end": MIDNIGHT, "run_after": MIDNIGHT}, "20261123T235959.html"),
        ({"logical_date": None, "data_interval_end": None, "run_after": NOON}, "20261124T115959.html"),
    ],
    ids=["Airflow 2", "Airflow 3", "no logical date"],
)
@pytest.mark.parametrize("source", ["example", "recipe"])
def test_a_report_is_named_after_the_last_second_that_it_covers(
    source: str, dag_run: dict[str, Any], name: str
) -> None:
    if source == "example":
        dag = runpy.run_path(str(EXAMPLES[0].parent / "nightly_audit.py"))["nightly_audit"]()
    else:
        code = RECIPES["audit"].replace("airflow.sdk", "airflow.providers.common.compat.sdk")
        variables: dict[str, Any] = {}
        exec(code.replace("catchup=False):", "catchup=False) as dag:"), variables)
        dag = variables["dag"]
    (operator,) = dag.tasks
    assert isinstance(operator, ModelArtsAuditProcessorTasksOperator)
    macros = SimpleNamespace(timedelta=timedelta)
    operator.render_template_fields(
        {"dag_run": SimpleNamespace(**dag_run), "macros": macros, "params": {"folder": "s3://audits"}}  # type: ignore[typeddict-item]  # a part of it
    )
    assert str(operator.report_path).endswith(f"/{name}")
