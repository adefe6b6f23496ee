"""The command `airflow-modelarts`: run a DAG in a scratch Airflow against a local ModelArts, or serve that ModelArts.

What happens is in `sandbox` and `emulator`; here are the arguments, the words and the exit status.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from airflow_modelarts import __version__
from airflow_modelarts.api.statuses import ProcessorTaskStatus
from airflow_modelarts.testing.sandbox.dag_file import DagFileError, check_dag_file
from airflow_modelarts.testing.sandbox.task_log import one_line, printable

if TYPE_CHECKING:
    from airflow_modelarts.testing.emulator import EmulatorServer
    from airflow_modelarts.testing.emulator.service.tasks import Task
    from airflow_modelarts.testing.sandbox.airflow_api import TaskInstance, XCom
    from airflow_modelarts.testing.sandbox.sandbox import Sandbox

SUCCESS, FAILURE, USAGE = 0, 1, 2
XCOM_CHARACTERS = 1200
LINE_CHARACTERS = 80
LOG_LINES = 20
MOST_SEEDS = 10_000
CONNECTION_ID = "modelarts_default"
FINISHED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_FOLDING_MARK = re.compile(r"::(end)?group::")
ACTIVE = frozenset({ProcessorTaskStatus.INITIALIZED, ProcessorTaskStatus.RUNNING})
FAILED_TRY = frozenset({"failed", "up_for_retry"})
_AIRFLOW_FRAME = re.compile(r'\s*File "(.*[/\\]site-packages[/\\]airflow[/\\]|<frozen importlib)')


class UsageError(Exception):
    """What was asked for cannot be done; the message says what to do instead."""


def say(text: str, *, file: TextIO | None = None) -> None:
    """Print text of which some may be others': tasks' names, values and logs must not command the terminal."""
    print(printable(text), file=file, flush=True)


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0 for success, 1 when the run failed or Airflow did, 2 when the arguments or the DAG file are to blame,
    128 + n when signal n ended a run. The emulator ends by a signal, with 0.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no character of a result may end the command
            stream.reconfigure(errors="backslashreplace")
    arguments = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        with _signals_interrupt():
            return command(arguments)
    except UsageError as error:
        say(f"airflow-modelarts: {error}", file=sys.stderr)
        return USAGE
    except Interrupted as interrupted:
        print("Interrupted; everything it started has been ended.", file=sys.stderr)
        return 128 + interrupted.signal_number


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; each subcommand's function is in ``command``."""
    parser = argparse.ArgumentParser(
        prog="airflow-modelarts", description="Try DAGs that use ModelArts, without an account and without a cloud."
    )
    parser.add_argument("--version", action="version", version=f"airflow-modelarts {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="run a DAG once, in a scratch Airflow against a local ModelArts",
        description="Run a DAG once, in real Airflow processes over a temporary home, against a local ModelArts that "
        f"the connection {CONNECTION_ID} points to. Nothing is left behind, and your own Airflow is not touched.",
        epilog="Exit status: 0 the run succeeded, 1 it or the scratch Airflow failed, 2 the arguments or the DAG file "
        "are to blame, 128 + n signal n ended it. Files beside the DAG file can be imported; add other folders with "
        "PYTHONPATH.",
    )
    run.add_argument("dag_file", type=Path, metavar="DAG_FILE", help="the Python file that defines the DAG")
    run.add_argument("dag_id", nargs="?", metavar="DAG_ID", help="which DAG, when the file defines several")
    _add_task_duration(run, 5.0)
    run.add_argument("--conf", type=_json_object, default={}, metavar="JSON", help="the run's configuration or params")
    run.add_argument(
        "--timeout", type=_seconds, default=600.0, metavar="SECONDS", help="give up on the run after this (%(default)g)"
    )
    _add_seed(run, "one of them runs until the DAG has asked for it or for a list, and --task-duration longer")
    run.add_argument("--logs", action="store_true", help="show the end of every task's log, not of failed tries only")
    run.add_argument("--keep", action="store_true", help="keep the scratch Airflow home and say where it is")
    run.set_defaults(command=run_command)

    emulator = commands.add_parser(
        "emulator",
        help="serve a local ModelArts until Ctrl-C",
        description="Serve a local ModelArts and IAM until Ctrl-C, and print the Airflow connection to it.",
        epilog="A control API under /emulator ends tasks, makes calls fail and turns the clock; curl lines for it are "
        "printed at the start, and /docs describes it.",
    )
    emulator.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    emulator.add_argument(
        "--port", type=_port, default=5080, help="the port to listen on (%(default)s), 0 for a free one"
    )
    _add_task_duration(emulator, 10.0)
    _add_seed(emulator, "one of them runs until it is ended")
    emulator.set_defaults(command=emulator_command)
    return parser


