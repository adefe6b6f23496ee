"""What a DAG file imports with a sensor or an operator: every parse of the file pays for it."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

import airflow_modelarts.audit as audit_package


def test_a_dag_file_imports_no_library_that_airflow_has_not_imported() -> None:
    script = (
        "import sys; from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseSensorOperator; "
        "before = set(sys.modules); import airflow_modelarts.operators as operators, airflow_modelarts.sensors; "
        "[getattr(operators, name) for name in operators.__all__]; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(new.difference(sys.stdlib_module_names)), sep='|')"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.strip().splitlines()[-1].split("|")) <= {"airflow", "airflow_modelarts"}


HEAVY = {
    f"airflow_modelarts.{name}"
    for name in (
        *("hooks", "transport", "polling.status_poller", "polling.watcher", "triggers", "testing"),
        *("api.models", "api.targets", "links", "rendering"),
        *("operators.create_version", "operators.current_try", "operators.small_files"),
        *("audit.change", "audit.findings", "audit.markdown", "audit.reading", "audit.report", "audit.scope"),
        *("audit.statistics", "audit.verdicts", "operators.audit_files", "operators.audit_window"),
    )
}


@pytest.mark.parametrize(
    ("module", "statements"),
    [
        (
            "airflow_modelarts.sensors",
            "from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor as S; "
            "S(task_id='wait', processor_task_id='abc', deferrable=True)",
        ),
        (
            "airflow_modelarts.operators.create",
            "from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator as C; "
            "C(task_id='create', name='a', template={'id': 'sys_data_analyse'}, data_source={'source': 'abc'})",
        ),
        (
            "airflow_modelarts.operators.audit",
            "from airflow_modelarts.audit import AuditRules; "
            "from airflow_modelarts.operators import ModelArtsAuditProcessorTasksOperator as A; "
            "A(task_id='audit', rules=AuditRules(longest_seconds='2h'), report_path='s3://bucket/audit.html')",
        ),
    ],
    ids=["sensor", "create", "audit"],
)
def test_a_dag_file_imports_no_heavy_module(module: str, statements: str) -> None:
    script = (
        f"import sys; {statements}; "
        "print(*sorted(name for name in sys.modules if name.startswith('airflow_modelarts.')), sep='|')"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.strip().splitlines()[-1].split("|"))
    assert module in loaded
    assert all(find_spec(name) for name in HEAVY)
    assert loaded.isdisjoint(HEAVY)


#: What only a run, or an argument that few give, needs.
SELDOM = {
    f"airflow_modelarts.{name}"
    for name in ("api.newest_first", "api.permanence", "api.places", "assets", "audit.rules")
}


def test_the_import_of_all_operators_and_the_sensor_leaves_out_what_few_dags_need() -> None:
    script = (
        "import sys, airflow_modelarts.operators as operators, airflow_modelarts.sensors; "
        "[getattr(operators, name) for name in operators.__all__]; "
        "print(*sorted(name for name in sys.modules if name.startswith('airflow_modelarts.')), sep='|')"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert all(find_spec(name) for name in SELDOM)
    assert SELDOM.isdisjoint(done.stdout.strip().splitlines()[-1].split("|"))


def test_the_package_of_the_audit_has_each_name_that_it_exports() -> None:
    assert set(audit_package.__all__) <= set(dir(audit_package))
    for name in audit_package.__all__:
        assert getattr(audit_package, name).__module__.startswith("airflow_modelarts.audit.")
    assert not hasattr(audit_package, "Report")
