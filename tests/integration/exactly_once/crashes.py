"""The crash table: every point at which a worker is killed, run in a real Airflow."""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.control.faults import Hold
from airflow_modelarts.testing.emulator.service.tasks import TaskRule
from tests.integration.exactly_once.points import CREATE, LIST, Point
from tests.support.case_table import ENDLESS, Case, airflow_with, format_table, run_cases

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
}


@dataclass(kw_only=True, eq=False)
class CrashCase(Case):
    """A task that creates a processing task and is killed at one point.

    :param folder: where the test and the killed processes exchange files, see ``case_dags/cases.py``.
    """

    point: Point
    folder: Path
    retries: int = 5
    _armed: int = -1
    _hold: Hold | None = None
    _retry_hold: Hold | None = None
    _in_flight: Hold | None = None
    _answered_at_kill: int = 0

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
                "message": None if kill.is_call else kill.what,
                "when": kill.when,
                "nth": kill.nth,
                "victim": kill.victim,
            }
            for kill in self.point.kills
        ]
        return {**super().arguments(), "kills": kills}

    def prepare(self) -> None:
        super().prepare()
        duration = ENDLESS if self.point.stays_active else SHORT
        self.emulator.state.add_rule(TaskRule(name=f"{self.task_id}-*", times=None, duration=duration))

    def step(self, answered: int, read_log: Callable[[], str]) -> None:
        """Kill the process when it is at the point, and let the processing task end after the retry has seen it."""
        self._arm()
        self._kill(answered)
        self._release_in_flight_request()
        done = self.kills == len(self.point.kills) and self._hold is None and self._in_flight is None
        # Two more answers: the retry has looked the task up and has read it, or has created it.
        if done and self.point.stays_active and answered >= self._answered_at_kill + 2:
            state = self.emulator.state
            for task in self.processing_tasks:
                if task.run.ends_at >= state.clock.now():
                    state.finish(task.task_id)

    def _arm(self) -> None:
        """Have the emulator hold the call at which the new process is to be killed, then let the process continue."""
        number = self._process().get("kill")
        if number is None or number <= self._armed:
            return
        kill = self.point.kills[number]
        if kill.is_call:
            self._hold = self._hold_call(kill.when, kill.what, kill.nth - 1)
        self._armed = number
        self._file("armed").write_text(str(number))

    def _kill(self, answered: int) -> None:
        hold = self._hold
        if hold is None or not hold.wait(timeout=0):
            return
        self._hold = None
        kill, process = self.point.kills[self._armed], self._process()
        if kill.in_flight == "acts after the look-up":
            self._retry_hold = self._hold_call("after", LIST)
        elif kill.in_flight == "acts last":
            self._retry_hold = self._hold_call("after", CREATE)
        with self._file("killed").open("a") as file:
            file.write(f"{kill.what}\n")
        for victim in ("supervisor", "pid") if kill.victim == "worker" else ("pid",):
            os.kill(process[victim], signal.SIGKILL)
        self._answered_at_kill = answered
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
        with EmulatorServer() as emulator:
            self.cases = {
                (mode, point): CrashCase(number=number, mode=mode, emulator=emulator, point=point, folder=folder)
                for number, (mode, point) in enumerate(points, start=1)
            }
            cases = list(self.cases.values())
            with airflow_with(cases, {**ENVIRONMENT, "CASE_FOLDER": str(folder)}) as sandbox:
                self.seconds = run_cases(sandbox, cases, timeout=TIMEOUT)

    def table(self) -> str:
        """Return the results as text: a row for each case."""
        legend = (
            f"{len(self.cases)} cases in {self.seconds:.0f} s. In each a worker is killed (SIGKILL).\n"
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