def _add_task_duration(parser: argparse.ArgumentParser, default: float) -> None:
    parser.add_argument(
        "--task-duration",
        type=_seconds,
        default=default,
        metavar="SECONDS",
        help="how long a processing task takes in the local ModelArts (%(default)g)",
    )


def _add_seed(parser: argparse.ArgumentParser, running: str) -> None:
    parser.add_argument(
        "--seed",
        type=_count,
        default=0,
        metavar="N",
        help="put N processing tasks of the last day into the local ModelArts, the same ones each time, and print "
        f"their ids; 5 have every status, 25 every end in every template; {running} (%(default)s)",
    )


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('a JSON object is needed, such as {"processor_task_id": "…"}')
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds is needed, not {text!r}")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"a number from 0 to {MOST_SEEDS} is needed, not {text!r}")
    return value


def _port(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"a port from 0 to 65535 is needed, not {text!r}")
    return value


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Make the first of Ctrl-C, SIGTERM and SIGHUP raise Interrupted, wherever that is; later ones are ignored."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        signals.append(signal.SIGHUP)

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        for other in signals:
            # Not SIG_IGN: Python would print a traceback for one that has arrived already.
            signal.signal(other, lambda *_: None)
        raise Interrupted(signal_number)

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _emulator_class() -> type[EmulatorServer]:
    try:
        from airflow_modelarts.testing.emulator import EmulatorServer
    except ModuleNotFoundError as error:
        if error.name not in {"fastapi", "starlette", "uvicorn"}:
            raise
        raise UsageError(
            f"the local ModelArts needs {error.name}: in a clone of this package, pip install '.[emulator]'"
        ) from None
    return EmulatorServer


# airflow-modelarts emulator


def emulator_command(arguments: argparse.Namespace) -> int:
    """Serve the emulator until a signal ends it."""
    server_class = _emulator_class()
    try:
        emulator = server_class(host=arguments.host, port=arguments.port, task_duration=arguments.task_duration)
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        emulator.start()
    except OSError as error:
        raise UsageError(f"cannot listen on {arguments.host}:{arguments.port}: {error.strerror or error}") from error
    try:
        print(f"ModelArts and IAM:  {emulator.url}")
        print(f"OpenAPI page:       {emulator.url}/docs")
        tasks = _seed(emulator, arguments.seed)
        print("For Airflow, in the shell that starts it:\n")
        print(f"export AIRFLOW_CONN_{CONNECTION_ID.upper()}={shlex.quote(emulator.airflow_connection())}\n")
        print("For you, in any shell:\n")
        print(control_examples(emulator.url, tasks[0].task_id if tasks else "TASK_ID"))
        print("\nCtrl-C ends it.", flush=True)
        threading.Event().wait()
    except Interrupted:
        print("Ended.")
    finally:
        emulator.stop()
    return SUCCESS


