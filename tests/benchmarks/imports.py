"""What a DAG file pays for importing a provider's sensors and operators, on top of the Airflow SDK."""

import os
import statistics
import subprocess
import sys

from tests.benchmarks.tables import show

PROVIDERS = {
    # The operators load when they are named: the sensor with the largest of them, and all there are.
    "this package": "airflow_modelarts.sensors, airflow_modelarts.operators.create",
    "this package, everything": "airflow_modelarts.sensors, airflow_modelarts.operators.create, "
    "airflow_modelarts.operators.create_version, airflow_modelarts.operators.tasks, "
    "airflow_modelarts.operators.export, airflow_modelarts.operators.audit",
    "http": "airflow.providers.http.sensors.http, airflow.providers.http.operators.http",
    "dbt Cloud": "airflow.providers.dbt.cloud.sensors.dbt, airflow.providers.dbt.cloud.operators.dbt",
}
#: By name.
BUDGETS_MS = {"this package": 4.0, "this package, everything": 8.0}
ROUNDS = 11
PROGRAM = """
import time
from airflow.sdk import BaseSensorOperator
started = time.process_time()
import {modules}
print((time.process_time() - started) * 1000)
"""


def run() -> None:
    """Import each in fresh interpreters, in turn, and print the medians."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {name: [] for name in PROVIDERS}
    for number in range(1 + ROUNDS):
        for name, modules in PROVIDERS.items():
            program = [sys.executable, "-c", PROGRAM.format(modules=modules)]
            finished = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
            if finished.returncode == 0 and number > 0:  # the first import of a module writes its bytecode
                times[name].append(float(finished.stdout.split()[-1]))
    medians = {name: statistics.median(found) for name, found in times.items() if found}
    ours = medians["this package"]
    rows = [(name, median, median / ours, BUDGETS_MS.get(name, "")) for name, median in medians.items()]
    show("Import, ms of CPU on top of the Airflow SDK", ("provider", "ms", "ratio", "budget"), rows)
