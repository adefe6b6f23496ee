"""The points at which workers are killed, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

When = Literal["before", "after"]
Victim = Literal["task", "worker"]
#: What becomes of a request whose sender was killed before the service acted on it: it is lost, or it acts while nobody
#: looks, when the retry has looked and found nothing, or when the retry has sent another.
Fate = Literal["is lost", "acts at once", "acts after the look-up", "acts last"]

CREATE, LIST = "CreateProcessorTask", "ListProcessorTasks"
DESCRIBE, VERSIONS = "DescribeProcessorTask", "ListProcessorTaskVersions"
INTENT, ID = "SetTaskStateStore modelarts_submission", "SetTaskStateStore modelarts_processor_task_id"


@dataclass(frozen=True)
class Kill:
    """
    One SIGKILL.

    :param when: before or after what happens: a call that the service acts upon, or a message to Airflow.
    :param what: the service's operation, or the message to the supervisor with its key.
    :param nth: of those since the process began.
    :param resumed: in the worker that the triggerer's event has started.
    :param victim: the task's process alone, or its supervisor too.
    """

    when: When
    what: str
    nth: int = 1
    resumed: bool = False
    victim: Victim = "task"
    fate: Fate = "is lost"

    @property
    def is_call(self) -> bool:
        """Whether the emulator holds it; otherwise the process kills itself."""
        return self.what in (CREATE, LIST, DESCRIBE, VERSIONS)

    def __str__(self) -> str:
        what = {INTENT: "intent", ID: "id"}.get(self.what, self.what)
        parts = [
            f"{self.when} {what}",
            f"({self.nth})" if self.nth > 1 else "",
            "resumed" if self.resumed else "",
            f"and it {self.fate}" if self.fate != "is lost" else "",
        ]
        return " ".join(filter(None, parts))


@dataclass(frozen=True)
class Point:
    """
    Where a run is killed: once, or again in each try that follows.

    :param stays_active: whether the processing task still runs when the retry comes; else it has ended by then.
    :param needs_retry: false for what Airflow knows already when it happens.
    """

    phase: Literal["submit", "persist", "defer", "wait", "conclude"]
    kills: tuple[Kill, ...]
    stays_active: bool = True
    needs_retry: bool = True

    def __str__(self) -> str:
        return ", then ".join(map(str, self.kills))

    @property
    def victims(self) -> str:
        """Who is killed, in words."""
        return ", ".join(kill.victim for kill in self.kills)

    @property
    def hits(self) -> str:
        """How the processing task is when the retry comes, in a word."""
        if not self.needs_retry:
            return "no retry"
        return "active" if self.stays_active else "ended"


def worker(kill: Kill) -> Kill:
    return replace(kill, victim="worker")


LOST_ANSWER = Kill("after", CREATE)

#: Until the id is stored and told, both paths are the same.
SUBMIT = (
    Point("submit", (Kill("before", INTENT),)),
    Point("submit", (Kill("after", INTENT),)),
    Point("submit", (worker(Kill("after", "DeleteTaskStateStore modelarts_processor_task_id")),)),
    Point("submit", (Kill("before", CREATE),)),
    Point("submit", (Kill("before", CREATE, fate="acts at once"),)),
    Point("submit", (Kill("before", CREATE, fate="acts after the look-up"),)),
    Point("submit", (Kill("before", CREATE, fate="acts last"),)),
    Point("submit", (LOST_ANSWER,)),
    Point("submit", (LOST_ANSWER,), stays_active=False),
    Point("submit", (worker(LOST_ANSWER),)),
    Point("persist", (Kill("before", ID),)),
    Point("persist", (worker(Kill("before", ID)),), stays_active=False),
    Point("persist", (Kill("after", ID),)),
    Point("persist", (Kill("before", "SetXCom processor_task_id"),), stays_active=False),
    Point("persist", (Kill("after", "SetXCom processor_task_id"),)),
    # In the retry too
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
DEFERRABLE = (
    Point("defer", (Kill("before", "DeferTask"),)),
    Point("defer", (worker(Kill("before", "DeferTask")),), stays_active=False),
    Point("defer", (Kill("before", "DeferTask"), Kill("after", DESCRIBE), Kill("before", "DeferTask"))),
    Point("defer", (Kill("after", "DeferTask"),), stays_active=False, needs_retry=False),
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
PATHS: dict[str, Iterable[Point]] = {
    "synchronous": (*SUBMIT, *SYNCHRONOUS),
    "deferrable": (*SUBMIT, *DEFERRABLE),
}
