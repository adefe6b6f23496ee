"""A scratch Airflow: real Airflow processes over a temporary AIRFLOW_HOME, started, watched and removed again.

`airflow-modelarts run` and the integration tests stand on it. It uses Airflow's REST API and command line, never the
metadata database, whose schema changes between versions.
"""

from __future__ import annotations

import base64
import contextlib
import copyreg
import os
import secrets
import shlex
import shutil
import socket
import subprocess  # nosec B404 - to run Airflow's own commands
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil  # type: ignore[import-untyped]

from airflow_modelarts.testing.sandbox.airflow_api import PAGE_SIZE, AirflowApi, RefusedError, TaskInstance, XCom
from airflow_modelarts.testing.sandbox.airflow_api import SandboxError as SandboxError
from airflow_modelarts.testing.sandbox.task_log import readable_log

START_TIMEOUT = 180.0
"""Seconds for Airflow's processes to come up; about 10 are usual, a busy machine needs more."""
PARSE_TIMEOUT = 45.0
"""Seconds for a DAG to appear. Airflow gives up on an import after 30 (`core.dagbag_import_timeout`)."""
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
POLL_INTERVAL = 0.3
"""Seconds between two looks at Airflow."""

FINAL_RUN_STATES = frozenset({"success", "failed"})

_COMMON_SETTINGS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__MIGHT_CONTAIN_DAG_CALLABLE": "airflow_modelarts.testing.sandbox.sandbox.is_wanted_dag_file",
    # The default asks DNS for a full name, which costs seconds where there is no DNS.
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
    # Stack frames of an import error; by default 2, of which none need be of the DAG file.
    "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "50",
    # Airflow 2.11 reports its usage over the network unless told not to.
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}


@dataclass(frozen=True)
class AirflowProfile:
    """What differs between the major versions of Airflow, as data.

    :param components: the processes that make an Airflow, by name, with the arguments of `airflow`
    :param server: the one of them that serves the REST API
    :param api_version: the version of that API
    :param settings: environment variables, in which ``{port}`` stands for a free port
    :param files: what AIRFLOW_HOME must hold, by name
    """

    components: Mapping[str, tuple[str, ...]]
    server: str
    api_version: str
    settings: Mapping[str, str]
    files: Mapping[str, str]


# Nobody asks the scheduler and the triggerer for task logs here, and their log servers would listen on all addresses:
# hence --skip-serve-logs.
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
    files={},
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
        # Airflow 2 refuses any executor on SQLite that runs tasks side by side. It parses DAGs in the scheduler.
        "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor",
        "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "1",
        "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "300",
        "AIRFLOW__WEBSERVER__BASE_URL": "http://127.0.0.1:{port}",
        "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
        "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": "{port}",
    },
    # As in Airflow 3 above, everybody on this machine is an administrator of the scratch Airflow.
    files={"webserver_config.py": 'AUTH_ROLE_PUBLIC = "Admin"\n'},
)


class DagNotFoundError(SandboxError):
    """Airflow has read the folder, or the one file, and found no such DAG."""


class RunRefusedError(SandboxError):
    """Airflow does not start the run: there is no such DAG, or the configuration does not fit its params."""


