"""PostgreSQL and Redis from Debian's packages, each with its own data, loopback port and password."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_modelarts.testing.sandbox import free_port

#: The required programs, and the Debian package of each.
PROGRAMS = {
    "initdb": "postgresql",
    "pg_isready": "postgresql",
    "postgres": "postgresql",
    "redis-server": "redis-server",
}
#: Seconds.
START_TIMEOUT = 150.0
STOP_TIMEOUT = 10.0
COMMAND_TIMEOUT = 60.0


def find_program(name: str) -> str | None:
    """Return the path of a program; Debian keeps PostgreSQL's outside of PATH, one folder a version."""
    newest_first = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name.zfill(4), reverse=True
    )
    folders = [*map(str, newest_first), os.environ.get("PATH", os.defpath), "/usr/sbin"]
    return shutil.which(name, path=os.pathsep.join(folders))


def what_is_missing() -> str:
    """Return which programs are missing and how to install them; empty if none is."""
    missing = [name for name in PROGRAMS if find_program(name) is None]
    if not missing:
        return ""
    packages = " ".join(sorted({PROGRAMS[name] for name in missing}))
    way = f"apt-get install {packages}, as root" if shutil.which("apt-get") else f"it is in Debian's {packages}"
    return f"{', '.join(missing)} not found: {way}"


class Service:
    """A server in a session of its own, with its data in a temporary folder and its output in a file."""

    name = ""
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self._user = _unprivileged_user()
        self.folder = Path(tempfile.mkdtemp(prefix=f"am-{self.name}-"))
        if self._user:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._as_user(),
            )
        self._wait_until(self._answers, "does not answer")

    def stop(self) -> None:
        """Send the stop signal and wait; after STOP_TIMEOUT kill the whole session."""
        if self._process is None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def remove(self) -> None:
        """Stop the server and remove its data; safe to call twice."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def check(self) -> None:
        """Raise RuntimeError if the server has exited by itself."""
        if self._process is not None and (status := self._process.poll()) is not None:
            raise RuntimeError(f"{self.name} ended by itself, with exit status {status}:\n{self._log_end()}")

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _program(self, name: str) -> str:
        program = find_program(name)
        assert program, f"{name} is missing"
        return program

    def _wait_until(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} {otherwise} within {START_TIMEOUT:g} s:\n{self._log_end()}")
            time.sleep(0.05)

    def _log_end(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])


class PostgreSQL(Service):
    """A database ``airflow`` of the user ``airflow``."""

    name = "postgresql"
    #: As `pg_ctl stop -m fast` does: it rolls back what is open and cuts every connection.
    stop_signal = signal.SIGINT

    @property
    def url(self) -> str:
        """The URL for Airflow's configuration. It names no driver, so Airflow chooses one."""
        return f"postgresql://airflow:{self.password}@127.0.0.1:{self.port}/airflow"

    def create(self) -> None:
        """Create the cluster and the database, and start serving it."""
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o644)  # the folder itself is closed to others
        self._run("initdb", "--pgdata", self._data, "--username", "airflow", "--auth", "scram-sha-256",
                  "--pwfile", str(password_file), "--encoding", "UTF8", "--locale", "C.UTF-8")  # fmt: skip
        # Single-user mode needs no client and no password.
        self._run("postgres", "--single", "-D", self._data, "postgres", given=b"CREATE DATABASE airflow\n")
        self.start()

    def restart(self) -> None:
        """Restart it as `pg_ctl restart -m fast` does."""
        self.stop()
        self.start()

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            # It protects against a crash of the machine only.
            "fsync": "off",
        }
        return [self._program("postgres"), "-D", self._data, *(f"--{name}={value}" for name, value in settings.items())]

    def _answers(self) -> bool:
        question = [self._program("pg_isready"), "--host", "127.0.0.1", "--port", str(self.port), "--quiet"]
        return subprocess.run(question, timeout=COMMAND_TIMEOUT).returncode == 0

    def _run(self, program: str, *arguments: str, given: bytes = b"") -> None:
        done = subprocess.run(
            [self._program(program), *arguments],
            cwd=self.folder,
            input=given,
            capture_output=True,
            timeout=COMMAND_TIMEOUT,
            **self._as_user(),
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{(done.stdout + done.stderr).decode(errors='replace')}")


class Redis(Service):
    """Celery's broker; it keeps nothing on disk."""

    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        # The password is in a file, since all users can read arguments.
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "save": '""',
            "appendonly": "no",
            "dir": self.folder,
        }
        file = self.folder / "redis.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return [self._program("redis-server"), str(file)]

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(f"AUTH {self.password}\r\n".encode())
            return connection.recv(64).startswith(b"+OK")
        return False


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Return the user for the servers if the tests run as root, which PostgreSQL refuses; None for the current user."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")
