"""A run of the fault matrix in real Airflow: every case at once, and what became of each."""

from __future__ import annotations

import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.projects import Project
from airflow_modelarts.testing.sandbox import Sandbox, TaskInstance
from tests.integration.faults.cases import CLOCK_SKEW, SECONDS, Arranged, Bench, Fault
from tests.integration.faults.proxy import FaultProxy

DAGS = Path(__file__).parent / "dags"
#: Seconds for the whole matrix; what has not ended by then hangs. Two idle cores take a fifth of it.
LONGEST = 900.0
#: Seconds that a processing task takes which an operator creates.
DURATION = 5.0
#: Seconds, so that a black hole is noticed soon; a busy machine needs some.
TIMEOUTS = {"connect_timeout": 4, "read_timeout": 4}
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed"})


@dataclass
class Case:
    """One fault in one mode, and what became of it."""

    fault: Fault
    mode: str
    number: int
    arranged: Arranged
    processor_task_id: str = ""
    state: str = "not started"
    tries: int = 0
    requests: int = 0
    created: int = 0
    log: str = ""
    xcoms: dict[str, Any] = field(default_factory=dict)
    #: Where Airflow's scheduler says that it took the task for lost.
    losses: list[str] = field(default_factory=list)
    began: datetime | None = None
    ended: datetime | None = None
    _met_at: float | None = None

    @property
    def task_id(self) -> str:
        """Airflow's."""
        return f"case_{self.number}"

    @property
    def project_id(self) -> str:
        """A project of its own tells its requests from all others, in paths too."""
        return f"{self.number:032x}"

    @property
    def creates(self) -> bool:
        """Whether it creates the processing task instead of waiting for one that is there."""
        return self.mode.startswith("create")

    @property
    def seconds(self) -> float:
        """How long it took, in Airflow's own eyes."""
        return (self.ended - self.began).total_seconds() if self.began and self.ended else float("nan")

    def connection(self) -> str:
        """Return its Airflow connection, as JSON."""
        described = json.loads(self.arranged.service.airflow_connection())
        extra = {**described["extra"], **TIMEOUTS, "project_id": self.project_id, **self.arranged.extra}
        if extra.get("auth") == "password":
            described |= {"login": accounts.USER_NAME, "password": accounts.PASSWORD}
            extra["domain_name"] = accounts.DOMAIN_NAME
        return json.dumps({**described, "host": self.arranged.host, "extra": extra})

    def order(self) -> dict[str, Any]:
        """Return what the DAG file must know."""
        return {
            "task_id": self.task_id,
            "mode": self.mode,
            "conn_id": self.task_id,
            "processor_task_id": self.processor_task_id,
            # For what Airflow itself loses on a busy machine; what we fail must fail at its first try.
            "retries": 0 if self.fault.error else 2,
        }

    def prepare(self) -> None:
        """Put its project into the service, with a task to wait for."""
        state = self.arranged.service.state
        state.projects[self.project_id] = Project(self.project_id, self.project_id)
        if not self.creates:
            self.processor_task_id = state.add_task(project_id=self.project_id, duration=86400).task_id

    def follow(self, instance: TaskInstance) -> None:
        """Take in how the Airflow task is."""
        self.state, self.tries = str(instance.state), instance.try_number
        self.began = min(filter(None, [self.began, instance.start_date]), default=None)
        self.ended = instance.end_date

    def let_time_pass(self, proxy: FaultProxy, read_log: Callable[[], str]) -> None:
        """End a fault that counts no calls, some seconds after it was met."""
        way = self.arranged.way
        if not self.arranged.ends_by_time or way is None or way.is_mended:
            return
        now = time.monotonic()
        if self._met_at is None and (way.hits if self.arranged.counts else self._has_called(read_log())):
            self._met_at = now
        if self._met_at is not None and now > self._met_at + SECONDS:
            proxy.mend(way)

    def _has_called(self, log: str) -> bool:
        """Tell by its log whether it has called the service; of an operator, whether it is about to."""
        return "goes on" in log or (self.creates and "::endgroup::" in log)

    def let_task_end(self, answered: int) -> None:
        """
        Let the processing task end once a call has found it running, and no fault.

        :param answered: requests of the case that the service has answered with success, without a fault of its own.
        """
        way = self.arranged.way
        clean = answered if way is None else way.connections - way.hits
        if clean and self.arranged.has_passed and not self.creates:
            self.arranged.service.state.finish(self.processor_task_id)

    def conclude(self, sandbox: Sandbox, run_id: str, seen: Counter[str], pushed: dict[str, dict[str, Any]]) -> None:
        """Take in what is left behind."""
        self.requests = seen[self.project_id]
        self.created = 0 if not self.creates else len(self.arranged.service.state.projects[self.project_id].tasks)
        self.log = sandbox.task_log("faults", run_id, self.task_id)
        self.xcoms = pushed.get(self.task_id, {})


