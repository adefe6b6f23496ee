"""On what the tables were measured: the machine, the versions, and the date."""

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = (
    *("airflow-modelarts", "apache-airflow", "apache-airflow-providers-http", "apache-airflow-providers-dbt-cloud"),
    *("apache-airflow-providers-amazon", "aiohttp", "pydantic", "requests"),
)


def show_machine() -> None:
    """Print a line each for the date, the machine and the versions."""
    memory = psutil.virtual_memory().total / 2**30
    print(f"Date: {datetime.now(UTC):%Y-%m-%d}")
    print(f"Machine: {_processor()}, {os.cpu_count()} cores, {memory:.0f} GB of memory, {platform.system()}")
    print(f"Versions: Python {platform.python_version()}, {', '.join(_versions())}", flush=True)


def _processor() -> str:
    """Return the name of the processor, or its architecture where Linux does not tell its name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"without {package}"
