"""Helpers for tests that run DAGs in a real Airflow: read states and XComs, mark and clear tasks, follow a run."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import requests
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from cryptography.fernet import Fernet

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts, trust
from airflow_modelarts.testing.emulator.service.tasks import Task
from airflow_modelarts.testing.sandbox.sandbox import Sandbox, TaskInstance
from tests.support.waiting import TIMEOUT, wait_until

REQUEST_TIMEOUT = 60.0
RUNNING, COMPLETED, STOPPED = 1, 2, 4
#: What all ID tokens of the emulator's identity provider have in common: the beginning of the claims.
ID_TOKEN = trust.issue_id_token(now=0).split(".")[1][:80]


def states(sandbox: Sandbox, dag_id: str, run_id: str) -> dict[str, str]:
    """Return the state of each task instance of a run; mapped ones are named ``task[0]``."""
    return {instance.label: str(instance.state) for instance in sandbox.task_instances(dag_id, run_id)}


def pushed(sandbox: Sandbox, dag_id: str, run_id: str) -> dict[tuple[str, str], Any]:
    """Return the XComs of a run by task and key; mapped tasks are named ``task[0]``."""
    return {(xcom.label, xcom.key): xcom.value for xcom in sandbox.xcoms(dag_id, run_id)}


def secrets_in(content: bytes, *emulators: EmulatorServer) -> list[bytes]:
    """Return the keys, passwords, tokens, signatures and signed links that a content has.

    Those of the object store too: temporary keys with their tokens, and what presigned links and headers have. And
    those of services that issue temporary keys: ID tokens, and the tokens of a pod and of the metadata service.
    """
    tokens = [token for emulator in emulators for token in emulator.state.accounts._tokens]
    keys = [key for emulator in emulators for key in emulator.state.accounts._keys.values()]
    own = [text for key in keys for text in (key.secret_key, key.security_token) if text]
    tokens += [text for text in own if not text.startswith(accounts.ISSUED_TOKEN)]  # one of them stands for all
    tokens += [accounts.ISSUED_TOKEN, trust.POD_TOKEN, trust.METADATA_TOKEN, ID_TOKEN]
    secrets = [re.escape(text.encode()) for text in (accounts.SECRET_KEY, accounts.PASSWORD, *tokens)]
    signed = [rb"[?&](?:Signature|x-obs-security-token)=", b"SDK-HMAC-SHA256 Access"]
    signed += [rb"[xX]-[aA]mz-(?:[sS]ignature|[sS]ecurity-[tT]oken)[=:]", b"AWS4-HMAC-SHA256 Credential"]
    return re.findall(b"|".join([*secrets, *signed]), content)


def files_with_secrets(sandbox: Sandbox, *emulators: EmulatorServer) -> list[str]:
    """Return those of Airflow's files that contain a secret."""
    contents = {str(file): file.read_bytes() for file in sandbox.home.rglob("*") if file.is_file()}
    assert sum(map(len, contents.values())) > 100_000, "the logs and the database are there"
    return [name for name, content in contents.items() if secrets_in(content, *emulators)]


def trigger_rows(sandbox: Sandbox) -> list[str]:
    """Return the arguments of all triggers as Airflow's database has them, as JSON; Airflow encrypts some of them."""
    key = Fernet(sandbox.environment["AIRFLOW__CORE__FERNET_KEY"])
    with closing(sqlite3.connect(sandbox.home / "airflow.db", timeout=60)) as connection:
        rows = connection.execute("SELECT kwargs FROM trigger").fetchall()
    return [row if row.startswith("{") else key.decrypt(row.encode()).decode() for (row,) in rows]


class AirflowUser:
    """A user of Airflow's public API, who repeats a request while the database is locked."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._url = f"{sandbox.url}/api/{'v2' if AIRFLOW_V_3_0_PLUS else 'v1'}"
        if AIRFLOW_V_3_0_PLUS:
            token = self._session.get(f"{sandbox.url}/auth/token", timeout=REQUEST_TIMEOUT).json()["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"

    def mark_task_failed(self, dag_id: str, run_id: str) -> None:
        body = {"new_state": "failed"} if AIRFLOW_V_3_0_PLUS else {"new_state": "failed", "dry_run": False}
        self._send("PATCH", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/run", body)

    def mark_run_failed(self, dag_id: str, run_id: str) -> None:
        self._send("PATCH", f"dags/{dag_id}/dagRuns/{run_id}", {"state": "failed"})

    def clear_task(self, dag_id: str, run_id: str, task_id: str = "run") -> None:
        body = {"dry_run": False, "only_failed": False, "dag_run_id": run_id, "task_ids": [task_id]}
        self._send("POST", f"dags/{dag_id}/clearTaskInstances", body)

    def _send(self, method: str, path: str, body: dict[str, Any]) -> None:
        def is_done() -> bool:
            try:
                answer = self._session.request(method, f"{self._url}/{path}", json=body, timeout=REQUEST_TIMEOUT)
            except requests.Timeout:  # it waited for the database, too; marking twice is the same as once
                if method == "PATCH":
                    return False
                raise
            assert answer.ok or (answer.status_code >= 500 and "locked" in answer.text), answer.text
            return answer.ok

        wait_until(is_done, f"{method} {path}")


class CreateRun:
    """A run of a DAG whose task ``run`` creates a processing task.

    :param duration: seconds that the first processing task takes. The next ones take the emulator's default.
    """

    def __init__(self, sandbox: Sandbox, emulator: EmulatorServer, dag_id: str, *, duration: float = 100_000) -> None:
        self.sandbox, self.dag_id, self._state = sandbox, dag_id, emulator.state
        self._before = {task.task_id for task in emulator.state.all_tasks()}
        emulator.state.next_task(name=f"{dag_id.replace('_', '-')}-*", duration=duration)
        self.run_id = sandbox.trigger(dag_id)

    @property
    def tasks(self) -> list[Task]:
        """The processing tasks that were created since the run was triggered."""
        return [task for task in self._state.all_tasks() if task.task_id not in self._before]

    @property
    def instance(self) -> TaskInstance:
        instances = self.sandbox.task_instances(self.dag_id, self.run_id)
        return next(instance for instance in instances if instance.task_id == "run")

    def log(self) -> str:
        return self.sandbox.task_log(self.dag_id, self.run_id, "run")

    def status(self, task: Task) -> int:
        return self._state.status(task.task_id)

    def value(self, key: str) -> Any:
        """Return an XCom of the task ``run``."""
        return pushed(self.sandbox, self.dag_id, self.run_id)["run", key]

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Poll a condition while Airflow's processes live. A failure shows the task's log."""

        def holds() -> object:
            self.sandbox.check()
            return condition()

        wait_until(holds, self.log)

    def wait_for_task(self) -> Task:
        """Wait until the processing task is created."""
        self.wait_until(lambda: self.tasks)
        return self.tasks[-1]

    def wait_for_running_task(self) -> Task:
        """Wait until the processing task is created, and let it run: the service stops none that is initializing."""
        task = self.wait_for_task()
        self._state.set_status(task.task_id, RUNNING)
        return task

    def wait_until_deferred(self) -> None:
        """Wait until the task is deferred and the triggerer has started its trigger."""
        self.wait_until(
            lambda: self.instance.state == "deferred" and "starting" in self.log().split("Post Execute")[-1]
        )

    def wait_until_stopped(self, task: Task) -> None:
        self.wait_until(lambda: self.status(task) == STOPPED)

    def wait_for_end(self) -> str:
        """Return the final state of the run."""
        return self.sandbox.wait(self.dag_id, self.run_id, timeout=TIMEOUT)