def control_examples(url: str, task_id: str) -> str:
    """Return shell lines that use the emulator's control API.

    :param task_id: the processing task that they are about
    """
    control = f"{url}/emulator"

    def line(what: str, path: str, order: dict[str, Any] | None = None, method: str = "POST") -> str:
        body = f" -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(order))}" if order is not None else ""
        return f"# {what}\ncurl -sS -X {method} {control}/{path}{body}"

    return "\n".join(
        [
            line("show the processing tasks", "tasks", method="GET"),
            line("add one that runs for a minute", "tasks", {"template": "sys_data_validation", "duration": 60}),
            line("end one: completed, failed or stopped", f"tasks/{task_id}/finish"),
            line("", f"tasks/{task_id}/fail", {"error_msg": "the bucket is full"}).removeprefix("# \n"),
            line("", f"tasks/{task_id}/stop").removeprefix("# \n"),
            line("let the next task that is created fail", "rules", {"status": 3, "error_msg": "the bucket is full"}),
            line("throttle the next three calls (HTTP 429)", "faults", {"kind": "throttle", "times": 3}),
            line("let an hour pass", "clock/advance", {"seconds": 3600}),
            line("forget all of it", "reset"),
        ]
    )


def _seed(server: EmulatorServer, count: int) -> list[Task]:
    """Put processing tasks into the local ModelArts and print them."""
    from airflow_modelarts.testing.emulator.service.seeds import seed

    tasks = seed(server.state, count)
    if tasks:
        print(f"\nIts processing tasks, the newest first:\n{seed_table(server, tasks)}\n")
    return tasks


def seed_table(server: EmulatorServer, tasks: Iterable[Task]) -> str:
    """Return a table of the processing tasks in the local ModelArts."""
    now = server.state.clock.now()
    rows = [("Task id", "Status", "Age", "Name")]
    for task in sorted(tasks, key=lambda task: task.created_at, reverse=True):
        minutes = int((now - task.created_at) / 60)
        status = ProcessorTaskStatus(task.run.status(now)).name.lower()
        rows.append((task.task_id, status, f"{minutes // 60}:{minutes % 60:02} h", task.name))
    return aligned(rows)


# airflow-modelarts run


def run_command(arguments: argparse.Namespace) -> int:
    """Run one DAG of a file once; see `main` for the exit status."""
    dag_file: Path = arguments.dag_file
    try:
        check_dag_file(dag_file)
    except DagFileError as error:
        raise UsageError(str(error)) from None
    server_class = _emulator_class()
    from airflow_modelarts.testing.sandbox.sandbox import Sandbox, SandboxError

    with server_class(task_duration=arguments.task_duration) as server:
        sandbox = Sandbox(
            dag_file.resolve().parent,
            only_file=dag_file,
            connections={CONNECTION_ID: server.airflow_connection()},
            keep=arguments.keep,
        )
        print(f"Local ModelArts at {server.url}; a processing task takes {arguments.task_duration:g} s.")
        seeds = Seeds(server, _seed(server, arguments.seed), arguments.task_duration)
        try:
            return _run_in(sandbox, seeds, arguments)
        except SandboxError as error:
            say(f"airflow-modelarts: {error}", file=sys.stderr)
            return FAILURE
        finally:
            if arguments.keep:
                _say_where(sandbox)


def _run_in(sandbox: Sandbox, seeds: Seeds, arguments: argparse.Namespace) -> int:
    from airflow_modelarts.testing.sandbox.sandbox import RunRefusedError

    started = time.monotonic()
    processes = ", ".join(sandbox.flavour.components)
    print(f"Starting a scratch Airflow {version('apache-airflow')} ({processes}), some 15 s …", flush=True)
    with sandbox:
        say(f"Airflow is up after {time.monotonic() - started:.0f} s. Reading {arguments.dag_file} …")
        dag_id = choose_dag(sandbox, arguments.dag_file, arguments.dag_id)
        say(f"Running {one_line(dag_id)}.\n")
        progress = Progress()
        try:
            run_id = sandbox.trigger(dag_id, arguments.conf)
        except RunRefusedError as error:
            raise UsageError(f"{error}. A run gets its params by --conf, which takes a JSON object") from None

        def watch(task_instances: list[TaskInstance]) -> None:
            progress.show(task_instances)
            for task, status in seeds.end_those_due():
                progress.note(task.name, f"processing task {task.task_id} is {status} now")

        try:
            state = sandbox.wait(dag_id, run_id, arguments.timeout - progress.elapsed(), watch)
        except TimeoutError:
            print(f"\nThe run has not ended within {arguments.timeout:g} s.", end=" ")
            say(unfinished(sandbox.task_instances(dag_id, run_id)))
            state = "timed out"
        say(f"\nRun of {one_line(dag_id)}: {state} after {progress.elapsed():.1f} s.")
        _summarize(sandbox, dag_id, run_id, all_logs=arguments.logs)
    return SUCCESS if state == "success" else FAILURE


