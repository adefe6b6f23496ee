"""A run of the crash table in real Airflow: every case at once, and what became of each."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.control.faults import Hold
from airflow_modelarts.testing.emulator.control.state import EmulatorState
from airflow_modelarts.testing.emulator.service.projects import Project
from airflow_modelarts.testing.emulator.service.tasks import Task, TaskRule
from airflow_modelarts.testing.sandbox import Sandbox, TaskInstance
from tests.integration.exactly_once.points import CREATE, LIST, Kill, Point

DAGS = Path(__file__).parent / "dags"
#: Seconds for the whole table; what has not ended by then hangs.
LONGEST = 600.0
#: Seconds that a processing task takes which is to end before the retry comes.
SHORT = 8.0
#: Seconds after which Airflow gives up a worker that is silent. On a busy machine a live one can be so for long.
HEARTBEAT_TIMEOUT = 30
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed"})


@dataclass
class Case:
    """One point in one path, and what became of the run that was killed there."""

    path: str
    point: Point
    number: int
    folder: Path
    state: EmulatorState
    outcome: str = "not started"
    tries: int = 0
    xcoms: dict[str, Any] = field(default_factory=dict)
    log: str = ""
    began: datetime | None = None
    ended: datetime | None = None
    _armed: int = -1
    _hold: Hold | None = None
    _look_up: Hold | None = None
    _late: Hold | None = None
    _seen_at_death: int = 0

    @property
    def task_id(self) -> str:
        """Airflow's."""
        return f"case_{self.number}"

    @property
    def project_id(self) -> str:
        """A project of its own tells its requests and its tasks from all others."""
        return f"{self.number:032x}"

    @property
    def processing_tasks(self) -> list[Task]:
        """What it has left in the emulator."""
        return list(self.state.projects[self.project_id].tasks.values())

    @property
    def runs(self) -> int:
        """How many versions of them have run."""
        return sum(task.versions_created for task in self.processing_tasks)

    @property
    def kills(self) -> int:
        """How many times it has been killed."""
        file = self._file("killed")
        return len(file.read_text().splitlines()) if file.exists() else 0

    @property
    def seconds(self) -> float:
        """How long it took, in Airflow's own eyes."""
        return (self.ended - self.began).total_seconds() if self.began and self.ended else float("nan")

    def order(self) -> dict[str, Any]:
        """Return what the DAG file must know."""
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
        return {"deferrable": self.path == "deferrable", "kills": kills}

    def prepare(self) -> None:
        """Put its project into the service, and say how long its tasks will take."""
        self.state.projects[self.project_id] = Project(self.project_id, self.project_id)
        duration = 86400.0 if self.point.stays_active else SHORT
        self.state.add_rule(TaskRule(name=f"{self.task_id}-*", times=None, duration=duration))

    def step(self, instance: TaskInstance, answered: int) -> None:
        """
        Do what is to be done now.

        :param answered: how many requests of the case the service has answered with success.
        """
        self.outcome, self.tries = str(instance.state), instance.try_number
        self.began = min(filter(None, [self.began, instance.start_date]), default=None)
        self.ended = instance.end_date
        self._arm()
        self._kill(answered)
        self._let_late_request_act()
        # Two of them: the retry has looked, and has seen it active or has created it.
        is_over = self.kills == len(self.point.kills) and self._hold is None and self._late is None
        if is_over and self.point.stays_active and answered >= self._seen_at_death + 2:
            for task in self.processing_tasks:
                if not task.run.ends_at < self.state.clock.now():
                    self.state.finish(task.task_id)

    def _arm(self) -> None:
        """Have the emulator hold the call at which the process that has begun is to die, and tell it to go on."""
        process = self._process()
        number = process.get("kill")
        if number is None or number <= self._armed:
            return
        kill = self.point.kills[number]
        if kill.is_call:
            self._hold = self._hold_call(kill.when, kill.what, kill.nth - 1)
        self._armed = number
        self._file("armed").write_text(str(number))

    def _kill(self, answered: int) -> None:
        hold, self._hold = self._hold, None
        if hold is None:
            return
        if not hold.wait(timeout=0):
            self._hold = hold
            return
        kill, process = self.point.kills[self._armed], self._process()
        if kill.fate == "acts after the look-up":
            self._look_up = self._hold_call("after", LIST)
        elif kill.fate == "acts last":
            self._look_up = self._hold_call("after", CREATE)
        with self._file("killed").open("a") as file:
            file.write(f"{kill.what}\n")
        for victim in ("supervisor", "pid") if kill.victim == "worker" else ("pid",):
            os.kill(process[victim], signal.SIGKILL)
        self._seen_at_death = answered
        self._decide(kill, hold)

    def _decide(self, kill: Kill, hold: Hold) -> None:
        """Let the request of the dead come to nothing, or act, or wait for what the retry does."""
        if kill.fate == "is lost":
            hold.drop()
        elif kill.fate == "acts at once":
            hold.release()
        else:
            self._late = hold

    def _let_late_request_act(self) -> None:
        if self._late is None or self._look_up is None or not self._look_up.wait(timeout=0):
            return
        self._late.release()
        deadline = time.monotonic() + 10
        while not self.processing_tasks and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # for one that acts last and is refused, which leaves no trace to wait for
        self._look_up.release()
        self._late = self._look_up = None

    def _hold_call(self, when: Any, operation: str, skip: int = 0) -> Hold:
        return self.state.faults.hold(when, operation=operation, path=self.project_id, skip=skip)

    def _process(self) -> dict[str, Any]:
        file = self._file("process")
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def _file(self, kind: str) -> Path:
        return self.folder / f"{self.task_id}.{kind}"


