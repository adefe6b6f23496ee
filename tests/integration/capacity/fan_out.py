"""Runs of mapped tasks in a real Airflow, and what they cost: seconds, worker processes and refused requests."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.sandbox import Sandbox
from tests.support.waiting import wait_until

CREATE = "CreateProcessorTask"
ENDED = frozenset({"success", "failed", "upstream_failed"})
#: Seconds. Two idle cores need a quarter of it.
TIMEOUT = 900.0


@dataclass
class FanOut:
    """A run of a DAG, from its start to its end.

    :param seconds: from the start of the run to the end of its last task.
    :param states: how many task instances ended in which state.
    """

    sandbox: Sandbox
    dag_id: str
    count: int
    run_id: str = ""
    seconds: float = float("nan")
    states: Counter[str] = field(default_factory=Counter)

    def run(self) -> FanOut:
        """Run the DAG, and wait for its end."""
        began = time.monotonic()
        self.run_id = self.sandbox.trigger(self.dag_id, conf={"count": self.count})
        wait_until(self._has_ended, lambda: f"the end of {self.dag_id}: {self.states}", TIMEOUT)
        self.seconds = time.monotonic() - began
        return self

    def logs(self, task_id: str) -> list[str]:
        """Return the logs of a mapped task, by map index."""
        return [self.sandbox.task_log(self.dag_id, self.run_id, task_id, index) for index in range(self.count)]

    def _has_ended(self) -> bool:
        self.sandbox.check()
        time.sleep(1)  # each poll of hundreds of task instances costs the API server CPU time
        instances = self.sandbox.task_instances(self.dag_id, self.run_id)
        self.states = Counter(str(instance.state) for instance in instances)
        return bool(instances) and self.sandbox.api.run_state(self.dag_id, self.run_id) in ENDED


@dataclass(frozen=True)
class Creates:
    """The requests of a project that create a processing task."""

    accepted: int
    refused: int

    @classmethod
    def of(cls, emulator: EmulatorServer, project_id: str) -> Creates:
        """Count them by the emulator's log."""
        entries = [entry for entry in emulator.state.log.entries(CREATE) if project_id in entry.path]
        accepted = sum(entry.status == 200 for entry in entries)
        return cls(accepted, len(entries) - accepted)