class Seeds:
    """The processing tasks of ``--seed`` that have not ended, and their ends during the run.

    The one that runs completes ``task_duration`` after the DAG has asked for a processing task or for a list, so that a
    sensor sees it run first. The one that is initialized begins to run then, and completes as much later.

    :param task_duration: seconds
    """

    def __init__(self, server: EmulatorServer, tasks: Sequence[Task], task_duration: float) -> None:
        self._state = server.state
        self._active = [task for task in tasks if task.run.status(self._state.clock.now()) in ACTIVE]
        self._task_duration = task_duration
        self._next_at: float | None = None

    def end_those_due(self) -> Iterator[tuple[Task, str]]:
        """Change what is due to change now; return the processing tasks and their new statuses."""
        if not self._active or not self._has_been_asked():
            return
        if self._next_at is None:
            self._next_at = time.monotonic() + self._task_duration
        if time.monotonic() < self._next_at:
            return
        task = self._active.pop(0)
        yield from self._set_status(task, ProcessorTaskStatus.COMPLETED)
        if self._active:
            yield from self._set_status(self._active[0], ProcessorTaskStatus.RUNNING)
        self._next_at = time.monotonic() + self._task_duration

    def _has_been_asked(self) -> bool:
        return any("ProcessorTask" in operation for operation in self._state.log.counts())

    def _set_status(self, task: Task, status: ProcessorTaskStatus) -> Iterator[tuple[Task, str]]:
        # The DAG may have stopped or deleted it.
        with contextlib.suppress(KeyError):
            if self._state.status(task.task_id) in ACTIVE:
                self._state.set_status(task.task_id, int(status))
                yield task, status.name.lower()


def choose_dag(sandbox: Sandbox, dag_file: Path, dag_id: str | None) -> str:
    """Return the DAG to run: the one that was named, or the only one there is."""
    from airflow_modelarts.testing.sandbox.sandbox import DagImportError, DagNotFoundError

    try:
        known = sandbox.wait_for_dags()
    except DagImportError as error:
        traces = "\n".join(
            f"{file} cannot be imported:\n" + "\n".join(_without_airflow_frames(trace.rstrip().split("\n")))
            for file, trace in error.errors.items()
        )
        raise UsageError(traces) from None
    except DagNotFoundError as error:
        raise UsageError(str(error)) from None
    if dag_id is None and len(known) == 1:
        return known[0]
    if dag_id in known:
        return str(dag_id)
    listed = "".join(f"\n  {name}" for name in known)
    if dag_id is None:
        raise UsageError(f"{dag_file} defines several DAGs; name one after the file:{listed}")
    raise UsageError(f"{dag_file} defines no DAG {dag_id!r}, but:{listed}")


