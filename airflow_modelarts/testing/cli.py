"""The command ``airflow-modelarts``: its arguments, its exit status and its signals.

``run_command`` and ``emulator_command`` are imported when they run, so that ``--help`` stays fast.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from airflow_modelarts import __version__
from airflow_modelarts.testing.command import CONNECTION_ID, USAGE, Interrupted, UsageError
from airflow_modelarts.testing.dag_file import check_dag_file
from airflow_modelarts.testing.terminal import safe_print

MAX_SEEDS = 10_000
#: Modules that come with the extra `emulator`.
EXTRA_MODULES = frozenset({"fastapi", "psutil", "starlette", "uvicorn"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0 is success, 1 a failed run or a failed Airflow, 2 wrong arguments or a wrong DAG file, and 128 + n a run that
    signal n ended. The emulator runs until a signal, and then returns 0.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal lacks must not raise
            stream.reconfigure(errors="backslashreplace")
    arguments = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        with _signals_interrupt():
            return command(arguments)
    except UsageError as error:
        safe_print(f"airflow-modelarts: {error}", file=sys.stderr)
        return USAGE
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_MODULES:
            raise
        hint = "in a clone of this package, pip install '.[emulator]'"
        print(f"airflow-modelarts: the local ModelArts needs {error.name}: {hint}", file=sys.stderr)
        return USAGE
    except Interrupted as interrupted:
        print("Interrupted; all started processes were ended.", file=sys.stderr)
        return 128 + interrupted.signal_number


def _run(arguments: argparse.Namespace) -> int:
    check_dag_file(arguments.dag_file)
    from airflow_modelarts.testing.run_command import run

    return run(arguments)


def _serve_emulator(arguments: argparse.Namespace) -> int:
    from airflow_modelarts.testing.emulator_command import serve

    return serve(arguments)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; each subcommand's function is in ``command``."""
    parser = argparse.ArgumentParser(
        prog="airflow-modelarts", description="Try DAGs that use ModelArts, without a cloud account."
    )
    parser.add_argument("--version", action="version", version=f"airflow-modelarts {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="run a DAG once, in a scratch Airflow against a local ModelArts",
        description="Run a DAG once, in real Airflow processes over a temporary home, against a local ModelArts that "
        f"the connection {CONNECTION_ID} points to. Everything is deleted afterwards, and your own Airflow is not "
        "touched.",
        epilog="Exit status: 0 the run succeeded, 1 it or the scratch Airflow failed, 2 wrong arguments or a wrong DAG "
        "file, 128 + n signal n ended it. The DAG file can import the files beside it; add other folders with "
        "PYTHONPATH.",
    )
    run.add_argument("dag_file", type=Path, metavar="DAG_FILE", help="the Python file that defines the DAG")
    run.add_argument("dag_id", nargs="?", metavar="DAG_ID", help="which DAG, if the file defines several")
    _add_task_duration(run, 5.0)
    run.add_argument("--conf", type=_json_object, default={}, metavar="JSON", help="the run's configuration or params")
    run.add_argument(
        "--timeout", type=_seconds, default=600.0, metavar="SECONDS", help="give up on the run after this (%(default)g)"
    )
    _add_seed(run, "one of them runs until --task-duration after the DAG's first request for it or for a list")
    run.add_argument("--logs", action="store_true", help="show the end of every task's log, not only of failed tries")
    run.add_argument("--keep", action="store_true", help="keep the scratch Airflow home and print its path")
    run.set_defaults(command=_run)

    emulator = commands.add_parser(
        "emulator",
        help="serve a local ModelArts until Ctrl-C",
        description="Serve a local ModelArts, IAM and object store until Ctrl-C, and print the Airflow connection to "
        "them.",
        epilog="A control API under /emulator ends tasks, makes calls fail and advances the clock. The command prints "
        "curl examples for it, and /docs describes it.",
    )
    emulator.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    emulator.add_argument(
        "--port",
        type=_integer_up_to("port", 65535),
        default=5080,
        help="the port of ModelArts and IAM (%(default)s), 0 for a free one",
    )
    emulator.add_argument(
        "--obs-port",
        type=_integer_up_to("port", 65535),
        help="the port of the object store, 0 for a free one; default is the one after --port",
    )
    _add_task_duration(emulator, 10.0)
    _add_seed(emulator, "one of them runs until the control API ends it")
    emulator.set_defaults(command=_serve_emulator)
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
        type=_integer_up_to("number", MAX_SEEDS),
        default=0,
        metavar="N",
        help="create N processing tasks of the last day in the local ModelArts, the same ones each time, and print "
        f"their ids; 5 cover every status, 25 every end in every template; {running} (%(default)s)",
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
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"a number of seconds is needed, not {text!r}")


def _integer_up_to(what: str, largest: int) -> Callable[[str], int]:
    """Return an argument type: an integer from 0 to `largest`."""

    def convert(text: str) -> int:
        with contextlib.suppress(ValueError):
            if 0 <= (value := int(text)) <= largest:
                return value
        raise argparse.ArgumentTypeError(f"a {what} from 0 to {largest} is needed, not {text!r}")

    return convert


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Make the first SIGINT (Ctrl-C), SIGTERM or SIGHUP raise Interrupted in the main thread; ignore later ones."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup sets SIG_IGN
        signals.append(signal.SIGHUP)

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        for other in signals:
            # Not SIG_IGN: Python would print a traceback for a signal that has already arrived.
            signal.signal(other, lambda *_: None)
        raise Interrupted(signal_number)

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
