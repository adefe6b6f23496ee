"""The submission queue of the triggerer, on a virtual clock and a service in memory."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_modelarts.api import operations, procedures
from airflow_modelarts.api.capacity import ONE_ATTEMPT
from airflow_modelarts.api.errors import ModelArtsBusyError, ModelArtsError
from airflow_modelarts.api.http import Flow, Request, Response
from airflow_modelarts.api.targets import Target
from airflow_modelarts.polling import submission_queue
from airflow_modelarts.polling.submission_queue import BATCH_DELAY, QueueEvent, Submitted, Ticket, Waiting
from tests.support.target_waits import wait_for_end
from tests.support.virtual import now, run
from tests.support.virtual_service import ACTIVE, Service, error_response

KEY = "conn"
INPUTS = [{"type": "DATASET", "source": "abc"}]


class Limited(Service):
    """A service that creates tasks as long as fewer than ``limit`` are active.

    :param duration: seconds that a task takes.
    :param template_limits: as ``limit``, by template.
    """

    def __init__(
        self, limit: int = 10, duration: float = 5.0, template_limits: dict[str, int] | None = None, **fields: Any
    ) -> None:
        super().__init__(latency=0.02, **fields)
        self.limit, self.duration, self.template_limits = limit, duration, template_limits or {}
        self.templates: dict[str, str] = {}
        self.posts: list[tuple[float, str, bool]] = []  # when, of which name, and whether it was accepted

    async def exchange(self, request: Request) -> Response:
        if request.method != "POST":
            return await super().exchange(request)
        await asyncio.sleep(self.latency / 2)
        body = json.loads(request.body)
        name, template = body["name"], body["template"]["id"]
        active = [self.templates[task_id] for task_id, task in self.tasks.items() if task.status(now()) in ACTIVE]
        most = self.template_limits.get(template, self.limit)
        is_accepted = len(active) < self.limit and active.count(template) < most
        self.templates[name] = template
        self.posts.append((now(), name, is_accepted))
        if is_accepted:
            self.add([name], (0.0, 1), (now() + self.duration, 2))
        await asyncio.sleep(self.latency / 2)
        answer = json.dumps({"task_id": name}).encode()
        return Response(200, {}, answer) if is_accepted else error_response(400, "ModelArts.4409")

    @property
    def refused(self) -> int:
        return sum(not is_accepted for _, _, is_accepted in self.posts)

    @property
    def created(self) -> list[str]:
        return [name for _, name, is_accepted in self.posts if is_accepted]


@dataclass
class Submitter:
    name: str
    template: str
    submission: procedures.Submission = field(
        default_factory=lambda: procedures.Submission(may_exist=False, waits=True, retries=ONE_ATTEMPT)
    )

    def attempt(self) -> Flow[str]:
        create = operations.create_processor_task(
            name=self.name, template={"id": self.template, "operator_params": []}, inputs=INPUTS
        )
        return procedures.create_task(create, self.name, None, self.submission)


class Broken:
    def attempt(self) -> Flow[str]:
        raise ZeroDivisionError("defect")


def ticket(name: str, priority: int = 1, since: float = 0.0, template: str = "sys_data_validation") -> Ticket:
    return Ticket(priority, since, template, Submitter(name, template))


@asynccontextmanager
async def joined(
    service: Service, mine: Ticket, interval: float = 1.0, refusal: ModelArtsError | None = None
) -> AsyncGenerator[None]:
    queue = submission_queue.join(KEY, service.open, mine, poll_interval=interval, refusal=refusal)
    try:
        yield
    finally:
        await queue.leave(mine)


async def events_of(mine: Ticket) -> AsyncGenerator[QueueEvent]:
    while not isinstance(event := mine.take_event(), Submitted):
        if event is None:
            await mine.next_event()
        else:
            yield event
    yield event


async def submit(service: Service, name: str, interval: float = 1.0, **fields: Any) -> list[Any]:
    """Submit one task, wait for its end, and return the events of the queue with their times."""
    mine = ticket(name, **fields)
    async with joined(service, mine, interval):
        queued = [(now(), event) async for event in events_of(mine)]
        target = Target(mine.external_id or "")
        await wait_for_end(KEY, service.open, target, interval=interval, on_event=lambda _: None)
        submission_queue.note_end(KEY, target)
        return queued


@pytest.mark.parametrize("interval", [0.5, 1.0])
def test_a_fan_out_of_two_hundred_at_a_limit_of_ten(interval: float) -> None:
    service = Limited()

    async def main() -> float:
        await asyncio.gather(*(submit(service, f"n{number}", interval, since=float(number)) for number in range(200)))
        return now()

    assert run(main()) <= 1.25 * 100
    assert service.created == [f"n{number}" for number in range(200)], "in the order of arrival, each once"
    assert service.refused <= 0.5 * 200
    assert service.opened == service.closed


@pytest.mark.parametrize(
    ("count", "limit", "duration", "most"), [(40, 4, 2.0, 60), (200, 10, 5.0, 160), (12, 5, 15.0, 75)]
)
def test_a_long_poll_interval_does_not_delay_a_fan_out_of_short_tasks(
    count: int, limit: int, duration: float, most: float
) -> None:
    service = Limited(limit, duration)

    async def main() -> float:
        await asyncio.gather(*(submit(service, f"n{number}", 60.0, since=float(number)) for number in range(count)))
        return max(at for at, _, is_accepted in service.posts if is_accepted)

    assert run(main()) <= most
    assert service.refused <= 0.5 * count


def test_long_tasks_cost_few_polls_more_while_others_are_queued() -> None:
    service = Limited(limit=10, duration=7200.0)

    async def main() -> None:
        await asyncio.gather(*(submit(service, f"n{number}", 60.0, since=float(number)) for number in range(20)))

    run(main())
    lists = sum(call.is_list for call in service.calls)
    assert lists <= 2 * 1.3 * 14_400 / 60


def test_throttled_polls_are_not_repeated_sooner_because_others_are_queued() -> None:
    service = Limited(limit=2, duration=1000.0)
    service.fault = lambda call: error_response(429, "APIGW.0308", Retry_After="300") if now() > 5 else None

    async def main() -> None:
        waiting = [asyncio.create_task(submit(service, f"n{number}", 20.0)) for number in range(4)]
        await asyncio.sleep(900)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(main())
    assert len([call for call in service.calls if call.time > 30]) <= 12


def test_nobody_else_posts_while_the_first_is_refused() -> None:
    service = Limited(limit=0)

    async def main() -> None:
        waiting = [asyncio.create_task(submit(service, f"n{number}", since=float(number))) for number in range(1000)]
        await asyncio.sleep(600)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(main())
    assert {name for _, name, _ in service.posts} == {"n0"}
    assert len(service.posts) <= 20, "the intervals grow up to a minute"


# A limit of one template

LIMITED, OTHER = "sys_data_cleaning", "sys_data_validation"


def test_a_template_with_a_limit_of_its_own_does_not_hold_up_the_others() -> None:
    service = Limited(limit=1000, duration=600.0, template_limits={LIMITED: 1})

    async def main() -> None:
        limited = (submit(service, f"l{number}", since=0.0, template=LIMITED) for number in range(4))
        others = (submit(service, f"o{number}", since=1.0, template=OTHER) for number in range(20))
        await asyncio.gather(*limited, *others)

    run(main())
    accepted = {name: at for at, name, is_accepted in service.posts if is_accepted}
    assert all(accepted[f"o{number}"] < 3 for number in range(20))
    assert all(600 * number <= accepted[f"l{number}"] <= 603 * number + 3 for number in range(4))
    assert service.refused <= 0.5 * 24 + 3 * 12, "the first one of the template tries at growing intervals"


def test_at_the_limit_of_the_project_a_place_goes_to_the_first_one_whatever_its_template() -> None:
    service = Limited(limit=2, duration=50.0)

    async def main() -> None:
        await asyncio.gather(
            *(
                submit(service, f"n{number}", since=float(number), template=[OTHER, LIMITED][number % 2])
                for number in range(20)
            )
        )

    run(main())
    # A place that is freed between the refusal of the first entry and the next request goes to the next template.
    overtaking = [place - int(name.removeprefix("n")) for place, name in enumerate(service.created)]
    assert max(overtaking) <= service.limit
    assert service.refused <= 2 * 6 * 10, "at each of ten ends twice what one template costs"


def test_two_templates_at_a_limit_cost_the_requests_of_two() -> None:
    service = Limited(limit=0)

    async def main() -> None:
        waiting = [
            asyncio.create_task(
                submit(service, f"n{number}", since=float(number), template=[OTHER, LIMITED][number % 2])
            )
            for number in range(1000)
        ]
        await asyncio.sleep(600)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(main())
    assert {name for _, name, _ in service.posts} == {"n0", "n1"}
    assert len(service.posts) <= 40


def test_no_worker_gets_a_turn_to_find_out_which_limit_is_reached() -> None:
    service = Limited(limit=0)
    turn = Ticket(1, 1.0)

    async def main() -> float:
        waiting = asyncio.create_task(submit(service, "a"))
        asyncio.get_running_loop().call_later(600, setattr, service, "limit", 1)
        async with joined(service, turn):
            assert [type(event) async for event in events_of(turn)] == [Waiting, Submitted]
            given = now()
        await waiting
        return given

    assert run(main()) > 600
    assert service.created == ["a"]


def test_the_entries_of_a_template_at_its_limit_are_told_why_they_wait() -> None:
    service = Limited(limit=1000, duration=30.0, template_limits={LIMITED: 1})

    async def main() -> list[Any]:
        limited = (submit(service, f"l{number}", since=0.0, template=LIMITED) for number in range(3))
        other = submit(service, "o", since=1.0, template=OTHER)
        return list(await asyncio.gather(*limited, other))

    *limited, other = run(main())
    for events in limited[1:]:
        assert events[0][1].reason == "the limit of running tasks is reached"
        assert events[0][0] < 1
    assert [type(event) for _, event in other] == [Submitted]


def test_the_next_one_posts_as_soon_as_the_end_of_another_is_seen() -> None:
    service = Limited(limit=1, duration=100.0)

    async def main() -> None:
        await asyncio.gather(submit(service, "first"), submit(service, "second", since=1.0))

    run(main())
    (_, first, _), *_, (at, last, is_accepted) = service.posts
    assert (first, last, is_accepted) == ("first", "second", True)
    assert 100 <= at <= 102


def test_places_that_others_free_are_found() -> None:
    service = Limited(limit=0)

    async def main() -> list[Any]:
        waiting = asyncio.create_task(submit(service, "a"))
        await asyncio.sleep(200)
        service.limit = 1
        return await waiting

    (waited, _), (submitted, _) = run(main())
    assert waited < 1
    assert 200 <= submitted <= 200 + 72


def test_a_higher_priority_is_submitted_first_among_those_that_are_queued() -> None:
    service = Limited(limit=1)

    async def main() -> None:
        await asyncio.gather(*(submit(service, f"p{priority}", priority=priority) for priority in (1, 5, 3)))

    run(main())
    assert service.created == ["p5", "p3", "p1"]


def test_the_position_is_told_once_and_when_it_has_halved() -> None:
    service = Limited(limit=1, duration=5.0)

    async def main() -> list[Any]:
        return list(await asyncio.gather(*(submit(service, f"n{number}", since=float(number)) for number in range(41))))

    events = [event for _, event in run(main())[40]]
    positions = [event.position for event in events if isinstance(event, Waiting)]
    assert positions[0] == 40
    assert all(after <= before / 2 for before, after in itertools.pairwise(positions))
    assert 4 <= len(positions) <= 7
    assert events[-1] == Submitted("n40", has_waited=True)
    assert {event.reason for event in events if isinstance(event, Waiting)} == {"the limit of running tasks is reached"}


def test_an_entry_that_joins_a_full_queue_is_told_its_position_at_once() -> None:
    service = Limited(limit=0)

    async def main() -> list[Any]:
        waiting = [asyncio.create_task(submit(service, f"n{number}", since=float(number))) for number in range(3)]
        await asyncio.sleep(5)
        late = ticket("late", since=9.0)
        async with joined(service, late):
            first = await anext(events_of(late))
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return [first]

    assert run(main()) == [Waiting("the limit of running tasks is reached", 4, 4)]


def test_without_a_limit_nobody_is_told_to_wait() -> None:
    service = Limited(limit=1000)

    async def main() -> list[Any]:
        return list(await asyncio.gather(*(submit(service, f"n{number}") for number in range(30))))

    assert all(type(event) is Submitted and not event.has_waited for events in run(main()) for _, event in events)
    assert service.posts[-1][0] <= BATCH_DELAY + 31 * service.latency


def test_an_entry_that_leaves_while_it_is_submitted_learns_the_outcome() -> None:
    service = Limited()
    mine = ticket("a")

    async def main() -> None:
        async with joined(service, mine):
            await asyncio.sleep(BATCH_DELAY + service.latency / 4)
            assert mine.under_way is not None
            assert mine.external_id is None

    run(main())
    assert (mine.external_id, service.created) == ("a", ["a"])


def test_an_entry_that_leaves_before_its_turn_is_not_submitted() -> None:
    service = Limited()

    async def main() -> None:
        waiting = asyncio.create_task(submit(service, "a"))
        await asyncio.sleep(BATCH_DELAY / 2)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    run(main())
    assert service.posts == []


def test_a_defect_fails_its_entry_and_not_the_others() -> None:
    service = Limited()
    broken = Ticket(9, 0.0, submitter=Broken())

    async def main() -> list[Any]:
        async def use() -> None:
            async with joined(service, broken):
                await anext(events_of(broken))

        return list(await asyncio.gather(use(), submit(service, "a"), return_exceptions=True))

    error, events = run(main())
    assert isinstance(error, ZeroDivisionError)
    assert isinstance(events[-1][1], Submitted)


def test_two_waits_for_the_same_target_free_one_place() -> None:
    service = Limited(limit=1, duration=10.0)

    async def main() -> None:
        first = asyncio.create_task(submit(service, "a"))
        others = [asyncio.create_task(submit(service, f"n{number}", since=1.0 + number)) for number in range(2)]
        while len(service.created) < 2:  # noqa: ASYNC110 - the service has no event for it
            await asyncio.sleep(0.1)
        before = len(service.posts)
        submission_queue.note_end(KEY, Target("a"))  # a sensor saw it, too
        await asyncio.sleep(0.5)
        assert len(service.posts) == before
        await asyncio.gather(first, *others)

    run(main())


def test_an_end_without_a_queue_is_ignored() -> None:
    async def main() -> None:
        submission_queue.note_end(KEY, Target("a"))

    run(main())


@pytest.mark.parametrize(("is_noted", "least", "most"), [(True, 0.0, 0.1), (False, 1.5, 3.0)])
def test_the_wait_for_a_version_shows_that_a_worker_has_submitted_in_its_turn(
    is_noted: bool, least: float, most: float
) -> None:
    service = Limited()
    full = ModelArtsBusyError("full", error_code="ModelArts.4409")

    async def main() -> float:
        first, second = Ticket(1, 0.0), Ticket(1, 1.0)
        async with joined(service, first, refusal=full):
            assert [type(event) async for event in events_of(first)] == [Waiting, Submitted]
            given = now()
            async with joined(service, second):
                if is_noted:
                    submission_queue.note_start(KEY)
                assert [event async for event in events_of(second)]
            return now() - given

    assert least <= run(main()) <= most