class Progress:
    """Prints a line for each change of a task's state, with the seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._seen: dict[str, tuple[str, int]] = {}

    def elapsed(self) -> float:
        """Return the seconds since this object was made."""
        return time.monotonic() - self._start

    def show(self, task_instances: Iterable[TaskInstance]) -> None:
        """Print what has changed since the last call."""
        for instance in task_instances:
            if instance.state is None:
                continue
            now = (instance.state, instance.try_number)
            if self._seen.get(instance.label) != now:
                self._seen[instance.label] = now
                tries = f" (try {instance.try_number})" if instance.try_number > 1 else ""
                self.note(instance.label, f"{instance.state}{tries}")

    def note(self, name: str, what: str) -> None:
        """Print what has become of something."""
        say(f"{self.elapsed():7.1f} s  {one_line(name):32} {what}")


def unfinished(task_instances: Iterable[TaskInstance]) -> str:
    """Return a sentence on the tasks that have not ended."""
    waiting = [f"{i.label} ({i.state or 'not started'})" for i in task_instances if i.state not in FINISHED]
    return f"Not done: {', '.join(waiting)}." if waiting else "No task was running."


def _summarize(sandbox: Sandbox, dag_id: str, run_id: str, *, all_logs: bool) -> None:
    instances = sandbox.task_instances(dag_id, run_id)
    say(f"\n{task_table(instances)}")
    if listing := xcom_listing(sandbox.xcoms(dag_id, run_id)):
        say(f"\nXComs\n{listing}")
    for instance in instances:
        for number in tries_to_show(instance, all_tries=all_logs):
            log = sandbox.task_log(dag_id, run_id, instance.task_id, instance.map_index, number)
            say(f"\nThe end of the log of {one_line(instance.label)}, try {number}\n{log_end(log)}")


def tries_to_show(instance: TaskInstance, *, all_tries: bool) -> list[int]:
    """Return the numbers of the tries of a task that failed: all but the last have, and the state tells of that one."""
    last_failed = instance.state in FAILED_TRY
    return [*range(1, instance.try_number), *([instance.try_number] if last_failed or all_tries else [])] * (
        instance.try_number > 0
    )


def task_table(task_instances: Iterable[TaskInstance]) -> str:
    """Return a table of tasks with their state, tries and the duration of the last try."""
    rows = [("Task", "State", "Tries", "Duration")]
    for instance in task_instances:
        duration = "" if instance.duration is None else f"{instance.duration:.1f} s"
        rows.append((one_line(instance.label), instance.state or "not started", str(instance.try_number), duration))
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table whose columns line up."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def xcom_listing(xcoms: Iterable[XCom]) -> str:
    """Return what the tasks pushed, a paragraph a task, without what Airflow and the operators keep for themselves."""
    lines: list[str] = []
    label = None
    for xcom in xcoms:
        if xcom.key.startswith("_link_") or xcom.key in ("skipmixin_key", "modelarts_deferred_try"):
            continue
        if xcom.label != label:
            label = xcom.label
            lines.append(f"  {one_line(label)}")
        lines.append(_indented(f"{one_line(xcom.key)}: {shortened(xcom.value)}", 4))
    return "\n".join(lines)


def shortened(value: object) -> str:
    """Return a value as JSON, on one line if it is short, cut after XCOM_CHARACTERS with its size said."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > LINE_CHARACTERS:
        text = json.dumps(value, ensure_ascii=False, indent=2)
    return text if len(text) <= XCOM_CHARACTERS else f"{text[:XCOM_CHARACTERS]}… ({len(text):,} characters in all)"


def log_end(log: str) -> str:
    """Return the last LOG_LINES of a task's log, without Airflow's own stack frames and the folding marks of its UI."""
    lines = [line for line in _without_airflow_frames(log.split("\n")) if not _FOLDING_MARK.search(line)]
    return _indented("\n".join(lines[-LOG_LINES:]).strip("\n") or "(the task wrote no log)", 2)


def _without_airflow_frames(lines: Iterable[str]) -> Iterator[str]:
    frame_indentation: int | None = None
    for line in lines:
        indentation = len(line) - len(line.lstrip())
        if _AIRFLOW_FRAME.match(line):
            frame_indentation = indentation
        elif frame_indentation is None or indentation <= frame_indentation:
            frame_indentation = None
            yield line


def _indented(text: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in text.split("\n"))


def _say_where(sandbox: Sandbox) -> None:
    print(f"\nThe scratch Airflow is kept in {sandbox.home}")
    print("  logs:         logs/ (tasks), components/ (Airflow's processes)")
    print(f"  in a browser: . {sandbox.environment_file} && airflow {sandbox.flavour.server}")
    print(f"                then http://127.0.0.1:{sandbox.port}; the local ModelArts is gone")


if __name__ == "__main__":
    sys.exit(main())
