"""The command ``airflow-modelarts run``: runs one DAG in a scratch Airflow and prints its progress and results."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from airflow_modelarts.testing import run_report
from airflow_modelarts.testing.command import CONNECTION_ID, FAILURE, SUCCESS, UsageError
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.accounts import BUCKET
from airflow_modelarts.testing.sandbox import (
    DagImportError,
    DagNotFoundError,
    RunRefusedError,
    Sandbox,
    SandboxError,
    TaskInstance,
)
from airflow_modelarts.testing.seeded_tasks import ActiveSeeds, seed_and_print
from airflow_modelarts.testing.terminal import one_line, safe_print


def run(arguments: argparse.Namespace) -> int:
    """Run one DAG of a file once; see `airflow_modelarts.testing.cli.main` for the exit status."""
    with EmulatorServer(task_duration=arguments.task_duration) as server:
        sandbox = Sandbox(
            arguments.dag_file.resolve().parent,
            only_file=arguments.dag_file,
            connections={CONNECTION_ID: server.airflow_connection()},
            keep=arguments.keep,
        )
        safe_print(f"Local ModelArts at {server.url}; a processing task takes {arguments.task_duration:g} s.")
        safe_print(f"Its object store at {server.obs_url}, with the bucket {BUCKET}.")
        seeds = ActiveSeeds(server, seed_and_print(server, arguments.seed), arguments.task_duration)
        try:
            return _run_in(sandbox, seeds, arguments)
        except SandboxError as error:
            safe_print(f"airflow-modelarts: {error}", file=sys.stderr)
            return FAILURE
        finally:
            if arguments.keep:
                _print_home(sandbox)


def _run_in(sandbox: Sandbox, seeds: ActiveSeeds, arguments: argparse.Namespace) -> int:
    started_at = time.monotonic()
    processes = ", ".join(sandbox.profile.components)
    safe_print(f"Starting a scratch Airflow {version('apache-airflow')} ({processes}), about 15 s …")
    with sandbox:
        safe_print(f"Airflow is up after {time.monotonic() - started_at:.0f} s. Reading {arguments.dag_file} …")
        dag_id = choose_dag(sandbox, arguments.dag_file, arguments.dag_id)
        safe_print(f"Running {one_line(dag_id)}.\n")
        progress = Progress()
        try:
            run_id = sandbox.trigger(dag_id, arguments.conf)
        except RunRefusedError as error:
            raise UsageError(f"{error}. Pass the params of the run as a JSON object with --conf") from None

        def watch(task_instances: list[TaskInstance]) -> None:
            progress.show(task_instances)
            for task, status in seeds.change_due():
                progress.print_line(task.name, f"processing task {task.task_id} is {status} now")

        try:
            state = sandbox.wait(dag_id, run_id, arguments.timeout - progress.elapsed(), watch)
        except TimeoutError:
            not_done = run_report.unfinished(sandbox.task_instances(dag_id, run_id))
            safe_print(f"\nThe run has not ended within {arguments.timeout:g} s. {not_done}")
            state = "timed out"
        safe_print(f"\nRun of {one_line(dag_id)}: {state} after {progress.elapsed():.1f} s.")
        _print_results(sandbox, dag_id, run_id, all_logs=arguments.logs)
    return SUCCESS if state == "success" else FAILURE


def choose_dag(sandbox: Sandbox, dag_file: Path, dag_id: str | None) -> str:
    """Return the id of the DAG to run: the given one, or that of the file's only DAG."""
    try:
        known = sandbox.wait_for_dags()
    except DagImportError as error:
        for file, trace in error.errors.items():
            error.errors[file] = "\n".join(run_report.without_airflow_frames(trace.split("\n")))
        raise UsageError(str(error)) from None
    except DagNotFoundError as error:
        raise UsageError(str(error)) from None
    if dag_id is None and len(known) == 1:
        return known[0]
    if dag_id is not None and dag_id in known:
        return dag_id
    listed = "".join(f"\n  {name}" for name in known)
    if dag_id is None:
        raise UsageError(f"{dag_file} defines several DAGs; name one after the file:{listed}")
    raise UsageError(f"{dag_file} defines no DAG {dag_id!r}, but:{listed}")


class Progress:
    """Prints a line for each change of a task's state, with the seconds since the object was created."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._shown: dict[str, tuple[str, int]] = {}

    def elapsed(self) -> float:
        """Return the seconds since the object was created."""
        return time.monotonic() - self._started_at

    def show(self, task_instances: Iterable[TaskInstance]) -> None:
        """Print the changes since the last call."""
        for instance in task_instances:
            if instance.state is None:
                continue
            now = (instance.state, instance.try_number)
            if self._shown.get(instance.label) != now:
                self._shown[instance.label] = now
                tries = f" (try {instance.try_number})" if instance.try_number > 1 else ""
                self.print_line(instance.label, f"{instance.state}{tries}")

    def print_line(self, name: str, change: str) -> None:
        """Print one change."""
        safe_print(f"{self.elapsed():7.1f} s  {one_line(name):32} {change}")


def _print_results(sandbox: Sandbox, dag_id: str, run_id: str, *, all_logs: bool) -> None:
    instances = sandbox.task_instances(dag_id, run_id)
    safe_print(f"\n{run_report.task_table(instances)}")
    if listing := run_report.xcom_listing(sandbox.xcoms(dag_id, run_id)):
        safe_print(f"\nXComs\n{listing}")
    for instance in instances:
        for number in run_report.tries_to_show(instance, all_tries=all_logs):
            log = sandbox.task_log(dag_id, run_id, instance.task_id, instance.map_index, number)
            title = f"The end of the log of {one_line(instance.label)}, try {number}"
            safe_print(f"\n{title}\n{run_report.log_end(log)}")


def _print_home(sandbox: Sandbox) -> None:
    safe_print(
        f"\nThe scratch Airflow is kept in {sandbox.home}\n"
        "  logs:         logs/ (tasks), components/ (Airflow's processes)\n"
        f"  in a browser: . {sandbox.environment_file} && airflow {sandbox.profile.server}\n"
        f"                then {sandbox.url}; the local ModelArts no longer runs"
    )
