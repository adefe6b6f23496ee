"""The points at which workers and the triggerer are killed, as data."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

When = Literal["before", "after"]
Victim = Literal["task", "worker", "triggerer"]
#: What happens to a request whose sender was killed before the service acted on it: it is lost, it acts at once, it
#: acts after the retry has looked the task up in vain, or it acts after the create of the retry.
InFlightRequest = Literal["is lost", "acts at once", "acts after the look-up", "acts last"]

CREATE, LIST = "CreateProcessorTask", "ListProcessorTasks"
DESCRIBE, VERSIONS = "DescribeProcessorTask", "ListProcessorTaskVersions"
INTENT, ID = "SetTaskStateStore modelarts_submission", "SetTaskStateStore modelarts_processor_task_id"
#: The service refuses the create, and the trigger waits at the head of its submission queue, or behind another one.
REFUSED, QUEUED = "refusal", "refusal of another"


@dataclass(frozen=True)
class Kill:
    """One SIGKILL.

    :param when: before or after the service acts on a call, or before or after a message to Airflow is sent.
    :param what: the operation, or the message to the supervisor with its key, or ``REFUSED`` or ``QUEUED``.
    :param nth: which of these calls or messages of the process.
    :param resumed: whether it is the worker that the triggerer's event has started.
    :param victim: the process of the task alone, or its supervisor too, or the triggerer that has the task's trigger.
    :param in_flight: what happens to the request that was held.
    """

    when: When
    what: str
    nth: int = 1
    resumed: bool = False
    victim: Victim = "task"
    in_flight: InFlightRequest = "is lost"

    @property
    def is_call(self) -> bool:
        """Whether the emulator holds a call for it."""
        return self.what in (CREATE, LIST, DESCRIBE, VERSIONS)

    @property
    def is_refusal(self) -> bool:
        """Whether the emulator refuses the create for it. In any other case the process kills itself."""
        return self.what in (REFUSED, QUEUED)

    def __str__(self) -> str:
        what = {INTENT: "intent", ID: "id"}.get(self.what, self.what)
        parts = [
            f"{self.when} {what}",
            f"({self.nth})" if self.nth > 1 else "",
            "resumed" if self.resumed else "",
            f"and it {self.in_flight}" if self.in_flight != "is lost" else "",
        ]
        return " ".join(filter(None, parts))


@dataclass(frozen=True)
class Point:
    """Where a run is killed: once, or again in each of the next tries.

    :param stays_active: whether the processing task still runs when the retry starts; otherwise it has ended.
    :param needs_retry: whether the kill costs a try. It does not if Airflow already has the final state.
    """

    phase: Literal["submit", "persist", "defer", "queue", "wait", "conclude"]
    kills: tuple[Kill, ...]
    stays_active: bool = True
    needs_retry: bool = True

    def __str__(self) -> str:
        return ", then ".join(map(str, self.kills))

    @property
    def victims(self) -> str:
        """Which processes are killed."""
        return ", ".join(kill.victim for kill in self.kills)

    @property
    def task_at_retry(self) -> str:
        """The state of the processing task when the retry starts."""
        if not self.needs_retry:
            return "no retry"
        return "active" if self.stays_active else "ended"


def worker(kill: Kill) -> Kill:
    return replace(kill, victim="worker")


def triggerer(phase: Literal["queue", "wait"], *kills: Kill, stays_active: bool = True) -> Point:
    """Return a point at which the triggerer is killed, which costs no try."""
    victims = tuple(replace(kill, victim="triggerer") for kill in kills)
    return Point(phase, victims, stays_active=stays_active, needs_retry=False)


LOST_ANSWER = Kill("after", CREATE)

#: Where the worker submits, all modes are the same until the id is stored and pushed.
SUBMIT = (
    Point("submit", (Kill("before", INTENT),)),
    Point("submit", (Kill("after", INTENT),)),
    Point("submit", (worker(Kill("after", "DeleteTaskStateStore modelarts_processor_task_id")),)),
    Point("submit", (Kill("before", CREATE),)),
    Point("submit", (Kill("before", CREATE, in_flight="acts at once"),)),
    Point("submit", (Kill("before", CREATE, in_flight="acts after the look-up"),)),
    Point("submit", (Kill("before", CREATE, in_flight="acts last"),)),
    Point("submit", (LOST_ANSWER,)),
    Point("submit", (LOST_ANSWER,), stays_active=False),
    Point("submit", (worker(LOST_ANSWER),)),
    Point("persist", (Kill("before", ID),)),
    Point("persist", (worker(Kill("before", ID)),), stays_active=False),
    Point("persist", (Kill("after", ID),)),
    Point("persist", (Kill("before", "SetXCom processor_task_id"),), stays_active=False),
    Point("persist", (Kill("after", "SetXCom processor_task_id"),)),
    # Killed in the retry too
    Point("submit", (LOST_ANSWER, Kill("before", LIST))),
    Point("submit", (LOST_ANSWER, Kill("after", LIST), Kill("before", ID))),
    Point("submit", (Kill("before", CREATE), LOST_ANSWER, worker(Kill("after", LIST)))),
)
SYNCHRONOUS = (
    Point("wait", (Kill("before", DESCRIBE),)),
    Point("wait", (worker(Kill("after", DESCRIBE)),)),
    Point("wait", (Kill("after", DESCRIBE, 2),)),
    Point("wait", (Kill("before", DESCRIBE, 3),)),
    Point("wait", (Kill("after", DESCRIBE, 2), Kill("after", DESCRIBE), Kill("before", DESCRIBE, 2))),
    Point("conclude", (Kill("before", VERSIONS),), stays_active=False),
    Point("conclude", (Kill("after", VERSIONS),), stays_active=False),
    Point("conclude", (Kill("before", "SetXCom result"),), stays_active=False),
    Point("conclude", (Kill("after", "SetXCom version"),), stays_active=False),
    Point("conclude", (Kill("before", INTENT, 2),), stays_active=False),
    Point("conclude", (Kill("after", INTENT, 2),), stays_active=False),
    Point("conclude", (Kill("before", "SetXCom return_value"),), stays_active=False),
    Point("conclude", (worker(Kill("before", "SucceedTask")),), stays_active=False),
    Point("conclude", (Kill("after", "SucceedTask"),), stays_active=False, needs_retry=False),
)
DEFER = (
    Point("defer", (Kill("before", "DeferTask"),)),
    Point("defer", (worker(Kill("before", "DeferTask")),), stays_active=False),
    Point("defer", (Kill("before", "DeferTask"), Kill("after", DESCRIBE), Kill("before", "DeferTask"))),
    Point("defer", (Kill("after", "DeferTask"),), stays_active=False, needs_retry=False),
)
#: Where the triggerer submits, the worker stores the intent and defers.
QUEUE = (
    Point("submit", (Kill("before", INTENT),)),
    Point("submit", (worker(Kill("after", INTENT)),)),
    Point("defer", (Kill("before", "DeferTask"),)),
    Point("defer", (worker(Kill("before", "DeferTask")), Kill("after", LIST))),
    Point("defer", (Kill("after", "DeferTask"),), needs_retry=False),
    triggerer("queue", Kill("after", QUEUED)),
    triggerer("queue", Kill("after", REFUSED)),
    triggerer("queue", Kill("before", CREATE)),
    triggerer("queue", Kill("before", CREATE, in_flight="acts at once")),
    triggerer("queue", Kill("before", CREATE, in_flight="acts last")),
    triggerer("queue", LOST_ANSWER),
    triggerer("queue", LOST_ANSWER, stays_active=False),
    triggerer("queue", LOST_ANSWER, Kill("before", LIST)),
    triggerer("queue", LOST_ANSWER, Kill("after", LIST)),
    triggerer("wait", Kill("before", DESCRIBE)),
    triggerer("wait", Kill("after", DESCRIBE)),
    triggerer("wait", Kill("after", DESCRIBE), stays_active=False),
)
RESUMED = (
    Point("persist", (Kill("before", ID, resumed=True),), stays_active=False),
    Point("persist", (worker(Kill("after", ID, resumed=True)),), stays_active=False),
    Point("conclude", (Kill("before", DESCRIBE, resumed=True),), stays_active=False),
    Point("conclude", (Kill("after", DESCRIBE, resumed=True),), stays_active=False),
    Point("conclude", (Kill("before", VERSIONS, resumed=True),), stays_active=False),
    Point("conclude", (worker(Kill("after", VERSIONS, resumed=True)),), stays_active=False),
    Point("conclude", (Kill("before", "SetXCom work_path", resumed=True),), stays_active=False),
    Point("conclude", (Kill("before", INTENT, resumed=True),), stays_active=False),
    Point("conclude", (Kill("after", INTENT, resumed=True),), stays_active=False),
    Point("conclude", (worker(Kill("before", "SucceedTask", resumed=True)),), stays_active=False),
    Point("conclude", (Kill("after", DESCRIBE, resumed=True), Kill("after", VERSIONS)), stays_active=False),
    Point("conclude", (Kill("after", "SucceedTask", resumed=True),), stays_active=False, needs_retry=False),
)
#: "create deferrable at once" is the worker's submission with the triggerer's wait, as with wait_for_capacity=False.
MODES: dict[str, Iterable[Point]] = {
    "create": (*SUBMIT, *SYNCHRONOUS),
    "create deferrable at once": (*SUBMIT, *DEFER),
    "create deferrable": (*QUEUE, *RESUMED),
}
