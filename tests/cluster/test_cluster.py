"""Three hundred runs in a cluster that loses a worker, a triggerer and its database meanwhile.

Two hundred of them are deferrable, and the service admits ten of those at once.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airflow_modelarts.testing.emulator import EmulatorServer
from tests.cluster.cluster import TRIGGERERS, Cluster
from tests.cluster.conftest import LIMIT, LIMITED_TEMPLATE

DAGS = Path(__file__).parent / "dags"
#: As in `dags/`.
TASK_ID = "create_and_wait"
MODES = ("deferrable", "synchronous")
#: Runs started before each of the three losses, so that new runs of both modes are under way on any machine.
RUNS_A_LOSS = 100
RUNS = 3 * RUNS_A_LOSS

#: Seconds. All runs take some three minutes on two cores of their own.
TIMEOUT = 900.0
NOTICE_TIMEOUT = 180.0
POLL_INTERVAL = 0.5

RUN_STATES = "SELECT state, count(*) FROM dag_run GROUP BY state"
COUNT_ACTIVE = (
    "SELECT count(*) FILTER (WHERE state = 'running'), count(*) FILTER (WHERE state = 'deferred') FROM task_instance"
)
TASK_STATES = "SELECT state, count(*) FROM task_instance WHERE state IS NOT NULL GROUP BY state ORDER BY state"
RUNNING_ON = "SELECT id, run_id FROM task_instance WHERE hostname = :name AND state = 'running'"
WAITS_OF = "SELECT trigger.id FROM trigger JOIN job ON job.id = triggerer_id WHERE hostname = :name AND job.id <= :job"
TRIES = "SELECT try_number, count(*) FROM task_instance WHERE dag_id = :dag_id GROUP BY try_number ORDER BY try_number"
RETURN_VALUES = "SELECT run_id, value ->> 'task_id' FROM xcom WHERE key = 'return_value'"


@dataclass
class Report:
    """The events of the test, in seconds since the first run was started."""

    began: float = field(default_factory=time.monotonic)
    lines: list[tuple[float, str]] = field(default_factory=list)

    def note(self, what: str, at: float | None = None) -> None:
        self.lines.append(((at or time.monotonic()) - self.began, what))

    def __str__(self) -> str:
        return "\n".join(f"{second:7.1f} s  {what}" for second, what in sorted(self.lines))


@pytest.fixture(scope="module")
def cluster(requirements: None, emulator: EmulatorServer) -> Iterator[Cluster]:
    with Cluster(DAGS, {"modelarts_default": emulator.airflow_connection()}) as running:
        running.wait_for_dags(*MODES, timeout=180)
        yield running


def test_runs_survive_the_loss_of_a_worker_a_triggerer_and_the_database(
    cluster: Cluster, emulator: EmulatorServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run_ids = [f"{MODES[number % 3 == 0]}-{number:03}" for number in range(RUNS)]
    report = Report()
    try:
        start_runs(cluster, run_ids[:RUNS_A_LOSS], report)
        lose_a_worker(cluster, emulator, report)
        start_runs(cluster, run_ids[RUNS_A_LOSS : 2 * RUNS_A_LOSS], report)
        lose_a_triggerer(cluster, emulator, report)
        start_runs(cluster, run_ids[2 * RUNS_A_LOSS :], report)
        restart_the_database(cluster, report)
        wait_until_all_have_ended(cluster)
        report.note("all runs have ended")
    finally:
        note_restarts(cluster, report)
        with capsys.disabled():
            print(f"\n\n{report}\n\n{table(cluster, emulator)}")

    assert run_states(cluster) == {"success": RUNS}, logs_of_failures(cluster)
    tasks = created(emulator)
    assert {run_id: len(tasks[run_id]) for run_id in run_ids} == dict.fromkeys(run_ids, 1)
    assert len(emulator.state.all_tasks()) == RUNS
    assert {run_id: [task_id] for run_id, task_id in cluster.metadata.ask(RETURN_VALUES)} == tasks


def start_runs(cluster: Cluster, run_ids: Sequence[str], report: Report) -> None:
    for run_id in run_ids:
        cluster.check()
        cluster.start_run(run_id.partition("-")[0], run_id)
    report.note(f"{len(run_ids)} runs started")


def lose_a_worker(cluster: Cluster, emulator: EmulatorServer, report: Report) -> None:
    """Kill a worker with all its tasks, and restart it once the scheduler has detected the loss.

    Some of the tasks must have sent their create: any other would succeed in its next try in any case.
    """
    name = "worker-2"

    def running() -> dict[object, str]:
        return dict(cluster.metadata.ask(RUNNING_ON, name=name))

    def posted(instances: dict[object, str]) -> int:
        """Count the synchronous ones: a deferrable task leaves the worker within a second after its create."""
        synchronous = {run_id for run_id in instances.values() if run_id.startswith("synchronous-")}
        return len(created(emulator).keys() & synchronous)

    until(cluster, lambda: posted(running()) >= 2, f"{name} does not run two tasks that have sent their create")
    cluster.component(name).kill()
    lost = running()
    report.note(
        f"{name} killed, with {len(lost)} running tasks of which {posted(lost)} have sent their create; "
        f"tasks of all runs: {task_states(cluster)}"
    )
    assert posted(lost), "the worker had no task to lose"
    until(cluster, lambda: lost.keys().isdisjoint(running()), "the loss of the tasks is not detected")
    report.note("the scheduler has detected the loss")
    cluster.component(name).start()
    report.note(f"{name} started again")


def lose_a_triggerer(cluster: Cluster, emulator: EmulatorServer, report: Report) -> None:
    """Kill a triggerer with all its triggers, and restart it once the other has taken them over.

    Some of the triggers must wait for capacity. The service admits none meanwhile, so that workers of any speed defer
    more tasks than it has admitted.
    """
    limits = emulator.state.settings.template_limits
    limits[LIMITED_TEMPLATE] = 0

    def waits(name: str, newest_job: int) -> int:
        return len(cluster.metadata.ask(WAITS_OF, name=name, job=newest_job))

    jobs = {name: cluster.newest_job_of(name) for name in TRIGGERERS}
    # All but those that the service has admitted are queued, whichever triggerer has them.
    until(cluster, lambda: any(waits(*job) >= 5 + LIMIT for job in jobs.items()), "no triggerer has a queue of five")
    name, job = max(jobs.items(), key=lambda job: waits(*job))
    cluster.component(name).kill()
    held = waits(name, job)
    report.note(
        f"{name} killed, with {held} triggers, of which at least {held - LIMIT} are queued; "
        f"tasks of all runs: {task_states(cluster)}"
    )
    assert held > LIMIT, "the triggerer had no queued trigger to lose"
    until(cluster, lambda: not waits(name, job), "the other triggerer does not take over")
    report.note("the other triggerer has taken them over")
    limits[LIMITED_TEMPLATE] = LIMIT
    cluster.component(name).start()
    report.note(f"{name} started again")


def restart_the_database(cluster: Cluster, report: Report) -> None:
    """Restart PostgreSQL, which closes all its connections, while tasks wait in triggerers and on workers."""
    until(cluster, lambda: all(number >= 3 for number in active_tasks(cluster)), "no three tasks run while three wait")
    report.note(f"PostgreSQL restarts; tasks of all runs: {task_states(cluster)}")
    cluster.postgresql.restart()
    report.note("PostgreSQL answers again")


def wait_until_all_have_ended(cluster: Cluster) -> None:
    def ended() -> bool:
        states = run_states(cluster)
        return states.get("success", 0) + states.get("failed", 0) == RUNS

    until(cluster, ended, "the runs have not all ended", TIMEOUT)


def until(cluster: Cluster, condition: Callable[[], bool], otherwise: str, timeout: float = NOTICE_TIMEOUT) -> None:
    """Poll a condition, and restart components that exit by themselves meanwhile."""
    deadline = time.monotonic() + timeout
    while not condition():
        cluster.check()
        if time.monotonic() > deadline:
            pytest.fail(f"{otherwise} within {timeout:g} s; runs: {run_states(cluster)}; tasks: {task_states(cluster)}")
        time.sleep(POLL_INTERVAL)


def run_states(cluster: Cluster) -> dict[str, int]:
    return dict(cluster.metadata.ask(RUN_STATES))


def active_tasks(cluster: Cluster) -> tuple[int, int]:
    """Return how many tasks run on workers, and how many are deferred."""
    ((running, deferred),) = cluster.metadata.ask(COUNT_ACTIVE)
    return running, deferred


def task_states(cluster: Cluster) -> str:
    return ", ".join(f"{count} {state}" for state, count in cluster.metadata.ask(TASK_STATES))


def logs_of_failures(cluster: Cluster) -> str:
    """Return what the tasks of a few failed runs logged, in all their tries."""
    failed = cluster.metadata.ask("SELECT dag_id, run_id FROM dag_run WHERE state = 'failed' ORDER BY run_id LIMIT 3")
    return "\n\n".join(f"{run_id}:\n{cluster.task_log(dag_id, run_id, TASK_ID)}" for dag_id, run_id in failed)


def created(emulator: EmulatorServer) -> dict[str, list[str]]:
    """Return the ids of the emulator's tasks by run. The work path of a task contains the id of its run."""
    tasks: dict[str, list[str]] = {}
    for task in emulator.state.all_tasks():
        run_id = task.body["work_path"]["path"].rstrip("/").rpartition("/")[2]
        tasks.setdefault(run_id, []).append(task.task_id)
    return tasks


def note_restarts(cluster: Cluster, report: Report) -> None:
    for restart in cluster.restarts:
        errors = re.findall(r"^[\w.]+(?:Error|Exception|Exit)\b.*", restart.last_words, flags=re.MULTILINE)
        report.note(
            f"{restart.name} ended by itself and was started again: {errors[-1:] or restart.status}", restart.at
        )


def table(cluster: Cluster, emulator: EmulatorServer) -> str:
    states, per_run = run_states(cluster), Counter(map(len, created(emulator).values()))
    rows = [
        ("runs", sum(states.values())),
        ("runs that succeeded", states.get("success", 0)),
        ("tasks in the emulator", len(emulator.state.all_tasks())),
        ("creates that were refused", emulator.state.log.refusals("CreateProcessorTask").total()),
        *((f"runs with {count} of them", runs) for count, runs in sorted(per_run.items())),
        *(
            (f"{mode} runs that ended in try {number}", runs)
            for mode in MODES
            for number, runs in cluster.metadata.ask(TRIES, dag_id=mode)
        ),
    ]
    return "\n".join(f"{what:<40} {count:>6}" for what, count in rows)
