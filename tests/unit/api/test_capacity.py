"""Waiting for capacity: which refusals say "not now", what the log says, and 60 workers at a gateway that throttles."""

import heapq
import json
import random
from collections.abc import Callable, Generator
from email.utils import formatdate
from itertools import count, pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_modelarts.api import capacity, error_mapping, operations, procedures
from airflow_modelarts.api.client import ClientConfig
from airflow_modelarts.api.errors import ModelArtsError, ModelArtsTransientError
from airflow_modelarts.api.http import ReadConnection, Request, Response, Sleep, TransportError
from airflow_modelarts.api.rate import RateLimiter
from airflow_modelarts.testing.emulator.control import faults
from airflow_modelarts.testing.emulator.control.faults import LimitRate
from tests.support.flows import (
    BROKEN,
    NOON,
    REFUSED_CONNECTION,
    TIMEOUT,
    UNKNOWN_NAME,
    Clock,
    answer,
    client,
    refuse,
    run_flow,
)

HTML = Response(503, {"content-type": "text/html"}, b"<html><body>Unavailable</body></html>")


def read(refusal: Response | TransportError) -> ModelArtsError:
    if isinstance(refusal, TransportError):
        return error_mapping.from_transport(refusal, operation="o", target="t", address="https://m.example")
    return error_mapping.from_response(refusal, operation="o", target="t", secrets=(), now=NOON)


@pytest.mark.parametrize(
    ("refusal", "is_limit"),
    [
        *((refuse(400, f"ModelArts.{number}"), True) for number in ("4409", "4616", "4992")),
        *((refuse(400, f"ModelArts.{number}"), False) for number in ("4343", "4370", "4704", "4613", "4206", "4395")),
        *((refuse(status, "ModelArts.4409"), False) for status in (500, 503)),
        (refuse(403, "ModelArts.4850"), False),
        (refuse(429, "APIGW.0308"), False),
        (refuse(429), False),
        (refuse(408), False),
        (HTML, False),
        (REFUSED_CONNECTION, False),
        (TIMEOUT, False),
        (BROKEN, False),
    ],
)
def test_a_temporary_refusal_is_waited_out_and_a_limit_is_told_apart(
    refusal: Response | TransportError, *, is_limit: bool
) -> None:
    assert capacity.is_not_now(read(refusal))
    assert capacity.is_limit(read(refusal)) is is_limit


@pytest.mark.parametrize(
    "refusal",
    [
        *(refuse(400, f"ModelArts.{number}") for number in ("0116", "0118", "4714", "4853", "4854", "0104", "4709")),
        *(refuse(403, f"ModelArts.{number}") for number in ("4116", "4118", "4106", "0108", "4803")),
        refuse(400, "ModelArts.4354"),
        refuse(404),
        UNKNOWN_NAME,
    ],
)
def test_a_refusal_that_waiting_does_not_mend_is_final(refusal: Response | TransportError) -> None:
    assert not capacity.is_not_now(read(refusal))


def test_an_error_of_a_defect_is_final() -> None:
    assert not capacity.is_not_now(KeyError("x"))


def test_the_delays_grow_up_to_a_minute_and_add_to_retry_after() -> None:
    answers = [
        *[refuse(400, "ModelArts.4409")] * 9,
        refuse(429, "APIGW.0308", retry_after="1000"),
        answer({"task_id": "a"}),
    ]
    starts: list[float] = []
    clock = Clock()

    def submit() -> Any:
        starts.append(clock.now)
        return procedures.create_task(CREATE, "n", None, submission())

    run_flow(capacity.submit_when_there_is_room(submit, lambda: 0.5), answers, clients=client(), clock=clock)
    delays = [round(later - earlier - 1) for earlier, later in pairwise(starts)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60, 360]


def test_a_delay_of_a_killed_caller_ends_within_a_second() -> None:
    clock, killed = Clock(), False

    def submit() -> Generator[Any, Any, str]:
        if killed:
            raise ModelArtsError("Task was killed; not submitting.")
        raise ModelArtsTransientError("later", retry_after=300.0)
        yield

    def is_killed() -> bool:
        nonlocal killed
        killed = clock.now >= NOON + 10
        return killed

    flow = capacity.submit_when_there_is_room(submit, lambda: 0.5, is_killed=is_killed)
    assert "not submitting" in str(run_flow(flow, clock=clock).error)
    assert clock.now <= NOON + 11


