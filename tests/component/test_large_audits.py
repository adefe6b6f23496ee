"""An audit of very many tasks: its requests and its memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from airflow_modelarts.api import operations
from airflow_modelarts.api.client import KEPT_IDS
from airflow_modelarts.api.http import Request, Response
from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.api.operations import Page
from airflow_modelarts.audit import AuditReport, ListReader, Window, audit, milliseconds
from airflow_modelarts.audit.rows import FORMATS, row
from tests.support.flows import ONCE, client, pages

START = datetime(2026, 11, 23, tzinfo=UTC)
DAY = Window(START, START + timedelta(days=1))
LAST = milliseconds(DAY.end) - 1


class Service:
    """A list of so many tasks, the newest first; one in ten has failed. No task exists before it is listed."""

    def __init__(self, count: int) -> None:
        self.count, self.requests = count, 0
        #: How many places the list has shifted.
        self.first = 0

    def answer(self, request: Request) -> Response:
        """Return a page."""
        self.requests += 1
        query = dict(parse_qsl(urlsplit(request.url).query))
        begin = int(query["offset"]) * int(query["limit"])
        begin, count = begin - self.first, self.count
        numbers = range(max(begin, 0), min(begin + int(query["limit"]), count))
        # Pydantic keeps up to 16,384 shorter texts in a cache.
        tasks = [{"task_id": f"{n:064}", "status": 2 + (n % 10 == 0), "create_time": LAST - n} for n in numbers]
        return Response(200, {}, json.dumps({"count": self.count + self.first, "tasks": tasks}).encode())

    def pages(self) -> Iterator[Page[ProcessorTask]]:
        """Read the list through the client, without a socket."""
        flow = pages(operations.list_processor_tasks(sort_by="create_time", order="desc"), ONCE)
        settings, outcome = client(), None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration:
                return
            outcome = None
            if isinstance(step, Page):
                yield step
            else:
                outcome = self.answer(step) if isinstance(step, Request) else settings


def run(service: Service, rows: Path) -> AuditReport:
    """Audit the list, and write the rows."""
    with rows.open("wb") as file:

        def write(task: ProcessorTask, checks: object) -> None:
            file.write(FORMATS[".jsonl"](row(task, ())))

        return audit(ListReader(service.pages()), window=DAY, now=DAY.end, on_task=write)


def traced_peak(count: int, rows: Path) -> int:
    """Return the bytes that an audit of so many tasks has at most."""
    tracemalloc.start()
    try:
        run(Service(count), rows)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_100_000_tasks_take_1_000_requests() -> None:
    service = Service(100_000)
    report = audit(ListReader(service.pages()), window=DAY, now=DAY.end)
    assert (report.total, report.findings["failed"].count) == (100_000, 10_000)
    assert service.requests == 1000


def test_more_tasks_take_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The limits are lowered, so that both lists exceed them.
    monkeypatch.setattr("airflow_modelarts.audit.report.KEPT_FINDINGS", 20)
    monkeypatch.setattr("airflow_modelarts.api.client.KEPT_IDS", 200)
    run(Service(200), tmp_path / "warm.jsonl")
    few, many = (traced_peak(count, tmp_path / "rows.jsonl") for count in (500, 2500))
    assert many - few < 60_000, "30 bytes a task, which is less than its id takes"
    assert many < 1_000_000


def test_a_task_that_comes_again_after_many_others_is_counted_once() -> None:
    """New tasks shift the list by all places that an audit remembers."""
    service = Service(3 * KEPT_IDS)
    answer = service.answer

    def shifted(request: Request) -> Response:
        service.first = KEPT_IDS - 100 if service.requests >= KEPT_IDS // 100 else 0
        return answer(request)

    service.answer = shifted  # type: ignore[method-assign]  # the list shifts while it is read
    report = audit(ListReader(service.pages()), window=DAY, now=DAY.end)
    assert report.total == 3 * KEPT_IDS
