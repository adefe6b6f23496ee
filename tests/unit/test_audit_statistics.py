"""The durations of an audit: sums and percentiles of groups, in bounded memory; and the groups by name."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.audit import AuditReport, Window, audit, milliseconds
from airflow_modelarts.audit.statistics import MAX_GROUPS, OTHERS, REPORTED_GROUPS, DurationCounter, Groups, name_prefix

START = datetime(2026, 11, 23, tzinfo=UTC)
DAY = Window(START, START + timedelta(days=1))


def task(**fields: Any) -> ProcessorTask:
    usual = {"task_id": "t", "status": 2, "create_time": milliseconds(START), "template": {"id": "cleaning"}}
    return ProcessorTask.model_validate({**usual, **fields})


def report_on(*tasks: ProcessorTask) -> AuditReport:
    return audit(tasks, window=DAY, now=DAY.end)


@given(st.lists(st.floats(0, 1e9) | st.integers(0, 100), min_size=1))
def test_sums_are_exact_and_percentiles_to_a_twentieth(seconds: list[float]) -> None:
    counter = DurationCounter()
    for one in seconds:
        counter.add(one)
    found, ordered = counter.result(), sorted(seconds)
    assert found.count == len(seconds)
    assert found.seconds == pytest.approx(sum(seconds))
    assert found.longest == ordered[-1]
    for percentile, share in ((found.p50, 0.5), (found.p95, 0.95)):
        exact = ordered[math.ceil(share * len(ordered)) - 1]
        assert percentile == pytest.approx(exact, rel=0.0501, abs=1)


def test_a_counter_does_not_grow_with_the_number_of_tasks() -> None:
    counter = DurationCounter()
    for number in range(100_000):
        counter.add(number)
    assert len(counter._counts) < 250


def test_further_groups_are_one_and_nothing_is_lost() -> None:
    groups = Groups()
    for number in range(MAX_GROUPS + 500):
        groups.add(f"group-{number}", number)
    found = groups.result()
    assert len(found) == REPORTED_GROUPS + 1
    assert next(iter(found)) == f"group-{MAX_GROUPS - 1}", "the largest sum comes first"
    assert sum(one.count for one in found.values()) == MAX_GROUPS + 500
    assert found[OTHERS].longest == MAX_GROUPS + 499


def test_ended_tasks_are_grouped_by_template_name_and_source() -> None:
    dataset = {"type": "DATASET", "source": "PYc9"}
    report = report_on(
        task(name="ingest-1", duration_seconds=10, data_source=dataset),
        task(name="ingest-2", duration_seconds=30, data_source={"type": "OBS", "source": "/b/in/"}, status=3),
        task(
            name=None, duration_seconds=50, template={"id": "other"}, inputs=[dataset, {"type": "TASK", "source": "x"}]
        ),
        task(name="ingest-3", duration_seconds=1000, status=1),
        task(name="ingest-4"),
    )
    statistics = report.to_json()["statistics"]
    assert statistics["total"] == {"count": 3, "seconds": 90, "p50": 30, "p95": 50, "longest": 50}
    sums = {
        group: {name: one["seconds"] for name, one in statistics[group].items()}
        for group in ("by_template", "by_name", "by_source")
    }
    assert sums == {
        "by_template": {"other": 50, "cleaning": 40},
        "by_name": {"unknown": 50, "ingest": 40},
        "by_source": {"PYc9, x": 50, "obs://b/in": 30, "PYc9": 10},
    }


def test_without_a_known_duration_there_are_no_statistics() -> None:
    statistics = report_on(task()).to_json()["statistics"]
    assert statistics == {"total": None, "by_template": {}, "by_name": {}, "by_source": {}}
    assert json.dumps(statistics, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("ingest-2026-11-23-0001", "ingest"),
        ("nightly_clean_20261123T0200", "nightly_clean"),
        ("street signs 7", "street signs"),
        ("task0001", "task"),
        ("s3copy-daily-001", "s3copy-daily"),
        ("v2-ingest-001", "v2-ingest"),
        ("2026-11-23-ingest", "ingest"),
        ("plain", "plain"),
        ("clean-", "clean"),
        ("dag__task__5f2c1", "dag__task"),
        ("123", ""),
        ("", ""),
    ],
)
def test_names_of_one_pipeline_have_one_prefix(name: str, prefix: str) -> None:
    assert name_prefix(name) == prefix


@given(st.text())
def test_any_name_has_a_prefix(name: str) -> None:
    assert len(name_prefix(name)) <= len(name)
