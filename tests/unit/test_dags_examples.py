"""The example DAGs can be imported without a connection or a running Airflow."""

import runpy
from pathlib import Path

import airflow
import pytest

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
    assert {file.stem for file in EXAMPLES} >= {"feature_analysis", "wait_for_console_task", *NEEDS_AIRFLOW_3}