class Matrix:
    """
    The cases, run.

    :param secrets_found: the files of the scratch Airflow that hold a secret, by what was found.
    """

    def __init__(self, faults: Sequence[Fault], modes: Sequence[str], folder: Path) -> None:
        self.faults, self.modes = faults, modes
        self.cases: dict[tuple[str, str], Case] = {}
        self.trapped = 0
        self.seconds = 0.0
        self.secrets_found: list[str] = []
        self.bytes_searched = 0
        emulator, skewed = EmulatorServer(task_duration=DURATION), EmulatorServer()
        with emulator, skewed, FaultProxy() as proxy:
            skewed.state.settings.clock_offset = CLOCK_SKEW.total_seconds()
            bench = Bench(emulator, skewed, proxy, proxy.open(emulator.url), folder)
            self._arrange(bench)
            self._run(bench)
            self.trapped = bench.trap.connections

    def _arrange(self, bench: Bench) -> None:
        numbers = iter(range(1, 10_000))
        for fault in self.faults:
            for mode in self.modes:
                number = next(numbers)
                case = Case(fault, mode, number, Arranged("", bench.emulator))
                case.arranged = fault.arrange(bench, case.project_id)
                case.prepare()
                self.cases[fault.name, mode] = case

    def _run(self, bench: Bench) -> None:
        connections = {case.task_id: case.connection() for case in self.cases.values()}
        environment = {
            "FAULT_CASES": json.dumps([case.order() for case in self.cases.values()]),
            # Airflow takes this for broken after 5 seconds, which a busy machine can need.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            # A proxy of this machine's would resolve names in its own way.
            "NO_PROXY": "127.0.0.1,localhost,.invalid",
            "no_proxy": "127.0.0.1,localhost,.invalid",
        }
        with Sandbox(DAGS, connections=connections, environment=environment) as sandbox:
            sandbox.wait_for_dags("faults", timeout=180)
            run_id = sandbox.trigger("faults")
            began = time.monotonic()
            self._follow(sandbox, run_id, bench)
            self.seconds = time.monotonic() - began
            pushed: dict[str, dict[str, Any]] = {}
            for xcom in sandbox.xcoms("faults", run_id):
                pushed.setdefault(xcom.task_id, {})[xcom.key] = xcom.value
            seen = Counter(entry.path.split("/")[2] for entry in _requests(bench))
            said = sandbox.component("scheduler").log.read_text(errors="replace")
            losses = [line for line in said.splitlines() if "reported that the task instance" in line]
            for case in self.cases.values():
                case.conclude(sandbox, run_id, seen, pushed)
                case.losses = [line for line in losses if f" faults.{case.task_id} " in line]
            self._search_secrets(sandbox.home, bench)

    def _follow(self, sandbox: Sandbox, run_id: str, bench: Bench) -> None:
        by_task_id = {case.task_id: case for case in self.cases.values()}
        deadline = time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            sandbox.check()
            good = [entry for entry in _requests(bench) if entry.status == 200 and entry.fault is None]
            answered = Counter(entry.path.split("/")[2] for entry in good)
            for instance in sandbox.task_instances("faults", run_id):
                case = by_task_id[instance.task_id]
                if case.state not in ENDED:
                    case.follow(instance)
                    read_log = functools.partial(sandbox.task_log, "faults", run_id, case.task_id)
                    case.let_time_pass(bench.proxy, read_log)
                    case.let_task_end(answered[case.project_id])
            if all(case.state in ENDED for case in self.cases.values()):
                return
            time.sleep(0.3)

    def _search_secrets(self, home: Path, bench: Bench) -> None:
        """Search whatever Airflow has left behind: logs, database, the output of its processes."""
        tokens = [token for emulator in (bench.emulator, bench.skewed) for token in emulator.state.accounts._tokens]
        secrets = [text.encode() for text in (accounts.SECRET_KEY, accounts.PASSWORD, *tokens)]
        secrets += [b"SDK-HMAC-SHA256 Access"]
        for file in home.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                self.bytes_searched += len(content)
                self.secrets_found += [file.name for secret in secrets if secret in content]

    def table(self) -> str:
        """Return the table: a row a fault, a column a mode."""
        legend = (
            f"{len(self.cases)} cases in {self.seconds:.0f} s. In each: the outcome, its seconds, how many calls met "
            "the fault\n(? where nobody can count them), and how many requests reached the service, spoilt ones too."
        )
        head = ["fault", "ends with", *self.modes]
        rows = [[fault.name, fault.error or "success", *self._cells(fault)] for fault in self.faults]
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([legend, "", *(line.rstrip() for line in lines)])

    def _cells(self, fault: Fault) -> Iterator[str]:
        for mode in self.modes:
            case = self.cases[fault.name, mode]
            hits = "?" if case.arranged.hits is None else case.arranged.hits
            yield f"{case.state} {case.seconds:3.0f} s {hits:>2} {case.requests:>2}"


def _requests(bench: Bench) -> Iterator[Any]:
    for emulator in (bench.emulator, bench.skewed):
        yield from (entry for entry in emulator.state.log.entries() if entry.path.startswith("/v2/"))
