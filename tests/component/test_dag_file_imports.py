"""What a DAG file imports with a sensor or an operator: every parse of the file pays for it."""

import subprocess
import sys
from importlib.util import find_spec


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


def test_a_dag_file_with_a_sensor_imports_no_heavy_module() -> None:
    script = (
        "import sys; from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor as S; "
        "S(task_id='wait', processor_task_id='abc', deferrable=True); "
        "print(*sorted(name for name in sys.modules if name.startswith('airflow_modelarts.')), sep='|')"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.strip().splitlines()[-1].split("|"))
    assert "airflow_modelarts.sensors" in loaded
    heavy = {
        f"airflow_modelarts.{name}"
        for name in ("hooks", "transport", "polling.watcher", "triggers", "api.models", "testing")
    }
    assert all(find_spec(name) for name in heavy)
    assert loaded.isdisjoint(heavy)