def test_a_submission_that_may_not_be_repeated_ends_when_its_outcome_is_unknown() -> None:
    def submit() -> Generator[Any, Any, str]:
        raise ModelArtsTransientError("lost", outcome_unknown=True)
        yield

    flow = capacity.submit_when_there_is_room(submit, lambda: 0.5, can_repeat=False)
    assert run_flow(flow).error.outcome_unknown


# 60 workers that submit at the same time through a gateway that accepts two requests a second

CREATE = operations.create_processor_task(name="n", template={"id": "t"}, data_source={"type": "OBS"})


def submission() -> procedures.Submission:
    return procedures.Submission(may_exist=False, waits=True, is_ours=True, retries=capacity.ONE_ATTEMPT)


class Gateway:
    """A service in memory behind a token bucket, on a virtual clock."""

    def __init__(self, refusal: Callable[[float], Response], monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.tasks: dict[str, str] = {}
        self.requests = 0
        self._refusal = refusal
        monkeypatch.setattr(faults, "time", type("Time", (), {"monotonic": staticmethod(lambda: self.now)}))
        self._bucket = LimitRate(rate=2, burst=2)

    def answer(self, request: Request) -> Response:
        self.requests += 1
        if self._bucket.applies():
            return self._refusal(NOON + self.now)
        if request.method == "GET":
            name = parse_qs(urlsplit(request.url).query)["task_name"][0]
            found = [{"task_id": self.tasks[name], "name": name, "status": 1}] if name in self.tasks else []
            return answer({"count": len(found), "tasks": found})
        name = json.loads(request.body)["name"]
        if name in self.tasks:
            return refuse(400, "ModelArts.4709")
        self.tasks[name] = f"id-of-{name}"
        return answer({"task_id": self.tasks[name]})

    def run(self, flows: list[Generator[Any, Any, str]], configs: list[ClientConfig]) -> list[str]:
        """Run flows at the same time, each as in a process of its own; return what they return."""
        returned: dict[int, str] = {}
        order = count()
        due: list[tuple[float, int, int, Any]] = [(0.0, next(order), number, None) for number in range(len(flows))]
        while due:
            self.now, _, number, outcome = heapq.heappop(due)
            try:
                step = flows[number].send(outcome)
            except StopIteration as end:
                returned[number] = end.value
                continue
            delay, result = 0.05, None
            if isinstance(step, Sleep):
                delay = step.seconds
            elif isinstance(step, Request):
                result = self.answer(step)
            else:
                assert isinstance(step, ReadConnection)
                delay, result = 0.0, configs[number]
            heapq.heappush(due, (self.now + delay, next(order), number, result))
        return [returned[number] for number in range(len(flows))]


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(lambda now: refuse(429, "APIGW.0308"), id="429"),
        pytest.param(lambda now: refuse(429, "APIGW.0308", retry_after="1"), id="429 with Retry-After"),
        pytest.param(
            lambda now: refuse(429, "APIGW.0308", retry_after=formatdate(now + 30, usegmt=True)), id="429 with a date"
        ),
        pytest.param(lambda now: HTML, id="503 with a page"),
    ],
)
def test_sixty_workers_at_two_requests_a_second_create_sixty_tasks(
    refusal: Callable[[float], Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, draw = Gateway(refusal, monkeypatch), random.Random(7)
    flows, configs = [], []
    for number in range(60):
        name = f"n-{number}"
        create = operations.create_processor_task(name=name, template={"id": "t"}, data_source={"type": "OBS"})
        own = submission()

        def submit(create: Any = create, name: str = name, own: procedures.Submission = own) -> Any:
            return procedures.create_task(create, name, None, own)

        flows.append(capacity.submit_when_there_is_room(submit, draw.random))
        base = client()
        configs.append(
            ClientConfig(
                base.endpoint,
                base.project_id,
                base.credentials,
                base.cache,
                lambda: NOON + gateway.now,
                draw.random,
                limiter=RateLimiter(lambda: gateway.now),
            )
        )
    assert gateway.run(flows, configs) == [f"id-of-n-{number}" for number in range(60)]
    assert len(gateway.tasks) == 60
    assert gateway.now < 600
