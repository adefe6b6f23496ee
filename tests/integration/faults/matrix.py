"""The fault matrix: every fault in every mode, run in a real Airflow."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from tests.integration.faults.cases import CLOCK_SKEW, SECONDS, Fault, InjectedFault, Servers
from tests.support.airflow_runs import files_with_secrets
from tests.support.case_table import DAG_ID, Case, airflow_with, format_table, run_cases
from tests.support.fault_proxy import FaultProxy

#: Seconds for the whole matrix. Two idle cores need less than a tenth of it.
TIMEOUT = 2400.0
#: Seconds that a created processing task takes.
DURATION = 5.0
#: Seconds: a connection that never answers is noticed soon, and a busy machine still answers in time.
TIMEOUTS = {"connect_timeout": 4, "read_timeout": 4}


@dataclass(kw_only=True, eq=False)
class FaultCase(Case):
    """One fault in one mode.

    :param losses: the scheduler's messages that it lost the Airflow task.
    """

    fault: Fault
    injected: InjectedFault
    proxy: FaultProxy
    requests: int = 0
    losses: list[str] = field(default_factory=list)
    _met_at: float | None = None

    def connection(self) -> dict[str, Any]:
        described = super().connection()
        extra = {**described["extra"], **TIMEOUTS, **self.injected.extra}
        if extra.get("auth") == "password":
            described |= {"login": accounts.USER_NAME, "password": accounts.PASSWORD}
            extra["domain_name"] = accounts.DOMAIN_NAME
        return {**described, "host": self.injected.host, "extra": extra}

    def step(self, answered: int, read_log: Callable[[], str]) -> None:
        """End the fault where no call does, and end the processing task once a poll has found it running."""
        self._end_fault_by_time(read_log)
        route = self.injected.route
        undisturbed = answered if route is None else route.connections - route.hits
        if undisturbed and self.injected.is_over and not self.creates:
            self.emulator.state.finish(self.processor_task_id)

    def _end_fault_by_time(self, read_log: Callable[[], str]) -> None:
        route = self.injected.route
        if not self.injected.lasts_seconds or route is None or route.is_restored:
            return
        now = time.monotonic()
        if self._met_at is None and (route.hits if self.injected.counts_calls else self._has_called(read_log())):
            self._met_at = now
        if self._met_at is not None and now > self._met_at + SECONDS:
            self.proxy.restore(route)

    def _has_called(self, log: str) -> bool:
        """Tell by the log whether the service was called, or is about to be."""
        return "goes on" in log or (self.creates and "::endgroup::" in log)


class FaultMatrix:
    """The cases, run to their end.

    :param secrets_found: the names of Airflow's files that contain a secret.
    """

    def __init__(self, faults: Sequence[Fault], modes: Sequence[str], folder: Path) -> None:
        self.faults, self.modes = faults, modes
        emulator, skewed = EmulatorServer(task_duration=DURATION), EmulatorServer()
        with emulator, skewed, FaultProxy() as proxy:
            skewed.state.settings.clock_offset = CLOCK_SKEW.total_seconds()
            servers = Servers(emulator, skewed, proxy, proxy.open(emulator.url), folder)
            self.cases = dict(self._make_cases(servers))
            self._run(servers)
            self.trapped = servers.trap.connections

    def _make_cases(self, servers: Servers) -> Iterator[tuple[tuple[str, str], FaultCase]]:
        numbers = iter(range(1, 10_000))
        for fault in self.faults:
            for mode in self.modes:
                number = next(numbers)
                injected = fault.inject(servers, f"{number:032x}")
                yield (
                    (fault.name, mode),
                    FaultCase(
                        number=number,
                        mode=mode,
                        emulator=injected.service,
                        # Retries are for tasks that Airflow loses. Our own errors must fail the first try.
                        retries=0 if fault.error else 2,
                        fault=fault,
                        injected=injected,
                        proxy=servers.proxy,
                    ),
                )

    def _run(self, servers: Servers) -> None:
        cases = list(self.cases.values())
        # A proxy of this machine would resolve names itself.
        environment = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost,.invalid")
        with airflow_with(cases, environment) as sandbox:
            self.seconds = run_cases(sandbox, cases, timeout=TIMEOUT)
            emulators = (servers.emulator, servers.skewed)
            requests = [entry.path for emulator in emulators for entry in emulator.state.log.entries()]
            counts = Counter(path.split("/")[2] for path in requests if path.startswith("/v2/"))
            scheduler_log = sandbox.component("scheduler").log.read_text(errors="replace").splitlines()
            losses = [line for line in scheduler_log if "reported that the task instance" in line]
            for case in cases:
                case.requests = counts[case.project_id]
                case.losses = [line for line in losses if f" {DAG_ID}.{case.task_id} " in line]
            self.secrets_found = files_with_secrets(sandbox, *emulators)

    def table(self) -> str:
        """Return the results as text: a row for each fault, a column for each mode."""
        legend = (
            f"{len(self.cases)} cases in {self.seconds:.0f} s. Each cell: the outcome, its seconds, how many calls met "
            "the fault\n(? where they cannot be counted), and how many requests reached the service."
        )
        rows = [[fault.name, fault.error or "success", *self._cells(fault)] for fault in self.faults]
        return format_table(legend, ["fault", "ends with", *self.modes], rows)

    def _cells(self, fault: Fault) -> Iterator[str]:
        for mode in self.modes:
            case = self.cases[fault.name, mode]
            hits = "?" if case.injected.hits is None else case.injected.hits
            yield f"{case.state} {case.seconds:3.0f} s {hits:>2} {case.requests:>2}"
