"""The sandbox: starts a scratch Airflow, runs DAGs in it, waits for their runs, and removes it.

It uses Airflow's REST API and command line, never the metadata database, whose schema changes between versions.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from airflow_modelarts.testing.sandbox.airflow_api import AirflowApi, RefusedError, SandboxError, TaskInstance, XCom
from airflow_modelarts.testing.sandbox.component import Component
from airflow_modelarts.testing.sandbox.configuration import (
    free_port,
    installed_profile,
    sandbox_settings,
    scratch_environment,
    write_environment_file,
)
from airflow_modelarts.testing.sandbox.task_log import readable_log

START_TIMEOUT = 400.0
"""Seconds for Airflow's processes to start. They usually need about 10, on a busy machine many times that."""
PARSE_TIMEOUT = 45.0
"""Seconds for a DAG to appear. Airflow stops an import after 30 (`core.dagbag_import_timeout`)."""
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
POLL_INTERVAL = 0.3
"""Seconds between two polls of Airflow at first. Long waits ask less often, which leaves the CPU to Airflow."""
LONGEST_POLL_INTERVAL = 1.0
"""Seconds between two polls after some 20 seconds."""

FINAL_RUN_STATES = frozenset({"success", "failed"})


class DagNotFoundError(SandboxError):
    """Airflow has parsed the folder, or the one file, and found no such DAG."""


class RunRefusedError(SandboxError):
    """Airflow refused to start the run: the DAG does not exist, or `conf` does not match its params."""


