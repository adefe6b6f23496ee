"""The crash table: every point at which a worker or the triggerer is killed, run in a real Airflow."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.control.faults import Fault, Hold
from airflow_modelarts.testing.emulator.service.tasks import Task, TaskRule
from airflow_modelarts.testing.sandbox import Sandbox
from tests.integration.exactly_once.points import CREATE, LIST, QUEUED, REFUSED, Kill, Point
from tests.support.case_table import ENDED, ENDLESS, Case, airflow_with, format_table, run_cases

#: Seconds for the whole table. Two idle cores need a quarter of it.
TIMEOUT = 2400.0
#: Seconds that a processing task takes which is to end before the retry starts.
SHORT = 8.0
#: A killed worker occupies its slot until Airflow notices its missing heartbeats. On a busy machine a live worker can
#: be silent for long.
ENVIRONMENT = {
    "AIRFLOW__CORE__PARALLELISM": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    # Seconds without a heartbeat after which another triggerer takes over the triggers.
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
}


class TriggererKills:
    """Kills the triggerer once for all cases: when each one that is to lose its trigger next is at its point."""

    def __init__(self) -> None:
        self.sandbox: Sandbox | None = None  # set when Airflow runs
        self.cases: list[CrashCase] = []

    def kill_when_all_are_ready(self) -> None:
        """Kill the triggerer, and start another, if every case that needs it is at its point."""
        waiting = [case for case in self.cases if case.next_kill is not None and case.state not in ENDED]
        if self.sandbox is not None and all(case.is_ready for case in waiting):
            self.sandbox.component("triggerer").kill()
            for case in waiting:
                case.triggerer_was_killed()
            self.sandbox.restart("triggerer")


@dataclass(kw_only=True, eq=False)
class CrashCase(Case):
    """A task that creates a processing task and is killed at one point.

    :param folder: where the test and the killed processes exchange files, see ``case_dags/cases.py``.
    :param triggerer: kills the triggerer, for the cases that need it; by default never.
    :param ahead: the case whose submission queue this one shares.
    """

    point: Point
    folder: Path
    triggerer: TriggererKills = field(default_factory=TriggererKills)
    ahead: CrashCase | None = None
    retries: int = 5
    is_ready: bool = field(default=False, init=False)
    _armed: int = -1
    _hold: Hold | None = None
    _refusals: Fault | None = None
    _retry_hold: Hold | None = None
    _in_flight: Hold | None = None
    _answered_at_kill: int = 0

    @property
    def project_id(self) -> str:
        return self.ahead.project_id if self.ahead else super().project_id

    @property
    def processing_tasks(self) -> list[Task]:
        return [task for task in super().processing_tasks if task.name.startswith(f"{self.task_id}-")]

    @property
    def next_kill(self) -> Kill | None:
        """The kill of the triggerer that is next; None if there is none."""
        kills = self.point.kills[self.kills :]
        return kills[0] if kills and kills[0].victim == "triggerer" else None

    @property
    def runs(self) -> int:
        """How many versions have been created."""
        return sum(task.versions_created for task in self.processing_tasks)

    @property
    def kills(self) -> int:
        """How many times it has been killed."""
        file = self._file("killed")
        return len(file.read_text().splitlines()) if file.exists() else 0

    def arguments(self) -> dict[str, Any]:
        kills = [
            {
                "resumed": kill.resumed,
                "message": None if kill.is_call or kill.is_refusal else kill.what,
                "when": kill.when,
                "nth": kill.nth,
                "victim": kill.victim,
            }
            for kill in self.point.kills
        ]
        return {**super().arguments(), "kills": kills, "conn_id": (self.ahead or self).task_id}

    def connection(self) -> dict[str, Any]:
        described = super().connection()
        # A triggerer's request is held until all cases that lose their triggerer are at their points.
        return {**described, "extra": {**described["extra"], "read_timeout": TIMEOUT}}

    def prepare(self) -> None:
        if self.ahead is None:
            super().prepare()
        duration = ENDLESS if self.point.stays_active else SHORT
        self.emulator.state.add_rule(TaskRule(name=f"{self.task_id}-*", times=None, duration=duration))

    def step(self, answered: int, read_log: Callable[[], str]) -> None:
        """Kill the process when it is at the point, and let the processing task end after the retry has seen it."""
        self._arm()
        if self.next_kill is not None:
            self.is_ready = self._is_at_refusal(read_log) if self.next_kill.is_refusal else self._is_held()
            self.triggerer.kill_when_all_are_ready()
            self._answered_at_kill = answered
        elif self._is_held():
            self._kill(answered)
        self._release_in_flight_request()
        done = self.kills == len(self.point.kills) and self._hold is None and self._in_flight is None
        # Two more answers: the retry has looked the task up and has read it, or has created it.
        if done and self.point.stays_active and answered >= self._answered_at_kill + 2:
            state = self.emulator.state
            for task in self.processing_tasks:
                if task.run.ends_at >= state.clock.now():
                    state.finish(task.task_id)

    def triggerer_was_killed(self) -> None:
        """Prepare for what the next triggerer does."""
        kill = self.point.kills[self._armed]
        self.is_ready = False
        self._hold_retry(kill)
        self._note_kill(kill)
        if self._refusals is not None:
            self.emulator.state.faults.remove(self._refusals)
            self._refusals = None
        if self._hold is not None:
            self._end_hold(kill, self._hold)
        if self.next_kill is not None:
            self._prepare_kill(self.kills)

    def _arm(self) -> None:
        """Prepare the kill of the new process, then let the process continue."""
        number = self._process().get("kill")
        # A create that is to be queued behind another one waits until that one is certain to be refused.
        if number is None or number <= self._armed or (self.ahead and not self.ahead._refusals):
            return
        self._prepare_kill(number)
        self._file("armed").write_text(str(number))

    def _prepare_kill(self, number: int) -> None:
        """Have the emulator hold the call at which a process is to be killed, or refuse it."""
        kill = self.point.kills[number]
        if kill.is_call:
            self._hold = self._hold_call(kill.when, kill.what, kill.nth - 1)
        elif kill.what == REFUSED:
            faults = self.emulator.state.faults
            self._refusals = faults.refuse("ModelArts.4409", times=None, operation=CREATE, path=self.project_id)
        self._armed = number

    def _is_held(self) -> bool:
        return self._hold is not None and self._hold.wait(timeout=0)

    def _is_at_refusal(self, read_log: Callable[[], str]) -> bool:
        return self.is_ready or "waiting for capacity" in read_log()

    def _kill(self, answered: int) -> None:
        kill, process = self.point.kills[self._armed], self._process()
        assert self._hold is not None
        self._hold_retry(kill)
        self._note_kill(kill)
        for victim in ("supervisor", "pid") if kill.victim == "worker" else ("pid",):
            os.kill(process[victim], signal.SIGKILL)
        self._answered_at_kill = answered
        self._end_hold(kill, self._hold)

    def _note_kill(self, kill: Kill) -> None:
        with self._file("killed").open("a") as file:
            file.write(f"{kill.what}\n")

    def _hold_retry(self, kill: Kill) -> None:
        """Hold the request of the next process behind which the request in flight is to act."""
        if kill.in_flight == "acts after the look-up":
            self._retry_hold = self._hold_call("after", LIST)
        elif kill.in_flight == "acts last":
            self._retry_hold = self._hold_call("after", CREATE)

    def _end_hold(self, kill: Kill, hold: Hold) -> None:
        """Decide what becomes of the request of the killed process."""
        self._hold = None
        if kill.in_flight == "is lost":
            hold.drop()
        elif kill.in_flight == "acts at once":
            hold.release()
        else:
            self._in_flight = hold

    def _release_in_flight_request(self) -> None:
        """Let the request of the killed process act while the retry's own request is held."""
        if self._in_flight is None or self._retry_hold is None or not self._retry_hold.wait(timeout=0):
            return
        self._in_flight.release()
        deadline = time.monotonic() + 10
        while not self.processing_tasks and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # a request that is refused leaves nothing to wait for
        self._retry_hold.release()
        self._in_flight = self._retry_hold = None

    def _hold_call(self, when: Any, operation: str, skip: int = 0) -> Hold:
        return self.emulator.state.faults.hold(when, operation=operation, path=self.project_id, skip=skip)

    def _process(self) -> dict[str, Any]:
        file = self._file("process")
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def _file(self, kind: str) -> Path:
        return self.folder / f"{self.task_id}.{kind}"


