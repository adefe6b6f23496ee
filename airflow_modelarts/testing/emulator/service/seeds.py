"""Generated processing tasks of the last day, as in a ModelArts that is in use."""

from __future__ import annotations

import math
from hashlib import sha256
from typing import Any

from airflow_modelarts.api.models import FEATURE_ANALYSIS
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.modelarts import ModelArtsService
from airflow_modelarts.testing.emulator.service.tasks import (
    COMPLETED,
    FAILED,
    ID_CHARACTERS,
    ID_LENGTH,
    INITIALIZED,
    RUNNING,
    STOPPED,
    Run,
    Task,
    Version,
)

#: Seconds ago.
OLDEST = 23.5 * 3600
NEWEST_RUNNING = 1200.0
NEWEST_INITIALIZED = 60.0

#: The first five tasks have each status once. No other task is active, so that a DAG can wait for all active ones.
FIRST_STATUSES = (RUNNING, COMPLETED, FAILED, STOPPED, INITIALIZED)
LATER_STATUSES = (COMPLETED, COMPLETED, FAILED, STOPPED, COMPLETED)
#: The word in a task's name, by template id.
TEMPLATES = {
    FEATURE_ANALYSIS: "feature-analysis",
    "sys_data_validation": "validation",
    "sys_data_cleaning": "cleaning",
    "sys_data_selection": "selection",
    "sys_data_augmentation": "augmentation",
}
DATASETS = ("street-signs", "shop-shelves", "chest-x-rays", "solar-panels", "wheat-leaves", "circuit-boards")
LABELS = (("stop", "yield"), ("full", "empty"), ("clear", "shadow"), ("intact", "cracked"), ("rust", "healthy"))
ERROR_MESSAGES = (
    "The OBS bucket my-bucket has reached its quota: 214 of 600 samples were written.",
    "Sample 00000042.jpg is not a readable image.",
    "The labels of the dataset changed while it was read.",
)


def seed(service: ModelArtsService, count: int) -> list[Task]:
    """Add tasks as if people had created them during the last day. Each call adds the same tasks with the same ids.

    The first is a feature analysis that runs until a test ends it. The fifth stays initialized until a test changes it.
    All others have ended.

    :param count: number of tasks: 5 include every status, 25 include every terminal status of every template.
    :returns: the tasks by number, the first one first.
    """
    now = service.clock.now()
    tasks = [_task(number, count, now) for number in range(1, count + 1)]
    for task in sorted(tasks, key=lambda task: task.created_at):
        service.put_task(task)
    return tasks


def _task(number: int, count: int, now: float) -> Task:
    index = number - 1
    template_id = list(TEMPLATES)[(index + index // len(TEMPLATES)) % len(TEMPLATES)]
    status = FIRST_STATUSES[index] if index < len(FIRST_STATUSES) else LATER_STATUSES[index % len(LATER_STATUSES)]
    if template_id == FEATURE_ANALYSIS and status == STOPPED:
        status = COMPLETED  # it has no version that could be stopped
    dataset = DATASETS[index % len(DATASETS)]
    name = f"{dataset}-{TEMPLATES[template_id]}-{number:03}"
    run = _run(index, count, status, now)
    task = Task(_id_of(name), accounts.PROJECT_ID, _body(name, dataset, template_id, index), run, 0, run.created_at)
    if task.is_feature_analysis:
        task.result = _result(index)
    else:
        task.versions_created = 1
        version_id = _id_of(f"{name}/V001")
        task.versions.append(Version(version_id, "V001", task.task_id, task.body, run, 100 + 37 * index % 900))
    return task


def _run(index: int, count: int, status: int, now: float) -> Run:
    """Return a run. Only the initialized task is newer than the first; the last is almost a day old."""
    if status == INITIALIZED:
        return Run(now - NEWEST_INITIALIZED, math.inf, math.inf)
    age = NEWEST_RUNNING + (OLDEST - NEWEST_RUNNING) * index / max(count - 1, 1)
    created_at = now - age
    if status == RUNNING:
        return Run(created_at, created_at + 30, math.inf)
    duration = min(300.0 + 420 * (index * 7 % 23), age * 0.9)  # five minutes to three hours, ended before now
    error_msg = ERROR_MESSAGES[index % len(ERROR_MESSAGES)] if status == FAILED else None
    return Run(created_at, created_at + min(30, duration / 2), created_at + duration, status, error_msg)


def _body(name: str, dataset: str, template_id: str, index: int) -> dict[str, Any]:
    # One in seven writes to another bucket, for an audit to find.
    place = "obs://scratch-bucket" if index % 7 == 6 else "obs://my-bucket/processed"
    source = (
        {"type": "DATASET", "source": _id_of(dataset), "name": dataset}
        if index % 2
        else {"type": "OBS", "source": f"obs://my-bucket/raw/{dataset}/"}
    )
    return {
        "name": name,
        "description": f"{TEMPLATES[template_id]} of {dataset}",
        "template": {"id": template_id, "operator_params": [{"id": template_id, "params": {}}]},
        "inputs": [source],
        "work_path": {"type": "OBS", "path": f"{place}/{dataset}/{index + 1:03}/"},
    }


def _result(index: int) -> dict[str, Any]:
    samples = 400 + 61 * index % 500
    share = 0.5 + index % 4 / 10
    first, second = LABELS[index % len(LABELS)]
    counts = [int(samples * share), samples - int(samples * share)]
    return {
        "sample_count": samples,
        "labels": [{"name": first, "count": counts[0]}, {"name": second, "count": counts[1]}],
        "features": {"brightness": {"mean": round(0.4 + index % 5 / 20, 2), "std": 0.12}},
    }


def _id_of(name: str) -> str:
    """Derive an id in the service's form from a name."""
    number = int.from_bytes(sha256(name.encode()).digest())
    characters = []
    for _ in range(ID_LENGTH):
        number, remainder = divmod(number, len(ID_CHARACTERS))
        characters.append(ID_CHARACTERS[remainder])
    return "".join(characters)