class DagImportError(SandboxError):
    """Airflow cannot import a DAG file; `errors` maps files to stack traces."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(errors)
        self.errors = dict(errors)

    def __str__(self) -> str:
        return "\n".join(f"{file} cannot be imported:\n{trace.rstrip()}" for file, trace in self.errors.items())


class Sandbox:
    """A scratch Airflow, from ``start()`` to ``stop()``; a context manager.

    :param dags_folder: the DAG folder; nothing is written to it
    :param only_file: parse only this file of the folder, default all of them
    :param connections: Airflow connections by id, as JSON or URI; they exist in the environment only
    :param environment: variables for Airflow's processes; they override everything the sandbox sets
    :param home: the folder to create as AIRFLOW_HOME, which must not exist yet; default a temporary one
    :param keep: do not delete the home at the end
    """

    def __init__(
        self,
        dags_folder: str | os.PathLike[str],
        *,
        only_file: str | os.PathLike[str] | None = None,
        connections: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        home: str | os.PathLike[str] | None = None,
        keep: bool = False,
    ) -> None:
        self.dags_folder = Path(dags_folder).resolve()
        self.only_file = Path(only_file).resolve() if only_file else None
        self.keep = keep
        self.home = Path(home or Path(tempfile.gettempdir(), f"airflow-modelarts-{secrets.token_hex(4)}")).resolve()
        self.environment: dict[str, str] = {}
        self.port = 0
        self.profile = installed_profile()
        self.components: dict[str, Component] = {}
        self._api: AirflowApi | None = None
        self._connections = dict(connections or {})
        self._overrides = dict(environment or {})
        self._commands: list[Component] = []
        self._command_count = 0
        self._made_home = False  # a folder that existed before is never deleted

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except BaseException:
            self.stop()  # the first call was interrupted
            raise

    # Processes

    def start(self) -> None:
        """Create the home with its database, start every component and wait until all are up.

        :raises SandboxError: a command failed, a component died, or starting took longer than START_TIMEOUT
        :raises FileExistsError: the home exists already
        """
        self.home.mkdir(mode=0o700, parents=True)
        self._made_home = True
        (self.home / "tmp").mkdir()
        if self.only_file:
            # Airflow appends this folder to sys.path, so that the DAG file can import the modules beside it.
            (self.home / "config").symlink_to(self.dags_folder)
        for name, text in self.profile.files.items():
            (self.home / name).write_text(text, encoding="utf-8")
        self.port = free_port()
        self.environment = self._make_environment()
        self.airflow("db", "migrate")
        for name, arguments in self.profile.components.items():
            filled_in = [argument.format(port=self.port) for argument in arguments]
            self.components[name] = Component(name, filled_in, self.environment, self._component_log(name))
            self.components[name].start()
        for name in self.components:
            self.wait_until_up(name)

    def stop(self) -> None:
        """End every process of the sandbox and delete its home, unless `keep` is set; safe to call twice."""
        processes = [*self.components.values(), *self._commands]
        for component in processes:
            component.terminate()
        deadline = time.monotonic() + GRACE
        for component in processes:
            component.kill(grace=deadline - time.monotonic())
        if self._api is not None:
            self._api.close()
        if self._made_home and self.keep:
            write_environment_file(self.environment_file, self.environment, os.environ)
        elif self._made_home:
            shutil.rmtree(self.home, ignore_errors=True)

    def component(self, name: str) -> Component:
        """Return a component by its name in Airflow's command line, such as ``scheduler`` or ``triggerer``."""
        return self.components[name]

    def restart(self, name: str) -> None:
        """Kill a component with all its descendants, start it again, and wait until it is up."""
        self.components[name].kill()
        killed_at = datetime.now(UTC)
        self.components[name].start()
        self.wait_until_up(name, newer_than=killed_at)

    def wait_until_up(self, name: str, *, newer_than: datetime | None = None, timeout: float = START_TIMEOUT) -> None:
        """Wait until a component works: the server answers, the others send heartbeats.

        :param newer_than: ignore older heartbeats, which are of the component's previous process
        """

        def is_up() -> bool:
            if name == self.profile.server:
                return self.api.is_up()
            heartbeat = self.api.heartbeat(name)
            return heartbeat is not None and (newer_than is None or heartbeat > newer_than)

        if not self._becomes_true(is_up, timeout):
            log_end = self.components[name].log_end()
            raise SandboxError(f"Airflow's {name} did not come up within {timeout:g} s. The end of its log:\n{log_end}")

    def check(self) -> None:
        """Raise SandboxError if a component has exited that was not stopped deliberately."""
        for component in self.components.values():
            status = component.poll()
            if status is not None and not component.deliberately_down:
                raise SandboxError(
                    f"Airflow's {component.name} exited unexpectedly with status {status}. The end of its log:\n"
                    + component.log_end()
                )

    def airflow(self, *arguments: str, timeout: float = START_TIMEOUT) -> str:
        """Run a command of Airflow's command line in the sandbox and return its output.

        :raises SandboxError: it failed or timed out; the message holds the end of its output
        """
        title = " ".join(["airflow", *arguments[:2]])
        self._command_count += 1
        log = self._component_log("-".join(["command", str(self._command_count), *arguments[:2]]))
        command = Component(title, arguments, self.environment, log)
        self._commands.append(command)
        command.start()
        has_exited = self._becomes_true(lambda: command.poll() is not None, timeout)
        status = command.poll()
        command.kill()
        self._commands.remove(command)
        if not has_exited:
            raise SandboxError(f"`{title}` did not end within {timeout:g} s. Its output:\n{command.log_end()}")
        if status:
            raise SandboxError(f"`{title}` failed with exit status {status}:\n{command.log_end()}")
        return log.read_text(encoding="utf-8", errors="replace")

    @property
    def url(self) -> str:
        """Scheme, host and port of Airflow's web pages and REST API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> AirflowApi:
        """Airflow's REST API, available after ``start()``."""
        if self._api is None:
            self._api = AirflowApi(self.url, self.profile.api_version, self.check)
        return self._api

    @property
    def environment_file(self) -> Path:
        """A shell file in a kept home: after sourcing it, Airflow's commands use that home."""
        return self.home / "environment.sh"

    # DAGs and their runs

    def wait_for_dags(self, *dag_ids: str, timeout: float = PARSE_TIMEOUT) -> list[str]:
        """Wait until Airflow knows these DAGs, or by default any DAG, and return the ids of all DAGs it knows.

        :raises DagNotFoundError: the DAGs did not appear in time
        :raises DagImportError: a file cannot be imported; raised at once
        """

        def are_known() -> bool:
            if dag_ids and set(dag_ids) <= set(self.api.dags()):
                return True
            if errors := self.api.import_errors():
                # Airflow names files relative to its DAG folder, which may be the one file.
                raise DagImportError(
                    {str(self.only_file) if name == "." else name: trace for name, trace in errors.items()}
                )
            return not dag_ids and bool(self.api.dags())

        if not self._becomes_true(are_known, timeout):
            raise DagNotFoundError(
                f"Airflow found no DAG {' '.join(dag_ids)}".rstrip()
                + f" in {self.only_file or self.dags_folder} within {timeout:g} s. "
                "Does the file call the function that @dag decorates, and does no .airflowignore exclude it?"
            )
        return self.api.dags()

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """Start a run of a DAG, with the current time as its logical date, and return its run id.

        :raises RunRefusedError: the DAG does not exist, or `conf` does not match its params
        """
        now = datetime.now(UTC)
        run_id = run_id or f"sandbox_{now:%Y%m%dT%H%M%S_%f}"
        try:
            if self.api.is_paused(dag_id):  # the DAG's is_paused_upon_creation overrides the configuration
                self.api.unpause(dag_id)
            self.api.trigger(dag_id, run_id, now, conf or {})
        except RefusedError as error:
            raise RunRefusedError(f"Airflow did not start a run of DAG {dag_id!r}: {error}") from error
        return run_id

    def wait(
        self,
        dag_id: str,
        run_id: str,
        timeout: float = 120.0,
        watch: Callable[[list[TaskInstance]], None] | None = None,
    ) -> str:
        """Wait until a run has ended and return its state, ``success`` or ``failed``.

        :param timeout: seconds
        :param watch: called with the task instances at every poll, the last time after the end
        :raises SandboxError: a component died meanwhile
        :raises TimeoutError: the run has not ended in time
        """
        state: str | None = None

        def has_ended() -> bool:
            nonlocal state
            state = self.api.run_state(dag_id, run_id)
            if watch is not None:
                watch(self.task_instances(dag_id, run_id))
            return state in FINAL_RUN_STATES

        if not self._becomes_true(has_ended, timeout):
            raise TimeoutError(f"run {run_id} of {dag_id} is still {state} after {timeout:g} s")
        return str(state)

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Return the task instances of a run, in the order in which they started."""
        return self.api.task_instances(dag_id, run_id)

    def xcoms(self, dag_id: str, run_id: str) -> list[XCom]:
        """Return the XComs of a run, in the order in which they were pushed."""
        return self.api.xcoms(dag_id, run_id)

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
    ) -> str:
        """Return a task's log as text, of one try or by default of all; it includes the trigger's log lines."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        attempt = "*" if try_number is None else try_number
        files = sorted(folder.glob(f"attempt={attempt}.log*"), key=lambda file: file.name)
        return "\n".join(readable_log(file.read_text(encoding="utf-8", errors="replace")) for file in files)

    # Helpers

    def _make_environment(self) -> dict[str, str]:
        return {
            **scratch_environment(os.environ, self.home),
            **sandbox_settings(self.profile, self.home, self.port),
            # With one file wanted, its folder is not named: Airflow would walk through it, and fail at links such as
            # those of a virtual environment.
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.only_file or self.dags_folder),
            **{f"AIRFLOW_CONN_{name.upper()}": value for name, value in self._connections.items()},
            **self._overrides,
        }

    def _component_log(self, name: str) -> Path:
        return self.home / "components" / f"{name}.log"

    def _becomes_true(self, condition: Callable[[], bool], timeout: float) -> bool:
        began = time.monotonic()
        while not condition():
            self.check()
            waited = time.monotonic() - began
            if waited > timeout:
                return False
            time.sleep(min(max(waited / 20, POLL_INTERVAL), LONGEST_POLL_INTERVAL))
        return True
