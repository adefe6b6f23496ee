"""The configuration of a scratch Airflow: its processes by Airflow version, its settings and its environment."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shlex
import socket
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from airflow_modelarts.testing.sandbox.airflow_api import PAGE_SIZE, SandboxError

UNASSIGNED_PORTS = range(20_000, 32_768)
"""Ports that no process has unless it asks for that number."""
LOCK_TIMEOUT = 120
"""Seconds that a process waits while another one writes to SQLite. Python's default of 5 is short for a slow disk."""


def is_wanted_dag_file(file_path: str, zip_file: object | None = None) -> bool:
    """Accept every Python file as a DAG file: the sandbox's `core.might_contain_dag_callable`.

    Airflow's default skips files that do not contain the words "dag" and "airflow".
    """
    return True


_COMMON_SETTINGS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__MIGHT_CONTAIN_DAG_CALLABLE": f"{__name__}.{is_wanted_dag_file.__name__}",
    # The default asks DNS for a full name, which takes seconds without DNS.
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    "AIRFLOW__CORE__PARALLELISM": "8",
    "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "1",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    # A supervisor of Airflow 3 may notice the end of its task only at the next heartbeat, 5 s by default.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": str(PAGE_SIZE),
    # Stack frames in an import error. The default of 2 may show none of the DAG file's.
    "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "50",
    # Airflow 2.11 reports its usage over the network by default.
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}


@dataclass(frozen=True)
class AirflowProfile:
    """What differs between the major versions of Airflow. ``{port}`` in a value stands for the server's port.

    :param components: arguments of `airflow` by name of the process
    :param server: the process that serves the REST API
    :param api_version: the version of that API
    :param settings: environment variables
    :param files: the contents of files in AIRFLOW_HOME, by name
    """

    components: Mapping[str, tuple[str, ...]]
    server: str
    api_version: str
    settings: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)


# The sandbox reads task logs from files. --skip-serve-logs disables the log servers, which listen on all addresses.
AIRFLOW_3 = AirflowProfile(
    components={
        "api-server": ("api-server", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1"),
        "scheduler": ("scheduler", "--skip-serve-logs"),
        "dag-processor": ("dag-processor",),
        "triggerer": ("triggerer", "--skip-serve-logs"),
    },
    server="api-server",
    api_version="v2",
    settings={
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API__BASE_URL": "http://127.0.0.1:{port}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": "{port}",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
    },
)
AIRFLOW_2 = AirflowProfile(
    components={
        "webserver": ("webserver", "--hostname", "127.0.0.1", "--port", "{port}", "--workers", "1"),
        "scheduler": ("scheduler", "--skip-serve-logs"),
        "triggerer": ("triggerer", "--skip-serve-logs"),
    },
    server="webserver",
    api_version="v1",
    settings={
        # On SQLite, Airflow 2 refuses every executor that runs tasks in parallel. Its scheduler parses the DAGs.
        "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor",
        "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "1",
        "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "300",
        "AIRFLOW__WEBSERVER__BASE_URL": "http://127.0.0.1:{port}",
        "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
        "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": "{port}",
        # Seconds. By default Airflow kills after 120 s a web server that is still starting, or one that is busy.
        "AIRFLOW__WEBSERVER__WEB_SERVER_MASTER_TIMEOUT": "600",
        "AIRFLOW__WEBSERVER__WEB_SERVER_WORKER_TIMEOUT": "600",
    },
    # As in Airflow 3 above, every user of this machine is an administrator of the scratch Airflow.
    files={"webserver_config.py": 'AUTH_ROLE_PUBLIC = "Admin"\n'},
)


def installed_profile() -> AirflowProfile:
    """Return the profile of the installed Airflow."""
    return AIRFLOW_2 if version("apache-airflow").startswith("2.") else AIRFLOW_3


def free_port() -> int:
    """Return a loopback port that is free at this moment.

    It is below the ports that systems assign to clients and to servers that name none (Linux: from 32768). Another
    process could be assigned one of those before Airflow listens, which takes seconds.
    """
    for port in secrets.SystemRandom().sample(UNASSIGNED_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise SandboxError(f"no port from {UNASSIGNED_PORTS[0]} to {UNASSIGNED_PORTS[-1]} is free: end other servers")


def scratch_environment(inherited: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the caller's environment without the configuration of the caller's own Airflow.

    Airflow variables (AIRFLOW_VAR_…) stay, since a DAG may read them. Airflow's settings and connections are removed,
    and OpenLineage's settings too, so that no scratch run is reported to a lineage backend.
    """
    environment = {
        name: value for name, value in inherited.items() if name.startswith("AIRFLOW_VAR_") or not _is_setting(name)
    }
    no_proxy = [*filter(None, [inherited.get("NO_PROXY") or inherited.get("no_proxy")]), "127.0.0.1", "localhost"]
    return environment | {
        "AIRFLOW_HOME": str(home),
        # Airflow keeps bundles, sockets and task configurations in the temporary directory.
        "TMPDIR": str(home / "tmp"),
        "PATH": os.pathsep.join(filter(None, [sysconfig.get_path("scripts"), inherited.get("PATH")])),
        "NO_PROXY": ",".join(no_proxy),
        "no_proxy": ",".join(no_proxy),
        # Python writes no __pycache__ beside the user's DAGs.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def sandbox_settings(profile: AirflowProfile, home: Path, port: int) -> dict[str, str]:
    """Return the environment variables that configure a scratch Airflow, but for its DAGs and connections."""
    return {
        **_COMMON_SETTINGS,
        **{name: value.format(port=port) for name, value in profile.settings.items()},
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout={LOCK_TIMEOUT}",
        # All processes must share these keys, whichever of them writes airflow.cfg first.
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__WEBSERVER__SECRET_KEY": secrets.token_hex(16),
    }


def write_environment_file(path: Path, environment: Mapping[str, str], inherited: Mapping[str, str]) -> None:
    """Write a shell file that changes the inherited environment into the given one.

    It contains keys and connections, so only its owner can read it.
    """
    removed = sorted(name for name in inherited if _is_setting(name) and name not in environment)
    changed = sorted((n, v) for n, v in environment.items() if n != "TMPDIR" and inherited.get(n) != v)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"unset {name}\n" for name in removed)
        file.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in changed)


def _is_setting(name: str) -> bool:
    return name.lstrip("_").startswith(("AIRFLOW", "OPENLINEAGE"))
