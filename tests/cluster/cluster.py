"""An Airflow as in production: PostgreSQL, Redis, the CeleryExecutor, two workers and two triggerers.

Its processes share a machine, but each has a host name of its own. A process that exits by itself is restarted, as by
systemd or Kubernetes, and recorded: the scheduler of Airflow 3.3 exits when its database is lost in the middle of its
loop. Workers, triggerers, the DAG processor and the API server reconnect.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
import sqlalchemy
from sqlalchemy.pool import NullPool

from airflow_modelarts.testing.sandbox import START_TIMEOUT, Component, Sandbox, SandboxError, free_port
from tests.cluster.services import PostgreSQL, Redis

WORKERS = ("worker-1", "worker-2")
TRIGGERERS = ("triggerer-1", "triggerer-2")
#: Task slots of a worker.
CONCURRENCY = 4
#: How often a component may exit by itself before the tests fail.
RESTARTS = 3
#: Seconds.
REQUEST_TIMEOUT = 30.0

#: Airflow's default timeouts are minutes. Here Airflow detects losses within seconds.
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "cluster_machine.hostname",
    "PYTHONPATH": str(Path(__file__).parent / "machine"),
    # Twice the slots of the workers, so that messages wait in Redis.
    "AIRFLOW__CORE__PARALLELISM": "16",
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_TO_CREATE_PER_LOOP": "50",
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "50",
    # Airflow detects the tasks of a killed worker by their missing heartbeats (defaults: 300 and 10).
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    # Redis delivers messages again that the worker took and did not start (default: a day). This must be longer than
    # any task, or Celery delivers a running one a second time, which Airflow ignores.
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
    # The scheduler sends a lost message again (defaults: 600 and 120).
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "120",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    # The other triggerer takes over the triggers of a killed one (default: 30).
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    # On a busy machine a call of a task can take longer than the default of 5.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
    # Tasks are forks of the worker: they need not import what the worker has imported.
    "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps(
        {"imports": ["airflow_modelarts.hooks", "airflow_modelarts.operators", "airflow_modelarts.triggers"]}
    ),
    # Remote control of the workers is not used.
    "AIRFLOW__CELERY__WORKER_ENABLE_REMOTE_CONTROL": "False",
    # Its listeners would slow down every task.
    "AIRFLOW__OPENLINEAGE__DISABLED": "True",
}


@dataclass(frozen=True)
class Restart:
    """A component that exited by itself; ``at`` is in the seconds of ``time.monotonic``."""

    at: float
    name: str
    status: int
    last_words: str


class PostgreSQLMetadata:
    """The metadata database in PostgreSQL. Each query has a connection of its own, so a restart breaks none.

    The API does not say which triggerer has a trigger, and the API server loses the database too. The schema is that of
    the one Airflow version that these tests run on.
    """

    def __init__(self, url: str) -> None:
        driver = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
        self._engine = sqlalchemy.create_engine(driver, poolclass=NullPool)

    def ask(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query, in which ``:name`` stands for a parameter."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(sql), parameters)]


class Cluster(Sandbox):
    """The cluster, from ``start()`` to ``stop()``; a context manager.

    :param dags_folder: the DAG folder
    :param connections: Airflow connections by id
    """

    def __init__(self, dags_folder: Path, connections: Mapping[str, str]) -> None:
        super().__init__(dags_folder, connections=connections, environment=SETTINGS)
        self.restarts: list[Restart] = []
        self.postgresql = PostgreSQL()
        self.redis = Redis()
        self._session = requests.Session()

    def start(self) -> None:
        """Start the services and every component, and wait until all are up."""
        self.postgresql.create()
        self.redis.start()
        self.home.mkdir(mode=0o700)
        self._made_home = True
        (self.home / "tmp").mkdir()
        self.port = free_port()
        self.metadata = PostgreSQLMetadata(self.postgresql.url)
        self.environment = self._make_environment() | {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.postgresql.url,
            "AIRFLOW__CELERY__BROKER_URL": self.redis.url,
            "CLUSTER_HOSTNAME": "console",
        }
        self.airflow("db", "migrate")
        for name, arguments in self._commands_by_name().items():
            environment = {**self.environment, "CLUSTER_HOSTNAME": name}
            self.components[name] = Component(name, arguments, environment, self._component_log(name))
            self.components[name].start()
        for name in self.components:
            self.wait_until_up(name)
        self._log_in()

    def stop(self) -> None:
        """End every process and remove all data; safe to call twice."""
        try:
            super().stop()
        finally:
            self._session.close()
            self.redis.remove()
            self.postgresql.remove()

    def check(self) -> None:
        """Restart components that exited by themselves.

        :raises SandboxError: a component exits too often
        """
        self.postgresql.check()
        self.redis.check()
        for component in self.components.values():
            status = component.poll()
            if status is not None and not component.deliberately_down:
                self._start_again(component, status)

    def wait_until_up(self, name: str, *, newer_than: datetime | None = None, timeout: float = START_TIMEOUT) -> None:
        """Wait until a component works for the first time."""
        if not self._becomes_true(lambda: self._is_up(name), timeout):
            raise SandboxError(f"{name} did not come up within {timeout:g} s:\n{self.components[name].log_end()}")

    def start_run(self, dag_id: str, run_id: str) -> None:
        """Start a run through the API server: the command line takes seconds for each."""
        url = f"{self.url}/api/v2/dags/{dag_id}/dagRuns"
        body = {"dag_run_id": run_id, "logical_date": None}
        answer = self._session.post(url, json=body, timeout=REQUEST_TIMEOUT)
        if not answer.ok:
            raise SandboxError(f"run {run_id} was refused with {answer.status_code}: {answer.text}")

    def newest_job_of(self, name: str) -> int:
        """Return the id of the newest job of a component, 0 when there is none."""
        rows = self.metadata.ask("SELECT coalesce(max(id), 0) FROM job WHERE hostname = :name", name=name)
        return int(rows[0][0])

    def _start_again(self, component: Component, status: int) -> None:
        end = component.log_end(lines=60)
        if sum(restart.name == component.name for restart in self.restarts) >= RESTARTS:
            raise SandboxError(f"{component.name} exited {RESTARTS + 1} times, now with status {status}:\n{end}")
        self.restarts.append(Restart(time.monotonic(), component.name, status, end))
        component.kill()  # its remaining processes
        component.start()

    def _log_in(self) -> None:
        """Get a token of the API server, where every user is an administrator."""
        answer = requests.get(f"{self.url}/auth/token", timeout=REQUEST_TIMEOUT)
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def _is_up(self, name: str) -> bool:
        if name == "api-server":
            try:
                # The server builds its execution API at the first call, which takes seconds.
                return requests.get(f"{self.url}/execution/health", timeout=REQUEST_TIMEOUT).ok
            except requests.RequestException:
                return False
        if name in WORKERS:
            return " ready." in self.components[name].log.read_text(errors="replace")
        return self.newest_job_of(name) > 0

    def _commands_by_name(self) -> dict[str, list[str]]:
        worker = ["--skip-serve-logs", "--concurrency", str(CONCURRENCY)]
        return {
            "api-server": ["api-server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"],
            "scheduler": ["scheduler", "--skip-serve-logs"],
            "dag-processor": ["dag-processor"],
            **{name: ["triggerer", "--skip-serve-logs", *self._pid_file(name)] for name in TRIGGERERS},
            **{
                name: ["celery", "worker", "--celery-hostname", name, *worker, *self._pid_file(name)]
                for name in WORKERS
            },
        }

    def _pid_file(self, name: str) -> list[str]:
        return ["--pid", str(self.home / f"{name}.pid")]