class CrashTable:
    """The cases, run to their end."""

    def __init__(self, points: Sequence[tuple[str, Point]], folder: Path) -> None:
        triggerer = TriggererKills()
        with EmulatorServer() as emulator:
            self.cases = {
                (mode, point): CrashCase(
                    number=number, mode=mode, emulator=emulator, point=point, folder=folder, triggerer=triggerer
                )
                for number, (mode, point) in enumerate(points, start=1)
            }
            cases = triggerer.cases = list(self.cases.values())
            by_kill = {case.point.kills[0].what: case for case in cases}
            for case in cases:
                if case.point.kills[0].what == QUEUED:
                    case.ahead = by_kill[REFUSED]
            with airflow_with(cases, {**ENVIRONMENT, "CASE_FOLDER": str(folder)}) as sandbox:
                triggerer.sandbox = sandbox
                self.seconds = run_cases(sandbox, cases, timeout=TIMEOUT)

    def table(self) -> str:
        """Return the results as text: a row for each case."""
        legend = (
            f"{len(self.cases)} cases in {self.seconds:.0f} s. In each a worker or the triggerer is killed (SIGKILL).\n"
            "The point is a call of the service, held before it acts or before its answer leaves,\n"
            "or a message to Airflow: the intent, the id, an XCom, the deferral, the success."
        )
        head = ["mode", "phase", "killed", "who", "task at retry", "tries", "tasks", "runs", "outcome", "s"]
        rows = [
            [
                case.mode,
                case.point.phase,
                str(case.point),
                case.point.victims,
                case.point.task_at_retry,
                str(case.tries),
                str(len(case.processing_tasks)),
                str(case.runs),
                case.state,
                f"{case.seconds:.0f}",
            ]
            for case in self.cases.values()
        ]
        return format_table(legend, head, rows)
