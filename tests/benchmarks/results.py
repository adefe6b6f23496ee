"""What a 20 MB result costs us, beside ``json.loads`` and ``json.dumps`` on the same answer. Linux only."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.tables import show

#: By form of the result, the most that we may take, as a multiple of what ``json`` takes.
BUDGETS = {"object": 1.0, "array": 1.0, "text": 1.2}
ITEMS = 175_000
FORMS = tuple(BUDGETS)
ROUNDS = 7


def answer(form: str) -> bytes:
    """Make an answer of DescribeProcessorTask whose result has some 20 MB."""
    items = [
        {"sample": f"s3://bucket/dataset/images/{number:08}.jpg", "label": "cat", "brightness": number / 7, "ok": True}
        for number in range(ITEMS)
    ]
    result: Any = {"object": {"samples": items}, "array": items, "text": json.dumps(items)}[form]
    return json.dumps({"task_id": "abc", "status": 2, "name": "V001", "result": result}).encode()


def plain(body: bytes) -> None:
    """Do what nobody can do without: read the answer, the result too if it is JSON in a string, and write it."""
    task = json.loads(body)
    if isinstance(task["result"], str):
        task["result"] = json.loads(task["result"])
    json.dumps(task)


def ours(body: bytes) -> None:
    """Do what the describe operator does, and what Airflow does with each XCom at the least."""
    from airflow_modelarts.api import models

    task = models.parse(models.ProcessorTask, body)
    description = task.to_json()
    for value in (description, task.result, description.get("work_path")):
        json.dumps(value)


def measure(way: str, file: str) -> None:
    """Read an answer in a process of its own, and print seconds of CPU and the growth of the peak memory in MB."""
    from airflow_modelarts.api import models

    models.parse(models.ProcessorTask, b'{"task_id": "warm"}').to_json()
    body = Path(file).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = _peak_kilobytes()
    started = time.process_time()
    {"plain": plain, "ours": ours}[way](body)
    seconds = time.process_time() - started
    print(seconds, (_peak_kilobytes() - before) / 1024)


def _peak_kilobytes() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def run() -> None:
    """Measure each form and way in fresh processes, and print the ratios."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            file = Path(folder, form)
            file.write_bytes(answer(form))
            # In turn, so that a busy moment of the machine concerns both.
            rounds = [[_run(way, file) for way in ("plain", "ours")] for _ in range(ROUNDS)]
            (plain_s, plain_mb), (our_s, our_mb) = (
                [statistics.median(figures) for figures in zip(*measured, strict=True)]
                for measured in zip(*rounds, strict=True)
            )
            ratios = (our_s / plain_s, our_mb / plain_mb)
            rows.append((form, plain_s, our_s, ratios[0], plain_mb, our_mb, ratios[1], BUDGETS[form]))
    head = ("result as", "plain CPU s", "ours CPU s", "ratio", "plain MB", "ours MB", "ratio", "budget")
    show("A result of some 20 MB, beside json.loads + json.dumps", head, rows)


def _run(way: str, file: Path) -> list[float]:
    program = [sys.executable, "-m", "tests.benchmarks.results", way, str(file)]
    output = subprocess.run(program, capture_output=True, check=True).stdout
    return [*map(float, output.split())]


if __name__ == "__main__":
    measure(*sys.argv[1:])