class CrashTable:
    """The cases, run."""

    def __init__(self, points: Sequence[tuple[str, Point]], folder: Path) -> None:
        self.seconds = 0.0
        with EmulatorServer() as emulator:
            state = emulator.state
            self.cases = {
                (path, point): Case(path, point, number, folder, state)
                for number, (path, point) in enumerate(points, start=1)
            }
            for case in self.cases.values():
                case.prepare()
            self._run(emulator, folder)

    def _run(self, emulator: EmulatorServer, folder: Path) -> None:
        described = json.loads(emulator.airflow_connection())
        connections = {
            case.task_id: json.dumps({**described, "extra": {**described["extra"], "project_id": case.project_id}})
            for case in self.cases.values()
        }
        environment = {
            "CRASH_CASES": json.dumps({case.task_id: case.order() for case in self.cases.values()}),
            "CRASH_FOLDER": str(folder),
            # A worker that is dead keeps its place until Airflow notices.
            "AIRFLOW__CORE__PARALLELISM": "10",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        }
        dag_file = DAGS / "crashes.py"
        with Sandbox(DAGS, only_file=dag_file, connections=connections, environment=environment) as sandbox:
            sandbox.wait_for_dags("crashes", timeout=180)
            run_id = sandbox.trigger("crashes")
            began = time.monotonic()
            self._follow(sandbox, run_id, emulator)
            self.seconds = time.monotonic() - began
            by_task_id = {case.task_id: case for case in self.cases.values()}
            for xcom in sandbox.xcoms("crashes", run_id):
                by_task_id[xcom.task_id].xcoms[xcom.key] = xcom.value
            for case in self.cases.values():
                case.log = sandbox.task_log("crashes", run_id, case.task_id)

    def _follow(self, sandbox: Sandbox, run_id: str, emulator: EmulatorServer) -> None:
        by_task_id = {case.task_id: case for case in self.cases.values()}
        deadline = time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            sandbox.check()
            answered = Counter(
                entry.path.split("/")[2]
                for entry in emulator.state.log.entries()
                if entry.path.startswith("/v2/") and entry.status == 200
            )
            for instance in sandbox.task_instances("crashes", run_id):
                case = by_task_id[instance.task_id]
                if case.outcome not in ENDED:
                    case.step(instance, answered[case.project_id])
            if all(case.outcome in ENDED for case in self.cases.values()):
                return
            time.sleep(0.25)  # each look costs the API server some time

    def table(self) -> str:
        """Return the table: a row a case."""
        legend = (
            f"{len(self.cases)} cases in {self.seconds:.0f} s. In each a run is killed (SIGKILL) at a point, "
            "and Airflow retries it.\nA point is a call of the service, held before it acts or before its answer "
            "leaves, or a message to Airflow:\nthe intent, the id, an XCom, the deferral, the success."
        )
        head = ["path", "phase", "killed", "who", "retry is to meet it", "tries", "tasks", "runs", "outcome", "s"]
        rows = [
            [
                case.path,
                case.point.phase,
                str(case.point),
                case.point.victims,
                case.point.hits,
                str(case.tries),
                str(len(case.processing_tasks)),
                str(case.runs),
                case.outcome,
                f"{case.seconds:.0f}",
            ]
            for case in self.cases.values()
        ]
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([legend, "", *(line.rstrip() for line in lines)])