class DagImportError(SandboxError):
    """Airflow cannot import a DAG file; `errors` maps files to stack traces."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        self.errors = dict(errors)
        super().__init__("\n".join(f"{file} cannot be imported:\n{trace.rstrip()}" for file, trace in errors.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle without another call of ``__init__``, which wants more than the message."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]  # typeshed lacks it


def is_wanted_dag_file(file_path: str, zip_file: object | None = None) -> bool:
    """Tell Airflow that every Python file can hold a DAG: `core.might_contain_dag_callable` of the sandbox.

    By itself it leaves out files that do not have the words "dag" and "airflow" in them.
    """
    return True


def installed_flavour() -> AirflowProfile:
    """Return the flavour of the Airflow that is installed beside this package."""
    return AIRFLOW_2 if version("apache-airflow").startswith("2.") else AIRFLOW_3


def free_port() -> int:
    """Return a loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scratch_environment(inherited: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the caller's environment without what belongs to their own Airflow.

    Variables of Airflow's (AIRFLOW_VAR_…) stay, since a DAG may read them; settings and connections go, and what would
    tell their lineage backend of runs that are none.
    """
    environment = {
        name: value for name, value in inherited.items() if name.startswith("AIRFLOW_VAR_") or not _is_a_setting(name)
    }
    no_proxy = [*filter(None, [inherited.get("NO_PROXY") or inherited.get("no_proxy")]), "127.0.0.1", "localhost"]
    return environment | {
        "AIRFLOW_HOME": str(home),
        # Airflow keeps bundles, sockets and task configurations in the temporary directory.
        "TMPDIR": str(home / "tmp"),
        "PATH": os.pathsep.join(filter(None, [sysconfig.get_path("scripts"), inherited.get("PATH")])),
        "NO_PROXY": ",".join(no_proxy),
        "no_proxy": ",".join(no_proxy),
        # Nothing is written beside the user's DAGs.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _is_a_setting(name: str) -> bool:
    return name.lstrip("_").startswith(("AIRFLOW", "OPENLINEAGE"))


def _random_settings() -> dict[str, str]:
    """Keys that the processes must share; made here, so that they do not depend on who writes airflow.cfg first."""
    return {
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__WEBSERVER__SECRET_KEY": secrets.token_hex(16),
    }


class Component:
    """One Airflow process with all that it starts, in a session of its own and with its output in a file."""

    def __init__(self, name: str, arguments: Iterable[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.deliberately_down = True
        # -P: a module of the user's in the working directory must not shadow one of Airflow's.
        self._command = [sys.executable, "-P", "-m", "airflow", *arguments]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._family: set[psutil.Process] = set()

    @property
    def pid(self) -> int | None:
        """The id of the process, None before the first start."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process; return at once."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  # nosec B603 - the command is Airflow's
                self._command,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.deliberately_down = False

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs; remember its descendants for the day it is ended."""
        if self._process is None:
            return None
        if self._process.returncode is None:
            # Until its status is collected the process id is ours, even if the process has ended. An orphan keeps the
            # session; whoever makes a session of its own is caught here while its parent lives.
            self._family |= _descendants(self._process.pid) | _members_of_session(self._process.pid)
        return self._process.poll()

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM)."""
        self.deliberately_down = True
        if self._process is not None and self.poll() is None:
            self._process.terminate()

    def kill(self, grace: float = 0.0) -> None:
        """Kill the process and everything it started (SIGKILL), as the loss of its machine would.

        :param grace: seconds to wait for it to end by itself first
        """
        self.deliberately_down = True
        if self._process is None:
            return
        deadline = time.monotonic() + grace
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._process.returncode is None:
            self._process.kill()
        for member in self._family:
            with contextlib.suppress(psutil.Error):
                member.kill()
        self._process.wait()
        psutil.wait_procs([member for member in self._family if _is_running(member)], timeout=5)
        self._family.clear()

    def log_end(self, lines: int = 20) -> str:
        """Return the last lines of what the process wrote."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        return ""


def _descendants(pid: int) -> set[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return set(psutil.Process(pid).children(recursive=True))
    return set()


def _members_of_session(session: int) -> set[psutil.Process]:
    members = set()
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if pid != session and os.getsid(pid) == session:
                members.add(psutil.Process(pid))
    return members


def _is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


class Sandbox:
    """A scratch Airflow, from ``start()`` to ``stop()``; a context manager.

    :param dags_folder: the DAG folder; nothing is written to it
    :param only_file: parse this file of the folder alone, default all of them
    :param connections: Airflow connections by id, as JSON or URI; they exist in the environment only
    :param environment: variables for Airflow's processes, over everything the sandbox sets itself
    :param home: the folder to make for AIRFLOW_HOME, which must not exist yet; default a temporary one
    :param keep: leave the home in place at the end
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
        self.flavour = installed_flavour()
        self.components: dict[str, Component] = {}
        self._api: AirflowApi | None = None
        self._connections = dict(connections or {})
        self._overrides = dict(environment or {})
        self._commands: list[Component] = []
        self._command_count = 0
        self._made_home = False  # a folder that was there before is not ours to remove

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
            self.stop()  # it was interrupted
            raise

    # Life

    def start(self) -> None:
        """Create the home with its database, start every component and wait until all are up.

        :raises SandboxError: a command failed, a component died, or they took longer than START_TIMEOUT
        :raises FileExistsError: the home exists already
        """
        self.home.mkdir(mode=0o700, parents=True)
        self._made_home = True
        (self.home / "tmp").mkdir()
        if self.only_file:
            # Airflow puts this folder behind all others that it imports from: so the file finds what lies beside it.
            (self.home / "config").symlink_to(self.dags_folder)
        for name, text in self.flavour.files.items():
            (self.home / name).write_text(text, encoding="utf-8")
        self.port = free_port()
        self.environment = self._make_environment()
        self.airflow("db", "migrate")
        for name, arguments in self.flavour.components.items():
            filled_in = [argument.format(port=self.port) for argument in arguments]
            self.components[name] = Component(name, filled_in, self.environment, self._component_log(name))
            self.components[name].start()
        for name in self.components:
            self.wait_until_up(name)

    def stop(self) -> None:
        """End every process the sandbox started and remove its home, unless it is kept; safe to call twice."""
        processes = [*self.components.values(), *self._commands]
        for component in processes:
            component.terminate()
        deadline = time.monotonic() + GRACE
        for component in processes:
            component.kill(grace=deadline - time.monotonic())
        if self._api is not None:
            self._api.close()
        if self._made_home and self.keep:
            self._write_environment_file()
        elif self._made_home:
            shutil.rmtree(self.home, ignore_errors=True)

    def component(self, name: str) -> Component:
        """Return a component by its name in Airflow's command line, such as ``scheduler`` or ``triggerer``."""
        return self.components[name]

    def restart(self, name: str) -> None:
        """Kill a component with everything it started, start it again, and wait until it is up."""
        self.components[name].kill()
        killed = datetime.now(UTC)
        self.components[name].start()
        self.wait_until_up(name, newer_than=killed)

    def wait_until_up(self, name: str, *, newer_than: datetime | None = None, timeout: float = START_TIMEOUT) -> None:
        """Wait until a component works: the server answers, the others send heartbeats.

        :param newer_than: the end of its previous process, whose last heartbeat Airflow still knows
        """

        def up() -> bool:
            if name == self.flavour.server:
                return self.api.is_up()
            heartbeat = self.api.heartbeat(name)
            return heartbeat is not None and (newer_than is None or heartbeat > newer_than)

        if not self._becomes_true(up, timeout):
            end = self.components[name].log_end()
            raise SandboxError(f"Airflow's {name} did not come up within {timeout:g} s. The end of its log:\n{end}")

    def check(self) -> None:
        """Raise SandboxError when a component has died that nobody killed on purpose."""
        for component in self.components.values():
            status = component.poll()
            if status is not None and not component.deliberately_down:
                raise SandboxError(
                    f"Airflow's {component.name} ended by itself, with exit status {status}. The end of its log:\n"
                    + component.log_end()
                )

    def airflow(self, *arguments: str, timeout: float = START_TIMEOUT) -> str:
        """Run a command of Airflow's command line in the sandbox and return what it printed.

        :raises SandboxError: it failed, with the end of its output
        """
        title = " ".join(["airflow", *arguments[:2]])
        self._command_count += 1
        log = self._component_log("-".join(["command", str(self._command_count), *arguments[:2]]))
        command = Component(title, arguments, self.environment, log)
        self._commands.append(command)
        command.start()
        ended = self._becomes_true(lambda: command.poll() is not None, timeout)
        status = command.poll()
        command.kill()
        self._commands.remove(command)
        if not ended:
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
        """Airflow's REST API, from the start on."""
        if self._api is None:
            self._api = AirflowApi(self.url, self.flavour.api_version, self.check)
        return self._api

    @property
    def environment_file(self) -> Path:
        """The shell file that a kept home holds: sourced, it makes Airflow's commands work on that home."""
        return self.home / "environment.sh"

    # Work

    def wait_for_dags(self, *dag_ids: str, timeout: float = PARSE_TIMEOUT) -> list[str]:
        """Wait until Airflow knows these DAGs, or by default any at all, and return every DAG it knows.

        :raises SandboxError: none appeared in time; import errors end the wait at once, and are named
        """

        def known() -> bool:
            if dag_ids and set(dag_ids) <= set(self.api.dags()):
                return True
            if errors := self.api.import_errors():
                # Airflow names files relative to its DAG folder.
                raise DagImportError(
                    {str(self.only_file) if name == "." else name: trace for name, trace in errors.items()}
                )
            return not dag_ids and bool(self.api.dags())

        if not self._becomes_true(known, timeout):
            where = self.only_file or self.dags_folder
            raise DagNotFoundError(
                f"Airflow found no DAG {' '.join(dag_ids)}".rstrip() + f" in {where} within {timeout:g} s. Does the "
                "file call the function that @dag decorates, and does no .airflowignore exclude it?"
            )
        return self.api.dags()

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """Start a run of a DAG, with this moment as its logical date, and return its run id.

        :raises RunRefusedError: there is no such DAG, or `conf` does not fit its params
        """
        now = datetime.now(UTC)
        run_id = run_id or f"sandbox_{now:%Y%m%dT%H%M%S_%f}"
        try:
            if self.api.is_paused(dag_id):  # its own is_paused_upon_creation stands above the configuration
                self.api.unpause(dag_id)
            self.api.trigger(dag_id, run_id, now, conf or {})
        except RefusedError as error:
            raise RunRefusedError(f"Airflow does not start a run of DAG {dag_id!r}: {error}") from error
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
        :param watch: called with the task instances at every look, the last of them after the end
        :raises SandboxError: a component died meanwhile
        :raises TimeoutError: the run has not ended in time
        """
        deadline = time.monotonic() + timeout
        while True:
            state = self.api.run_state(dag_id, run_id)
            if watch is not None:
                watch(self.task_instances(dag_id, run_id))
            if state in FINAL_RUN_STATES:
                return str(state)
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"run {run_id} of {dag_id} is still {state} after {timeout:g} s")
            time.sleep(POLL_INTERVAL)

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Return the task instances of a run, in the order in which they started."""
        return self.api.task_instances(dag_id, run_id)

    def xcoms(self, dag_id: str, run_id: str) -> list[XCom]:
        """Return what the tasks of a run pushed, in the order in which they pushed it."""
        return self.api.xcoms(dag_id, run_id)

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
    ) -> str:
        """Return a task's log as text, of one try or of all of them, with what its trigger wrote in the triggerer."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        attempt = "*" if try_number is None else try_number
        files = sorted(folder.glob(f"attempt={attempt}.log*"), key=lambda file: file.name)
        return "\n".join(readable_log(file.read_text(encoding="utf-8", errors="replace")) for file in files)

    # Inside

    def _make_environment(self) -> dict[str, str]:
        environment = scratch_environment(os.environ, self.home) | _COMMON_SETTINGS | _random_settings()
        environment |= {name: value.format(port=self.port) for name, value in self.flavour.settings.items()}
        # A folder would be walked, with the links in it: a virtual environment beside the file ends Airflow's walk.
        environment["AIRFLOW__CORE__DAGS_FOLDER"] = str(self.only_file or self.dags_folder)
        environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{self.home / 'airflow.db'}"
        environment |= {f"AIRFLOW_CONN_{name.upper()}": value for name, value in self._connections.items()}
        return environment | self._overrides

    def _write_environment_file(self) -> None:
        """Write the environment for a shell; it holds keys and connections, so for its owner alone."""
        ours = {name: value for name, value in self.environment.items() if os.environ.get(name) != value}
        ours.pop("TMPDIR", None)
        theirs = [name for name in os.environ if _is_a_setting(name) and name not in self.environment]
        lines = [f"unset {name}\n" for name in sorted(theirs)]
        lines += [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(ours.items())]
        descriptor = os.open(self.environment_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.writelines(lines)

    def _component_log(self, name: str) -> Path:
        return self.home / "components" / f"{name}.log"

    def _becomes_true(self, condition: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_INTERVAL)
        return True
