"""One process of a scratch Airflow: started with its output in a file, polled, and ended with all its descendants."""

from __future__ import annotations

import contextlib
import os
import subprocess  # nosec B404 - to run Airflow's own commands
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil  # type: ignore[import-untyped]


class Component:
    """One Airflow process in a session of its own, with its output in the file `log`.

    :param name: for messages
    :param arguments: the arguments of `airflow`
    :param environment: all environment variables of the process
    """

    def __init__(self, name: str, arguments: Iterable[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.deliberately_down = True
        # -P: a module in the working directory must not shadow one of Airflow's.
        self._command = [sys.executable, "-P", "-m", "airflow", *arguments]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._descendants: set[psutil.Process] = set()

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
        """Return the exit status, or None while the process runs; record its descendants for `kill`."""
        if self._process is None:
            return None
        if self._process.returncode is None:
            # The process id cannot be reused before the exit status is collected. Orphans stay in the session; a child
            # with a session of its own is recorded while its parent runs.
            self._descendants |= _children(self._process.pid) | _members_of_session(self._process.pid)
        return self._process.poll()

    def terminate(self) -> None:
        """Send SIGTERM to the process."""
        self.deliberately_down = True
        if self._process is not None and self.poll() is None:
            self._process.terminate()

    def kill(self, grace: float = 0.0) -> None:
        """Kill the process and all its descendants (SIGKILL); wait first for some seconds that it exits."""
        self.deliberately_down = True
        if self._process is None:
            return
        deadline = time.monotonic() + grace
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._process.returncode is None:
            self._process.kill()
        for descendant in self._descendants:
            with contextlib.suppress(psutil.Error):
                descendant.kill()
        self._process.wait()
        psutil.wait_procs([descendant for descendant in self._descendants if _is_running(descendant)], timeout=5)
        self._descendants.clear()

    def log_end(self, lines: int = 20) -> str:
        """Return the last lines of the log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        return ""


def _children(pid: int) -> set[psutil.Process]:
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
